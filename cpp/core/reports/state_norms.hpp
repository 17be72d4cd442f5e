// Norms of the states of a recurrence, without the states.
#pragma once

#include "core/runtime/threads.hpp"
#include "core/runtime/workspace.hpp"
#include "rnnbptt/problem.hpp"

namespace rnnbptt {

// log2 ||s_j|| of s_j = W s_{j-1} + U u_j, j = 1 .. steps, for `lanes` recurrences: W is (h, h), U is (h, m),
// u is (lanes, steps, m), s_0 is `start`, (lanes, h), logs is (lanes, steps). -inf for a state of zero. The
// same bits for any number of threads.
void log2_state_norms(Run& run, Workspace& workspace, Index lanes, Index steps, Index h, Index m,
                      const double* W, const double* U, const double* u, const double* start, double* logs);

}  // namespace rnnbptt
