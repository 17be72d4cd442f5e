// The model in coarse steps: the plain one for L = 1, or its lift for L = 2^m.
//
//   s_c = A s_{c-1} + Ctrl x_c + bias_s
//   o_c = Obs s + Direct x_c + bias_o     with s = s_c for L = 1, s = s_{c-1} for a lift
#pragma once

#include <concepts>
#include <vector>

#include "core/lift.hpp"

namespace rnnbptt {

// A band of the direct term: outputs of some consecutive time steps, and the inputs up to the last of them.
// Later inputs do not reach them, so that bands leave out most of the zeros of a lift's triangular Toeplitz
// block.
template <typename Scalar>
struct DirectBand {
  Index first_output = 0, outputs = 0;
  Index inputs = 0;
  Packed<Scalar> transposed;  // (inputs, outputs)
  Packed<Scalar> straight;    // (outputs, inputs): for gradients with respect to inputs only
};

// A lift, and states between its steps, are computed in `Real`; a plain model in `Scalar` throughout.
template <typename Scalar, typename Real>
struct CoarseModel {
  Index L = 1;
  Index h = 0, inputs = 0, outputs = 0;
  bool lifted = false;  // outputs read the state before the step
  std::vector<DirectBand<Scalar>> direct;

  // Right factors of the products with rows of states, inputs and output gradients.
  Packed<Real> A_T, A;
  MatrixView<const Real> A_view;
  Packed<Scalar> Ctrl_T, Obs_T, Obs;
  Packed<Scalar> Ctrl;  // for gradients with respect to inputs only
  const Scalar* bias_s = nullptr;
  const Scalar* bias_o = nullptr;
};

// Sums over rows that the gradients are made of. Null where not wanted.
template <typename Scalar>
struct CoarseGradients {
  Scalar* A = nullptr;       // (h, h)
  Scalar* Ctrl_T = nullptr;  // (inputs, h)
  Scalar* Obs = nullptr;     // (outputs, h)
  Scalar* Direct = nullptr;  // (outputs, inputs)
  double* bias_s = nullptr;  // (h,): plain sums cancel, so they are taken in float64
  double* bias_o = nullptr;  // (outputs,)
};

// Builds the coarse model, from powers of W_hh or plain from none, and turns sums over its rows into
// gradients of the parameters.
template <typename Scalar, typename Real>
class Coarsening {
 public:
  Coarsening(Run& run, Workspace& workspace, const Shape& shape, const Params<const Scalar>& params,
             const std::vector<Rung>& rungs, bool input_gradient, bool tangent);

  const CoarseModel<Scalar, Real>& model() const { return model_; }

  // One set of sums for the parameters that `wanted` asks for takes sums_size() scalars and biases_size()
  // doubles.
  Index sums_size() const;
  Index biases_size() const { return (model_.h + model_.outputs + 7) / 8 * 8; }
  CoarseGradients<Scalar> sums(const Params<Scalar>& wanted, Scalar* memory, double* biases) const;

  void collect(Run& run, const CoarseGradients<Scalar>& sums, const Params<Scalar>& gradients);

 private:
  void build_plain(const Params<const Scalar>& params, bool input_gradient)
    requires std::same_as<Scalar, Real>;
  void build_lifted(Run& run, const Params<const Scalar>& params, const std::vector<Rung>& rungs,
                    bool input_gradient);
  void collect_lifted(Run& run, const CoarseGradients<Scalar>& sums, const Params<Scalar>& gradients);

  Workspace& workspace_;
  Shape shape_;
  bool bias_, tangent_;
  CoarseModel<Scalar, Real> model_;
  Lift<Real> lift_;
};

}  // namespace rnnbptt
