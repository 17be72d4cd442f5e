#include "core/sliding/window_sums.hpp"

#include <algorithm>
#include <vector>

#include "core/algebra/scan.hpp"

namespace rnnbptt {
namespace {

constexpr Index rows_per_task = 128;
constexpr Index most_partial_sums = 64;

// g_t of some consecutive steps, (W_hh^T) (... (W_hh^T e_{t+tau-1} + e_{t+tau-2}) ...) + e_t: as accurate as
// the recursion step by step. e and g are (T, B, h).
template <typename Scalar>
void sum_by_steps(Run& run, Workspace& workspace, const Params<const Scalar>& params, const Shape& shape,
                  Index tau, const Scalar* e, Scalar* g) {
  const Index T = shape.T, h = shape.h, row = shape.B * h;
  const auto W_hh = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, h, h, h});
  const Index steps = std::max<Index>(1, rows_per_task / shape.B);
  const Index size = steps * row;
  auto* memory = workspace.take<Scalar>(run.threads * 2 * size);
  const double work = static_cast<double>(steps * row) * static_cast<double>(h);
  parallel(run, (T + steps - 1) / steps, work * static_cast<double>(tau), [&](Index task, int worker) {
    const Index first = task * steps, stop = std::min(first + steps, T);
    Scalar *sum = memory + worker * 2 * size, *next = sum + size;
    std::fill(sum, sum + 2 * size, Scalar{0});
    for (Index i = std::min(tau, T - first) - 1; i >= 0; --i) {
      run.checkpoint(worker, work);
      const Index rows = (std::min(stop, T - i) - first) * shape.B;  // of losses that exist
      multiply<Scalar>(rows, {sum, h}, W_hh, {e + (first + i) * row, h}, {next, h});
      std::swap(sum, next);
    }
    std::copy(sum, sum + (stop - first) * row, g + first * row);
  });
}

// The same by sums over 1, 2, 4, ... losses, of which those of the binary digits of tau are joined.
template <typename Scalar>
void sum_by_doubling(Workspace& workspace, const Shape& shape, LagWindows& lag_windows, const Scalar* e,
                     Scalar* g) {
  const Index T = shape.T, h = shape.h, row = shape.B * h, tau = lag_windows.tau();
  auto* sums = workspace.take<double>(T * row);
  auto* joined = workspace.take<double>(T * row);
  auto* spare = workspace.take<double>(T * row);
  std::copy(e, e + T * row, sums);
  std::fill(joined, joined + T * row, 0.0);
  // `from`, of `behind` steps later and by the power n of W_hh, is put behind `to`.
  const auto put_behind = [&](Index n, Index behind, const double* from, double* to) {
    const Index rows = (T - behind) * shape.B;
    if (rows <= 0) return;
    std::copy(from + behind * row, from + T * row, spare);
    lag_windows.carry_on(n, rows, spare);
    for (Index i = 0; i < rows * h; ++i) to[i] += spare[i];
  };
  Index done = 0;
  for (Index n = 1;; n *= 2) {
    if ((tau & n) != 0) {
      put_behind(done, done, sums, joined);
      done += n;
    }
    if (done == tau) break;
    put_behind(n, n, sums, sums);
  }
  std::transform(joined, joined + T * row, g, [](double v) { return static_cast<Scalar>(v); });
}

// d_W_hx = sum g_t x_t^T, d_W_hh = sum g_t h_{t-1}^T and d_b_h = sum g_t, as one product of all g with rows
// [x_t | h_{t-1} | 1].
template <typename Scalar>
void sum_outer(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Scalar* hidden,
               const Scalar* g, const Params<Scalar>& to) {
  const Shape& s = problem.shape;
  const Index width = s.d + s.h + 1, row = s.B * s.h;
  const Index steps = std::max(rows_per_task, (s.T * s.B + most_partial_sums - 1) / most_partial_sums);
  const Index tasks_each = (s.T + steps - 1) / steps, tasks = tasks_each * s.B;
  auto* parts = workspace.take<Scalar>(tasks * s.h * width);
  auto* memory = workspace.take<Scalar>(run.threads * rows_per_task * width);
  const double work = static_cast<double>(rows_per_task * s.h) * static_cast<double>(width);
  parallel(run, tasks, work * static_cast<double>(steps / rows_per_task), [&](Index task, int worker) {
    const Index b = task / tasks_each, from = task % tasks_each * steps;
    const Index stop = std::min(problem.length(b), from + steps);
    Scalar* part = parts + task * s.h * width;
    Scalar* factors = memory + worker * rows_per_task * width;
    std::fill(part, part + s.h * width, Scalar{0});
    for (Index first = from; first < stop; first += rows_per_task) {
      run.checkpoint(worker, work);
      const Index rows = std::min(rows_per_task, stop - first);
      for (Index i = 0; i < rows; ++i) {
        Scalar* factor = factors + i * width;
        const Index t = first + i;
        const Scalar* x = problem.x.at(t, b);
        std::copy(x, x + s.d, factor);
        const Scalar* before = t > 0                   ? hidden + (t - 1) * row + b * s.h
                               : problem.h0 != nullptr ? problem.h0 + b * s.h
                                                       : nullptr;
        if (before != nullptr)
          std::copy(before, before + s.h, factor + s.d);
        else
          std::fill(factor + s.d, factor + s.d + s.h, Scalar{0});
        factor[width - 1] = 1;
      }
      add_outer<Scalar>(rows, g + first * row + b * s.h, row, s.h, factors, width, width, part, width, true);
    }
  });
  for (Index task = 1; task < tasks; ++task)
    for (Index i = 0; i < s.h * width; ++i) parts[i] += parts[task * s.h * width + i];
  for (Index i = 0; i < s.h; ++i) {
    const Scalar* sum = parts + i * width;
    if (to.W_hx != nullptr) std::copy(sum, sum + s.d, to.W_hx + i * s.d);
    if (to.W_hh != nullptr) std::copy(sum + s.d, sum + s.d + s.h, to.W_hh + i * s.h);
    if (to.b_h != nullptr) to.b_h[i] = sum[width - 1];
  }
}

// C_t = A_t M, plus C_t where `add`, or a row `init` that is not null, for all steps of all sequences.
template <typename Scalar>
void multiply_all(Run& run, const Shape& shape, SequenceView<const Scalar> A, const Packed<Scalar>& M,
                  SequenceView<Scalar> C, bool add = false, const Scalar* init = nullptr) {
  const Index tasks = (shape.T + rows_per_task - 1) / rows_per_task;
  const double work = static_cast<double>(rows_per_task * M.depth) * static_cast<double>(M.columns);
  parallel(run, tasks * shape.B, work, [&](Index task, int) {
    const Index b = task / tasks, t = task % tasks * rows_per_task;
    const kernels::Rows<Scalar*> rows{C.at(t, b), C.step, nullptr};
    multiply<Scalar>(std::min(rows_per_task, shape.T - t), {A.at(t, b), A.step}, M,
                     {add ? rows.base : init, add ? rows.stride : 0}, rows);
  });
}

// All states step by step, (T, B, h).
template <typename Scalar>
const Scalar* states(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                     const Problem<Scalar>& problem) {
  const Shape& s = problem.shape;
  const Index row = s.B * s.h;
  auto* hidden = workspace.take<Scalar>(s.T * row);
  const auto W_hx =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, s.h, s.d, s.d}.transposed());
  multiply_all<Scalar>(run, s, problem.x, W_hx, {hidden, row, s.h}, false, params.b_h);
  ScanProblem<Scalar> scanned;
  scanned.size = s.h;
  scanned.packed = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, s.h, s.h, s.h}.transposed());
  scanned.base = hidden;
  scanned.step = row;
  auto* zero = workspace.take<Scalar>(row);
  std::fill(zero, zero + row, Scalar{0});
  scanned.starts = problem.h0 != nullptr ? problem.h0 : zero;
  for (Index b = 0; b < s.B; ++b) scanned.lanes.push_back({b * s.h, s.T});
  scan(run, workspace, scanned);
  return hidden;
}

}  // namespace

template <typename Scalar>
void window_sums(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                 const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
                 SequenceView<const Scalar> d_o, LagWindows& lag_windows) {
  const Shape& s = problem.shape;
  const Index row = s.B * s.h;
  auto* e = workspace.take<Scalar>(s.T * row);
  auto* g = workspace.take<Scalar>(s.T * row);
  const auto W_qh = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_qh, s.q, s.h, s.h});
  multiply_all<Scalar>(run, s, d_o, W_qh, {e, row, s.h});
  if (lag_windows.powers_grow())
    sum_by_steps(run, workspace, params, s, lag_windows.tau(), e, g);
  else
    sum_by_doubling(workspace, s, lag_windows, e, g);
  const Params<Scalar>& to = gradients.params;
  if (to.W_hx != nullptr || to.W_hh != nullptr || to.b_h != nullptr)
    sum_outer(run, workspace, problem, states(run, workspace, params, problem), g, to);
  if (!gradients.x) return;
  const auto W_hx = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, s.h, s.d, s.d});
  multiply_all<Scalar>(run, s, {g, row, s.h}, W_hx, gradients.x);
  if (params.W_qx == nullptr) return;
  const auto W_qx = pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_qx, s.q, s.d, s.d});
  multiply_all<Scalar>(run, s, d_o, W_qx, gradients.x, true);
}

template void window_sums(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                          const Gradients<float>&, SequenceView<const float>, LagWindows&);
template void window_sums(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                          const Gradients<double>&, SequenceView<const double>, LagWindows&);

}  // namespace rnnbptt
