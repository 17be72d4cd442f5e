// Tasks over threads.
#pragma once

#include <functional>

#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// Runs task(i, worker) for 0 <= i < tasks on up to run.threads threads, the calling one (worker 0) among
// them, and returns when all are done. `work` is the number of multiply-adds of one task, roughly. The first
// exception of a task ends the others and is thrown here. Tasks must not depend on which worker runs them or
// in what order.
void parallel(Run& run, Index tasks, double work, const std::function<void(Index, int)>& task);

}  // namespace rnnbptt
