// Gradients of losses that look back at tau states as sums over lag windows, without a difference,
//
//   g_t = sum_{i<tau} (W_hh^T)^i e_{t+i}
//
// by doubling: sums over 1, 2, 4, ... losses follow from one another, and those of the binary digits of tau
// are joined. Where powers of W_hh grow too much for that, g_t = e_t + W_hh^T (e_{t+1} + W_hh^T (...)), in
// tau products with W_hh. What lies outside a lag window takes no part, however large it is.
#pragma once

#include "core/sliding/lag_windows.hpp"

namespace rnnbptt {

// Overwrites the gradients of W_hx, W_hh, b_h and x, those of them that are wanted. d_o is (T, B, q).
template <typename Scalar>
void window_sums(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                 const Problem<Scalar>& problem, SequenceView<const Scalar> d_o, LagWindows& lag_windows,
                 const Gradients<Scalar>& gradients);

}  // namespace rnnbptt
