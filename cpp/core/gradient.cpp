#include "core/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

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

// The schedule of the recursion step by step, without powers of W_hh.
template <typename Scalar>
Schedule plan_plain(const Params<const Scalar>& params, const Problem<Scalar>& problem, Goal goal,
                    const Schedule& schedule) {
  Schedule stepwise = schedule;
  stepwise.choices.piece = 0;
  return plan_up_to(1, params, problem, goal, stepwise);
}

template <typename Scalar>
double largest(Index n, const Scalar* A) {
  Scalar result = 0;
  for (Index i = 0; i < n && A != nullptr; ++i) result = std::max(result, std::abs(A[i]));
  return static_cast<double>(result);
}

// Whether products of weights, which a lift is made of, are far from both ends of the range.
template <typename Scalar>
bool moderate(const Shape& s, const Params<const Scalar>& params) {
  using Limits = std::numeric_limits<Scalar>;
  const double to = std::max(largest(s.h * s.d, params.W_hx), largest(s.h, params.b_h));
  const double from = largest(s.q * s.h, params.W_qh);
  const double product = std::log2(to) + std::log2(from);
  return to == 0 || from == 0 ||
         (product > Limits::min_exponent + Limits::digits && product < Limits::max_exponent - Limits::digits);
}

template <typename Scalar>
Plan plan_with_powers(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                      const Problem<Scalar>& problem, Goal goal, const Schedule& schedule) {
  Plan result{{}, schedule};
  if (schedule.L == 1) return result;
  if (!moderate(problem.shape, params)) {
    result.schedule = plan_up_to(1, params, problem, goal, schedule);
    return result;
  }
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

// The gradient on a schedule, or one of shorter chunks.
template <typename Scalar>
Differentiated differentiate(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                             const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
                             const Schedule& schedule, UsedSchedule& used) {
  workspace.reset();
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
    used = {chosen.schedule, coarsening.model().L, sweep.windows().count(), chosen.growth};
    if (!lag_windows) return sweep.differentiate();
    return SlidingSweep<Scalar, State>(run, workspace, params, cut, gradients, chosen.schedule,
                                       chosen.power_chain.powers, *lag_windows, sweep)
        .differentiate();
  };
  return chosen.wide() ? sweep_in(double{}) : sweep_in(Scalar{});
}

// Numbers times a power of two; null for null.
template <typename Scalar>
std::vector<Scalar> times(Scalar factor, const Scalar* A, Index n) {
  std::vector<Scalar> result(A != nullptr ? static_cast<std::size_t>(n) : 0);
  std::transform(A, A + result.size(), result.begin(), [=](Scalar v) { return v * factor; });
  return result;
}

// Sums of numbers near the end of the range may leave it, in one order or another, where what they sum up to
// does not. So what is not finite is computed once more for states, and for gradients of states, that are
// scaled down by a power of two. What that makes too small is nothing beside numbers near that end.
template <typename Scalar>
void mend(Run& run, Workspace& workspace, const Params<const Scalar>& params, const Problem<Scalar>& problem,
          const Gradients<Scalar>& gradients, const Schedule& schedule, double& loss) {
  const Shape& s = problem.shape;
  const double terms = static_cast<double>(s.T * s.B + s.d + s.h + s.q + 2);
  const int bits = static_cast<int>(std::ceil(std::log2(terms)));
  const Scalar down = std::ldexp(Scalar{1}, -bits);
  Params<const Scalar> from = params;
  Problem<Scalar> scaled = problem;
  scaled.down = down;
  const auto b_h = times(down, params.b_h, s.h), b_q = times(down, params.b_q, s.q),
             h0 = times(down, problem.h0, s.B * s.h), d_hT = times(down, problem.d_hT, s.B * s.h);
  if (from.b_h != nullptr) from.b_h = b_h.data();
  if (from.b_q != nullptr) from.b_q = b_q.data();
  if (scaled.h0 != nullptr) scaled.h0 = h0.data();
  if (scaled.d_hT != nullptr) scaled.d_hT = d_hT.data();

  // Gradients as they are, those of the scaled problem, and the power of two by which these are smaller.
  struct Pair {
    Scalar* given;
    Index size;
    int bits;
    std::vector<Scalar> again;
  };
  const Params<Scalar>& to = gradients.params;
  Pair pairs[] = {{to.W_hx, s.h * s.d, 2 * bits, {}},
                  {to.W_hh, s.h * s.h, 2 * bits, {}},
                  {to.W_qh, s.q * s.h, 2 * bits, {}},
                  {to.b_h, s.h, bits, {}},
                  {to.b_q, s.q, bits, {}},
                  {to.W_qx, s.q * s.d, 2 * bits, {}},
                  {gradients.h0, s.B * s.h, bits, {}}};
  for (Pair& pair : pairs)
    if (pair.given != nullptr) pair.again.resize(static_cast<std::size_t>(pair.size));
  const auto at = [&](int i) { return pairs[i].given != nullptr ? pairs[i].again.data() : nullptr; };
  std::vector<Scalar> inputs(gradients.x ? static_cast<std::size_t>(s.T * s.B * s.d) : 0);
  const Gradients<Scalar> again{{at(0), at(1), at(2), at(3), at(4), at(5)},
                                at(6),
                                {gradients.x ? inputs.data() : nullptr, s.B * s.d, s.d}};
  UsedSchedule used;
  const Differentiated found = differentiate(run, workspace, from, scaled, again, schedule, used);
  const auto fill_in = [](Scalar& given, Scalar value, int power) {
    if (!std::isfinite(given)) given = std::ldexp(value, power);
  };
  for (const Pair& pair : pairs)
    for (std::size_t i = 0; i < pair.again.size(); ++i) fill_in(pair.given[i], pair.again[i], pair.bits);
  for (Index t = 0; t < s.T && gradients.x; ++t)
    for (Index b = 0; b < s.B; ++b)
      for (Index i = 0; i < s.d; ++i) fill_in(gradients.x.at(t, b)[i], again.x.at(t, b)[i], bits);
  if (!std::isfinite(loss)) loss = std::ldexp(found.loss, bits);
}

}  // namespace

template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                UsedSchedule* used) {
  UsedSchedule found;
  const Goal goal = gradients.x ? Goal::input_gradients : Goal::gradients;
  Differentiated result = differentiate(run, workspace, params, problem, gradients, schedule, found);
  if (!result.finite() && (found.L > 1 || found.schedule.piece > 0))
    // Powers may have left the range where the recursion does not, or made one number of several infinite
    // ones whose sum is none.
    result = differentiate(run, workspace, params, problem, gradients,
                           plan_plain(params, problem, goal, schedule), found);
  if (!result.finite() && problem.tau == 0)
    mend(run, workspace, params, problem, gradients, found.schedule, result.loss);
  if (used != nullptr) *used = found;
  return result.loss;
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
                       plan_plain(params, problem, goal, schedule));
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
