#include "core/sweep/inner_states.hpp"

#include <algorithm>
#include <utility>

namespace rnnbptt {
namespace {

// Chunks that are run side by side: their states stay in the first caches.
constexpr Index strip_rows = 64;

}  // namespace

template <typename Scalar, typename State>
InnerStates<Scalar, State>::InnerStates(Workspace& workspace, const Problem<Scalar>& problem,
                                        const Params<const Scalar>& params,
                                        const CoarseModel<Scalar, State>& model,
                                        const Windows<Scalar, State>& windows, Index splits,
                                        SequenceView<Scalar> hidden)
    : problem_(problem),
      L_(model.L),
      h_(model.h),
      stride_(windows.strides()),
      hidden_(hidden),
      b_h_(params.b_h) {
  if (L_ == 1) return;
  const Index d = problem.shape.d;
  W_hh_T_ = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, h_, h_, h_}.transposed());
  W_hx_T_ = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, h_, d, d}.transposed());
  spare_ = workspace.take<Scalar>(splits * 2 * strip_rows * h_);
}

template <typename Scalar, typename State>
void InnerStates<Scalar, State>::fill(const Rows& rows, Index from, Index to, Index split) {
  if (L_ == 1) return scatter(rows.window, 1, rows.s, stride_.s, h_, from, to, hidden_);
  Scalar* spare = spare_ + split * 2 * strip_rows * h_;
  for (; from < to; from += strip_rows)
    fill_strip(rows, from, std::min(from + strip_rows, to), spare, spare + strip_rows * h_);
}

template <typename Scalar, typename State>
void InnerStates<Scalar, State>::fill_strip(const Rows& rows, Index from, Index to, Scalar* before,
                                            Scalar* next) {
  kernels::Rows<const Scalar*> states{rows.s + (from - 1) * stride_.s, stride_.s};
  for (Index i = 0; i < L_; ++i) {
    const Scalar* x = rows.x + from * stride_.x + i * problem_.shape.d;
    multiply<Scalar>(to - from, {x, stride_.x}, W_hx_T_, {b_h_, 0}, {next, h_});
    multiply<Scalar>(to - from, states, W_hh_T_, {next, h_}, {next, h_});
    for_rows(rows.window, from, to, [&](const Segment& segment, Index j0, Index j1) {
      for (Index j = std::max<Index>(j0, 1); j < j1 && i < steps_in(segment, j, L_); ++j) {
        const Scalar* row = next + (segment.first_row + j - from) * h_;
        std::copy(row, row + h_, hidden_.at(segment.time + (j - 1) * L_ + i, segment.sequence));
      }
    });
    std::swap(before, next);
    states = {before, h_};
  }
}

template class InnerStates<float, float>;
template class InnerStates<float, double>;
template class InnerStates<double, double>;

}  // namespace rnnbptt
