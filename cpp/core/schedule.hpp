// How a problem is computed: the only place that decides.
#pragma once

#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// What a caller may prescribe. A member that is zero, or -1 by default, leaves the choice to the schedule.
struct Choices {
  Index lift = 0;  // L is the longest length allowed up to this
  Index window = 0;
  Index splits = 0;
  Index piece = -1;
  int keep_all_states = -1;  // 0 or 1
  double memory_limit = 0;
};

// Everything here depends on the problem alone, never on the number of threads: so do the results, to the
// bit.
struct Schedule {
  Index L = 1;       // time steps wanted in one coarse step
  Index window = 0;  // coarse steps of a window
  // Whether the forward pass keeps all states; else it keeps one per sequence and window, and runs twice.
  bool keep_all_states = true;
  Index splits = 1;   // partial sums of the weight gradients, and tasks of a stage
  Index piece = 0;    // coarse steps of a piece of the scan; 0 where lanes are not cut
  double memory = 0;  // bytes of the largest arrays
  Choices choices;    // what was prescribed
};

// What is to be computed: outputs; outputs and all states; gradients by parameters and h0; and by inputs too.
enum class Goal { outputs, states, gradients, input_gradients };

// The schedule of least estimated cost, within what is prescribed.
template <typename Scalar>
Schedule plan(const Problem<Scalar>& problem, bool bias, Goal goal, const Choices& choices);

// The length of pieces for a plain scan of `lanes` lanes of `steps` steps; 0 for none.
Index plan_piece(Index h, Index lanes, Index steps);

}  // namespace rnnbptt
