// One way back through time: what it carries from window to window, and the sums over all rows.
#pragma once

#include <algorithm>

#include "core/algebra/coarse.hpp"

namespace rnnbptt {

// What a way back through time reads, and what it leaves besides sums.
template <typename State>
struct Way {
  bool again = false;    // whether d_o is held from an earlier way
  bool collects = true;  // whether sums are wanted, and gradients of inputs
  Index shift = 0;       // d_o of so many steps later
  // Of every so many steps only the first `kept` ask anything of the states; 0 for all.
  Index every = 0, kept = 0;
  bool whole = false;  // not cut at blocks

  // (blocks, B, h), row (k, b) at the cut before block k, or null: what is added to dL/ds of the last state
  // before the cut; dL/ds of the first state behind it; and what the block asks of the state before it not by
  // way of that one.
  const State* entering = nullptr;
  State* first = nullptr;
  State* past_first = nullptr;
};

// Sums are taken in `splits` parts, so that tasks can add to them side by side.
template <typename Scalar, typename State>
class Pass {
 public:
  // For the gradients that are `wanted`. `states` is B * h.
  Pass(Workspace& workspace, Coarsening<Scalar, State>& coarsening, const Params<Scalar>& wanted,
       Index splits, Index states, const Way<State>& way)
      : way(way),
        carry(workspace.take<State>(states)),
        coarsening_(coarsening),
        wanted_(wanted),
        splits_(splits),
        sums_size_(way.collects ? coarsening.sums_size() : 0),
        biases_size_(way.collects ? coarsening.biases_size() : 0),
        sums_(workspace.take<Scalar>(splits * sums_size_)),
        biases_(workspace.take<double>(splits * biases_size_)) {
    std::fill(carry, carry + states, State{0});
    std::fill(sums_, sums_ + splits * sums_size_, Scalar{0});
    std::fill(biases_, biases_ + splits * biases_size_, 0.0);
  }

  const Way<State> way;
  State* const carry;  // (B, h): dL/ds at the end of the window, from all that follows

  CoarseGradients<Scalar> sums(Index split) const {
    if (!way.collects) return {};
    return coarsening_.sums(wanted_, sums_ + split * sums_size_, biases_ + split * biases_size_);
  }

  // Adds up the splits, in their order, and turns the sums into gradients.
  void finish(Run& run) {
    for (Index split = 1; split < splits_; ++split) {
      for (Index i = 0; i < sums_size_; ++i) sums_[i] += sums_[split * sums_size_ + i];
      for (Index i = 0; i < biases_size_; ++i) biases_[i] += biases_[split * biases_size_ + i];
    }
    coarsening_.collect(run, sums(0), wanted_);
  }

 private:
  Coarsening<Scalar, State>& coarsening_;
  const Params<Scalar> wanted_;
  const Index splits_, sums_size_, biases_size_;
  Scalar* const sums_;
  double* const biases_;
};

}  // namespace rnnbptt
