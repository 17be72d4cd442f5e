// Lifting time by powers of W_hh: L steps of the model are one step of a coarser linear model,
//
//   s_c = W^L s_{c-1} + [W^{L-1} B | ... | W B | B] x_c        x_c = the L inputs of chunk c,  B = W_hx
//   o_c = [C W; ...; C W^L] s_{c-1} + [C W^{j-i} B]_{i<=j} x_c  o_c = the L outputs of chunk c, C = W_qh
//
// (controllability, observability and block Toeplitz matrices: e.g. Kailath, Linear Systems, 1980, ch. 2).
// They are built by doubling, or adding one step where a binary digit of L asks for it, and their gradients
// pulled back through the same rounds, in `Real`: float64, or float32 where powers decay.
#pragma once

#include <vector>

#include "core/algebra/powers.hpp"

namespace rnnbptt {

template <typename Real>
struct LiftPower {
  Index n = 1;
  const Real* matrix = nullptr;      // W^n, (h, h)
  const Real* transposed = nullptr;  // null for the last
};

template <typename Real>
struct Lift {
  Square form;                            // of W: h, and whether this is a model of states and tangents
  Index inputs = 0, q = 0;                // `inputs` counts a constant input for the bias, if there is one
  Index steps = 1;                        // L
  std::vector<LiftPower<Real>> powers;    // from W to W^L
  const Real* inputs_by_lag = nullptr;    // (L * inputs, h): row (k, i) is column i of W^k B
  const Real* outputs_by_step = nullptr;  // (L * q, h): rows C W^(j+1), j = 0..L-1; all tangents last
  const Real* markov = nullptr;           // (q, L * inputs): column (k, i) is C W^k B, lag k, input i
  const Real* C = nullptr;                // (q, h)
};

// Gradients with respect to the matrices of a lift, in the same layouts. Overwritten by pull_back. Where the
// form is that of a model of states and tangents, entries at its zeros are not read.
template <typename Real>
struct LiftGradients {
  Real* power = nullptr;            // (h, h)
  Real* inputs_by_lag = nullptr;    // (L * inputs, h)
  Real* outputs_by_step = nullptr;  // (L * q, h)
  Real* markov = nullptr;           // (q, L * inputs)
};

// `powers` come without transposes. B_columns is (inputs, h): the columns of B as rows.
template <typename Real>
Lift<Real> lift(Run& run, Workspace& workspace, Square form, Index inputs, Index q,
                std::vector<LiftPower<Real>> powers, const Real* B_columns, const Real* C);

// Gradients of W (h, h), of the columns of B (inputs, h) and of C (q, h) from those of the lift. In a model
// of states and tangents M stands in W twice: the first one gets the whole gradient, the other zero. So with
// C.
template <typename Real>
void pull_back(Run& run, Workspace& workspace, const Lift<Real>& lift, const LiftGradients<Real>& gradients,
               Real* d_W, Real* d_B_columns, Real* d_C);

}  // namespace rnnbptt
