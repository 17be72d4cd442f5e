// One pass backwards through time: what it reads and leaves, what it carries from window to window, and its
// sums over all rows.
#pragma once

#include <algorithm>

#include "core/algebra/coarse.hpp"

namespace rnnbptt {

// How much gradients are sums of: sums of squares over rows, from which what rounding may have done to a sum
// can be told.
struct Amounts {
  double g = 0, x = 0, s = 0;  // gradients of states, inputs, states
  double gx = 0, gs = 0;       // their products

  void add(const Amounts& other) {
    g += other.g, x += other.x, s += other.s;
    gx += other.gx, gs += other.gs;
  }
};

// Options of a backward pass. Without any it is that of the full gradient.
template <typename Scalar, typename State>
struct BackwardPass {
  // (T + shift, B, q), or null. d_o is written there; with `reuse_d_o` it is read from there, not computed.
  SequenceView<Scalar> d_o;
  bool reuse_d_o = false;
  Index shift = 0;  // d_o of so many steps later is read
  // d_o is zeroed except in the first `kept` of every `every` steps; in none where `every` is 0.
  Index every = 0, kept = 0;

  bool accumulate = true;  // whether sums over rows and gradients of inputs are wanted
  // The model whose gradients of inputs are added to those that are there, or null: then this sweep's replace
  // them.
  const CoarseModel<Scalar, State>* added_inputs = nullptr;

  Amounts* amounts = nullptr;  // (splits,), added to, or null

  bool ignore_cuts = false;  // those at blocks
  // At cuts between blocks: (blocks, B, h), row (k, b) at the cut before block k, or null.
  const State* entering = nullptr;  // read: what is added to dL/ds of the last state before the cut
  State* first = nullptr;           // written: dL/ds of the first state behind the cut
  State* past_first = nullptr;  // written: the part of dL/ds before the cut that comes through Obs, not A^T
};

// A backward pass on its way. Sums are taken in `splits` parts, so that tasks can add to them side by side.
template <typename Scalar, typename State>
class RunningPass {
 public:
  // For the gradients that are `wanted`. `states` is B * h.
  RunningPass(Workspace& workspace, Coarsening<Scalar, State>& coarsening, const Params<Scalar>& wanted,
              Index splits, Index states, const BackwardPass<Scalar, State>& options)
      : options(options),
        carry(workspace.take<State>(states)),
        coarsening_(coarsening),
        wanted_(wanted),
        splits_(splits),
        sums_size_(options.accumulate ? coarsening.sums_size() : 0),
        biases_size_(options.accumulate ? coarsening.biases_size() : 0),
        sums_(workspace.take<Scalar>(splits * sums_size_)),
        biases_(workspace.take<double>(splits * biases_size_)) {
    std::fill(carry, carry + states, State{0});
    std::fill(sums_, sums_ + splits * sums_size_, Scalar{0});
    std::fill(biases_, biases_ + splits * biases_size_, 0.0);
  }

  const BackwardPass<Scalar, State> options;
  State* const carry;  // (B, h): dL/ds at the end of the window, from all that follows

  CoarseGradients<Scalar> sums(Index split) const {
    if (!options.accumulate) return {};
    return coarsening_.sums(wanted_, sums_ + split * sums_size_, biases_ + split * biases_size_);
  }

  // Adds up the splits, in their order, and turns the sums into gradients. Returns whether all of them are
  // finite: then so is all that they were made of, since 0 * inf is not.
  bool finish(Run& run) {
    for (Index split = 1; split < splits_; ++split) {
      for (Index i = 0; i < sums_size_; ++i) sums_[i] += sums_[split * sums_size_ + i];
      for (Index i = 0; i < biases_size_; ++i) biases_[i] += biases_[split * biases_size_ + i];
    }
    coarsening_.to_parameter_gradients(run, sums(0), wanted_);
    return all_finite(coarsening_.telling_sums(), sums_) && all_finite(biases_size_, biases_) &&
           coarsening_.finite(wanted_);
  }

 private:
  Coarsening<Scalar, State>& coarsening_;
  const Params<Scalar> wanted_;
  const Index splits_, sums_size_, biases_size_;
  Scalar* const sums_;
  double* const biases_;
};

}  // namespace rnnbptt
