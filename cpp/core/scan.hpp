// The recurrence s_j = v_j + s_{j-1} M on many lanes side by side, in place.
#pragma once

#include <vector>

#include "core/products.hpp"

namespace rnnbptt {

struct Lane {
  Index first = 0;  // where state 1 lies, from the base
  Index steps = 0;
};

// v_1..v_n of every lane lie at base + first + j * step; they become s_1..s_n. s_0 of lane i is row i of
// `starts`. Lanes with more steps come first.
//
// With `piece` > 0, lanes are cut into pieces of that many steps that run as lanes of their own: a first pass
// finds what each piece adds to its last state, powers of M join the pieces, and a second pass fills them in.
// This doubles the arithmetic and divides the number of steps that wait for one another. M is that of the
// packed matrix.
template <typename Scalar>
struct ScanProblem {
  Index size = 0;
  Scalar* base = nullptr;
  Index step = 0;
  const Scalar* starts = nullptr;  // (lanes, size)
  std::vector<Lane> lanes;
  Packed<Scalar> packed;
  MatrixView<const Scalar> M;
  Index piece = 0;
};

template <typename Scalar>
void scan(Run& run, Workspace& workspace, const ScanProblem<Scalar>& problem);

}  // namespace rnnbptt
