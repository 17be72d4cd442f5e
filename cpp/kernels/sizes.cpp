// How large numbers are: extremes and sums of squares. Compiled once per instruction set, as products.cpp is.
#include "kernels/table.hpp"

namespace rnnbptt::kernels {
namespace {

constexpr int width = RNNBPTT_VECTOR_BYTES / 8;
constexpr int vectors = 4;  // of sums or extremes, so that none waits for another
typedef double Vector __attribute__((vector_size(RNNBPTT_VECTOR_BYTES)));

inline __attribute__((always_inline)) void load(const double* x, Vector& v) {
  __builtin_memcpy(&v, x, sizeof v);
}

// Calls visit(k, v) for every vector v of the first numbers, the k-th of `vectors` side by side; returns how
// many numbers that were.
template <typename Visit>
inline __attribute__((always_inline)) Index over_vectors(Index n, const double* x, const Visit& visit) {
  Index i = 0;
  for (; i + vectors * width <= n; i += vectors * width)
#pragma GCC unroll 4
    for (int k = 0; k < vectors; ++k) {
      Vector v;
      load(x + i + k * width, v);
      visit(k, v);
    }
  return i;
}

Extent extent(Index n, const double* x) {
  Vector low[vectors], high[vectors] = {}, rest[vectors] = {};
  for (Vector& v : low) v = Vector{} + __builtin_huge_val();
  Index i = over_vectors(n, x, [&](int k, const Vector& v) __attribute__((always_inline)) {
    const Vector size = v < 0 ? -v : v;
    low[k] = size < low[k] ? size : low[k];
    high[k] = size > high[k] ? size : high[k];
    rest[k] += v - v;
  });
  Extent all{__builtin_huge_val(), 0};
  double finite = 0;
  const auto look = [&](double smallest, double largest) {
    all.low = smallest < all.low ? smallest : all.low;
    all.high = largest > all.high ? largest : all.high;
  };
  for (int k = 0; k < vectors; ++k)
    for (int j = 0; j < width; ++j) {
      look(low[k][j], high[k][j]);
      finite += rest[k][j];
    }
  for (; i < n; ++i) {
    look(__builtin_fabs(x[i]), __builtin_fabs(x[i]));
    finite += x[i] - x[i];
  }
  all.high += finite;  // zero, or not a number
  return all;
}

double square(Index n, const double* x) {
  Vector sums[vectors] = {};
  Index i =
      over_vectors(n, x, [&](int k, const Vector& v) __attribute__((always_inline)) { sums[k] += v * v; });
  const Vector all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  double sum = 0;
  for (; i < n; ++i) sum += x[i] * x[i];
  for (int j = 0; j < width; ++j) sum += all[j];
  return sum;
}

}  // namespace

namespace RNNBPTT_ISA_NAME {
extern const Sizes isa_sizes;
const Sizes isa_sizes = {extent, square};
}  // namespace RNNBPTT_ISA_NAME

}  // namespace rnnbptt::kernels
