// The chain of states, forwards, and that of their gradients, backwards, from window to window: the one part
// of the work in which steps wait for one another. It runs in its own precision, on the rows themselves or on
// a wide copy.
//
// The two parts of a tangent model's states take turns: the second one's recurrence is that of the first,
// with the same matrix, once what the first adds to it is there, which no step waits for.
#pragma once

#include <utility>
#include <vector>

#include "core/algebra/scan.hpp"
#include "core/sweep/backward_pass.hpp"
#include "core/sweep/windows.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class Chain {
 public:
  using Rows = WindowRows<Scalar, State>;

  Chain(Run& run, Workspace& workspace, const Problem<Scalar>& problem,
        const CoarseModel<Scalar, State>& model, const Windows<Scalar, State>& windows,
        const Schedule& schedule);

  // Prepares the matrices that gradients are carried back by; called once.
  void prepare_backward();

  // Begins s_c = A s_{c-1} + v_c at the first coarse step of a window, with v_c = Ctrl x_c + bias_s from s.
  void begin_states(Rows& rows);

  // Keeps the states that the next window starts from.
  void keep_states(const Rows& rows);

  // A segment's state after coarse step j of the window whose states have just run.
  const State* state(const Segment& segment, Index j) const;

  // Begins g_{c-1} += A^T g_c at the last coarse step of a window, with what the pass carries from later
  // ones.
  void begin_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass);

  // Has the pass carry g of the start states on to the window before.
  void end_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass);

  // Runs what was begun, to the other end of the window, beside other stages.
  void run(Rows& rows, const Stage& beside = {}, const Stage& beside_too = {});

 private:
  static constexpr bool is_wide = Windows<Scalar, State>::is_wide;

  // Rows of a segment that one lane takes: from `row` on, in the direction of the chain, `steps` steps.
  struct Stretch {
    Index row, steps;
    Index carried = -1;  // the sequence whose carried gradient enters at `row`, if any
    // The cuts between blocks that it lies between, as rows of the arrays of a BackwardPass, if any.
    Index from_cut = -1, to_cut = -1;
  };

  bool truncated(const BackwardPass<Scalar, State>& pass) const {
    return (problem_.block > 0 && !pass.ignore_cuts) || problem_.cuts != nullptr;
  }
  void add_stretches(Rows& rows, const Segment& segment, const BackwardPass<Scalar, State>& pass);
  MatrixView<const State> scaled(MatrixView<const State> A, double factor);

  void begin_scans(Rows& rows, bool forward);
  void set_start(Index lane, const State* state);
  void run_lanes(Rows& rows, Index task, int worker);
  void join_parts(Index lane, Index first, int worker);
  void widen(const Rows& rows, Index from_lane, Index to_lane);
  void narrow(const Rows& rows, Index from_lane, Index to_lane);
  std::pair<Index, Index> rows_of(Index lane) const;

  Run& run_;
  Workspace& workspace_;
  const Problem<Scalar>& problem_;
  const CoarseModel<Scalar, State>& model_;
  const Schedule& schedule_;
  const Index h_, B_;
  const Index parts_, part_;   // of the states, and scalars of each
  const Index stride_;         // scalars from one row to the next, where the chain runs
  const Index narrow_stride_;  // and in the rows of the problem's scalars
  const Index length_;         // coarse steps of a window

  std::vector<Stretch> stretches_;
  bool forward_ = true;
  State* base_ = nullptr;          // the rows that the chain runs in: those of `narrow_base_` or a wide copy
  Scalar* narrow_base_ = nullptr;  // s, or g, of the window
  ScanProblem<State> scans_[2];    // of the parts, in the order in which they run; a lane for each stretch
  Index lanes_per_task_ = 1;
  Packed<State> flow_;              // A times Problem::flow
  Packed<double> jump_T_, jump_;    // A^piece, for the chain forwards and backwards
  State* lane_starts_ = nullptr;    // (parts, lanes, part)
  State* window_starts_ = nullptr;  // (windows + 1, B, h)
};

}  // namespace rnnbptt
