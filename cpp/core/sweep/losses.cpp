#include "core/sweep/losses.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/table.hpp"

namespace rnnbptt {
namespace {

// d_o <- scale * (o - y); returns ||o - y||^2.
template <typename Scalar>
double squared(Index n, Scalar* o, const Scalar* y, Scalar scale) {
  if (n >= 16) return kernels::table().of<Scalar>().residual(n, o, y, scale);
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    const Scalar r = o[i] - y[i];
    sum += static_cast<double>(r) * static_cast<double>(r);
    o[i] = scale * r;
  }
  return sum;
}

// d_o <- scale * (softmax(o) - onehot(label)); returns -log softmax(o)[label]. With m the largest output,
// l = o_m - o_label + log(1 + sum_{k != m} exp(o_k - o_m)), and the label's own p - 1 is minus the sum of the
// other probabilities: neither loses the digits of a confident answer.
template <typename Scalar>
double cross_entropy(Index q, Scalar* o, Index label, double scale) {
  const Index top = std::max_element(o, o + q) - o;
  const auto largest = static_cast<double>(o[top]);
  const double behind = static_cast<double>(o[label]) - largest;
  double rest = 0;  // probabilities of all but the top, relative to the top's
  for (Index i = 0; i < q; ++i)
    if (i != top) rest += std::exp(static_cast<double>(o[i]) - largest);
  double others = 0;  // probabilities of all but the label
  for (Index i = 0; i < q; ++i) {
    const double p = std::exp(static_cast<double>(o[i]) - largest) / (1 + rest);
    if (i != label) others += p;
    o[i] = static_cast<Scalar>(scale * p);
  }
  o[label] = static_cast<Scalar>(-scale * others);
  return std::log1p(rest) - behind;
}

// (o, o') <- scale * (l''(o) o', l'(o)), o' being `tangent`; returns l'(o) . o'. With p = softmax(o) and m
// the largest output, l'' o' = p (o' - sum_k p_k o'_k), where tangents are taken relative to o'_m: as above,
// a confident answer keeps its digits.
template <typename Scalar>
double squared_tangent(Index n, Scalar* o, Scalar* tangent, const Scalar* y, Scalar scale) {
  constexpr Index width = 4;
  double sums[width] = {};
  const auto at = [&](Index i, double& sum) {
    const Scalar r = o[i] - y[i], along = tangent[i];
    sum += static_cast<double>(r) * static_cast<double>(along);
    o[i] = scale * along;
    tangent[i] = scale * r;
  };
  Index i = 0;
  for (; i + width <= n; i += width)
    for (Index k = 0; k < width; ++k) at(i + k, sums[k]);
  for (; i < n; ++i) at(i, sums[0]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename Scalar>
double cross_entropy_tangent(Index q, Scalar* o, Scalar* tangent, Index label, double scale) {
  const Index top = std::max_element(o, o + q) - o;
  const auto largest = static_cast<double>(o[top]), origin = static_cast<double>(tangent[top]);
  double rest = 0, mean = 0;
  for (Index i = 0; i < q; ++i) {
    if (i == top) continue;
    const double e = std::exp(static_cast<double>(o[i]) - largest);
    rest += e;
    mean += e * (static_cast<double>(tangent[i]) - origin);
  }
  mean /= 1 + rest;
  const double at_label = static_cast<double>(tangent[label]) - origin;
  double others = 0;
  for (Index i = 0; i < q; ++i) {
    const double p = std::exp(static_cast<double>(o[i]) - largest) / (1 + rest);
    if (i != label) others += p;
    o[i] = static_cast<Scalar>(scale * p * (static_cast<double>(tangent[i]) - origin - mean));
    tangent[i] = static_cast<Scalar>(scale * p);
  }
  tangent[label] = static_cast<Scalar>(-scale * others);
  return mean - at_label;
}

// loss_rows for the tangent of a loss, of rows of o and then o': `share` is that of l / per_step.
template <typename Scalar>
double tangent_rows(const Problem<Scalar>& problem, const Window& window, Index L, Index from, Index to,
                    Scalar* rows, Index row_stride, double share) {
  const Index q = problem.shape.q / 2;
  double total = 0;
  for_rows(window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    for (Index j = j0; j < j1; ++j) {
      Scalar* o = rows + (segment.first_row + j) * row_stride;
      Scalar* tangent = o + L * q;
      const Index steps = j == 0 ? 0 : steps_in(segment, j, L);
      std::fill(o + steps * q, o + L * q, Scalar{0});
      std::fill(tangent + steps * q, tangent + L * q, Scalar{0});
      const Index t = segment.time + (j - 1) * L, b = segment.sequence;
      if (steps > 0 && problem.y && problem.y.step == q && !problem.weights) {
        const auto scale = static_cast<Scalar>(2 * share);
        total += 2 * share * squared_tangent(steps * q, o, tangent, problem.y.at(t, b), scale);
        continue;
      }
      for (Index i = 0; i < steps; ++i, o += q, tangent += q) {
        const double w = problem.weights ? static_cast<double>(*problem.weights.at(t + i, b)) : 1.0;
        const double scale = w * share;
        if (w == 0) {
          std::fill(o, o + q, Scalar{0});
          std::fill(tangent, tangent + q, Scalar{0});
        } else if (problem.loss == Loss::cross_entropy) {
          const auto label = static_cast<Index>(*problem.labels.at(t + i, b));
          total += scale * cross_entropy_tangent(q, o, tangent, label, scale);
        } else {
          const Scalar* y = problem.y.at(t + i, b);
          total += 2 * scale * squared_tangent(q, o, tangent, y, static_cast<Scalar>(2 * scale));
        }
      }
    }
  });
  return total;
}

}  // namespace

template <typename Scalar>
double loss_rows(const Problem<Scalar>& problem, const Window& window, Index L, Index from, Index to,
                 Scalar* rows, Index row_stride, Scalar* targets) {
  const Index q = problem.shape.q;
  const Index outputs = problem.tangent ? q / 2 : q;
  const double per_step = problem.loss == Loss::squared_error ? 0.5
                          : problem.loss == Loss::mse         ? 1.0 / static_cast<double>(outputs)
                                                              : 1.0;
  const double share = per_step / problem.weight_sum;  // of l / per_step in L
  if (problem.tangent) return tangent_rows(problem, window, L, from, to, rows, row_stride, share);
  // Targets of equal weight are read row by row like the outputs, copied where they do not lie so: whatever
  // their layout, there is one order of sums.
  const bool uniform = problem.y && !problem.weights;
  const bool row_by_row = row_stride != L * q;
  const bool in_place = row_by_row && (L == 1 || problem.y.step == q);
  if (uniform && !in_place) gather(window, L, problem.y, q, from, to, targets, row_stride, from);
  double total = 0;

  for_rows(window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    for (Index j = j0; j < j1; ++j) {
      Scalar* row = rows + (segment.first_row + j) * row_stride;
      const Index steps = j == 0 ? 0 : steps_in(segment, j, L);
      std::fill(row + steps * q, row + L * q, Scalar{0});
      if (uniform) {
        // Rows without gaps between them are taken together, as far as they are whole.
        Index count = 1;
        if (steps == L && !row_by_row) count = std::min(j1, segment.length / L + 1) - j;
        const Scalar* y = targets + (segment.first_row + j - from) * row_stride;
        if (in_place) y = problem.y.at(segment.time + (j - 1) * L, segment.sequence);
        total +=
            share * squared(steps * q + (count - 1) * row_stride, row, y, static_cast<Scalar>(2 * share));
        j += count - 1;
        continue;
      }
      const Index t = segment.time + (j - 1) * L;
      const Index b = segment.sequence;
      for (Index i = 0; i < steps; ++i, row += q) {
        const double w = problem.weights ? static_cast<double>(*problem.weights.at(t + i, b)) : 1.0;
        if (w == 0) {
          std::fill(row, row + q, Scalar{0});
        } else if (problem.loss == Loss::cross_entropy) {
          total +=
              w * share * cross_entropy(q, row, static_cast<Index>(*problem.labels.at(t + i, b)), w * share);
        } else {
          total += w * share * squared(q, row, problem.y.at(t + i, b), static_cast<Scalar>(2 * w * share));
        }
      }
    }
  });
  return total;
}

template double loss_rows(const Problem<float>&, const Window&, Index, Index, Index, float*, Index, float*);
template double loss_rows(const Problem<double>&, const Window&, Index, Index, Index, double*, Index,
                          double*);

}  // namespace rnnbptt
