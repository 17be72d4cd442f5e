// Gradients of a problem with lag windows: one pass forwards, and those backward passes whose sums and
// differences they are. lag_windows.hpp has the equations.
#pragma once

#include <optional>
#include <vector>

#include "core/sliding/lag_windows.hpp"
#include "core/sweep/sweep.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class SlidingSweep {
 public:
  // `problem`, that of the sweep, is cut at the blocks of the lag windows. `powers` are those of its lift.
  SlidingSweep(Run& run, Workspace& workspace, const Params<const Scalar>& params,
               const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
               const std::vector<Power>& powers, LagWindows& lag_windows, Sweep<Scalar, State>& sweep)
      : run_(run),
        workspace_(workspace),
        params_(params),
        problem_(problem),
        gradients_(gradients),
        schedule_(schedule),
        powers_(powers),
        lag_windows_(lag_windows),
        sweep_(sweep) {}

  // As Sweep::differentiate().
  Differentiated differentiate();

 private:
  using Options = BackwardPass<Scalar, State>;

  void make_room_for_d_o();
  // Of the next pass: the first one computes d_o and the loss, all others read d_o.
  Options options() const;
  void run(RunningPass<Scalar, State>& pass);

  Index blocks() const { return (problem_.shape.T + problem_.block - 1) / problem_.block; }
  const State* find_entering();
  const State* flow_out(Index steps);
  Amounts* no_amounts();
  Amounts total(const Amounts* amounts) const;
  bool take_away_beyond();
  Params<const Scalar> params_beyond();
  void take_away(const Params<Scalar>& excess);
  bool differentiate_start();
  bool accurate() const;

  Run& run_;
  Workspace& workspace_;
  const Params<const Scalar>& params_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const Schedule& schedule_;
  const std::vector<Power>& powers_;
  LagWindows& lag_windows_;
  Sweep<Scalar, State>& sweep_;
  SequenceView<Scalar> d_o_;    // (T + tau, B, q)
  std::optional<double> loss_;  // once it is known, and d_o with it
  Amounts whole_, beyond_;      // of the gradients, and of what is taken away, but for W_hh^tau
  double taken_[3] = {};        // norms of what is taken from the gradients of W_hx, W_hh and b_h
};

}  // namespace rnnbptt
