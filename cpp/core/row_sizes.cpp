#include "core/row_sizes.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace rnnbptt {
namespace {

// The smallest and the largest modulus of n numbers; the largest is not a number where one of them is not finite.
struct Extent {
  double low, high;
};

Extent extent(Index n, const double* data) {
  // Several at a time: one alone would wait for itself.
  constexpr Index width = 8;
  double low[width], high[width] = {}, rest[width] = {};
  std::fill(low, low + width, HUGE_VAL);
  const auto look = [&](Index k, double x) {
    const double size = std::abs(x);
    low[k] = size < low[k] ? size : low[k];
    high[k] = size > high[k] ? size : high[k];
    rest[k] += x - x;
  };
  Index i = 0;
  for (; i + width <= n; i += width)
    for (Index k = 0; k < width; ++k) look(k, data[i + k]);
  for (; i < n; ++i) look(0, data[i]);
  Extent all{low[0], high[0]};
  double sum = 0;
  for (Index k = 0; k < width; ++k) {
    all.low = std::min(all.low, low[k]);
    all.high = std::max(all.high, high[k]);
    sum += rest[k];
  }
  all.high += sum;
  return all;
}

}  // namespace

RowSizes row_sizes(Index rows, Index width, Index lanes, const double* data, int bits) {
  const double low = std::ldexp(1.0, -bits), high = std::ldexp(1.0, bits);
  // Entry by entry, which is quick: most often none is small.
  const Extent all = extent(rows * width, data);
  if (!(all.high < high)) return {false, false, false};
  if (all.low > low) return {true, false, false};
  std::vector<char> zero(static_cast<std::size_t>(rows));
  RowSizes found{true, false, false};
  for (Index i = 0; i < rows; ++i) {
    const double top = extent(width, data + i * width).high;
    if (top > 0 && !(top > low)) return {false, false, false};
    const bool now = zero[static_cast<std::size_t>(i)] = top == 0;
    if (i < lanes) continue;
    const bool before = zero[static_cast<std::size_t>(i - lanes)];
    found.falls = found.falls || (now && !before);
    found.rises = found.rises || (before && !now);
  }
  return found;
}

}  // namespace rnnbptt
