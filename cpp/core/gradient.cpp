#include "core/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/algebra/powers.hpp"
#include "core/recurrence.hpp"
#include "core/sliding/sliding_sweep.hpp"
#include "core/sweep/sweep.hpp"

namespace rnnbptt {
namespace {

// A schedule, and the powers of W_hh up to its L.
struct Plan {
  PowerChain power_chain;
  Schedule schedule;
  double growth = 0;

  // Whether the chain of states is to be carried in float64.
  bool wide() const { return power_chain.powers.size() > 1 && !power_chain.forgetting; }
};

template <typename Scalar>
Schedule plan_up_to(Index L, const Params<const Scalar>& params, const Problem<Scalar>& problem, Goal goal,
                    const Schedule& schedule) {
  Choices choices = schedule.choices;
  choices.lift = L;
  return plan(problem, params.b_h != nullptr, goal, choices);
}

template <typename Scalar>
Plan plan_with_powers(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                      const Problem<Scalar>& problem, Goal goal, const Schedule& schedule) {
  Plan result{{}, schedule};
  if (schedule.L == 1) return result;
  const Index h = problem.shape.h;
  const double* W_hh = copy_as<double>(workspace, params.W_hh, h * h);
  const auto build_to = [&](Index L) {
    result.power_chain =
        build_powers(run, workspace, {h, problem.tangent}, W_hh, L, sizeof(Scalar) == sizeof(double));
    result.growth = std::max(result.growth, result.power_chain.growth);
    return result.power_chain.powers.back().n;
  };
  for (Index reached = build_to(schedule.L); reached < result.schedule.L;) {
    // Powers of W_hh grew too large: planned again for the chunks that are left.
    result.schedule = plan_up_to(reached, params, problem, goal, schedule);
    if (result.schedule.L != reached) reached = build_to(result.schedule.L);
  }
  return result;
}

// Has a plan follow a schedule of shorter chunks, if it has their power, and that one is exact.
bool step_down(Plan& plan, const Schedule& schedule) {
  auto& powers = plan.power_chain.powers;
  const auto power =
      std::find_if(powers.begin(), powers.end(), [&](const Power& P) { return P.n == schedule.L; });
  if (schedule.L == 1 || power == powers.end() || power->low == nullptr) return false;
  powers.erase(power + 1, powers.end());
  plan.schedule = schedule;
  return true;
}

// Has a plan follow a problem that is cut at blocks, if chunks do not end there.
template <typename Scalar>
void fit_to_blocks(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                   const Problem<Scalar>& cut, Goal goal, const Schedule& schedule, Plan& result) {
  if (cut.block % result.schedule.L == 0) return;
  const Schedule fitting = plan(cut, params.b_h != nullptr, goal, schedule.choices);
  if (!step_down(result, fitting)) result = plan_with_powers(run, workspace, params, cut, goal, fitting);
}

// Runs states, (B, h), on from step `first` to the last one.
template <typename Scalar>
void run_on(Workspace& workspace, const Params<const Scalar>& params, const Problem<Scalar>& problem,
            Index first, Scalar* states) {
  const Shape& s = problem.shape;
  const auto W_hh =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, s.h, s.h, s.h}.transposed());
  const auto W_hx =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, s.h, s.d, s.d}.transposed());
  auto* next = workspace.take<Scalar>(s.B * s.h);
  for (Index t = first; t < s.T; ++t) {
    multiply<Scalar>(s.B, {problem.x.at(t, 0), problem.x.sequence}, W_hx, {params.b_h, 0}, {next, s.h});
    multiply<Scalar>(s.B, {states, s.h}, W_hh, {next, s.h}, {next, s.h});
    std::copy(next, next + s.B * s.h, states);
  }
}

}  // namespace

template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                UsedSchedule* used) {
  workspace.reset();
  UsedSchedule found;
  const auto input_gradient = static_cast<bool>(gradients.x);
  const Goal goal = input_gradient ? Goal::input_gradients : Goal::gradients;
  auto chosen = plan_with_powers(run, workspace, params, problem, goal, schedule);
  Problem<Scalar> cut = problem;
  std::optional<LagWindows> lag_windows;
  if (problem.tau > 0) {
    lag_windows.emplace(run, workspace, params, problem, chosen.power_chain, chosen.schedule.L);
    cut.block = lag_windows->block();
    fit_to_blocks(run, workspace, params, cut, goal, schedule, chosen);
  }
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, problem.shape, params, chosen.power_chain.powers,
                                         input_gradient, problem.tangent);
    Sweep<Scalar, State> sweep(run, workspace, cut, gradients, chosen.schedule, coarsening);
    found = {chosen.schedule, coarsening.model().L, sweep.windows().count(), chosen.growth};
    if (!lag_windows) return sweep.differentiate();
    return SlidingSweep<Scalar, State>(run, workspace, params, cut, gradients, chosen.power_chain.powers,
                                       *lag_windows, sweep)
        .differentiate();
  };
  const std::optional<double> loss = chosen.wide() ? sweep_in(double{}) : sweep_in(Scalar{});
  if (!loss)
    return gradient(run, workspace, params, problem, gradients,
                    plan_up_to(1, params, problem, goal, schedule), used);
  if (used != nullptr) *used = found;
  return *loss;
}

template <typename Scalar>
void outputs(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, SequenceView<Scalar> hidden,
             Scalar* last, const Schedule& schedule) {
  workspace.reset();
  const Shape& s = problem.shape;
  const Goal goal = hidden ? Goal::states : Goal::outputs;
  const auto chosen = plan_with_powers(run, workspace, params, problem, goal, schedule);
  if (hidden && chosen.schedule.L == 1 && problem.lengths == nullptr && last == nullptr)
    return forward(run, workspace, params, problem, o, hidden);
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, s, params, chosen.power_chain.powers, false, false);
    const Gradients<Scalar> none;
    Sweep<Scalar, State> sweep(run, workspace, problem, none, chosen.schedule, coarsening);
    auto* states = last != nullptr ? workspace.take<State>(s.B * s.h) : nullptr;
    std::optional<InnerStates<Scalar, State>> inner;
    if (hidden)
      inner.emplace(workspace, problem, params, coarsening.model(), sweep.windows(), chosen.schedule.splits,
                    hidden);
    sweep.evaluate(o, inner ? &*inner : nullptr, states);
    if (last != nullptr)
      std::transform(states, states + s.B * s.h, last, [](State v) { return static_cast<Scalar>(v); });
    return coarsening.model().L;
  };
  const Index L = chosen.wide() ? sweep_in(double{}) : sweep_in(Scalar{});
  if (L == 1) return;
  for (Index t = 0; t < s.T; ++t)
    for (Index b = 0; b < s.B; ++b)
      if (!std::all_of(o.at(t, b), o.at(t, b) + s.q, [](Scalar v) { return std::isfinite(v); }))
        // 0 * inf in the zeros of a lift's Direct may have spoiled steps before it.
        return outputs(run, workspace, params, problem, o, hidden, last,
                       plan_up_to(1, params, problem, goal, schedule));
  if (last != nullptr) run_on(workspace, params, problem, s.T / L * L, last);
}

template void outputs(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                      SequenceView<float>, SequenceView<float>, float*, const Schedule&);
template void outputs(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                      SequenceView<double>, SequenceView<double>, double*, const Schedule&);
template double gradient(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                         const Gradients<float>&, const Schedule&, UsedSchedule*);
template double gradient(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                         const Gradients<double>&, const Schedule&, UsedSchedule*);

}  // namespace rnnbptt
