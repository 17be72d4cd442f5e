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

  // To be called once, before a backward pass.
  void turn_back();

  // s_c = A s_{c-1} + v_c from the first coarse step of a window, v_c being what inputs have left in s.
  void begin_states(Rows& rows);
  void keep_states(const Rows& rows);

  // A segment's state after coarse step j of the window whose states have just run.
  const State* state(const Segment& segment, Index j) const;

  // g_{c-1} += A^T g_c from the last coarse step to the start state. What arrives there the pass carries on
  // to the window before.
  void begin_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass);
  void end_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass);

  // Runs what was begun, beside other stages.
  void run(Rows& rows, const Stage& beside = {}, const Stage& beside_too = {});

 private:
  static constexpr bool is_wide = Windows<Scalar, State>::is_wide;

  // Rows that one lane takes, from `row` on in its direction.
  struct Stretch {
    Index row, steps;
    Index ends = -1;  // the sequence whose gradients from later windows enter at `row`
    // The cuts it lies between, as rows of the arrays of a BackwardPass, where blocks are cut.
    Index from_cut = -1, to_cut = -1;
  };

  bool truncated(const BackwardPass<Scalar, State>& pass) const {
    return (problem_.block > 0 && !pass.ignore_cuts) || problem_.cuts != nullptr;
  }
  void add_stretches(Rows& rows, const Segment& segment, const BackwardPass<Scalar, State>& pass);
  MatrixView<const State> scaled(MatrixView<const State> A, double factor);

  void begin(Rows& rows, bool forward);
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
  const Index parts_, part_;  // of the states, and scalars of each
  const Index row_;           // scalars from one row to the next, where the chain runs
  const Index narrow_row_;    // and in the rows of the problem's scalars
  const Index length_;        // coarse steps of a window

  std::vector<Stretch> stretches_;
  State* base_ = nullptr;  // the rows that the chain runs in
  bool forward_ = true;
  ScanProblem<State> scans_[2];  // of each part in its turn, a lane for each of stretches_
  Scalar* chained_ = nullptr;    // the rows that the chain runs through
  Index lanes_per_task_ = 1;
  Packed<State> flow_;              // A, times what flows backwards is multiplied by
  Packed<double> jump_T_, jump_;    // A^piece, for the chain forwards and backwards
  State* lane_starts_ = nullptr;    // (parts, lanes, part)
  State* window_starts_ = nullptr;  // (windows + 1, B, h)
};

}  // namespace rnnbptt
