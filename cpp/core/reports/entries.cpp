#include "core/reports/entries.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace rnnbptt {
namespace {

// Products this many binary digits below the largest one of a sum are nothing beside it, of however many.
constexpr std::int64_t negligible = 256;

// 2^-n for n = 0, 1, ...
const std::array<double, negligible + 1>& powers() {
  static const auto table = [] {
    std::array<double, negligible + 1> result;
    for (std::size_t n = 0; n < result.size(); ++n) result[n] = std::ldexp(1.0, -static_cast<int>(n));
    return result;
  }();
  return table;
}

// A sum of products a_i b_i over i < n, the numbers of a and b so far apart, and of one more number.
class Sum {
 public:
  explicit Sum(std::int64_t zero) : zero_(zero) {}

  void add(double mantissa, std::int64_t exponent) {
    if (mantissa == 0) return;
    if (exponent > top_) {
      total_ *= scale(top_ - exponent);
      top_ = exponent;
    }
    total_ += mantissa * scale(exponent - top_);
  }

  void add_products(Index n, GivenEntries a, Index a_step, GivenEntries b, Index b_step) {
    std::int64_t top = std::numeric_limits<std::int64_t>::min();
    for (Index i = 0; i < n; ++i) top = std::max(top, a.exponents[i * a_step] + b.exponents[i * b_step]);
    double sum = 0;
    for (Index i = 0; i < n; ++i)
      sum += a.mantissas[i * a_step] * b.mantissas[i * b_step] *
             scale(a.exponents[i * a_step] + b.exponents[i * b_step] - top);
    add(sum, top);
  }

  void store(WrittenEntries to) const {
    int shift = 0;
    *to.mantissas = std::frexp(total_, &shift);
    *to.exponents = total_ == 0 ? zero_ : top_ + shift;
  }

 private:
  static double scale(std::int64_t shift) {
    return shift < -negligible ? 0.0 : powers()[static_cast<std::size_t>(-shift)];
  }

  const std::int64_t zero_;
  double total_ = 0;
  std::int64_t top_ = std::numeric_limits<std::int64_t>::min() / 2;
};

}  // namespace

void multiply_entries(Run& run, Index m, Index k, Index n, GivenEntries A, GivenEntries B, WrittenEntries C,
                      std::int64_t zero) {
  parallel(run, m, static_cast<double>(k * n) * 8, [&](Index i, int worker) {
    run.checkpoint(worker, static_cast<double>(k * n) * 8);
    for (Index j = 0; j < n; ++j) {
      Sum sum(zero);
      sum.add_products(k, A + i * k, 1, B + j, n);
      sum.store(C + (i * n + j));
    }
  });
}

void scan_entries(Run& run, Index steps, Index B, Index h, GivenEntries M, GivenEntries v, WrittenEntries s,
                  std::int64_t zero, bool reverse) {
  const GivenEntries states{s.mantissas, s.exponents};
  for (Index n = 0; n < steps; ++n) {
    run.checkpoint(0, static_cast<double>(B * h * h) * 8);
    const Index from = reverse ? steps - n : n, to = reverse ? from - 1 : from + 1, in = std::min(from, to);
    for (Index b = 0; b < B; ++b)
      for (Index i = 0; i < h; ++i) {
        const Index entering = (in * B + b) * h + i;
        Sum sum(zero);
        sum.add_products(h, M + i * h, 1, states + (from * B + b) * h, 1);
        sum.add(v.mantissas[entering], v.exponents[entering]);
        sum.store(s + ((to * B + b) * h + i));
      }
  }
}

void correlate_entries(Run& run, Index T, Index B, Index q, Index m, Index count, GivenEntries a,
                       GivenEntries b, WrittenEntries R, std::int64_t zero) {
  parallel(run, count, static_cast<double>(T * B * q * m) * 8, [&](Index k, int worker) {
    for (Index i = 0; i < q; ++i)
      for (Index j = 0; j < m; ++j) {
        run.checkpoint(worker, static_cast<double>((T - k) * B) * 8);
        Sum sum(zero);
        if (k < T) sum.add_products((T - k) * B, a + (k * B * q + i), q, b + j, m);
        sum.store(R + ((k * q + i) * m + j));
      }
  });
}

}  // namespace rnnbptt
