// Lifting time by powers of W_hh: L steps of the model are one step of a coarser linear model,
//
//   s_c = W^L s_{c-1} + [W^{L-1} B | ... | W B | B] x_c        x_c = the L inputs of chunk c,  B = W_hx
//   o_c = [C W; ...; C W^L] s_{c-1} + [C W^{j-i} B]_{i<=j} x_c  o_c = the L outputs of chunk c, C = W_qh
//
// (controllability, observability and Toeplitz blocks: design of linear systems, e.g. Kailath 1980, ch. 2).
// The blocks are built by doubling, L = 2^m, and their gradients pulled back through the same doublings. All
// float64.
#pragma once

#include <vector>

#include "core/powers.hpp"

namespace rnnbptt {

struct Lift {
  Index h = 0, inputs = 0, q = 0;           // `inputs` counts a constant input for the bias, if there is one
  Index steps = 1;                          // L
  std::vector<const double*> powers;        // powers[i] = W^(2^i), each (h, h); the last is W^L
  std::vector<const double*> transposed;    // their transposes, but that of the last
  const double* inputs_by_lag = nullptr;    // (L * inputs, h): row (k, i) is column i of W^k B
  const double* outputs_by_step = nullptr;  // (L * q, h): rows C W^(j+1), j = 0..L-1
  const double* markov = nullptr;           // (q, L * inputs): column (k, i) is C W^k B, lag k, input i
  const double* C = nullptr;                // (q, h)
};

// Gradients with respect to the blocks, in the same layouts. Overwritten by pull_back.
struct LiftGradients {
  double* power = nullptr;            // (h, h)
  double* inputs_by_lag = nullptr;    // (L * inputs, h)
  double* outputs_by_step = nullptr;  // (L * q, h)
  double* markov = nullptr;           // (q, L * inputs)
};

// Doubles `levels` times, or fewer where powers of W grow too large. B_columns is (inputs, h): the columns of
// B as rows. `exact` is that of repeated_squares.
Lift lift(Run& run, Workspace& workspace, Index h, Index inputs, Index q, int levels, const double* W,
          const double* B_columns, const double* C, bool exact);

// Gradients of W (h, h), of the columns of B (inputs, h) and of C (q, h) from those of the blocks.
void pull_back(Run& run, Workspace& workspace, const Lift& lift, const LiftGradients& gradients, double* d_W,
               double* d_B_columns, double* d_C);

}  // namespace rnnbptt
