// The rate of products of data in the caches: the limit that benchmarks compare with.
#pragma once

#include "core/runtime/threads.hpp"

namespace rnnbptt {

// Floating-point operations per second of products that stay in the caches, on run.threads threads at once.
template <typename Scalar>
double product_rate(Run& run);

}  // namespace rnnbptt
