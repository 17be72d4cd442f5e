#include "core/algebra/products.hpp"

#include <algorithm>

namespace rnnbptt {

template <typename Scalar, typename Source>
Packed<Scalar> pack(Workspace& workspace, MatrixView<const Source> B) {
  const Index width = kernels::table().of<Scalar>().panel_columns;
  const Index panels = (B.columns + width - 1) / width;
  auto* data = workspace.take<Scalar>(panels * B.rows * width);
  for (Index p = 0; p < panels; ++p) {
    const Index used = std::min(width, B.columns - p * width);
    const Source* from = B.data + p * width * B.column;
    Scalar* to = data + p * B.rows * width;
    if (B.column == 1) {
      for (Index k = 0; k < B.rows; ++k, to += width) {
        std::copy(from + k * B.row, from + k * B.row + used, to);
        std::fill(to + used, to + width, Scalar{0});
      }
    } else {
      // Down the columns of B, which are contiguous where B is a transpose.
      for (Index j = 0; j < used; ++j)
        for (Index k = 0; k < B.rows; ++k)
          to[k * width + j] = static_cast<Scalar>(from[k * B.row + j * B.column]);
      if (used < width)
        for (Index k = 0; k < B.rows; ++k) std::fill(to + k * width + used, to + (k + 1) * width, Scalar{0});
    }
  }
  return {data, B.rows, B.columns, B.rows * width};
}

template <typename Scalar>
void multiply(Index rows, kernels::Rows<const Scalar*> A, const Packed<Scalar>& B,
              kernels::Rows<const Scalar*> init, kernels::Rows<Scalar*> C) {
  const auto& kernel = kernels::table().of<Scalar>();
  kernels::Product<Scalar> p;
  p.rows = rows;
  p.depth = B.depth;
  p.columns = B.columns;
  p.a = A;
  p.b = B.data;
  p.b_depth = kernel.panel_columns;
  p.b_panel = B.panel;
  p.init = init;
  p.c = C;
  kernel.product(p);
}

template <typename Scalar>
void add_outer(Index rows, const Scalar* A, Index a_row, Index m, const Scalar* B, Index b_row, Index n,
               Scalar* C, Index c_row, bool apart) {
  constexpr Index vector = 64 / static_cast<Index>(sizeof(Scalar));  // the longest there is
  if (apart && b_row < vector && rows > 0) {
    add_outer(rows - 1, A, a_row, m, B, b_row, n, C, c_row);
    Scalar last[vector] = {};
    std::copy(B + (rows - 1) * b_row, B + (rows - 1) * b_row + n, last);
    return add_outer(1, A + (rows - 1) * a_row, a_row, m, last, vector, n, C, c_row);
  }
  const Index panel = kernels::table().of<Scalar>().panel_columns;
  const Index whole = n / panel * panel;
  if (apart && whole > 0 && whole < n && rows > 0) {
    // Beside others, a last panel that is not full may be read as a full one; alone it is read in vectors.
    add_outer(rows - 1, A, a_row, m, B, b_row, n, C, c_row);
    const Scalar *a = A + (rows - 1) * a_row, *b = B + (rows - 1) * b_row;
    add_outer(1, a, a_row, m, b, b_row, whole, C, c_row);
    return add_outer(1, a, a_row, m, b + whole, b_row, n - whole, C + whole, c_row);
  }
  // Strips of A and B stay in the first cache, and a sum of their sums rounds less than one long sum.
  constexpr Index strip = 128;
  const auto& kernel = kernels::table().of<Scalar>();
  kernels::Product<Scalar> p;
  p.rows = m;
  p.columns = n;
  p.a_depth = a_row;
  p.b_depth = b_row;
  p.b_panel = kernel.panel_columns;
  p.c = {C, c_row, nullptr};
  p.init = {C, c_row, nullptr};
  for (Index from = 0; from < rows; from += strip) {
    p.depth = std::min(strip, rows - from);
    p.a = {A + from * a_row, 1, nullptr};
    p.b = B + from * b_row;
    kernel.product(p);
  }
}

namespace {

// Multiply-adds up to which plain loops cost less than entering a kernel.
constexpr Index tiny = 160;

template <typename Real>
void multiply_tiny(MatrixView<const Real> A, MatrixView<const Real> B, const Real* init, Real* C,
                   Index c_row) {
  for (Index i = 0; i < A.rows; ++i)
    for (Index j = 0; j < B.columns; ++j) {
      Real sum = 0;
      for (Index k = 0; k < A.columns; ++k)
        sum += A.data[i * A.row + k * A.column] * B.data[k * B.row + j * B.column];
      const Index at = i * c_row + j;
      C[at] = init != nullptr ? init[at] + sum : sum;
    }
}

}  // namespace

template <typename Real>
void multiply_strided(Run& run, Workspace& workspace, MatrixView<const Real> A, MatrixView<const Real> B,
                      const Real* init, Real* C, Index c_row) {
  const Index n = B.columns;
  if (c_row == 0) c_row = n;
  if (A.rows * A.columns * n <= tiny) return multiply_tiny(A, B, init, C, c_row);
  const Workspace::Mark mark = workspace.mark();
  const auto& kernel = kernels::table().of<Real>();
  kernels::Product<Real> whole;
  whole.depth = A.columns;
  whole.columns = n;
  whole.a_depth = A.column;
  // Few rows would not pay for packing B; its own rows serve as panels if they are contiguous.
  constexpr Index worth_packing = 96;
  if (B.column == 1 && A.rows <= worth_packing) {
    whole.b = B.data;
    whole.b_depth = B.row;
    whole.b_panel = kernel.panel_columns;
  } else {
    const Packed<Real> packed = pack<Real>(workspace, B);
    whole.b = packed.data;
    whole.b_depth = kernel.panel_columns;
    whole.b_panel = packed.panel;
  }
  const auto rows_of = [&](Index from, Index count) {
    kernels::Product<Real> p = whole;
    p.rows = count;
    p.a = {A.data + from * A.row, A.row, nullptr};
    if (init != nullptr) p.init = {init + from * c_row, c_row, nullptr};
    p.c = {C + from * c_row, c_row, nullptr};
    kernel.product(p);
  };
  // Two tasks for each thread even out delays; a multiple of 8 rows changes no bit.
  const Index tasks = run.threads == 1 ? (A.rows + 511) / 512 : 2 * run.threads;
  const Index rows_per_task = ((A.rows + tasks - 1) / tasks + 7) / 8 * 8;
  const double work =
      static_cast<double>(std::min(rows_per_task, A.rows) * A.columns) * static_cast<double>(n);
  parallel(run, (A.rows + rows_per_task - 1) / rows_per_task, work, [&](Index i, int) {
    rows_of(i * rows_per_task, std::min(rows_per_task, A.rows - i * rows_per_task));
  });
  workspace.release_to(mark);
}

template void multiply_strided(Run&, Workspace&, MatrixView<const float>, MatrixView<const float>,
                               const float*, float*, Index);
template void multiply_strided(Run&, Workspace&, MatrixView<const double>, MatrixView<const double>,
                               const double*, double*, Index);
template Packed<float> pack(Workspace&, MatrixView<const float>);
template Packed<float> pack(Workspace&, MatrixView<const double>);
template Packed<double> pack(Workspace&, MatrixView<const double>);
template void multiply(Index, kernels::Rows<const float*>, const Packed<float>&, kernels::Rows<const float*>,
                       kernels::Rows<float*>);
template void multiply(Index, kernels::Rows<const double*>, const Packed<double>&,
                       kernels::Rows<const double*>, kernels::Rows<double*>);
template void add_outer(Index, const float*, Index, Index, const float*, Index, Index, float*, Index, bool);
template void add_outer(Index, const double*, Index, Index, const double*, Index, Index, double*, Index,
                        bool);

}  // namespace rnnbptt
