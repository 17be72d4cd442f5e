// One sweep through time, forwards and back: the order of the stages.
//
// Time runs in windows, and a window through five stages: inputs and chain forwards; outputs, chain and sums
// backwards. The two chains pass from window to window; all else is free. So while the chain runs through one
// window, the stages before and after it run through its neighbours.
#pragma once

#include <optional>

#include "core/sweep/chain.hpp"
#include "core/sweep/row_stages.hpp"
#include "core/sweep/sliding.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class Sweep {
 public:
  Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
        const Schedule& schedule, Coarsening<Scalar, State>& coarsening);

  // Has differentiate() take windows of some steps; the model is the one that takes gradients of inputs
  // beyond them, or null.
  void slide(SlidingWindows& sliding, const CoarseModel<Scalar, State>* beyond) {
    sliding_ = &sliding;
    beyond_ = beyond;
  }

  // Fills the gradients and returns the loss. Returns nothing, with nothing filled, where something not
  // finite would have spread, through the zeros of a lift's direct term, to gradients of inputs that it does
  // not reach.
  std::optional<double> differentiate();

  // Forward alone: o; where `inner` is not null, all states; and where `last` is not null those, (B, h),
  // after the last coarse step that is complete.
  void evaluate(SequenceView<Scalar> o, InnerStates<Scalar, State>* inner, State* last);

  const Windows<Scalar, State>& time() const { return windows_; }

 private:
  using Rows = WindowRows<Scalar, State>;
  using Back = Pass<Scalar, State>;

  void forward(Chain<Scalar, State>& chain);
  std::optional<double> backward(Chain<Scalar, State>& chain, Back& pass);
  Back pass_for(const Params<Scalar>& wanted, const Way<State>& way);

  // Windows of tau steps.
  void hold_outputs();
  double find_entering(Chain<Scalar, State>& chain, Way<State>& way);
  void take_away_beyond(Chain<Scalar, State>& chain);
  void window_of_start(Chain<Scalar, State>& chain);
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
  SlidingWindows* sliding_ = nullptr;
  const CoarseModel<Scalar, State>* beyond_ = nullptr;
  const bool keep_;    // whether the states of all windows are
  Index stated_ = -1;  // the window whose states are held, where they are not all
};

}  // namespace rnnbptt
