// One sweep through time, forwards and back: the order of the stages.
//
// Time runs in windows, and a window through five stages: inputs and chain forwards; outputs, chain and sums
// backwards. The two chains pass from window to window; all else is free. So while the chain runs through one
// window, the stages before and after it run through its neighbours.
#pragma once

#include <cmath>
#include <optional>

#include "core/sweep/chain.hpp"
#include "core/sweep/row_stages.hpp"

namespace rnnbptt {

// The loss, and whether all gradients and what they were made of are finite.
struct Differentiated {
  double loss;
  bool gradients_finite;

  bool finite() const { return gradients_finite && std::isfinite(loss); }
};

template <typename Scalar, typename State>
class Sweep {
 public:
  Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
        const Schedule& schedule, Coarsening<Scalar, State>& coarsening);

  // Fills the gradients.
  Differentiated differentiate();

  // Runs forwards alone: fills o; all states where `inner` is not null; and where `last` is not null the
  // states, (B, h), after the last coarse step that is complete.
  void evaluate(SequenceView<Scalar> o, InnerStates<Scalar, State>* inner, State* last);

  // The steps of differentiate(), for gradients that take several backward passes.

  // Computes the states; called once, before any backward pass.
  void forward();

  // Takes the memory of a backward pass for the gradients that are `wanted`.
  RunningPass<Scalar, State> start(const Params<Scalar>& wanted, const BackwardPass<Scalar, State>& options);

  // Runs a pass that was started, from the last window to the first; RunningPass::finish() then has its
  // gradients. Returns the loss, where the pass does not reuse d_o.
  double backward(RunningPass<Scalar, State>& pass);

  // Writes dL/dh_0, which a pass has carried to the start; returns whether it is finite.
  bool store_start(const RunningPass<Scalar, State>& pass);

  // Zeroes gradients of inputs and outputs behind the ends of sequences; called once, after all passes.
  // Returns what RowStages::finite() does.
  bool clear_behind_ends();

  const Windows<Scalar, State>& windows() const { return windows_; }
  const CoarseModel<Scalar, State>& model() const { return model_; }

 private:
  using Rows = WindowRows<Scalar, State>;

  void clear_behind_ends(SequenceView<Scalar> sequence, Index size) const;

  Run& run_;
  Workspace& workspace_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const Schedule& schedule_;
  Coarsening<Scalar, State>& coarsening_;
  const CoarseModel<Scalar, State>& model_;
  Windows<Scalar, State> windows_;
  RowStages<Scalar, State> stages_;
  std::optional<Chain<Scalar, State>> chain_;
  const bool keep_all_states_;
  Index states_of_ = -1;  // where not all states are kept, the window whose states are in memory
};

}  // namespace rnnbptt
