// Powers of a matrix that are to be applied many times over.
//
// Squaring doubles the relative error of a power, so that W^L computed in float64 alone is off by some L eps.
// Applied T / L times in a row that error points the same way each time and grows to T eps, where the
// roundings of the sequential recursion, pointing anywhere, only grow to sqrt(T) eps. Carried as a sum of two
// float64 the powers are right to the last bit of the first, and time in chunks is as accurate as time in
// steps.
#pragma once

#include <vector>

#include "core/products.hpp"

namespace rnnbptt {

// W^1, W^2, W^4, ..., each (h, h).
struct Squares {
  std::vector<const double*> powers;
  // Whether the last power forgets errors as fast as they come and nothing cancelled on the way, so that
  // float32 models may carry it, and states between its applications, in float32. Only for squares that are
  // not exact.
  bool forgetting = false;
};

// Squares W up to `levels` times; ends early, before the first power so large that carrying it costs
// accuracy, or that overflows. `exact` asks for powers right to the last bit where they do not decay by
// themselves.
Squares repeated_squares(Run& run, Workspace& workspace, Index h, const double* W, int levels, bool exact);

// W^n for n >= 1, or null where the squares on the way end early.
const double* power(Run& run, Workspace& workspace, Index h, const double* W, Index n, bool exact);

}  // namespace rnnbptt
