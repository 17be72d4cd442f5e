#include "core/reports/state_norms.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/algebra/products.hpp"

namespace rnnbptt {
namespace {

double log2_norm(Index size, const double* v) {
  const double plain = kernels::table().sizes->square(size, v);
  if (plain > 0x1p-900 && plain < 0x1p900) return std::log2(plain) / 2;
  double top = 0;
  for (Index i = 0; i < size; ++i) top = std::max(top, std::abs(v[i]));
  if (top == 0 || !std::isfinite(top)) return std::log2(top);
  // Twice, for a power of two beyond float64 where the entries are subnormal.
  const int exponent = std::ilogb(top), half = exponent / 2;
  double sum = 0;
  for (Index i = 0; i < size; ++i) {
    const double scaled = std::ldexp(std::ldexp(v[i], -half), half - exponent);
    sum += scaled * scaled;
  }
  return std::log2(sum) / 2 + exponent;
}

}  // namespace

void log2_state_norms(Run& run, Workspace& workspace, Index lanes, Index steps, Index h, Index m,
                      const double* W, const double* U, const double* u, const double* start, double* logs) {
  workspace.reset();
  // A step is one product, [s | u] [W | U]^T, for the lanes of a task.
  const Index depth = h + m;
  auto* joined = workspace.take<double>(h * depth);
  for (Index i = 0; i < h; ++i) {
    std::copy(W + i * h, W + (i + 1) * h, joined + i * depth);
    std::copy(U + i * m, U + (i + 1) * m, joined + i * depth + h);
  }
  const auto matrix = pack<double>(workspace, MatrixView<const double>{joined, h, depth, depth}.transposed());
  // Few enough lanes for their states to stay in the first caches. A multiple of 8 changes no bit.
  const Index per_task = std::clamp<Index>((Index{1} << 11) / depth / 8, 1, 16) * 8;
  const Index tasks = (lanes + per_task - 1) / per_task, size = per_task * depth;
  auto* memory = workspace.take<double>(run.threads * 2 * size);
  const double step_work = static_cast<double>(per_task * h) * static_cast<double>(depth);
  parallel(run, tasks, step_work * static_cast<double>(steps), [&](Index task, int worker) {
    const Index first = task * per_task, count = std::min(per_task, lanes - first);
    double *s = memory + worker * 2 * size, *next = s + size;
    for (Index i = 0; i < count; ++i)
      std::copy(start + (first + i) * h, start + (first + i + 1) * h, s + i * depth);
    for (Index j = 0; j < steps; ++j) {
      run.checkpoint(worker, step_work);
      for (Index i = 0; i < count; ++i) {
        const double* entering = u + ((first + i) * steps + j) * m;
        std::copy(entering, entering + m, s + i * depth + h);
      }
      multiply<double>(count, {s, depth, nullptr}, matrix, {}, {next, depth, nullptr});
      std::swap(s, next);
      for (Index i = 0; i < count; ++i) logs[(first + i) * steps + j] = log2_norm(h, s + i * depth);
    }
  });
}

}  // namespace rnnbptt
