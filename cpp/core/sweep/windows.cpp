#include "core/sweep/windows.hpp"

#include <algorithm>

namespace rnnbptt {
namespace {

constexpr Index most_strip_rows = 512;

// The stride of rows of n scalars. Rows as long as a cache line start at a line; shorter ones never cross
// one. A stride that is a power of two would put a column of all rows into a few sets of the first cache.
template <typename Scalar>
Index padded(Index n) {
  constexpr Index line = 64 / static_cast<Index>(sizeof(Scalar));
  if (n >= line) {
    const Index whole = (n + line - 1) / line * line;
    return whole % (8 * line) == 0 ? whole + line : whole;
  }
  Index size = 1;
  while (size < n) size *= 2;
  return size;
}

}  // namespace

template <typename Scalar, typename State>
Windows<Scalar, State>::Windows(const Problem<Scalar>& problem, const CoarseModel<Scalar, State>& model,
                                const Schedule& schedule)
    : problem_(problem),
      L_(model.L),
      splits_(schedule.splits),
      strides_{padded<Scalar>(model.inputs), padded<Scalar>(model.outputs), padded<Scalar>(model.h),
               padded<State>(model.h)} {
  const Index B = problem.shape.B;
  const Index steps = (problem.longest() + L_ - 1) / L_;
  length_ = std::max<Index>(1, std::min(schedule.window, steps));
  count_ = std::max<Index>(1, (steps + length_ - 1) / length_);
  // Every sequence adds the row of its start state.
  most_rows_ = count_ == 1 && problem.lengths != nullptr ? make(0).rows : B * (length_ + 1);
  const Index row_size = strides_.x + strides_.o + 2 * strides_.s;
  strip_ = std::clamp<Index>((Index{1} << 16) / row_size / 8 * 8, 32, most_strip_rows);
}

template <typename Scalar, typename State>
Window Windows<Scalar, State>::make(Index w) const {
  return make_window(problem_, L_, w * length_, (w + 1) * length_);
}

template <typename Scalar, typename State>
void Windows<Scalar, State>::allocate(Workspace& workspace, Index in_flight, bool keep_all_states) {
  in_flight_.resize(static_cast<std::size_t>(in_flight));
  first_rows_.resize(static_cast<std::size_t>(count_));
  Index all = in_flight * most_rows_;
  if (keep_all_states) all = 0;
  for (Index w = 0; w < count_; ++w) {
    first_rows_[static_cast<std::size_t>(w)] = keep_all_states ? all : w % in_flight * most_rows_;
    if (keep_all_states) all += make(w).rows;
  }
  states_ = workspace.take<Scalar>(all * strides_.s);
  for (Rows& rows : in_flight_) {
    rows.x = workspace.take<Scalar>(most_rows_ * strides_.x);
    rows.d = workspace.take<Scalar>(most_rows_ * strides_.o);
    if constexpr (is_wide) rows.wide = workspace.take<State>(most_rows_ * strides_.wide);
  }
}

template <typename Scalar, typename State>
void Windows<Scalar, State>::allocate_gradients(Workspace& workspace, bool input_gradient) {
  for (Rows& rows : in_flight_) {
    rows.g = workspace.take<Scalar>(most_rows_ * strides_.s);
    if (input_gradient) rows.dx = workspace.take<Scalar>(most_rows_ * strides_.x);
  }
}

template <typename Scalar, typename State>
WindowRows<Scalar, State>& Windows<Scalar, State>::load(Index w) {
  Rows& rows = in_flight_[static_cast<std::size_t>(w) % in_flight_.size()];
  if (rows.number == w) return rows;
  rows.number = w;
  rows.has_inputs = false;
  rows.window = make(w);
  rows.split_rows = ((rows.window.rows + splits_ - 1) / splits_ + 7) / 8 * 8;
  rows.s = states_ + first_rows_[static_cast<std::size_t>(w)] * strides_.s;
  return rows;
}

template class Windows<float, float>;
template class Windows<float, double>;
template class Windows<double, double>;

}  // namespace rnnbptt
