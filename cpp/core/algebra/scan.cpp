#include "core/algebra/scan.hpp"

#include <algorithm>

#include "core/algebra/powers.hpp"

namespace rnnbptt {
namespace {

// Lanes of one task: enough to fill register tiles, few enough that their states stay in the first caches.
constexpr Index most_lanes = 64;
// Multiply-adds between two looks at the clock: a millisecond or so.
constexpr double work_per_checkpoint = 4e6;

Index steps_per_checkpoint(Index lanes, Index h) {
  const double step = static_cast<double>(lanes * h) * static_cast<double>(h);
  return std::max<Index>(1, static_cast<Index>(work_per_checkpoint / step));
}

// Calls visit(active, from, to) for ranges of steps on which the same lanes are active: the first `active`,
// since the longest come first.
template <typename Visit>
void for_active(const Lane* lanes, Index count, Index from, const Visit& visit) {
  while (count > 0) {
    const Index to = lanes[count - 1].steps;
    if (to > from) visit(count, from, to);
    from = std::max(from, to);
    while (count > 0 && lanes[count - 1].steps <= from) --count;
  }
}

template <typename Scalar>
void run_lanes(Run& run, int worker, const ScanProblem<Scalar>& p, const Lane* lanes, const Scalar* starts,
               Index count) {
  const auto& kernel = kernels::table().of<Scalar>();
  const Index h = p.size;
  Index offsets[most_lanes];
  for (Index i = 0; i < count; ++i) offsets[i] = lanes[i].first;
  // The start states lie elsewhere: the first step is a product of its own.
  Index active = count;
  while (active > 0 && lanes[active - 1].steps < 1) --active;
  multiply<Scalar>(active, {starts, h, nullptr}, p.packed, {p.base, 0, offsets}, {p.base, 0, offsets});
  for_active(lanes, active, 1, [&](Index n, Index from, Index to) {
    const Index stride = steps_per_checkpoint(n, h);
    for (Index j = from; j < to; j += stride) {
      kernels::Scan<Scalar> s;
      s.lanes = n;
      s.steps = std::min(stride, to - j);
      run.checkpoint(worker, static_cast<double>(s.steps * n * h) * static_cast<double>(h));
      s.size = h;
      s.s = {p.base + (j - 1) * p.step, 0, offsets};
      s.step = p.step;
      s.b = p.packed.data;
      s.b_depth = kernel.panel_columns;
      s.b_panel = p.packed.panel;
      kernel.scan(s);
    }
  });
}

}  // namespace

Index lanes_per_task(Index lanes, int threads) {
  const Index tile = 8;
  const Index share = (lanes + threads - 1) / threads;
  return std::min(most_lanes, (share + tile - 1) / tile * tile);
}

template <typename Scalar>
void scan_lanes(Run& run, int worker, const ScanProblem<Scalar>& p, Index from, Index to) {
  run_lanes(run, worker, p, p.lanes.data() + from, p.starts + from * p.size, to - from);
}

namespace {

template <typename Scalar>
void run_all(Run& run, const ScanProblem<Scalar>& p, const std::vector<Lane>& lanes, const Scalar* starts) {
  const auto count = static_cast<Index>(lanes.size());
  if (count == 0) return;
  const Index per_task = lanes_per_task(count, run.threads);
  const double work = static_cast<double>(std::min(per_task, count) * lanes.front().steps) *
                      static_cast<double>(p.size * p.size);
  parallel(run, (count + per_task - 1) / per_task, work, [&](Index task, int worker) {
    const Index from = task * per_task;
    run_lanes(run, worker, p, lanes.data() + from, starts + from * p.size, std::min(per_task, count - from));
  });
}

// The last states of `count` lanes of `steps` steps each that start from zero. The rows of the lanes are not
// changed.
template <typename Scalar>
void last_states(Run& run, int worker, const ScanProblem<Scalar>& p, const Lane* lanes, Index count,
                 Index steps, Scalar* result, Scalar* spare) {
  const Index h = p.size;
  Index offsets[most_lanes];
  for (Index i = 0; i < count; ++i) {
    offsets[i] = lanes[i].first;
    std::copy(p.base + offsets[i], p.base + offsets[i] + h, result + i * h);
  }
  const Index stride = steps_per_checkpoint(count, h);
  for (Index j = 1; j < steps; ++j) {
    if (j % stride == 0) run.checkpoint(worker, work_per_checkpoint);
    multiply<Scalar>(count, {result, h, nullptr}, p.packed, {p.base + j * p.step, 0, offsets},
                     {spare, h, nullptr});
    std::swap(result, spare);
  }
  // An odd number of swaps leaves the states in the caller's spare.
  if (steps % 2 == 0) std::copy(result, result + count * h, spare);
}

template <typename Scalar>
void run_in_pieces(Run& run, Workspace& workspace, const ScanProblem<Scalar>& p) {
  const Index h = p.size, piece = p.piece;
  const Workspace::Mark mark = workspace.mark();

  // Whole pieces first, in the order of lanes; then the ends of the lanes, longest first.
  struct Piece {
    Index lane, number;
  };
  std::vector<Lane> lanes;
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < p.lanes.size(); ++i)
    for (Index k = 0; (k + 1) * piece <= p.lanes[i].steps; ++k) {
      lanes.push_back({p.lanes[i].first + k * piece * p.step, piece});
      pieces.push_back({static_cast<Index>(i), k});
    }
  const auto whole = static_cast<Index>(lanes.size());
  std::vector<std::pair<Lane, Piece>> ends;
  for (std::size_t i = 0; i < p.lanes.size(); ++i) {
    const Index k = p.lanes[i].steps / piece;
    if (p.lanes[i].steps > k * piece)
      ends.push_back({{p.lanes[i].first + k * piece * p.step, p.lanes[i].steps - k * piece},
                      {static_cast<Index>(i), k}});
  }
  std::stable_sort(ends.begin(), ends.end(),
                   [](const auto& a, const auto& b) { return a.first.steps > b.first.steps; });
  for (const auto& [lane, number] : ends) {
    lanes.push_back(lane);
    pieces.push_back(number);
  }

  auto* last = workspace.take<Scalar>(whole * h);
  auto* spare = workspace.take<Scalar>(whole * h);
  const Index per_task = lanes_per_task(whole, run.threads);
  const double work = static_cast<double>(per_task * piece) * static_cast<double>(h * h);
  parallel(run, (whole + per_task - 1) / per_task, work, [&](Index task, int worker) {
    const Index from = task * per_task;
    last_states(run, worker, p, lanes.data() + from, std::min(per_task, whole - from), piece, last + from * h,
                spare + from * h);
  });

  // Boundary states of each lane in float64: start of piece k + 1 = last state of piece k + start of piece k
  // * M^piece.
  const auto count = static_cast<Index>(lanes.size());
  auto* starts = workspace.take<Scalar>(count * h);
  auto* state = workspace.take<double>(h);
  auto* next = workspace.take<double>(h);
  std::vector<Index> end_of(p.lanes.size(), -1);
  for (Index i = whole; i < count; ++i)
    end_of[static_cast<std::size_t>(pieces[static_cast<std::size_t>(i)].lane)] = i;
  Index at = 0;
  for (std::size_t lane = 0; lane < p.lanes.size(); ++lane) {
    const Scalar* start = p.starts + static_cast<Index>(lane) * h;
    for (Index j = 0; j < h; ++j) state[j] = static_cast<double>(start[j]);
    for (; at < whole && pieces[static_cast<std::size_t>(at)].lane == static_cast<Index>(lane); ++at) {
      for (Index j = 0; j < h; ++j) {
        starts[at * h + j] = static_cast<Scalar>(state[j]);
        next[j] = static_cast<double>(last[at * h + j]);
      }
      multiply<double>(1, {state, h, nullptr}, p.jump, {next, h, nullptr}, {next, h, nullptr});
      std::swap(state, next);
    }
    if (end_of[lane] >= 0)
      for (Index j = 0; j < h; ++j) starts[end_of[lane] * h + j] = static_cast<Scalar>(state[j]);
  }
  run_all(run, p, lanes, starts);
  workspace.release_to(mark);
}

}  // namespace

template <typename Scalar>
Packed<double> jump_of(Run& run, Workspace& workspace, MatrixView<const Scalar> M, Index piece) {
  const Index h = M.rows;
  auto* wide = workspace.take<double>(h * h);
  for (Index i = 0; i < h; ++i)
    for (Index j = 0; j < h; ++j) wide[i * h + j] = static_cast<double>(M.data[i * M.row + j * M.column]);
  const double* jump = power_of(run, workspace, h, wide, piece, sizeof(Scalar) == sizeof(double));
  if (jump == nullptr) return {};
  return pack<double>(workspace, MatrixView<const double>{jump, h, h, h});
}

template <typename Scalar>
void scan(Run& run, Workspace& workspace, const ScanProblem<Scalar>& problem) {
  if (problem.piece > 0 && !problem.lanes.empty() && problem.lanes.front().steps > problem.piece)
    return run_in_pieces(run, workspace, problem);
  run_all(run, problem, problem.lanes, problem.starts);
}

template Packed<double> jump_of(Run&, Workspace&, MatrixView<const float>, Index);
template Packed<double> jump_of(Run&, Workspace&, MatrixView<const double>, Index);
template void scan_lanes(Run&, int, const ScanProblem<float>&, Index, Index);
template void scan_lanes(Run&, int, const ScanProblem<double>&, Index, Index);
template void scan(Run&, Workspace&, const ScanProblem<float>&);
template void scan(Run&, Workspace&, const ScanProblem<double>&);

}  // namespace rnnbptt
