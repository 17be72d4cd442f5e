#include "core/sweep/chain.hpp"

#include <algorithm>

namespace rnnbptt {
namespace {

// Rows of a strip where the parts of a tangent model are joined: a multiple of 8.
constexpr Index join_rows = 256;

}  // namespace

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
      parts_(model.parts),
      part_(model.part),
      stride_(is_wide ? windows.strides().wide : windows.strides().s),
      narrow_stride_(windows.strides().s),
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
void Chain<Scalar, State>::prepare_backward() {
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
  const Index n = A.rows;
  auto* result = workspace_.take<State>(n * n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      result[i * n + j] = static_cast<State>(factor * static_cast<double>(A.data[i * A.row + j * A.column]));
  return {result, n, n, n};
}

// --- states

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin_states(Rows& rows) {
  stretches_.clear();
  for (const Segment& segment : rows.window.segments)
    stretches_.push_back({segment.first_row, segment.steps});
  begin_scans(rows, true);
  for (std::size_t i = 0; i < rows.window.segments.size(); ++i) {
    const Segment& segment = rows.window.segments[i];
    const State* start = window_starts_ + (rows.number * B_ + segment.sequence) * h_;
    std::copy(start, start + h_, base_ + segment.first_row * stride_);
    set_start(static_cast<Index>(i), start);
  }
}

// A sequence that ends in this window starts no other: what is kept of it is not read.
template <typename Scalar, typename State>
void Chain<Scalar, State>::keep_states(const Rows& rows) {
  for (const Segment& segment : rows.window.segments) {
    const State* last = state(segment, segment.steps);
    std::copy(last, last + h_, window_starts_ + ((rows.number + 1) * B_ + segment.sequence) * h_);
  }
}

template <typename Scalar, typename State>
const State* Chain<Scalar, State>::state(const Segment& segment, Index j) const {
  return base_ + (segment.first_row + j) * stride_;
}

// --- their gradients

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass) {
  stretches_.clear();
  for (const Segment& segment : rows.window.segments) add_stretches(rows, segment, pass.options);
  if (truncated(pass.options))
    std::stable_sort(stretches_.begin(), stretches_.end(),
                     [](const Stretch& left, const Stretch& right) { return left.steps > right.steps; });
  begin_scans(rows, false);
  for (std::size_t i = 0; i < stretches_.size(); ++i) {
    const Stretch& stretch = stretches_[i];
    const Scalar* own = rows.g + stretch.row * narrow_stride_;
    State* start = base_ + stretch.row * stride_;
    if constexpr (is_wide) std::copy(own, own + h_, start);
    const auto add = [&](const State* later) {
      for (Index n = 0; n < h_; ++n) start[n] += later[n];
    };
    if (stretch.carried >= 0) add(pass.carry + stretch.carried * h_);
    if (stretch.from_cut >= 0 && pass.options.entering != nullptr)
      add(pass.options.entering + stretch.from_cut * h_);
    set_start(static_cast<Index>(i), start);
  }
}

// A segment's stretches between cuts, the last one first.
template <typename Scalar, typename State>
void Chain<Scalar, State>::add_stretches(Rows& rows, const Segment& segment,
                                         const BackwardPass<Scalar, State>& pass) {
  Index from = segment.first_row + segment.steps, carried = segment.sequence, from_cut = -1;
  if (truncated(pass))
    for (Index j = segment.steps; j >= 1; --j) {
      const Index t = segment.time + (j - 1) * model_.L;
      if (!problem_.cut(t, segment.sequence)) continue;
      const Index row = segment.first_row + j;
      const Index cut = problem_.block > 0 ? t / problem_.block * B_ + segment.sequence : -1;
      stretches_.push_back({from, from - row, carried, from_cut, cut});
      from = row - 1;
      carried = -1;
      from_cut = cut;
      // Outputs of a lifted step read the state before it: their part of g lies before the cut.
      Scalar* before = rows.g + from * narrow_stride_;
      if (!model_.lifted) continue;
      if (pass.past_first != nullptr) std::copy(before, before + h_, pass.past_first + cut * h_);
      std::fill(before, before + h_, Scalar{0});
    }
  stretches_.push_back({from, from - segment.first_row, carried, from_cut, -1});
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::end_adjoint(Rows& rows, const RunningPass<Scalar, State>& pass) {
  if (pass.options.first != nullptr)
    for (const Stretch& stretch : stretches_) {
      if (stretch.to_cut < 0) continue;
      const State* first = base_ + (stretch.row - stretch.steps) * stride_;
      std::copy(first, first + h_, pass.options.first + stretch.to_cut * h_);
    }
  for (const Segment& segment : rows.window.segments) {
    State* first = base_ + segment.first_row * stride_;
    std::copy(first, first + h_, pass.carry + segment.sequence * h_);
    // Start states are left out of the sums over g: row r - 1 of a start state r is another sequence's.
    std::fill(first, first + h_, State{0});
    Scalar* g = rows.g + segment.first_row * narrow_stride_;
    std::fill(g, g + h_, Scalar{0});
  }
}

// --- either, through one window

template <typename Scalar, typename State>
void Chain<Scalar, State>::begin_scans(Rows& rows, bool forward) {
  forward_ = forward;
  narrow_base_ = forward ? rows.s : rows.g;
  if constexpr (is_wide)
    base_ = rows.wide;
  else
    base_ = narrow_base_;
  const auto lanes = static_cast<Index>(stretches_.size());
  for (Index turn = 0; turn < parts_; ++turn) {
    ScanProblem<State>& scan = scans_[turn];
    // States run before their tangents; backwards, gradients of tangents before those of states.
    scan.base = base_ + (forward ? turn : parts_ - 1 - turn) * part_;
    scan.packed = forward ? model_.A_T : flow_;
    scan.size = part_;
    scan.step = forward ? stride_ : -stride_;
    scan.starts = lane_starts_ + turn * lanes * part_;
    scan.jump = forward ? jump_T_ : jump_;
    scan.piece = scan.jump.data != nullptr ? schedule_.piece : 0;
    scan.lanes.clear();
    for (const Stretch& stretch : stretches_)
      scan.lanes.push_back({stretch.row * stride_ + scan.step, stretch.steps});
  }
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::set_start(Index lane, const State* state) {
  for (Index turn = 0; turn < parts_; ++turn) {
    const State* own = state + (scans_[turn].base - base_);
    std::copy(own, own + part_, lane_starts_ + (turn * static_cast<Index>(stretches_.size()) + lane) * part_);
  }
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::run(Rows& rows, const Stage& beside, const Stage& beside_too) {
  const auto lanes = static_cast<Index>(stretches_.size());
  if (lanes > 0 && scans_[0].piece > 0 && scans_[0].lanes.front().steps > scans_[0].piece) {
    widen(rows, 0, lanes);
    scan(run_, workspace_, scans_[0]);
    if (parts_ > 1) {
      const Index longest = scans_[0].lanes.front().steps, strips = (longest + join_rows - 1) / join_rows;
      const double work = static_cast<double>(join_rows * part_) * static_cast<double>(part_);
      parallel(run_, lanes * strips, work, [this, strips](Index i, int worker) {
        join_parts(i / strips, i % strips * join_rows, worker);
      });
      scan(run_, workspace_, scans_[1]);
    }
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
  const Index to = std::min(from + lanes_per_task_, static_cast<Index>(stretches_.size()));
  widen(rows, from, to);
  scan_lanes(run_, worker, scans_[0], from, to);
  if (parts_ > 1) {
    for (Index lane = from; lane < to; ++lane)
      for (Index row = 0; row < scans_[0].lanes[static_cast<std::size_t>(lane)].steps; row += join_rows)
        join_parts(lane, row, worker);
    scan_lanes(run_, worker, scans_[1], from, to);
  }
  narrow(rows, from, to);
}

// Adds what the part that has run contributes to the other, on some steps of a lane:
//
//   s'_c += U s_{c-1}, or backwards g_{c-1} += U^T g'_c
template <typename Scalar, typename State>
void Chain<Scalar, State>::join_parts(Index lane, Index first, int worker) {
  const auto [low, high] = rows_of(lane);
  const Index rows = std::min(join_rows, high - low - first);
  if (rows <= 0) return;
  run_.checkpoint(worker, static_cast<double>(rows * part_) * static_cast<double>(part_));
  const State* from = scans_[0].base + (low + first + (forward_ ? 0 : 1)) * stride_;
  State* to = scans_[1].base + (low + first + (forward_ ? 1 : 0)) * stride_;
  multiply<State>(rows, {from, stride_}, forward_ ? model_.U_T : model_.U, {to, stride_}, {to, stride_});
}

// Copies narrow rows to wide ones, all but those that lanes start from.
template <typename Scalar, typename State>
void Chain<Scalar, State>::widen(const Rows& rows, Index from_lane, Index to_lane) {
  if constexpr (is_wide)
    for (Index lane = from_lane; lane < to_lane; ++lane) {
      const auto [low, high] = rows_of(lane);
      const Index start = forward_ ? 1 : 0;
      for (Index r = low + start; r < high + start; ++r)
        std::copy(narrow_base_ + r * narrow_stride_, narrow_base_ + r * narrow_stride_ + h_,
                  rows.wide + r * stride_);
    }
}

template <typename Scalar, typename State>
void Chain<Scalar, State>::narrow(const Rows& rows, Index from_lane, Index to_lane) {
  if constexpr (is_wide)
    for (Index lane = from_lane; lane < to_lane; ++lane) {
      const auto [low, high] = rows_of(lane);
      for (Index r = low; r <= high; ++r)
        std::transform(rows.wide + r * stride_, rows.wide + r * stride_ + h_,
                       narrow_base_ + r * narrow_stride_, [](State v) { return static_cast<Scalar>(v); });
    }
}

// The lowest and the highest row of a lane.
template <typename Scalar, typename State>
std::pair<Index, Index> Chain<Scalar, State>::rows_of(Index lane) const {
  const Stretch& stretch = stretches_[static_cast<std::size_t>(lane)];
  if (forward_) return {stretch.row, stretch.row + stretch.steps};
  return {stretch.row - stretch.steps, stretch.row};
}

template class Chain<float, float>;
template class Chain<float, double>;
template class Chain<double, double>;

}  // namespace rnnbptt
