// The inner loops of the engine and the one table they are reached through.
//
// Kernels know raw pointers and strides, nothing of the engine. Each source beside this but dispatch.cpp is
// compiled once per instruction set; that one picks the table for the machine at hand.
#pragma once

#include <cstddef>

namespace rnnbptt::kernels {

using Index = std::ptrdiff_t;

// Rows of a matrix: row i starts at base + (offsets ? offsets[i] : i * stride). A stride of 0 repeats one
// row.
template <typename Pointer>
struct Rows {
  Pointer base = nullptr;
  Index stride = 0;
  const Index* offsets = nullptr;

  // Inlined always: a kernel unit may export no weak symbol.
  __attribute__((always_inline)) Pointer operator[](Index i) const {
    return base + (offsets != nullptr ? offsets[i] : i * stride);
  }
};

// C(i, :) = init(i, :) + sum_k A(i, k) B(k, :),   0 <= i < rows, 0 <= k < depth, `columns` columns.
//
// A(i, k) = a[i][k * a_depth], so A may be read transposed. B comes in panels of `panel_columns` columns: row
// k of panel p starts at b + p * b_panel + k * b_depth, and whole panels are read, also behind the last
// column. `init` may be null (zero) or C itself; C must not overlap A or B otherwise.
//
// Splitting the rows of a product at multiples of 8 over threads or calls changes no bit.
template <typename Scalar>
struct Product {
  Index rows = 0, depth = 0, columns = 0;
  Rows<const Scalar*> a;
  Index a_depth = 1;
  const Scalar* b = nullptr;
  Index b_depth = 0, b_panel = 0;
  Rows<const Scalar*> init;
  Rows<Scalar*> c;
};

// s_j = s_j + s_{j-1} B for j = 1..steps on every lane, in place: state j of a lane lies `step` behind state
// j - 1.
template <typename Scalar>
struct Scan {
  Index lanes = 0, steps = 0, size = 0;
  Rows<Scalar*> s;  // state 0 of every lane
  Index step = 0;
  const Scalar* b = nullptr;  // packed, size x size
  Index b_depth = 0, b_panel = 0;
};

template <typename Scalar>
struct Functions {
  Index panel_columns;  // width of a panel of B
  void (*product)(const Product<Scalar>&);
  void (*scan)(const Scan<Scalar>&);
  // o <- scale * (o - y); returns the sum of (o - y)^2.
  double (*residual)(Index n, Scalar* o, const Scalar* y, Scalar scale);
  // Whether all of n numbers are finite.
  bool (*finite)(Index n, const Scalar* x);
};

// Fourier transforms of n complex numbers, n a power of two, of several sequences side by side, in place:
// real parts of all lanes, then imaginary parts, number by number. `roots` holds exp(-2 pi i k / (n stride))
// for k < 3/4 n stride, real and imaginary part. Forward into bit-reversed order, and from it n times the
// inverse.
inline constexpr Index transform_lanes = 8;
struct Transforms {
  void (*forward)(Index n, double* x, const double* roots, Index stride);
  void (*inverse)(Index n, double* x, const double* roots, Index stride);
};

// The smallest and the largest modulus; the largest is not a number where one of the numbers is not finite.
struct Extent {
  double low, high;
};

struct Sizes {
  Extent (*extent)(Index n, const double* x);
  double (*square)(Index n, const double* x);  // the sum of squares
};

struct Table {
  const char* isa;
  Functions<float> f32;
  Functions<double> f64;
  const Transforms* transforms;
  const Sizes* sizes;

  template <typename Scalar>
  const Functions<Scalar>& of() const;
};

template <>
inline const Functions<float>& Table::of<float>() const {
  return f32;
}
template <>
inline const Functions<double>& Table::of<double>() const {
  return f64;
}

// The table in use, chosen once: the widest instruction set that processor and operating system support, or
// the one RNNBPTT_ISA names. Throws std::runtime_error when that one is unknown or the machine lacks it.
const Table& table();

// Names of the instruction sets this machine can run, narrowest first; ends with a null pointer.
const char* const* supported_isas();

}  // namespace rnnbptt::kernels
