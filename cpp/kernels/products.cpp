// The two shapes of inner loop the engine needs, as one: C = init + A B with A read along rows (panel product) or
// along columns (rank update). Compiled once per instruction set: RNNBPTT_ISA_NAME names the namespace,
// RNNBPTT_VECTOR_BYTES and RNNBPTT_TILE_ROWS give the shape of a register tile. Everything has internal linkage:
// code compiled for a wide instruction set must never be merged with code for a narrower one.
#include <float.h>

#include "kernels/table.hpp"

#define RNNBPTT_STRING_(x) #x
#define RNNBPTT_STRING(x) RNNBPTT_STRING_(x)

namespace rnnbptt::kernels {
namespace {

constexpr int tile_rows = RNNBPTT_TILE_ROWS;
constexpr int panel_vectors = RNNBPTT_PANEL_VECTORS;

template <typename Scalar, int width>
struct VectorOf;
template <int width>
struct VectorOf<float, width> {
  typedef float type __attribute__((vector_size(width * 4)));
};
template <int width>
struct VectorOf<double, width> {
  typedef double type __attribute__((vector_size(width * 8)));
};

template <typename Scalar>
constexpr int vector_width = RNNBPTT_VECTOR_BYTES / static_cast<int>(sizeof(Scalar));

template <typename Vector, typename Scalar>
inline Vector load(const Scalar* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <typename Vector, typename Scalar>
inline Vector load_partial(const Scalar* p, Index n) {
  Vector v = {};
  for (Index i = 0; i < n; ++i) v[i] = p[i];
  return v;
}

template <typename Vector, typename Scalar>
inline void store_partial(Scalar* p, Vector v, Index n) {
  Scalar spilled[sizeof(Vector) / sizeof(Scalar)];
  __builtin_memcpy(spilled, &v, sizeof v);
  for (Index i = 0; i < n; ++i) p[i] = spilled[i];
}

// One register tile: `rows` rows times `panels` panels of `vectors` vectors, the last vector cut to `columns`.
template <typename Scalar, int width, int rows, int vectors, int panels>
inline __attribute__((always_inline)) void tile(const Product<Scalar>& p, Index row, Index column,
                                                Index columns) {
  using Vector = typename VectorOf<Scalar, width>::type;
  constexpr int count = vectors * panels;
  const Scalar* a[rows];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) a[i] = p.a[row + i];
  const Scalar* b = p.b + column / (vector_width<Scalar> * panel_vectors) * p.b_panel;
  const Index b_panel = p.b_panel, b_depth = p.b_depth, a_depth = p.a_depth;

  Vector sum[rows][count] = {};
  for (Index k = p.depth, at = 0; k > 0; --k, at += a_depth, b += b_depth) {
    Vector bk[count];
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) bk[v] = load<Vector>(b + (v / vectors) * b_panel + (v % vectors) * width);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Scalar aik = a[i][at];
#pragma GCC unroll 16
      for (int v = 0; v < count; ++v) sum[i][v] += bk[v] * aik;
    }
  }

  const bool has_init = p.init.base != nullptr;
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
    Scalar* c = p.c[row + i] + column;
    const Scalar* init = has_init ? p.init[row + i] + column : nullptr;
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) {
      const Index n = columns - v * width;
      if (n >= width) {
        if (has_init) sum[i][v] += load<Vector>(init + v * width);
        __builtin_memcpy(c + v * width, &sum[i][v], sizeof(Vector));
      } else if (n > 0) {
        if (has_init) sum[i][v] += load_partial<Vector>(init + v * width, n);
        store_partial(c + v * width, sum[i][v], n);
      }
    }
  }
}

// All rows against `panels` panels from `column` on.
template <typename Scalar, int width, int vectors, int panels>
inline __attribute__((always_inline)) void rows_of(const Product<Scalar>& p, Index from, Index column,
                                                   Index columns) {
  Index row = from;
  for (; row + tile_rows <= p.rows; row += tile_rows)
    tile<Scalar, width, tile_rows, vectors, panels>(p, row, column, columns);
  if constexpr (tile_rows > 4)
    for (; row + 4 <= p.rows; row += 4) tile<Scalar, width, 4, vectors, panels>(p, row, column, columns);
  for (; row + 2 <= p.rows; row += 2) tile<Scalar, width, 2, vectors, panels>(p, row, column, columns);
  for (; row < p.rows; ++row) tile<Scalar, width, 1, vectors, panels>(p, row, column, columns);
}

// The columns behind the last whole panel, in the narrowest tile that holds them.
template <typename Scalar>
void last_panel(const Product<Scalar>& p, Index column) {
  constexpr int width = vector_width<Scalar>;
  const Index columns = p.columns - column;
  if (columns * 2 <= width) return rows_of<Scalar, width / 2, 1, 1>(p, 0, column, columns);
  if (columns <= width) return rows_of<Scalar, width, 1, 1>(p, 0, column, columns);
  if constexpr (panel_vectors > 2)
    if (columns > 2 * width) return rows_of<Scalar, width, 3, 1>(p, 0, column, columns);
  rows_of<Scalar, width, 2, 1>(p, 0, column, columns);
}

template <typename Scalar>
void product(const Product<Scalar>& p) {
  constexpr int width = vector_width<Scalar>;
  constexpr Index panel = width * panel_vectors;
  Index column = 0;
  // A row or two alone leave most of the arithmetic units waiting for one another: take several panels at a time.
  if (p.rows <= 2) {
    for (; column + 4 * panel <= p.columns; column += 4 * panel) {
      if (p.rows == 2) {
        tile<Scalar, width, 2, panel_vectors, 2>(p, 0, column, 2 * panel);
        tile<Scalar, width, 2, panel_vectors, 2>(p, 0, column + 2 * panel, 2 * panel);
      } else {
        tile<Scalar, width, 1, panel_vectors, 4>(p, 0, column, 4 * panel);
      }
    }
  }
  for (; column + panel <= p.columns; column += panel) rows_of<Scalar, width, panel_vectors, 1>(p, 0, column, panel);
  if (column < p.columns) last_panel(p, column);
}

template <typename Scalar>
void scan(const Scan<Scalar>& s) {
  Product<Scalar> p;
  p.rows = s.lanes;
  p.depth = p.columns = s.size;
  p.b = s.b;
  p.b_depth = s.b_depth;
  p.b_panel = s.b_panel;
  p.c = s.s;
  for (Index j = 0; j < s.steps; ++j) {
    p.a = {p.c.base, p.c.stride, p.c.offsets};
    p.c.base += s.step;
    p.init = {p.c.base, p.c.stride, p.c.offsets};
    product(p);
  }
}

template <typename Scalar>
double residual(Index n, Scalar* o, const Scalar* y, Scalar scale) {
  constexpr int width = vector_width<Scalar>;
  using Vector = typename VectorOf<Scalar, width>::type;
  using Doubles = typename VectorOf<double, width>::type;
  Doubles sum = {};
  Index i = 0;
  for (; i + width <= n; i += width) {
    Vector r = load<Vector>(o + i) - load<Vector>(y + i);
    const Doubles wide = __builtin_convertvector(r, Doubles);
    sum += wide * wide;
    r *= scale;
    __builtin_memcpy(o + i, &r, sizeof r);
  }
  double total = 0;
  for (int v = 0; v < width; ++v) total += sum[v];
  for (; i < n; ++i) {
    const Scalar r = o[i] - y[i];
    total += static_cast<double>(r) * static_cast<double>(r);
    o[i] = scale * r;
  }
  return total;
}

template <typename Scalar>
constexpr Functions<Scalar> functions() {
  return {vector_width<Scalar> * panel_vectors, tile_rows, product<Scalar>, scan<Scalar>, residual<Scalar>};
}

}  // namespace

namespace RNNBPTT_ISA_NAME {
extern const Table isa_table;
const Table isa_table = {RNNBPTT_STRING(RNNBPTT_ISA_NAME), functions<float>(), functions<double>()};
}  // namespace RNNBPTT_ISA_NAME

}  // namespace rnnbptt::kernels
