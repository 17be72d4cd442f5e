#include "core/algebra/growth.hpp"

#include <algorithm>
#include <cmath>

namespace rnnbptt {
namespace {

constexpr int most_sweeps = 16;
// What a scale has to gain, in the sum of the norms of its row and column.
constexpr double worth_scaling = 0.95;
// Scales further apart would put entries out of range.
constexpr double largest_scale = 0x1p100;

}  // namespace

double frobenius(Index n, const double* A) {
  double sums[8] = {};  // none waits for another
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (Index j = 0; j < 8; ++j) sums[j] += A[i + j] * A[i + j];
  for (; i < n; ++i) sums[0] += A[i] * A[i];
  return std::sqrt(((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])));
}

Growth::Growth(Workspace& workspace, Square form)
    : form_(form), columns_(workspace.take<double>(form.part())) {}

void Growth::add(const double* power) {
  const Index n = form_.part();
  const double* A = form_.state_part(power);
  std::fill(columns_, columns_ + n, 0.0);
  for (Index i = 0; i < n; ++i) {
    const double* row = A + i * form_.size;
    row_ = std::max(row_, frobenius(n, row));
    for (Index j = 0; j < n; ++j) columns_[j] += row[j] * row[j];
  }
  column_ = std::max(column_, std::sqrt(*std::max_element(columns_, columns_ + n)));
}

const double* balancing_scales(Workspace& workspace, Square form, const double* W) {
  const Index n = form.part();
  auto* scales = workspace.take<double>(n);
  auto* A = workspace.take<double>(n * n);
  std::fill(scales, scales + n, 1.0);
  for (Index i = 0; i < n; ++i)
    std::copy(form.state_part(W) + i * form.size, form.state_part(W) + i * form.size + n, A + i * n);
  bool scaled = false;
  for (int sweep = 0, changed = 1; changed != 0 && sweep < most_sweeps; ++sweep) {
    changed = 0;
    for (Index i = 0; i < n; ++i) {
      double row = 0, column = 0;
      for (Index j = 0; j < n; ++j) {
        if (j == i) continue;
        row += A[i * n + j] * A[i * n + j];
        column += A[j * n + i] * A[j * n + i];
      }
      row = std::sqrt(row);
      column = std::sqrt(column);
      if (!(row > 0) || !(column > 0) || !std::isfinite(row) || !std::isfinite(column)) continue;
      const double factor = std::exp2(std::round(0.5 * std::log2(row / column)));
      const double scale = scales[i] * factor;
      if (!(column * factor + row / factor < worth_scaling * (column + row)) || scale > largest_scale ||
          scale < 1 / largest_scale)
        continue;
      for (Index j = 0; j < n; ++j) A[i * n + j] /= factor;
      for (Index j = 0; j < n; ++j) A[j * n + i] *= factor;
      scales[i] = scale;
      changed = 1;
      scaled = true;
    }
  }
  return scaled ? scales : nullptr;
}

double growth_of(Workspace& workspace, Square form, const std::vector<const double*>& powers) {
  Growth plain(workspace, form);
  for (const double* power : powers) plain.add(power);
  if (plain.value() <= largest_growth) return plain.value();
  const double* scales = balancing_scales(workspace, form, powers.front());
  if (scales == nullptr) return plain.value();
  Growth balanced(workspace, form);
  for (const double* power : powers) balanced.add(scaled(workspace, form, scales, false, power));
  return std::min(plain.value(), balanced.value());
}

const double* scaled(Workspace& workspace, Square form, const double* scales, bool back, const double* A) {
  const Index n = form.part(), size = form.size;
  auto* result = workspace.take<double>(size * size);
  for (Index i = 0; i < size; ++i)
    for (Index j = 0; j < size; ++j) {
      const double own = scales[i % n], other = scales[j % n];
      result[i * size + j] = A[i * size + j] * (back ? own / other : other / own);
    }
  return result;
}

}  // namespace rnnbptt
