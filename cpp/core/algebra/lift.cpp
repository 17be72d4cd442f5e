#include "core/algebra/lift.hpp"

#include <algorithm>
#include <utility>

namespace rnnbptt {
namespace {

// A matrix; for a model of states and tangents a matrix of dual numbers, a value and a tangent of the same
// strides, with products (a + a' e) (b + b' e) = a b + (a b' + a' b) e.
//
// Gradients of dual matrices are kept the other way round, that with respect to the tangent as the value:
// then c = a b has the gradients d_a = d_c b^T and d_b = a^T d_c, as it has without tangents.
template <typename Real>
struct Dual {
  MatrixView<Real> value;
  Real* tangent = nullptr;

  Dual transposed() const { return {value.transposed(), tangent}; }
  operator Dual<const Real>() const {
    return {{value.data, value.rows, value.columns, value.row, value.column}, tangent};
  }
};

// The matrices of a lift, and their products. Where W = [[M, 0], [U, M]] with M and U of size m, rows of h =
// 2 m hold a value in one half and its tangent in the other.
template <typename Real>
class Products {
 public:
  using In = Dual<const Real>;
  using Out = Dual<Real>;

  Products(Run& run, Workspace& workspace, Square form)
      : run_(run),
        workspace_(workspace),
        tangent_(form.tangent),
        h_(form.size),
        m_(form.tangent ? form.size / 2 : form.size) {}

  In power(const Real* P) const { return dual(P, m_, m_ * h_ + m_, m_ * h_); }
  In transposed_power(const Real* P_T) const { return dual(P_T, m_, 0, m_); }
  Out power_gradient(Real* d_P) const { return dual(d_P, m_, m_ * h_, 0); }

  // Columns of W^k B as rows [b | b'].
  template <typename T>
  Dual<T> by_lag(T* rows, Index count) const {
    return dual(rows, count, 0, m_);
  }
  Out by_lag_gradient(Real* rows, Index count) const { return dual(rows, count, m_, 0); }

  // Rows [c' | c] of C W^k.
  template <typename T>
  Dual<T> by_step(T* rows, Index count) const {
    return dual(rows, count, m_, 0);
  }
  Out by_step_gradient(Real* rows, Index count) const { return dual(rows, count, 0, m_); }

  Out C_gradient(Real* d_C, Index count) const { return dual(d_C, count, count * h_, 0); }

  // `count` rows of outputs, then as many of their tangents.
  Out markov(Real* rows, Index count, Index lags) const {
    return {{rows, count, lags, lags}, tangent_ ? rows + count * lags : nullptr};
  }
  Out markov_gradient(Real* rows, Index count, Index lags) const {
    return {{tangent_ ? rows + count * lags : rows, count, lags, lags}, tangent_ ? rows : nullptr};
  }

  // Adds one gradient of a power to another.
  void add_power_gradient(const Real* from, Real* to) const {
    const auto add = [&](Index first) {
      for (Index i = 0; i < m_; ++i)
        for (Index j = 0; j < m_; ++j) to[first + i * h_ + j] += from[first + i * h_ + j];
    };
    add(0);
    if (tangent_) add(m_ * h_);
  }

  // c = a b
  void set(const Out& c, const In& a, const In& b) const { multiply(c, a, b, false); }
  // c += a b
  void add(const Out& c, const In& a, const In& b) const { multiply(c, a, b, true); }

 private:
  template <typename T>
  Dual<T> dual(T* data, Index rows, Index value, Index tangent) const {
    if (!tangent_) return {{data, rows, h_, h_}, nullptr};
    return {{data + value, rows, m_, h_}, data + tangent};
  }

  void multiply(const Out& c, const In& a, const In& b, bool add) const {
    const auto product = [&](MatrixView<const Real> left, MatrixView<const Real> right, Real* to, bool more) {
      multiply_strided<Real>(run_, workspace_, left, right, more ? to : nullptr, to, c.value.row);
    };
    product(a.value, b.value, c.value.data, add);
    if (!tangent_) return;
    MatrixView<const Real> moved_a = a.value, moved_b = b.value;
    moved_a.data = a.tangent;
    moved_b.data = b.tangent;
    product(a.value, moved_b, c.tangent, add);
    product(moved_a, b.value, c.tangent, true);
  }

  Run& run_;
  Workspace& workspace_;
  const bool tangent_;
  const Index h_, m_;
};

template <typename Real>
const Real* transpose(Workspace& workspace, Index n, const Real* A) {
  auto* result = workspace.take<Real>(n * n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j) result[j * n + i] = A[i * n + j];
  return result;
}

}  // namespace

template <typename Real>
Lift<Real> lift(Run& run, Workspace& workspace, Square form, Index inputs, Index q,
                std::vector<LiftPower<Real>> powers, const Real* B_columns, const Real* C) {
  const Products<Real> products(run, workspace, form);
  const Index h = form.size, L = powers.back().n;
  const Index rows = form.tangent ? q / 2 : q;  // of C, without tangents
  auto* by_lag = workspace.take<Real>(L * inputs * h);
  auto* outputs = workspace.take<Real>(L * q * h);
  Real* by_step = outputs + L * (q - rows) * h;
  auto* markov = workspace.take<Real>(q * L * inputs);

  const auto C_rows = products.by_step(C + (q - rows) * h, rows);
  std::copy(B_columns, B_columns + inputs * h, by_lag);
  products.set(products.by_step(by_step, rows), C_rows, products.power(powers.front().matrix));
  for (std::size_t i = 0; i + 1 < powers.size(); ++i) {
    powers[i].transposed = transpose(workspace, h, powers[i].matrix);
    const Index n = powers[i].n, more = powers[i + 1].n - n;
    // Rows of by_lag are columns of W^k B: the product with P from the left is one with P^T from the right.
    products.set(products.by_lag(by_lag + n * inputs * h, more * inputs),
                 products.by_lag(by_lag, more * inputs), products.transposed_power(powers[i].transposed));
    products.set(products.by_step(by_step + n * rows * h, more * rows),
                 products.by_step(by_step, more * rows), products.power(powers[i].matrix));
  }
  products.set(products.markov(markov, rows, L * inputs), C_rows,
               products.by_lag(by_lag, L * inputs).transposed());
  if (form.tangent)  // the rows [c | 0] of outputs, from those of their tangents
    for (Index i = 0; i < L * rows; ++i) {
      std::copy(by_step + i * h + h / 2, by_step + (i + 1) * h, outputs + i * h);
      std::fill(outputs + i * h + h / 2, outputs + (i + 1) * h, Real{0});
    }
  return {form, inputs, q, L, std::move(powers), by_lag, outputs, markov, C};
}

template <typename Real>
void pull_back(Run& run, Workspace& workspace, const Lift<Real>& lift, const LiftGradients<Real>& d,
               Real* d_W, Real* d_B_columns, Real* d_C) {
  const Products<Real> products(run, workspace, lift.form);
  const Index h = lift.form.size, inputs = lift.inputs, lags = lift.steps * inputs;
  const Index q = lift.form.tangent ? lift.q / 2 : lift.q;
  const auto C_rows = products.by_step(lift.C + (lift.q - q) * h, q);
  const Real* rows_by_step = lift.outputs_by_step + lift.steps * (lift.q - q) * h;
  Real* d_by_lag = d.inputs_by_lag;
  Real* d_by_step = d.outputs_by_step;
  if (lift.form.tangent) {
    // M and the rows of C stand twice: gradients of both places add up.
    d_by_step += lift.steps * q * h;
    for (Index i = 0; i < lift.steps * q; ++i)
      for (Index j = 0; j < h / 2; ++j) d_by_step[i * h + h / 2 + j] += d.outputs_by_step[i * h + j];
    for (Index i = 0; i < h / 2; ++i)
      for (Index j = 0; j < h / 2; ++j) d.power[i * h + j] += d.power[(h / 2 + i) * h + h / 2 + j];
    std::fill(d_C, d_C + lift.q * h, Real{0});
  }
  std::fill(d_W, d_W + h * h, Real{0});

  // markov = C by_lag^T
  const auto d_markov = products.markov_gradient(d.markov, q, lags);
  const auto C_gradient = products.C_gradient(d_C, q);
  products.set(C_gradient, d_markov, products.by_lag(lift.inputs_by_lag, lags));
  products.add(products.by_lag_gradient(d_by_lag, lags), d_markov.transposed(), C_rows);

  Real* d_P = d.power;     // gradient of the next power, then of this one
  Real* d_more = nullptr;  // of W where it was multiplied by to add a step
  const auto& W = lift.powers.front();
  for (auto i = static_cast<Index>(lift.powers.size()) - 2; i >= 0; --i) {
    const LiftPower<Real>& P = lift.powers[static_cast<std::size_t>(i)];
    const Index more = lift.powers[static_cast<std::size_t>(i) + 1].n - P.n;
    const bool doubled = more == P.n;
    const auto power = products.power(P.matrix), power_T = products.transposed_power(P.transposed);
    const auto lag_high = products.by_lag_gradient(d_by_lag + P.n * inputs * h, more * inputs);
    const auto step_high = products.by_step_gradient(d_by_step + P.n * q * h, more * q);
    const auto next = products.power_gradient(d_P);
    auto* sum = workspace.take<Real>(h * h);
    const auto d_power = products.power_gradient(sum);
    // P^2: d_P = d_{P^2} P^T + P^T d_{P^2}; P W likewise. high = P low (columns): d_P += d_high low^T;
    // high = low P (rows): d_P += low^T d_high.
    products.set(d_power, next, doubled ? power_T : products.transposed_power(W.transposed));
    if (doubled) {
      products.add(d_power, power.transposed(), next);
    } else {
      const bool first = d_more == nullptr;
      if (first) d_more = workspace.take<Real>(h * h);
      const auto d_factor = products.power_gradient(d_more);
      first ? products.set(d_factor, power.transposed(), next)
            : products.add(d_factor, power.transposed(), next);
    }
    products.add(d_power, lag_high.transposed(), products.by_lag(lift.inputs_by_lag, more * inputs));
    const auto step_low = products.by_step(rows_by_step, more * q);
    products.add(d_power, step_low.transposed(), step_high);
    products.add(products.by_lag_gradient(d_by_lag, more * inputs), lag_high, power);
    products.add(products.by_step_gradient(d_by_step, more * q), step_high, power_T);
    d_P = sum;
  }
  // The first q rows by step are C W.
  const auto W_gradient = products.power_gradient(d_P);
  const auto first_rows = products.by_step_gradient(d_by_step, q);
  products.add(W_gradient, C_rows.transposed(), first_rows);
  products.add(C_gradient, first_rows, products.transposed_power(W.transposed));
  for (const Real* part : {static_cast<const Real*>(d_P), static_cast<const Real*>(d_more)})
    if (part != nullptr) products.add_power_gradient(part, d_W);
  std::copy(d_by_lag, d_by_lag + inputs * h, d_B_columns);
}

template Lift<float> lift(Run&, Workspace&, Square, Index, Index, std::vector<LiftPower<float>>, const float*,
                          const float*);
template Lift<double> lift(Run&, Workspace&, Square, Index, Index, std::vector<LiftPower<double>>,
                           const double*, const double*);
template void pull_back(Run&, Workspace&, const Lift<float>&, const LiftGradients<float>&, float*, float*,
                        float*);
template void pull_back(Run&, Workspace&, const Lift<double>&, const LiftGradients<double>&, double*, double*,
                        double*);

}  // namespace rnnbptt
