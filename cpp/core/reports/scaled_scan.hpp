// A linear recurrence whose states may leave the range of float64.
#pragma once

#include <cstdint>

#include "core/runtime/threads.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// Rows of numbers mantissa[i] 2^exponent[i].
template <typename Real, typename Integer>
struct ScaledRows {
  Real* mantissas;
  Integer* exponents;
};

// s_i = M s_{i-1} + v_{i-1} for i = 1..steps, or s_i = M s_{i+1} + v_i for i = steps-1..0 with `reverse`,
// where M is a matrix (h, h) times 2^exponent: v is (steps, B, h), s is (steps + 1, B, h) and holds the
// start. All rows are normalised: the largest modulus is in [1/2, 1), or the row is zero with the exponent
// `zero`.
void scaled_scan(Run& run, Workspace& workspace, Index steps, Index B, Index h, const double* M,
                 std::int64_t exponent, ScaledRows<const double, const std::int64_t> v,
                 ScaledRows<double, std::int64_t> s, std::int64_t zero, bool reverse);

}  // namespace rnnbptt
