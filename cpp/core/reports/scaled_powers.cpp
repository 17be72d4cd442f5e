#include "core/reports/scaled_powers.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace rnnbptt {
namespace {

// Digits to begin with; enough for powers without a transient to speak of.
constexpr int first_digits = 4;
// Most bits of a number: 2^-bits must be in the range of float64.
constexpr int most_bits = 900;
// Powers below W^(2^low_bits) are kept: all but one in 2^low_bits successive powers then take one product.
constexpr int low_bits = 4;

// A matrix as a number in base 2^b whose digits are matrices of integers, the leading one first:
//
//     sum_i digit_i 2^(-b i) 2^exponent,    |digit_i| <= 2^(b-1),
//
// with b such that products of digits are sums of integers below 2^52, which no float64 kernel rounds.
struct Number {
  double* digits = nullptr;   // (count, h, h)
  double* rounded = nullptr;  // (h, h), their sum as float64, in units of 2^exponent
  int used = 0;               // digits up to the last that is not zero throughout
  double exponent = 0;        // an integer; float64, for it may pass 2^63
  // In units of 2^exponent:
  double norm = 0;       // not below the 2-norm
  double frobenius = 0;  // of the digits
  double error = 0;      // not below the Frobenius norm of what the digits lack
};

// Combines f(entry) of n entries, in eight results of which none waits for another.
template <typename Function, typename Combine>
double reduce(Index n, const double* A, Function f, Combine combine) {
  double results[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (Index j = 0; j < 8; ++j) results[j] = combine(results[j], f(A[i + j]));
  for (; i < n; ++i) results[0] = combine(results[0], f(A[i]));
  for (int j = 1; j < 8; ++j) results[0] = combine(results[0], results[j]);
  return results[0];
}

double frobenius(Index n, const double* A) {
  const auto square = [](double x) { return x * x; };
  return std::sqrt(reduce(n, A, square, [](double a, double b) { return a + b; }));
}

double largest(Index n, const double* A) {
  const auto modulus = [](double x) { return std::abs(x); };
  return reduce(n, A, modulus, [](double a, double b) { return a > b ? a : b; });
}

bool zero(Index n, const double* A) {
  return std::all_of(A, A + n, [](double x) { return x == 0; });
}

// Arithmetic of (h, h) matrices with `count` digits.
class Arithmetic {
 public:
  Arithmetic(Run& run, Workspace& workspace, Index h, int count)
      : run_(run), workspace_(workspace), h_(h), count_(count), bits_(bits_for(h, count)) {
    reversed_ = workspace.take<double>(count * size());
    product_ = workspace.take<double>((front + count) * size());
    over_ = workspace.take<double>(size());
    gram_ = workspace.take<double>(size());
    square_ = workspace.take<double>(size());
  }

  // How many bits a digit may have so that `count` h products of two add up below 2^52.
  static int bits_for(Index h, int count) {
    const double terms = static_cast<double>(h) * count;
    return (54 - static_cast<int>(std::ceil(std::log2(terms)))) / 2;
  }

  int bits() const { return bits_; }
  Index size() const { return h_ * h_; }

  Number read(const double* W) {
    Number result = blank();
    int exponent = 0;
    std::frexp(largest(size(), W), &exponent);
    exponent -= bits_ - 1;
    result.exponent = exponent;
    bool rest = false;
    for (Index i = 0; i < size(); ++i) {
      double x = std::ldexp(W[i], -exponent);
      for (int s = 0; s < count_; ++s) {
        const double digit = std::nearbyint(x);
        result.digits[s * size() + i] = digit;
        x = std::ldexp(x - digit, bits_);
      }
      rest = rest || x != 0;
    }
    finish(result, rest ? last_digit() : 0);
    return result;
  }

  // A B. Its memory may be used again after give_back().
  Number multiply(const Number& A, const Number& B) {
    Number result = blank();
    // Digit s of the product, before carries, is [A_s | ... | A_0] [B_0; ...; B_s].
    const Index row = count_ * h_;
    for (int s = 0; s < A.used; ++s)
      for (Index i = 0; i < h_; ++i)
        std::copy_n(A.digits + s * size() + i * h_, h_, reversed_ + i * row + (count_ - 1 - s) * h_);
    for (int s = 0; s < count_; ++s) {
      const int from = std::max(0, s - A.used + 1), to = std::min(s, B.used - 1);
      double* C = product_ + (front + s) * size();
      if (from > to) {
        std::fill_n(C, size(), 0.0);
        continue;
      }
      const Index depth = (to - from + 1) * h_;
      multiply_strided<double>(run_, workspace_, {reversed_ + (count_ - 1 - s + from) * h_, h_, depth, row},
                               {B.digits + from * size(), depth, h_, h_}, nullptr, C);
    }
    double dropped = 0;
    if (A.used + B.used > count_ + 1)  // in each digit behind the last, fewer than `count` products of digits
      dropped = static_cast<double>(count_ * h_ * h_) * std::ldexp(1.0, bits_ * (2 - count_) - 1);
    // (A + E)(B + F) - A B
    dropped += A.norm * B.error + B.norm * A.error + A.error * B.error;
    carry();
    normalise(A.exponent + B.exponent, dropped, result);
    return result;
  }

  // A B in float64 alone, for a result that no other is computed from; without digits and `norm`.
  Number multiply_rounded(const Number& A, const Number& B) {
    Number result;
    result.rounded = product_;
    multiply_strided<double>(run_, workspace_, {A.rounded, h_, h_, h_}, {B.rounded, h_, h_, h_}, nullptr,
                             product_);
    result.exponent = A.exponent + B.exponent;
    result.frobenius = frobenius(size(), product_);
    const double eps = static_cast<double>(h_ + 8) * 0x1p-53;
    result.error = A.norm * B.error + B.norm * A.error + A.error * B.error + eps * A.frobenius * B.frobenius;
    return result;
  }

  void give_back(const Number& A) { spare_.push_back(A.digits); }

 private:
  static constexpr int front = 2;  // digits for carries before the first of a product

  Number blank() {
    Number result;
    if (spare_.empty()) {
      result.digits = workspace_.take<double>((count_ + 1) * size());
    } else {
      result.digits = spare_.back();
      spare_.pop_back();
    }
    result.rounded = result.digits + count_ * size();
    return result;
  }

  // Leaves digits of at most 2^(b-1) in the product, but for the first of all, which is small.
  void carry() {
    const double down = std::ldexp(1.0, -bits_), up = std::ldexp(1.0, bits_);
    std::fill_n(product_, front * size(), 0.0);
    for (int s = front + count_ - 1; s > 0; --s) {
      double* digit = product_ + s * size();
      double* next = digit - size();
      for (Index i = 0; i < size(); ++i) {
        const double over = nearest(digit[i] * down);
        digit[i] -= over * up;
        next[i] += over;
      }
    }
  }

  // Copies the digits of the product that lead, shifted by the power of two that fills the first one.
  // `exponent` and `error` are those of the product.
  void normalise(double exponent, double error, Number& result) {
    const int length = front + count_;
    int first = 0;
    double top = 0;
    while (first < length && (top = largest(size(), product_ + first * size())) == 0) ++first;
    if (first == length) {
      std::fill_n(result.digits, count_ * size(), 0.0);
      result.exponent = exponent;
      return finish(result, error);
    }
    int shift = 0;
    while (std::ldexp(top + 1, shift + 1) <= std::ldexp(1.0, bits_ - 1)) ++shift;
    const double scale = std::ldexp(1.0, shift);
    const double down = std::ldexp(1.0, -bits_), up = std::ldexp(1.0, bits_);
    std::fill_n(over_, size(), 0.0);
    bool rest = false;  // something is lost behind the last digit
    for (int s = first + count_; s < length; ++s) rest = rest || !zero(size(), product_ + s * size());
    for (int s = std::min(length - 1, first + count_); s > first; --s) {
      double* digit = product_ + s * size();
      for (Index i = 0; i < size(); ++i) {
        const double x = digit[i] * scale + over_[i];
        over_[i] = nearest(x * down);
        digit[i] = x - over_[i] * up;
      }
    }
    double* leading = product_ + first * size();
    for (Index i = 0; i < size(); ++i) leading[i] = leading[i] * scale + over_[i];
    const Index kept = std::min(length - first, count_) * size();
    std::copy_n(leading, kept, result.digits);
    std::fill(result.digits + kept, result.digits + count_ * size(), 0.0);
    const int up_by = bits_ * (first - front) + shift;
    result.exponent = exponent - up_by;
    finish(result, std::ldexp(error, up_by) + (rest ? last_digit() : 0));
  }

  // The Frobenius norm of what is cut off behind the last digit.
  double last_digit() const { return static_cast<double>(h_) * std::ldexp(1.0, -bits_ * (count_ - 1)); }

  // Sets all that follows from the digits.
  void finish(Number& A, double error) {
    A.error = error;
    A.used = count_;
    while (A.used > 0 && zero(size(), A.digits + (A.used - 1) * size())) --A.used;
    std::fill_n(A.rounded, size(), 0.0);
    for (int s = std::min(A.used, 4) - 1; s >= 0; --s) {
      const double unit = std::ldexp(1.0, -bits_ * s);
      for (Index i = 0; i < size(); ++i) A.rounded[i] += A.digits[s * size() + i] * unit;
    }
    A.frobenius = frobenius(size(), A.rounded);
    // ||A||_2^4 = ||(A^T A)^2||_2 is not above the Frobenius norm, which is at most sqrt(h) times as large:
    // the bound is within the eighth root of h.
    const MatrixView<const double> view{A.rounded, h_, h_, h_};
    multiply_strided<double>(run_, workspace_, view.transposed(), view, nullptr, gram_);
    multiply_strided<double>(run_, workspace_, {gram_, h_, h_, h_}, {gram_, h_, h_, h_}, nullptr, square_);
    A.norm = std::sqrt(std::sqrt(frobenius(size(), square_))) * (1 + 1e-6);
  }

  // The nearest integer, for |x| < 2^51.
  static double nearest(double x) {
    constexpr double shift = 0x1.8p52;
    return (x + shift) - shift;
  }

  Run& run_;
  Workspace& workspace_;
  Index h_;
  int count_, bits_;
  double *reversed_, *product_, *over_, *gram_, *square_;
  std::vector<double*> spare_;
};

// W^k for ascending k, from W^1, W^2, ..., W^15, W^16, W^32, W^64, ... and the power that shares the leading
// bits of k: every factor is itself a power of W, so that no error passes through more than log2 k products.
class Powers {
 public:
  Powers(Arithmetic& arithmetic, const double* W) : arithmetic_(arithmetic), low_(1 << low_bits) {
    low_[1] = arithmetic.read(W);
  }

  // W^k for 0 < k < 2^low_bits.
  const Number& low(std::uint64_t k) {
    if (low_[k].digits == nullptr) {
      const std::uint64_t half = k & (k - 1);  // without its last bit
      low_[k] = half == 0 ? arithmetic_.multiply(low(k / 2), low(k / 2))
                          : arithmetic_.multiply(low(half), low(k - half));
    }
    return low_[k];
  }

  // W^(2^(low_bits + level)).
  const Number& square(std::size_t level) {
    while (squares_.size() <= level) {
      const Number& root = squares_.empty() ? low(1 << (low_bits - 1)) : squares_.back();
      squares_.push_back(arithmetic_.multiply(root, root));
    }
    return squares_[level];
  }

  // W^(k 2^low_bits) for k > 0; k may not fall from call to call.
  const Number& high(std::uint64_t k) {
    while (!prefixes_.empty() && (k & ~(prefixes_.back().lowest - 1)) != prefixes_.back().k) {
      if (prefixes_.size() > 1) arithmetic_.give_back(prefixes_.back().power);  // the first is a square
      prefixes_.pop_back();
    }
    for (std::uint64_t left = prefixes_.empty() ? k : k - prefixes_.back().k; left > 0;) {
      int level = 0;
      while (left >> (level + 1) > 0) ++level;
      const std::uint64_t bit = std::uint64_t{1} << level;
      const Number& factor = square(static_cast<std::size_t>(level));
      if (prefixes_.empty())
        prefixes_.push_back({bit, bit, factor});
      else
        prefixes_.push_back(
            {prefixes_.back().k + bit, bit, arithmetic_.multiply(prefixes_.back().power, factor)});
      left -= bit;
    }
    return prefixes_.back().power;
  }

 private:
  struct Prefix {
    std::uint64_t k, lowest;  // lowest: its last bit
    Number power;
  };

  Arithmetic& arithmetic_;
  std::vector<Number> low_, squares_;
  std::vector<Prefix> prefixes_;
};

// Bits that the result lacks: its error is to be below 2^-bits / h of its Frobenius norm.
double bits_short(Index h, int bits, const Number& result) {
  if (result.error == 0) return 0;
  const double sure = result.frobenius - result.error;
  if (!(sure > 0)) return most_bits;
  return std::max(0.0, std::log2(result.error / sure * static_cast<double>(h)) + bits);
}

// The first power that is zero because paths along the nonzeros of W are no longer; `beyond` if there is
// none. Digits alone would not tell zero from very small.
std::uint64_t longest_path(Index h, const double* W, std::uint64_t beyond) {
  std::vector<char> ends(static_cast<std::size_t>(h), 1);  // of a path of k steps
  for (Index k = 1; k <= h; ++k) {
    std::vector<char> next(static_cast<std::size_t>(h), 0);
    bool any = false;
    for (Index i = 0; i < h; ++i)
      for (Index j = 0; j < h && !next[static_cast<std::size_t>(i)]; ++j)
        if (W[i * h + j] != 0 && ends[static_cast<std::size_t>(j)])
          next[static_cast<std::size_t>(i)] = any = true;
    if (!any) return static_cast<std::uint64_t>(k);
    ends.swap(next);
  }
  return beyond;
}

// Writes A with its largest entry in [1/2, 1).
void write(Index size, const Number& A, double* mantissa, double& exponent) {
  int shift = 0;
  const double top = largest(size, A.rounded);
  std::frexp(top, &shift);
  const double scale = std::ldexp(1.0, -shift);
  for (Index i = 0; i < size; ++i) mantissa[i] = A.rounded[i] * scale;
  exponent = top > 0 ? A.exponent + shift : 0;
}

}  // namespace

void scaled_powers(Run& run, Workspace& workspace, Index h, const double* W, Index count,
                   const std::int64_t* ks, int bits, double* mantissas, double* exponents) {
  const Index size = h * h;
  const std::uint64_t zero_from = longest_path(h, W, std::numeric_limits<std::uint64_t>::max());
  int digits = first_digits;
  for (Index i = 0; i < count;) {
    const Workspace::Mark mark = workspace.mark();
    Arithmetic arithmetic(run, workspace, h, digits);
    Powers powers(arithmetic, W);
    const bool more = (digits + 1) * Arithmetic::bits_for(h, digits + 1) <= most_bits;
    double lacking = 0;
    for (; i < count; ++i) {
      double* mantissa = mantissas + i * size;
      const auto k = static_cast<std::uint64_t>(ks[i]);
      if (k == 0 || k >= zero_from) {
        std::fill_n(mantissa, size, 0.0);
        for (Index j = 0; k == 0 && j < h; ++j) mantissa[j * h + j] = 1;
        exponents[i] = 0;
        continue;
      }
      const std::uint64_t low = k % (1 << low_bits), high = k >> low_bits;
      if (low == 0 || high == 0) {
        const Number& power = low == 0 ? powers.high(high) : powers.low(low);
        lacking = bits_short(h, bits, power);
        if (lacking > 0 && more) break;
        write(size, power, mantissa, exponents[i]);
        continue;
      }
      const Number &A = powers.high(high), &B = powers.low(low);
      Number power = arithmetic.multiply_rounded(A, B);
      if (bits_short(h, bits, power) > 0) {
        power = arithmetic.multiply(A, B);
        arithmetic.give_back(power);  // not overwritten before the next product
      }
      lacking = bits_short(h, bits, power);
      if (lacking > 0 && more) break;
      write(size, power, mantissa, exponents[i]);
    }
    workspace.release_to(mark);
    if (i == count) break;
    // No fewer digits than are lacking, and so many that few rounds are needed where that is not known.
    int wanted = std::max(digits + digits / 2, digits + 2);
    if (lacking < most_bits)
      wanted = std::max(wanted, digits + 2 + static_cast<int>(lacking) / arithmetic.bits());
    // Every doubling of k loses about as many bits as the one before: enough for the last power, too.
    const double spent = digits * arithmetic.bits() - bits;
    const double further = std::log2(static_cast<double>(ks[count - 1]) / static_cast<double>(ks[i])) /
                           std::log2(1 + static_cast<double>(ks[i]));
    wanted = std::max(wanted, digits + static_cast<int>(std::min(spent * further, 1e3)) / arithmetic.bits());
    while (digits < wanted && (digits + 1) * Arithmetic::bits_for(h, digits + 1) <= most_bits) ++digits;
  }
}

}  // namespace rnnbptt
