#include "core/sweep/sweep.hpp"

#include <algorithm>

namespace rnnbptt {
namespace {

// Windows in flight where all states are kept: that of the chain, the one before it and the one after it.
constexpr Index side_by_side = 3;

}  // namespace

template <typename Scalar, typename State>
Sweep<Scalar, State>::Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem,
                            const Gradients<Scalar>& gradients, const Schedule& schedule,
                            Coarsening<Scalar, State>& coarsening)
    : run_(run),
      workspace_(workspace),
      problem_(problem),
      gradients_(gradients),
      schedule_(schedule),
      coarsening_(coarsening),
      model_(coarsening.model()),
      windows_(problem, model_, schedule),
      stages_(run, problem, gradients, model_, windows_, schedule.splits),
      keep_all_states_(schedule.keep_all_states && windows_.count() > 1) {}

template <typename Scalar, typename State>
Differentiated Sweep<Scalar, State>::differentiate() {
  forward();
  const Index states = problem_.shape.B * problem_.shape.h;
  RunningPass<Scalar, State> pass = start(gradients_.params, {});
  if (problem_.d_hT != nullptr) std::copy(problem_.d_hT, problem_.d_hT + states, pass.carry);
  const double loss = backward(pass);
  bool finite = pass.finish(run_);
  finite = store_start(pass) && finite;
  finite = clear_behind_ends() && finite;
  return {loss, finite};
}

template <typename Scalar, typename State>
bool Sweep<Scalar, State>::store_start(const RunningPass<Scalar, State>& pass) {
  if (gradients_.h0 == nullptr) return true;
  const Index states = problem_.shape.B * problem_.shape.h;
  std::transform(pass.carry, pass.carry + states, gradients_.h0,
                 [](State v) { return static_cast<Scalar>(v); });
  return all_finite(states, gradients_.h0);
}

// --- the order of the stages

// Where not all states are kept, each window leaves the one that the next starts from, and the last window's
// states are in memory at the end.
template <typename Scalar, typename State>
void Sweep<Scalar, State>::forward() {
  windows_.allocate(workspace_, keep_all_states_ ? side_by_side : 1, keep_all_states_);
  windows_.allocate_gradients(workspace_, static_cast<bool>(gradients_.x));
  Chain<Scalar, State>& chain = chain_.emplace(run_, workspace_, problem_, model_, windows_, schedule_);
  const Index windows = windows_.count();
  parallel(run_, {stages_.inputs(windows_.load(0))});
  for (Index w = 0; w < windows; ++w) {
    Rows& rows = windows_.load(w);
    chain.begin_states(rows);
    chain.run(rows, keep_all_states_ && w + 1 < windows ? stages_.inputs(windows_.load(w + 1)) : Stage{});
    chain.keep_states(rows);
    if (!keep_all_states_ && w + 1 < windows) parallel(run_, {stages_.inputs(windows_.load(w + 1))});
  }
  states_of_ = windows - 1;
  chain.prepare_backward();
  stages_.prepare_backward(workspace_);
}

template <typename Scalar, typename State>
RunningPass<Scalar, State> Sweep<Scalar, State>::start(const Params<Scalar>& wanted,
                                                       const BackwardPass<Scalar, State>& options) {
  const Index states = problem_.shape.B * problem_.shape.h;
  return {workspace_, coarsening_, wanted, schedule_.splits, states, options};
}

template <typename Scalar, typename State>
double Sweep<Scalar, State>::backward(RunningPass<Scalar, State>& pass) {
  Chain<Scalar, State>& chain = *chain_;
  const BackwardPass<Scalar, State>& options = pass.options;
  const Index windows = windows_.count();
  stages_.begin_pass(pass);
  double loss = 0;
  const auto sums_of = [&](Rows& rows) { return options.accumulate ? stages_.sums(rows) : Stage{}; };
  const Index steps = windows_.length() * model_.L;
  Index last = windows - 1;
  // Where d_o is zeroed in all of a window, nothing is carried on from it.
  if (!options.accumulate && options.reuse_d_o && options.every >= problem_.shape.T)
    last = std::min(last, std::max<Index>(options.kept - 1, 0) / steps);
  for (Index w = last; w >= 0; --w) {
    Rows& rows = windows_.load(w);
    if (!keep_all_states_ && states_of_ != w && (options.accumulate || !options.reuse_d_o)) {
      parallel(run_, {stages_.inputs(rows)});
      chain.begin_states(rows);
      chain.run(rows);
      states_of_ = w;
    }
    if (!keep_all_states_ || w == last) {
      parallel(run_, {stages_.losses(rows)});
      loss = stages_.add_losses(rows, loss);
    }
    chain.begin_adjoint(rows, pass);
    Rows* before = keep_all_states_ && w > 0 ? &windows_.load(w - 1) : nullptr;
    Rows* after = keep_all_states_ && w < last ? &windows_.load(w + 1) : nullptr;
    chain.run(rows, before != nullptr ? stages_.losses(*before) : Stage{},
              after != nullptr ? sums_of(*after) : Stage{});
    chain.end_adjoint(rows, pass);
    if (before != nullptr) loss = stages_.add_losses(*before, loss);
    if (!keep_all_states_ || w == 0) parallel(run_, {sums_of(rows)});
  }
  return loss;
}

template <typename Scalar, typename State>
void Sweep<Scalar, State>::evaluate(SequenceView<Scalar> o, InnerStates<Scalar, State>* inner, State* last) {
  const Index windows = windows_.count(), h = problem_.shape.h;
  windows_.allocate(workspace_, windows > 1 ? side_by_side : 1, false);
  Chain<Scalar, State> chain(run_, workspace_, problem_, model_, windows_, schedule_);
  const Index complete = problem_.shape.T / model_.L;
  const Index holder = std::min(complete / windows_.length(), windows - 1);
  parallel(run_, {stages_.inputs(windows_.load(0))});
  for (Index w = 0; w < windows; ++w) {
    Rows& rows = windows_.load(w);
    chain.begin_states(rows);
    chain.run(rows, w + 1 < windows ? stages_.inputs(windows_.load(w + 1)) : Stage{},
              w > 0 ? stages_.outputs(windows_.load(w - 1), o, inner) : Stage{});
    chain.keep_states(rows);
    if (last == nullptr || w != holder) continue;
    for (const Segment& segment : rows.window.segments) {
      const State* state = chain.state(segment, complete - w * windows_.length());
      std::copy(state, state + h, last + segment.sequence * h);
    }
  }
  parallel(run_, {stages_.outputs(windows_.load(windows - 1), o, inner)});
  clear_behind_ends(o, problem_.shape.q);
  if (inner != nullptr) clear_behind_ends(inner->hidden(), h);
}

template <typename Scalar, typename State>
bool Sweep<Scalar, State>::clear_behind_ends() {
  if (gradients_.x) clear_behind_ends(gradients_.x, problem_.shape.d);
  return stages_.finite();
}

template <typename Scalar, typename State>
void Sweep<Scalar, State>::clear_behind_ends(SequenceView<Scalar> sequence, Index size) const {
  for (Index b = 0; b < problem_.shape.B; ++b)
    for (Index t = problem_.length(b); t < problem_.shape.T; ++t)
      std::fill(sequence.at(t, b), sequence.at(t, b) + size, Scalar{0});
}

template class Sweep<float, float>;
template class Sweep<float, double>;
template class Sweep<double, double>;

}  // namespace rnnbptt
