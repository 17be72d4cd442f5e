// One way back through time: what it carries from window to window, and the sums over all rows.
#pragma once

#include <algorithm>

#include "core/coarse.hpp"

namespace rnnbptt {

// Sums are taken in `splits` parts, so that tasks can add to them side by side.
template <typename Scalar, typename State>
class Pass {
 public:
  // For the gradients that are `wanted`, from d_o of `shift` steps later. `states` is B * h.
  Pass(Workspace& workspace, Coarsening<Scalar, State>& coarsening, const Params<Scalar>& wanted,
       Index splits, Index states, Index shift)
      : shift(shift),
        carry(workspace.take<State>(states)),
        coarsening_(coarsening),
        wanted_(wanted),
        splits_(splits),
        sums_size_(coarsening.sums_size()),
        biases_size_(coarsening.biases_size()),
        sums_(workspace.take<Scalar>(splits * sums_size_)),
        biases_(workspace.take<double>(splits * biases_size_)) {
    std::fill(carry, carry + states, State{0});
    std::fill(sums_, sums_ + splits * sums_size_, Scalar{0});
    std::fill(biases_, biases_ + splits * biases_size_, 0.0);
  }

  const Index shift;
  State* const carry;  // (B, h): dL/ds at the end of the window, from all that follows

  CoarseGradients<Scalar> sums(Index split) const {
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
