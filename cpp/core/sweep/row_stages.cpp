#include "core/sweep/row_stages.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/sweep/loss_rows.hpp"

namespace rnnbptt {
namespace {

template <typename Value>
void add_rows(Index rows, const Value* A, Index row, Index n, double* sum) {
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < n; ++i) sum[i] += static_cast<double>(A[r * row + i]);
}

template <typename Scalar>
void multiply_by(Scalar factor, Scalar* values, Index n) {
  for (Index i = 0; i < n; ++i) values[i] *= factor;
}

// Makes infinite what is so without the scale of a problem that is scaled down.
template <typename Scalar>
void overflow(Scalar down, Scalar* values, Index n) {
  for (Index i = 0; i < n; ++i)
    if (!std::isfinite(values[i] / down)) values[i] /= down;
}

template <typename Scalar>
double square(Index n, const Scalar* values) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) sum += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return sum;
}

// C = init + A B. Where bands share columns, init has to be C.
template <typename Scalar, typename Bands>
void multiply_bands(Index rows, kernels::Rows<const Scalar*> A, const Bands& B,
                    kernels::Rows<const Scalar*> init, kernels::Rows<Scalar*> C) {
  for (const Band<Scalar>& band : B) {
    if (band.packed.data == nullptr) continue;
    const Scalar* from = init.base != nullptr ? init.base + band.column : nullptr;
    multiply<Scalar>(rows, {A.base + band.row, A.stride}, band.packed, {from, init.stride},
                     {C.base + band.column, C.stride});
  }
}

}  // namespace

template <typename Scalar, typename State>
void RowStages<Scalar, State>::prepare_backward(Workspace& workspace) {
  losses_ = workspace.take<double>(splits_);
  if (problem_.y && problem_.loss != nullptr) targets_ = workspace.take<Scalar>(splits_ * strip_ * stride_.o);
}

// std::function holds a task of up to two pointers without allocating, which small calls would feel.
template <typename Scalar, typename State>
Stage RowStages<Scalar, State>::over_splits(const Rows& rows, double work_per_row,
                                            std::function<void(Index, int)> task) const {
  return {splits_, work_per_row * static_cast<double>(rows.split_rows), std::move(task)};
}

template <typename Scalar, typename State>
template <typename Visit>
void RowStages<Scalar, State>::for_strips(const Rows& rows, Index split, int worker, double work_per_row,
                                          const Visit& visit) {
  const Index end = std::min(rows.window.rows, (split + 1) * rows.split_rows);
  for (Index from = split * rows.split_rows; from < end; from += strip_) {
    run_.checkpoint(worker, work_per_row * static_cast<double>(strip_));
    visit(from, std::min(end, from + strip_));
  }
}

// --- s = Ctrl x + bias_s

template <typename Scalar, typename State>
Stage RowStages<Scalar, State>::inputs(Rows& rows) {
  rows.has_inputs = true;
  return over_splits(rows, work_of_inputs(),
                     [this, &rows](Index split, int worker) { inputs_of(rows, split, worker); });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::inputs_of(Rows& rows, Index split, int worker) {
  for_strips(rows, split, worker, work_of_inputs(), [&](Index from, Index to) {
    gather_inputs(rows, from, to);
    multiply<Scalar>(to - from, {rows.x + from * stride_.x, stride_.x}, model_.Ctrl_T, {model_.bias_s, 0},
                     {rows.s + from * stride_.s, stride_.s});
  });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::gather_inputs(Rows& rows, Index from, Index to) {
  gather(rows.window, model_.L, problem_.x, problem_.shape.d, from, to, rows.x, stride_.x);
  if (problem_.down != 1) multiply_by(problem_.down, rows.x + from * stride_.x, (to - from) * stride_.x);
}

// --- o = Obs s + Direct x + bias_o, the loss and d_o

template <typename Scalar, typename State>
double RowStages<Scalar, State>::work_of_outputs() const {
  return static_cast<double>(model_.outputs * (3 * h_ + (model_.Direct_T.empty() ? 0 : 2 * model_.inputs)));
}

template <typename Scalar, typename State>
Stage RowStages<Scalar, State>::outputs(Rows& rows, SequenceView<Scalar> o,
                                        InnerStates<Scalar, State>* inner) {
  const double work = work_of_outputs() + (inner != nullptr ? inner->work() : 0);
  return over_splits(rows, work, [this, &rows, o, inner, work](Index split, int worker) {
    for_strips(rows, split, worker, work, [&](Index first, Index to) {
      // Row 0 is a start state: it has no outputs, and there is no row before it.
      const Index from = std::max<Index>(first, 1);
      if (from == to) return;
      evaluate(rows, from, to);
      scatter(rows.window, model_.L, rows.d, stride_.o, problem_.shape.q, from, to, o);
      if (inner != nullptr) inner->fill(rows, from, to, split);
    });
  });
}

template <typename Scalar, typename State>
Stage RowStages<Scalar, State>::losses(Rows& rows) {
  std::fill(losses_, losses_ + splits_, 0.0);
  const Index unset = model_.lifted ? rows.window.rows - 1 : 0;  // the row of g that losses_of() does not set
  if (rows.window.rows > 0)
    std::fill(rows.g + unset * stride_.s, rows.g + (unset + 1) * stride_.s, Scalar{0});
  return over_splits(rows, work_of_outputs(),
                     [this, &rows](Index split, int worker) { losses_of(rows, split, worker); });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::losses_of(Rows& rows, Index split, int worker) {
  for_strips(rows, split, worker, work_of_outputs(), [&](Index first, Index to) {
    if (!rows.has_inputs) gather_inputs(rows, first, to);
    const Index from = std::max<Index>(first, 1);
    if (first == 0) std::fill(rows.d, rows.d + stride_.o, Scalar{0});
    if (from == to) return;
    if (problem_.down != 1) overflow(problem_.down, rows.s + from * stride_.s, (to - from) * stride_.s);
    differentiate(rows, from, to, split);
    if (problem_.down != 1) overflow(problem_.down, rows.d + from * stride_.o, (to - from) * stride_.o);
    if (pass_->options.every > 0) zero_all_but_first(rows, from, to);
    send_back(rows, from, to, split);
  });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::evaluate(Rows& rows, Index from, Index to) {
  Scalar* o = rows.d + from * stride_.o;
  multiply_bands<Scalar>(to - from, {rows.s + (from + state_row()) * stride_.s, stride_.s}, model_.Obs_T,
                         {model_.bias_o, 0}, {o, stride_.o});
  multiply_bands<Scalar>(to - from, {rows.x + from * stride_.x, stride_.x}, model_.Direct_T, {o, stride_.o},
                         {o, stride_.o});
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::differentiate(Rows& rows, Index from, Index to, Index split) {
  const Index L = model_.L, q = problem_.shape.q;
  const SequenceView<Scalar>& d_o = pass_->options.d_o;
  if (pass_->options.reuse_d_o) {
    const SequenceView<const Scalar> later{d_o.at(pass_->options.shift, 0), d_o.step, d_o.sequence};
    return gather(rows.window, L, later, q, from, to, rows.d, stride_.o);
  }
  Scalar* d = rows.d + from * stride_.o;
  const Index size = (to - from) * stride_.o;
  if (problem_.loss == nullptr) {
    gather(rows.window, L, problem_.y, q, from, to, rows.d, stride_.o);
    if (problem_.down != 1) multiply_by(problem_.down, d, size);
  } else {
    evaluate(rows, from, to);
    if (problem_.down != 1) multiply_by(1 / problem_.down, d, size);
    losses_[split] += loss_rows(problem_, rows.window, L, from, to, rows.d, stride_.o,
                                targets_ + split * strip_ * stride_.o);
  }
  if (d_o) scatter(rows.window, L, rows.d, stride_.o, q, from, to, d_o);
}

// d_o is zeroed except in the first `kept` of every `every` steps.
template <typename Scalar, typename State>
void RowStages<Scalar, State>::zero_all_but_first(Rows& rows, Index from, Index to) {
  const Index L = model_.L, q = problem_.shape.q;
  for_rows(rows.window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    for (Index j = std::max<Index>(j0, 1); j < j1; ++j) {
      const Index t = (segment.time + (j - 1) * L) % pass_->options.every;
      Scalar* row = rows.d + (segment.first_row + j) * stride_.o;
      std::fill(row + std::clamp<Index>(pass_->options.kept - t, 0, L) * q, row + L * q, Scalar{0});
    }
  });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::send_back(Rows& rows, Index from, Index to, Index split) {
  const Scalar* o = rows.d + from * stride_.o;
  const Scalar* x = rows.x + from * stride_.x;
  const Scalar* s = rows.s + (from + state_row()) * stride_.s;
  multiply_bands<Scalar>(to - from, {o, stride_.o}, model_.Obs, {},
                         {rows.g + (from + state_row()) * stride_.s, stride_.s});
  // Another thread may be writing the inputs of the rows behind these.
  const bool shared = !rows.has_inputs && to < rows.window.rows;
  const CoarseGradients<Scalar> set = pass_->sums(split);
  if (set.Obs != nullptr) add_sum(to - from, o, stride_.o, model_.outputs, s, set.Obs);
  if (set.Direct != nullptr)
    for (const Band<Scalar>& band : model_.Direct_T)
      add_outer(to - from, o + band.column, stride_.o, band.packed.columns, x, stride_.x, band.packed.depth,
                set.Direct + band.column * model_.inputs, model_.inputs, shared);
  if (set.bias_o != nullptr) add_rows(to - from, o, stride_.o, model_.outputs, set.bias_o);
}

template <typename Scalar, typename State>
double RowStages<Scalar, State>::add_losses(Rows& rows, double loss) const {
  rows.has_inputs = true;
  for (Index i = 0; i < splits_; ++i) loss += losses_[i];
  return loss;
}

// Row r - 1 of a start state r is the last state of another sequence. Sums multiply it by zero, and it may be
// infinite. Outputs of a plain model read it first.
template <typename Scalar, typename State>
void RowStages<Scalar, State>::drop_last_states(Rows& rows) {
  for (const Segment& segment : rows.window.segments) {
    Scalar* last = rows.s + (segment.first_row + segment.steps) * stride_.s;
    std::fill(last, last + h_, Scalar{0});
  }
}

// --- sums over g, and gradients with respect to inputs

template <typename Scalar, typename State>
double RowStages<Scalar, State>::work_of_sums() const {
  const Index dx = gradients_.x ? model_.inputs * (h_ + model_.outputs) : 0;
  return static_cast<double>((h_ + model_.inputs) * h_ + dx);
}

template <typename Scalar, typename State>
Stage RowStages<Scalar, State>::sums(Rows& rows) {
  if (!model_.lifted) drop_last_states(rows);
  if (cut_at_every_chunk() && !gradients_.x && pass_->options.amounts == nullptr) return {};
  return over_splits(rows, work_of_sums(),
                     [this, &rows](Index split, int worker) { sums_of(rows, split, worker); });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::sums_of(Rows& rows, Index split, int worker) {
  for_strips(rows, split, worker, work_of_sums(), [&](Index first, Index to) {
    if (problem_.down != 1) overflow(problem_.down, rows.g + first * stride_.s, (to - first) * stride_.s);
    const Index from = std::max<Index>(first, 1);
    if (!cut_at_every_chunk()) add_sums(rows, from, to, split);
    if (pass_->options.amounts != nullptr) add_amounts(rows, from, to, pass_->options.amounts[split]);
    if (gradients_.x) input_gradients(rows, first, to);
  });
}

// Then nothing arrives at the last state of any chunk: g is zero.
template <typename Scalar, typename State>
bool RowStages<Scalar, State>::cut_at_every_chunk() const {
  return model_.lifted && problem_.block == model_.L && !pass_->options.ignore_cuts &&
         pass_->options.entering == nullptr;
}

// sum += left^T states. Of a tangent model only what is wanted: from rows of the first part the columns of
// the first part; from rows of the second part all columns, or in a plain model those of the second part.
template <typename Scalar, typename State>
void RowStages<Scalar, State>::add_sum(Index rows, const Scalar* left, Index left_stride, Index size,
                                       const Scalar* states, Scalar* sum) const {
  if (model_.parts == 1) return add_outer(rows, left, left_stride, size, states, stride_.s, h_, sum, h_);
  const Index height = size / 2, part = model_.part, from = model_.lifted ? 0 : part;
  add_outer(rows, left, left_stride, height, states, stride_.s, part, sum, h_);
  add_outer(rows, left + height, left_stride, height, states + from, stride_.s, h_ - from,
            sum + height * h_ + from, h_);
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::add_sums(Rows& rows, Index from, Index to, Index split) {
  const CoarseGradients<Scalar> set = pass_->sums(split);
  const Scalar* g = rows.g + from * stride_.s;
  const Scalar* x = rows.x + from * stride_.x;
  if (set.A != nullptr) add_sum(to - from, g, stride_.s, h_, rows.s + (from - 1) * stride_.s, set.A);
  if (set.Ctrl_T != nullptr)
    add_outer(to - from, x, stride_.x, model_.inputs, g, stride_.s, model_.lifted ? h_ : model_.part,
              set.Ctrl_T, h_);
  if (set.bias_s == nullptr) return;
  if constexpr (is_wide)
    add_rows(to - from, rows.wide + from * stride_.wide, stride_.wide, h_, set.bias_s);
  else
    add_rows(to - from, g, stride_.s, h_, set.bias_s);
}

// Of a lift, d_o and inputs reach gradients of W_hh beside states and their gradients.
template <typename Scalar, typename State>
void RowStages<Scalar, State>::add_amounts(const Rows& rows, Index from, Index to, Amounts& amounts) const {
  const double by_d = model_.lifted ? model_.square_Obs : 0, by_x = model_.lifted ? model_.square_Ctrl : 0;
  for (Index r = from; r < to; ++r) {
    const double x = square(model_.inputs, rows.x + r * stride_.x);
    const double g = square(h_, rows.g + r * stride_.s) +
                     (by_d > 0 ? by_d * square(model_.outputs, rows.d + r * stride_.o) : 0);
    const double s = square(h_, rows.s + (r - 1) * stride_.s) + by_x * (x + 1);
    amounts.add({g, x, s, g * x, g * s});
  }
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::input_gradients(Rows& rows, Index from, Index to) {
  const kernels::Rows<Scalar*> dx{rows.dx + from * stride_.x, stride_.x};
  const CoarseModel<Scalar, State>* added = pass_->options.added_inputs;
  const CoarseModel<Scalar, State>& model = added != nullptr ? *added : model_;
  kernels::Rows<const Scalar*> so_far;
  if (added != nullptr) {
    const SequenceView<const Scalar> x{gradients_.x.data, gradients_.x.step, gradients_.x.sequence};
    gather(rows.window, model.L, x, problem_.shape.d, from, to, rows.dx, stride_.x);
    so_far = {dx.base, dx.stride};
  }
  multiply<Scalar>(to - from, {rows.g + from * stride_.s, stride_.s}, model.Ctrl, so_far, dx);
  multiply_bands<Scalar>(to - from, {rows.d + from * stride_.o, stride_.o}, model.Direct,
                         {dx.base, dx.stride}, dx);
  scatter(rows.window, model_.L, rows.dx, stride_.x, problem_.shape.d, from, to, gradients_.x);
  for (Index r = 0; r < to - from; ++r)
    if (!all_finite(model_.inputs, dx.base + r * stride_.x)) finite_ = false;
}

template class RowStages<float, float>;
template class RowStages<float, double>;
template class RowStages<double, double>;

}  // namespace rnnbptt
