#include "core/threads.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace rnnbptt {
namespace {

// Phases of one call follow each other within microseconds: a worker that slept between them would come too
// late.
constexpr int spins_before_sleep = 20000;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `value` differs from `old`: spinning first, then asleep.
template <typename Value>
Value wait_for_change(const std::atomic<Value>& value, Value old) {
  for (int i = 0; i < spins_before_sleep; ++i) {
    const Value now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    relax();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

struct Job {
  const std::function<void(Index, int)>* task = nullptr;
  Run* run = nullptr;
  Index tasks = 0;
  double work_per_task = 0;
  std::atomic<Index> next{0};
  std::atomic<int> working{0};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work(int worker) noexcept {
    for (;;) {
      const Index i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= tasks) return;
      try {
        run->checkpoint(worker, work_per_task);
        (*task)(i, worker);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        run->stop();
      }
    }
  }
};

// Workers that sleep between jobs. One job at a time; whoever finds the pool busy works alone.
class Pool {
 public:
  bool run(Job& job, int threads) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    const auto helpers = static_cast<std::size_t>(threads - 1);
    try {
      while (workers_.size() < helpers) {
        auto worker = std::make_unique<Worker>();
        Worker& reference = *worker;
        const int number = static_cast<int>(workers_.size()) + 1;
        std::thread([&reference, number] { loop(reference, number); }).detach();
        workers_.push_back(std::move(worker));
      }
    } catch (const std::system_error&) {
      // No more threads to be had: go on with those that there are.
    }
    const std::size_t available = std::min(helpers, workers_.size());
    job.working.store(static_cast<int>(available), std::memory_order_relaxed);
    for (std::size_t i = 0; i < available; ++i) {
      Worker& worker = *workers_[i];
      worker.job.store(&job, std::memory_order_release);
      worker.posted.fetch_add(1, std::memory_order_release);
      worker.posted.notify_one();
    }
    job.work(0);
    // Nothing is left to do for workers that have not woken up yet: take their part back rather than wait for
    // them.
    for (std::size_t i = 0; i < available; ++i)
      if (workers_[i]->job.exchange(nullptr, std::memory_order_acq_rel) != nullptr)
        job.working.fetch_sub(1, std::memory_order_acq_rel);
    for (int left = job.working.load(std::memory_order_acquire); left > 0;)
      left = wait_for_change(job.working, left);
    return true;
  }

 private:
  struct Worker {
    std::atomic<unsigned> posted{0};
    std::atomic<Job*> job{nullptr};
  };

  static void loop(Worker& worker, int number) {
    for (unsigned seen = 0;;) {
      seen = wait_for_change(worker.posted, seen);
      Job* job = worker.job.exchange(nullptr, std::memory_order_acq_rel);
      if (job == nullptr) continue;  // taken back
      job->work(number);
      // The job may be gone as soon as the count is down: the notification goes to an address, not an object.
      std::atomic<int>& working = job->working;
      working.fetch_sub(1, std::memory_order_acq_rel);
      working.notify_one();
    }
  }

  std::mutex busy_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

// Never destroyed: detached workers may outlive every static object.
std::atomic<Pool*> shared_pool{nullptr};

Pool& pool() {
  static const bool registered = [] {
    shared_pool.store(new Pool, std::memory_order_release);
    // The child of a fork has none of its parent's threads, and perhaps their locks: it starts afresh.
    pthread_atfork(nullptr, nullptr, [] { shared_pool.store(new Pool, std::memory_order_release); });
    return true;
  }();
  static_cast<void>(registered);
  return *shared_pool.load(std::memory_order_acquire);
}

int available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int initial_threads() {
  if (const char* text = std::getenv("RNNBPTT_NUM_THREADS")) {
    const int value = std::atoi(text);
    if (value >= 1) return value;
  }
  return available_cpus();
}

std::atomic<int>& threads_setting() {
  static std::atomic<int> value{initial_threads()};
  return value;
}

}  // namespace

void parallel(Run& run, Index tasks, double work, const std::function<void(Index, int)>& task) {
  // Below some fifteen microseconds of work, handing a part to a thread takes longer than doing without.
  constexpr double worth_a_thread = 1.2e5;
  const bool alone = work * static_cast<double>(tasks) < worth_a_thread;
  const int threads = alone ? 1 : static_cast<int>(std::min<Index>(run.threads, tasks));
  if (threads > 1) {
    Job job;
    job.task = &task;
    job.run = &run;
    job.tasks = tasks;
    job.work_per_task = work;
    if (pool().run(job, threads)) {
      if (job.error) std::rethrow_exception(job.error);
      return;
    }
  }
  for (Index i = 0; i < tasks; ++i) {
    run.checkpoint(0, work);
    task(i, 0);
  }
}

int default_threads() { return threads_setting().load(std::memory_order_relaxed); }
void set_default_threads(int threads) { threads_setting().store(threads, std::memory_order_relaxed); }

}  // namespace rnnbptt
