// The rate of the panel product on hot data: what benchmarks hold results against.
#pragma once

#include "core/runtime/threads.hpp"

namespace rnnbptt {

// Floating-point operations per second of products that stay in the caches, on run.threads threads at once.
template <typename Scalar>
double product_rate(Run& run);

}  // namespace rnnbptt
