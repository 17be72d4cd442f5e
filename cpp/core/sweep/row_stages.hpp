// The stages of a window in which no row waits for another: what inputs add to the states, the outputs and
// the loss, the sums that gradients are made of.
#pragma once

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
        block_(windows.block()),
        splits_(splits),
        h_(model.h) {}

  // To be called once, before the first backward pass, and before each.
  void turn_back(Workspace& workspace);
  void begin(const RunningPass<Scalar, State>& pass) { pass_ = &pass; }

  // s = Ctrl x + bias_s, to which the chain adds A times the state before.
  Stage inputs(Rows& rows);

  // The outputs alone, to `o`, and states to where `inner` has them, if it is not null.
  Stage outputs(Rows& rows, SequenceView<Scalar> o, InnerStates<Scalar, State>* inner);

  // o, the loss and d_o; what outputs send back to states, in g; sums over d_o. Reads s, of which the last
  // states may be lost from here on.
  Stage losses(Rows& rows);
  // The loss with the window's share, after that.
  double add_losses(Rows& rows, double loss) const;
  bool finite(const Rows& rows) const;

  // Sums over g; gradients of the inputs.
  Stage sums(Rows& rows);

 private:
  static constexpr bool is_wide = Windows<Scalar, State>::is_wide;

  // A task for each split; for_blocks runs visit(from, to) over the blocks of one.
  Stage over_splits(const Rows& rows, double work_per_row, std::function<void(Index, int)> task) const;
  template <typename Visit>
  void for_blocks(const Rows& rows, Index split, int worker, double work_per_row, const Visit& visit);

  void inputs_of(Rows& rows, Index split, int worker);
  void losses_of(Rows& rows, Index split, int worker);
  void sums_of(Rows& rows, Index split, int worker);

  void gather_inputs(Rows& rows, Index from, Index to);
  void evaluate(Rows& rows, Index from, Index to);
  void differentiate(Rows& rows, Index from, Index to, Index split);
  void keep_first(Rows& rows, Index from, Index to);
  void send_back(Rows& rows, Index from, Index to, Index split);
  void add_sum(Index rows, const Scalar* left, Index left_stride, Index size, const Scalar* states,
               Scalar* sum) const;
  void add_sums(Rows& rows, Index from, Index to, Index split);
  void input_gradients(Rows& rows, Index from, Index to);
  void drop_last_states(Rows& rows);
  bool isolated() const;

  double work_of_inputs() const { return static_cast<double>(model_.inputs * h_); }
  double work_of_outputs() const;
  double work_of_sums() const;

  // The row whose state outputs of row r read: that before it in a lift, its own in the plain model.
  Index state_row() const { return model_.lifted ? -1 : 0; }

  Run& run_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const CoarseModel<Scalar, State>& model_;
  const typename Windows<Scalar, State>::Strides stride_;
  const Index block_, splits_, h_;
  const RunningPass<Scalar, State>* pass_ = nullptr;
  double* losses_ = nullptr;   // (splits,)
  Scalar* targets_ = nullptr;  // (splits, block_) rows
};

}  // namespace rnnbptt
