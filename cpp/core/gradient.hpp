// The gradient of a problem: forward, loss, backward; and its outputs alone.
#pragma once

#include "core/runtime/workspace.hpp"
#include "core/schedule.hpp"

namespace rnnbptt {

// What a gradient was computed with.
struct Taken {
  Schedule schedule;
  Index L = 1;  // time steps in one coarse step
  Index windows = 1;
};

// Fills `gradients`, all of whose non-null members are overwritten, and returns the loss (0 where dL/do is
// given). `taken` may be null.
template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                Taken* taken);

// The outputs of a problem, of which inputs, initial state and lengths count; all states, where `hidden` is
// wanted: they are not formed otherwise; and each sequence's last state, (B, h) or null, for problems without
// lengths.
template <typename Scalar>
void outputs(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, SequenceView<Scalar> hidden,
             Scalar* last, const Schedule& schedule);

}  // namespace rnnbptt
