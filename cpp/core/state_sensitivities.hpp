// Derivatives of states and outputs carried forward in time, in strips of columns: what Jacobians and their
// products are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/algebra/products.hpp"
#include "core/columns.hpp"
#include "core/loss_root.hpp"

namespace rnnbptt {

// Columns of S that one task carries through time: few enough to stay in the second cache for any h.
inline constexpr Index strip_columns = 96;

// Steps from one search for what is forgotten to the next.
inline constexpr Index forgotten_every = 16;

// S_t = dh_t / d(state parameters), (h, columns): with A = [W_hx W_hh b_h], z_t = [x_t; h_{t-1}; 1],
//
//     S_t = W_hh S_{t-1} + (e_m z_t[n] in the column of A[m, n]),      S_0 = I in the columns of h0,
//     J_t = W_qh S_t,                                                   and J_t = z in those of W_qh, b_q,
//     W_qx.
//
// Columns are independent of one another: strips of them run through time as tasks of their own.
template <typename Scalar>
class Sensitivities {
 public:
  Sensitivities(Workspace& workspace, const Params<const Scalar>& params, const Problem<Scalar>& problem,
                const Columns& columns, SequenceView<const Scalar> hidden, SequenceView<const Scalar> o)
      : params_(params), problem_(problem), columns_(columns), hidden_(hidden), o_(o) {
    const Index d = problem.shape.d, h = problem.shape.h, q = problem.shape.q;
    Index wanted = 0;
    for (const auto& [at, count] : {std::pair{columns.W_hx, h * d}, std::pair{columns.W_hh, h * h},
                                    std::pair{columns.b_h, h}, std::pair{columns.h0, h}})
      if (at >= 0) wanted += count;
    strips_.resize(static_cast<std::size_t>((wanted + strip_columns - 1) / strip_columns));
    Index used = 0;  // columns of S handed out so far
    for (Index m = 0; m < h; ++m) enter(used, columns.W_hx, m, d, Source::input);
    for (Index m = 0; m < h; ++m) enter(used, columns.W_hh, m, h, Source::state);
    for (Index m = 0; m < h; ++m) enter(used, columns.b_h, m, 1, Source::one);
    for (Index m = 0; m < h; ++m) enter(used, columns.h0, m, 1, Source::start);
    find_rest();

    const auto strips = static_cast<Index>(strips_.size());
    slots_ = std::clamp<Index>(256 / std::max<Index>(strips, 1), 1, problem.shape.B);
    states_ = workspace.template take<Scalar>(slots_ * strips * strip_memory());
    const Index tasks = slots_ * (strips + 1);
    scratch_size_ = (Factor<Scalar>::size(q) + q * h + 63) / 64 * 64;  // tasks share no line of the cache
    scratch_ = workspace.template take<Scalar>(tasks * scratch_size_);
    zero_ = workspace.template take<Scalar>(h);
    std::fill(zero_, zero_ + h, Scalar{0});
  }

  // Sequences that may run side by side.
  Index slots() const { return slots_; }

  // M_t J_t for steps [t0, t1) of sequences [b0, b0 + count), count <= slots(). Steps come in order.
  void advance(Run& run, Index b0, Index count, Index t0, Index t1, SequenceView<Scalar> J, Index row) {
    const auto& s = problem_.shape;
    const auto tasks = static_cast<Index>(strips_.size()) + 1;
    const double work = static_cast<double>(strip_columns * (s.h + s.q)) * static_cast<double>(s.h);
    parallel(run, count * tasks, work * static_cast<double>(t1 - t0), [&](Index task, int worker) {
      const Index slot = task / tasks, strip = task % tasks;
      Scalar* memory = scratch_ + task * scratch_size_;
      Factor<Scalar> factor(problem_, memory);
      Scalar* A = memory + Factor<Scalar>::size(s.q);
      for (Index t = t0; t < t1; ++t) {
        run.checkpoint(worker, work);
        const Index b = b0 + slot;
        const bool counts = factor.set(t, b, o_.at(t, b));
        if (strip == tasks - 1)
          outputs(factor, counts, t, b, J.at(t, b), row);
        else
          states(factor, counts, t, b, slot, strip, A, J.at(t, b), row);
      }
    });
  }

 private:
  enum class Source { input, state, one, start };
  // z[from, from + count) enters row `row` of S in columns [column, column + count) of the strip.
  struct Entry {
    Source source;
    Index row, column, from, count;
  };
  // Columns [column, column + count) of the strip are those from `to` on in J.
  struct Target {
    Index column, count, to;
    bool start;
  };
  struct Strip {
    Index columns = 0;
    std::vector<Entry> entries;
    std::vector<Target> targets;
  };

  // Hands out the columns of row m of a parameter with n columns.
  void enter(Index& used, Index first, Index m, Index n, Source source) {
    if (first < 0) return;
    for (Index from = 0; from < n;) {
      Strip& strip = strips_[static_cast<std::size_t>(used / strip_columns)];
      const Index column = used % strip_columns, count = std::min(n - from, strip_columns - column);
      const Index to = first + m * n + from;
      strip.entries.push_back({source, m, column, from, count});
      const bool start = source == Source::start && columns_.h0_stride != 0;
      const bool joins = !strip.targets.empty() && strip.targets.back().start == start &&
                         strip.targets.back().to + strip.targets.back().count == to;
      if (joins)
        strip.targets.back().count += count;
      else
        strip.targets.push_back({column, count, to, start});
      strip.columns += count;
      used += count;
      from += count;
    }
  }

  // Finds the columns that no state reaches: outputs() fills them.
  void find_rest() {
    std::vector<std::pair<Index, Index>> taken;
    for (const Strip& strip : strips_)
      for (const Target& target : strip.targets)
        if (!target.start) taken.push_back({target.to, target.to + target.count});
    taken.push_back({columns_.total, columns_.total});
    std::sort(taken.begin(), taken.end());
    Index at = 0;
    for (const auto& [from, to] : taken) {
      if (from > at) rest_.push_back({at, from});
      at = to;
    }
  }

  // States of a strip before and after a step, and a row that products may read behind them while another
  // thread writes to the next strip.
  Index strip_memory() const { return (2 * problem_.shape.h + 1) * strip_columns; }

  void states(const Factor<Scalar>& factor, bool counts, Index t, Index b, Index slot, Index number,
              Scalar* A, Scalar* J, Index row) {
    const Index h = problem_.shape.h, q = problem_.shape.q;
    const Strip& strip = strips_[static_cast<std::size_t>(number)];
    const Index size = h * strip_columns;
    Scalar* memory = states_ + (slot * static_cast<Index>(strips_.size()) + number) * strip_memory();
    Scalar* before = memory + (t % 2) * size;
    Scalar* S = memory + ((t + 1) % 2) * size;
    if (t == 0) {
      std::fill(memory, memory + 2 * size, Scalar{0});
      for (const Entry& e : strip.entries)
        if (e.source == Source::start) before[e.row * strip_columns + e.column] = 1;
    }
    if (t < problem_.length(b)) {
      if (t % forgotten_every == 0) forget(strip, before);
      product(h, params_.W_hh, before, strip.columns, S, strip_columns);
      const Scalar* x = problem_.x.at(t, b);
      const Scalar* state = t > 0 ? hidden_.at(t - 1, b) : problem_.h0 ? problem_.h0 + b * h : zero_;
      for (const Entry& e : strip.entries) {
        if (e.source == Source::start) continue;
        Scalar* to = S + e.row * strip_columns + e.column;
        if (e.source == Source::one) {
          *to += 1;
          continue;
        }
        const Scalar* z = (e.source == Source::input ? x : state) + e.from;
        for (Index n = 0; n < e.count; ++n) to[n] += z[n];
      }
    }
    if (counts) factor.apply(params_.W_qh, h, A);
    for (const Target& target : strip.targets) {
      Scalar* to = J + target.to + (target.start ? b * columns_.h0_stride : 0);
      if (counts) product(q, A, S + target.column, target.count, to, row);
      for (Index k = 0; k < q; ++k)
        if (!counts || !factor.counts(k)) std::fill(to + k * row, to + k * row + target.count, Scalar{0});
    }
  }

  // What an initial state did long ago is set to zero before it is subnormal: it was of size one, and
  // subnormal numbers, which never round to zero by themselves, take many times as long.
  void forget(const Strip& strip, Scalar* S) const {
    constexpr Scalar least = std::numeric_limits<Scalar>::min() / std::numeric_limits<Scalar>::epsilon();
    for (const Entry& e : strip.entries)
      for (Index i = 0; e.source == Source::start && i < problem_.shape.h; ++i) {
        Scalar& entry = S[i * strip_columns + e.column];
        if (std::abs(entry) < least) entry = 0;
      }
  }

  // C = A S: A is (rows, h), S lies in a strip.
  void product(Index rows, const Scalar* A, const Scalar* S, Index columns, Scalar* C, Index c_row) const {
    const auto& kernel = kernels::table().of<Scalar>();
    kernels::Product<Scalar> p;
    p.rows = rows;
    p.depth = problem_.shape.h;
    p.columns = columns;
    p.a = {A, problem_.shape.h, nullptr};
    p.b = S;
    p.b_depth = strip_columns;
    p.b_panel = kernel.panel_columns;
    p.c = {C, c_row, nullptr};
    kernel.product(p);
  }

  // All other columns: o_t = W_qh h_t + W_qx x_t + b_q is linear in its own weights. The columns of h0 are
  // zero here; those of the sequence itself belong to states().
  void outputs(const Factor<Scalar>& factor, bool counts, Index t, Index b, Scalar* J, Index row) const {
    const Index d = problem_.shape.d, h = problem_.shape.h, q = problem_.shape.q;
    const Index own = columns_.h0 < 0 ? columns_.total : columns_.h0 + b * columns_.h0_stride;
    for (Index k = 0; k < q; ++k, J += row) {
      for (const auto& [from, to] : rest_) {
        std::fill(J + from, J + std::clamp(own, from, to), Scalar{0});
        std::fill(J + std::clamp(own + h, from, to), J + to, Scalar{0});
      }
      if (!counts || !factor.counts(k)) continue;
      for (Index l = factor.diagonal() ? k : 0; l < (factor.diagonal() ? k + 1 : q); ++l) {
        const Scalar m = factor(k, l);
        const auto place = [&](Index first, const Scalar* z, Index n) {
          if (first >= 0)
            for (Index i = 0; i < n; ++i) J[first + (columns_.own_output ? 0 : l * n) + i] = m * z[i];
        };
        const Scalar one = 1;
        place(columns_.W_qh, hidden_.at(t, b), h);
        place(columns_.b_q, &one, 1);
        place(columns_.W_qx, problem_.x.at(t, b), d);
      }
    }
  }

  const Params<const Scalar>& params_;
  const Problem<Scalar>& problem_;
  const Columns& columns_;
  SequenceView<const Scalar> hidden_, o_;
  std::vector<Strip> strips_;
  std::vector<std::pair<Index, Index>> rest_;
  Index slots_ = 0, scratch_size_ = 0;
  Scalar *states_ = nullptr, *scratch_ = nullptr, *zero_ = nullptr;
};

}  // namespace rnnbptt
