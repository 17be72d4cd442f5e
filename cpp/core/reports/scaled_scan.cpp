#include "core/reports/scaled_scan.hpp"

#include <algorithm>
#include <cmath>

#include "core/algebra/products.hpp"

namespace rnnbptt {
namespace {

// x 2^shift, rounded once.
void shift_by(Index size, double* x, std::int64_t shift) {
  if (shift == 0) return;
  if (shift >= -1022 && shift <= 1023) {
    const double power = std::ldexp(1.0, static_cast<int>(shift));
    for (Index i = 0; i < size; ++i) x[i] *= power;
    return;
  }
  const int most = static_cast<int>(std::clamp<std::int64_t>(shift, -5000, 5000));
  for (Index i = 0; i < size; ++i) x[i] = std::ldexp(x[i], most);
}

}  // namespace

void scaled_scan(Run& run, Workspace& workspace, Index steps, Index B, Index h, const double* M,
                 std::int64_t exponent, ScaledRows<const double, const std::int64_t> v,
                 ScaledRows<double, std::int64_t> s, std::int64_t zero, bool reverse) {
  workspace.reset();
  const auto matrix = pack<double>(workspace, MatrixView<const double>{M, h, h, h}.transposed());
  auto* entering = workspace.take<double>(h);
  for (Index n = 0; n < steps; ++n) {
    run.checkpoint(0, static_cast<double>(B * h * h));
    const Index from = reverse ? steps - n : n, to = reverse ? from - 1 : from + 1, in = std::min(from, to);
    double* next = s.mantissas + to * B * h;
    multiply<double>(B, {s.mantissas + from * B * h, h, nullptr}, matrix, {}, {next, h, nullptr});
    for (Index b = 0; b < B; ++b) {
      double* row = next + b * h;
      const std::int64_t moved = s.exponents[from * B + b] + exponent, given = v.exponents[in * B + b];
      const std::int64_t top = std::max(moved, given);
      const double* own = v.mantissas + (in * B + b) * h;
      std::copy(own, own + h, entering);
      shift_by(h, entering, given - top);
      shift_by(h, row, moved - top);
      for (Index i = 0; i < h; ++i) row[i] += entering[i];
      int shift = 0;
      const double largest = kernels::table().sizes->extent(h, row).high;
      std::frexp(largest, &shift);
      shift_by(h, row, -shift);
      s.exponents[to * B + b] = largest == 0 ? zero : top + shift;
    }
  }
}

}  // namespace rnnbptt
