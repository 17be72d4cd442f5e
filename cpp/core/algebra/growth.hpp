// How far powers of a matrix grow before they decay.
//
// A product with W^k rounds by eps |W^k| |s| in every direction, and powers stretch what it rounds once more.
// Where W is far from normal the recursion step by step may lose much less: the states that it visits need
// never grow, and a row that moves a state along, as those of a companion matrix do, does not round at all.
// So chunks of L steps cost accuracy by
//
//   growth = max_{k <= L} (largest norm of a row of W^k) * max_{k <= L} (largest norm of a column of W^k),
//
// the most a state can be stretched by rounding it, and a rounding by time. What states grow by themselves,
// at a spectral radius r above one, is no loss: norms are divided by r^k. Matrices of Gaussian numbers have 1
// to 4, and 10 at a spectral radius of one; the companion matrix of a Butterworth filter of order 8 has 10^5.
#pragma once

#include <vector>

#include "core/algebra/products.hpp"

namespace rnnbptt {

// The form of square matrices: any, or that of models of states and tangents, [[M, 0], [U, M]], which
// products preserve.
struct Square {
  Index size = 0;
  bool tangent = false;

  Index part() const { return tangent ? size / 2 : size; }
  // M within the matrix: its lower right corner.
  const double* state_part(const double* A) const { return tangent ? A + part() * size + part() : A; }
};

// The most that powers may grow, of W as it is or balanced. In 3,200 problems of companion matrices, Jordan
// blocks and other strongly non-normal W (tests/non_normal.py) no gradient used up more than half of the
// error it is allowed; with 64 one came to nine tenths, with more they break it by factors up to thirty.
constexpr double largest_growth = 16;

// The growth of the powers that were added. That of a model of states and tangents is M's.
class Growth {
 public:
  // States grow by `rate` a step in the long run.
  Growth(Workspace& workspace, Square form, double rate = 1);

  void add(Index n, const double* power);
  double value() const { return row_ * column_; }

 private:
  const Square form_;
  const double rate_;
  double* columns_;
  double row_ = 0, column_ = 0;
};

// Powers of two s that make norms of rows and columns of D^-1 M D alike, D = diag(s): (form.part(),), or null
// where they are so already (Parlett and Reinsch 1969, in the 2-norm as James, Langou and Lowery 2014).
const double* balancing_scales(Workspace& workspace, Square form, const double* W);

// A copy of A with entries A_ij s_j / s_i, or A_ij s_i / s_j where `back`; of all four parts of a model of
// states and tangents. Exact.
const double* scaled(Workspace& workspace, Square form, const double* scales, bool back, const double* A);

// The growth of W^1, W^2, W^4, ..., as they are or balanced, whichever is less.
double growth_of(Run& run, Workspace& workspace, Square form, const std::vector<const double*>& squares);

// The rate at which applying P shrinks or stretches a state in the long run, by so many steps of the power
// method. That of [[M, 0], [U, M]] is M's.
double growth_rate(Run& run, Workspace& workspace, Square form, const double* P, int settling = 6,
                   int measured = 4);

// The rate a step of a W whose states explode, from P = W^n; 1 where they do not.
double exploding_rate(Run& run, Workspace& workspace, Square form, const double* P, Index n);

// sqrt(sum of squares) of n numbers.
double frobenius(Index n, const double* A);

}  // namespace rnnbptt
