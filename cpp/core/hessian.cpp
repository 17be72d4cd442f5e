#include "core/hessian.hpp"

#include <algorithm>
#include <cmath>

namespace rnnbptt {
namespace {

// A parameter P, (rows, columns), and the part V of a direction are one parameter of the doubled model:
// [P 0; V P] where it acts on states, else [P; V]. There are `count` such one behind the other.
struct Block {
  Index count, rows, columns;
  bool on_states;

  Index size() const { return count * rows * columns; }
  Index width() const { return on_states ? 2 * columns : columns; }
};

template <typename Scalar>
struct Part {
  Block block;
  const Scalar *point, *direction;
  Scalar* product;
};

// P and V 2^-exponent, side by side. Null where there is no P.
template <typename Scalar>
Scalar* doubled(Workspace& memory, const Part<Scalar>& part, int exponent) {
  if (part.point == nullptr) return nullptr;
  const Block& block = part.block;
  const Index width = block.width(), n = block.columns;
  auto* result = memory.take<Scalar>(2 * block.count * block.rows * width);
  const Scalar *P = part.point, *V = part.direction;
  Scalar* upper = result;
  for (Index i = 0; i < block.count; ++i, upper += block.rows * width)
    for (Index row = 0; row < block.rows; ++row, upper += width, P += n, V += n) {
      Scalar* lower = upper + block.rows * width;
      std::copy(P, P + n, upper);
      std::transform(V, V + n, lower, [&](Scalar value) { return std::ldexp(value, -exponent); });
      if (!block.on_states) continue;
      std::fill(upper + n, upper + width, Scalar{0});
      std::copy(P, P + n, lower + n);
    }
  return result;
}

// Where P was put, from the gradient of the doubled parameter, times 2^exponent.
template <typename Scalar>
void add_up(const Part<Scalar>& part, const Scalar* gradient, int exponent) {
  if (part.point == nullptr) return;
  const Block& block = part.block;
  const Index width = block.width(), n = block.columns;
  const Scalar* upper = gradient;
  Scalar* to = part.product;
  for (Index i = 0; i < block.count; ++i, upper += block.rows * width)
    for (Index row = 0; row < block.rows; ++row, upper += width, to += n) {
      const Scalar* repeated = upper + block.rows * width + n;
      for (Index j = 0; j < n; ++j)
        to[j] = std::ldexp(block.on_states ? upper[j] + repeated[j] : upper[j], exponent);
    }
}

// The binary exponent of the largest number; 0 where that is zero or not finite.
template <typename Scalar>
int exponent_of(const Part<Scalar>* parts, const Scalar* Part<Scalar>::* vector) {
  Scalar largest = 0;
  for (int i = 0; i < 7; ++i) {
    const Scalar* values = parts[i].*vector;
    for (Index j = 0; values != nullptr && j < parts[i].block.size(); ++j) {
      if (!std::isfinite(values[j])) return 0;
      largest = std::max(largest, std::abs(values[j]));
    }
  }
  int exponent = 0;
  std::frexp(largest, &exponent);
  return exponent;
}

}  // namespace

template <typename Scalar>
void hessian_product(Run& run, Workspace& workspace, Workspace& memory, const Variables<const Scalar>& point,
                     const Variables<const Scalar>& v, const Problem<Scalar>& problem,
                     const Schedule& schedule, const Variables<Scalar>& product, Taken* taken) {
  const Index B = problem.shape.B, d = problem.shape.d, h = problem.shape.h / 2, q = problem.shape.q / 2;
  const Params<const Scalar>&at = point.params, &along = v.params;
  const Params<Scalar>& to = product.params;
  const Part<Scalar> parts[7] = {
      {{1, h, d, false}, at.W_hx, along.W_hx, to.W_hx}, {{1, h, h, true}, at.W_hh, along.W_hh, to.W_hh},
      {{1, q, h, true}, at.W_qh, along.W_qh, to.W_qh},  {{1, h, 1, false}, at.b_h, along.b_h, to.b_h},
      {{1, q, 1, false}, at.b_q, along.b_q, to.b_q},    {{1, q, d, false}, at.W_qx, along.W_qx, to.W_qx},
      {{B, 1, h, false}, point.h0, v.h0, product.h0},
  };
  // The product is linear in v: scaled by a power of two to the size of the point, which is exact, v disturbs
  // neither the schedule nor the range of numbers.
  const int exponent =
      exponent_of(parts, &Part<Scalar>::direction) - exponent_of(parts, &Part<Scalar>::point);

  memory.reset();
  const Scalar* model[7];
  Scalar* gradient_of[7];
  for (int i = 0; i < 7; ++i) {
    model[i] = doubled(memory, parts[i], exponent);
    const Block& block = parts[i].block;
    gradient_of[i] =
        model[i] != nullptr ? memory.take<Scalar>(2 * block.count * block.rows * block.width()) : nullptr;
  }
  Problem<Scalar> tangent = problem;
  if (model[6] != nullptr) tangent.h0 = model[6];
  Gradients<Scalar> gradients;
  gradients.params = {gradient_of[0], gradient_of[1], gradient_of[2],
                      gradient_of[3], gradient_of[4], gradient_of[5]};
  gradients.h0 = gradient_of[6];
  gradient<Scalar>(run, workspace, {model[0], model[1], model[2], model[3], model[4], model[5]}, tangent,
                   gradients, schedule, taken);
  for (int i = 0; i < 7; ++i) add_up(parts[i], gradient_of[i], exponent);
}

template void hessian_product(Run&, Workspace&, Workspace&, const Variables<const float>&,
                              const Variables<const float>&, const Problem<float>&, const Schedule&,
                              const Variables<float>&, Taken*);
template void hessian_product(Run&, Workspace&, Workspace&, const Variables<const double>&,
                              const Variables<const double>&, const Problem<double>&, const Schedule&,
                              const Variables<double>&, Taken*);

}  // namespace rnnbptt
