#include "core/sliding/sliding_sweep.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/sliding/window_sums.hpp"

namespace rnnbptt {
namespace {

// What is left out beside what is not.
constexpr double negligible = 0x1p-58;

template <typename Value>
double squares(Index n, const Value* v) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += static_cast<double>(v[i]) * static_cast<double>(v[i]);
  return sum;
}

template <typename Value>
double norm_of(Index n, const Value* v) {
  return std::sqrt(squares(n, v));
}

}  // namespace

template <typename Scalar, typename State>
std::optional<double> SlidingSweep<Scalar, State>::differentiate() {
  sweep_.forward();
  make_room_for_d_o();
  const State* entering = problem_.block > 0 ? find_entering() : nullptr;
  Options main = options();
  main.entering = entering;
  RunningPass<Scalar, State> pass = sweep_.start(gradients_.params, main);
  if (!run(pass)) return std::nullopt;
  pass.finish(run_);
  if (lag_windows_.tau() < problem_.longest() &&
      !(lag_windows_.beyond() ? take_away_beyond() : negligible_beyond()))
    window_sums<Scalar>(run_, workspace_, params_, problem_, gradients_,
                        {d_o_.data, d_o_.step, d_o_.sequence}, lag_windows_);
  if (gradients_.h0 != nullptr) differentiate_start();
  sweep_.clear_behind_ends();
  return loss_;
}

// d_o is zero for tau steps behind the end of each sequence.
template <typename Scalar, typename State>
void SlidingSweep<Scalar, State>::make_room_for_d_o() {
  const Shape& s = problem_.shape;
  const Index steps = s.T + lag_windows_.tau();
  d_o_ = {workspace_.take<Scalar>(steps * s.B * s.q), s.B * s.q, s.q};
  for (Index b = 0; b < s.B; ++b)
    for (Index t = problem_.length(b); t < steps; ++t)
      std::fill(d_o_.at(t, b), d_o_.at(t, b) + s.q, Scalar{0});
}

template <typename Scalar, typename State>
BackwardPass<Scalar, State> SlidingSweep<Scalar, State>::options() const {
  Options result;
  result.d_o = d_o_;
  result.reuse_d_o = loss_.has_value();
  return result;
}

// Returns false where Sweep::backward() returns nothing.
template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::run(RunningPass<Scalar, State>& pass) {
  const std::optional<double> loss = sweep_.backward(pass);
  if (!loss_) loss_ = loss;
  return loss.has_value();
}

// --- what enters at the cuts between blocks, W_hh^T M_b

template <typename Scalar, typename State>
const State* SlidingSweep<Scalar, State>::find_entering() {
  const Index B = problem_.shape.B;
  const Index steps = lag_windows_.steps_ahead();
  const State* first_steps = steps > 0 ? flow_out(steps) : nullptr;
  const State* all_steps = lag_windows_.blocks_ahead() > 0 ? flow_out(problem_.block) : nullptr;
  auto* entering = workspace_.take<State>(blocks() * B * problem_.shape.h);
  lag_windows_.join(blocks(), B, all_steps, first_steps, entering);
  return entering;
}

// dL/ds of the last state before each block for the losses of its first `steps` steps alone: (blocks, B, h).
template <typename Scalar, typename State>
const State* SlidingSweep<Scalar, State>::flow_out(Index steps) {
  const Index h = problem_.shape.h, rows = blocks() * problem_.shape.B;
  Options alone = options();
  alone.accumulate = false;
  if (steps < problem_.block) {
    alone.every = problem_.block;
    alone.kept = steps;
  }
  alone.first = workspace_.take<State>(rows * h);
  alone.past_first = workspace_.take<State>(rows * h);
  std::fill(alone.first, alone.first + rows * h, State{0});
  std::fill(alone.past_first, alone.past_first + rows * h, State{0});
  RunningPass<Scalar, State> pass = sweep_.start({}, alone);
  run(pass);
  // Rows in tasks of their own: a multiple of eight changes no bit.
  constexpr Index rows_per_task = 64;
  const Index tasks = (rows + rows_per_task - 1) / rows_per_task;
  parallel(run_, tasks, static_cast<double>(rows_per_task * h * h), [&](Index task, int) {
    const Index from = task * rows_per_task;
    State* out = alone.past_first + from * h;
    multiply<State>(std::min(rows_per_task, rows - from), {alone.first + from * h, h}, sweep_.model().A,
                    {out, h}, {out, h});
  });
  return alone.past_first;
}

// --- what lies beyond the lag windows, (W_hh^T)^tau g_{t+tau}

// Norms of the gradients of W_hx, W_hh, b_h and the inputs, those that lag windows cut.
template <typename Scalar, typename State>
typename SlidingSweep<Scalar, State>::Sizes SlidingSweep<Scalar, State>::sizes() const {
  const Shape& s = problem_.shape;
  const Params<Scalar>& p = gradients_.params;
  Sizes result;
  if (p.W_hx != nullptr) result[0] = norm_of(s.h * s.d, p.W_hx);
  if (p.W_hh != nullptr) result[1] = norm_of(s.h * s.h, p.W_hh);
  if (p.b_h != nullptr) result[2] = norm_of(s.h, p.b_h);
  if (gradients_.x) result[3] = norm(gradients_.x, s.d);
  return result;
}

// Over the steps that count.
template <typename Scalar, typename State>
template <typename Value>
double SlidingSweep<Scalar, State>::norm(SequenceView<Value> rows, Index n) const {
  double sum = 0;
  for (Index b = 0; b < problem_.shape.B; ++b)
    for (Index t = 0; t < problem_.length(b); ++t) sum += squares(n, rows.at(t, b));
  return std::sqrt(sum);
}

// Whether nothing that lies behind a lag window reaches a gradient, for the data that there are.
template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::negligible_beyond() const {
  const Shape& s = problem_.shape;
  const double memory = lag_windows_.sum_bound(), steps = std::sqrt(static_cast<double>(s.T * s.B));
  const double W_hx = norm_of(s.h * s.d, params_.W_hx);
  const double b_h = params_.b_h != nullptr ? norm_of(s.h, params_.b_h) : 0;
  const double h0 = problem_.h0 != nullptr ? norm_of(s.B * s.h, problem_.h0) : 0;
  const double x = norm(problem_.x, s.d);
  const double states = memory * (W_hx * x + b_h * steps + h0);
  const double dropped = lag_windows_.bound() * memory * norm_of(s.q * s.h, params_.W_qh) * norm(d_o_, s.q);
  const Sizes sizes = this->sizes();
  const double factors[] = {x, states, steps, W_hx};
  for (std::size_t i = 0; i < sizes.size(); ++i)
    if (sizes[i] && !(dropped * factors[i] <= negligible * *sizes[i] && std::isfinite(*sizes[i])))
      return false;
  return true;
}

// The same states once more, for d_o of tau steps later. Returns false where that leaves nothing accurate.
template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::take_away_beyond() {
  if (lag_windows_.powers_grow()) return false;
  const Sizes before = sizes();
  const Shape& s = problem_.shape;
  const Params<Scalar>& to = gradients_.params;
  const auto like = [&](const Scalar* wanted, Index size) {
    return wanted != nullptr ? workspace_.take<Scalar>(size) : nullptr;
  };
  Params<Scalar> excess;
  excess.W_hx = like(to.W_hx, s.h * s.d);
  excess.W_hh = like(to.W_hh, s.h * s.h);
  excess.b_h = like(to.b_h, s.h);
  if (!excess.W_hx && !excess.W_hh && !excess.b_h && !gradients_.x) return true;
  Options later = options();
  later.shift = lag_windows_.tau();
  std::optional<Coarsening<Scalar, State>> beyond;
  if (gradients_.x) {
    beyond.emplace(run_, workspace_, s, params_beyond(), powers_, true, false);
    later.added_inputs = &beyond->model();
  }
  RunningPass<Scalar, State> pass = sweep_.start(excess, later);
  run(pass);
  pass.finish(run_);
  take_away(excess);
  const Sizes after = sizes();
  for (std::size_t i = 0; i < after.size(); ++i)
    if (after[i] && !(*before[i] <= cancels * *after[i] && std::isfinite(*after[i]))) return false;
  return true;
}

// -W_hx^T (W_hh^T)^tau g is the gradient of the inputs of a network with -W_hh^tau W_hx in the place of W_hx.
template <typename Scalar, typename State>
Params<const Scalar> SlidingSweep<Scalar, State>::params_beyond() {
  const Index h = problem_.shape.h, d = problem_.shape.d;
  auto* columns = workspace_.take<double>(d * h);
  for (Index i = 0; i < h; ++i)
    for (Index j = 0; j < d; ++j) columns[j * h + i] = static_cast<double>(params_.W_hx[i * d + j]);
  lag_windows_.carry_over(d, columns, true);
  auto* W_hx = workspace_.take<Scalar>(h * d);
  for (Index i = 0; i < h; ++i)
    for (Index j = 0; j < d; ++j) W_hx[i * d + j] = static_cast<Scalar>(-columns[j * h + i]);
  return {W_hx, params_.W_hh, params_.W_qh};
}

// d_P -= (W_hh^T)^tau excess_P for P = W_hx, W_hh and b_h: each excess has h rows, so it is its columns, as
// rows, times W_hh^tau.
template <typename Scalar, typename State>
void SlidingSweep<Scalar, State>::take_away(const Params<Scalar>& excess) {
  const Shape& s = problem_.shape;
  const Params<Scalar>& to = gradients_.params;
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
  lag_windows_.carry_over(taken, rows, false);
  taken = 0;
  for (const Columns& columns : all)
    for (Index j = 0; j < columns.count && columns.gradient != nullptr; ++j, ++taken)
      for (Index i = 0; i < s.h; ++i) {
        Scalar& g = columns.gradient[i * columns.count + j];
        g = static_cast<Scalar>(static_cast<double>(g) - rows[taken * s.h + i]);
      }
}

// --- d_h0 = sum_{i=1}^{tau-1} (W_hh^T)^i e_i: the losses of the first tau - 1 steps, not cut at blocks

template <typename Scalar, typename State>
void SlidingSweep<Scalar, State>::differentiate_start() {
  const Index states = problem_.shape.B * problem_.shape.h;
  Options start = options();
  start.ignore_cuts = true;
  start.accumulate = false;
  start.every = std::numeric_limits<Index>::max();
  start.kept = lag_windows_.tau() - 1;
  RunningPass<Scalar, State> pass = sweep_.start({}, start);
  run(pass);
  std::transform(pass.carry, pass.carry + states, gradients_.h0,
                 [](State v) { return static_cast<Scalar>(v); });
}

template class SlidingSweep<float, float>;
template class SlidingSweep<float, double>;
template class SlidingSweep<double, double>;

}  // namespace rnnbptt
