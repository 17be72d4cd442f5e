#include "core/row_sizes.hpp"

#include <algorithm>
#include <cmath>

namespace rnnbptt {
namespace {

RowSizes sizes_of(Index rows, Index width, const double* data, double low, double high) {
  // Entry by entry, which is quick: most often none is small.
  Index large = 0, small = 0;
  for (Index i = 0; i < rows * width; ++i) {
    const double size = std::abs(data[i]);
    large += !(size < high);  // or not a number
    small += size <= low;
  }
  if (large > 0) return RowSizes::wild;
  if (small == 0) return RowSizes::tame_without_zeros;
  bool zeros = false;
  for (Index i = 0; i < rows; ++i) {
    double top = 0;
    for (Index j = 0; j < width; ++j) top = std::max(top, std::abs(data[i * width + j]));
    if (top > low) continue;
    if (top > 0) return RowSizes::wild;
    zeros = true;
  }
  return zeros ? RowSizes::tame : RowSizes::tame_without_zeros;
}

}  // namespace

RowSizes row_sizes(Index rows, Index width, const double* data, int bits) {
  const double low = std::ldexp(1.0, -bits), high = std::ldexp(1.0, bits);
  RowSizes found = RowSizes::tame_without_zeros;
  const Index block = std::max<Index>(1, (Index{1} << 12) / width);  // what is looked at twice is still there
  for (Index first = 0; first < rows && found != RowSizes::wild; first += block)
    found = std::min(found, sizes_of(std::min(block, rows - first), width, data + first * width, low, high));
  return found;
}

}  // namespace rnnbptt
