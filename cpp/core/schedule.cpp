#include "core/schedule.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace rnnbptt {
namespace {

// Costs are in cycles of a core with 8-wide float64 vectors, fitted to measured times. What matters is their
// proportion, which differs little between processors.
constexpr Index longest_chunk = 64;
constexpr Index longest_dividing_chunk = 256;  // where L has to divide something, which few lengths do
constexpr double cycles_per_call = 40;         // entering a product
constexpr double cycles_per_lift = 3000;       // entering and leaving a lift
constexpr double cycles_per_round = 1500;      // the dozen small products of one doubling and its gradient
constexpr double cycles_per_window = 15000;  // beyond what a pass straight through the caller's arrays takes
constexpr double cycles_per_copy = 40;       // of a state
constexpr double default_memory = 256.0 * 1024 * 1024;
constexpr double cached_bytes = 1.2e6;  // rows of a window, for the second caches of a few cores
constexpr double rows_per_window = 8192;
constexpr double least_window = 8;  // coarse steps: each window adds the row of a start state
constexpr Index shortest_piece = 16;
constexpr double in_registers = 8;  // states up to this size are scanned in registers

double ceil_div(double a, double b) { return std::ceil(a / b); }

// A product with many rows: few columns leave vectors half empty.
double product_cycles(double rows, double depth, double columns, double width) {
  return rows * depth * ceil_div(columns, width) * 1.1 + cycles_per_call;
}

// One step of the recurrence on some lanes; one or two lanes wait for the latency of the sums.
double step_cycles(double lanes, double h, double width) {
  if (h <= in_registers) return lanes * (8 + 3 * h);
  // One or two lanes are taken over two panels of three vectors at once.
  const double vectors = lanes <= 2 ? 6 * ceil_div(h, 6 * width) : ceil_div(h, width);
  const double tiles = ceil_div(lanes, 8);
  const double resident = h * h * 64 / width < 30e3 ? 1.0
                          : lanes < 4               ? 2.2
                                                    : 1.1;  // weights beyond the first cache
  return cycles_per_call + tiles * h * std::max(4.0, std::min(lanes, 8.0) * vectors) * resident;
}

double pieces_cost(double h, double lanes, double steps, double piece, double width) {
  const double pieces = ceil_div(steps, piece);
  const double powers = (std::log2(piece) + 1) * product_cycles(h, h, h, 8);
  return 2 * ceil_div(lanes * pieces, 64) * piece * step_cycles(std::min(64.0, lanes * pieces), h, width) +
         lanes * pieces * (step_cycles(1, h, 8) + 4 * h) + powers;
}

struct Scanned {
  double cycles;
  Index piece;
};

Scanned best_scan(double h, double lanes, double steps, double width) {
  const double plain = ceil_div(lanes, 64) * steps * step_cycles(std::min(lanes, 64.0), h, width);
  Scanned best{plain, 0};
  // States no wider than a vector are scanned in registers: there is nothing to gain from more lanes.
  if (lanes >= 8 || h <= in_registers) return best;
  for (Index piece = shortest_piece; piece * 2 <= static_cast<Index>(steps); piece *= 2) {
    // An odd length: starts of pieces a power of two apart would fall into the same sets of the cache.
    const double cost = pieces_cost(h, lanes, steps, static_cast<double>(piece + 1), width);
    // Pieces keep threads busy where there is enough to do: then they may cost a little more in all.
    const double worth = plain > 1e6 ? 1.3 : plain > 3e5 ? 1.1 : 0.6;
    if (cost < worth * plain && (best.piece == 0 || cost < best.cycles)) best = {cost, piece + 1};
  }
  return best;
}

// The lengths that chunks may have, ascending. d_hT enters at the last state of a sequence, which lies at the
// end of a chunk only if L divides the sequence's length. Gradients can be cut between chunks only: L divides
// the block. An L that has nothing to divide is a power of two, which takes doublings alone, or as
// prescribed.
template <typename Scalar>
std::vector<Index> lengths_allowed(const Problem<Scalar>& problem, const Choices& choices) {
  if (problem.flow != 1) return {1};  // any step may be cut
  Index divided = problem.block;
  if (problem.d_hT != nullptr)
    for (Index b = 0; b < problem.shape.B; ++b) divided = std::gcd(divided, problem.length(b));
  std::vector<Index> result;
  for (Index L = 1; L <= (divided > 0 ? longest_dividing_chunk : longest_chunk); ++L)
    if (divided > 0 ? divided % L == 0 : (L & (L - 1)) == 0 || L == choices.lift) result.push_back(L);
  return result;
}

// Rounds in which W_hh^L is reached: doublings, and steps that are added.
double rounds_to(Index L) {
  const auto digits = static_cast<std::size_t>(L);
  return static_cast<int>(std::bit_width(digits)) - 1 + std::popcount(digits) - 1;
}

// What the cycles of a problem depend on.
struct Work {
  double B, d, h, q;
  double inputs;          // d, and one for a bias
  double part;            // states of a chain
  double total, longest;  // steps of all sequences, and of the longest one
  double width;           // scalars of a vector
  Goal goal;
  bool tangent;

  bool back() const { return goal == Goal::gradients || input_gradient(); }
  bool input_gradient() const { return goal == Goal::input_gradients; }
};

template <typename Scalar>
Work work_of(const Problem<Scalar>& problem, bool bias, Goal goal) {
  const Shape& s = problem.shape;
  const auto B = static_cast<double>(s.B), d = static_cast<double>(s.d), h = static_cast<double>(s.h);
  // Of sequences that are all empty as of one step.
  const auto longest = static_cast<double>(std::max<Index>(problem.longest(), 1));
  double total = problem.lengths == nullptr ? longest * B : 0;
  for (Index b = 0; problem.lengths != nullptr && b < s.B; ++b)
    total += static_cast<double>(problem.length(b));
  return {.B = B,
          .d = d,
          .h = h,
          .q = static_cast<double>(s.q),
          .inputs = d + (bias ? 1 : 0),
          .part = problem.tangent ? h / 2 : h,
          .total = total,
          .longest = longest,
          .width = 64.0 / sizeof(Scalar),
          .goal = goal,
          .tangent = problem.tangent};
}

// Cycles with L steps in one, and pieces of the chain's scan; the counts of products are those of
// row_stages.cpp.
Scanned estimate_of(const Work& work, Index steps) {
  const double d = work.d, h = work.h, q = work.q, part = work.part, width = work.width;
  const auto L = static_cast<double>(steps);
  const double rows = work.total / L + 2 * work.B;
  const double in = L * d, out = L * q;
  const bool lifted = steps > 1, tangent = work.tangent, back = work.back();
  // Of a tangent model three quarters of a matrix are not zero; sums of a plain one are wanted for two of
  // them.
  const double filled = tangent ? 0.75 : 1, sums = tangent && !lifted ? 0.5 : filled;
  double cycles = product_cycles(rows, in, h, width) + filled * product_cycles(rows, h, out, width);
  if (lifted) cycles += product_cycles(rows, in, out, width);
  if (lifted && work.goal == Goal::states)
    cycles += cycles_per_window + L * (product_cycles(rows, d, h, width) + product_cycles(rows, h, h, width) +
                                       rows * (cycles_per_copy + h / width));
  if (back)
    cycles += filled * product_cycles(rows, out, h, width) +
              product_cycles(in, rows, tangent && !lifted ? part : h, width) +
              sums * (product_cycles(out, rows, h, width) + product_cycles(h, rows, h, width)) +
              (lifted ? product_cycles(out, rows, in, width) : 0);
  if (work.input_gradient())
    cycles += product_cycles(rows, h, in, width) + (lifted ? product_cycles(rows, out, in, width) : 0);
  cycles += rows * 30;
  const Scanned scanned = best_scan(part, work.B, ceil_div(work.longest, L), lifted ? 8 : width);
  const double chain =
      tangent ? 2 * scanned.cycles + product_cycles(rows, part, part, width) : scanned.cycles;
  cycles += (back ? 2 : 1) * chain;
  if (lifted) {
    const double duals = tangent ? 0.375 : 1;  // three products of half the size for one
    const double products = back ? 3 : 1;      // two for the gradient of each
    cycles += products * product_cycles(L * (filled * work.inputs + duals * q), h, h, 8) +
              rounds_to(steps) * (products * duals * product_cycles(h, h, h, 8) + cycles_per_round) +
              products * product_cycles(q, h, L * work.inputs, 8) + cycles_per_lift + in * out * 2;
  }
  return {cycles, scanned.piece};
}

}  // namespace

Index plan_piece(Index h, Index lanes, Index steps) {
  return best_scan(static_cast<double>(h), static_cast<double>(lanes), static_cast<double>(steps), 8).piece;
}

template <typename Scalar>
Schedule plan(const Problem<Scalar>& problem, bool bias, Goal goal, const Choices& choices) {
  const Work work = work_of(problem, bias, goal);
  const double h = work.h, q = work.q, B = work.B, d = work.d, longest = work.longest;
  Schedule best;
  best.choices = choices;
  double best_cycles = std::numeric_limits<double>::infinity();
  for (const Index L : lengths_allowed(problem, choices)) {
    if (choices.lift > 0 ? L > choices.lift : L > 1 && longest < static_cast<double>(8 * L)) break;
    const Scanned estimate = estimate_of(work, L);
    if (choices.lift > 0 || estimate.cycles < best_cycles) {
      best_cycles = estimate.cycles;
      best.L = L;
      best.piece = estimate.piece;
    }
  }
  if (choices.piece >= 0) best.piece = choices.piece;

  const auto L = static_cast<double>(best.L);
  // Per coarse row: states; and inputs, outputs and gradients of states in flight.
  const double state_bytes = sizeof(Scalar) * h;
  const double flight_bytes = sizeof(Scalar) * (L * d * (work.input_gradient() ? 2 : 1) + L * q + h) +
                              (sizeof(Scalar) == 4 && best.L > 1 ? 8 * h : 0);
  const double steps = ceil_div(longest, L);
  const double limit = choices.memory_limit > 0 ? choices.memory_limit : default_memory;
  const double sums = h * h + (L * d + L * q) * h + (best.L > 1 ? L * d * L * q : 0);
  const bool large = sums * sizeof(Scalar) > 512e3;
  const Index most_splits = large ? 8 : 16;
  // Packed matrices; powers, their exact sums and transposes; matrices of the lift and their gradients.
  const double model_bytes =
      sizeof(Scalar) * 2 * sums + (best.L > 1 ? 8 * (h * h * (6 * rounds_to(best.L) + 8) +
                                                     4 * L * (work.inputs + q) * h + 2 * L * d * L * q)
                                              : 0);
  const auto splits_for = [&](double window) {
    // A split pays for zeroing and adding up its sums where it has many more rows than that costs, and for
    // being a task where it takes longer than handing a task over.
    if (choices.splits > 0) return choices.splits;
    const double rows_per_split = std::max(large ? 128.0 : 56.0, 1e5 / sums);
    Index splits = 1;
    while (splits < most_splits && static_cast<double>(splits) * 2 * rows_per_split <= window * B)
      splits *= 2;
    return splits;
  };
  const auto bytes = [&](double window, bool keep_all) {
    const double windows = ceil_div(steps, window), rows = (window + 1) * B;
    const double strip = std::min(512.0, rows) * L * q;  // targets of a strip
    const bool all = keep_all && windows > 1;
    return (all ? 3 : 1) * rows * flight_bytes +
           (all ? work.total / L + 2 * windows * B : rows) * state_bytes +
           (windows + 3) * B * h * sizeof(double) + model_bytes +
           static_cast<double>(splits_for(window)) * sizeof(Scalar) * (sums + strip);
  };
  // Windows that stay in the caches, but have rows enough to be worth loading the weights and a meeting of
  // all threads. All states are kept if they fit; if not, windows are as short as memory asks for.
  double window = std::max(cached_bytes / (state_bytes + flight_bytes), std::max(512.0, 2 * h)) / B;
  window = std::max(window, least_window);
  window = steps < 2 * window ? steps : ceil_div(steps, std::floor(steps / window));
  best.keep_all_states = choices.keep_all_states != 0;
  if (choices.keep_all_states < 0 && bytes(window, true) > limit) {
    best.keep_all_states = false;
    window = std::clamp(std::floor(rows_per_window / B), 1.0, steps);
    while (window > 1 && bytes(window, false) > limit &&
           bytes(std::floor(window / 2), false) < bytes(window, false))
      window = std::floor(window / 2);
  }
  if (choices.window > 0) window = std::min(static_cast<double>(choices.window), steps);
  best.window = static_cast<Index>(window);
  best.splits = splits_for(window);
  best.memory = bytes(window, best.keep_all_states);
  if (choices.memory_limit > 0 && best.memory > choices.memory_limit) throw OutOfMemory(best.memory, true);
  // Beside other windows' stages the chain of a window costs no time of its own, so it is not cut into
  // pieces.
  if (choices.piece < 0 && window < steps)
    best.piece =
        best.keep_all_states ? 0 : best_scan(work.part, B, window, best.L > 1 ? 8 : work.width).piece;

  return best;
}

template Schedule plan(const Problem<float>&, bool, Goal, const Choices&);
template Schedule plan(const Problem<double>&, bool, Goal, const Choices&);

}  // namespace rnnbptt
