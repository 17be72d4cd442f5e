// Fourier transforms of several sequences side by side, one in each lane: every step is one of whole vectors.
// Compiled once per instruction set, as products.cpp is.
#include "kernels/table.hpp"

namespace rnnbptt::kernels {
namespace {

constexpr Index lanes = transform_lanes;
constexpr Index number = 2 * lanes;  // scalars of one complex number in every lane
typedef double Lanes __attribute__((vector_size(lanes * sizeof(double))));

struct Complex {
  Lanes re, im;
};

inline __attribute__((always_inline)) void load(const double* x, Complex& z) {
  __builtin_memcpy(&z.re, x, sizeof z.re);
  __builtin_memcpy(&z.im, x + lanes, sizeof z.im);
}

inline __attribute__((always_inline)) void store(double* x, const Lanes& re, const Lanes& im) {
  __builtin_memcpy(x, &re, sizeof re);
  __builtin_memcpy(x + lanes, &im, sizeof im);
}

// The numbers at x, x + m, x + 2m and x + 3m, and where they lie.
inline __attribute__((always_inline)) void load_quarters(Index m, double* x, double* (&at)[4], Complex& a,
                                                         Complex& b, Complex& c, Complex& d) {
  for (Index i = 0; i < 4; ++i) at[i] = x + i * m * number;
  load(at[0], a);
  load(at[1], b);
  load(at[2], c);
  load(at[3], d);
}

// Decimation in frequency, two halvings at a time: with w = exp(-2 pi i k / n) and a, b, c, d the numbers at
// k, k + n/4, k + n/2, k + 3n/4,
//
//     (a + c) + (b + d),   ((a + c) - (b + d)) w^2,   ((a - c) - i (b - d)) w,   ((a - c) + i (b - d)) w^3
//
// are what the transforms of the four quarters are taken of. Results come in bit-reversed order. `roots`
// holds powers of the root of unity; those of this transform lie `stride` apart.
void forward(Index n, double* x, const double* roots, Index stride) {
  if (n == 1) return;
  if (n == 2) {
    Complex a, b;
    load(x, a);
    load(x + number, b);
    store(x, a.re + b.re, a.im + b.im);
    store(x + number, a.re - b.re, a.im - b.im);
    return;
  }
  const Index m = n / 4;
  for (Index k = 0; k < m; ++k) {
    double* at[4];
    Complex a, b, c, d;
    load_quarters(m, x + k * number, at, a, b, c, d);
    const Lanes s_re = a.re + c.re, s_im = a.im + c.im, t_re = b.re + d.re, t_im = b.im + d.im;
    const Lanes u_re = a.re - c.re, u_im = a.im - c.im, v_re = b.re - d.re, v_im = b.im - d.im;
    const double *w1 = roots + 2 * k * stride, *w2 = roots + 4 * k * stride, *w3 = roots + 6 * k * stride;
    const Lanes p_re = s_re - t_re, p_im = s_im - t_im;
    const Lanes q_re = u_re + v_im, q_im = u_im - v_re, r_re = u_re - v_im, r_im = u_im + v_re;
    store(at[0], s_re + t_re, s_im + t_im);
    store(at[1], p_re * w2[0] - p_im * w2[1], p_re * w2[1] + p_im * w2[0]);
    store(at[2], q_re * w1[0] - q_im * w1[1], q_re * w1[1] + q_im * w1[0]);
    store(at[3], r_re * w3[0] - r_im * w3[1], r_re * w3[1] + r_im * w3[0]);
  }
  if (m > 1)
    for (Index i = 0; i < 4; ++i) forward(m, x + i * m * number, roots, 4 * stride);
}

// The same backwards, step by step: from bit-reversed order, n times the inverse transform.
void inverse(Index n, double* x, const double* roots, Index stride) {
  if (n <= 2) return forward(n, x, roots, stride);  // its own inverse, but for the factor
  const Index m = n / 4;
  if (m > 1)
    for (Index i = 0; i < 4; ++i) inverse(m, x + i * m * number, roots, 4 * stride);
  for (Index k = 0; k < m; ++k) {
    double* at[4];
    Complex a, b, c, d;
    load_quarters(m, x + k * number, at, a, b, c, d);
    const double *w1 = roots + 2 * k * stride, *w2 = roots + 4 * k * stride, *w3 = roots + 6 * k * stride;
    const Lanes p_re = b.re * w2[0] + b.im * w2[1], p_im = b.im * w2[0] - b.re * w2[1];
    const Lanes q_re = c.re * w1[0] + c.im * w1[1], q_im = c.im * w1[0] - c.re * w1[1];
    const Lanes r_re = d.re * w3[0] + d.im * w3[1], r_im = d.im * w3[0] - d.re * w3[1];
    const Lanes s_re = a.re + p_re, s_im = a.im + p_im, t_re = a.re - p_re, t_im = a.im - p_im;
    const Lanes u_re = q_re + r_re, u_im = q_im + r_im, v_re = q_re - r_re, v_im = q_im - r_im;
    store(at[0], s_re + u_re, s_im + u_im);
    store(at[1], t_re - v_im, t_im + v_re);
    store(at[2], s_re - u_re, s_im - u_im);
    store(at[3], t_re + v_im, t_im - v_re);
  }
}

}  // namespace

namespace RNNBPTT_ISA_NAME {
extern const Transforms isa_transforms;
const Transforms isa_transforms = {forward, inverse};
}  // namespace RNNBPTT_ISA_NAME

}  // namespace rnnbptt::kernels
