#include "core/sensitivities.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/algebra/products.hpp"
#include "core/losses.hpp"

namespace rnnbptt {
namespace {

// Columns of S that one task carries through time: few enough to stay in the second cache for any h.
constexpr Index strip_columns = 96;

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
      step_.o = o + k;
      step_.y.data = problem_.y.at(t, b) + k;
      step_.scale = w[k] / problem_.weight_sum * factor_;
      problem_.loss->root(step_, root_ + k, p_ + k);
    }
    return std::any_of(w, w + q, [](double weight) { return weight != 0; });
  }

  const Problem<Scalar>& problem_;
  const bool diagonal_;
  LossSteps<const Scalar> step_;
  double factor_ = 1;
  double known_for_ = -1;            // the weight of all steps that have the root at hand
  const double* weights_ = nullptr;  // of the outputs of this step, where they have their own
  Scalar *root_, *p_;
};

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
      const bool start = source == Source::start;
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
            for (Index i = 0; i < n; ++i) J[first + l * n + i] = m * z[i];
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

}  // namespace

template <typename Scalar>
void residuals(const Problem<Scalar>& problem, SequenceView<const Scalar> o, SequenceView<Scalar> r) {
  const auto& s = problem.shape;
  std::vector<Scalar> memory(static_cast<std::size_t>(Factor<Scalar>::size(s.q)));
  Factor<Scalar> factor(problem, memory.data());
  for (Index t = 0; t < s.T; ++t)
    for (Index b = 0; b < s.B; ++b) {
      const bool counts = factor.set(t, b, o.at(t, b));
      for (Index k = 0; k < s.q; ++k)
        r.at(t, b)[k] =
            counts && factor.counts(k) ? factor(k, k) * (o.at(t, b)[k] - problem.y.at(t, b)[k]) : Scalar{0};
    }
}

template <typename Scalar>
void jacobian(Run& run, Workspace& workspace, const Params<const Scalar>& params,
              const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
              SequenceView<const Scalar> o, SequenceView<Scalar> J) {
  workspace.reset();
  Sensitivities<Scalar> sensitivities(workspace, params, problem, columns, hidden, o);
  const Index B = problem.shape.B, slots = sensitivities.slots();
  for (Index b = 0; b < B; b += slots)
    sensitivities.advance(run, b, std::min(slots, B - b), 0, problem.shape.T, J, columns.total);
}

template <typename Scalar>
void gauss_newton(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                  const Problem<Scalar>& problem, const Columns& columns, SequenceView<const Scalar> hidden,
                  SequenceView<const Scalar> o, Scalar* matrix) {
  workspace.reset();
  const Index T = problem.shape.T, B = problem.shape.B, h = problem.shape.h, q = problem.shape.q;
  const Index size = columns.total;
  // A row of the window has the columns of its own sequence's h0 only.
  Columns local = columns;
  const Index shared = columns.h0 < 0 ? size : columns.h0;
  local.h0_stride = 0;
  local.total = columns.h0 < 0 ? size : shared + h;
  Sensitivities<Scalar> sensitivities(workspace, params, problem, local, hidden, o);

  // A window of some megabyte, whole sequences if they are short.
  constexpr Index window_scalars = Index{1} << 17;
  const Index rows = std::max<Index>(window_scalars / local.total, 128);
  const Index steps = std::clamp<Index>(rows / q, 1, T);
  const Index group = steps < T ? 1 : std::clamp<Index>(rows / (q * T), 1, sensitivities.slots());
  const Index step = q * local.total, sequence = steps * step;
  auto* window = workspace.take<Scalar>(group * sequence);

  std::fill(matrix, matrix + size * size, Scalar{0});
  constexpr Index strip = 64;  // rows of the matrix that one task sums up, right of the diagonal
  for (Index b = 0; b < B; b += group) {
    const Index count = std::min(group, B - b);
    for (Index t = 0; t < T; t += steps) {
      const Index taken = std::min(steps, T - t);
      sensitivities.advance(run, b, count, t, t + taken, {window - t * step - b * sequence, step, sequence},
                            local.total);
      const Index summed = ((count - 1) * steps + taken) * q;
      const double work = static_cast<double>(std::min(strip, size) * summed) * static_cast<double>(size) / 2;
      parallel(run, (shared + strip - 1) / strip, work, [&](Index task, int worker) {
        run.checkpoint(worker, work);
        const Index first = task * strip, m = std::min(strip, shared - first);
        add_outer<Scalar>(summed, window + first, local.total, m, window + first, local.total, shared - first,
                          matrix + first * (size + 1), size);
        if (columns.h0 < 0) return;
        for (Index i = 0; i < count; ++i)
          add_outer<Scalar>(taken * q, window + i * sequence + first, local.total, m,
                            window + i * sequence + shared, local.total, h,
                            matrix + first * size + shared + (b + i) * h, size);
      });
      for (Index i = 0; columns.h0 >= 0 && i < count; ++i) {
        const Scalar* own = window + i * sequence + shared;
        add_outer<Scalar>(taken * q, own, local.total, h, own, local.total, h,
                          matrix + (shared + (b + i) * h) * (size + 1), size);
      }
    }
  }
  for (Index i = 0; i < size; ++i)
    for (Index j = i + 1; j < size; ++j) matrix[j * size + i] = matrix[i * size + j];
}

#define RNNBPTT_INSTANTIATE(Scalar)                                                                  \
  template void residuals(const Problem<Scalar>&, SequenceView<const Scalar>, SequenceView<Scalar>); \
  template void jacobian(Run&, Workspace&, const Params<const Scalar>&, const Problem<Scalar>&,      \
                         const Columns&, SequenceView<const Scalar>, SequenceView<const Scalar>,     \
                         SequenceView<Scalar>);                                                      \
  template void gauss_newton(Run&, Workspace&, const Params<const Scalar>&, const Problem<Scalar>&,  \
                             const Columns&, SequenceView<const Scalar>, SequenceView<const Scalar>, \
                             Scalar*);
RNNBPTT_INSTANTIATE(float)
RNNBPTT_INSTANTIATE(double)
#undef RNNBPTT_INSTANTIATE

}  // namespace rnnbptt
