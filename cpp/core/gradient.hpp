// The gradient of a problem: forward, loss, backward; and its outputs alone.
#pragma once

#include "core/runtime/workspace.hpp"
#include "core/schedule.hpp"

namespace rnnbptt {

// What a gradient was computed with.
struct UsedSchedule {
  Schedule schedule;
  Index L = 1;  // time steps in one coarse step
  Index windows = 1;
  double growth = 0;  // of powers up to the L that was wanted, as far as they were built; 0 for none
};

// Fills `gradients`, all of whose non-null members are overwritten, and returns the loss (0 where dL/do is
// given). `used` may be null.
template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                UsedSchedule* used);

// Writes the outputs of a problem to `o`, all states to `hidden` if it is given, and each sequence's last
// state to `last`, (B, h), if that is not null; then the problem has no lengths. Loss and truncation are not
// read.
template <typename Scalar>
void outputs(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, SequenceView<Scalar> hidden,
             Scalar* last, const Schedule& schedule);

}  // namespace rnnbptt
