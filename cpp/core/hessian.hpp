// Products with the Hessian of a loss, forward over reverse: the gradient of the loss's tangent along a
// direction, at the model of states and tangents.
#pragma once

#include "core/gradient.hpp"

namespace rnnbptt {

// All that a loss is differentiated by; absent parts are null.
template <typename Scalar>
struct Variables {
  Params<Scalar> params;
  Scalar* h0 = nullptr;  // (B, h)
};

// Fills `product` with the Hessian at `point` times `v`. `problem` is that of the tangent (Problem::tangent),
// with twice the states and outputs, and `schedule` its own. The doubled model is kept in `memory`. `used`
// may be null.
template <typename Scalar>
void hessian_product(Run& run, Workspace& workspace, Workspace& memory, const Variables<const Scalar>& point,
                     const Variables<const Scalar>& v, const Problem<Scalar>& problem,
                     const Schedule& schedule, const Variables<Scalar>& product, UsedSchedule* used);

}  // namespace rnnbptt
