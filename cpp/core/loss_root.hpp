// A root of a loss's second derivative at one step: a loss is locally a sum of squares, this says of what.
#pragma once

#include <algorithm>

#include "core/losses.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// M_t of one step: M(k, l) = root[k] ((k == l) - p[l]), as Loss::root() gives it; the identity where dL/do is
// given. Rows of outputs of weight 0 are zero.
template <typename Scalar>
class Factor {
 public:
  Factor(const Problem<Scalar>& problem, Scalar* memory)
      : problem_(problem),
        diagonal_(problem.loss == nullptr || problem.loss->traits.separable),
        root_(memory),
        p_(memory + problem.shape.q) {
    const Index q = problem.shape.q;
    std::fill(root_, root_ + q, Scalar{1});
    std::fill(p_, p_ + q, Scalar{0});
    step_.size = q;
    step_.parameter = problem.loss_parameter;
    if (problem.loss != nullptr) factor_ = problem.loss->factor(q);
  }

  static Index size(Index q) { return 2 * q; }

  // Returns whether the step counts at all.
  bool set(Index t, Index b, const Scalar* o) {
    if (t >= problem_.length(b)) return false;
    const double* w = problem_.weights ? problem_.weights.at(t, b) : nullptr;
    if (problem_.weights_of_outputs) return set_outputs(t, b, o, w);
    const double weight = w != nullptr ? *w : 1.0;
    if (weight == 0) return false;
    if (problem_.loss == nullptr || weight == known_for_) return true;
    step_.o = o;
    if (problem_.y) step_.y.data = problem_.y.at(t, b);
    if (problem_.labels) step_.labels.data = problem_.labels.at(t, b);
    step_.scale = weight / problem_.weight_sum * factor_;
    problem_.loss->root(step_, root_, p_);
    if (problem_.loss->traits.sum_of_squares) known_for_ = weight;
    return true;
  }

  bool diagonal() const { return diagonal_; }

  // Of a step that counts, whether output k does.
  bool counts(Index k) const { return weights_ == nullptr || weights_[k] != 0; }

  Scalar operator()(Index k, Index l) const { return root_[k] * ((k == l ? Scalar{1} : Scalar{0}) - p_[l]); }

  // to = M W, both (q, n).
  void apply(const Scalar* W, Index n, Scalar* to) const {
    const Index q = problem_.shape.q;
    for (Index i = 0; i < n; ++i) {
      Scalar mean = 0;
      if (!diagonal())
        for (Index k = 0; k < q; ++k) mean += p_[k] * W[k * n + i];
      for (Index k = 0; k < q; ++k) to[k * n + i] = root_[k] * (W[k * n + i] - mean);
    }
  }

 private:
  // The same where outputs have weights of their own: each is a step alone.
  bool set_outputs(Index t, Index b, const Scalar* o, const double* w) {
    const Index q = problem_.shape.q;
    weights_ = w;
    step_.size = 1;
    for (Index k = 0; k < q; ++k) {
      root_[k] = 0;
      if (w[k] == 0) continue;
      if (w[k] == known_for_) {
        root_[k] = known_;
        continue;
      }
      step_.o = o + k;
      step_.y.data = problem_.y.at(t, b) + k;
      step_.scale = w[k] / problem_.weight_sum * factor_;
      problem_.loss->root(step_, root_ + k, p_ + k);
      if (!problem_.loss->traits.sum_of_squares) continue;
      known_for_ = w[k];
      known_ = root_[k];
    }
    return std::any_of(w, w + q, [](double weight) { return weight != 0; });
  }

  const Problem<Scalar>& problem_;
  const bool diagonal_;
  LossSteps<const Scalar> step_;
  double factor_ = 1;
  double known_for_ = -1;            // the weight of steps, or of outputs, that have the root at hand
  Scalar known_ = 0;                 // that root, of outputs
  const double* weights_ = nullptr;  // of the outputs of this step, where they have their own
  Scalar *root_, *p_;
};

}  // namespace rnnbptt
