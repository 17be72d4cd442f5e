#include "core/sweep/loss_rows.hpp"

#include <algorithm>

#include "core/losses.hpp"

namespace rnnbptt {

template <typename Scalar>
double loss_rows(const Problem<Scalar>& problem, const Window& window, Index L, Index from, Index to,
                 Scalar* rows, Index row_stride, Scalar* targets) {
  const Loss<Scalar>& loss = *problem.loss;
  const bool tangent = problem.tangent;
  const Index q = tangent ? problem.shape.q / 2 : problem.shape.q;

  // Of a separable loss, rows of equal weight are one step each; without gaps between them, all complete ones
  // together are one. Their targets are read row by row like the outputs, copied where they do not lie so:
  // whatever their layout, there is one order of sums. Tangents are taken in rows only where no copy is
  // needed. Where outputs have weights of their own, each output is one step.
  const bool gaps = tangent || row_stride != L * q;
  bool whole_rows = loss.traits.separable && !problem.weights && problem.down == 1;
  if (tangent) whole_rows = whole_rows && problem.y.step == q;
  const bool in_place = gaps && (L == 1 || problem.y.step == q);
  const bool copied = whole_rows && !in_place;
  if (copied) gather(window, L, problem.y, q, from, to, targets, row_stride, from);

  LossSteps<Scalar> steps;
  steps.size = q;
  steps.row = row_stride;
  steps.tangent = tangent ? L * q : 0;
  steps.y.step = !whole_rows ? problem.y.step : copied ? row_stride : L * problem.y.step;
  steps.labels.step = problem.labels.step;
  steps.weights.step = problem.weights.step;
  steps.scale = loss.factor(q) / problem.weight_sum * static_cast<double>(problem.down);
  steps.parameter = problem.loss_parameter;
  if (problem.weights_of_outputs) {
    steps.steps = q;
    steps.size = steps.y.step = steps.weights.step = 1;
  }
  double total = 0;
  const auto add = [&] { total = tangent ? loss.tangent(steps, total) : loss.derivative(steps, total); };

  // The outputs of `n` time steps from t on, which lie one behind the other.
  const auto take_outputs = [&](Index t, Index b, Index n, Scalar* o) {
    for (Index i = 0; i < n; ++i) {
      steps.o = o + i * q;
      steps.y.data = problem.y.at(t + i, b);
      steps.weights.data = problem.weights.at(t + i, b);
      add();
    }
  };

  // Rows [j, j + count) of a segment, with the first `n` steps of each.
  const auto take = [&](const Segment& segment, Index j, Index count, Index n) {
    const Index t = segment.time + (j - 1) * L, b = segment.sequence, row = segment.first_row + j;
    if (problem.weights_of_outputs) {
      for (Index i = 0; i < count; ++i) take_outputs(t + i * L, b, n, rows + (row + i) * row_stride);
      return;
    }
    steps.o = rows + row * row_stride;
    steps.rows = count;
    if (whole_rows) {
      steps.size = n * q;
      if (!gaps) {
        steps.size += (count - 1) * row_stride;
        steps.rows = 1;
      }
    } else {
      steps.steps = n;
    }
    if (copied)
      steps.y.data = targets + (row - from) * row_stride;
    else if (problem.y)
      steps.y.data = problem.y.at(t, b);
    if (problem.labels) steps.labels.data = problem.labels.at(t, b);
    if (problem.weights) steps.weights.data = problem.weights.at(t, b);
    add();
  };

  // Zeros behind the first `n` steps of a row.
  const auto clear = [&](Scalar* row, Index n) {
    std::fill(row + n * q, row + L * q, Scalar{0});
    if (tangent) std::fill(row + (L + n) * q, row + 2 * L * q, Scalar{0});
  };

  for_rows(window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    Scalar* first = rows + segment.first_row * row_stride;
    if (j0 == 0) clear(first, 0);
    Index j = std::max<Index>(j0, 1);
    const Index end = std::min(j1, segment.length / L + 1);  // of the complete rows
    if (j < end) take(segment, j, end - j, L);
    for (j = std::max(j, end); j < j1; ++j) {
      const Index n = steps_in(segment, j, L);
      clear(first + j * row_stride, n);
      if (n > 0) take(segment, j, 1, n);
    }
  });
  return total;
}

template double loss_rows(const Problem<float>&, const Window&, Index, Index, Index, float*, Index, float*);
template double loss_rows(const Problem<double>&, const Window&, Index, Index, Index, double*, Index,
                          double*);

}  // namespace rnnbptt
