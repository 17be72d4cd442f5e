// Products and recurrences of numbers that have an exponent each: none is too large or too small, whatever
// stands beside it in its row.
#pragma once

#include <cstdint>

#include "core/runtime/threads.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// Numbers mantissa 2^exponent: the modulus of a mantissa is in [1/2, 1), or the number is zero, with an
// exponent that is below all others, also when two are added.
template <typename Real, typename Integer>
struct Entries {
  Real* mantissas;
  Integer* exponents;

  Entries operator+(Index n) const { return {mantissas + n, exponents + n}; }
};

using GivenEntries = Entries<const double, const std::int64_t>;
using WrittenEntries = Entries<double, std::int64_t>;

// C = A B, (m, k) times (k, n).
void multiply_entries(Run& run, Index m, Index k, Index n, GivenEntries A, GivenEntries B, WrittenEntries C,
                      std::int64_t zero);

// s_i = M s_{i-1} + v_{i-1} for i = 1..steps, or s_i = M s_{i+1} + v_i for i = steps-1..0 with `reverse`:
// M is (h, h), v is (steps, B, h), s is (steps + 1, B, h) and holds the start.
void scan_entries(Run& run, Index steps, Index B, Index h, GivenEntries M, GivenEntries v, WrittenEntries s,
                  std::int64_t zero, bool reverse);

// R_k = sum_t a_{t+k} b_t^T, summed over the batch, for k below `count`: a is (T, B, q), b is (T, B, m), R is
// (count, q, m).
void correlate_entries(Run& run, Index T, Index B, Index q, Index m, Index count, GivenEntries a,
                       GivenEntries b, WrittenEntries R, std::int64_t zero);

}  // namespace rnnbptt
