// Matrix products on the kernels: packing, and the two shapes the engine uses.
#pragma once

#include "core/runtime/threads.hpp"
#include "core/runtime/workspace.hpp"
#include "kernels/table.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// The right factor of a product, laid out in column panels.
template <typename Scalar>
struct Packed {
  const Scalar* data = nullptr;
  Index depth = 0, columns = 0;
  Index panel = 0;  // scalars from one panel to the next
};

// Packs B, converting to `Scalar`; unused columns of the last panel are zero.
template <typename Scalar, typename Source>
Packed<Scalar> pack(Workspace& workspace, MatrixView<const Source> B);

template <typename Scalar>
bool all_finite(Index n, const Scalar* x) {
  return kernels::table().of<Scalar>().finite(n, x);
}

// C = init + A B for `rows` rows with contiguous entries; init may be null rows, C itself, or one row
// repeated.
template <typename Scalar>
void multiply(Index rows, kernels::Rows<const Scalar*> A, const Packed<Scalar>& B,
              kernels::Rows<const Scalar*> init, kernels::Rows<Scalar*> C);

// C += A^T B, a sum over `rows` rows: A is (rows, m), B is (rows, n), C is (m, n). B must lie in a workspace:
// kernels read whole vectors, and whole panels beside others, also behind the last row. With `apart` they
// read nothing there: another thread may be writing to it.
template <typename Scalar>
void add_outer(Index rows, const Scalar* A, Index a_row, Index m, const Scalar* B, Index b_row, Index n,
               Scalar* C, Index c_row, bool apart = false);

// C = init + A B for any strides of A and B, over threads where it pays; rows of C and init lie `c_row`
// apart, or contiguously. B must lie in a workspace: kernels read behind the ends of its rows.
template <typename Real>
void multiply_strided(Run& run, Workspace& workspace, MatrixView<const Real> A, MatrixView<const Real> B,
                      const Real* init, Real* C, Index c_row = 0);

}  // namespace rnnbptt
