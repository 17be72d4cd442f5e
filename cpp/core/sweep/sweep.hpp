// One sweep through time, forwards and back: the order of the stages.
//
// Time runs in windows, and a window through five stages: inputs and chain forwards; outputs, chain and sums
// backwards. The two chains pass from window to window; all else is free. So while the chain runs through one
// window, the stages before and after it run through its neighbours.
#pragma once

#include <optional>

#include "core/sweep/chain.hpp"
#include "core/sweep/row_stages.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class Sweep {
 public:
  Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
        const Schedule& schedule, Coarsening<Scalar, State>& coarsening);

  // Fills the gradients and returns the loss. Returns nothing, with nothing filled, where something not
  // finite would have spread, through the zeros of a lift's direct term, to gradients of inputs that it does
  // not reach.
  std::optional<double> differentiate();

  // Forward alone: o; where `inner` is not null, all states; and where `last` is not null those, (B, h),
  // after the last coarse step that is complete.
  void evaluate(SequenceView<Scalar> o, InnerStates<Scalar, State>* inner, State* last);

  // What differentiate() consists of, for gradients that take several backward passes: forward(), once; then
  // any number of passes, each of them started, run and finished; then clear_behind_ends(), once.
  void forward();
  RunningPass<Scalar, State> start(const Params<Scalar>& wanted, const BackwardPass<Scalar, State>& options);
  // Returns the loss, where the pass does not reuse d_o; nothing where differentiate() does.
  std::optional<double> backward(RunningPass<Scalar, State>& pass);
  void clear_behind_ends();

  const Windows<Scalar, State>& time() const { return windows_; }
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
  Index stated_ = -1;  // where not all states are kept, the window whose states are in memory
};

}  // namespace rnnbptt
