#include "core/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/coarse.hpp"
#include "core/losses.hpp"
#include "core/rows.hpp"
#include "core/scan.hpp"

namespace rnnbptt {
namespace {

// Rows as long as a cache line start at one; shorter ones never cross one. Long rows are kept from lying a
// power of two apart: the same columns of many rows would fall into the same few sets of the first cache.
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

// One gradient. States and their gradients g are carried in `State`: the scalar type of the problem, or
// float64 for the lift of a float32 model. Rows are those of rows.hpp.
template <typename Scalar, typename State>
class Sweep {
 public:
  Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
        const Schedule& schedule, Coarsening<Scalar>& coarsening)
      : run_(run),
        workspace_(workspace),
        problem_(problem),
        gradients_(gradients),
        schedule_(schedule),
        coarsening_(coarsening),
        model_(coarsening.model()),
        h_(problem.shape.h),
        B_(problem.shape.B) {}

  double operator()(Taken& taken) {
    Index longest = problem_.shape.T;
    if (problem_.lengths != nullptr)
      longest = static_cast<Index>(*std::max_element(problem_.lengths, problem_.lengths + B_));
    const Index steps = (longest + model_.L - 1) / model_.L;
    const Index length = std::max<Index>(1, std::min(schedule_.window, steps));
    const Index windows = std::max<Index>(1, (steps + length - 1) / length);
    taken.L = model_.L;
    taken.windows = windows;
    allocate(windows, length, steps);

    // Forward: the states that windows start from. The last window is run by the backward sweep alone.
    for (Index w = 0; w + 1 < windows; ++w) {
      load_window(w, length);
      states(w);
      keep_states(w + 1);
    }
    // Backward, window by window.
    double loss = 0;
    for (Index w = windows - 1; w >= 0; --w) {
      load_window(w, length);
      states(w);
      if (model_.lifted) drop_last_states();
      loss += outputs();
      if (!model_.lifted) drop_last_states();
      if (gradients_.x && model_.lifted && !finite_outputs()) {
        leaked_ = true;
        return loss;
      }
      adjoint();
      sums();
      if (gradients_.x) input_gradients();
      if (gradients_.shift > 0) shifted();
    }
    finish();
    return loss;
  }

  // Whether something not finite would have spread, through the zeros of a lift's direct term, to gradients
  // of inputs that it does not reach. Then nothing was finished.
  bool leaked() const { return leaked_; }

 private:
  // Rows that one scan takes, from `row` on in its direction.
  struct Stretch {
    Index row, steps;
  };

  // What a backward pass adds up over windows.
  struct Collected {
    Params<Scalar> wanted;
    State* carry = nullptr;  // (B, h): dL/ds at the end of the window, from all that follows
    Scalar* sets = nullptr;  // (splits, set_size_)
    double* biases = nullptr;
  };

  // Rows of a block at most.
  static constexpr Index most_block = 512;

  void allocate(Index windows, Index length, Index steps) {
    x_row_ = padded<Scalar>(model_.inputs);
    o_row_ = padded<Scalar>(model_.outputs);
    s_row_ = padded<Scalar>(h_);
    wide_row_ = padded<State>(h_);
    const Index row_size = x_row_ + o_row_ + 2 * s_row_;
    block_ = std::clamp<Index>((Index{1} << 16) / row_size / 8 * 8, 32, most_block);
    // Every sequence adds the row of its start state.
    Index most = B_ * (length + 1);
    if (windows == 1 && problem_.lengths != nullptr) most = make_window(problem_, model_.L, 0, steps).rows;
    x_ = workspace_.take<Scalar>(most * x_row_);
    d_ = workspace_.take<Scalar>(most * o_row_);
    s_ = workspace_.take<Scalar>(most * s_row_);
    g_ = workspace_.take<Scalar>(most * s_row_);
    if constexpr (is_wide) wide_ = workspace_.take<State>(most * wide_row_);
    if (gradients_.x) dx_ = workspace_.take<Scalar>(most * x_row_);
    Index most_lanes = B_;
    if (problem_.block > 0) most_lanes += B_ + most * model_.L / problem_.block;
    if (problem_.cuts != nullptr)
      most_lanes +=
          std::min<Index>(most, std::count(problem_.cuts, problem_.cuts + problem_.shape.T * B_, 1));
    lane_starts_ = workspace_.take<State>(most_lanes * h_);
    if (problem_.flow != 1) scale_flow();
    kept_ = workspace_.take<State>(windows * B_ * h_);
    if (problem_.h0 != nullptr)
      std::copy(problem_.h0, problem_.h0 + B_ * h_, kept_);
    else
      std::fill(kept_, kept_ + B_ * h_, State{0});
    set_size_ = coarsening_.sums_size();
    biases_size_ = coarsening_.biases_size();
    collected_ = collect_for(gradients_.params);
    if (problem_.d_hT != nullptr) std::copy(problem_.d_hT, problem_.d_hT + B_ * h_, collected_.carry);
    if (gradients_.shift > 0) shifted_ = collect_for(gradients_.shifted);
    losses_ = workspace_.take<double>(schedule_.splits);
    if (problem_.y && problem_.loss != Loss::given)
      targets_ = workspace_.take<Scalar>(schedule_.splits * block_ * o_row_);
  }

  Collected collect_for(const Params<Scalar>& wanted) {
    Collected result{wanted, workspace_.take<State>(B_ * h_),
                     workspace_.take<Scalar>(schedule_.splits * set_size_),
                     workspace_.take<double>(schedule_.splits * biases_size_)};
    std::fill(result.carry, result.carry + B_ * h_, State{0});
    std::fill(result.sets, result.sets + schedule_.splits * set_size_, Scalar{0});
    std::fill(result.biases, result.biases + schedule_.splits * biases_size_, 0.0);
    return result;
  }

  void load_window(Index w, Index length) {
    window_ = make_window(problem_, model_.L, w * length, (w + 1) * length);
    split_rows_ = ((window_.rows + schedule_.splits - 1) / schedule_.splits + 7) / 8 * 8;
  }

  // Runs visit(from, to, split) over blocks of rows small enough for the second cache, splits in parallel.
  template <typename Visit>
  void for_blocks(Index work_per_row, const Visit& visit) {
    const Index rows = window_.rows;
    const double work = static_cast<double>(work_per_row) * static_cast<double>(block_);
    const double all = static_cast<double>(work_per_row) * static_cast<double>(split_rows_);
    parallel(run_, schedule_.splits, all, [&](Index split, int worker) {
      const Index end = std::min(rows, (split + 1) * split_rows_);
      for (Index from = split * split_rows_; from < end; from += block_) {
        run_.checkpoint(worker, work);
        visit(from, std::min(end, from + block_), split);
      }
    });
  }

  // s_c = A s_{c-1} + Ctrl x_c + bias_s for all coarse steps of the window.
  void states(Index w) {
    for_blocks(model_.inputs * h_, [&](Index from, Index to, Index) {
      gather(window_, model_.L, problem_.x, problem_.shape.d, from, to, x_, x_row_);
      multiply<Scalar>(to - from, {x_ + from * x_row_, x_row_}, model_.Ctrl_T, {model_.bias_s, 0},
                       {s_ + from * s_row_, s_row_});
      widen(s_, from, to);
    });
    std::vector<Stretch> lanes;
    lanes.reserve(window_.segments.size());
    for (const Segment& segment : window_.segments) {
      const State* start = kept_ + (w * B_ + segment.sequence) * h_;
      std::copy(start, start + h_, states_(s_) + segment.first_row * row_of_states());
      lanes.push_back({segment.first_row, segment.steps});
    }
    scan_rows(s_, lanes, true);
    narrow(s_);
  }

  void keep_states(Index w) {
    for (const Segment& segment : window_.segments) {
      const State* last = states_(s_) + (segment.first_row + segment.steps) * row_of_states();
      std::copy(last, last + h_, kept_ + (w * B_ + segment.sequence) * h_);
    }
  }

  // Row r - 1 of the first row of a sequence is the last state of another. It takes no part, but may have
  // left the range of the scalars, in padded steps too, and 0 times that must stay 0. A plain model still
  // reads it for outputs.
  void drop_last_states() {
    for (const Segment& segment : window_.segments) {
      Scalar* last = s_ + (segment.first_row + segment.steps) * s_row_;
      std::fill(last, last + h_, Scalar{0});
    }
  }

  // The row whose state outputs of row r read: that before it in a lift, its own in the plain model.
  Index state_row() const { return model_.lifted ? -1 : 0; }

  // o, the loss and d_o; what the outputs send back to the states; sums over d_o.
  double outputs() {
    std::fill(losses_, losses_ + schedule_.splits, 0.0);
    for_blocks(model_.outputs * (2 * h_ + (model_.direct.empty() ? 0 : 2 * model_.inputs) + h_),
               [&](Index first, Index to, Index split) {
                 // Row 0 is a start state: it has no outputs, and nothing before it.
                 const Index from = std::max<Index>(first, 1);
                 if (first == 0) std::fill(d_, d_ + o_row_, Scalar{0});
                 if (from == to) return;
                 Scalar* o = d_ + from * o_row_;
                 const Scalar* x = x_ + from * x_row_;
                 const Scalar* s = s_ + (from + state_row()) * s_row_;
                 if (problem_.loss == Loss::given) {
                   gather(window_, model_.L, problem_.y, problem_.shape.q, from, to, d_, o_row_);
                 } else {
                   multiply<Scalar>(to - from, {s, s_row_}, model_.Obs_T, {model_.bias_o, 0}, {o, o_row_});
                   for (const DirectBand<Scalar>& band : model_.direct) {
                     Scalar* part = o + band.first_output;
                     multiply<Scalar>(to - from, {x, x_row_}, band.transposed, {part, o_row_},
                                      {part, o_row_});
                   }
                   losses_[split] += loss_rows(problem_, window_, model_.L, from, to, d_, o_row_,
                                               targets_ + split * block_ * o_row_);
                 }
                 if (gradients_.o)
                   scatter(window_, model_.L, d_, o_row_, problem_.shape.q, from, to, gradients_.o);
                 send_back(from, to, split);
               });
    clear_unreached();
    double loss = 0;
    for (Index i = 0; i < schedule_.splits; ++i) loss += losses_[i];
    return loss;
  }

  // What d_o of rows [from, to) sends back to the states; sums over d_o.
  void send_back(Index from, Index to, Index split) {
    if (from >= to) return;
    const Scalar* o = d_ + from * o_row_;
    const Scalar* x = x_ + from * x_row_;
    const Scalar* s = s_ + (from + state_row()) * s_row_;
    multiply<Scalar>(to - from, {o, o_row_}, model_.Obs, {}, {g_ + (from + state_row()) * s_row_, s_row_});
    const CoarseGradients<Scalar> set = sums_of(split);
    if (set.Obs != nullptr) add_outer(to - from, o, o_row_, model_.outputs, s, s_row_, h_, set.Obs, h_);
    if (set.Direct != nullptr)
      for (const DirectBand<Scalar>& band : model_.direct)
        add_outer(to - from, o + band.first_output, o_row_, band.outputs, x, x_row_, band.inputs,
                  set.Direct + band.first_output * model_.inputs, model_.inputs);
    if (set.bias_o != nullptr) add_rows(to - from, o, o_row_, model_.outputs, set.bias_o);
  }

  // The one row of g that no outputs reach.
  void clear_unreached() {
    const Index rows = window_.rows;
    const Index unset = model_.lifted ? rows - 1 : 0;
    if (rows > 0) std::fill(g_ + unset * s_row_, g_ + (unset + 1) * s_row_, Scalar{0});
  }

  bool finite_outputs() const {
    for (Index r = 0; r < window_.rows; ++r)
      if (!std::all_of(d_ + r * o_row_, d_ + r * o_row_ + model_.outputs,
                       [](Scalar v) { return std::isfinite(v); }))
        return false;
    return true;
  }

  // g_{c-1} += A^T g_c from the last coarse step to the start state; what arrives there is carried on.
  void adjoint() {
    if constexpr (is_wide) for_blocks(h_, [&](Index from, Index to, Index) { widen(g_, from, to); });
    std::vector<Stretch> lanes;
    lanes.reserve(window_.segments.size());
    for (const Segment& segment : window_.segments) {
      State* last = states_(g_) + (segment.first_row + segment.steps) * row_of_states();
      const State* later = collected_.carry + segment.sequence * h_;
      for (Index n = 0; n < h_; ++n) last[n] += later[n];
      add_stretches(segment, lanes);
    }
    if (problem_.block > 0 || problem_.cuts != nullptr)
      std::stable_sort(lanes.begin(), lanes.end(),
                       [](const Stretch& left, const Stretch& right) { return left.steps > right.steps; });
    scan_rows(g_, lanes, false);
    for (const Segment& segment : window_.segments) {
      State* first = states_(g_) + segment.first_row * row_of_states();
      std::copy(first, first + h_, collected_.carry + segment.sequence * h_);
      // Start states take no part in the sums: row r - 1 of a first row is another sequence's.
      std::fill(first, first + h_, State{0});
    }
    narrow(g_);
  }

  // The stretches of a segment that gradients flow through, the last one first.
  void add_stretches(const Segment& segment, std::vector<Stretch>& lanes) {
    Index from = segment.first_row + segment.steps;
    if (problem_.block > 0 || problem_.cuts != nullptr)
      for (Index j = segment.steps; j >= 1; --j) {
        if (!problem_.cut(segment.time + (j - 1) * model_.L, segment.sequence)) continue;
        const Index row = segment.first_row + j;
        if (from > row) lanes.push_back({from, from - row});
        from = row - 1;
        // Outputs of a lifted step read the state before it.
        State* before = states_(g_) + from * row_of_states();
        if (model_.lifted) std::fill(before, before + h_, State{0});
      }
    lanes.push_back({from, from - segment.first_row});
  }

  void sums() {
    for_blocks((h_ + model_.inputs) * h_, [&](Index first, Index to, Index split) {
      const Index from = std::max<Index>(first, 1);
      const CoarseGradients<Scalar> set = sums_of(split);
      const Scalar* g = g_ + from * s_row_;
      if (set.A != nullptr)
        add_outer(to - from, g, s_row_, h_, s_ + (from - 1) * s_row_, s_row_, h_, set.A, h_);
      if (set.Ctrl_T != nullptr)
        add_outer(to - from, x_ + from * x_row_, x_row_, model_.inputs, g, s_row_, h_, set.Ctrl_T, h_);
      if (set.bias_s != nullptr) {
        if constexpr (is_wide)
          add_rows(to - from, wide_ + from * wide_row_, wide_row_, h_, set.bias_s);
        else
          add_rows(to - from, g, s_row_, h_, set.bias_s);
      }
    });
  }

  void input_gradients() {
    for_blocks(model_.inputs * (h_ + model_.outputs), [&](Index from, Index to, Index) {
      const kernels::Rows<Scalar*> dx{dx_ + from * x_row_, x_row_};
      multiply<Scalar>(to - from, {g_ + from * s_row_, s_row_}, model_.Ctrl, {}, dx);
      for (const DirectBand<Scalar>& band : model_.direct)
        multiply<Scalar>(to - from, {d_ + from * o_row_ + band.first_output, o_row_}, band.straight,
                         {dx.base, dx.stride}, dx);
      scatter(window_, model_.L, dx_, x_row_, problem_.shape.d, from, to, gradients_.x);
    });
  }

  // The gradients of the window for d_o of `shift` steps later.
  void shifted() {
    std::swap(collected_, shifted_);
    const SequenceView<Scalar>& o = gradients_.o;
    const SequenceView<const Scalar> later{o.at(gradients_.shift, 0), o.step, o.sequence};
    for_blocks(3 * model_.outputs * h_, [&](Index from, Index to, Index split) {
      gather(window_, model_.L, later, problem_.shape.q, from, to, d_, o_row_);
      send_back(std::max<Index>(from, 1), to, split);
    });
    clear_unreached();
    adjoint();
    sums();
    std::swap(collected_, shifted_);
  }

  // Adds up the splits, in their order.
  void hand_over() {
    for (Index split = 1; split < schedule_.splits; ++split) {
      for (Index i = 0; i < set_size_; ++i) collected_.sets[i] += collected_.sets[split * set_size_ + i];
      for (Index i = 0; i < biases_size_; ++i)
        collected_.biases[i] += collected_.biases[split * biases_size_ + i];
    }
    coarsening_.collect(run_, sums_of(0), collected_.wanted);
  }

  void finish() {
    hand_over();
    if (gradients_.h0 != nullptr)
      std::transform(collected_.carry, collected_.carry + B_ * h_, gradients_.h0,
                     [](State v) { return static_cast<Scalar>(v); });
    if (gradients_.shift > 0) {
      std::swap(collected_, shifted_);
      hand_over();
    }
    if (!gradients_.x && !gradients_.o) return;
    // Steps behind the end of a sequence influence nothing.
    const Shape& shape = problem_.shape;
    for (Index b = 0; b < B_; ++b)
      for (Index t = problem_.length(b); t < shape.T; ++t) {
        if (gradients_.x) std::fill(gradients_.x.at(t, b), gradients_.x.at(t, b) + shape.d, Scalar{0});
        if (gradients_.o) std::fill(gradients_.o.at(t, b), gradients_.o.at(t, b) + shape.q, Scalar{0});
      }
  }

  // --- states in their own precision

  static constexpr bool is_wide = sizeof(State) != sizeof(Scalar);

  Index row_of_states() const { return is_wide ? wide_row_ : s_row_; }

  // The rows the scan works on: the scalars' own, or the wide copy of the one array at hand.
  State* states_(Scalar* rows) const {
    if constexpr (is_wide) {
      static_cast<void>(rows);
      return wide_;
    } else {
      return rows;
    }
  }

  void widen(const Scalar* rows, Index from, Index to) {
    if constexpr (is_wide)
      for (Index r = from; r < to; ++r)
        std::copy(rows + r * s_row_, rows + r * s_row_ + h_, wide_ + r * wide_row_);
  }

  void narrow(Scalar* rows) {
    if constexpr (is_wide)
      for_blocks(h_, [&](Index from, Index to, Index) {
        for (Index r = from; r < to; ++r)
          std::transform(wide_ + r * wide_row_, wide_ + r * wide_row_ + h_, rows + r * s_row_,
                         [](State v) { return static_cast<Scalar>(v); });
      });
  }

  void scale_flow() {
    if constexpr (!is_wide) {
      auto* scaled = workspace_.take<Scalar>(h_ * h_);
      const MatrixView<const Scalar> A = model_.A_plain;
      for (Index i = 0; i < h_; ++i)
        for (Index j = 0; j < h_; ++j)
          scaled[i * h_ + j] =
              static_cast<Scalar>(problem_.flow * static_cast<double>(A.data[i * A.row + j * A.column]));
      flow_ = {scaled, h_, h_, h_};
      packed_flow_ = pack<Scalar>(workspace_, flow_);
    }
  }

  // Scans every lane: its row is the state before the first step. Lanes with more steps come first.
  void scan_rows(Scalar* rows, const std::vector<Stretch>& lanes, bool forward) {
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      const State* start = states_(rows) + lanes[i].row * row_of_states();
      std::copy(start, start + h_, lane_starts_ + static_cast<Index>(i) * h_);
    }
    ScanProblem<State> scan_problem;
    scan_problem.size = h_;
    scan_problem.base = states_(rows);
    scan_problem.step = forward ? row_of_states() : -row_of_states();
    scan_problem.starts = lane_starts_;
    scan_problem.piece = schedule_.piece;
    MatrixView<const State> A;
    if constexpr (is_wide) {
      A = model_.A_lifted;
      scan_problem.packed = forward ? model_.A_T_wide : model_.A_wide;
    } else {
      if constexpr (sizeof(State) == sizeof(double))
        A = model_.lifted ? model_.A_lifted : model_.A_plain;
      else
        A = model_.A_plain;
      scan_problem.packed = forward ? model_.A_T : model_.A;
      if (!forward && flow_.data != nullptr) {
        A = flow_;
        scan_problem.packed = packed_flow_;
      }
    }
    scan_problem.M = forward ? A.transposed() : A;
    scan_problem.lanes.reserve(lanes.size());
    for (const Stretch& lane : lanes)
      scan_problem.lanes.push_back({(forward ? lane.row + 1 : lane.row - 1) * row_of_states(), lane.steps});
    scan(run_, workspace_, scan_problem);
  }

  template <typename Value>
  static void add_rows(Index rows, const Value* A, Index row, Index n, double* sum) {
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < n; ++i) sum[i] += static_cast<double>(A[r * row + i]);
  }

  CoarseGradients<Scalar> sums_of(Index split) const {
    return coarsening_.sums(collected_.wanted, collected_.sets + split * set_size_,
                            collected_.biases + split * biases_size_);
  }

  Run& run_;
  Workspace& workspace_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const Schedule& schedule_;
  Coarsening<Scalar>& coarsening_;
  const CoarseModel<Scalar>& model_;
  const Index h_, B_;

  Window window_;
  bool leaked_ = false;
  Index block_ = 0, split_rows_ = 0;
  Index x_row_ = 0, o_row_ = 0, s_row_ = 0, wide_row_ = 0;
  Scalar *x_ = nullptr, *d_ = nullptr, *s_ = nullptr, *g_ = nullptr, *dx_ = nullptr;  // rows of the window
  State* wide_ = nullptr;                                                             // s or g in float64
  State* lane_starts_ = nullptr;                                                      // (lanes, h)
  State* kept_ = nullptr;          // (windows, B, h): states at the starts of windows
  MatrixView<const Scalar> flow_;  // A times the factor of what flows, where there is one
  Packed<Scalar> packed_flow_;
  Index set_size_ = 0, biases_size_ = 0;
  Collected collected_, shifted_;
  double* losses_ = nullptr;
  Scalar* targets_ = nullptr;  // (splits, block_) rows
};

}  // namespace

template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                Taken* taken) {
  workspace.reset();
  Taken report;
  Coarsening<Scalar> coarsening(run, workspace, problem.shape, params, schedule.levels,
                                static_cast<bool>(gradients.x));
  Schedule followed = schedule;
  if (coarsening.model().L != Index{1} << schedule.levels) {
    // Powers of W_hh grew too large: what was planned for longer chunks does not fit these.
    followed.choices.levels = 0;
    while (Index{1} << followed.choices.levels < coarsening.model().L) ++followed.choices.levels;
    followed = plan(problem, params.b_h != nullptr, static_cast<bool>(gradients.x), followed.choices);
  }
  double loss = 0;
  bool leaked = false;
  const auto sweep_as = [&](auto state) {
    Sweep<Scalar, decltype(state)> sweep(run, workspace, problem, gradients, followed, coarsening);
    loss = sweep(report);
    leaked = sweep.leaked();
  };
  if (coarsening.model().lifted)
    sweep_as(double{});
  else
    sweep_as(Scalar{});
  if (leaked) {
    Choices plain = schedule.choices;
    plain.levels = 0;
    const bool bias = params.b_h != nullptr;
    return gradient(run, workspace, params, problem, gradients, plan(problem, bias, true, plain), taken);
  }
  report.schedule = followed;
  if (taken != nullptr) *taken = report;
  return loss;
}

template double gradient(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                         const Gradients<float>&, const Schedule&, Taken*);
template double gradient(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                         const Gradients<double>&, const Schedule&, Taken*);

}  // namespace rnnbptt
