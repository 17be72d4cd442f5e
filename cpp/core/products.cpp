#include "core/products.hpp"

#include <algorithm>

namespace rnnbptt {

template <typename Scalar, typename Source>
Packed<Scalar> pack(Workspace& workspace, MatrixView<const Source> B) {
  const Index width = kernels::table().of<Scalar>().panel_columns;
  const Index panels = (B.columns + width - 1) / width;
  auto* data = workspace.take<Scalar>(panels * B.rows * width);
  Scalar* to = data;
  for (Index p = 0; p < panels; ++p) {
    const Index used = std::min(width, B.columns - p * width);
    const Source* from = B.data + p * width * B.column;
    for (Index k = 0; k < B.rows; ++k, to += width) {
      const Source* row = from + k * B.row;
      for (Index j = 0; j < used; ++j) to[j] = static_cast<Scalar>(row[j * B.column]);
      for (Index j = used; j < width; ++j) to[j] = 0;
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
void add_outer(Index rows, const Scalar* A, Index a_row, Index m, const Scalar* B, Index b_row, Index n, Scalar* C,
               Index c_row) {
  // Short blocks keep a strip of A and B in the first cache, and the rounding error that of a blocked sum.
  constexpr Index block = 128;
  const auto& kernel = kernels::table().of<Scalar>();
  kernels::Product<Scalar> p;
  p.rows = m;
  p.columns = n;
  p.a_depth = a_row;
  p.b_depth = b_row;
  p.b_panel = kernel.panel_columns;
  p.c = {C, c_row, nullptr};
  p.init = {C, c_row, nullptr};
  for (Index from = 0; from < rows; from += block) {
    p.depth = std::min(block, rows - from);
    p.a = {A + from * a_row, 1, nullptr};
    p.b = B + from * b_row;
    kernel.product(p);
  }
}

void multiply_wide(Run& run, Workspace& workspace, MatrixView<const double> A, MatrixView<const double> B,
                   const double* init, double* C) {
  const auto& kernel = kernels::table().of<double>();
  const Packed<double> packed = pack<double>(workspace, B);
  const Index n = B.columns;
  const auto rows_of = [&](Index from, Index count) {
    kernels::Product<double> p;
    p.rows = count;
    p.depth = A.columns;
    p.columns = n;
    p.a = {A.data + from * A.row, A.row, nullptr};
    p.a_depth = A.column;
    p.b = packed.data;
    p.b_depth = kernel.panel_columns;
    p.b_panel = packed.panel;
    if (init != nullptr) p.init = {init + from * n, n, nullptr};
    p.c = {C + from * n, n, nullptr};
    kernel.product(p);
  };
  constexpr Index block = 32;
  constexpr double worth_a_thread = 1e5;  // multiply-adds: some ten microseconds
  const double work = static_cast<double>(A.rows) * static_cast<double>(A.columns) * static_cast<double>(n);
  if (run.threads == 1 || work < 2 * worth_a_thread) {
    for (Index from = 0; from < A.rows; from += 16 * block) {
      run.checkpoint(0);
      rows_of(from, std::min(16 * block, A.rows - from));
    }
    return;
  }
  const Index tasks = (A.rows + block - 1) / block;
  parallel(run, tasks, [&](Index i, int) { rows_of(i * block, std::min(block, A.rows - i * block)); });
}

template Packed<float> pack(Workspace&, MatrixView<const float>);
template Packed<float> pack(Workspace&, MatrixView<const double>);
template Packed<double> pack(Workspace&, MatrixView<const double>);
template void multiply(Index, kernels::Rows<const float*>, const Packed<float>&, kernels::Rows<const float*>,
                       kernels::Rows<float*>);
template void multiply(Index, kernels::Rows<const double*>, const Packed<double>&, kernels::Rows<const double*>,
                       kernels::Rows<double*>);
template void add_outer(Index, const float*, Index, Index, const float*, Index, Index, float*, Index);
template void add_outer(Index, const double*, Index, Index, const double*, Index, Index, double*, Index);

}  // namespace rnnbptt
