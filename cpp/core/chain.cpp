#include "core/chain.hpp"

#include <algorithm>

namespace rnnbptt {

template <typename Scalar, typename State>
Chain<Scalar, State>::Chain(Run& run, Workspace& workspace, const Problem<Scalar>& problem,
                            const CoarseModel<Scalar, State>& model, const Windows<Scalar, State>& windows,
                            const Schedule& schedule)
    : run_(run),
      workspace_(workspace),
      problem_(problem),
      model_(model),
      schedule_(schedule),
      h_(problem.shape.h),
      B_(problem.shape.B),
      row_(is_wide ? windows.strides().wide : windows.strides().s),
      narrow_row_(windows.strides().s),
      length_(windows.length()) {
  const Index most_rows = windows.most_rows();
  Index most_lanes = B_;
  if (problem.block > 0) most_lanes += B_ + most_rows * model.L / problem.block;
  if (problem.cuts != nullptr)
    most_lanes +=
        std::min<Index>(most_rows, std::count(problem.cuts, problem.cuts + problem.shape.T * B_, 1));
  lane_starts_ = workspace.take<State>(most_lanes * h_);
  window_starts_ = workspace.take<State>((windows.count() + 1) * B_ * h_);
  if (problem.h0 != nullptr)
    std::copy(problem.h0, problem.h0 + B_ * h_, window_starts_);
  else
    std::fill(window_starts_, window_starts_ + B_ * h_, State{0});
  if (schedule.piece > 0 && length_ > schedule.piece)
    jump_T_ = jump_of(run, workspace, model.A_view.transposed(), schedule.piece);
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::turn_back() {
  flow_ = model_.A;
  MatrixView<const State> flow = model_.A_view;
  if (problem_.flow != 1) {
    flow = scaled(model_.A_view, problem_.flow);
    flow_ = pack<State>(workspace_, flow);
  }
  if (jump_T_.data != nullptr && (problem_.block == 0 || problem_.block > schedule_.piece * model_.L))
    jump_ = jump_of(run_, workspace_, flow, schedule_.piece);
}

template <typename Scalar, typename State>
MatrixView<const State> Chain<Scalar, State>::scaled(MatrixView<const State> A, double factor) {
  auto* result = workspace_.take<State>(h_ * h_);
  for (Index i = 0; i < h_; ++i)
    for (Index j = 0; j < h_; ++j)
      result[i * h_ + j] = static_cast<State>(factor * static_cast<double>(A.data[i * A.row + j * A.column]));
  return {result, h_, h_, h_};
}

// --- states

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin_states(Rows& rows) {
  stretches_.clear();
  for (const Segment& segment : rows.window.segments)
    stretches_.push_back({segment.first_row, segment.steps});
  begin(rows, true);
  for (std::size_t i = 0; i < rows.window.segments.size(); ++i) {
    const Segment& segment = rows.window.segments[i];
    const State* start = window_starts_ + (rows.number * B_ + segment.sequence) * h_;
    std::copy(start, start + h_, lane_starts_ + static_cast<Index>(i) * h_);
    std::copy(start, start + h_, scan_.base + segment.first_row * row_);
  }
}

// What the next window starts from. A sequence that ends in this window starts no other.
template <typename Scalar, typename State>
void Chain<Scalar, State>::keep_states(const Rows& rows) {
  for (const Segment& segment : rows.window.segments) {
    const State* last = state(segment, segment.steps);
    std::copy(last, last + h_, window_starts_ + ((rows.number + 1) * B_ + segment.sequence) * h_);
  }
}

template <typename Scalar, typename State>
const State* Chain<Scalar, State>::state(const Segment& segment, Index j) const {
  return scan_.base + (segment.first_row + j) * row_;
}

// --- their gradients

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin_adjoint(Rows& rows, const Back& pass) {
  stretches_.clear();
  for (const Segment& segment : rows.window.segments) add_stretches(rows, segment, pass.way);
  if (truncated(pass.way))
    std::stable_sort(stretches_.begin(), stretches_.end(),
                     [](const Stretch& left, const Stretch& right) { return left.steps > right.steps; });
  begin(rows, false);
  for (std::size_t i = 0; i < stretches_.size(); ++i) {
    const Stretch& stretch = stretches_[i];
    const Scalar* own = rows.g + stretch.row * narrow_row_;
    State* start = lane_starts_ + static_cast<Index>(i) * h_;
    std::copy(own, own + h_, start);
    const auto add = [&](const State* later) {
      for (Index n = 0; n < h_; ++n) start[n] += later[n];
    };
    if (stretch.ends >= 0) add(pass.carry + stretch.ends * h_);
    if (stretch.from_cut >= 0 && pass.way.entering != nullptr) add(pass.way.entering + stretch.from_cut * h_);
    std::copy(start, start + h_, scan_.base + stretch.row * row_);
  }
}

// The stretches of a segment that gradients flow through, the last one first.
template <typename Scalar, typename State>
void Chain<Scalar, State>::add_stretches(Rows& rows, const Segment& segment, const Way<State>& way) {
  Index from = segment.first_row + segment.steps, ends = segment.sequence, from_cut = -1;
  if (truncated(way))
    for (Index j = segment.steps; j >= 1; --j) {
      const Index t = segment.time + (j - 1) * model_.L;
      if (!problem_.cut(t, segment.sequence)) continue;
      const Index row = segment.first_row + j;
      const Index cut = problem_.block > 0 ? t / problem_.block * B_ + segment.sequence : -1;
      stretches_.push_back({from, from - row, ends, from_cut, cut});
      from = row - 1;
      ends = -1;
      from_cut = cut;
      // Outputs of a lifted step read the state before it.
      Scalar* before = rows.g + from * narrow_row_;
      if (!model_.lifted) continue;
      if (way.past_first != nullptr) std::copy(before, before + h_, way.past_first + cut * h_);
      std::fill(before, before + h_, Scalar{0});
    }
  stretches_.push_back({from, from - segment.first_row, ends, from_cut, -1});
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::end_adjoint(Rows& rows, const Back& pass) {
  if (pass.way.first != nullptr)
    for (const Stretch& stretch : stretches_) {
      if (stretch.to_cut < 0) continue;
      const State* first = scan_.base + (stretch.row - stretch.steps) * row_;
      std::copy(first, first + h_, pass.way.first + stretch.to_cut * h_);
    }
  for (const Segment& segment : rows.window.segments) {
    State* first = scan_.base + segment.first_row * row_;
    std::copy(first, first + h_, pass.carry + segment.sequence * h_);
    // Start states take no part in the sums: row r - 1 of a first row is another sequence's.
    std::fill(first, first + h_, State{0});
    Scalar* g = rows.g + segment.first_row * narrow_row_;
    std::fill(g, g + h_, Scalar{0});
  }
}

// --- either, through one window

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin(Rows& rows, bool forward) {
  chained_ = forward ? rows.s : rows.g;
  if constexpr (is_wide)
    scan_.base = rows.wide;
  else
    scan_.base = chained_;
  scan_.packed = forward ? model_.A_T : flow_;
  scan_.size = h_;
  scan_.step = forward ? row_ : -row_;
  scan_.starts = lane_starts_;
  scan_.jump = forward ? jump_T_ : jump_;
  scan_.piece = scan_.jump.data != nullptr ? schedule_.piece : 0;
  scan_.lanes.clear();
  for (const Stretch& stretch : stretches_)
    scan_.lanes.push_back({stretch.row * row_ + scan_.step, stretch.steps});
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::run(Rows& rows, const Stage& beside, const Stage& beside_too) {
  const auto lanes = static_cast<Index>(scan_.lanes.size());
  if (lanes > 0 && scan_.piece > 0 && scan_.lanes.front().steps > scan_.piece) {
    widen(rows, 0, lanes);
    scan(run_, workspace_, scan_);
    narrow(rows, 0, lanes);
    return parallel(run_, {beside, beside_too});
  }
  lanes_per_task_ = lanes_per_task(std::max<Index>(lanes, 1), run_.threads);
  const Index tasks = (lanes + lanes_per_task_ - 1) / lanes_per_task_;
  const double work =
      static_cast<double>(std::min(lanes_per_task_, lanes) * length_ * h_) * static_cast<double>(h_);
  const auto task = [this, &rows](Index i, int worker) { run_lanes(rows, i, worker); };
  parallel(run_, {{tasks, work, task}, beside, beside_too});
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::run_lanes(Rows& rows, Index task, int worker) {
  const Index from = task * lanes_per_task_;
  const Index to = std::min(from + lanes_per_task_, static_cast<Index>(scan_.lanes.size()));
  widen(rows, from, to);
  scan_lanes(run_, worker, scan_, from, to);
  narrow(rows, from, to);
}

// All but the rows that lanes start from.
template <typename Scalar, typename State>
void Chain<Scalar, State>::widen(const Rows& rows, Index from_lane, Index to_lane) {
  if constexpr (is_wide)
    for (Index lane = from_lane; lane < to_lane; ++lane) {
      const auto [low, high] = rows_of(lane);
      const Index start = scan_.step > 0 ? 1 : 0;
      for (Index r = low + start; r < high + start; ++r)
        std::copy(chained_ + r * narrow_row_, chained_ + r * narrow_row_ + h_, rows.wide + r * row_);
    }
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::narrow(const Rows& rows, Index from_lane, Index to_lane) {
  if constexpr (is_wide)
    for (Index lane = from_lane; lane < to_lane; ++lane) {
      const auto [low, high] = rows_of(lane);
      for (Index r = low; r <= high; ++r)
        std::transform(rows.wide + r * row_, rows.wide + r * row_ + h_, chained_ + r * narrow_row_,
                       [](State v) { return static_cast<Scalar>(v); });
    }
}

// The lowest and the highest row of a lane.
template <typename Scalar, typename State>
std::pair<Index, Index> Chain<Scalar, State>::rows_of(Index lane) const {
  const Stretch& stretch = stretches_[static_cast<std::size_t>(lane)];
  if (scan_.step > 0) return {stretch.row, stretch.row + stretch.steps};
  return {stretch.row - stretch.steps, stretch.row};
}

template class Chain<float, float>;
template class Chain<float, double>;
template class Chain<double, double>;

}  // namespace rnnbptt
