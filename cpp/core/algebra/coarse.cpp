#include "core/algebra/coarse.hpp"

#include <algorithm>
#include <utility>

namespace rnnbptt {
namespace {

template <typename Scalar, typename Source>
void store(Index n, const Source* from, Scalar* to) {
  if (to != nullptr) std::transform(from, from + n, to, [](Source v) { return static_cast<Scalar>(v); });
}

template <typename Scalar, typename Source>
void store_transposed(Index rows, Index columns, const Source* A, Scalar* A_T) {
  if (A_T == nullptr) return;
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) A_T[j * rows + i] = static_cast<Scalar>(A[i * columns + j]);
}

template <typename Scalar, typename Source>
Band<Scalar> band_of(Workspace& workspace, MatrixView<const Source> B, Index row, Index column, Index rows,
                     Index columns) {
  return {row, column, pack<Scalar>(workspace, B.submatrix(row, column, rows, columns))};
}

// Columns of a band at least: narrower ones would leave vectors half empty.
template <typename Scalar>
Index narrowest_band() {
  return kernels::table().of<Scalar>().panel_columns;
}

}  // namespace

template <typename Scalar, typename Real>
Coarsening<Scalar, Real>::Coarsening(Run& run, Workspace& workspace, const Shape& shape,
                                     const Params<const Scalar>& params, const std::vector<Power>& powers,
                                     bool input_gradient, bool tangent)
    : workspace_(workspace), shape_(shape), bias_(params.b_h != nullptr) {
  model_.parts = tangent ? 2 : 1;
  model_.part = tangent ? shape.h / 2 : shape.h;
  model_.h = shape.h;
  if (powers.size() > 1)
    build_lifted(run, params, powers, input_gradient);
  else if constexpr (std::same_as<Scalar, Real>)
    build_plain(params, input_gradient);
}

template <typename Scalar, typename Real>
template <std::same_as<Real> Plain>
void Coarsening<Scalar, Real>::build_plain(const Params<const Plain>& params, bool input_gradient) {
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const MatrixView<const Scalar> W_hx{params.W_hx, h, d, d}, W_hh{params.W_hh, h, h, h},
      W_qh{params.W_qh, q, h, h}, W_qx{params.W_qx, q, d, d};
  model_.L = 1;
  model_.inputs = d;
  model_.outputs = q;
  set_recurrence(W_hh);
  set_observations(W_qh);
  model_.Ctrl_T = pack<Scalar>(workspace_, W_hx.transposed());
  if (input_gradient) model_.Ctrl = pack<Scalar>(workspace_, W_hx);
  if (params.W_qx != nullptr) {
    model_.Direct_T.push_back({0, 0, pack<Scalar>(workspace_, W_qx.transposed())});
    if (input_gradient) model_.Direct.push_back({0, 0, pack<Scalar>(workspace_, W_qx)});
  }
  model_.bias_s = params.b_h;
  model_.bias_o = params.b_q;
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::set_recurrence(MatrixView<const Real> A) {
  const Index part = model_.part;
  model_.A_view = A.submatrix(0, 0, part, part);
  model_.A = pack<Real>(workspace_, model_.A_view);
  model_.A_T = pack<Real>(workspace_, model_.A_view.transposed());
  if (model_.parts == 1) return;
  const MatrixView<const Real> U = A.submatrix(part, 0, part, part);
  model_.U = pack<Real>(workspace_, U);
  model_.U_T = pack<Real>(workspace_, U.transposed());
}

template <typename Scalar, typename Real>
template <typename Source>
void Coarsening<Scalar, Real>::set_observations(MatrixView<const Source> Obs) {
  const Index h = model_.h, outputs = model_.outputs, s = model_.part, o = outputs / 2;
  const bool tangent = model_.parts == 2;
  const auto Obs_T = Obs.transposed();
  if (tangent && s >= narrowest_band<Scalar>() / 2)
    model_.Obs = {band_of<Scalar>(workspace_, Obs, 0, 0, outputs, s),
                  band_of<Scalar>(workspace_, Obs, o, s, o, s)};
  else
    model_.Obs[0].packed = pack<Scalar>(workspace_, Obs);
  if (tangent && o >= narrowest_band<Scalar>() / 2)
    model_.Obs_T = {band_of<Scalar>(workspace_, Obs_T, 0, 0, s, o),
                    band_of<Scalar>(workspace_, Obs_T, 0, o, h, o)};
  else
    model_.Obs_T[0].packed = pack<Scalar>(workspace_, Obs_T);
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::build_lifted(Run& run, const Params<const Scalar>& params,
                                            const std::vector<Power>& powers, bool input_gradient) {
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const Index inputs = d + (bias_ ? 1 : 0);
  auto* B_columns = workspace_.take<Real>(inputs * h);
  for (Index i = 0; i < h; ++i)
    for (Index j = 0; j < d; ++j) B_columns[j * h + i] = static_cast<Real>(params.W_hx[i * d + j]);
  if (bias_) std::copy(params.b_h, params.b_h + h, B_columns + d * h);
  std::vector<LiftPower<Real>> lifted;
  for (const Power& power : powers)
    if constexpr (sizeof(Real) == sizeof(double))
      lifted.push_back({power.n, power.matrix});
    else
      lifted.push_back({power.n, copy_as<Real>(workspace_, power.matrix, h * h)});
  lift_ = lift<Real>(run, workspace_, {h, model_.parts > 1}, inputs, q, std::move(lifted), B_columns,
                     copy_as<Real>(workspace_, params.W_qh, q * h));
  const Index L = lift_.steps;
  for (Index i = 0; i < inputs * h; ++i)
    model_.square_Ctrl += static_cast<double>(B_columns[i]) * static_cast<double>(B_columns[i]);
  for (Index i = 0; i < q * h; ++i)
    model_.square_Obs += static_cast<double>(params.W_qh[i]) * static_cast<double>(params.W_qh[i]);
  model_.L = L;
  model_.lifted = true;
  model_.inputs = L * d;
  model_.outputs = L * q;

  set_recurrence({lift_.powers.back().matrix, h, h, h});

  // Ctrl^T: input i of step j acts through lag L - 1 - j.
  auto* ctrl_T = workspace_.take<Real>(L * d * h);
  for (Index j = 0; j < L; ++j) {
    const Real* lag = lift_.inputs_by_lag + (L - 1 - j) * inputs * h;
    std::copy(lag, lag + d * h, ctrl_T + j * d * h);
  }
  const MatrixView<const Real> Ctrl_T{ctrl_T, L * d, h, h};
  model_.Ctrl_T = pack<Scalar>(workspace_, Ctrl_T);
  if (input_gradient) model_.Ctrl = pack<Scalar>(workspace_, Ctrl_T.transposed());

  set_observations(MatrixView<const Real>{lift_.outputs_by_step, L * q, h, h});
  build_direct(params.W_qx, input_gradient);

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
        bias_o[model_.output(k, m)] = static_cast<Scalar>(sum);
      }
    }
    model_.bias_o = bias_o;
  }
}

// Direct^T: input i of step j on output m of step k >= j through Markov parameter k - j, and W_qx at k = j.
// Later inputs do not reach an output: a band of the outputs of some consecutive steps ends with the inputs
// of the last of them.
template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::build_direct(const Scalar* W_qx, bool input_gradient) {
  const Index d = shape_.d, L = lift_.steps, inputs = lift_.inputs, outputs = model_.outputs;
  const Index parts = model_.parts, q = shape_.q / parts;
  auto* direct_T = workspace_.take<Real>(L * d * outputs);
  std::fill(direct_T, direct_T + L * d * outputs, Real{0});
  for (Index j = 0; j < L; ++j)
    for (Index i = 0; i < d; ++i)
      for (Index part = 0; part < parts; ++part) {
        Real* row = direct_T + (j * d + i) * outputs + part * L * q;
        const Real* markov = lift_.markov + part * q * L * inputs + i;
        for (Index k = j; k < L; ++k)
          for (Index m = 0; m < q; ++m) row[k * q + m] = markov[m * L * inputs + (k - j) * inputs];
        if (W_qx == nullptr) continue;
        for (Index m = 0; m < q; ++m) row[j * q + m] += static_cast<Real>(W_qx[(part * q + m) * d + i]);
      }
  const MatrixView<const Real> Direct_T{direct_T, L * d, outputs, outputs};
  const auto add = [&](Index column, Index rows, Index columns) {
    model_.Direct_T.push_back(band_of<Scalar>(workspace_, Direct_T, 0, column, rows, columns));
    if (input_gradient)
      model_.Direct.push_back(band_of<Scalar>(workspace_, Direct_T.transposed(), column, 0, columns, rows));
  };
  Index bands = std::min<Index>(L, 4);
  while (bands > 1 && L * q / bands < narrowest_band<Scalar>()) bands /= 2;
  if (bands == 1) return add(0, L * d, outputs);
  for (Index part = 0; part < parts; ++part)
    for (Index band = 0; band < bands; ++band) {
      const Index first = band * L / bands, end = (band + 1) * L / bands;
      add((part * L + first) * q, end * d, (end - first) * q);
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
void Coarsening<Scalar, Real>::to_parameter_gradients(Run& run, const CoarseGradients<Scalar>& sums,
                                                      const Params<Scalar>& gradients) {
  if (model_.lifted) return pull_back_lifted(run, sums, gradients);
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  store(h * h, sums.A, gradients.W_hh);
  store(q * h, sums.Obs, gradients.W_qh);
  store(h, sums.bias_s, gradients.b_h);
  store(q, sums.bias_o, gradients.b_q);
  store(q * d, sums.Direct, gradients.W_qx);
  store_transposed(d, h, sums.Ctrl_T, gradients.W_hx);
}

template <typename Scalar, typename Real>
Index Coarsening<Scalar, Real>::telling_sums() const {
  const Index direct = model_.outputs * model_.inputs;  // of a plain model a gradient as they are
  return model_.h * (model_.h + model_.inputs + model_.outputs) + (model_.lifted ? 0 : direct);
}

template <typename Scalar, typename Real>
bool Coarsening<Scalar, Real>::finite(const Params<Scalar>& gradients) const {
  const Index d = shape_.d, h = shape_.h, q = shape_.q;
  const auto fine = [](const Scalar* gradient, Index n) {
    return gradient == nullptr || all_finite(n, gradient);
  };
  // Biases are summed in float64 and may leave float32 in the end.
  if (!fine(gradients.b_h, h) || !fine(gradients.b_q, q)) return false;
  return !model_.lifted || (fine(gradients.W_hx, h * d) && fine(gradients.W_hh, h * h) &&
                            fine(gradients.W_qh, q * h) && fine(gradients.W_qx, q * d));
}

template <typename Scalar, typename Real>
void Coarsening<Scalar, Real>::pull_back_lifted(Run& run, const CoarseGradients<Scalar>& sums,
                                                const Params<Scalar>& gradients) {
  if (sums.A == nullptr) return;
  const Index d = shape_.d, h = shape_.h, q = shape_.q, L = lift_.steps, inputs = lift_.inputs;
  LiftGradients<Real> d_lift{workspace_.take<Real>(h * h), workspace_.take<Real>(L * inputs * h),
                             workspace_.take<Real>(L * q * h), workspace_.take<Real>(q * L * inputs)};
  std::copy(sums.A, sums.A + h * h, d_lift.power);
  std::copy(sums.Obs, sums.Obs + L * q * h, d_lift.outputs_by_step);
  for (Index j = 0; j < L; ++j) {
    Real* lag = d_lift.inputs_by_lag + (L - 1 - j) * inputs * h;
    std::copy(sums.Ctrl_T + j * d * h, sums.Ctrl_T + (j + 1) * d * h, lag);
    if (bias_) store(h, sums.bias_s, lag + d * h);
  }
  for (Index m = 0; m < q; ++m) {
    Real* row = d_lift.markov + m * L * inputs;
    std::fill(row, row + L * inputs, Real{0});
    for (Index k = 0; k < L; ++k) {
      const Scalar* direct = sums.Direct + model_.output(k, m) * L * d;
      for (Index j = 0; j <= k; ++j)
        for (Index i = 0; i < d; ++i) row[(k - j) * inputs + i] += static_cast<Real>(direct[j * d + i]);
    }
    if (gradients.W_qx != nullptr)
      for (Index i = 0; i < d; ++i) gradients.W_qx[m * d + i] = static_cast<Scalar>(row[i]);
    if (bias_) {
      double sum = 0;  // the bias acts at lag k on every output from step k on
      for (Index k = L - 1; k >= 0; --k) {
        sum += sums.bias_o[model_.output(k, m)];
        row[k * inputs + d] = static_cast<Real>(sum);
      }
    }
    if (gradients.b_q != nullptr) {
      double sum = 0;
      for (Index k = 0; k < L; ++k) sum += sums.bias_o[model_.output(k, m)];
      gradients.b_q[m] = static_cast<Scalar>(sum);
    }
  }
  auto* d_W = workspace_.take<Real>(h * h);
  auto* d_B_columns = workspace_.take<Real>(inputs * h);
  auto* d_C = workspace_.take<Real>(q * h);
  pull_back<Real>(run, workspace_, lift_, d_lift, d_W, d_B_columns, d_C);
  store(h * h, d_W, gradients.W_hh);
  store(q * h, d_C, gradients.W_qh);
  store_transposed(d, h, d_B_columns, gradients.W_hx);
  if (bias_) store(h, d_B_columns + d * h, gradients.b_h);
}

template class Coarsening<float, float>;
template class Coarsening<float, double>;
template class Coarsening<double, double>;

}  // namespace rnnbptt
