#include "core/recurrence.hpp"

#include <algorithm>

#include "core/algebra/scan.hpp"
#include "core/schedule.hpp"

namespace rnnbptt {
namespace {

// Calls visit(count, t, b, along_time) for runs of steps that one product can take: along time or along the
// batch, whichever is longer.
template <typename Visit>
void for_runs(Run& run, const Shape& shape, Index work_per_row, const Visit& visit) {
  constexpr Index most = 256;
  const bool along_time = shape.T >= shape.B;
  const Index inner = along_time ? shape.T : shape.B, outer = along_time ? shape.B : shape.T;
  const Index runs = (inner + most - 1) / most;
  parallel(run, outer * runs, static_cast<double>(std::min(most, inner) * work_per_row),
           [&](Index task, int) {
             const Index i = task / runs, from = task % runs * most;
             const Index count = std::min(most, inner - from);
             along_time ? visit(count, from, i, true) : visit(count, i, from, false);
           });
}

template <typename Scalar>
kernels::Rows<Scalar*> rows_of(SequenceView<Scalar> view, Index t, Index b, bool along_time) {
  return {view.at(t, b), along_time ? view.step : view.sequence, nullptr};
}

// s_t = W s_{t-1} + s_t in place; see linear_scan.
template <typename Scalar>
void scan_sequences(Run& run, Workspace& workspace, Index T, Index B, Index h, const Scalar* W,
                    const Scalar* s0, bool reverse, bool transpose, SequenceView<Scalar> s, Index piece) {
  // States are rows here: s_t^T = s_{t-1}^T W^T.
  const MatrixView<const Scalar> matrix{W, h, h, h};
  ScanProblem<Scalar> problem;
  problem.size = h;
  const MatrixView<const Scalar> M = transpose ? matrix : matrix.transposed();
  problem.packed = pack<Scalar>(workspace, M);
  problem.base = s.data;
  problem.step = reverse ? -s.step : s.step;
  if (s0 == nullptr) {
    auto* zero = workspace.take<Scalar>(B * h);
    std::fill(zero, zero + B * h, Scalar{0});
    s0 = zero;
  }
  problem.starts = s0;
  problem.lanes.reserve(static_cast<std::size_t>(B));
  for (Index b = 0; b < B; ++b)
    problem.lanes.push_back({b * s.sequence + (reverse ? (T - 1) * s.step : 0), T});
  problem.piece = piece >= 0 ? piece : plan_piece(h, B, T);
  if (problem.piece > 0) problem.jump = jump_of(run, workspace, M, problem.piece);
  if (problem.jump.data == nullptr) problem.piece = 0;
  scan(run, workspace, problem);
}

}  // namespace

template <typename Scalar>
void forward(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, SequenceView<Scalar> hidden) {
  workspace.reset();
  const Shape& shape = problem.shape;
  const SequenceView<const Scalar>& x = problem.x;
  const Index d = shape.d, h = shape.h, q = shape.q;
  const auto W_hx = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, h, d, d}.transposed());
  for_runs(run, shape, d * h, [&](Index count, Index t, Index b, bool along_time) {
    multiply<Scalar>(count, rows_of(x, t, b, along_time), W_hx, {params.b_h, 0},
                     rows_of(hidden, t, b, along_time));
  });
  scan_sequences(run, workspace, shape.T, shape.B, h, params.W_hh, problem.h0, false, false, hidden, -1);
  const auto W_qh = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_qh, q, h, h}.transposed());
  Packed<Scalar> W_qx;
  if (params.W_qx != nullptr)
    W_qx = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_qx, q, d, d}.transposed());
  const SequenceView<const Scalar> states{hidden.data, hidden.step, hidden.sequence};
  for_runs(run, shape, q * h, [&](Index count, Index t, Index b, bool along_time) {
    const auto out = rows_of(o, t, b, along_time);
    multiply<Scalar>(count, rows_of(states, t, b, along_time), W_qh, {params.b_q, 0}, out);
    if (params.W_qx != nullptr)
      multiply<Scalar>(count, rows_of(x, t, b, along_time), W_qx, {out.base, out.stride}, out);
  });
}

template <typename Scalar>
void linear_scan(Run& run, Workspace& workspace, Index T, Index B, Index h, const Scalar* W,
                 SequenceView<const Scalar> v, const Scalar* s0, bool reverse, bool transpose,
                 SequenceView<Scalar> s, Index piece) {
  workspace.reset();
  constexpr Index work_per_scalar = 16;  // memory that is touched for the first time is slow
  for_runs(run, {T, B, 0, h, 0}, work_per_scalar * h, [&](Index count, Index t, Index b, bool along_time) {
    const auto from = rows_of(v, t, b, along_time);
    const auto to = rows_of(s, t, b, along_time);
    for (Index i = 0; i < count; ++i) std::copy(from[i], from[i] + h, to[i]);
  });
  scan_sequences(run, workspace, T, B, h, W, s0, reverse, transpose, s, piece);
}

template <typename Scalar>
void matrix_powers(Run& run, Workspace& workspace, Index h, Index n, const Scalar* W, Scalar* powers) {
  workspace.reset();
  const auto packed = pack<Scalar>(workspace, MatrixView<const Scalar>{W, h, h, h});
  // Rows of a power depend on the same rows of the one before only.
  constexpr Index strip = 8;
  const double work = static_cast<double>(std::min(strip, h) * h) * static_cast<double>(h);
  parallel(run, (h + strip - 1) / strip, work * static_cast<double>(n), [&](Index task, int worker) {
    const Index first = task * strip, rows = std::min(strip, h - first);
    Scalar* at = powers + first * h;
    std::fill(at, at + rows * h, Scalar{0});
    for (Index i = 0; i < rows; ++i) at[i * h + first + i] = 1;
    for (Index k = 0; k < n; ++k, at += h * h) {
      run.checkpoint(worker, work);
      multiply<Scalar>(rows, {at, h}, packed, {}, {at + h * h, h});
    }
  });
}

template void forward(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                      SequenceView<float>, SequenceView<float>);
template void forward(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                      SequenceView<double>, SequenceView<double>);
template void linear_scan(Run&, Workspace&, Index, Index, Index, const float*, SequenceView<const float>,
                          const float*, bool, bool, SequenceView<float>, Index);
template void linear_scan(Run&, Workspace&, Index, Index, Index, const double*, SequenceView<const double>,
                          const double*, bool, bool, SequenceView<double>, Index);
template void matrix_powers(Run&, Workspace&, Index, Index, const float*, float*);
template void matrix_powers(Run&, Workspace&, Index, Index, const double*, double*);

}  // namespace rnnbptt
