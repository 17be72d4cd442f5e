#include "core/algebra/powers.hpp"

#include <algorithm>
#include <cmath>

namespace rnnbptt {

namespace {

// Growth from which on products that are rounded cost a digit.
constexpr double harmless_growth = 4;
// The most that powers up to W^n may grow where none of them forgets errors.
double growth_kept(Index n) { return std::max(harmless_growth, static_cast<double>(n * n) / 4); }
// The largest Frobenius norm of a power: no power of a stable model that may grow by so little has it, and an
// exploding one of this size still multiplies exactly.
constexpr double largest_norm = 1024;
// A power that shrinks states by this factor forgets errors as fast as they come.
constexpr double forgetting_rate = 0.75;
// How much more than squares of a matrix with orthogonal columns those of powers may cancel, and still be
// exact enough for float32.
constexpr double largest_cancellation = 4;

// A matrix as the unevaluated sum of two; `low` may be null for zero.
struct Sum {
  const double* high = nullptr;
  const double* low = nullptr;
};

struct Slices {
  double* leading = nullptr;  // few enough bits below the largest entry of the line that products are exact
  double* rest = nullptr;
};

// Adding and subtracting this leaves `bits` bits of an entry below the largest one of its line.
double rounding_shift(double largest, int bits) {
  int exponent = 0;
  std::frexp(largest, &exponent);
  return largest == 0 ? 0 : std::ldexp(1.5, exponent - bits + 52);
}

// Cuts the leading bits off each row of A, or each column where `by_column`.
Slices slice(Workspace& workspace, Index h, Sum A, bool by_column) {
  const Slices result{workspace.take<double>(h * h), workspace.take<double>(h * h)};
  const int bits = (53 - static_cast<int>(std::ceil(std::log2(static_cast<double>(h))))) / 2;
  auto* shift = workspace.take<double>(h);
  std::fill(shift, shift + h, 0.0);
  if (by_column)
    for (Index i = 0; i < h; ++i)
      for (Index j = 0; j < h; ++j) shift[j] = std::max(shift[j], std::abs(A.high[i * h + j]));
  for (Index i = 0; i < h; ++i) {
    const double* row = A.high + i * h;
    if (!by_column)
      for (Index j = 0; j < h; ++j) shift[i] = std::max(shift[i], std::abs(row[j]));
    shift[i] = by_column ? shift[i] : rounding_shift(shift[i], bits);
  }
  if (by_column)
    for (Index j = 0; j < h; ++j) shift[j] = rounding_shift(shift[j], bits);
  for (Index i = 0; i < h; ++i) {
    const double* high = A.high + i * h;
    double* leading = result.leading + i * h;
    double* rest = result.rest + i * h;
    for (Index j = 0; j < h; ++j) {
      const double s = shift[by_column ? j : i];
      leading[j] = (high[j] + s) - s;
      rest[j] = high[j] - leading[j];
    }
    if (A.low != nullptr)
      for (Index j = 0; j < h; ++j) rest[j] += A.low[i * h + j];
  }
  return result;
}

// C = init + A B; `init` may be null, or C itself.
void multiply_squares(Run& run, Workspace& workspace, Square form, const double* A, const double* B,
                      double* C, const double* init = nullptr) {
  const Index n = form.size;
  if (!form.tangent) return multiply_strided<double>(run, workspace, {A, n, n, n}, {B, n, n, n}, init, C);
  // The lower rows are [U M] [[M, 0], [U, M]]; their right half is the left half of the upper ones.
  const Index h = n / 2;
  const Index lower = h * n, low_right = lower + h;
  multiply_strided<double>(run, workspace, {A + lower, h, n, n}, {B, n, h, n}, init ? init + lower : nullptr,
                           C + lower, n);
  multiply_strided<double>(run, workspace, {A + low_right, h, h, n}, {B + low_right, h, h, n},
                           init ? init + low_right : nullptr, C + low_right, n);
  for (Index i = 0; i < h; ++i) {
    std::copy(C + low_right + i * n, C + low_right + i * n + h, C + i * n);
    std::fill(C + i * n + h, C + (i + 1) * n, 0.0);
  }
}

// A B as a sum of two, right to some 2^-70: the leading slices multiply without any rounding (Ozaki et al.
// 2012), and the rounding of what is left is far below the last bit.
Sum multiply_exact(Run& run, Workspace& workspace, Square form, Sum A, Sum B) {
  const Index h = form.size;
  auto* high = workspace.take<double>(h * h);
  auto* low = workspace.take<double>(h * h);
  const Workspace::Mark mark = workspace.mark();
  const Slices a = slice(workspace, h, A, false);
  const Slices b = slice(workspace, h, B, true);
  multiply_squares(run, workspace, form, a.leading, b.leading, high);
  multiply_squares(run, workspace, form, a.leading, b.rest, low);
  multiply_squares(run, workspace, form, a.rest, B.high, low, low);
  for (Index i = 0; i < h * h; ++i) {
    const double sum = high[i] + low[i];
    const double part = sum - high[i];
    low[i] = (high[i] - (sum - part)) + (low[i] - part);
    high[i] = sum;
  }
  workspace.release_to(mark);
  return {high, low};
}

Sum multiply_plain(Run& run, Workspace& workspace, Square form, Sum A, Sum B) {
  auto* product = workspace.take<double>(form.size * form.size);
  multiply_squares(run, workspace, form, A.high, B.high, product);
  return {product, nullptr};
}

// What powers are made of: W itself, or W balanced; and the rate at which its states explode.
struct Basis {
  const double* W;
  const double* scales = nullptr;
  double rate = 1;
};

// Powers up to W^n, or to the last one before they grow too large; `growth` includes the next one then.
PowerChain powers_to(Run& run, Workspace& workspace, Square form, const Basis& basis, Index n, bool exact) {
  const auto multiply = exact ? multiply_exact : multiply_plain;
  Growth growth(workspace, form, basis.rate);
  growth.add(1, basis.W);
  std::vector<Power> result{{1, basis.W, nullptr, growth.value()}};
  Index digit = 1;
  while (digit <= n / 2) digit *= 2;
  while (result.back().n < n && growth.value() <= largest_growth) {
    const Power last = result.back();
    const bool add = last.n == n / digit - 1;  // the digits so far end in a one
    if (!add) digit /= 2;
    const Power& factor = add ? result.front() : last;
    const Sum next = multiply(run, workspace, form, {last.matrix, last.low}, {factor.matrix, factor.low});
    const Index reached = add ? last.n + 1 : 2 * last.n;
    growth.add(reached, next.high);
    if (!(growth.value() <= largest_growth) || !(frobenius(form.size * form.size, next.high) <= largest_norm))
      break;
    result.push_back({reached, next.high, next.low, growth.value()});
  }
  return {std::move(result), growth.value()};
}

// Exact powers are three times as expensive: they are built where products of plain ones lose digits, or
// where the last of them does not forget errors.
PowerChain powers_as_needed(Run& run, Workspace& workspace, Square form, const double* W, Index n,
                            bool exact) {
  Basis basis{W};
  PowerChain result = powers_to(run, workspace, form, basis, n, false);
  if (result.powers.back().n < n) {
    const Power& last = result.powers.back();
    Basis other{W, balancing_scales(workspace, form, W),
                exploding_rate(run, workspace, form, last.matrix, last.n)};
    if (other.scales != nullptr) other.W = scaled(workspace, form, other.scales, false, W);
    if (other.scales != nullptr || other.rate > 1) {
      PowerChain more = powers_to(run, workspace, form, other, n, false);
      if (more.powers.back().n > last.n) {
        result = std::move(more);
        basis = other;
      }
    }
  }
  if (exact && result.powers.size() > 1) {
    const bool forgets = growth_rate(run, workspace, form, result.powers.back().matrix) <= forgetting_rate;
    // The last rounding of W^L points the same way in each of the T / L chunks, and nothing forgets it.
    if (!forgets)
      while (result.powers.size() > 1 && result.powers.back().growth > growth_kept(result.powers.back().n))
        result.powers.pop_back();
    if (!forgets || result.growth > harmless_growth) {
      const double growth = result.growth;
      result = powers_to(run, workspace, form, basis, result.powers.back().n, true);
      result.growth = growth;
    }
  }
  if (basis.scales == nullptr) return result;
  result.powers.front().matrix = W;
  for (std::size_t i = 1; i < result.powers.size(); ++i) {
    Power& power = result.powers[i];
    power.matrix = scaled(workspace, form, basis.scales, true, power.matrix);
    if (power.low != nullptr) power.low = scaled(workspace, form, basis.scales, true, power.low);
  }
  return result;
}

// Whether nothing cancels in the products: ||A|| ||B|| / ||A B|| is sqrt(h) for orthogonal columns.
bool well_conditioned(Index h, const std::vector<Power>& powers) {
  const double most = largest_cancellation * std::sqrt(static_cast<double>(h));
  for (std::size_t i = 0; i + 1 < powers.size(); ++i) {
    const bool doubled = powers[i + 1].n == 2 * powers[i].n;
    const double norm = frobenius(h * h, powers[i].matrix);
    const double other = doubled ? norm : frobenius(h * h, powers.front().matrix);
    if (!(norm * other <= most * frobenius(h * h, powers[i + 1].matrix))) return false;
  }
  return true;
}

}  // namespace

PowerChain build_powers(Run& run, Workspace& workspace, Square form, const double* W, Index n, bool exact) {
  PowerChain result = powers_as_needed(run, workspace, form, W, n, exact);
  if (!exact)
    result.forgetting = growth_rate(run, workspace, form, result.powers.back().matrix) <= forgetting_rate &&
                        well_conditioned(form.size, result.powers);
  return result;
}

const double* Squarings::operator[](int k) {
  for (int next = static_cast<int>(squares_.size()); next <= k; ++next) {
    const Sum P{squares_.back().matrix, squares_.back().low};
    const Sum square = next <= exact_ ? multiply_exact(run_, workspace_, {h_}, P, P)
                                      : multiply_plain(run_, workspace_, {h_}, P, P);
    squares_.push_back({Index{1} << next, square.high, square.low});
  }
  return squares_[static_cast<std::size_t>(k)].matrix;
}

const double* power_of(Run& run, Workspace& workspace, Index h, const double* W, Index n, bool exact) {
  const std::vector<Power> powers = powers_as_needed(run, workspace, {h}, W, n, exact).powers;
  return powers.back().n == n ? powers.back().matrix : nullptr;
}

}  // namespace rnnbptt
