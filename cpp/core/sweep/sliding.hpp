// Gradients of losses that look back at tau states, as differences of two gradients,
//
//   g_t - (W_hh^T)^tau g_{t+tau},      g_t = sum_{i>=0} (W_hh^T)^i e_{t+i}
//
// Where powers grow, or never decay, that would cancel: what is taken away is larger than what is left. Then
// gradients are cut at blocks of c steps. In the block that ends before step b,
//
//   G_t = sum_{i=0}^{b-1-t} (W_hh^T)^i e_{t+i} + (W_hh^T)^(b-t) M_b      M_b = sum_{i<tau} (W_hh^T)^i e_{b+i}
//
// is a gradient where W_hh^T M_b enters at the last state. It looks back at tau to tau + c - 1 states, and
// what is taken away is (W_hh^T)^tau times the gradient of the block alone for d_o of tau steps later. What
// enters is joined from what gradients of blocks alone leave at their first steps, without any difference.
#pragma once

#include <optional>
#include <vector>

#include "core/algebra/powers.hpp"

namespace rnnbptt {

// Whether windows of tau steps are to be taken in blocks, and the powers of W_hh they need. Decided by norms
// of powers, never by data.
class SlidingWindows {
 public:
  // For sequences of up to `steps` steps, in chunks of L. `squares` of W_hh are those that are known, W_hh
  // itself at least; `exact` asks for powers right to the last bit where it counts.
  SlidingWindows(Run& run, Workspace& workspace, Index h, std::vector<Rung> squares, Index tau, Index steps,
                 Index L, bool exact);

  Index tau() const { return tau_; }

  // Steps of a block, a multiple of L or a power of two; 0 for whole sequences.
  Index block() const { return block_; }

  // Whether W_hh^tau is anything but negligible: else there is nothing to take away.
  bool beyond() const { return beyond_; }

  // A window from the first step of a block on: so many whole blocks, and the first steps of the next.
  Index blocks_ahead() const { return block_ < tau_ ? tau_ / block_ : 0; }
  Index steps_ahead() const { return block_ < tau_ ? tau_ % block_ : tau_; }

  // What enters before each block, from what flows out of whole blocks, of which there may be none ahead,
  // and out of the first steps of blocks, or null where there are none: each (blocks, rows, h).
  template <typename State>
  void join(Index blocks, Index rows, const State* whole, const State* first, State* entering);

  // A <- A W_hh^tau, or A (W_hh^T)^tau, for some rows of h numbers.
  void carry_over(Index rows, double* A, bool transposed);

 private:
  struct Node {
    Index n;
    double norm, amount;  // of W_hh^n; the sum of the norms of all powers before it
  };

  bool negligible();
  double norm_of(Index n);
  void apply(Index n, Index rows, double* A, bool transposed);
  void measure(Index steps);
  double amount(Index n) const;
  double ratio(Index block) const;

  Run& run_;
  Workspace& workspace_;
  const Index h_, tau_;
  std::optional<Squarings> squares_;
  std::vector<Node> nodes_;
  double lost_ = 0;  // the norm of W_hh^tau
  Index block_ = 0;
  bool beyond_ = true;
};

}  // namespace rnnbptt
