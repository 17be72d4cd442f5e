#include "core/gauss_newton.hpp"

#include <algorithm>
#include <vector>

#include "core/algebra/products.hpp"
#include "core/loss_root.hpp"
#include "core/state_sensitivities.hpp"

namespace rnnbptt {
namespace {

template <typename Scalar>
bool outputs_apart(const Problem<Scalar>& problem) {
  return problem.loss == nullptr || problem.loss->traits.separable;
}

// Columns of a row of the window: (own weights of its group, states, h0 of its own sequence).
Columns local_columns(const Shape& s, const Columns& all, const BlockSizes& sizes) {
  Columns local;
  Index at = 0;
  const auto place = [&](Index wanted, Index& to, Index count) {
    if (wanted < 0) return;
    to = at;
    at += count;
  };
  local.own_output = sizes.groups == s.q;
  const Index group = s.q / sizes.groups;
  place(all.W_qh, local.W_qh, group * s.h);
  place(all.b_q, local.b_q, group);
  place(all.W_qx, local.W_qx, group * s.d);
  place(all.W_hx, local.W_hx, s.h * s.d);
  place(all.W_hh, local.W_hh, s.h * s.h);
  place(all.b_h, local.b_h, s.h);
  place(all.h0, local.h0, s.h);
  local.total = at;
  return local;
}

}  // namespace

template <typename Scalar>
BlockSizes block_sizes(const Problem<Scalar>& problem, const Columns& columns) {
  const auto& s = problem.shape;
  const auto size = [](Index at, Index count) { return at < 0 ? 0 : count; };
  BlockSizes sizes;
  sizes.groups = outputs_apart(problem) ? s.q : 1;
  sizes.states = size(columns.W_hx, s.h * s.d) + size(columns.W_hh, s.h * s.h) + size(columns.b_h, s.h);
  sizes.outputs =
      (size(columns.W_qh, s.h) + size(columns.b_q, 1) + size(columns.W_qx, s.d)) * (s.q / sizes.groups);
  sizes.starts = size(columns.h0, s.h);
  return sizes;
}

template <typename Scalar>
void gauss_newton_blocks(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                         const Problem<Scalar>& problem, const Columns& columns,
                         SequenceView<const Scalar> hidden, SequenceView<const Scalar> o,
                         const Blocks<Scalar>& to) {
  const Index T = problem.shape.T, B = problem.shape.B, q = problem.shape.q;
  const BlockSizes sizes = block_sizes(problem, columns);
  const Index n = sizes.states, m = sizes.outputs, h = sizes.starts, groups = sizes.groups;
  const Columns local = local_columns(problem.shape, columns, sizes);
  const Index row = local.total, start_row = groups * m + n + h;
  Sensitivities<Scalar> sensitivities(workspace, params, problem, local, hidden, o);

  // A window of some megabyte, whole sequences if they are short.
  constexpr Index window_scalars = Index{1} << 17;
  const Index rows = std::max<Index>(window_scalars / std::max<Index>(row, 1), 128);
  const Index steps = std::clamp<Index>(rows / q, 1, T);
  const Index group = steps < T ? 1 : std::clamp<Index>(rows / (q * T), 1, sensitivities.slots());
  const Index step = q * row, sequence = steps * step;
  auto* window = workspace.take<Scalar>(group * sequence);

  std::fill(to.states, to.states + n * n, Scalar{0});
  std::fill(to.outputs, to.outputs + groups * m * (m + n), Scalar{0});
  if (h > 0) std::fill(to.starts, to.starts + B * h * start_row, Scalar{0});
  // Rows of a group of outputs: one in every step, or all q.
  const Index apart = groups == q ? step : row, per_step = groups == q ? 1 : q;
  constexpr Index strip = 64;  // rows of a block that one task sums up
  const Index state_strips = (n + strip - 1) / strip, output_strips = (m + strip - 1) / strip;
  for (Index b = 0; b < B; b += group) {
    const Index count = std::min(group, B - b);
    for (Index t = 0; t < T; t += steps) {
      const Index taken = std::min(steps, T - t);
      sensitivities.advance(run, b, count, t, t + taken, {window - t * step - b * sequence, step, sequence},
                            row);
      const Index summed = (count - 1) * steps + taken;  // steps: they lie one behind the other
      const auto work = [=](Index of, Index i, Index j) {
        return static_cast<double>(of * std::min(i, strip)) * static_cast<double>(j);
      };
      const double state_work = work(summed * q, n, n) / 2, start_work = work(taken * q, h, n + m + h);
      const double output_work = work(summed * per_step, m, m + n);
      const auto of_states = [&](Index task, int worker) {
        run.checkpoint(worker, state_work);
        const Index first = task * strip, width = std::min(strip, n - first);
        const Scalar* from = window + m + first;
        add_outer<Scalar>(summed * q, from, row, width, from, row, n - first, to.states + first * (n + 1), n);
      };
      const auto of_outputs = [&](Index task, int worker) {
        run.checkpoint(worker, output_work);
        const Index k = task / output_strips, first = task % output_strips * strip;
        const Scalar* from = window + (groups == q ? k * row : 0);
        add_outer<Scalar>(summed * per_step, from + first, apart, std::min(strip, m - first), from, apart,
                          m + n, to.outputs + (k * m + first) * (m + n), m + n);
      };
      const auto of_starts = [&](Index i, int worker) {
        run.checkpoint(worker, start_work);
        const Scalar* from = window + i * sequence;
        const Scalar* own = from + m + n;
        Scalar* block = to.starts + (b + i) * h * start_row;
        for (Index k = 0; k < groups; ++k)
          add_outer<Scalar>(taken * per_step, own + (groups == q ? k * row : 0), apart, h,
                            from + (groups == q ? k * row : 0), apart, m, block + k * m, start_row);
        add_outer<Scalar>(taken * q, own, row, h, from + m, row, n + h, block + groups * m, start_row);
      };
      parallel(run, {{state_strips, state_work, of_states},
                     {groups * output_strips, output_work, of_outputs},
                     {h > 0 ? count : 0, start_work, of_starts}});
    }
  }
}

template <typename Scalar>
void gauss_newton(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                  const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
                  SequenceView<const Scalar> o, Scalar* matrix) {
  workspace.reset();
  const auto& s = problem.shape;
  const BlockSizes sizes = block_sizes(problem, columns);
  const Index n = sizes.states, m = sizes.outputs, h = sizes.starts, groups = sizes.groups;
  const Index size = columns.total, start_row = groups * m + n + h;
  const Blocks<Scalar> blocks{workspace.take<Scalar>(n * n), workspace.take<Scalar>(groups * m * (m + n)),
                              workspace.take<Scalar>(s.B * h * start_row)};
  gauss_newton_blocks(run, workspace, params, problem, columns, hidden, o, blocks);

  // Where the columns of a block stand in the matrix.
  const auto add = [](std::vector<Index>& to, Index first, Index count) {
    for (Index i = 0; first >= 0 && i < count; ++i) to.push_back(first + i);
  };
  std::vector<Index> states, outputs;
  add(states, columns.W_hx, s.h * s.d);
  add(states, columns.W_hh, s.h * s.h);
  add(states, columns.b_h, s.h);
  const Index group = s.q / groups;
  for (Index k = 0; k < groups; ++k) {
    const auto own = [&](Index first, Index count) {
      add(outputs, first < 0 ? first : first + k * group * count, group * count);
    };
    own(columns.W_qh, s.h);
    own(columns.b_q, 1);
    own(columns.W_qx, s.d);
  }
  std::fill(matrix, matrix + size * size, Scalar{0});
  const auto put = [&](Index i, Index j, Scalar value) {
    matrix[i * size + j] = value;
    matrix[j * size + i] = value;
  };
  const auto at = [](const std::vector<Index>& columns_of, Index i) {
    return columns_of[static_cast<std::size_t>(i)];
  };
  for (Index i = 0; i < n; ++i)
    for (Index j = i; j < n; ++j) put(at(states, i), at(states, j), blocks.states[i * n + j]);
  for (Index i = 0; i < groups * m; ++i) {
    const Scalar* from = blocks.outputs + i * (m + n);
    for (Index j = i % m; j < m; ++j) put(at(outputs, i), at(outputs, i - i % m + j), from[j]);
    for (Index j = 0; j < n; ++j) put(at(outputs, i), at(states, j), from[m + j]);
  }
  for (Index b = 0; b < s.B && h > 0; ++b)
    for (Index i = 0; i < h; ++i) {
      const Scalar* from = blocks.starts + (b * h + i) * start_row;
      const Index to = columns.h0 + b * h + i;
      for (Index j = 0; j < groups * m; ++j) put(to, at(outputs, j), from[j]);
      for (Index j = 0; j < n; ++j) put(to, at(states, j), from[groups * m + j]);
      for (Index j = i; j < h; ++j) put(to, columns.h0 + b * h + j, from[groups * m + n + j]);
    }
}

#define RNNBPTT_INSTANTIATE(Scalar)                                                                         \
  template BlockSizes block_sizes(const Problem<Scalar>&, const Columns&);                                  \
  template void gauss_newton_blocks(Run&, Workspace&, const Params<const Scalar>&, const Problem<Scalar>&,  \
                                    const Columns&, SequenceView<const Scalar>, SequenceView<const Scalar>, \
                                    const Blocks<Scalar>&);                                                 \
  template void gauss_newton(Run&, Workspace&, const Params<const Scalar>&, const Problem<Scalar>&,         \
                             const Columns&, SequenceView<const Scalar>, SequenceView<const Scalar>,        \
                             Scalar*);
RNNBPTT_INSTANTIATE(float)
RNNBPTT_INSTANTIATE(double)
#undef RNNBPTT_INSTANTIATE

}  // namespace rnnbptt
