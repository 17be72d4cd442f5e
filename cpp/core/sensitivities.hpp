// Derivatives of the outputs by the parameters, carried forward in time beside the state.
//
// A loss is locally a sum of squares, 1/2 sum_t |r_t|^2 with r_t = M_t o_t + const, and the matrix M_t of the
// step says which one: a root of the loss's second derivative, M_t^T M_t = d2l/do2 times the step's share of
// the weights; the identity where dL/do is given. What is computed here is M_t J_t, J_t = do_t / d theta.
#pragma once

#include "core/columns.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// r_t = M_t (o_t - y_t): of a loss that is a sum of squares, L = 1/2 sum |r_t|^2. Steps that do not count get
// 0.
template <typename Scalar>
void residuals(const Problem<Scalar>& problem, SequenceView<const Scalar> o, SequenceView<Scalar> r);

// M_t J_t for every step: (q, columns.total) numbers at J.at(t, b). `hidden` and `o` are those of forward().
template <typename Scalar>
void jacobian(Run& run, Workspace& workspace, const Params<const Scalar>& params,
              const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
              SequenceView<const Scalar> o, SequenceView<Scalar> J);

}  // namespace rnnbptt
