// The two shapes of inner loop the engine needs, as one: C = init + A B with A read along rows (panel
// product) or along columns (rank update). Compiled once per instruction set: RNNBPTT_ISA_NAME names the
// namespace, RNNBPTT_VECTOR_BYTES and RNNBPTT_TILE_ROWS give the shape of a register tile. Everything has
// internal linkage: code compiled for a wide instruction set must never be merged with code for a narrower
// one.
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

// Up to eight rows of A that share one running index. Rows a fixed stride apart need four registers, not
// eight.
template <typename Scalar, int rows, bool strided>
class TileRows {
 public:
  __attribute__((always_inline)) TileRows(const Rows<const Scalar*>& a, Index row, Index step) : step_(step) {
    if constexpr (strided) {
      stride_ = a.stride;
      stride3_ = 3 * a.stride;
      low_ = a.base + row * a.stride;
      high_ = low_ + 4 * a.stride;
    } else {
      for (int i = 0; i < rows; ++i) at_[i] = a.base + a.offsets[row + i];
    }
  }
  __attribute__((always_inline)) Scalar operator[](int i) const {
    if constexpr (strided) {
      const Scalar* base = i < 4 ? low_ : high_;
      return i % 4 == 0   ? base[0]
             : i % 4 == 1 ? base[stride_]
             : i % 4 == 2 ? base[2 * stride_]
                          : base[stride3_];
    } else {
      return at_[i][index_];
    }
  }
  __attribute__((always_inline)) void advance() {
    if constexpr (strided) {
      low_ += step_;
      if constexpr (rows > 4) high_ += step_;
    } else {
      index_ += step_;
      asm("" : "+r"(index_));  // one index for all rows: eight running pointers would not fit the registers
    }
  }

 private:
  Index step_, index_ = 0;
  Index stride_ = 0, stride3_ = 0;
  const Scalar *low_ = nullptr, *high_ = nullptr;
  const Scalar* at_[strided ? 1 : rows] = {};
};

// One register tile: `rows` rows times `panels` panels of `vectors` vectors, the last vector cut to
// `columns`.
template <typename Scalar, int width, int rows, int vectors, int panels, bool strided>
inline __attribute__((always_inline)) void tile(const Product<Scalar>& p, Index row, Index column,
                                                Index columns) {
  using Vector = typename VectorOf<Scalar, width>::type;
  constexpr int count = vectors * panels;
  TileRows<Scalar, rows, strided> a(p.a, row, p.a_depth);
  const Scalar* b = p.b + column / (vector_width<Scalar> * panel_vectors) * p.b_panel;
  const Index b_panel = p.b_panel, b_depth = p.b_depth;

  Vector sum[rows][count] = {};
  Index k = p.depth;
  if constexpr (rows == 1 && count <= 4) {
    // A few sums alone wait for one another: keep twice as many, over even and odd k.
    Vector odd[count] = {};
    for (; k > 1; k -= 2) {
      const Scalar even_a = a[0];
      a.advance();
      const Scalar odd_a = a[0];
      a.advance();
#pragma GCC unroll 4
      for (int v = 0; v < count; ++v) {
        const Scalar* at = b + (v / vectors) * b_panel + (v % vectors) * width;
        sum[0][v] += load<Vector>(at) * even_a;
        odd[v] += load<Vector>(at + b_depth) * odd_a;
      }
      b += 2 * b_depth;
    }
#pragma GCC unroll 4
    for (int v = 0; v < count; ++v) sum[0][v] += odd[v];
  }
  for (; k > 0; --k, b += b_depth) {
    Vector bk[count];
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) bk[v] = load<Vector>(b + (v / vectors) * b_panel + (v % vectors) * width);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Scalar aik = a[i];
#pragma GCC unroll 16
      for (int v = 0; v < count; ++v) sum[i][v] += bk[v] * aik;
    }
    a.advance();
  }

  const bool has_init = p.init.base != nullptr;
  if (columns == count * width) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      Scalar* c = p.c[row + i] + column;
      if (has_init) {
        const Scalar* init = p.init[row + i] + column;
#pragma GCC unroll 16
        for (int v = 0; v < count; ++v) sum[i][v] += load<Vector>(init + v * width);
      }
#pragma GCC unroll 16
      for (int v = 0; v < count; ++v) __builtin_memcpy(c + v * width, &sum[i][v], sizeof(Vector));
    }
    return;
  }
#if defined(__clang__)
#pragma clang loop unroll(full)  // as GCC does: or all sums lie in memory, from the first step on
#endif
  for (int i = 0; i < rows; ++i) {
    Scalar* c = p.c[row + i] + column;
    const Scalar* init = has_init ? p.init[row + i] + column : nullptr;
#pragma GCC unroll 16
    for (int v = 0; v < count; ++v) {
      const Index left = columns - v * width;
      if (left >= width) {
        if (has_init) sum[i][v] += load<Vector>(init + v * width);
        __builtin_memcpy(c + v * width, &sum[i][v], sizeof(Vector));
      } else if (left > 0) {
        if (has_init) sum[i][v] += load_partial<Vector>(init + v * width, left);
        store_partial(c + v * width, sum[i][v], left);
      }
    }
  }
}

// The columns behind the last whole group of panels, for one tile of rows, in the narrowest tile that holds
// them.
template <typename Scalar, int rows, bool strided>
inline __attribute__((always_inline)) void last_columns(const Product<Scalar>& p, Index row, Index column) {
  constexpr int width = vector_width<Scalar>;
  const Index columns = p.columns - column;
  if (columns <= 0) return;
  if (columns * 2 <= width) return tile<Scalar, width / 2, rows, 1, 1, strided>(p, row, column, columns);
  if (columns <= width) return tile<Scalar, width, rows, 1, 1, strided>(p, row, column, columns);
  if constexpr (panel_vectors > 2)
    if (columns > 2 * width) return tile<Scalar, width, rows, 3, 1, strided>(p, row, column, columns);
  tile<Scalar, width, rows, 2, 1, strided>(p, row, column, columns);
}

// All columns for one tile of a few rows, several panels at a time: such a tile alone leaves most of the
// arithmetic units waiting for one another. A tile of so many rows takes the same path wherever it stands in
// a product.
template <typename Scalar, int rows, int most_panels, bool strided>
void few_rows(const Product<Scalar>& p, Index row) {
  constexpr int width = vector_width<Scalar>;
  constexpr Index panel = width * panel_vectors;
  Index column = 0;
  if constexpr (most_panels == 4)
    for (; column + 4 * panel <= p.columns; column += 4 * panel)
      tile<Scalar, width, rows, panel_vectors, 4, strided>(p, row, column, 4 * panel);
  if constexpr (most_panels >= 2)
    for (; column + panel < p.columns; column += 2 * panel) {
      const Index left = p.columns - column;
      tile<Scalar, width, rows, panel_vectors, 2, strided>(p, row, column,
                                                           left < 2 * panel ? left : 2 * panel);
    }
  for (; column + panel <= p.columns; column += panel)
    tile<Scalar, width, rows, panel_vectors, 1, strided>(p, row, column, panel);
  last_columns<Scalar, rows, strided>(p, row, column);
}

template <typename Scalar, bool strided>
void product_of(const Product<Scalar>& p) {
  constexpr int width = vector_width<Scalar>;
  constexpr Index panel = width * panel_vectors;
  // Whole tiles: a panel of B stays in the first cache while all rows of A pass by.
  const Index whole = p.rows - p.rows % tile_rows;
  if (whole > 0) {
    Index column = 0;
    for (; column + panel <= p.columns; column += panel)
      for (Index row = 0; row < whole; row += tile_rows)
        tile<Scalar, width, tile_rows, panel_vectors, 1, strided>(p, row, column, panel);
    for (Index row = 0; row < whole; row += tile_rows)
      last_columns<Scalar, tile_rows, strided>(p, row, column);
  }
  Index row = whole;
  if constexpr (tile_rows > 4)
    if (row + 4 <= p.rows) {
      few_rows<Scalar, 4, 1, strided>(p, row);
      row += 4;
    }
  if (row + 2 <= p.rows) {
    few_rows<Scalar, 2, 2, strided>(p, row);
    row += 2;
  }
  if (row < p.rows) few_rows<Scalar, 1, 4, strided>(p, row);
}

template <typename Scalar>
void product(const Product<Scalar>& p) {
  p.a.offsets == nullptr ? product_of<Scalar, true>(p) : product_of<Scalar, false>(p);
}

// The scan of states no wider than a vector, with B in registers: no product to enter, no state to wait for
// in memory. Which states come here depends on their size alone, so that splitting lanes over threads changes
// no bit.
template <typename Scalar, int width, int lanes>
inline __attribute__((always_inline)) void scan_in_registers(const Scan<Scalar>& s, Index lane) {
  using Vector = typename VectorOf<Scalar, width>::type;
  Vector b[width] = {};
  for (Index k = 0; k < width; ++k)
    if (k < s.size) b[k] = load<Vector>(s.b + k * s.b_depth);
  Vector state[lanes];
  Scalar* at[lanes];
#pragma GCC unroll 4
  for (int i = 0; i < lanes; ++i) {
    at[i] = s.s[lane + i];
    state[i] = s.size == width ? load<Vector>(at[i]) : load_partial<Vector>(at[i], s.size);
  }
  for (Index j = 0; j < s.steps; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < lanes; ++i) {
      at[i] += s.step;
      Vector even = s.size == width ? load<Vector>(at[i]) : load_partial<Vector>(at[i], s.size);
      Vector odd = {};
#pragma GCC unroll 8
      for (int k = 0; k < width; k += 2) {
        even += b[k] * state[i][k];
        odd += b[k + 1] * state[i][k + 1];
      }
      state[i] = even + odd;
      if (s.size == width)
        __builtin_memcpy(at[i], &state[i], sizeof(Vector));
      else
        store_partial(at[i], state[i], s.size);
    }
  }
}

template <typename Scalar, int width>
void scan_small(const Scan<Scalar>& s) {
  Index lane = 0;
  for (; lane + 4 <= s.lanes; lane += 4) scan_in_registers<Scalar, width, 4>(s, lane);
  for (; lane < s.lanes; ++lane) scan_in_registers<Scalar, width, 1>(s, lane);
}

// One number a lane.
template <typename Scalar>
void scan_numbers(const Scan<Scalar>& s) {
  const Scalar b = s.b[0];
  for (Index lane = 0; lane < s.lanes; ++lane) {
    Scalar* at = s.s[lane];
    Scalar state = *at;
    for (Index j = 0; j < s.steps; ++j) {
      at += s.step;
      state = *at + state * b;
      *at = state;
    }
  }
}

template <typename Scalar>
void scan(const Scan<Scalar>& s) {
  if (s.size == 1) return scan_numbers(s);
  if (s.size == 2) return scan_small<Scalar, 2>(s);
  constexpr int narrow = vector_width<Scalar> / 2 > 1 ? vector_width<Scalar> / 2 : 2;
  if (s.size <= narrow) return scan_small<Scalar, narrow>(s);
  if (vector_width<Scalar> <= 8 && s.size <= vector_width<Scalar>)
    return scan_small<Scalar, vector_width<Scalar>>(s);
  Product<Scalar> p{};  // without braces clang calls a constructor: a weak symbol, where not inlined
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
bool finite(Index n, const Scalar* x) {
  constexpr int width = vector_width<Scalar>, vectors = 4;  // none waits for another
  using Vector = typename VectorOf<Scalar, width>::type;
  Vector rest[vectors] = {};  // of x - x: zero, or not a number
  Index i = 0;
  for (; i + vectors * width <= n; i += vectors * width)
#pragma GCC unroll 4
    for (int k = 0; k < vectors; ++k) {
      const Vector v = load<Vector>(x + i + k * width);
      rest[k] += v - v;
    }
  rest[0] = (rest[0] + rest[1]) + (rest[2] + rest[3]);
  Scalar sum = 0;
  for (int v = 0; v < width; ++v) sum += rest[0][v];
  for (; i < n; ++i) sum += x[i] - x[i];
  return sum == 0;
}

template <typename Scalar>
constexpr Functions<Scalar> functions() {
  return {vector_width<Scalar> * panel_vectors, product<Scalar>, scan<Scalar>, residual<Scalar>,
          finite<Scalar>};
}

}  // namespace

namespace RNNBPTT_ISA_NAME {
extern const Transforms isa_transforms;
extern const Sizes isa_sizes;
extern const Table isa_table;
const Table isa_table = {RNNBPTT_STRING(RNNBPTT_ISA_NAME), functions<float>(), functions<double>(),
                         &isa_transforms, &isa_sizes};
}  // namespace RNNBPTT_ISA_NAME

}  // namespace rnnbptt::kernels
