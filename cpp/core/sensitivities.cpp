#include "core/sensitivities.hpp"

#include <algorithm>
#include <vector>

#include "core/loss_root.hpp"
#include "core/state_sensitivities.hpp"

namespace rnnbptt {
template <typename Scalar>
void residuals(const Problem<Scalar>& problem, SequenceView<const Scalar> o, SequenceView<Scalar> r) {
  const auto& s = problem.shape;
  std::vector<Scalar> memory(static_cast<std::size_t>(Factor<Scalar>::size(s.q)));
  Factor<Scalar> factor(problem, memory.data());
  for (Index t = 0; t < s.T; ++t)
    for (Index b = 0; b < s.B; ++b) {
      const bool counts = factor.set(t, b, o.at(t, b));
      for (Index k = 0; k < s.q; ++k)
        r.at(t, b)[k] =
            counts && factor.counts(k) ? factor(k, k) * (o.at(t, b)[k] - problem.y.at(t, b)[k]) : Scalar{0};
    }
}

template <typename Scalar>
void jacobian(Run& run, Workspace& workspace, const Params<const Scalar>& params,
              const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
              SequenceView<const Scalar> o, SequenceView<Scalar> J) {
  workspace.reset();
  Sensitivities<Scalar> sensitivities(workspace, params, problem, columns, hidden, o);
  const Index B = problem.shape.B, slots = sensitivities.slots();
  for (Index b = 0; b < B; b += slots)
    sensitivities.advance(run, b, std::min(slots, B - b), 0, problem.shape.T, J, columns.total);
}

#define RNNBPTT_INSTANTIATE(Scalar)                                                                  \
  template void residuals(const Problem<Scalar>&, SequenceView<const Scalar>, SequenceView<Scalar>); \
  template void jacobian(Run&, Workspace&, const Params<const Scalar>&, const Problem<Scalar>&,      \
                         const Columns&, SequenceView<const Scalar>, SequenceView<const Scalar>,     \
                         SequenceView<Scalar>);
RNNBPTT_INSTANTIATE(float)
RNNBPTT_INSTANTIATE(double)
#undef RNNBPTT_INSTANTIATE

}  // namespace rnnbptt
