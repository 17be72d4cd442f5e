#include "core/reports/lag_sums.hpp"

#include <algorithm>
#include <cmath>

#include "core/algebra/products.hpp"

namespace rnnbptt {
namespace {

double dot(Index size, const double* a, const double* b) {
  // Several sums, so that none waits for another.
  constexpr Index width = 8;
  double sums[width] = {};
  Index i = 0;
  for (; i + width <= size; i += width)
    for (Index k = 0; k < width; ++k) sums[k] += a[i + k] * b[i + k];
  for (; i < size; ++i) sums[0] += a[i] * b[i];
  double sum = 0;
  for (const double part : sums) sum += part;
  return sum;
}

// Below this many rows a Gram matrix is faster by its entries than by a kernel.
constexpr Index few = 8;

// Scalars of the panels that hold the transpose of q rows.
Index turned_size(Index q, Index size) {
  const Index panel = kernels::table().of<double>().panel_columns;
  return (q + panel - 1) / panel * panel * size;
}

// C = A A^T of q rows; `turned` has room for their transpose.
void gram(Index q, Index size, const double* A, double* turned, double* C) {
  if (q <= few) {
    for (Index i = 0; i < q; ++i)
      for (Index j = 0; j <= i; ++j) C[i * q + j] = C[j * q + i] = dot(size, A + i * size, A + j * size);
    return;
  }
  const auto& kernel = kernels::table().of<double>();
  const Index panel = kernel.panel_columns;
  for (Index first = 0; first < q; first += panel)
    for (Index k = 0; k < size; ++k) {
      double* to = turned + first * size + k * panel;
      const double* from = A + first * size + k;
      const Index used = std::min(panel, q - first);
      for (Index j = 0; j < used; ++j) to[j] = from[j * size];
      std::fill(to + used, to + panel, 0.0);
    }
  kernels::Product<double> p;
  p.rows = p.columns = q;
  p.depth = size;
  p.a = {A, size, nullptr};
  p.b = turned;
  p.b_depth = panel;
  p.b_panel = panel * size;
  p.c = {C, q, nullptr};
  kernel.product(p);
}

}  // namespace

void outer_sum(Run& run, Workspace& workspace, Index rows, const double* A, Index m, const double* B, Index n,
               double* C) {
  workspace.reset();
  // Decided by sizes alone, so that threads change no bit; whole strips of add_outer.
  const Index per_task = std::clamp<Index>((rows / 8 + 127) / 128 * 128, 256, 4096);
  const Index tasks = (rows + per_task - 1) / per_task;
  auto* parts = workspace.take<double>(tasks * m * n);
  // Kernels read behind the ends of rows: the last ones have to lie in the workspace.
  const Index last = std::min<Index>(rows, 8), others = rows - last;
  auto* copied = workspace.take<double>(last * n);
  std::copy(B + others * n, B + rows * n, copied);
  const double work = static_cast<double>(std::min(per_task, rows) * m) * static_cast<double>(n);
  parallel(run, tasks, work, [&](Index i, int) {
    const Index first = i * per_task, stop = std::min(first + per_task, others);
    double* part = parts + i * m * n;
    std::fill(part, part + m * n, 0.0);
    if (first < stop) add_outer<double>(stop - first, A + first * m, m, m, B + first * n, n, n, part, n);
    if (i == tasks - 1) add_outer<double>(last, A + others * m, m, m, copied, n, n, part, n);
  });
  std::copy(parts, parts + m * n, C);
  for (Index i = 1; i < tasks; ++i)
    for (Index j = 0; j < m * n; ++j) C[j] += parts[i * m * n + j];
}

void inner_products(Run& run, Workspace& workspace, Index K, Index q, Index h, Index w, const double* P,
                    const double* G, const double* Z, double* inner) {
  workspace.reset();
  const auto packed = pack<double>(workspace, MatrixView<const double>{G, h, w, w});
  // Rows enough for a kernel to be fast, and few enough for their products to stay in the second cache.
  const Index per_task = std::max<Index>(1, 64 / q);
  auto* rows = workspace.take<double>(run.threads * per_task * q * w);
  const double work = static_cast<double>(per_task * q * h) * static_cast<double>(w);
  parallel(run, (K + per_task - 1) / per_task, work, [&](Index task, int worker) {
    const Index first = task * per_task, count = std::min(per_task, K - first);
    double* own = rows + worker * per_task * q * w;
    multiply<double>(count * q, {P + first * q * h, h, nullptr}, packed, {}, {own, w, nullptr});
    for (Index k = 0; k < count; ++k) inner[first + k] = dot(q * w, own + k * q * w, Z + (first + k) * q * w);
  });
}

void gram_products(Run& run, Workspace& workspace, Index K, Index q, Index h, Index w, const double* P,
                   const double* Z, const double* B, double* inner, double* largest) {
  workspace.reset();
  const Index turned = turned_size(q, std::max(h, w)), size = 2 * q * q + turned;
  auto* memory = workspace.take<double>(run.threads * size);
  const Index per_task = std::max<Index>(1, (Index{1} << 17) / (q * q * (h + w)));
  const double work = static_cast<double>(per_task * q * q) * static_cast<double>(h + w);
  parallel(run, (K + per_task - 1) / per_task, work, [&](Index task, int worker) {
    double *left = memory + worker * size, *right = left + q * q, *own = right + q * q;
    for (Index k = task * per_task; k < std::min(K, (task + 1) * per_task); ++k) {
      gram(q, h, P + k * q * h, own, left);
      if (Z != nullptr) gram(q, w, Z + k * q * w, own, right);
      const double* other = Z != nullptr ? right : B;
      inner[k] = dot(q * q, left, other);
      largest[k] = std::sqrt(dot(q * q, left, left)) * std::sqrt(dot(q * q, other, other));
    }
  });
}

}  // namespace rnnbptt
