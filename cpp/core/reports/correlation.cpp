#include "core/reports/correlation.hpp"

#include <algorithm>

#include "core/algebra/products.hpp"

namespace rnnbptt {
namespace {

// Copies one sequence, `before` steps of zeros ahead of it, to rows up to `steps`.
void copy_padded(SequenceView<const double> from, Index b, Index T, Index size, Index before, Index steps,
                 double* to) {
  std::fill(to, to + before * size, 0.0);
  for (Index t = 0; t < T; ++t) std::copy(from.at(t, b), from.at(t, b) + size, to + (before + t) * size);
  std::fill(to + (before + T) * size, to + steps * size, 0.0);
}

}  // namespace

// Time is cut into sections of n steps. With A_c the steps a_{cn} .. a_{cn+n-1} side by side, and B_c the
// steps b_{cn-count+1} .. b_{cn+n-1}, a row that overlaps with its neighbours, the sum over the sections
//
//     C = sum_c A_c^T B_c,        C(j, l) = sum_c a_{cn+j} b_{cn-count+1+l}^T,
//
// is one large product, and R_k sums the C(j, l) of the diagonal k = j + count - 1 - l.
void correlate(Run& run, Workspace& workspace, Index T, Index B, Index q, Index m, Index count,
               SequenceView<const double> a, SequenceView<const double> b, double* R) {
  workspace.reset();
  // Rows of C: so many that a number that is fetched is used often, so few that most entries of C are wanted.
  constexpr Index rows_wanted = 32;
  const Index n = std::clamp<Index>(rows_wanted / q, 1, T);
  const Index sections = (T + n - 1) / n, wide = count - 1 + n;
  const Index rows = n * q, columns = wide * m;
  auto* left = workspace.take<double>(B * sections * rows);
  auto* right = workspace.take<double>(B * (count - 1 + sections * n) * m);
  const Index left_size = sections * rows, right_size = (count - 1 + sections * n) * m;
  for (Index s = 0; s < B; ++s) {
    copy_padded(a, s, T, q, 0, sections * n, left + s * left_size);
    copy_padded(b, s, T, m, count - 1, count - 1 + sections * n, right + s * right_size);
  }
  auto* C = workspace.take<double>(rows * columns);
  // Tasks take columns of C that stay in the second cache, whole panels each.
  const Index panel = kernels::table().of<double>().panel_columns;
  const Index width = std::clamp<Index>((Index{1} << 14) / rows / panel, 1, 16) * panel;
  const double work = static_cast<double>(B * sections * rows) * static_cast<double>(width);
  parallel(run, (columns + width - 1) / width, work, [&](Index task, int worker) {
    const Index first = task * width, taken = std::min(width, columns - first);
    for (Index i = 0; i < rows; ++i) std::fill(C + i * columns + first, C + i * columns + first + taken, 0.0);
    // Where even the last of these columns still lies before the first step, B_c is zero.
    const Index last = (first + taken - 1) / m;
    const Index zeros = std::min(sections, std::max<Index>(count - 1 - last, 0) / n);
    constexpr Index at_once = 1024;
    for (Index s = 0; s < B; ++s)
      for (Index c = zeros; c < sections; c += at_once) {
        const Index some = std::min(at_once, sections - c);
        run.checkpoint(worker, static_cast<double>(some * rows * taken));
        add_outer<double>(some, left + s * left_size + c * rows, rows, rows,
                          right + s * right_size + c * n * m + first, n * m, taken, C + first, columns);
      }
  });
  std::fill(R, R + count * q * m, 0.0);
  for (Index j = 0; j < n; ++j)
    for (Index k = 0; k < count; ++k) {
      const Index l = j + count - 1 - k;
      for (Index i = 0; i < q; ++i) {
        const double* from = C + (j * q + i) * columns + l * m;
        double* to = R + (k * q + i) * m;
        for (Index r = 0; r < m; ++r) to[r] += from[r];
      }
    }
}

}  // namespace rnnbptt
