// Gradients with lag windows as the sums they are, term by term:
//
//   g_t = sum_{i<tau} (W_hh^T)^i e_{t+i}
//
// Nothing is taken away, so nothing cancels, whatever lies behind a window, and nothing of it is read. That
// takes log2(tau) products of all steps with powers of W_hh, or tau products with W_hh where powers grow.
#pragma once

#include "core/sliding/lag_windows.hpp"

namespace rnnbptt {

// Fills the gradients of W_hx, W_hh, b_h and the inputs, those that are wanted. d_o is (T, B, q), zero behind
// the ends of sequences.
template <typename Scalar>
void window_sums(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                 const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
                 SequenceView<const Scalar> d_o, LagWindows& lag_windows);

}  // namespace rnnbptt
