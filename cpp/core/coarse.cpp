#include "core/coarse.hpp"

#include <algorithm>
#include <utility>

namespace rnnbptt {
namespace {

// A copy in the workspace, where kernels may read behind the ends of rows.
template <typename Real, typename Source>
const Real* copy_as(Workspace& workspace, const Source* A, Index n) {
  auto* copy = workspace.take<Real>(n);
  std::transform(A, A + n, copy, [](Source v) { return static_cast<Real>(v); });
  return copy;
}

template <typename Scalar, typename Source>
void store(Index n, const Source* from, Scalar* to) {
  if (to != nullptr) std::transform(from, from + n, to, [](Source v) { return static_cast<Scalar>(v); });
}

template <typename Scalar, typename Source>
void store_transposed(Index rows, Index columns, const Source* A, Scalar* A_T) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) A_T[j * rows + i] = static_cast<Scalar>(A[i * columns + j]);
}

}  // namespace

template <typename Scalar, typename Real>
Coarsening<Scalar, Real>::Coarsening(Run& run, Workspace& workspace, const Shape& shape,
                                     const Params<const Scalar>& params, const std::vector<Rung>& rungs,
                                     bool input_gradient, bool tangent)
    : workspace_(workspace), shape_(shape), bias_(params.b_h != nullptr), tangent_(tangent) {
  model_.h = shape.h;
  if (rungs.size() > 1)
    build_lifted(run, params, rungs, input_gradient);
  else if constexpr (std::same_as<Scalar, Real>)
    build_plain(params, input_gradient);
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::build_plain(const Params<const Scalar>& params, bool input_gradient)
  requires std::same_as<Scalar, Real>
{
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const MatrixView<const Scalar> W_hx{params.W_hx, h, d, d}, W_hh{params.W_hh, h, h, h},
      W_qh{params.W_qh, q, h, h}, W_qx{params.W_qx, q, d, d};
  model_.L = 1;
  model_.inputs = d;
  model_.outputs = q;
  model_.A_view = W_hh;
  model_.A = pack<Scalar>(workspace_, W_hh);
  model_.A_T = pack<Scalar>(workspace_, W_hh.transposed());
  model_.Ctrl_T = pack<Scalar>(workspace_, W_hx.transposed());
  model_.Obs = pack<Scalar>(workspace_, W_qh);
  model_.Obs_T = pack<Scalar>(workspace_, W_qh.transposed());
  if (input_gradient) model_.Ctrl = pack<Scalar>(workspace_, W_hx);
  if (params.W_qx != nullptr) {
    DirectBand<Scalar> band{0, q, d, pack<Scalar>(workspace_, W_qx.transposed()), {}};
    if (input_gradient) band.straight = pack<Scalar>(workspace_, W_qx);
    model_.direct.push_back(band);
  }
  model_.bias_s = params.b_h;
  model_.bias_o = params.b_q;
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::build_lifted(Run& run, const Params<const Scalar>& params,
                                            const std::vector<Rung>& rungs, bool input_gradient) {
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const Index inputs = d + (bias_ ? 1 : 0);
  auto* B_columns = workspace_.take<Real>(inputs * h);
  for (Index i = 0; i < h; ++i)
    for (Index j = 0; j < d; ++j) B_columns[j * h + i] = static_cast<Real>(params.W_hx[i * d + j]);
  if (bias_) std::copy(params.b_h, params.b_h + h, B_columns + d * h);
  std::vector<LiftRung<Real>> powers;
  for (const Rung& rung : rungs)
    if constexpr (sizeof(Real) == sizeof(double))
      powers.push_back({rung.n, rung.power});
    else
      powers.push_back({rung.n, copy_as<Real>(workspace_, rung.power, h * h)});
  lift_ = lift<Real>(run, workspace_, {h, tangent_}, inputs, q, std::move(powers), B_columns,
                     copy_as<Real>(workspace_, params.W_qh, q * h));
  const Index L = lift_.steps;
  model_.L = L;
  model_.lifted = true;
  model_.inputs = L * d;
  model_.outputs = L * q;

  const MatrixView<const Real> A{lift_.rungs.back().power, h, h, h};
  model_.A = pack<Real>(workspace_, A);
  model_.A_T = pack<Real>(workspace_, A.transposed());
  model_.A_view = A;

  // Ctrl^T: input i of step j acts through lag L - 1 - j.
  auto* ctrl_T = workspace_.take<Real>(L * d * h);
  for (Index j = 0; j < L; ++j) {
    const Real* lag = lift_.inputs_by_lag + (L - 1 - j) * inputs * h;
    std::copy(lag, lag + d * h, ctrl_T + j * d * h);
  }
  const MatrixView<const Real> Ctrl_T{ctrl_T, L * d, h, h};
  model_.Ctrl_T = pack<Scalar>(workspace_, Ctrl_T);
  const MatrixView<const Real> Obs{lift_.outputs_by_step, L * q, h, h};
  model_.Obs = pack<Scalar>(workspace_, Obs);
  model_.Obs_T = pack<Scalar>(workspace_, Obs.transposed());

  // Direct^T: input i of step j on output m of step k >= j through Markov parameter k - j, and W_qx at k = j.
  auto* direct_T = workspace_.take<Real>(L * d * L * q);
  std::fill(direct_T, direct_T + L * d * L * q, Real{0});
  for (Index j = 0; j < L; ++j)
    for (Index i = 0; i < d; ++i) {
      Real* row = direct_T + (j * d + i) * L * q;
      for (Index k = j; k < L; ++k)
        for (Index m = 0; m < q; ++m) row[k * q + m] = lift_.markov[m * L * inputs + (k - j) * inputs + i];
      if (params.W_qx != nullptr)
        for (Index m = 0; m < q; ++m) row[j * q + m] += static_cast<Real>(params.W_qx[m * d + i]);
    }
  // Bands of a panel or more: narrower ones would waste the vectors they save on.
  Index bands = std::min<Index>(L, 4);
  while (bands > 1 && L * q / bands < kernels::table().of<Scalar>().panel_columns) bands /= 2;
  for (Index band = 0; band < bands; ++band) {
    const Index first = band * L / bands, end = (band + 1) * L / bands;
    const MatrixView<const Real> part{direct_T + first * q, end * d, (end - first) * q, L * q};
    DirectBand<Scalar> result{first * q, part.columns, part.rows, pack<Scalar>(workspace_, part), {}};
    if (input_gradient) result.straight = pack<Scalar>(workspace_, part.transposed());
    model_.direct.push_back(result);
  }
  if (input_gradient) model_.Ctrl = pack<Scalar>(workspace_, Ctrl_T.transposed());

  // A bias is a constant input: its effects over the steps of a chunk add up.
  if (bias_) {
    auto* bias_s = workspace_.take<Scalar>(h);
    for (Index n = 0; n < h; ++n) {
      double sum = 0;
      for (Index k = 0; k < L; ++k) sum += lift_.inputs_by_lag[(k * inputs + d) * h + n];
      bias_s[n] = static_cast<Scalar>(sum);
    }
    model_.bias_s = bias_s;
  }
  if (bias_ || params.b_q != nullptr) {
    auto* bias_o = workspace_.take<Scalar>(L * q);
    for (Index m = 0; m < q; ++m) {
      double sum = params.b_q != nullptr ? static_cast<double>(params.b_q[m]) : 0;
      for (Index k = 0; k < L; ++k) {
        if (bias_) sum += lift_.markov[m * L * inputs + k * inputs + d];
        bias_o[k * q + m] = static_cast<Scalar>(sum);
      }
    }
    model_.bias_o = bias_o;
  }
}

template <typename Scalar, typename Real>
Index Coarsening<Scalar, Real>::sums_size() const {
  const Index all = model_.h * model_.h + model_.inputs * model_.h + model_.outputs * model_.h +
                    model_.outputs * model_.inputs;
  return (all + 15) / 16 * 16;
}

template <typename Scalar, typename Real>
CoarseGradients<Scalar> Coarsening<Scalar, Real>::sums(const Params<Scalar>& wanted, Scalar* memory,
                                                       double* biases) const {
  CoarseGradients<Scalar> result;
  const auto part = [&](bool want, Index count) {
    Scalar* start = memory;
    memory += count;
    return want ? start : nullptr;
  };
  // Through the powers of a lift every sum reaches W_hh.
  const bool all =
      model_.lifted && (wanted.W_hx || wanted.W_hh || wanted.W_qh || wanted.b_h || wanted.b_q || wanted.W_qx);
  result.A = part(all || wanted.W_hh, model_.h * model_.h);
  result.Ctrl_T = part(all || wanted.W_hx, model_.inputs * model_.h);
  result.Obs = part(all || wanted.W_qh, model_.outputs * model_.h);
  result.Direct = part(all || wanted.W_qx, model_.outputs * model_.inputs);
  if ((all && bias_) || wanted.b_h) result.bias_s = biases;
  if ((all && bias_) || wanted.b_q) result.bias_o = biases + model_.h;
  return result;
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::collect(Run& run, const CoarseGradients<Scalar>& sums,
                                       const Params<Scalar>& gradients) {
  if (model_.lifted) return collect_lifted(run, sums, gradients);
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const auto copy = [](Index n, const Scalar* from, Scalar* to) {
    if (to != nullptr) std::copy(from, from + n, to);
  };
  copy(h * h, sums.A, gradients.W_hh);
  copy(q * h, sums.Obs, gradients.W_qh);
  store(h, sums.bias_s, gradients.b_h);
  store(q, sums.bias_o, gradients.b_q);
  copy(q * d, sums.Direct, gradients.W_qx);
  if (gradients.W_hx != nullptr)
    for (Index i = 0; i < d; ++i)
      for (Index j = 0; j < h; ++j) gradients.W_hx[j * d + i] = sums.Ctrl_T[i * h + j];
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::collect_lifted(Run& run, const CoarseGradients<Scalar>& sums,
                                              const Params<Scalar>& gradients) {
  if (sums.A == nullptr) return;
  const Index d = shape_.d, h = shape_.h, q = shape_.q, L = lift_.steps, inputs = lift_.inputs;
  LiftGradients<Real> blocks{workspace_.take<Real>(h * h), workspace_.take<Real>(L * inputs * h),
                             workspace_.take<Real>(L * q * h), workspace_.take<Real>(q * L * inputs)};
  std::copy(sums.A, sums.A + h * h, blocks.power);
  std::copy(sums.Obs, sums.Obs + L * q * h, blocks.outputs_by_step);
  for (Index j = 0; j < L; ++j) {
    Real* lag = blocks.inputs_by_lag + (L - 1 - j) * inputs * h;
    std::copy(sums.Ctrl_T + j * d * h, sums.Ctrl_T + (j + 1) * d * h, lag);
    if (bias_) store(h, sums.bias_s, lag + d * h);
  }
  for (Index m = 0; m < q; ++m) {
    Real* row = blocks.markov + m * L * inputs;
    std::fill(row, row + L * inputs, Real{0});
    for (Index k = 0; k < L; ++k)
      for (Index j = 0; j <= k; ++j)
        for (Index i = 0; i < d; ++i)
          row[(k - j) * inputs + i] += static_cast<Real>(sums.Direct[(k * q + m) * L * d + j * d + i]);
    if (gradients.W_qx != nullptr)
      for (Index i = 0; i < d; ++i) gradients.W_qx[m * d + i] = static_cast<Scalar>(row[i]);
    if (bias_) {
      double sum = 0;  // the bias acts at lag k on every output from step k on
      for (Index k = L - 1; k >= 0; --k) {
        sum += sums.bias_o[k * q + m];
        row[k * inputs + d] = static_cast<Real>(sum);
      }
    }
    if (gradients.b_q != nullptr) {
      double sum = 0;
      for (Index k = 0; k < L; ++k) sum += sums.bias_o[k * q + m];
      gradients.b_q[m] = static_cast<Scalar>(sum);
    }
  }
  auto* d_W = workspace_.take<Real>(h * h);
  auto* d_B_columns = workspace_.take<Real>(inputs * h);
  auto* d_C = workspace_.take<Real>(q * h);
  pull_back<Real>(run, workspace_, lift_, blocks, d_W, d_B_columns, d_C);
  store(h * h, d_W, gradients.W_hh);
  store(q * h, d_C, gradients.W_qh);
  if (gradients.W_hx != nullptr) store_transposed(d, h, d_B_columns, gradients.W_hx);
  if (bias_) store(h, d_B_columns + d * h, gradients.b_h);
}

template class Coarsening<float, float>;
template class Coarsening<float, double>;
template class Coarsening<double, double>;

}  // namespace rnnbptt
