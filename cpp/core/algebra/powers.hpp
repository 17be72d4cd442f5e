// Powers of a matrix that are to be applied many times over.
//
// Squaring doubles the relative error of a power, so that W^L computed in float64 alone is off by some L eps.
// Applied T / L times in a row that error points the same way each time and grows to T eps, where the
// roundings of the sequential recursion, pointing anywhere, only grow to sqrt(T) eps. Carried as a sum of two
// float64 the powers are right to the last bit of the first, and time in chunks is as accurate as time in
// steps.
#pragma once

#include <utility>
#include <vector>

#include "core/algebra/growth.hpp"

namespace rnnbptt {

struct Power {
  Index n = 1;
  const double* matrix = nullptr;  // W^n, (h, h)
  const double* low = nullptr;     // what rounding took off it where it is exact, else null
  double growth = 0;               // of the powers up to this one (growth.hpp)
};

// The powers on the way from W to W^n: after W^k comes W^2k, or W^(k+1) where a binary digit of n is left to
// be added.
struct PowerChain {
  std::vector<Power> powers;
  // How much they grow, and where they end before the power that was asked for, the next one too.
  double growth = 0;
  // Whether the last power forgets errors as fast as they come and nothing cancelled on the way: then float32
  // models may have it, and the states between its applications, in float32. False for exact powers.
  bool forgetting = false;
};

// Ends before W^n where powers grow so much that chunks would cost accuracy (growth.hpp), or overflow.
// `exact` asks for powers right to the last bit where plain ones would not do.
PowerChain build_powers(Run& run, Workspace& workspace, Square form, const double* W, Index n, bool exact);

// W^(2^k) for k = 0, 1, ..., squared when asked for, whatever their norms.
class Squarings {
 public:
  // `known` are the first of them, W at least. Others up to the one of k = `exact` are right to the last bit.
  Squarings(Run& run, Workspace& workspace, Index h, std::vector<Power> known, int exact)
      : run_(run), workspace_(workspace), h_(h), exact_(exact), squares_(std::move(known)) {}

  const double* operator[](int k);

 private:
  Run& run_;
  Workspace& workspace_;
  const Index h_;
  const int exact_;
  std::vector<Power> squares_;
};

// W^n for n >= 1, or null where build_powers() ends before it.
const double* power_of(Run& run, Workspace& workspace, Index h, const double* W, Index n, bool exact);

}  // namespace rnnbptt
