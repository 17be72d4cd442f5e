#include "core/lift.hpp"

#include <algorithm>

namespace rnnbptt {
namespace {

const double* transpose(Workspace& workspace, Index rows, Index columns, const double* A) {
  auto* result = workspace.take<double>(rows * columns);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) result[j * rows + i] = A[i * columns + j];
  return result;
}

}  // namespace

Lift lift(Run& run, Workspace& workspace, Index h, Index inputs, Index q, int levels, const double* W,
          const double* B_columns, const double* C, bool exact) {
  Lift result{h,  inputs,  q,       1,       repeated_squares(run, workspace, h, W, levels, exact),
              {}, nullptr, nullptr, nullptr, C};
  const auto doublings = result.powers.size() - 1;
  auto* by_lag = workspace.take<double>((Index{1} << doublings) * inputs * h);
  auto* by_step = workspace.take<double>((Index{1} << doublings) * q * h);

  std::copy(B_columns, B_columns + inputs * h, by_lag);
  multiply_wide(run, workspace, {C, q, h, h}, {W, h, h, h}, nullptr, by_step);
  for (std::size_t level = 0; level < doublings; ++level) {
    const double* P = result.powers[level];
    const double* P_T = transpose(workspace, h, h, P);
    result.transposed.push_back(P_T);
    const Index k = result.steps;
    // Rows of by_lag are columns of W^k B: the product with P from the left is one with P^T from the right.
    multiply_wide(run, workspace, {by_lag, k * inputs, h, h}, {P_T, h, h, h}, nullptr,
                  by_lag + k * inputs * h);
    multiply_wide(run, workspace, {by_step, k * q, h, h}, {P, h, h, h}, nullptr, by_step + k * q * h);
    result.steps *= 2;
  }
  auto* markov = workspace.take<double>(q * result.steps * inputs);
  multiply_wide(run, workspace, {C, q, h, h}, {by_lag, h, result.steps * inputs, 1, h}, nullptr, markov);
  result.inputs_by_lag = by_lag;
  result.outputs_by_step = by_step;
  result.markov = markov;
  return result;
}

void pull_back(Run& run, Workspace& workspace, const Lift& lift, const LiftGradients& d, double* d_W,
               double* d_B_columns, double* d_C) {
  const Index h = lift.h, inputs = lift.inputs, q = lift.q;
  const Index lags = lift.steps * inputs;
  // markov = C by_lag^T
  multiply_wide(run, workspace, {d.markov, q, lags, lags}, {lift.inputs_by_lag, lags, h, h}, nullptr, d_C);
  multiply_wide(run, workspace, {d.markov, lags, q, 1, lags}, {lift.C, q, h, h}, d.inputs_by_lag,
                d.inputs_by_lag);

  double* d_P = d.power;  // gradient of P^2, then of P
  Index k = lift.steps;
  for (Index level = static_cast<Index>(lift.powers.size()) - 2; level >= 0; --level) {
    const double* P = lift.powers[static_cast<std::size_t>(level)];
    const double* P_T = lift.transposed[static_cast<std::size_t>(level)];
    k /= 2;
    double* d_lag_low = d.inputs_by_lag;
    double* d_lag_high = d.inputs_by_lag + k * inputs * h;
    double* d_step_low = d.outputs_by_step;
    double* d_step_high = d.outputs_by_step + k * q * h;
    auto* sum = workspace.take<double>(h * h);
    // P^2: d_P = d_{P^2} P^T + P^T d_{P^2};  high = P low (columns): d_P += d_high low^T;
    // high = low P (rows): d_P += low^T d_high.
    multiply_wide(run, workspace, {d_P, h, h, h}, {P_T, h, h, h}, nullptr, sum);
    multiply_wide(run, workspace, {P, h, h, 1, h}, {d_P, h, h, h}, sum, sum);
    multiply_wide(run, workspace, {d_lag_high, h, k * inputs, 1, h}, {lift.inputs_by_lag, k * inputs, h, h},
                  sum, sum);
    multiply_wide(run, workspace, {lift.outputs_by_step, h, k * q, 1, h}, {d_step_high, k * q, h, h}, sum,
                  sum);
    multiply_wide(run, workspace, {d_lag_high, k * inputs, h, h}, {P, h, h, h}, d_lag_low, d_lag_low);
    multiply_wide(run, workspace, {d_step_high, k * q, h, h}, {P_T, h, h, h}, d_step_low, d_step_low);
    d_P = sum;
  }
  // The first output row block is C W.
  multiply_wide(run, workspace, {lift.C, h, q, 1, h}, {d.outputs_by_step, q, h, h}, d_P, d_W);
  multiply_wide(run, workspace, {d.outputs_by_step, q, h, h}, {lift.transposed.front(), h, h, h}, d_C, d_C);
  std::copy(d.inputs_by_lag, d.inputs_by_lag + inputs * h, d_B_columns);
}

}  // namespace rnnbptt
