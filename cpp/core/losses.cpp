#include "core/losses.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernels/table.hpp"

namespace rnnbptt {
namespace {

// A loss gives its traits and, for the outputs of one step,
//
//     derivative   o <- scale du/do;                                  returns scale u
//     tangent      (o, o') <- scale (d2u/do2 o', du/do);              returns scale du/do . o'
//     root         the root and p of M^T M = scale d2u/do2,           M(k, l) = root[k] ((k == l) - p[l])
//
// with targets y, or the label. A loss of residuals, u = sum_j f(o_j - y_j), may give at(r), the Slopes of f,
// in the place of any of these. Its member of type double, if any, is the caller's parameter; factor(q), if
// any, is l / u. It is then named in the list at the end of this file.

// A function of one number: its value, first and second derivative.
struct Slopes {
  double value, first, second;
};

// l = u = 1/2 ||o - y||^2, du/do = o - y, d2u/do2 = I.
struct SquaredError {
  static constexpr LossTraits traits{.name = "squared_error", .separable = true, .sum_of_squares = true};

  template <typename Scalar>
  static double derivative(Index n, Scalar* o, const Scalar* y, double scale) {
    const auto rounded = static_cast<Scalar>(scale);
    double sum = 0;
    if (n >= 16) {
      sum = kernels::table().of<Scalar>().residual(n, o, y, rounded);
    } else {
      for (Index i = 0; i < n; ++i) {
        const Scalar r = o[i] - y[i];
        sum += static_cast<double>(r) * static_cast<double>(r);
        o[i] = rounded * r;
      }
    }
    return 0.5 * scale * sum;
  }

  template <typename Scalar>
  static double tangent(Index n, Scalar* o, Scalar* tangent, const Scalar* y, double scale) {
    constexpr Index width = 4;
    const auto rounded = static_cast<Scalar>(scale);
    double sums[width] = {};
    const auto at = [&](Index i, double& sum) {
      const Scalar r = o[i] - y[i], along = tangent[i];
      sum += static_cast<double>(r) * static_cast<double>(along);
      o[i] = rounded * along;
      tangent[i] = rounded * r;
    };
    Index i = 0;
    for (; i + width <= n; i += width)
      for (Index k = 0; k < width; ++k) at(i + k, sums[k]);
    for (; i < n; ++i) at(i, sums[0]);
    return scale * ((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }

  template <typename Scalar>
  static void root(Index n, const Scalar*, const Scalar*, double scale, Scalar* root, Scalar*) {
    std::fill(root, root + n, static_cast<Scalar>(std::sqrt(scale)));
  }
};

// l = 1/q ||o - y||^2 = 2/q u.
struct MeanSquaredError : SquaredError {
  static constexpr LossTraits traits{.name = "mse", .separable = true, .sum_of_squares = true};

  static double factor(Index q) { return 2.0 / static_cast<double>(q); }
};

// l = u = -log softmax(o)[label]. With m the largest output, u = o_m - o_label + log(1 + sum_{k != m} e_k),
// e_k = exp(o_k - o_m), so that a confident answer loses no digits. Not inlined: calls of exp() leave few
// registers, which the loops over steps would share.
struct CrossEntropy {
  static constexpr LossTraits traits{.name = "cross_entropy", .labels = true};

  // du/do = p - onehot(label), p = softmax(o). The label's own p - 1 is minus the sum of the other
  // probabilities.
  template <typename Scalar>
  [[gnu::noinline]] static double derivative(Index q, Scalar* o, Index label, double scale) {
    const Index top = std::max_element(o, o + q) - o;
    const auto largest = static_cast<double>(o[top]);
    const double behind = static_cast<double>(o[label]) - largest;
    double rest = 0;  // sum of e_k over all but the top
    for (Index i = 0; i < q; ++i)
      if (i != top) rest += std::exp(static_cast<double>(o[i]) - largest);
    double others = 0;  // probabilities of all but the label
    for (Index i = 0; i < q; ++i) {
      const double p = std::exp(static_cast<double>(o[i]) - largest) / (1 + rest);
      if (i != label) others += p;
      o[i] = static_cast<Scalar>(scale * p);
    }
    o[label] = static_cast<Scalar>(-scale * others);
    return scale * (std::log1p(rest) - behind);
  }

  // d2u/do2 o' = p (o' - sum_k p_k o'_k), tangents being taken relative to o'_m.
  template <typename Scalar>
  [[gnu::noinline]] static double tangent(Index q, Scalar* o, Scalar* tangent, Index label, double scale) {
    const Index top = std::max_element(o, o + q) - o;
    const auto largest = static_cast<double>(o[top]), origin = static_cast<double>(tangent[top]);
    double rest = 0, mean = 0;
    for (Index i = 0; i < q; ++i) {
      if (i == top) continue;
      const double e = std::exp(static_cast<double>(o[i]) - largest);
      rest += e;
      mean += e * (static_cast<double>(tangent[i]) - origin);
    }
    mean /= 1 + rest;
    const double at_label = static_cast<double>(tangent[label]) - origin;
    double others = 0;
    for (Index i = 0; i < q; ++i) {
      const double p = std::exp(static_cast<double>(o[i]) - largest) / (1 + rest);
      if (i != label) others += p;
      o[i] = static_cast<Scalar>(scale * p * (static_cast<double>(tangent[i]) - origin - mean));
      tangent[i] = static_cast<Scalar>(scale * p);
    }
    tangent[label] = static_cast<Scalar>(-scale * others);
    return scale * (mean - at_label);
  }

  // d2u/do2 = diag(p) - p p^T = sum_k p_k (e_k - p) (e_k - p)^T, e_k being the unit vectors.
  template <typename Scalar>
  static void root(Index q, const Scalar* o, Index, double scale, Scalar* root, Scalar* p) {
    const auto largest = static_cast<double>(*std::max_element(o, o + q));
    double sum = 0;
    for (Index k = 0; k < q; ++k) sum += std::exp(static_cast<double>(o[k]) - largest);
    for (Index k = 0; k < q; ++k) {
      const double probability = std::exp(static_cast<double>(o[k]) - largest) / sum;
      p[k] = static_cast<Scalar>(probability);
      root[k] = static_cast<Scalar>(std::sqrt(scale * probability));
    }
  }
};

// Adds to `total` what loss(o, number, scale) returns for the steps whose weight is not 0, and writes zeros
// over the others.
template <typename Scalar, typename StepLoss>
double add_steps(const LossSteps<Scalar>& s, double total, const StepLoss& loss) {
  Index number = 0;
  for (Index r = 0; r < s.rows; ++r) {
    Scalar* o = s.o + r * s.row;
    for (Index i = 0; i < s.steps; ++i, ++number, o += s.size) {
      const double w = s.weights ? *s.weights.at(number, 0) : 1.0;
      if (w != 0) {
        total += loss(o, number, w * s.scale);
        continue;
      }
      std::fill(o, o + s.size, Scalar{0});
      if (s.tangent != 0) std::fill(o + s.tangent, o + s.tangent + s.size, Scalar{0});
    }
  }
  return total;
}

// derivative, tangent and root of a form that gives at(r).
template <typename Form, typename Scalar>
double derivative_at(const Form& form, Index n, Scalar* o, const Scalar* y, double scale) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    const Slopes f = form.at(static_cast<double>(o[i]) - static_cast<double>(y[i]));
    sum += f.value;
    o[i] = static_cast<Scalar>(scale * f.first);
  }
  return scale * sum;
}

template <typename Form, typename Scalar>
double tangent_at(const Form& form, Index n, Scalar* o, Scalar* tangent, const Scalar* y, double scale) {
  double sum = 0;
  for (Index i = 0; i < n; ++i) {
    const Slopes f = form.at(static_cast<double>(o[i]) - static_cast<double>(y[i]));
    const auto along = static_cast<double>(tangent[i]);
    sum += f.first * along;
    o[i] = static_cast<Scalar>(scale * f.second * along);
    tangent[i] = static_cast<Scalar>(scale * f.first);
  }
  return scale * sum;
}

template <typename Form, typename Scalar>
void root_at(const Form& form, Index n, const Scalar* o, const Scalar* y, double scale, Scalar* root) {
  for (Index i = 0; i < n; ++i) {
    const Slopes f = form.at(static_cast<double>(o[i]) - static_cast<double>(y[i]));
    root[i] = static_cast<Scalar>(std::sqrt(scale * f.second));
  }
}

// A struct as above, as a Loss.
template <typename Scalar, typename Form>
class LossOf final : public Loss<Scalar> {
 public:
  constexpr LossOf() : Loss<Scalar>(Form::traits) {}

  double factor(Index q) const override {
    if constexpr (requires { Form::factor(q); })
      return Form::factor(q);
    else
      return 1;
  }

  double derivative(const LossSteps<Scalar>& steps, double total) const override {
    const Form form = with(steps.parameter);
    return add_steps(steps, total, [&](Scalar* o, Index number, double scale) {
      const auto y = target(steps, number);
      if constexpr (requires { form.derivative(steps.size, o, y, scale); })
        return form.derivative(steps.size, o, y, scale);
      else
        return derivative_at(form, steps.size, o, y, scale);
    });
  }

  double tangent(const LossSteps<Scalar>& steps, double total) const override {
    const Form form = with(steps.parameter);
    return add_steps(steps, total, [&](Scalar* o, Index number, double scale) {
      const auto y = target(steps, number);
      if constexpr (requires { form.tangent(steps.size, o, o, y, scale); })
        return form.tangent(steps.size, o, o + steps.tangent, y, scale);
      else
        return tangent_at(form, steps.size, o, o + steps.tangent, y, scale);
    });
  }

  void root(const LossSteps<const Scalar>& step, Scalar* root, Scalar* p) const override {
    const Form form = with(step.parameter);
    const auto y = target(step, 0);
    if constexpr (requires { form.root(step.size, step.o, y, step.scale, root, p); })
      form.root(step.size, step.o, y, step.scale, root, p);
    else
      root_at(form, step.size, step.o, y, step.scale, root);
  }

 private:
  static Form with([[maybe_unused]] double parameter) {
    if constexpr (requires { Form{parameter}; })
      return Form{parameter};
    else
      return Form{};
  }

  template <typename Any>
  static auto target(const LossSteps<Any>& steps, Index number) {
    if constexpr (Form::traits.labels)
      return static_cast<Index>(*steps.labels.at(number, 0));
    else
      return steps.y.at(number, 0);
  }
};

template <typename Scalar, typename Form>
constexpr LossOf<Scalar, Form> loss_of;

}  // namespace

template <typename Scalar>
const Loss<Scalar>& find_loss(std::string_view name) {
  static constexpr const Loss<Scalar>* all[] = {
      &loss_of<Scalar, SquaredError>,
      &loss_of<Scalar, MeanSquaredError>,
      &loss_of<Scalar, CrossEntropy>,
  };
  for (const Loss<Scalar>* loss : all)
    if (loss->traits.name == name) return *loss;
  throw std::invalid_argument("no loss is called '" + std::string(name) + "'");
}

template const Loss<float>& find_loss(std::string_view);
template const Loss<double>& find_loss(std::string_view);

}  // namespace rnnbptt
