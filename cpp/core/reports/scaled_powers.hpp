// Powers of a matrix as results, however large, small or far below the powers on the way to them.
//
// Squaring amplifies rounding errors by ||W^k||^2 / ||W^2k||. For a matrix whose powers first grow by many
// orders of magnitude and then decay no fixed precision is enough. So powers are numbers with as many digits
// as it takes, and a bound of the error is followed from product to product: where it is too large to
// certify a result, the powers from there on are computed with more digits.
#pragma once

#include <cstdint>

#include "core/algebra/products.hpp"

namespace rnnbptt {

// W^k = mantissas[i] * 2^exponents[i] for the ascending k = ks[i] >= 0. The largest entry of a mantissa is
// near 1; a zero power has exponent 0. The error of a mantissa, before it is rounded to float64, is certified
// to be below 2^-bits / h of its Frobenius norm, but for powers that cancel to less than some 2^-800 of the
// factors they are products of. W is (h, h), mantissas (count, h, h). The same bits for any number of
// threads.
void scaled_powers(Run& run, Workspace& workspace, Index h, const double* W, Index count,
                   const std::int64_t* ks, int bits, double* mantissas, double* exponents);

}  // namespace rnnbptt
