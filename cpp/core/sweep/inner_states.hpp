// The states of all time steps, from those at the ends of chunks.
#pragma once

#include "core/algebra/coarse.hpp"
#include "core/sweep/windows.hpp"

namespace rnnbptt {

template <typename Scalar, typename State>
class InnerStates {
 public:
  using Rows = WindowRows<Scalar, State>;

  // They are written to `hidden`, (T, B, h), by at most `splits` tasks side by side.
  InnerStates(Workspace& workspace, const Problem<Scalar>& problem, const Params<const Scalar>& params,
              const CoarseModel<Scalar, State>& model, const Windows<Scalar, State>& windows, Index splits,
              SequenceView<Scalar> hidden);

  // Writes the states of rows [from, to) of a window that has its inputs and states; from >= 1.
  void fill(const Rows& rows, Index from, Index to, Index split);

  SequenceView<Scalar> hidden() const { return hidden_; }

  // Multiply-adds for one row.
  double work() const { return static_cast<double>(L_ > 1 ? L_ * (h_ + problem_.shape.d) * h_ : h_); }

 private:
  void fill_strip(const Rows& rows, Index from, Index to, Scalar* before, Scalar* next);

  const Problem<Scalar>& problem_;
  const Index L_, h_;
  const typename Windows<Scalar, State>::Strides stride_;
  const SequenceView<Scalar> hidden_;
  Packed<Scalar> W_hh_T_, W_hx_T_;
  const Scalar* b_h_;
  Scalar* spare_ = nullptr;  // (splits, 2, rows of a strip, h)
};

}  // namespace rnnbptt
