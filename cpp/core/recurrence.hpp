// The recurrence alone, straight in the caller's arrays.
#pragma once

#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// hidden_t = W_hx x_t + b_h + W_hh hidden_{t-1} and o_t = W_qh hidden_t + W_qx x_t + b_q for all T steps of
// all sequences.
template <typename Scalar>
void forward(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, SequenceView<Scalar> hidden);

// s_t = W s_{t-1} + v_t; with `transpose` by W^T, with `reverse` from the last step to the first. s0 is (B,
// h) or null for zero; s may be v itself, and must not overlap it otherwise.
template <typename Scalar>
void linear_scan(Run& run, Workspace& workspace, Index T, Index B, Index h, const Scalar* W,
                 SequenceView<const Scalar> v, const Scalar* s0, bool reverse, bool transpose,
                 SequenceView<Scalar> s, Index piece);

// P_k = W^k for k = 0..n, (n + 1, h, h), each from the one before.
template <typename Scalar>
void matrix_powers(Run& run, Workspace& workspace, Index h, Index n, const Scalar* W, Scalar* powers);

}  // namespace rnnbptt
