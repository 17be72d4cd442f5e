// Gradients of losses that look back at tau states, as differences of two gradients,
//
//   g_t - (W_hh^T)^tau g_{t+tau},      g_t = sum_{i>=0} (W_hh^T)^i e_{t+i}
//
// Where powers grow, or never decay, that would cancel: what is taken away is larger than what is left. Then
// time is cut into blocks of c steps. In the block that ends before step b,
//
//   G_t = sum_{i=0}^{b-1-t} (W_hh^T)^i e_{t+i} + (W_hh^T)^(b-t) M_b      M_b = sum_{i<tau} (W_hh^T)^i e_{b+i}
//
// is the gradient of the block where W_hh^T M_b enters at its last state. Losses look back at tau to
// tau + c - 1 states there, and what is taken away is (W_hh^T)^tau times the gradient of the block alone for
// d_o of tau steps later. M_b is a sum of gradients by the first states of blocks alone, without a
// difference.
//
// Where powers grow before they decay, what W_hh^tau rounds is stretched like them: no power may be
// multiplied by, and lag windows are summed up (window_sums.hpp).
#pragma once

#include <optional>
#include <vector>

#include "core/algebra/powers.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// Largest ratio of what a gradient is made of, or of what is taken away from it, to what is left: the
// difference costs about as many roundings.
constexpr double cancels = 32;

// How the gradients of a problem with lag windows are taken: in which blocks, and by which powers of W_hh.
// Decided by norms of powers, never by data.
class LagWindows {
 public:
  // For chunks of L steps, and powers of W_hh that are known, if any.
  template <typename Scalar>
  LagWindows(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, const PowerChain& powers, Index L);

  Index tau() const { return tau_; }

  // Steps of a block, a multiple of L or a power of two; 0 for whole sequences.
  Index block() const { return block_; }

  // Whether W_hh^tau is anything but negligible: else nothing is taken away.
  bool beyond() const { return beyond_; }

  // ||W_hh^tau||, some tenths too small; or where that is negligible a bound of it; 0 where no loss looks
  // back at so many states.
  double lost() const { return lost_; }

  // Whether powers up to W_hh^tau grow too much to be multiplied by (core/algebra/growth.hpp).
  bool powers_grow();

  // W_hh^(2^k).
  const double* square(int k) { return (*squares_)[k]; }

  // A lag window from the first step of a block on holds so many blocks, and the first steps of the next.
  Index blocks_ahead() const { return block_ < tau_ ? tau_ / block_ : 0; }
  Index steps_ahead() const { return block_ < tau_ ? tau_ % block_ : tau_; }

  // W_hh^T M_b for each block: from what flows out of blocks alone, at their first steps, for the losses of
  // all their steps, and for those of the first `steps_ahead`. Either may be null where none are ahead. All
  // are (blocks, rows, h).
  template <typename State>
  void join(Index blocks, Index rows, const State* all_steps, const State* first_steps, State* entering);

  // A <- A W_hh^tau, or A (W_hh^T)^tau, for some rows of h numbers.
  void carry_over(Index rows, double* A, bool transposed);

 private:
  struct Node {
    Index n;
    double norm, amount;  // ||W_hh^n||, and sum_{i<n} ||W_hh^i||
  };

  // `exact` asks for powers right to the last bit where it counts.
  void choose_block(Index steps, Index L, std::vector<Power> squares, bool exact);
  std::optional<double> negligible();
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
  double lost_ = 0;
  Index block_ = 0;
  bool beyond_ = true;
  std::optional<bool> powers_grow_;
};

}  // namespace rnnbptt
