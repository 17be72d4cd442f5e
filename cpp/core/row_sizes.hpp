// How large and how small the rows of a matrix are.
#pragma once

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

enum class RowSizes { wild, tame, tame_without_zeros };

// Whether the largest entry of every row, in modulus, is zero or between 2^-bits and 2^bits, and whether no row
// is zero. Rows with entries that are not finite are wild.
RowSizes row_sizes(Index rows, Index width, const double* data, int bits);

}  // namespace rnnbptt
