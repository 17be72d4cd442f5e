#include "core/lift.hpp"

#include <algorithm>
#include <utility>

namespace rnnbptt {
namespace {

template <typename Real>
const Real* transpose(Workspace& workspace, Index rows, Index columns, const Real* A) {
  auto* result = workspace.take<Real>(rows * columns);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) result[j * rows + i] = A[i * columns + j];
  return result;
}

}  // namespace

template <typename Real>
Lift<Real> lift(Run& run, Workspace& workspace, Index h, Index inputs, Index q,
                std::vector<const Real*> powers, const Real* B_columns, const Real* C) {
  const auto doublings = powers.size() - 1;
  Lift<Real> result{h, inputs, q, 1, std::move(powers), {}, nullptr, nullptr, nullptr, C};
  const Real* W = result.powers.front();
  auto* by_lag = workspace.take<Real>((Index{1} << doublings) * inputs * h);
  auto* by_step = workspace.take<Real>((Index{1} << doublings) * q * h);

  std::copy(B_columns, B_columns + inputs * h, by_lag);
  multiply_strided<Real>(run, workspace, {C, q, h, h}, {W, h, h, h}, nullptr, by_step);
  for (std::size_t level = 0; level < doublings; ++level) {
    const Real* P = result.powers[level];
    const Real* P_T = transpose(workspace, h, h, P);
    result.transposed.push_back(P_T);
    const Index k = result.steps;
    // Rows of by_lag are columns of W^k B: the product with P from the left is one with P^T from the right.
    multiply_strided<Real>(run, workspace, {by_lag, k * inputs, h, h}, {P_T, h, h, h}, nullptr,
                           by_lag + k * inputs * h);
    multiply_strided<Real>(run, workspace, {by_step, k * q, h, h}, {P, h, h, h}, nullptr,
                           by_step + k * q * h);
    result.steps *= 2;
  }
  auto* markov = workspace.take<Real>(q * result.steps * inputs);
  multiply_strided<Real>(run, workspace, {C, q, h, h}, {by_lag, h, result.steps * inputs, 1, h}, nullptr,
                         markov);
  result.inputs_by_lag = by_lag;
  result.outputs_by_step = by_step;
  result.markov = markov;
  return result;
}

template <typename Real>
void pull_back(Run& run, Workspace& workspace, const Lift<Real>& lift, const LiftGradients<Real>& d,
               Real* d_W, Real* d_B_columns, Real* d_C) {
  const Index h = lift.h, inputs = lift.inputs, q = lift.q;
  const Index lags = lift.steps * inputs;
  // markov = C by_lag^T
  multiply_strided<Real>(run, workspace, {d.markov, q, lags, lags}, {lift.inputs_by_lag, lags, h, h}, nullptr,
                         d_C);
  multiply_strided<Real>(run, workspace, {d.markov, lags, q, 1, lags}, {lift.C, q, h, h}, d.inputs_by_lag,
                         d.inputs_by_lag);

  Real* d_P = d.power;  // gradient of P^2, then of P
  Index k = lift.steps;
  for (Index level = static_cast<Index>(lift.powers.size()) - 2; level >= 0; --level) {
    const Real* P = lift.powers[static_cast<std::size_t>(level)];
    const Real* P_T = lift.transposed[static_cast<std::size_t>(level)];
    k /= 2;
    Real* d_lag_low = d.inputs_by_lag;
    Real* d_lag_high = d.inputs_by_lag + k * inputs * h;
    Real* d_step_low = d.outputs_by_step;
    Real* d_step_high = d.outputs_by_step + k * q * h;
    auto* sum = workspace.take<Real>(h * h);
    // P^2: d_P = d_{P^2} P^T + P^T d_{P^2};  high = P low (columns): d_P += d_high low^T;
    // high = low P (rows): d_P += low^T d_high.
    multiply_strided<Real>(run, workspace, {d_P, h, h, h}, {P_T, h, h, h}, nullptr, sum);
    multiply_strided<Real>(run, workspace, {P, h, h, 1, h}, {d_P, h, h, h}, sum, sum);
    multiply_strided<Real>(run, workspace, {d_lag_high, h, k * inputs, 1, h},
                           {lift.inputs_by_lag, k * inputs, h, h}, sum, sum);
    multiply_strided<Real>(run, workspace, {lift.outputs_by_step, h, k * q, 1, h}, {d_step_high, k * q, h, h},
                           sum, sum);
    multiply_strided<Real>(run, workspace, {d_lag_high, k * inputs, h, h}, {P, h, h, h}, d_lag_low,
                           d_lag_low);
    multiply_strided<Real>(run, workspace, {d_step_high, k * q, h, h}, {P_T, h, h, h}, d_step_low,
                           d_step_low);
    d_P = sum;
  }
  // The first output row block is C W.
  multiply_strided<Real>(run, workspace, {lift.C, h, q, 1, h}, {d.outputs_by_step, q, h, h}, d_P, d_W);
  multiply_strided<Real>(run, workspace, {d.outputs_by_step, q, h, h}, {lift.transposed.front(), h, h, h},
                         d_C, d_C);
  std::copy(d.inputs_by_lag, d.inputs_by_lag + inputs * h, d_B_columns);
}

template Lift<float> lift(Run&, Workspace&, Index, Index, Index, std::vector<const float*>, const float*,
                          const float*);
template Lift<double> lift(Run&, Workspace&, Index, Index, Index, std::vector<const double*>, const double*,
                           const double*);
template void pull_back(Run&, Workspace&, const Lift<float>&, const LiftGradients<float>&, float*, float*,
                        float*);
template void pull_back(Run&, Workspace&, const Lift<double>&, const LiftGradients<double>&, double*, double*,
                        double*);

}  // namespace rnnbptt
