#include "core/reports/row_sizes.hpp"

#include <cmath>
#include <vector>

#include "kernels/table.hpp"

namespace rnnbptt {

RowSizes row_sizes(Index rows, Index width, Index lanes, const double* data, int bits) {
  const double low = std::ldexp(1.0, -bits), high = std::ldexp(1.0, bits);
  // All entries at once, which is quick: most often none is small.
  const auto* sizes = kernels::table().sizes;
  const kernels::Extent all = sizes->extent(rows * width, data);
  if (!(all.high < high)) return {false, false, false};
  if (all.low > low) return {true, false, false};
  std::vector<char> zero(static_cast<std::size_t>(rows));
  RowSizes found{true, false, false};
  for (Index i = 0; i < rows; ++i) {
    const double top = sizes->extent(width, data + i * width).high;
    if (top > 0 && !(top > low)) return {false, false, false};
    const bool now = top == 0;
    zero[static_cast<std::size_t>(i)] = now;
    if (i < lanes) continue;
    const bool before = zero[static_cast<std::size_t>(i - lanes)];
    found.falls = found.falls || (now && !before);
    found.rises = found.rises || (before && !now);
  }
  return found;
}

}  // namespace rnnbptt
