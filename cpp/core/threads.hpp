// Tasks over threads.
#pragma once

#include <functional>
#include <initializer_list>

#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// Runs task(i, worker) for 0 <= i < tasks on up to run.threads threads, the calling one (worker 0) among
// them, and returns when all are done. `work` is the number of multiply-adds of one task, roughly. The first
// exception of a task ends the others and is thrown here. Tasks must not depend on which worker runs them or
// in what order.
void parallel(Run& run, Index tasks, double work, const std::function<void(Index, int)>& task);

// A call of parallel that may run beside others.
struct Stage {
  Index tasks = 0;
  double work = 0;
  std::function<void(Index, int)> task;
};

// Runs stages side by side; their tasks must not depend on one another.
void parallel(Run& run, std::initializer_list<Stage> stages);

}  // namespace rnnbptt
