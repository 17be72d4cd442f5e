// The correlation of two sequences of vectors over many lags.
#pragma once

#include "core/runtime/threads.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// R_k = sum_t a_{t+k} b_t^T for 0 <= k < count, summed over B sequences, by direct sums: a is (T, B, q), b is
// (T, B, m), R is (count, q, m). The same bits for any number of threads.
void correlate(Run& run, Workspace& workspace, Index T, Index B, Index q, Index m, Index count,
               SequenceView<const double> a, SequenceView<const double> b, double* R);

// The same by Fourier transforms of sections of `length` > count steps, a power of two: q + m transforms for
// q m correlations. Rounding errors are of the size of ||a|| ||b||.
void correlate_by_transforms(Run& run, Workspace& workspace, Index T, Index B, Index q, Index m, Index count,
                             Index length, SequenceView<const double> a, SequenceView<const double> b,
                             double* R);

}  // namespace rnnbptt
