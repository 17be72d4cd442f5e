// How large and how small the rows of a matrix are.
#pragma once

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

struct RowSizes {
  bool tame;   // the largest entry of every row, in modulus, is zero or between 2^-bits and 2^bits
  bool falls;  // a row of zeros follows one that is not zero
  bool rises;  // one that is not zero follows a row of zeros
};

// Looks at rows of `lanes` sequences side by side. Entries that are not finite are not tame; of rows that are
// not tame, nothing else is said.
RowSizes row_sizes(Index rows, Index width, Index lanes, const double* data, int bits);

}  // namespace rnnbptt
