#include "core/gradient.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>
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
// float64 for the lift of a float32 model whose powers do not decay. Rows are those of rows.hpp.
//
// Time runs in windows small enough for the caches, and a window through five stages: inputs and chain
// forwards; outputs, chain and sums backwards. The two chains pass from window to window; all else is free.
// So while the chain runs through one window, the stages before and after it run through its neighbours.
template <typename Scalar, typename State>
class Sweep {
 public:
  Sweep(Run& run, Workspace& workspace, const Problem<Scalar>& problem, const Gradients<Scalar>& gradients,
        const Schedule& schedule, Coarsening<Scalar, State>& coarsening)
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
    const Index windows = divide();
    taken.L = model_.L;
    taken.windows = windows;
    const bool keep = schedule_.keep && windows > 1;
    allocate(windows, keep);
    allocate_backward();

    // Forward. Without room for all states, only those that windows start from are kept; the last window is
    // then run by the backward sweep alone.
    run_stages({inputs(load(0))});
    for (Index w = 0; w < windows; ++w) {
      Rows& rows = load(w);
      begin_states(rows);
      run_chain(rows, keep && w + 1 < windows ? inputs(load(w + 1)) : Stage{});
      keep_states(rows);
      if (!keep && w + 1 < windows) run_stages({inputs(load(w + 1))});
    }
    stated_ = windows - 1;
    double loss = 0;
    if (!backward(windows, keep, loss)) return loss;
    if (gradients_.shift > 0) {
      // The same states once more, for d_o of later steps.
      std::swap(collected_, shifted_);
      second_ = true;
      double none = 0;
      backward(windows, keep, none);
      std::swap(collected_, shifted_);
    }
    finish();
    return loss;
  }

  // Forward alone: o, and where `last` is not null the states, (B, h), after the last coarse step that is
  // complete.
  void outputs_alone(SequenceView<Scalar> o, State* last) {
    evaluated_ = o;
    const Index windows = divide();
    allocate(windows, false);
    const Index complete = problem_.shape.T / model_.L;
    const Index holder = std::min(complete / length_, windows - 1);
    run_stages({inputs(load(0))});
    for (Index w = 0; w < windows; ++w) {
      Rows& rows = load(w);
      begin_states(rows);
      run_chain(rows, w + 1 < windows ? inputs(load(w + 1)) : Stage{},
                w > 0 ? evaluations(load(w - 1)) : Stage{});
      keep_states(rows);
      if (last == nullptr || w != holder) continue;
      for (const Segment& segment : rows.window.segments) {
        const State* state = chain_.base + (segment.first_row + complete - w * length_) * chain_row();
        std::copy(state, state + h_, last + segment.sequence * h_);
      }
    }
    run_stages({evaluations(load(windows - 1))});
    clear_behind_ends(o, problem_.shape.q);
  }

  // Whether something not finite would have spread, through the zeros of a lift's direct term, to gradients
  // of inputs that it does not reach. Then nothing was finished.
  bool leaked() const { return leaked_; }

 private:
  // Rows of a block at most.
  static constexpr Index most_block = 512;

  // Rows that one lane of a chain takes, from `row` on in its direction.
  struct Stretch {
    Index row, steps;
    Index ends = -1;  // the sequence whose gradients from later windows enter at `row`
  };

  // What a backward pass adds up over windows.
  struct Collected {
    Params<Scalar> wanted;
    State* carry = nullptr;  // (B, h): dL/ds at the end of the window, from all that follows
    Scalar* sets = nullptr;  // (splits, set_size_)
    double* biases = nullptr;
  };

  // A window on its way through the stages.
  struct Rows {
    Index number = -1;
    Window window;
    Index split_rows = 0;
    bool has_inputs = false;
    Scalar *x = nullptr, *d = nullptr, *s = nullptr, *g = nullptr, *dx = nullptr;
    State* wide = nullptr;  // s, later g, in float64
  };

  // `tasks` tasks of about `work` multiply-adds.
  struct Stage {
    void (Sweep::*task)(Rows&, Index, int) = nullptr;
    Rows* rows = nullptr;
    Index tasks = 0;
    double work = 0;
  };

  // Backward, window by window; false where it had to stop.
  bool backward(Index windows, bool keep, double& loss) {
    for (Index w = windows - 1; w >= 0; --w) {
      Rows& rows = load(w);
      if (!keep && stated_ != w) {
        run_stages({inputs(rows)});
        begin_states(rows);
        run_chain(rows);
        stated_ = w;
      }
      if (!keep || w + 1 == windows) {
        begin_outputs(rows);
        run_stages({outputs(rows)});
        if (!end_outputs(rows, loss)) return false;
      }
      begin_adjoint(rows);
      if (keep) {
        Rows* before = w > 0 ? &load(w - 1) : nullptr;
        Rows* after = w + 1 < windows ? &load(w + 1) : nullptr;
        if (before != nullptr) begin_outputs(*before);
        if (after != nullptr) begin_sums(*after);
        run_chain(rows, before != nullptr ? outputs(*before) : Stage{},
                  after != nullptr ? sums(*after) : Stage{});
        end_adjoint(rows);
        if (before != nullptr && !end_outputs(*before, loss)) return false;
      } else {
        run_chain(rows);
        end_adjoint(rows);
      }
      if (!keep || w == 0) {
        begin_sums(rows);
        run_stages({sums(rows)});
      }
    }
    return true;
  }

  // Cuts time into windows and returns their number.
  Index divide() {
    Index longest = problem_.shape.T;
    if (problem_.lengths != nullptr)
      longest = static_cast<Index>(*std::max_element(problem_.lengths, problem_.lengths + B_));
    steps_ = (longest + model_.L - 1) / model_.L;
    length_ = std::max<Index>(1, std::min(schedule_.window, steps_));
    return std::max<Index>(1, (steps_ + length_ - 1) / length_);
  }

  // What every pass needs: the states of all windows, or of those in flight.
  void allocate(Index windows, bool keep) {
    x_row_ = padded<Scalar>(model_.inputs);
    o_row_ = padded<Scalar>(model_.outputs);
    s_row_ = padded<Scalar>(h_);
    wide_row_ = padded<State>(h_);
    const Index row_size = x_row_ + o_row_ + 2 * s_row_;
    block_ = std::clamp<Index>((Index{1} << 16) / row_size / 8 * 8, 32, most_block);
    const bool forward_alone = static_cast<bool>(evaluated_);
    in_flight_.resize((keep || forward_alone) && windows > 1 ? 3 : 1);
    // Every sequence adds the row of its start state.
    most_rows_ = B_ * (length_ + 1);
    if (windows == 1 && problem_.lengths != nullptr)
      most_rows_ = make_window(problem_, model_.L, 0, steps_).rows;
    first_rows_.assign(static_cast<std::size_t>(windows), 0);
    Index all = 0;
    for (Index w = 0; w < windows; ++w) {
      if (!keep) all = w % static_cast<Index>(in_flight_.size()) * most_rows_;
      first_rows_[static_cast<std::size_t>(w)] = all;
      if (keep) all += make_window(problem_, model_.L, w * length_, (w + 1) * length_).rows;
    }
    if (!keep) all = static_cast<Index>(in_flight_.size()) * most_rows_;
    states_ = workspace_.take<Scalar>(all * s_row_);
    for (Rows& rows : in_flight_) {
      rows.x = workspace_.take<Scalar>(most_rows_ * x_row_);
      rows.d = workspace_.take<Scalar>(most_rows_ * o_row_);
      if constexpr (is_wide) rows.wide = workspace_.take<State>(most_rows_ * wide_row_);
    }
    Index most_lanes = B_;
    if (problem_.block > 0) most_lanes += B_ + most_rows_ * model_.L / problem_.block;
    if (problem_.cuts != nullptr)
      most_lanes +=
          std::min<Index>(most_rows_, std::count(problem_.cuts, problem_.cuts + problem_.shape.T * B_, 1));
    lane_starts_ = workspace_.take<State>(most_lanes * h_);
    kept_ = workspace_.take<State>((windows + 1) * B_ * h_);
    if (problem_.h0 != nullptr)
      std::copy(problem_.h0, problem_.h0 + B_ * h_, kept_);
    else
      std::fill(kept_, kept_ + B_ * h_, State{0});
    if (in_pieces()) jump_T_ = jump_of(run_, workspace_, model_.A_view.transposed(), schedule_.piece);
  }

  bool in_pieces() const { return schedule_.piece > 0 && std::min(length_, steps_) > schedule_.piece; }

  void allocate_backward() {
    for (Rows& rows : in_flight_) {
      rows.g = workspace_.take<Scalar>(most_rows_ * s_row_);
      if (gradients_.x) rows.dx = workspace_.take<Scalar>(most_rows_ * x_row_);
    }
    set_size_ = coarsening_.sums_size();
    biases_size_ = coarsening_.biases_size();
    collected_ = collect_for(gradients_.params);
    if (problem_.d_hT != nullptr) std::copy(problem_.d_hT, problem_.d_hT + B_ * h_, collected_.carry);
    if (gradients_.shift > 0) shifted_ = collect_for(gradients_.shifted);
    losses_ = workspace_.take<double>(schedule_.splits);
    flow_ = model_.A;
    MatrixView<const State> flow = model_.A_view;
    if (problem_.flow != 1) {
      flow = scaled(model_.A_view, problem_.flow);
      flow_ = pack<State>(workspace_, flow);
    }
    if (jump_T_.data != nullptr) jump_ = jump_of(run_, workspace_, flow, schedule_.piece);
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

  MatrixView<const State> scaled(MatrixView<const State> A, double factor) {
    auto* result = workspace_.take<State>(h_ * h_);
    for (Index i = 0; i < h_; ++i)
      for (Index j = 0; j < h_; ++j)
        result[i * h_ + j] =
            static_cast<State>(factor * static_cast<double>(A.data[i * A.row + j * A.column]));
    return {result, h_, h_, h_};
  }

  Rows& load(Index w) {
    Rows& rows = in_flight_[static_cast<std::size_t>(w) % in_flight_.size()];
    if (rows.number == w) return rows;
    rows.number = w;
    rows.has_inputs = false;
    rows.window = make_window(problem_, model_.L, w * length_, (w + 1) * length_);
    rows.split_rows = ((rows.window.rows + schedule_.splits - 1) / schedule_.splits + 7) / 8 * 8;
    rows.s = states_ + first_rows_[static_cast<std::size_t>(w)] * s_row_;
    return rows;
  }

  // --- stages over threads

  void run_stages(std::initializer_list<Stage> stages) {
    Index tasks = 0;
    double work = 0;
    for (const Stage& stage : stages) {
      tasks += stage.tasks;
      work += stage.work * static_cast<double>(stage.tasks);
    }
    if (tasks == 0) return;
    parallel(run_, tasks, work / static_cast<double>(tasks), [&](Index i, int worker) {
      for (const Stage& stage : stages) {
        if (i < stage.tasks) return (this->*stage.task)(*stage.rows, i, worker);
        i -= stage.tasks;
      }
    });
  }

  // A stage of rows that do not depend on one another, a task for each split.
  Stage over_splits(Rows& rows, double work_per_row, void (Sweep::*task)(Rows&, Index, int)) {
    return {task, &rows, schedule_.splits, work_per_row * static_cast<double>(rows.split_rows)};
  }

  // Runs visit(from, to) over the blocks of a split, which are small enough for the second cache.
  template <typename Visit>
  void for_blocks(const Rows& rows, Index split, int worker, double work_per_row, const Visit& visit) {
    const Index end = std::min(rows.window.rows, (split + 1) * rows.split_rows);
    for (Index from = split * rows.split_rows; from < end; from += block_) {
      run_.checkpoint(worker, work_per_row * static_cast<double>(block_));
      visit(from, std::min(end, from + block_));
    }
  }

  // --- s_c = A s_{c-1} + Ctrl x_c + bias_s for all coarse steps of a window

  double work_of_inputs() const { return static_cast<double>(model_.inputs * h_); }
  Stage inputs(Rows& rows) { return over_splits(rows, work_of_inputs(), &Sweep::inputs_of); }

  void inputs_of(Rows& rows, Index split, int worker) {
    for_blocks(rows, split, worker, work_of_inputs(), [&](Index from, Index to) {
      gather_inputs(rows, from, to);
      multiply<Scalar>(to - from, {rows.x + from * x_row_, x_row_}, model_.Ctrl_T, {model_.bias_s, 0},
                       {rows.s + from * s_row_, s_row_});
    });
  }

  void gather_inputs(Rows& rows, Index from, Index to) {
    gather(rows.window, model_.L, problem_.x, problem_.shape.d, from, to, rows.x, x_row_);
  }

  void begin_states(Rows& rows) {
    rows.has_inputs = true;
    stretches_.clear();
    for (const Segment& segment : rows.window.segments)
      stretches_.push_back({segment.first_row, segment.steps, -1});
    begin_chain(rows, rows.s, true);
    for (std::size_t i = 0; i < rows.window.segments.size(); ++i) {
      const Segment& segment = rows.window.segments[i];
      const State* start = kept_ + (rows.number * B_ + segment.sequence) * h_;
      std::copy(start, start + h_, lane_starts_ + static_cast<Index>(i) * h_);
      std::copy(start, start + h_, chain_.base + segment.first_row * chain_row());
    }
  }

  // What the next window starts from. A sequence that ends in this window starts no other.
  void keep_states(const Rows& rows) {
    for (const Segment& segment : rows.window.segments) {
      const State* last = chain_.base + (segment.first_row + segment.steps) * chain_row();
      std::copy(last, last + h_, kept_ + ((rows.number + 1) * B_ + segment.sequence) * h_);
    }
  }

  // --- o, the loss and d_o; what the outputs send back to the states; sums over d_o

  double work_of_outputs() const {
    return static_cast<double>(model_.outputs * (3 * h_ + (model_.direct.empty() ? 0 : 2 * model_.inputs)));
  }
  Stage outputs(Rows& rows) { return over_splits(rows, work_of_outputs(), &Sweep::outputs_of); }

  void begin_outputs(Rows& rows) {
    if (model_.lifted) drop_last_states(rows);
    std::fill(losses_, losses_ + schedule_.splits, 0.0);
    const Index unset = model_.lifted ? rows.window.rows - 1 : 0;  // the one row of g that no outputs reach
    if (rows.window.rows > 0) std::fill(rows.g + unset * s_row_, rows.g + (unset + 1) * s_row_, Scalar{0});
  }

  void outputs_of(Rows& rows, Index split, int worker) {
    for_blocks(rows, split, worker, work_of_outputs(), [&](Index first, Index to) {
      if (!rows.has_inputs) gather_inputs(rows, first, to);
      // Row 0 is a start state: it has no outputs, and nothing before it.
      const Index from = std::max<Index>(first, 1);
      if (first == 0) std::fill(rows.d, rows.d + o_row_, Scalar{0});
      if (from == to) return;
      if (second_) {
        const SequenceView<Scalar>& o = gradients_.o;
        const SequenceView<const Scalar> later{o.at(gradients_.shift, 0), o.step, o.sequence};
        gather(rows.window, model_.L, later, problem_.shape.q, from, to, rows.d, o_row_);
      } else {
        differentiate_outputs(rows, from, to, split);
        if (gradients_.o)
          scatter(rows.window, model_.L, rows.d, o_row_, problem_.shape.q, from, to, gradients_.o);
      }
      send_back(rows, from, to, split);
    });
  }

  // The stage of a forward pass alone.
  Stage evaluations(Rows& rows) { return over_splits(rows, work_of_outputs(), &Sweep::evaluations_of); }

  void evaluations_of(Rows& rows, Index split, int worker) {
    for_blocks(rows, split, worker, work_of_outputs(), [&](Index first, Index to) {
      const Index from = std::max<Index>(first, 1);
      if (from == to) return;
      evaluate_outputs(rows, from, to);
      scatter(rows.window, model_.L, rows.d, o_row_, problem_.shape.q, from, to, evaluated_);
    });
  }

  // The row whose state outputs of row r read: that before it in a lift, its own in the plain model.
  Index state_row() const { return model_.lifted ? -1 : 0; }

  void evaluate_outputs(Rows& rows, Index from, Index to) {
    Scalar* o = rows.d + from * o_row_;
    multiply<Scalar>(to - from, {rows.s + (from + state_row()) * s_row_, s_row_}, model_.Obs_T,
                     {model_.bias_o, 0}, {o, o_row_});
    for (const DirectBand<Scalar>& band : model_.direct) {
      Scalar* part = o + band.first_output;
      multiply<Scalar>(to - from, {rows.x + from * x_row_, x_row_}, band.transposed, {part, o_row_},
                       {part, o_row_});
    }
  }

  void differentiate_outputs(Rows& rows, Index from, Index to, Index split) {
    if (problem_.loss == Loss::given)
      return gather(rows.window, model_.L, problem_.y, problem_.shape.q, from, to, rows.d, o_row_);
    evaluate_outputs(rows, from, to);
    losses_[split] += loss_rows(problem_, rows.window, model_.L, from, to, rows.d, o_row_,
                                targets_ + split * block_ * o_row_);
  }

  void send_back(Rows& rows, Index from, Index to, Index split) {
    const Scalar* o = rows.d + from * o_row_;
    const Scalar* x = rows.x + from * x_row_;
    const Scalar* s = rows.s + (from + state_row()) * s_row_;
    multiply<Scalar>(to - from, {o, o_row_}, model_.Obs, {},
                     {rows.g + (from + state_row()) * s_row_, s_row_});
    const CoarseGradients<Scalar> set = sums_in(split);
    if (set.Obs != nullptr) add_outer(to - from, o, o_row_, model_.outputs, s, s_row_, h_, set.Obs, h_);
    if (set.Direct != nullptr)
      for (const DirectBand<Scalar>& band : model_.direct)
        add_outer(to - from, o + band.first_output, o_row_, band.outputs, x, x_row_, band.inputs,
                  set.Direct + band.first_output * model_.inputs, model_.inputs);
    if (set.bias_o != nullptr) add_rows(to - from, o, o_row_, model_.outputs, set.bias_o);
  }

  // Whether to go on.
  bool end_outputs(Rows& rows, double& loss) {
    rows.has_inputs = true;
    for (Index i = 0; i < schedule_.splits; ++i) loss += losses_[i];
    leaked_ = gradients_.x && !second_ && model_.lifted && !finite_outputs(rows);
    return !leaked_;
  }

  bool finite_outputs(const Rows& rows) const {
    for (Index r = 0; r < rows.window.rows; ++r)
      if (!std::all_of(rows.d + r * o_row_, rows.d + r * o_row_ + model_.outputs,
                       [](Scalar v) { return std::isfinite(v); }))
        return false;
    return true;
  }

  // Row r - 1 of the first row of a sequence is the last state of another. It takes no part, but may have
  // left the range of the scalars, in padded steps too, and 0 times that must stay 0. A plain model still
  // reads it for outputs.
  void drop_last_states(Rows& rows) {
    for (const Segment& segment : rows.window.segments) {
      Scalar* last = rows.s + (segment.first_row + segment.steps) * s_row_;
      std::fill(last, last + h_, Scalar{0});
    }
  }

  // --- g_{c-1} += A^T g_c from the last coarse step to the start state; what arrives there is carried on

  void begin_adjoint(Rows& rows) {
    stretches_.clear();
    for (const Segment& segment : rows.window.segments) add_stretches(rows, segment);
    if (truncated())
      std::stable_sort(stretches_.begin(), stretches_.end(),
                       [](const Stretch& left, const Stretch& right) { return left.steps > right.steps; });
    begin_chain(rows, rows.g, false);
    for (std::size_t i = 0; i < stretches_.size(); ++i) {
      const Stretch& stretch = stretches_[i];
      const Scalar* own = rows.g + stretch.row * s_row_;
      State* start = lane_starts_ + static_cast<Index>(i) * h_;
      std::copy(own, own + h_, start);
      if (stretch.ends >= 0) {
        const State* later = collected_.carry + stretch.ends * h_;
        for (Index n = 0; n < h_; ++n) start[n] += later[n];
      }
      std::copy(start, start + h_, chain_.base + stretch.row * chain_row());
    }
  }

  bool truncated() const { return problem_.block > 0 || problem_.cuts != nullptr; }

  // The stretches of a segment that gradients flow through, the last one first.
  void add_stretches(Rows& rows, const Segment& segment) {
    Index from = segment.first_row + segment.steps, ends = segment.sequence;
    if (truncated())
      for (Index j = segment.steps; j >= 1; --j) {
        if (!problem_.cut(segment.time + (j - 1) * model_.L, segment.sequence)) continue;
        const Index row = segment.first_row + j;
        stretches_.push_back({from, from - row, ends});
        from = row - 1;
        ends = -1;
        // Outputs of a lifted step read the state before it.
        Scalar* before = rows.g + from * s_row_;
        if (model_.lifted) std::fill(before, before + h_, Scalar{0});
      }
    stretches_.push_back({from, from - segment.first_row, ends});
  }

  void end_adjoint(Rows& rows) {
    for (const Segment& segment : rows.window.segments) {
      State* first = chain_.base + segment.first_row * chain_row();
      std::copy(first, first + h_, collected_.carry + segment.sequence * h_);
      // Start states take no part in the sums: row r - 1 of a first row is another sequence's.
      std::fill(first, first + h_, State{0});
      Scalar* g = rows.g + segment.first_row * s_row_;
      std::fill(g, g + h_, Scalar{0});
    }
  }

  // --- sums over the rows, and gradients with respect to inputs

  double work_of_sums() const {
    const Index dx = gradients_.x ? model_.inputs * (h_ + model_.outputs) : 0;
    return static_cast<double>((h_ + model_.inputs) * h_ + dx);
  }
  Stage sums(Rows& rows) { return over_splits(rows, work_of_sums(), &Sweep::sums_of); }

  void begin_sums(Rows& rows) {
    if (!model_.lifted) drop_last_states(rows);
  }

  void sums_of(Rows& rows, Index split, int worker) {
    for_blocks(rows, split, worker, work_of_sums(), [&](Index first, Index to) {
      const Index from = std::max<Index>(first, 1);
      const CoarseGradients<Scalar> set = sums_in(split);
      const Scalar* g = rows.g + from * s_row_;
      const Scalar* x = rows.x + from * x_row_;
      if (set.A != nullptr)
        add_outer(to - from, g, s_row_, h_, rows.s + (from - 1) * s_row_, s_row_, h_, set.A, h_);
      if (set.Ctrl_T != nullptr)
        add_outer(to - from, x, x_row_, model_.inputs, g, s_row_, h_, set.Ctrl_T, h_);
      if (set.bias_s != nullptr) {
        if constexpr (is_wide)
          add_rows(to - from, rows.wide + from * wide_row_, wide_row_, h_, set.bias_s);
        else
          add_rows(to - from, g, s_row_, h_, set.bias_s);
      }
      if (gradients_.x && !second_) input_gradients(rows, first, to);
    });
  }

  void input_gradients(Rows& rows, Index from, Index to) {
    const kernels::Rows<Scalar*> dx{rows.dx + from * x_row_, x_row_};
    multiply<Scalar>(to - from, {rows.g + from * s_row_, s_row_}, model_.Ctrl, {}, dx);
    for (const DirectBand<Scalar>& band : model_.direct)
      multiply<Scalar>(to - from, {rows.d + from * o_row_ + band.first_output, o_row_}, band.straight,
                       {dx.base, dx.stride}, dx);
    scatter(rows.window, model_.L, rows.dx, x_row_, problem_.shape.d, from, to, gradients_.x);
  }

  // Adds up the splits, in their order.
  void hand_over() {
    for (Index split = 1; split < schedule_.splits; ++split) {
      for (Index i = 0; i < set_size_; ++i) collected_.sets[i] += collected_.sets[split * set_size_ + i];
      for (Index i = 0; i < biases_size_; ++i)
        collected_.biases[i] += collected_.biases[split * biases_size_ + i];
    }
    coarsening_.collect(run_, sums_in(0), collected_.wanted);
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
    if (gradients_.x) clear_behind_ends(gradients_.x, problem_.shape.d);
    if (gradients_.o) clear_behind_ends(gradients_.o, problem_.shape.q);
  }

  // Steps behind the end of a sequence influence nothing.
  void clear_behind_ends(SequenceView<Scalar> sequence, Index size) {
    for (Index b = 0; b < B_; ++b)
      for (Index t = problem_.length(b); t < problem_.shape.T; ++t)
        std::fill(sequence.at(t, b), sequence.at(t, b) + size, Scalar{0});
  }

  // --- the chain of states, in their own precision: on the rows themselves or on a wide copy

  static constexpr bool is_wide = sizeof(State) != sizeof(Scalar);

  Index chain_row() const { return is_wide ? wide_row_ : s_row_; }

  void begin_chain(Rows& rows, Scalar* of, bool forward) {
    // A lane for each of stretches_.
    chained_ = of;
    if constexpr (is_wide)
      chain_.base = rows.wide;
    else
      chain_.base = of;
    chain_.packed = forward ? model_.A_T : flow_;
    chain_.size = h_;
    chain_.step = forward ? chain_row() : -chain_row();
    chain_.starts = lane_starts_;
    chain_.jump = forward ? jump_T_ : jump_;
    chain_.piece = chain_.jump.data != nullptr ? schedule_.piece : 0;
    chain_.lanes.clear();
    for (const Stretch& stretch : stretches_)
      chain_.lanes.push_back({(stretch.row + (forward ? 1 : -1)) * chain_row(), stretch.steps});
  }

  // The chain through one window, beside other stages.
  void run_chain(Rows& rows, const Stage& beside = {}, const Stage& beside_too = {}) {
    const auto lanes = static_cast<Index>(chain_.lanes.size());
    if (lanes > 0 && chain_.piece > 0 && chain_.lanes.front().steps > chain_.piece) {
      widen(rows, 0, lanes);
      scan(run_, workspace_, chain_);
      narrow(rows, 0, lanes);
      return run_stages({beside, beside_too});
    }
    lanes_per_task_ = lanes_per_task(std::max<Index>(lanes, 1), run_.threads);
    const Index tasks = (lanes + lanes_per_task_ - 1) / lanes_per_task_;
    const double work =
        static_cast<double>(std::min(lanes_per_task_, lanes) * length_ * h_) * static_cast<double>(h_);
    run_stages({{&Sweep::chain_of, &rows, tasks, work}, beside, beside_too});
  }

  void chain_of(Rows& rows, Index task, int worker) {
    const Index from = task * lanes_per_task_;
    const Index to = std::min(from + lanes_per_task_, static_cast<Index>(chain_.lanes.size()));
    widen(rows, from, to);
    scan_lanes(run_, worker, chain_, from, to);
    narrow(rows, from, to);
  }

  // All but the rows that lanes start from.
  void widen(const Rows& rows, Index from_lane, Index to_lane) {
    if constexpr (is_wide)
      for (Index lane = from_lane; lane < to_lane; ++lane) {
        const auto [low, high] = rows_of(lane);
        for (Index r = low + (chain_.step > 0 ? 1 : 0); r < high + (chain_.step > 0 ? 1 : 0); ++r)
          std::copy(chained_ + r * s_row_, chained_ + r * s_row_ + h_, rows.wide + r * wide_row_);
      }
  }

  void narrow(const Rows& rows, Index from_lane, Index to_lane) {
    if constexpr (is_wide)
      for (Index lane = from_lane; lane < to_lane; ++lane) {
        const auto [low, high] = rows_of(lane);
        for (Index r = low; r <= high; ++r)
          std::transform(rows.wide + r * wide_row_, rows.wide + r * wide_row_ + h_, chained_ + r * s_row_,
                         [](State v) { return static_cast<Scalar>(v); });
      }
  }

  // The lowest and the highest row of a lane.
  std::pair<Index, Index> rows_of(Index lane) const {
    const Stretch& stretch = stretches_[static_cast<std::size_t>(lane)];
    if (chain_.step > 0) return {stretch.row, stretch.row + stretch.steps};
    return {stretch.row - stretch.steps, stretch.row};
  }

  template <typename Value>
  static void add_rows(Index rows, const Value* A, Index row, Index n, double* sum) {
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < n; ++i) sum[i] += static_cast<double>(A[r * row + i]);
  }

  CoarseGradients<Scalar> sums_in(Index split) const {
    return coarsening_.sums(collected_.wanted, collected_.sets + split * set_size_,
                            collected_.biases + split * biases_size_);
  }

  Run& run_;
  Workspace& workspace_;
  const Problem<Scalar>& problem_;
  const Gradients<Scalar>& gradients_;
  const Schedule& schedule_;
  Coarsening<Scalar, State>& coarsening_;
  const CoarseModel<Scalar, State>& model_;
  const Index h_, B_;

  bool leaked_ = false;
  Index steps_ = 0;   // coarse steps of the longest sequence
  Index length_ = 0;  // coarse steps of a window
  Index most_rows_ = 0;
  Index block_ = 0;
  Index x_row_ = 0, o_row_ = 0, s_row_ = 0, wide_row_ = 0;
  std::vector<Rows> in_flight_;
  Scalar* states_ = nullptr;       // s of one window, or of all
  std::vector<Index> first_rows_;  // where each window starts in them
  std::vector<Stretch> stretches_;
  ScanProblem<State> chain_;
  Scalar* chained_ = nullptr;  // the rows that the chain runs through
  Index lanes_per_task_ = 1;
  Packed<State> flow_;            // A, times what flows backwards is multiplied by
  Packed<double> jump_T_, jump_;  // A^piece, for the chain forwards and backwards
  State* lane_starts_ = nullptr;  // (lanes, h)
  State* kept_ = nullptr;         // (windows + 1, B, h): states at the starts of windows
  Index set_size_ = 0, biases_size_ = 0;
  Collected collected_, shifted_;
  SequenceView<Scalar> evaluated_;  // outputs of a forward pass alone
  bool second_ = false;             // whether this is the backward pass for d_o of later steps
  Index stated_ = -1;               // the window whose states are held, where they are not all
  double* losses_ = nullptr;
  Scalar* targets_ = nullptr;  // (splits, block_) rows
};

}  // namespace

namespace {

// The squares of W_hh that a schedule asks for, and the schedule that follows from how many there are.
template <typename Scalar>
struct Plan {
  Squares squares;
  Schedule schedule;
  int levels = 0;

  // Whether the chain of states is to be carried in float64.
  bool wide() const { return levels > 0 && !squares.forgetting; }
};

template <typename Scalar>
Plan<Scalar> plan_with_powers(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                              const Problem<Scalar>& problem, bool input_gradient, const Schedule& schedule) {
  Plan<Scalar> result{{}, schedule, 0};
  if (schedule.levels == 0) return result;
  const Index h = problem.shape.h;
  auto* W_hh = workspace.take<double>(h * h);
  std::copy(params.W_hh, params.W_hh + h * h, W_hh);
  result.squares =
      repeated_squares(run, workspace, h, W_hh, schedule.levels, sizeof(Scalar) == sizeof(double));
  result.levels = static_cast<int>(result.squares.powers.size()) - 1;
  if (result.levels < schedule.levels) {
    // Powers of W_hh grew too large: what was planned for longer chunks does not fit these.
    result.schedule.choices.levels = result.levels;
    result.schedule = plan(problem, params.b_h != nullptr, input_gradient, result.schedule.choices);
  }
  return result;
}

template <typename Scalar>
Schedule without_lift(const Params<const Scalar>& params, const Problem<Scalar>& problem, bool input_gradient,
                      const Schedule& schedule) {
  Choices plain = schedule.choices;
  plain.levels = 0;
  return plan(problem, params.b_h != nullptr, input_gradient, plain);
}

}  // namespace

template <typename Scalar>
double gradient(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                const Problem<Scalar>& problem, const Gradients<Scalar>& gradients, const Schedule& schedule,
                Taken* taken) {
  workspace.reset();
  Taken report;
  const auto input_gradient = static_cast<bool>(gradients.x);
  const auto chosen = plan_with_powers(run, workspace, params, problem, input_gradient, schedule);
  double loss = 0;
  bool leaked = false;
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, problem.shape, params, chosen.squares.powers,
                                         input_gradient);
    Sweep<Scalar, State> sweep(run, workspace, problem, gradients, chosen.schedule, coarsening);
    loss = sweep(report);
    leaked = sweep.leaked();
  };
  if (chosen.wide())
    sweep_in(double{});
  else
    sweep_in(Scalar{});
  if (leaked)
    return gradient(run, workspace, params, problem, gradients, without_lift(params, problem, true, schedule),
                    taken);
  report.schedule = chosen.schedule;
  if (taken != nullptr) *taken = report;
  return loss;
}

template <typename Scalar>
void outputs(Run& run, Workspace& workspace, const Params<const Scalar>& params,
             const Problem<Scalar>& problem, SequenceView<Scalar> o, Scalar* last, const Schedule& schedule) {
  workspace.reset();
  const Shape& s = problem.shape;
  const auto chosen = plan_with_powers(run, workspace, params, problem, false, schedule);
  Index L = 1;
  const auto sweep_in = [&](auto state) {
    using State = decltype(state);
    Coarsening<Scalar, State> coarsening(run, workspace, s, params, chosen.squares.powers, false);
    const Gradients<Scalar> none;
    Sweep<Scalar, State> sweep(run, workspace, problem, none, chosen.schedule, coarsening);
    auto* states = last != nullptr ? workspace.take<State>(s.B * s.h) : nullptr;
    sweep.outputs_alone(o, states);
    if (last != nullptr)
      std::transform(states, states + s.B * s.h, last, [](State v) { return static_cast<Scalar>(v); });
    L = coarsening.model().L;
  };
  if (chosen.wide())
    sweep_in(double{});
  else
    sweep_in(Scalar{});
  if (L == 1) return;
  for (Index t = 0; t < s.T; ++t)
    for (Index b = 0; b < s.B; ++b)
      if (!std::all_of(o.at(t, b), o.at(t, b) + s.q, [](Scalar v) { return std::isfinite(v); }))
        // Through the zeros of a lift's direct term it may have spread to steps before it.
        return outputs(run, workspace, params, problem, o, last,
                       without_lift(params, problem, false, schedule));
  if (last == nullptr) return;
  // The steps behind the last complete chunk.
  const auto W_hh =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hh, s.h, s.h, s.h}.transposed());
  const auto W_hx =
      pack<Scalar>(workspace, MatrixView<const Scalar>{params.W_hx, s.h, s.d, s.d}.transposed());
  auto* next = workspace.take<Scalar>(s.B * s.h);
  for (Index t = s.T / L * L; t < s.T; ++t) {
    multiply<Scalar>(s.B, {problem.x.at(t, 0), problem.x.sequence}, W_hx, {params.b_h, 0}, {next, s.h});
    multiply<Scalar>(s.B, {last, s.h}, W_hh, {next, s.h}, {next, s.h});
    std::copy(next, next + s.B * s.h, last);
  }
}

template void outputs(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                      SequenceView<float>, float*, const Schedule&);
template void outputs(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                      SequenceView<double>, double*, const Schedule&);
template double gradient(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                         const Gradients<float>&, const Schedule&, Taken*);
template double gradient(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                         const Gradients<double>&, const Schedule&, Taken*);

}  // namespace rnnbptt
