// The stages of a window in which no row waits for another: what inputs add to the states, the outputs and
// the loss, the sums that gradients are made of.
#pragma once

#include <atomic>
#include <functional>

#include "core/sweep/backward_pass.hpp"
#include "core/sweep/inner_states.hpp"
#include "core/sweep/windows.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class RowStages {
 public:
  using Rows = WindowRows<Scalar, State>;

  RowStages(Run& run, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
            const CoarseModel<Scalar, State>& model, const Windows<Scalar, State>& windows, Index splits)
      : run_(run),
        problem_(problem),
        gradients_(gradients),
        model_(model),
        stride_(windows.strides()),
        strip_(windows.strip()),
        splits_(splits),
        h_(model.h) {}

  // Takes the memory that backward passes need; called once.
  void prepare_backward(Workspace& workspace);

  // Names the pass that losses() and sums() are stages of from here on.
  void begin_pass(const RunningPass<Scalar, State>& pass) {
    pass_ = &pass;
    finite_ = true;
  }

  // s = Ctrl x + bias_s, to which the chain adds A times the state before.
  Stage inputs(Rows& rows);

  // Writes the outputs to `o`, and all states to where `inner` has them, if it is not null.
  Stage outputs(Rows& rows, SequenceView<Scalar> o, InnerStates<Scalar, State>* inner);

  // o, the loss and d_o; g = Obs^T d_o; sums over d_o. The states at the ends of segments are zero
  // once sums() has run on a plain model.
  Stage losses(Rows& rows);

  // `loss` and the window's share of it, once losses() has run.
  double add_losses(Rows& rows, double loss) const;

  // Whether all gradients of inputs that sums() has written in this pass are finite.
  bool finite() const { return finite_; }

  // Sums over g, and gradients of the inputs.
  Stage sums(Rows& rows);

 private:
  static constexpr bool is_wide = Windows<Scalar, State>::is_wide;

  // A stage of one task for each split.
  Stage over_splits(const Rows& rows, double work_per_row, std::function<void(Index, int)> task) const;

  // Runs visit(from, to) over the strips of a split.
  template <typename Visit>
  void for_strips(const Rows& rows, Index split, int worker, double work_per_row, const Visit& visit);

  void inputs_of(Rows& rows, Index split, int worker);
  void losses_of(Rows& rows, Index split, int worker);
  void sums_of(Rows& rows, Index split, int worker);

  void gather_inputs(Rows& rows, Index from, Index to);
  void evaluate(Rows& rows, Index from, Index to);
  void differentiate(Rows& rows, Index from, Index to, Index split);
  void zero_all_but_first(Rows& rows, Index from, Index to);
  void send_back(Rows& rows, Index from, Index to, Index split);
  void add_sum(Index rows, const Scalar* left, Index left_stride, Index size, const Scalar* states,
               Scalar* sum) const;
  void add_sums(Rows& rows, Index from, Index to, Index split);
  void add_amounts(const Rows& rows, Index from, Index to, Amounts& amounts) const;
  void input_gradients(Rows& rows, Index from, Index to);
  void drop_last_states(Rows& rows);
  bool cut_at_every_chunk() const;

  double work_of_inputs() const { return static_cast<double>(model_.inputs * h_); }
  double work_of_outputs() const;
  double work_of_sums() const;

  // Where the state lies that the outputs of a row read: one row before it in a lift.
  Index state_row() const { return model_.lifted ? -1 : 0; }

  Run& run_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const CoarseModel<Scalar, State>& model_;
  const typename Windows<Scalar, State>::Strides stride_;
  const Index strip_, splits_, h_;
  const RunningPass<Scalar, State>* pass_ = nullptr;
  std::atomic<bool> finite_ = true;
  double* losses_ = nullptr;   // (splits,)
  Scalar* targets_ = nullptr;  // (splits, strip_) rows
};

}  // namespace rnnbptt
