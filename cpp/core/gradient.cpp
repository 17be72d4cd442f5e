#include "core/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/powers.hpp"
#include "core/sweep.hpp"

namespace rnnbptt {
namespace {

// The squares of W_hh that a schedule asks for, and the schedule that follows from how many there are.
struct Plan {
  Squares squares;
  Schedule schedule;
  int levels = 0;

  // Whether the chain of states is to be carried in float64.
  bool wide() const { return levels > 0 && !squares.forgetting; }
};

template <typename Scalar>
Plan plan_with_powers(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                      const Problem<Scalar>& problem, bool input_gradient, const Schedule& schedule) {
  Plan result{{}, schedule, 0};
  if (schedule.levels == 0) return result;
  const Index h = problem.shape.h;
  auto* W_hh = workspace.take<double>(h * h);
  std::copy(params.W_hh, params.W_hh + h * h, W_hh);
  result.squares =
      repeated_squares(run, workspace, h, W_hh, schedule.levels, sizeof(Scalar) == sizeof(double));
  result.levels = static_cast<int>(result.squares.powers.size()) - 1;
  if (result.levels < schedule.levels) {
    // Powers of W_hh grew too large: what was planned for longer chunks does not fit these.
    result.schedule.choices.levels = result.levels;
    result.schedule = plan(problem, params.b_h != nullptr, input_gradient, result.schedule.choices);
  }
  return result;
}

template <typename Scalar>
Schedule without_lift(const Params<const Scalar>& params, const Problem<Scalar>& problem, bool input_gradient,
                      const Schedule& schedule) {
  Choices plain = schedule.choices;
  plain.levels = 0;
  return plan(problem, params.b_h != nullptr, input_gradient, plain);
}

}  // namespace

template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                Taken* taken) {
  workspace.reset();
  Taken report;
  const auto input_gradient = static_cast<bool>(gradients.x);
  const auto chosen = plan_with_powers(run, workspace, params, problem, input_gradient, schedule);
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, problem.shape, params, chosen.squares.powers,
                                         input_gradient, problem.tangent);
    Sweep<Scalar, State> sweep(run, workspace, problem, gradients, chosen.schedule, coarsening);
    report = {chosen.schedule, coarsening.model().L, sweep.windows()};
    return sweep.differentiate();
  };
  const std::optional<double> loss = chosen.wide() ? sweep_in(double{}) : sweep_in(Scalar{});
  if (!loss)
    return gradient(run, workspace, params, problem, gradients, without_lift(params, problem, true, schedule),
                    taken);
  if (taken != nullptr) *taken = report;
  return *loss;
}

template <typename Scalar>
void outputs(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, Scalar* last, const Schedule& schedule) {
  workspace.reset();
  const Shape& s = problem.shape;
  const auto chosen = plan_with_powers(run, workspace, params, problem, false, schedule);
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, s, params, chosen.squares.powers, false);
    const Gradients<Scalar> none;
    Sweep<Scalar, State> sweep(run, workspace, problem, none, chosen.schedule, coarsening);
    auto* states = last != nullptr ? workspace.take<State>(s.B * s.h) : nullptr;
    sweep.evaluate(o, states);
    if (last != nullptr)
      std::transform(states, states + s.B * s.h, last, [](State v) { return static_cast<Scalar>(v); });
    return coarsening.model().L;
  };
  const Index L = chosen.wide() ? sweep_in(double{}) : sweep_in(Scalar{});
  if (L == 1) return;
  for (Index t = 0; t < s.T; ++t)
    for (Index b = 0; b < s.B; ++b)
      if (!std::all_of(o.at(t, b), o.at(t, b) + s.q, [](Scalar v) { return std::isfinite(v); }))
        // Through the zeros of a lift's direct term it may have spread to steps before it.
        return outputs(run, workspace, params, problem, o, last,
                       without_lift(params, problem, false, schedule));
  if (last == nullptr) return;
  // The steps behind the last complete chunk.
  const auto W_hh =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, s.h, s.h, s.h}.transposed());
  const auto W_hx =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, s.h, s.d, s.d}.transposed());
  auto* next = workspace.take<Scalar>(s.B * s.h);
  for (Index t = s.T / L * L; t < s.T; ++t) {
    multiply<Scalar>(s.B, {problem.x.at(t, 0), problem.x.sequence}, W_hx, {params.b_h, 0}, {next, s.h});
    multiply<Scalar>(s.B, {last, s.h}, W_hh, {next, s.h}, {next, s.h});
    std::copy(next, next + s.B * s.h, last);
  }
}

template void outputs(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                      SequenceView<float>, float*, const Schedule&);
template void outputs(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                      SequenceView<double>, double*, const Schedule&);
template double gradient(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                         const Gradients<float>&, const Schedule&, Taken*);
template double gradient(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                         const Gradients<double>&, const Schedule&, Taken*);

}  // namespace rnnbptt
