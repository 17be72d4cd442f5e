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
  if (model_.lifted) drop_last_states(rows);
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
    differentiate(rows, from, to, split);
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
  if (problem_.loss == nullptr) {
    gather(rows.window, L, problem_.y, q, from, to, rows.d, stride_.o);
  } else {
    evaluate(rows, from, to);
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

template <typename Scalar, typename State>
bool RowStages<Scalar, State>::finite(const Rows& rows) const {
  for (Index r = 0; r < rows.window.rows; ++r)
    if (!std::all_of(rows.d + r * stride_.o, rows.d + r * stride_.o + model_.outputs,
                     [](Scalar v) { return std::isfinite(v); }))
      return false;
  return true;
}

// Row r - 1 of a start state r is the last state of another sequence. Sums multiply it by zero; it may be
// infinite, not least where its chunk goes on behind the end of the sequence. Outputs of a plain model read
// it first.
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
  if (cut_at_every_chunk() && !gradients_.x) return {};
  return over_splits(rows, work_of_sums(),
                     [this, &rows](Index split, int worker) { sums_of(rows, split, worker); });
}

template <typename Scalar, typename State>
void RowStages<Scalar, State>::sums_of(Rows& rows, Index split, int worker) {
  for_strips(rows, split, worker, work_of_sums(), [&](Index first, Index to) {
    if (!cut_at_every_chunk()) add_sums(rows, std::max<Index>(first, 1), to, split);
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
}

template class RowStages<float, float>;
template class RowStages<float, double>;
template class RowStages<double, double>;

}  // namespace rnnbptt
