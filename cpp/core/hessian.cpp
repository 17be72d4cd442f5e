#include "core/hessian.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace rnnbptt {
namespace {

// `count` parameters P, (rows, columns), one behind the other. Each of them and its part V of a direction are
// one parameter of the doubled model: [P 0; V P] where it acts on states, else [P; V].
struct Layout {
  Index count, rows, columns;
  bool on_states;

  Index size() const { return count * rows * columns; }
  Index width() const { return on_states ? 2 * columns : columns; }
};

template <typename Scalar>
struct Part {
  Layout layout;
  const Scalar *point, *direction;
  Scalar* product;
};

// Times 2^exponent, rounded once where the result is subnormal.
class PowerOfTwo {
 public:
  explicit PowerOfTwo(int exponent)
      : exponent_(exponent), factor_(std::abs(exponent) < 1000 ? std::ldexp(1.0, exponent) : 0) {}

  template <typename Scalar>
  Scalar operator*(Scalar value) const {
    if (factor_ == 0) return std::ldexp(value, exponent_);
    return static_cast<Scalar>(static_cast<double>(value) * factor_);
  }

 private:
  int exponent_;
  double factor_;  // 0 where it is out of range
};

// The parameter of the doubled model, with V times `scale`; null where there is no P.
template <typename Scalar>
Scalar* doubled(Workspace& memory, const Part<Scalar>& part, const PowerOfTwo& scale) {
  if (part.point == nullptr) return nullptr;
  const Layout& layout = part.layout;
  const Index width = layout.width(), n = layout.columns;
  auto* result = memory.take<Scalar>(2 * layout.count * layout.rows * width);
  const Scalar *P = part.point, *V = part.direction;
  Scalar* upper = result;
  for (Index i = 0; i < layout.count; ++i, upper += layout.rows * width)
    for (Index row = 0; row < layout.rows; ++row, upper += width, P += n, V += n) {
      Scalar* lower = upper + layout.rows * width;
      std::copy(P, P + n, upper);
      std::transform(V, V + n, lower, [&](Scalar value) { return scale * value; });
      if (!layout.on_states) continue;
      std::fill(upper + n, upper + width, Scalar{0});
      std::copy(P, P + n, lower + n);
    }
  return result;
}

// Adds up the gradient of the doubled parameter over the places of P, times `scale`.
template <typename Scalar>
void add_up(const Part<Scalar>& part, const Scalar* gradient, const PowerOfTwo& scale) {
  if (part.point == nullptr) return;
  const Layout& layout = part.layout;
  const Index width = layout.width(), n = layout.columns;
  const Scalar* upper = gradient;
  Scalar* to = part.product;
  for (Index i = 0; i < layout.count; ++i, upper += layout.rows * width)
    for (Index row = 0; row < layout.rows; ++row, upper += width, to += n) {
      const Scalar* repeated = upper + layout.rows * width + n;
      for (Index j = 0; j < n; ++j) to[j] = scale * (layout.on_states ? upper[j] + repeated[j] : upper[j]);
    }
}

// The binary exponent of the largest number; 0 where that is zero or not finite.
template <typename Scalar>
int exponent_of(const Part<Scalar>* parts, const Scalar* Part<Scalar>::* vector) {
  // As integers, the bits of absolute values are in the same order, infinity and NaN behind all others.
  using Bits = std::conditional_t<sizeof(Scalar) == 8, std::uint64_t, std::uint32_t>;
  Bits largest = 0;
  for (int i = 0; i < 7; ++i) {
    const Scalar* values = parts[i].*vector;
    const Index size = values != nullptr ? parts[i].layout.size() : 0;
    for (Index j = 0; j < size; ++j) largest = std::max(largest, std::bit_cast<Bits>(std::abs(values[j])));
  }
  int exponent = 0;
  const auto value = std::bit_cast<Scalar>(largest);
  if (std::isfinite(value)) std::frexp(value, &exponent);
  return exponent;
}

}  // namespace

template <typename Scalar>
void hessian_product(Run& run, Workspace& workspace, Workspace& memory, const Variables<const Scalar>& point,
                     const Variables<const Scalar>& v, const Problem<Scalar>& problem,
                     const Schedule& schedule, const Variables<Scalar>& product, UsedSchedule* used) {
  const Index B = problem.shape.B, d = problem.shape.d, h = problem.shape.h / 2, q = problem.shape.q / 2;
  const Params<const Scalar>&at = point.params, &along = v.params;
  const Params<Scalar>& to = product.params;
  const Part<Scalar> parts[7] = {
      {{1, h, d, false}, at.W_hx, along.W_hx, to.W_hx}, {{1, h, h, true}, at.W_hh, along.W_hh, to.W_hh},
      {{1, q, h, true}, at.W_qh, along.W_qh, to.W_qh},  {{1, h, 1, false}, at.b_h, along.b_h, to.b_h},
      {{1, q, 1, false}, at.b_q, along.b_q, to.b_q},    {{1, q, d, false}, at.W_qx, along.W_qx, to.W_qx},
      {{B, 1, h, false}, point.h0, v.h0, product.h0},
  };
  // The product is linear in v. Scaled by a power of two, which is exact, to the size of the point, v changes
  // neither the schedule nor the range of numbers.
  const int exponent =
      exponent_of(parts, &Part<Scalar>::direction) - exponent_of(parts, &Part<Scalar>::point);

  memory.reset();
  const Scalar* model[7];
  Scalar* gradient_of[7];
  for (int i = 0; i < 7; ++i) {
    model[i] = doubled(memory, parts[i], PowerOfTwo(-exponent));
    const Layout& layout = parts[i].layout;
    gradient_of[i] =
        model[i] != nullptr ? memory.take<Scalar>(2 * layout.count * layout.rows * layout.width()) : nullptr;
  }
  Problem<Scalar> tangent = problem;
  if (model[6] != nullptr) tangent.h0 = model[6];
  Gradients<Scalar> gradients;
  gradients.params = {gradient_of[0], gradient_of[1], gradient_of[2],
                      gradient_of[3], gradient_of[4], gradient_of[5]};
  gradients.h0 = gradient_of[6];
  gradient<Scalar>(run, workspace, {model[0], model[1], model[2], model[3], model[4], model[5]}, tangent,
                   gradients, schedule, used);
  for (int i = 0; i < 7; ++i) add_up(parts[i], gradient_of[i], PowerOfTwo(exponent));
}

template void hessian_product(Run&, Workspace&, Workspace&, const Variables<const float>&,
                              const Variables<const float>&, const Problem<float>&, const Schedule&,
                              const Variables<float>&, UsedSchedule*);
template void hessian_product(Run&, Workspace&, Workspace&, const Variables<const double>&,
                              const Variables<const double>&, const Problem<double>&, const Schedule&,
                              const Variables<double>&, UsedSchedule*);

}  // namespace rnnbptt
