// How large and how small the rows of a matrix are.
#pragma once

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

struct RowSizes {
  bool tame;   // the largest modulus of every row is zero or between 2^-bits and 2^bits
  bool falls;  // a row of zeros follows one that is not zero
  bool rises;  // one that is not zero follows a row of zeros
};

// Sizes of rows of `lanes` sequences side by side: row i follows row i - lanes. Rows that are not finite are
// not tame. `falls` and `rises` are false where `tame` is.
RowSizes row_sizes(Index rows, Index width, Index lanes, const double* data, int bits);

}  // namespace rnnbptt
