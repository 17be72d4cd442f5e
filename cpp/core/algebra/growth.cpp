#include "core/algebra/growth.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

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

Growth::Growth(Workspace& workspace, Square form, double rate)
    : form_(form), rate_(rate), columns_(workspace.take<double>(form.part())) {}

void Growth::add(Index n, const double* power) {
  const Index h = form_.part();
  const double* A = form_.state_part(power);
  double largest = 0;
  std::fill(columns_, columns_ + h, 0.0);
  for (Index i = 0; i < h; ++i) {
    const double* row = A + i * form_.size;
    largest = std::max(largest, frobenius(h, row));
    for (Index j = 0; j < h; ++j) columns_[j] += row[j] * row[j];
  }
  const double own = rate_ > 1 ? std::pow(rate_, static_cast<double>(n)) : 1;
  row_ = std::max(row_, largest / own);
  column_ = std::max(column_, std::sqrt(*std::max_element(columns_, columns_ + h)) / own);
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

double growth_of(Run& run, Workspace& workspace, Square form, const std::vector<const double*>& squares) {
  const auto growth = [&](double rate, const double* scales) {
    Growth result(workspace, form, rate);
    Index n = 1;
    for (const double* square : squares) {
      result.add(n, scales == nullptr ? square : scaled(workspace, form, scales, false, square));
      n *= 2;
    }
    return result.value();
  };
  const double plain = growth(1, nullptr);
  if (plain <= largest_growth) return plain;
  constexpr std::size_t settled = 5;
  const std::size_t last = std::min(squares.size() - 1, settled);
  const double rate = exploding_rate(run, workspace, form, squares[last], Index{1} << last);
  const double* scales = balancing_scales(workspace, form, squares.front());
  return std::min(growth(rate, nullptr), growth(rate, scales));
}

double growth_rate(Run& run, Workspace& workspace, Square form, const double* P, int settling, int measured) {
  const Index h = form.part();
  P = form.state_part(P);
  auto* v = workspace.take<double>(h);
  auto* next = workspace.take<double>(h);
  // The start must be orthogonal to no mode: random numbers, the same every time.
  std::uint32_t state = 1;
  for (Index i = 0; i < h; ++i)
    v[i] = 0.5 + static_cast<double>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24;
  double rate = 1, before = frobenius(h, v);
  for (int step = 0; step < settling + measured; ++step) {
    multiply_strided<double>(run, workspace, {v, 1, h, h}, {P, h, h, form.size}, nullptr, next);
    const double after = frobenius(h, next);
    if (!(after > 0)) return 0;
    if (step >= settling) rate *= after / before;
    for (Index i = 0; i < h; ++i) v[i] = next[i] / after;
    before = 1;
  }
  return std::pow(rate, 1.0 / measured);
}

double exploding_rate(Run& run, Workspace& workspace, Square form, const double* P, Index n) {
  constexpr int settling = 64, measured = 64;  // what powers grow before they decay must be over
  const double rate = growth_rate(run, workspace, form, P, settling, measured);
  return rate > 1 ? std::pow(rate, 1 / static_cast<double>(n)) : 1;
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
