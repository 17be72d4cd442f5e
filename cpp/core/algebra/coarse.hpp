// The model in coarse steps: the plain one for L = 1, or its lift.
//
//   s_c = A s_{c-1} + Ctrl x_c + bias_s
//   o_c = Obs s + Direct x_c + bias_o     with s = s_c for L = 1, s = s_{c-1} for a lift
#pragma once

#include <array>
#include <concepts>
#include <vector>

#include "core/algebra/lift.hpp"

namespace rnnbptt {

// Some columns of a right factor, with only those rows that are not zero there.
template <typename Scalar>
struct Band {
  Index row = 0, column = 0;
  Packed<Scalar> packed;
};

// A lift, and states between its steps, are computed in `Real`; a plain model in `Scalar` throughout.
//
// A tangent model (Problem::tangent) has two parts, states and outputs of a model and behind them their
// tangents. The second part reaches nothing in the first:
//
//   A = [M 0; U M]    Obs = [O 0; O' O]
//
// Outputs of a row are ordered by part, then by step.
template <typename Scalar, typename Real>
struct CoarseModel {
  Index L = 1;
  Index parts = 1, part = 0;             // the number of parts, and states of one
  Index h = 0, inputs = 0, outputs = 0;  // of all parts
  bool lifted = false;                   // outputs read the state before the step

  // Right factors of the products with rows of states, inputs and output gradients.
  Packed<Real> A_T, A;  // of one part: A, or M
  MatrixView<const Real> A_view;
  Packed<Real> U_T, U;  // of a tangent model only
  Packed<Scalar> Ctrl_T;
  std::array<Band<Scalar>, 2> Obs_T, Obs;  // the second of a tangent model only
  std::vector<Band<Scalar>> Direct_T;
  Packed<Scalar> Ctrl;               // for gradients with respect to inputs only
  std::vector<Band<Scalar>> Direct;  // likewise
  const Scalar* bias_s = nullptr;
  const Scalar* bias_o = nullptr;
  double square_Ctrl = 0, square_Obs = 0;  // of a lift, ||[W_hx b_h]||^2 and ||W_qh||^2

  // Where output m of step k stands in a row; m counts those of all parts.
  Index output(Index k, Index m) const {
    const Index n = outputs / (L * parts);
    return (m / n * L + k) * n + m % n;
  }
};

// Sums over rows that the gradients are made of; null where not wanted. Of a tangent model only gradients at
// its point are wanted: in A and Obs the zeros above stay unset, and in a plain model also U and O'.
template <typename Scalar>
struct CoarseGradients {
  Scalar* A = nullptr;       // (h, h)
  Scalar* Ctrl_T = nullptr;  // (inputs, h)
  Scalar* Obs = nullptr;     // (outputs, h)
  Scalar* Direct = nullptr;  // (outputs, inputs)
  double* bias_s = nullptr;  // (h,): plain sums cancel, so they are taken in float64
  double* bias_o = nullptr;  // (outputs,)
};

// Builds the coarse model, a lift by powers of W_hh or without any the plain model, and pulls its gradients
// back to the parameters.
template <typename Scalar, typename Real>
class Coarsening {
 public:
  Coarsening(Run& run, Workspace& workspace, const Shape& shape, const Params<const Scalar>& params,
             const std::vector<Power>& powers, bool input_gradient, bool tangent);

  const CoarseModel<Scalar, Real>& model() const { return model_; }

  // Scalars of one set of sums, and doubles of its sums for biases.
  Index sums_size() const;
  Index biases_size() const { return (model_.h + model_.outputs + 7) / 8 * 8; }

  // The sums that the gradients `wanted` are made of, in memory of those sizes.
  CoarseGradients<Scalar> sums(const Params<Scalar>& wanted, Scalar* memory, double* biases) const;

  // Turns sums over all rows into gradients of the parameters.
  void to_parameter_gradients(Run& run, const CoarseGradients<Scalar>& sums, const Params<Scalar>& gradients);

  // The first sums, not all of which are finite unless rows of inputs, states and both their gradients are:
  // each of these takes part in them.
  Index telling_sums() const;

  // Whether gradients are finite, if those sums are.
  bool finite(const Params<Scalar>& gradients) const;

 private:
  // A template, so that it is not instantiated where it does not exist: a plain model has no wider states.
  template <std::same_as<Real> Plain>
  void build_plain(const Params<const Plain>& params, bool input_gradient);
  void build_lifted(Run& run, const Params<const Scalar>& params, const std::vector<Power>& powers,
                    bool input_gradient);
  void set_recurrence(MatrixView<const Real> A);
  template <typename Source>
  void set_observations(MatrixView<const Source> Obs);
  void build_direct(const Scalar* W_qx, bool input_gradient);
  void pull_back_lifted(Run& run, const CoarseGradients<Scalar>& sums, const Params<Scalar>& gradients);

  Workspace& workspace_;
  Shape shape_;
  bool bias_;
  CoarseModel<Scalar, Real> model_;
  Lift<Real> lift_;
};

}  // namespace rnnbptt
