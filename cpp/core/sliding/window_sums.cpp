#include "core/sliding/window_sums.hpp"

#include <algorithm>
#include <bit>

#include "core/algebra/scan.hpp"

namespace rnnbptt {
namespace {

constexpr Index least_span = 1024;  // steps that are taken at a time, or a lag window's where that is longer

// Rows of numbers of a sequence, widened.
template <typename Scalar>
void widen(Index rows, const Scalar* from, Index step, Index n, double* to) {
  for (Index t = 0; t < rows; ++t, from += step)
    for (Index i = 0; i < n; ++i) *to++ = static_cast<double>(from[i]);
}

// Sums over the lag windows of one sequence after the other, some steps at a time.
template <typename Scalar>
class WindowSums {
 public:
  WindowSums(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<const Scalar> d_o, LagWindows& lag_windows,
             const Gradients<Scalar>& gradients)
      : run_(run),
        workspace_(workspace),
        params_(params),
        problem_(problem),
        d_o_(d_o),
        lag_windows_(lag_windows),
        gradients_(gradients),
        s_(problem.shape),
        tau_(lag_windows.tau()),
        span_(std::min(s_.T, std::max(least_span, tau_))),
        rows_(std::min(s_.T, span_ + tau_ - 1)),
        W_hx_(copy_as<double>(workspace, params.W_hx, s_.h * s_.d)),
        W_hh_(copy_as<double>(workspace, params.W_hh, s_.h * s_.h)),
        W_qh_(copy_as<double>(workspace, params.W_qh, s_.q * s_.h)),
        W_qx_(params.W_qx != nullptr ? copy_as<double>(workspace, params.W_qx, s_.q * s_.d) : nullptr),
        states_(workspace.take<Scalar>((span_ + 1) * s_.h)),
        h_(workspace.take<double>((span_ + 1) * s_.h)),
        x_(workspace.take<double>(span_ * s_.d)),
        dx_(workspace.take<double>(span_ * s_.d)),
        d_(workspace.take<double>(rows_ * s_.q)),
        e_(workspace.take<double>(rows_ * s_.h)),
        g_(workspace.take<double>(rows_ * s_.h)),
        spare_(workspace.take<double>(rows_ * s_.h)),
        by_input_(workspace.take<double>(s_.h * s_.d)),
        by_state_(workspace.take<double>(s_.h * s_.h)),
        by_bias_(workspace.take<double>(s_.h)) {
    scan_.size = s_.h;
    scan_.packed = pack<Scalar>(workspace, matrix(params.W_hh, s_.h, s_.h).transposed());
    input_ = pack<Scalar>(workspace, matrix(params.W_hx, s_.h, s_.d).transposed());
    for (int k = 0; k < digits(); ++k) lag_windows_.square(k);  // before marks, behind which it is released
  }

  void run() {
    std::fill(by_input_, by_input_ + s_.h * s_.d, 0.0);
    std::fill(by_state_, by_state_ + s_.h * s_.h, 0.0);
    std::fill(by_bias_, by_bias_ + s_.h, 0.0);
    for (Index b = 0; b < s_.B; ++b) {
      const Index length = problem_.length(b);
      for (Index first = 0; first < length; first += span_) {
        const Index n = std::min(span_, length - first);
        find_states(b, first, n);
        find_gradients(b, first, n, std::min(n + tau_ - 1, length - first));
        add_up(b, first, n);
      }
    }
    const Params<Scalar>& to = gradients_.params;
    const auto store = [](const double* from, Index n, Scalar* result) {
      if (result != nullptr)
        std::transform(from, from + n, result, [](double v) { return static_cast<Scalar>(v); });
    };
    store(by_input_, s_.h * s_.d, to.W_hx);
    store(by_state_, s_.h * s_.h, to.W_hh);
    store(by_bias_, s_.h, to.b_h);
  }

 private:
  template <typename Number>
  static MatrixView<const Number> matrix(const Number* A, Index rows, Index columns) {
    return {A, rows, columns, columns};
  }

  int digits() const { return static_cast<int>(std::bit_width(static_cast<std::size_t>(tau_))); }

  // C = init + A B of rows.
  void product(Index rows, const double* A, Index depth, const double* B, Index columns, const double* init,
               double* C) {
    const Workspace::Mark mark = workspace_.mark();
    multiply_strided<double>(run_, workspace_, matrix(A, rows, depth), matrix(B, depth, columns), init, C);
    workspace_.release_to(mark);
  }

  // The states before and at steps first .. first + n - 1, n + 1 rows.
  void find_states(Index b, Index first, Index n) {
    const Index h = s_.h;
    if (first > 0)
      std::copy(states_ + span_ * h, states_ + (span_ + 1) * h, states_);
    else if (problem_.h0 != nullptr)
      std::copy(problem_.h0 + b * h, problem_.h0 + (b + 1) * h, states_);
    else
      std::fill(states_, states_ + h, Scalar{0});
    multiply<Scalar>(n, {problem_.x.at(first, b), problem_.x.step}, input_, {params_.b_h, 0},
                     {states_ + h, h});
    scan_.base = states_ + h;
    scan_.step = h;
    scan_.starts = states_;
    scan_.lanes = {{0, n}};
    scan(run_, workspace_, scan_);
    widen(n + 1, states_, h, h, h_);
    widen(n, problem_.x.at(first, b), problem_.x.step, s_.d, x_);
  }

  // g of n steps, from the losses of `rows` steps.
  void find_gradients(Index b, Index first, Index n, Index rows) {
    const Index h = s_.h;
    widen(rows, d_o_.at(first, b), d_o_.step, s_.q, d_);
    product(rows, d_, s_.q, W_qh_, h, nullptr, e_);
    lag_windows_.powers_grow() ? sum_by_steps(n, rows) : sum_by_doubling(rows);
  }

  void sum_by_steps(Index n, Index rows) {
    const Index h = s_.h;
    Index before = 0;  // rows that have losses so far
    for (Index i = std::min(tau_, rows) - 1; i >= 0; --i) {
      const Index now = std::min(n, rows - i);
      if (before > 0) product(before, g_, h, W_hh_, h, e_ + i * h, spare_);
      std::copy(e_ + (i + before) * h, e_ + (i + now) * h, spare_ + before * h);
      std::swap(g_, spare_);
      before = now;
    }
  }

  // Sums of the last tau - 1 rows are not complete unless the sequence ends there.
  void sum_by_doubling(Index rows) {
    const Index h = s_.h;
    std::fill(g_, g_ + rows * h, 0.0);
    // to_t <- e_t + W^T^n from_{t+n} for n = 2^k; nothing follows the last rows.
    const auto put_before = [&](int k, const double* from, double*& to) {
      const Index n = std::min(Index{1} << k, rows);
      product(rows - n, from + n * h, h, lag_windows_.square(k), h, e_, spare_);
      std::copy(e_ + (rows - n) * h, e_ + rows * h, spare_ + (rows - n) * h);
      std::swap(to, spare_);
    };
    for (int k = 0; k < digits(); ++k) {
      if ((tau_ >> k & 1) != 0) put_before(k, g_, g_);
      if (tau_ >> (k + 1) != 0) put_before(k, e_, e_);
    }
  }

  void add_up(Index b, Index first, Index n) {
    const Index h = s_.h, d = s_.d;
    const Params<Scalar>& to = gradients_.params;
    if (to.W_hx != nullptr) add_outer(n, g_, h, h, x_, d, d, by_input_, d);
    if (to.W_hh != nullptr) add_outer(n, g_, h, h, h_, h, h, by_state_, h);
    for (Index t = 0; t < n && to.b_h != nullptr; ++t)
      for (Index i = 0; i < h; ++i) by_bias_[i] += g_[t * h + i];
    if (!gradients_.x) return;
    product(n, g_, h, W_hx_, d, nullptr, dx_);
    if (W_qx_ != nullptr) product(n, d_, s_.q, W_qx_, d, dx_, dx_);
    for (Index t = 0; t < n; ++t)
      std::transform(dx_ + t * d, dx_ + (t + 1) * d, gradients_.x.at(first + t, b),
                     [](double v) { return static_cast<Scalar>(v); });
  }

  Run& run_;
  Workspace& workspace_;
  const Params<const Scalar>& params_;
  const Problem<Scalar>& problem_;
  const SequenceView<const Scalar> d_o_;
  LagWindows& lag_windows_;
  const Gradients<Scalar>& gradients_;
  const Shape s_;
  const Index tau_, span_, rows_;  // rows of e: those of a span, and of the lag windows that begin in it
  const double *W_hx_, *W_hh_, *W_qh_, *W_qx_;
  Scalar* states_;
  double *h_, *x_, *dx_, *d_, *e_, *g_, *spare_;
  double *by_input_, *by_state_, *by_bias_;
  Packed<Scalar> input_;
  ScanProblem<Scalar> scan_;
};

}  // namespace

template <typename Scalar>
void window_sums(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                 const Problem<Scalar>& problem, SequenceView<const Scalar> d_o, LagWindows& lag_windows,
                 const Gradients<Scalar>& gradients) {
  WindowSums<Scalar>(run, workspace, params, problem, d_o, lag_windows, gradients).run();
}

template void window_sums(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                          SequenceView<const float>, LagWindows&, const Gradients<float>&);
template void window_sums(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                          SequenceView<const double>, LagWindows&, const Gradients<double>&);

}  // namespace rnnbptt
