// Sequences as rows of coarse steps.
//
// A window holds, for every sequence still running, one row for the state the window starts from and one row
// for each coarse step (L time steps side by side): row r - 1 always holds the step before row r. Longest
// sequences first.
#pragma once

#include <algorithm>
#include <vector>

#include "rnnbptt/problem.hpp"

namespace rnnbptt {

struct Segment {
  Index sequence = 0;
  Index first_row = 0;  // the start state; coarse step j of the window, j = 1..steps, is row first_row + j
  Index steps = 0;      // coarse steps
  Index time = 0;       // first time step (zero-based) of the segment
  Index length = 0;     // time steps, at most steps * L
};

struct Window {
  std::vector<Segment> segments;
  Index rows = 0;
};

// The part of `problem` between coarse steps [from, to) of every sequence, in chunks of L time steps.
template <typename Scalar>
Window make_window(const Problem<Scalar>& problem, Index L, Index from, Index to) {
  Window window;
  window.segments.reserve(static_cast<std::size_t>(problem.shape.B));
  for (Index b = 0; b < problem.shape.B; ++b) {
    const Index length = problem.length(b);
    const Index steps = std::min(to, (length + L - 1) / L) - from;
    if (steps <= 0) continue;
    window.segments.push_back({b, 0, steps, from * L, std::min(steps * L, length - from * L)});
  }
  std::stable_sort(window.segments.begin(), window.segments.end(),
                   [](const Segment& left, const Segment& right) { return left.steps > right.steps; });
  for (Segment& segment : window.segments) {
    segment.first_row = window.rows;
    window.rows += segment.steps + 1;
  }
  return window;
}

// Calls visit(segment, j0, j1) for the rows of each segment in [from, to): j is the coarse step, 0 the start
// state.
template <typename Visit>
void for_rows(const Window& window, Index from, Index to, const Visit& visit) {
  auto segment = std::upper_bound(window.segments.begin(), window.segments.end(), from,
                                  [](Index row, const Segment& s) { return row < s.first_row; });
  for (--segment; segment != window.segments.end() && segment->first_row < to; ++segment) {
    const Index j0 = std::max<Index>(from - segment->first_row, 0);
    const Index j1 = std::min(to - segment->first_row, segment->steps + 1);
    if (j0 < j1) visit(*segment, j0, j1);
  }
}

// Time steps of a segment that fall into coarse step j >= 1.
inline Index steps_in(const Segment& segment, Index j, Index L) {
  return std::clamp<Index>(segment.length - (j - 1) * L, 0, L);
}

// Copies time steps of sequences into rows [from, to); `rows` is where row `origin` lies. Rows of start
// states and steps behind the end of a sequence become zero.
template <typename Scalar>
void gather(const Window& window, Index L, SequenceView<const Scalar> source, Index size, Index from,
            Index to, Scalar* rows, Index row_stride, Index origin = 0) {
  for_rows(window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    Index j = j0;
    const Index whole = segment.length / L;  // coarse steps 1..whole are complete
    if (source.step == size && row_stride == L * size && j0 <= whole) {
      // Rows lie as the source does: all complete ones are one copy.
      if (j == 0) {
        Scalar* first = rows + (segment.first_row - origin) * row_stride;
        std::fill(first, first + row_stride, Scalar{0});
        ++j;
      }
      const Index end = std::min(j1, whole + 1);
      if (j < end) {
        const Scalar* data = source.at(segment.time + (j - 1) * L, segment.sequence);
        std::copy(data, data + (end - j) * row_stride, rows + (segment.first_row + j - origin) * row_stride);
        j = end;
      }
    }
    for (; j < j1; ++j) {
      Scalar* row = rows + (segment.first_row + j - origin) * row_stride;
      const Index steps = j == 0 ? 0 : steps_in(segment, j, L);
      const Scalar* data = j == 0 ? nullptr : source.at(segment.time + (j - 1) * L, segment.sequence);
      if (source.step == size) {
        std::copy(data, data + steps * size, row);
      } else {
        for (Index i = 0; i < steps; ++i, data += source.step) std::copy(data, data + size, row + i * size);
      }
      std::fill(row + steps * size, row + L * size, Scalar{0});
    }
  });
}

// The reverse of gather; rows of start states are left out.
template <typename Scalar>
void scatter(const Window& window, Index L, const Scalar* rows, Index row_stride, Index size, Index from,
             Index to, SequenceView<Scalar> target) {
  for_rows(window, from, to, [&](const Segment& segment, Index j0, Index j1) {
    for (Index j = std::max<Index>(j0, 1); j < j1; ++j) {
      const Scalar* row = rows + (segment.first_row + j) * row_stride;
      const Index t = segment.time + (j - 1) * L;
      for (Index i = 0; i < steps_in(segment, j, L); ++i)
        std::copy(row + i * size, row + (i + 1) * size, target.at(t + i, segment.sequence));
    }
  });
}

}  // namespace rnnbptt
