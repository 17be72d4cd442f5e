// The losses l(y, o) of one step. Each is a small struct in losses.cpp, the only file that tells them apart.
#pragma once

#include <cstdint>
#include <string_view>

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// Steps of one sequence, row after row: step i of row r has its `size` outputs at o + r * row + i * size, and
// is number r * steps + i of y, labels and weights.
//
// The step of a separable loss may hold the outputs of several time steps of equal weight, or one output
// alone.
template <typename Scalar>
struct LossSteps {
  Index rows = 1, steps = 1, size = 0;
  Scalar* o = nullptr;
  Index row = 0;
  Index tangent = 0;                        // o' lies so far behind o; 0 for none
  SequenceView<const Scalar> y;             // `size` targets of a step,
  SequenceView<const std::int64_t> labels;  // or its label
  SequenceView<const double> weights;       // null for ones; targets of a step of weight 0 are not read
  double scale = 1;                         // of a step of weight 1
  double parameter = 0;                     // the loss's, where it takes one
};

struct LossTraits {
  std::string_view name;
  bool labels = false;          // targets are class labels
  bool separable = false;       // l = sum_j l_j(y_j, o_j); the second derivative is diagonal
  bool sum_of_squares = false;  // l = 1/2 |M (o - y)|^2, M being that of root()
};

// Where l is factor(q) times a loss u that does not know q, the functions work on u: the factor is part of
// their scale.
template <typename Scalar>
class Loss {
 public:
  const LossTraits traits;

  virtual double factor(Index q) const = 0;

  // o <- scale * weight * du/do; returns `total`, to which scale * weight * u of every step is added in turn.
  // The outputs of a step of weight 0 become exactly 0.
  virtual double derivative(const LossSteps<Scalar>& steps, double total) const = 0;

  // The tangent of both along o': (o, o') <- scale * weight * (d2u/do2 o', du/do), and
  // scale * weight * du/do . o' is added to `total`.
  virtual double tangent(const LossSteps<Scalar>& steps, double total) const = 0;

  // A root of the second derivative of a single step, M^T M = scale * d2u/do2, with
  // M(k, l) = root[k] ((k == l) - p[l]). A separable loss leaves p as it is, which is zero.
  virtual void root(const LossSteps<const Scalar>& step, Scalar* root, Scalar* p) const = 0;

 protected:
  explicit constexpr Loss(const LossTraits& its) : traits(its) {}
  ~Loss() = default;
};

// The loss of that name; throws std::invalid_argument where there is none.
template <typename Scalar>
const Loss<Scalar>& find_loss(std::string_view name);

}  // namespace rnnbptt
