// Gauss-Newton matrices, G = sum_t (M_t J_t)^T (M_t J_t), M_t J_t as in core/sensitivities.hpp.
//
// Most of G is zero. Columns are in three groups: those of parameters that states depend on (W_hx, W_hh,
// b_h), n of them; of every output's own weights (its rows of W_qh, b_q and W_qx), m of them, which no other
// output depends on; and of h0, h for every sequence, which no other sequence depends on:
//
//         n     m m m    h h h h
//       [ S  |  C C C  |  C C C C ]
//       [    |  O      |  C C C C ]
//       [    |    O    |  C C C C ]
//       [    |      O  |  C C C C ]
//       [    |         |  H       ]
//       [    |         |    H     ]
//       ...
//
// Rows of J have n + m + h numbers, and G is summed up block by block: time and memory grow linearly with
// outputs and with sequences.
#pragma once

#include "core/columns.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// The sizes of the blocks. Where a loss ties the outputs of a step together, they are one group.
struct BlockSizes {
  Index states = 0;   // n
  Index groups = 0;   // of outputs
  Index outputs = 0;  // m
  Index starts = 0;   // h, or 0 where h0 is not derived by
};

template <typename Scalar>
BlockSizes block_sizes(const Problem<Scalar>& problem, const Columns& columns);

// The blocks; columns of what is not derived by are left out.
template <typename Scalar>
struct Blocks {
  Scalar* states = nullptr;   // (n, n): S, above and on the diagonal
  Scalar* outputs = nullptr;  // (groups, m, m + n): rows (O, C^T) of each group
  Scalar* starts = nullptr;   // (B, h, groups m + n + h): rows (C^T of all groups, C^T of states, H)
};

template <typename Scalar>
void gauss_newton_blocks(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                         const Problem<Scalar>& problem, const Columns& columns,
                         SequenceView<const Scalar> hidden, SequenceView<const Scalar> o,
                         const Blocks<Scalar>& to);

// All of G, (columns.total, columns.total).
template <typename Scalar>
void gauss_newton(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                  const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
                  SequenceView<const Scalar> o, Scalar* matrix);

}  // namespace rnnbptt
