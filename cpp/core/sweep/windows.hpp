// Time in windows small enough for the caches, and the memory of those in flight.
#pragma once

#include <vector>

#include "core/algebra/coarse.hpp"
#include "core/schedule.hpp"
#include "core/sweep/rows.hpp"

namespace rnnbptt {

// A window and its rows, which are those of rows.hpp. States and their gradients are carried from row to row
// in `State`: the problem's scalar type, or float64 for the lift of a float32 model whose powers do not
// decay.
template <typename Scalar, typename State>
struct WindowRows {
  Index number = -1;
  Window window;
  Index split_rows = 0;     // rows of a split
  bool has_inputs = false;  // whether x is filled in
  Scalar* x = nullptr;
  Scalar* d = nullptr;  // o, then d_o
  Scalar* s = nullptr;
  Scalar* g = nullptr;    // dL/ds
  Scalar* dx = nullptr;   // dL/dx
  State* wide = nullptr;  // s, later g, in float64
};

template <typename Scalar, typename State>
class Windows {
 public:
  using Rows = WindowRows<Scalar, State>;
  static constexpr bool is_wide = sizeof(State) != sizeof(Scalar);

  // Cuts time into windows.
  Windows(const Problem<Scalar>& problem, const CoarseModel<Scalar, State>& model, const Schedule& schedule);

  Index count() const { return count_; }
  Index length() const { return length_; }  // coarse steps
  Index most_rows() const { return most_rows_; }

  // Scalars from one row to the next.
  struct Strides {
    Index x, o, s, wide;
  };
  const Strides& strides() const { return strides_; }

  // Rows of a strip: those that a stage works on at once, to stay in the second cache.
  Index strip() const { return strip_; }

  // Takes the memory of `in_flight` windows at a time; of the states, where `keep_all_states`, that of all
  // windows.
  void allocate(Workspace& workspace, Index in_flight, bool keep_all_states);
  // Takes what backward passes need besides.
  void allocate_gradients(Workspace& workspace, bool input_gradient);

  // Window `w`, in slot w mod in_flight.
  Rows& load(Index w);

 private:
  Window make(Index w) const;

  const Problem<Scalar>& problem_;
  const Index L_, splits_;
  Index length_ = 0, count_ = 0, most_rows_ = 0, strip_ = 0;
  Strides strides_;
  std::vector<Rows> in_flight_;
  Scalar* states_ = nullptr;
  std::vector<Index> first_rows_;  // where each window starts in states_
};

}  // namespace rnnbptt
