// The loss of rows of outputs, and its derivative d_o.
#pragma once

#include "core/sweep/rows.hpp"

namespace rnnbptt {

// Turns outputs into dL/do, in place, on rows [from, to) of L * q scalars, and returns their share of L. Rows
// of a tangent problem hold o of all L steps, and behind them their tangents.
// Steps of weight 0, steps behind the end of a sequence and rows of start states get exactly 0; their targets
// are not used. `targets` is memory for to - from rows. The problem must have a loss.
template <typename Scalar>
double loss_rows(const Problem<Scalar>& problem, const Window& window, Index L, Index from, Index to,
                 Scalar* rows, Index row_stride, Scalar* targets);

}  // namespace rnnbptt
