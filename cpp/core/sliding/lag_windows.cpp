#include "core/sliding/lag_windows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>

namespace rnnbptt {
namespace {

// Norm of a power up to which all powers after it together weigh less than those before it.
constexpr double forgets = 0.5;
// Ratio up to which whole sequences are taken: finding what enters blocks would cost more time than it is
// worth.
constexpr double cancels_little = 8;
// Base-2 logarithm of a norm of W_hh^tau that is below every rounding.
constexpr double negligible_norm = -85;
// Relative error of W_hh^tau that does no harm, in roundings, over h.
constexpr double plain_squares = 4;

int digits_of(Index n) { return static_cast<int>(std::bit_width(static_cast<std::size_t>(n))); }

// The mean of what grows or decays geometrically from a to b.
double logarithmic_mean(double a, double b) {
  const double growth = std::log(b / a);
  return std::abs(growth) < 1e-6 ? a : (b - a) / growth;
}

}  // namespace

template <typename Scalar>
LagWindows::LagWindows(Run& run, Workspace& workspace, const Params<const Scalar>& params,
                       const Problem<Scalar>& problem, const PowerChain& powers, Index L)
    : run_(run), workspace_(workspace), h_(problem.shape.h), tau_(problem.tau) {
  std::vector<Power> squares;
  for (const Power& power : powers.powers)
    if (power.n == Index{1} << squares.size()) squares.push_back(power);
  if (squares.empty()) squares.push_back({1, copy_as<double>(workspace, params.W_hh, h_ * h_)});
  choose_block(problem.longest(), L, std::move(squares), sizeof(Scalar) == sizeof(double));
}

void LagWindows::choose_block(Index steps, Index L, std::vector<Power> squares, bool exact) {
  squares_.emplace(run_, workspace_, h_, squares, 0);
  beyond_ = tau_ < steps;
  if (!beyond_) return;
  if (const std::optional<double> bound = negligible()) {
    lost_ = *bound;
    beyond_ = false;
    return;
  }
  if (powers_grow()) return;
  lost_ = norm_of(tau_);
  if (lost_ <= forgets || !std::isfinite(lost_)) return;
  measure(steps);
  Index longest = steps;
  if (!(ratio(steps) <= cancels)) {
    longest = 1;
    for (Index high = steps; high - longest > 1;) {
      const Index middle = longest + (high - longest) / 2;
      (ratio(middle) <= cancels ? longest : high) = middle;
    }
  }
  // As short as holds a lag window in whole chunks; where that would cancel, the longest power of two that
  // does not: join() has its powers from the squares.
  const auto power_of_two = static_cast<Index>(std::bit_floor(static_cast<std::size_t>(longest)));
  const Index unit = std::min(L, power_of_two), needed = (tau_ + unit - 1) / unit * unit;
  block_ = needed <= longest ? needed : power_of_two;
  // Blocks are worth their two passes where they halve what is taken away.
  const double all = ratio(steps);
  if (all <= cancels_little || (longest == steps && all < 2 * ratio(block_))) block_ = 0;
  // Squaring doubles relative errors; those along the eigenvectors, one in h or so, add up. So errors of the
  // first squares count most, and those are the ones to be exact.
  const double weight = block_ > 0 ? std::max(ratio(block_), 1.0) : all;
  const double harmless = plain_squares * static_cast<double>(h_);
  const double doublings = std::log2(static_cast<double>(tau_) * weight / harmless);
  const auto exact_squares = static_cast<int>(std::ceil(std::clamp(doublings, 0.0, 62.0)));
  if (exact && exact_squares > static_cast<int>(squares.size())) {
    if (squares.back().low == nullptr) squares.resize(1);
    squares_.emplace(run_, workspace_, h_, std::move(squares), exact_squares);
  }
  // All squares that carry_over() needs are taken now: what is taken later may be released.
  (*squares_)[digits_of(tau_) - 1];
}

// A bound of ||W_hh^tau|| by norms of squares, up to the first square by which it is negligible, if it is. A
// square may be off by what its factors are off, times their norms, and by its own rounding: where powers
// grow and decay again by cancelling, that may be all there is of it.
std::optional<double> LagWindows::negligible() {
  const double rounding = static_cast<double>(h_) * 0x1p-53;
  double bound = 0;  // log2, of W_hh to the lower digits of tau
  double norm = 0, error = 0;
  for (int k = 0; k < digits_of(tau_); ++k) {
    if (k > 0) error = error * (2 * norm + error) + rounding * norm * norm;
    norm = frobenius(h_ * h_, (*squares_)[k]);
    const double size = std::log2(norm + error);
    const double whole = bound + static_cast<double>(tau_ >> k) * size;
    if (whole < negligible_norm) return std::exp2(whole);
    if ((tau_ >> k & 1) != 0) bound += size;
  }
  return std::nullopt;
}

bool LagWindows::powers_grow() {
  if (!powers_grow_) {
    std::vector<const double*> squares;
    for (int k = 0; k < digits_of(tau_); ++k) squares.push_back(square(k));
    powers_grow_ = !(growth_of(run_, workspace_, {h_}, squares) <= largest_growth);
  }
  return *powers_grow_;
}

// Adds nodes at powers of two and at tau: up to `steps`, to the first power that forgets, or to the first
// length of a block that would cancel.
void LagWindows::measure(Index steps) {
  nodes_ = {{0, 1, 0}};
  const auto add = [this](Index n, double norm) {
    const Node& last = nodes_.back();
    const double mean = n == 1 ? 1 : logarithmic_mean(last.norm, norm);
    nodes_.push_back({n, norm, last.amount + static_cast<double>(n - last.n) * mean});
  };
  const auto decided = [&](const Node& last) {
    return last.n >= steps || last.norm <= forgets || (last.n >= tau_ && ratio(last.n) > cancels);
  };
  for (int k = 0; !decided(nodes_.back()); ++k) {
    const Index n = Index{1} << k;
    if (nodes_.back().n < tau_ && tau_ < n) add(tau_, lost_);
    add(n, n == tau_ ? lost_ : norm_of(n));
  }
}

// What is taken away, relative to what is left, by norms:
//
//   ||W^tau|| sum_{i<block} ||W^i|| / sum_{i<tau} ||W^i||
double LagWindows::ratio(Index block) const { return lost_ / amount(tau_) * amount(block); }

// sum_{i<n} ||W_hh^i||, between two nodes as if norms grew or decayed geometrically.
double LagWindows::amount(Index n) const {
  const auto next = std::lower_bound(nodes_.begin(), nodes_.end(), n,
                                     [](const Node& node, Index steps) { return node.n < steps; });
  if (next == nodes_.end()) return 2 * nodes_.back().amount;  // those that follow weigh less
  if (next->n == n) return next->amount;
  const Node& last = *(next - 1);
  const double part = static_cast<double>(n - last.n) / static_cast<double>(next->n - last.n);
  const double norm = last.norm * std::pow(next->norm / last.norm, part);
  return last.amount + static_cast<double>(n - last.n) * logarithmic_mean(last.norm, norm);
}

// ||W_hh^n||_2 by a round of the power method: a lower bound, right to some tenths.
double LagWindows::norm_of(Index n) {
  constexpr Index rows = 4;
  for (int k = 0; k < digits_of(n); ++k) (*squares_)[k];  // not released below
  const Workspace::Mark mark = workspace_.mark();
  auto* v = workspace_.take<double>(rows * h_);
  std::uint32_t state = 1;
  for (Index i = 0; i < rows * h_; ++i)
    v[i] = static_cast<double>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23 - 1;
  apply(n, rows, v, false);
  // Squares of a row's entries may be out of range where the row is not.
  const auto normalise = [&](double* row) {
    double largest = 0;
    for (Index j = 0; j < h_; ++j) largest = std::max(largest, std::abs(row[j]));
    if (!(largest > 0)) return largest;
    for (Index j = 0; j < h_; ++j) row[j] /= largest;
    const double size = frobenius(h_, row);
    for (Index j = 0; j < h_; ++j) row[j] /= size;
    return size * largest;
  };
  for (Index i = 0; i < rows; ++i) normalise(v + i * h_);
  apply(n, rows, v, true);
  double norm = 0;
  for (Index i = 0; i < rows; ++i) norm = std::max(norm, normalise(v + i * h_));
  workspace_.release_to(mark);
  return norm;
}

void LagWindows::carry_over(Index rows, double* A, bool transposed) { apply(tau_, rows, A, transposed); }

// A <- A W_hh^n, one binary digit of n after the other.
void LagWindows::apply(Index n, Index rows, double* A, bool transposed) {
  for (int k = 0; k < digits_of(n); ++k) {
    if ((n >> k & 1) == 0) continue;
    const MatrixView<const double> power{(*squares_)[k], h_, h_, h_}, given{A, rows, h_, h_};
    const Workspace::Mark mark = workspace_.mark();
    auto* product = workspace_.take<double>(rows * h_);
    if (transposed) {
      // (W A^T)^T: the power is read along its rows.
      multiply_strided<double>(run_, workspace_, power, given.transposed(), nullptr, product);
      for (Index i = 0; i < rows; ++i)
        for (Index j = 0; j < h_; ++j) A[i * h_ + j] = product[j * rows + i];
    } else {
      multiply_strided<double>(run_, workspace_, given, power, nullptr, product);
      std::copy(product, product + rows * h_, A);
    }
    workspace_.release_to(mark);
  }
}

// entering_b = sum_{n < ahead} (W^T)^(n c) all_{b+n} + (W^T)^(ahead c) first_{b+ahead} for blocks of c steps.
// The sums over 1, 2, 4, ... blocks follow from one another; those of the binary digits of `ahead` are
// joined.
template <typename State>
void LagWindows::join(Index blocks, Index rows, const State* all_steps, const State* first_steps,
                      State* entering) {
  const Index size = rows * h_, ahead = blocks_ahead();
  const int own = digits_of(block_) - 1;  // where blocks are ahead, c is 2^own
  const auto power = [&](int k) { return MatrixView<const double>{(*squares_)[own + k], h_, h_, h_}; };
  for (int k = 0; k < digits_of(ahead); ++k) power(k);
  auto* result = workspace_.take<double>(blocks * size);
  auto* total = workspace_.take<double>(blocks * size);
  auto* spare = workspace_.take<double>(blocks * size);
  if (first_steps != nullptr)
    std::copy(first_steps, first_steps + blocks * size, result);
  else
    std::fill(result, result + blocks * size, 0.0);
  if (all_steps != nullptr) std::copy(all_steps, all_steps + blocks * size, total);
  // later_b <- from_b + later_{b+n} W^(n c), rows of zeros behind the last block.
  const auto put_before = [&](int k, const double* from, double* later) {
    const Index n = Index{1} << k, left = std::max<Index>(blocks - n, 0);
    if (left > 0)
      multiply_strided<double>(run_, workspace_, {later + n * size, left * rows, h_, h_}, power(k), from,
                               spare);
    std::copy(spare, spare + left * size, later);
    if (from != later) std::copy(from + left * size, from + blocks * size, later + left * size);
  };
  for (int k = 0; k < digits_of(ahead); ++k) {
    if ((ahead >> k & 1) != 0) put_before(k, total, result);
    if (ahead >> (k + 1) != 0) put_before(k, total, total);
  }
  std::transform(result, result + blocks * size, entering, [](double v) { return static_cast<State>(v); });
}

template LagWindows::LagWindows(Run&, Workspace&, const Params<const float>&, const Problem<float>&,
                                const PowerChain&, Index);
template LagWindows::LagWindows(Run&, Workspace&, const Params<const double>&, const Problem<double>&,
                                const PowerChain&, Index);
template void LagWindows::join(Index, Index, const float*, const float*, float*);
template void LagWindows::join(Index, Index, const double*, const double*, double*);

}  // namespace rnnbptt
