#include "core/sweep/sweep.hpp"

#include <algorithm>
#include <limits>

namespace rnnbptt {
namespace {

// Windows that the stages of a sweep run through at once.
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
      keep_(schedule.keep && windows_.count() > 1) {}

template <typename Scalar, typename State>
std::optional<double> Sweep<Scalar, State>::differentiate() {
  windows_.allocate(workspace_, keep_ ? side_by_side : 1, keep_);
  windows_.allocate_gradients(workspace_, static_cast<bool>(gradients_.x));
  Chain<Scalar, State> chain(run_, workspace_, problem_, model_, windows_, schedule_);
  forward(chain);
  chain.turn_back();
  stages_.turn_back(workspace_);

  const Index states = problem_.shape.B * problem_.shape.h;
  Way<State> way;
  double loss = 0;
  if (sliding_ != nullptr) {
    hold_outputs();
    if (problem_.block > 0) loss = find_entering(chain, way);
  }
  Back pass = pass_for(gradients_.params, way);
  if (problem_.d_hT != nullptr) std::copy(problem_.d_hT, problem_.d_hT + states, pass.carry);
  const std::optional<double> found = backward(chain, pass);
  if (!found) return found;
  if (!way.again) loss = *found;
  pass.finish(run_);
  if (gradients_.h0 != nullptr)
    std::transform(pass.carry, pass.carry + states, gradients_.h0,
                   [](State v) { return static_cast<Scalar>(v); });
  if (sliding_ != nullptr) {
    if (sliding_->beyond()) take_away_beyond(chain);
    if (gradients_.h0 != nullptr) window_of_start(chain);
  }
  if (gradients_.x) clear_behind_ends(gradients_.x, problem_.shape.d);
  if (gradients_.o) clear_behind_ends(gradients_.o, problem_.shape.q);
  return loss;
}

// --- windows of tau steps

// d_o with tau steps of zeros behind the end of each sequence.
template <typename Scalar, typename State>
void Sweep<Scalar, State>::hold_outputs() {
  const Shape& s = problem_.shape;
  const Index steps = s.T + sliding_->tau();
  const SequenceView<Scalar> held{workspace_.take<Scalar>(steps * s.B * s.q), s.B * s.q, s.q};
  for (Index b = 0; b < s.B; ++b)
    for (Index t = problem_.length(b); t < steps; ++t)
      std::fill(held.at(t, b), held.at(t, b) + s.q, Scalar{0});
  stages_.hold(held, beyond_);
}

// What enters at the cuts, and the loss.
template <typename Scalar, typename State>
double Sweep<Scalar, State>::find_entering(Chain<Scalar, State>& chain, Way<State>& way) {
  const Index B = problem_.shape.B, h = problem_.shape.h;
  const Index blocks = (problem_.shape.T + problem_.block - 1) / problem_.block, size = blocks * B * h;
  double loss = 0;
  // What flows out of blocks at their first step where only some of their first steps ask for anything.
  const auto flows_out = [&](Index steps) {
    Way<State> alone;
    alone.again = way.again;
    alone.collects = false;
    if (steps < problem_.block) {
      alone.every = problem_.block;
      alone.kept = steps;
    }
    alone.first = workspace_.take<State>(size);
    alone.past_first = workspace_.take<State>(size);
    std::fill(alone.first, alone.first + size, State{0});
    std::fill(alone.past_first, alone.past_first + size, State{0});
    Back pass = pass_for({}, alone);
    const double found = *backward(chain, pass);
    if (!way.again) loss = found;
    way.again = true;
    // Rows in tasks of their own: a multiple of eight changes no bit.
    constexpr Index rows_per_task = 64;
    const Index rows = blocks * B, tasks = (rows + rows_per_task - 1) / rows_per_task;
    parallel(run_, tasks, static_cast<double>(rows_per_task * h * h), [&](Index task, int) {
      const Index from = task * rows_per_task;
      State* out = alone.past_first + from * h;
      multiply<State>(std::min(rows_per_task, rows - from), {alone.first + from * h, h}, model_.A, {out, h},
                      {out, h});
    });
    return static_cast<const State*>(alone.past_first);
  };
  const State* first = sliding_->steps_ahead() > 0 ? flows_out(sliding_->steps_ahead()) : nullptr;
  const State* whole = sliding_->blocks_ahead() > 0 ? flows_out(problem_.block) : nullptr;
  auto* entering = workspace_.take<State>(size);
  sliding_->join(blocks, B, whole, first, entering);
  way.entering = entering;
  return loss;
}

// The same states once more, for d_o of tau steps later.
template <typename Scalar, typename State>
void Sweep<Scalar, State>::take_away_beyond(Chain<Scalar, State>& chain) {
  const Shape& s = problem_.shape;
  const Params<Scalar>& to = gradients_.params;
  const auto like = [&](const Scalar* wanted, Index size) {
    return wanted != nullptr ? workspace_.take<Scalar>(size) : nullptr;
  };
  Params<Scalar> excess;
  excess.W_hx = like(to.W_hx, s.h * s.d);
  excess.W_hh = like(to.W_hh, s.h * s.h);
  excess.b_h = like(to.b_h, s.h);
  if (!excess.W_hx && !excess.W_hh && !excess.b_h && !gradients_.x) return;
  Way<State> way;
  way.again = true;
  way.shift = sliding_->tau();
  Back later = pass_for(excess, way);
  backward(chain, later);
  later.finish(run_);
  // Each is h rows, to be multiplied by (W_hh^T)^tau from the left: that is its columns by W_hh^tau.
  struct Columns {
    Scalar* gradient;
    const Scalar* excess;
    Index count;
  };
  const Columns all[] = {{to.W_hx, excess.W_hx, s.d}, {to.W_hh, excess.W_hh, s.h}, {to.b_h, excess.b_h, 1}};
  auto* rows = workspace_.take<double>((s.d + s.h + 1) * s.h);
  Index taken = 0;
  for (const Columns& columns : all)
    for (Index j = 0; j < columns.count && columns.gradient != nullptr; ++j, ++taken)
      for (Index i = 0; i < s.h; ++i)
        rows[taken * s.h + i] = static_cast<double>(columns.excess[i * columns.count + j]);
  sliding_->carry_over(taken, rows, false);
  taken = 0;
  for (const Columns& columns : all)
    for (Index j = 0; j < columns.count && columns.gradient != nullptr; ++j, ++taken)
      for (Index i = 0; i < s.h; ++i) {
        Scalar& g = columns.gradient[i * columns.count + j];
        g = static_cast<Scalar>(static_cast<double>(g) - rows[taken * s.h + i]);
      }
}

// The initial state asks for nothing itself: its window holds the losses of tau - 1 steps.
template <typename Scalar, typename State>
void Sweep<Scalar, State>::window_of_start(Chain<Scalar, State>& chain) {
  const Index states = problem_.shape.B * problem_.shape.h;
  Way<State> way;
  way.again = way.whole = true;
  way.collects = false;
  way.every = std::numeric_limits<Index>::max();
  way.kept = sliding_->tau() - 1;
  Back pass = pass_for({}, way);
  backward(chain, pass);
  std::transform(pass.carry, pass.carry + states, gradients_.h0,
                 [](State v) { return static_cast<Scalar>(v); });
}

// --- the order of the stages

// Without room for all states, only those that windows start from are kept; the last window is then run by
// the backward pass alone.
template <typename Scalar, typename State>
void Sweep<Scalar, State>::forward(Chain<Scalar, State>& chain) {
  const Index windows = windows_.count();
  parallel(run_, {stages_.inputs(windows_.load(0))});
  for (Index w = 0; w < windows; ++w) {
    Rows& rows = windows_.load(w);
    chain.begin_states(rows);
    chain.run(rows, keep_ && w + 1 < windows ? stages_.inputs(windows_.load(w + 1)) : Stage{});
    chain.keep_states(rows);
    if (!keep_ && w + 1 < windows) parallel(run_, {stages_.inputs(windows_.load(w + 1))});
  }
  stated_ = windows - 1;
}

template <typename Scalar, typename State>
std::optional<double> Sweep<Scalar, State>::backward(Chain<Scalar, State>& chain, Back& pass) {
  const Index windows = windows_.count();
  stages_.begin(pass);
  double loss = 0;
  // Whether to go on after the losses of a window.
  const auto count_losses = [&](Rows& rows) {
    loss = stages_.add_losses(rows, loss);
    const bool spreads = gradients_.x && model_.lifted && pass.way.collects && pass.way.shift == 0;
    return !spreads || stages_.finite(rows);
  };
  const auto sums_of = [&](Rows& rows) { return pass.way.collects ? stages_.sums(rows) : Stage{}; };
  const Index steps = windows_.length() * model_.L;
  Index last = windows - 1;
  if (pass.way.whole) last = std::min(last, std::max<Index>(pass.way.kept - 1, 0) / steps);
  for (Index w = last; w >= 0; --w) {
    Rows& rows = windows_.load(w);
    if (!keep_ && stated_ != w && (pass.way.collects || !pass.way.again)) {
      parallel(run_, {stages_.inputs(rows)});
      chain.begin_states(rows);
      chain.run(rows);
      stated_ = w;
    }
    if (!keep_ || w == last) {
      parallel(run_, {stages_.losses(rows)});
      if (!count_losses(rows)) return std::nullopt;
    }
    chain.begin_adjoint(rows, pass);
    Rows* before = keep_ && w > 0 ? &windows_.load(w - 1) : nullptr;
    Rows* after = keep_ && w < last ? &windows_.load(w + 1) : nullptr;
    chain.run(rows, before != nullptr ? stages_.losses(*before) : Stage{},
              after != nullptr ? sums_of(*after) : Stage{});
    chain.end_adjoint(rows, pass);
    if (before != nullptr && !count_losses(*before)) return std::nullopt;
    if (!keep_ || w == 0) parallel(run_, {sums_of(rows)});
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
Pass<Scalar, State> Sweep<Scalar, State>::pass_for(const Params<Scalar>& wanted, const Way<State>& way) {
  const Index states = problem_.shape.B * problem_.shape.h;
  return {workspace_, coarsening_, wanted, schedule_.splits, states, way};
}

// Steps behind the end of a sequence influence nothing.
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
