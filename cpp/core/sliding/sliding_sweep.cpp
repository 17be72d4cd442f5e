#include "core/sliding/sliding_sweep.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/sliding/window_sums.hpp"

namespace rnnbptt {
namespace {

// Whether a sum of squares is far above what squares may have lost below the range.
bool certain(double squares) { return squares > 1e-280; }

template <typename Scalar>
double norm(const Scalar* A, Index n) {
  double largest = 0, sum = 0;
  for (Index i = 0; i < n; ++i) largest = std::max(largest, std::abs(static_cast<double>(A[i])));
  if (largest == 0) return 0;
  for (Index i = 0; i < n; ++i) {
    const double part = static_cast<double>(A[i]) / largest;
    sum += part * part;
  }
  return largest * std::sqrt(sum);
}

}  // namespace

template <typename Scalar, typename State>
Differentiated SlidingSweep<Scalar, State>::differentiate() {
  sweep_.forward();
  make_room_for_d_o();
  const State* entering = problem_.block > 0 ? find_entering() : nullptr;
  const bool differs = lag_windows_.tau() < problem_.longest();  // from the whole gradient
  Options main = options();
  main.entering = entering;
  if (differs) main.amounts = no_amounts();
  RunningPass<Scalar, State> pass = sweep_.start(gradients_.params, main);
  run(pass);
  bool finite = pass.finish(run_);
  if (differs) whole_ = total(main.amounts);
  const bool powers_grow = lag_windows_.beyond() && lag_windows_.powers_grow();
  if (lag_windows_.beyond() && !powers_grow) finite = take_away_beyond() && finite;
  if (gradients_.h0 != nullptr) finite = differentiate_start() && finite;
  finite = sweep_.clear_behind_ends() && finite;
  const bool stepwise = schedule_.L == 1 && schedule_.piece == 0;
  if (!differs || (!finite && !stepwise) || (finite && !powers_grow && accurate())) return {*loss_, finite};
  const SequenceView<const Scalar> d_o{d_o_.data, d_o_.step, d_o_.sequence};
  window_sums(run_, workspace_, params_, problem_, d_o, lag_windows_, gradients_);
  sweep_.clear_behind_ends();
  return {*loss_, true};
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

template <typename Scalar, typename State>
void SlidingSweep<Scalar, State>::run(RunningPass<Scalar, State>& pass) {
  const double loss = sweep_.backward(pass);
  if (!loss_) loss_ = loss;
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

// The same states once more, for d_o of tau steps later.
template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::take_away_beyond() {
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
  later.amounts = no_amounts();
  std::optional<Coarsening<Scalar, State>> beyond;
  if (gradients_.x) {
    beyond.emplace(run_, workspace_, s, params_beyond(), powers_, true, false);
    later.added_inputs = &beyond->model();
  }
  RunningPass<Scalar, State> pass = sweep_.start(excess, later);
  run(pass);
  const bool finite = pass.finish(run_);
  beyond_ = total(later.amounts);
  take_away(excess);
  return finite;
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
  for (std::size_t n = 0; n < 3; ++n) {
    const Columns& columns = all[n];
    if (columns.gradient == nullptr) continue;
    taken_[n] = frobenius(columns.count * s.h, rows + taken * s.h);
    for (Index j = 0; j < columns.count; ++j, ++taken)
      for (Index i = 0; i < s.h; ++i) {
        Scalar& g = columns.gradient[i * columns.count + j];
        g = static_cast<Scalar>(static_cast<double>(g) - rows[taken * s.h + i]);
      }
  }
}

// --- d_h0 = sum_{i=1}^{tau-1} (W_hh^T)^i e_i: the losses of the first tau - 1 steps, not cut at blocks

template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::differentiate_start() {
  Options start = options();
  start.ignore_cuts = true;
  start.accumulate = false;
  start.every = std::numeric_limits<Index>::max();
  start.kept = lag_windows_.tau() - 1;
  RunningPass<Scalar, State> pass = sweep_.start({}, start);
  run(pass);
  return sweep_.store_start(pass);
}

// --- whether what was taken away, or left out, is small enough beside what is left

template <typename Scalar, typename State>
Amounts* SlidingSweep<Scalar, State>::no_amounts() {
  auto* amounts = workspace_.take<Amounts>(schedule_.splits);
  std::fill(amounts, amounts + schedule_.splits, Amounts{});
  return amounts;
}

template <typename Scalar, typename State>
Amounts SlidingSweep<Scalar, State>::total(const Amounts* amounts) const {
  Amounts sum;
  for (Index split = 0; split < schedule_.splits; ++split) sum.add(amounts[split]);
  return sum;
}

// Norms of powers say how much a difference cancels where rows are of about one size. What lies outside the
// lag windows may be larger by any factor: so a gradient is compared with the sizes of all that it is made
// of, and with what was taken away, and with what was not because the power is negligible.
template <typename Scalar, typename State>
bool SlidingSweep<Scalar, State>::accurate() const {
  const Shape& s = problem_.shape;
  const Params<Scalar>& to = gradients_.params;
  const double lost = lag_windows_.lost();
  // `products` are the sums over rows of |g|^2 |z|^2, `z` that of |z|^2.
  const auto fine = [&](double result, double z, double products, double later, double taken) {
    if (result == 0 && (products == 0 || z == 0)) return true;
    if (!lag_windows_.beyond())
      return certain(whole_.g) && certain(z) &&
             lost * std::sqrt(whole_.g) * std::sqrt(z) <= std::numeric_limits<Scalar>::epsilon() * result;
    return certain(products) && std::sqrt(products) + lost * std::sqrt(later) + taken <= cancels * result;
  };
  const double steps = static_cast<double>(s.T * s.B);
  if (to.W_hx && !fine(norm(to.W_hx, s.h * s.d), whole_.x, whole_.gx, beyond_.gx, taken_[0])) return false;
  if (to.W_hh && !fine(norm(to.W_hh, s.h * s.h), whole_.s, whole_.gs, beyond_.gs, taken_[1])) return false;
  if (to.b_h && !fine(norm(to.b_h, s.h), steps, whole_.g, beyond_.g, taken_[2])) return false;
  if (!gradients_.x) return true;
  double largest = 0, result = 0;
  const auto over_x = [&](const auto& visit) {
    for (Index t = 0; t < s.T; ++t)
      for (Index b = 0; b < s.B; ++b)
        for (Index i = 0; i < s.d; ++i) visit(static_cast<double>(gradients_.x.at(t, b)[i]));
  };
  over_x([&](double v) { largest = std::max(largest, std::abs(v)); });
  if (largest > 0) over_x([&](double v) { result += v / largest * (v / largest); });
  const double W_hx = norm(params_.W_hx, s.h * s.d), square = W_hx * W_hx;
  return fine(std::sqrt(result) * largest, square, square * whole_.g, square * beyond_.g, 0);
}

template class SlidingSweep<float, float>;
template class SlidingSweep<float, double>;
template class SlidingSweep<double, double>;

}  // namespace rnnbptt
