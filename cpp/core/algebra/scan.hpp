// The recurrence s_j = v_j + s_{j-1} M on many lanes side by side, in place.
#pragma once

#include <vector>

#include "core/algebra/products.hpp"

namespace rnnbptt {

struct Lane {
  Index first = 0;  // where state 1 lies, from the base
  Index steps = 0;
};

// v_1..v_n of every lane lie at base + first + j * step; they become s_1..s_n. s_0 of lane i is row i of
// `starts`. Lanes with more steps come first.
//
// With `piece` > 0, lanes are cut into pieces of that many steps that run as lanes of their own: a first pass
// finds what each piece adds to its last state, `jump` = M^piece joins the pieces, and a second pass fills
// them in. This doubles the arithmetic and divides the number of steps that wait for one another.
template <typename Scalar>
struct ScanProblem {
  Index size = 0;
  Scalar* base = nullptr;
  Index step = 0;
  const Scalar* starts = nullptr;  // (lanes, size)
  std::vector<Lane> lanes;
  Packed<Scalar> packed;
  Index piece = 0;
  Packed<double> jump;
};

// M^piece for a scan; without data where the power is too large: then `piece` must be 0.
template <typename Scalar>
Packed<double> jump_of(Run& run, Workspace& workspace, MatrixView<const Scalar> M, Index piece);

template <typename Scalar>
void scan(Run& run, Workspace& workspace, const ScanProblem<Scalar>& problem);

// Lanes of one task. No bit of a result depends on it.
Index lanes_per_task(Index lanes, int threads);

// Scans the lanes [from, to) without pieces: one task of a stage.
template <typename Scalar>
void scan_lanes(Run& run, int worker, const ScanProblem<Scalar>& problem, Index from, Index to);

}  // namespace rnnbptt
