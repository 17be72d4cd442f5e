// Tasks over threads.
#pragma once

#include <atomic>
#include <functional>
#include <initializer_list>
#include <memory>

#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

class Pool;

// Runs task(i, worker) for 0 <= i < tasks on up to run.threads threads, the calling one (worker 0) among
// them, and returns when all are done. `work` is the number of multiply-adds of one task, roughly. The first
// exception of a task ends the others and is thrown here. Tasks must not depend on which worker runs them or
// in what order.
void parallel(Run& run, Index tasks, double work, const std::function<void(Index, int)>& task);

// The tasks of a call of parallel() that may run beside others.
struct Stage {
  Index tasks = 0;
  double work = 0;
  std::function<void(Index, int)> task;
};

// Runs stages side by side; their tasks must not depend on one another.
void parallel(Run& run, std::initializer_list<Stage> stages);

// Threads of another library that work for a call, in place of this library's own. They spin and sleep
// between its phases as those do.
class LentThreads {
 public:
  explicit LentThreads(int count);
  ~LentThreads();
  LentThreads(const LentThreads&) = delete;
  LentThreads& operator=(const LentThreads&) = delete;

  // Works for the call until threads are given back. To be called on each of the `count` threads; those that
  // come late, or never, are not waited for.
  void serve() noexcept;

  // Ends serve() on all of them. To be called on the thread of the call.
  void give_back() noexcept;

 private:
  friend void parallel(Run&, Index, double, const std::function<void(Index, int)>&);
  std::unique_ptr<Pool> pool_;
  std::atomic<int> arrived_{0};
};

}  // namespace rnnbptt
