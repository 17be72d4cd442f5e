// Where derivatives by each parameter stand in a row of a Jacobian.
#pragma once

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// Where the columns of each parameter begin in a row of J; below zero for what is not differentiated by. The
// columns of what is left out are among the `total` and hold zeros.
struct Columns {
  Index W_hx = -1, W_hh = -1, W_qh = -1, b_h = -1, b_q = -1, W_qx = -1;
  Index h0 = -1;        // of the first sequence
  Index h0_stride = 0;  // from one sequence's to the next
  Index total = 0;
  // Whether the row of an output has columns for its own weights in W_qh, b_q and W_qx alone, since those of
  // other outputs would be zero: of losses that are sums over outputs.
  bool own_output = false;
};

}  // namespace rnnbptt
