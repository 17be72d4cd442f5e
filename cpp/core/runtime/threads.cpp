#include "core/runtime/threads.hpp"

#include <pthread.h>
#include <signal.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
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

constexpr int most_threads = 1024;

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
        fail();
      }
    }
  }

  // Looks for Ctrl-C; called by the calling thread while it waits.
  void listen() noexcept {
    try {
      constexpr double enough_to_look = 1e9;
      run->checkpoint(0, enough_to_look);
    } catch (...) {
      fail();
    }
  }

 private:
  void fail() {
    const std::lock_guard lock(error_mutex);
    if (!error) error = std::current_exception();
    run->stop();
  }
};

}  // namespace

// Workers that sleep between jobs. One job at a time; a call that finds the pool busy works alone.
class Pool {
 public:
  // Starts workers when jobs ask for them.
  Pool() = default;

  // Starts none: `lent` threads are to call serve().
  explicit Pool(int lent) : grows_(false) {
    for (int i = 0; i < lent; ++i) workers_.push_back(std::make_unique<Worker>());
  }

  void serve(int number) { loop(*workers_[static_cast<std::size_t>(number - 1)], number); }

  void close() noexcept {
    closed_.store(true, std::memory_order_release);
    for (const auto& worker : workers_) {
      worker->posted.fetch_add(1, std::memory_order_release);
      worker->posted.notify_one();
    }
  }

  bool run(Job& job, int threads) {
    const std::unique_lock lock(busy_, std::try_to_lock);
    if (!lock.owns_lock()) return false;
    const auto helpers = static_cast<std::size_t>(threads - 1);
    if (grows_) grow(helpers);
    const std::size_t available = std::min(helpers, workers_.size());
    job.working.store(static_cast<int>(available), std::memory_order_relaxed);
    for (std::size_t i = 0; i < available; ++i) {
      Worker& worker = *workers_[i];
      worker.job.store(&job, std::memory_order_release);
      worker.posted.fetch_add(1, std::memory_order_release);
      worker.posted.notify_one();
    }
    job.work(0);
    // No tasks are left for workers that have not woken up yet: their job is taken back, not waited for.
    for (std::size_t i = 0; i < available; ++i)
      if (workers_[i]->job.exchange(nullptr, std::memory_order_acq_rel) != nullptr)
        job.working.fetch_sub(1, std::memory_order_acq_rel);
    wait_for_others(job);
    return true;
  }

 private:
  struct Worker {
    std::atomic<unsigned> posted{0};
    std::atomic<Job*> job{nullptr};
  };

  // Starts workers until there are `wanted`, or as many as are to be had.
  void grow(std::size_t wanted) {
    try {
      workers_.reserve(wanted);
      while (workers_.size() < wanted) {
        auto worker = std::make_unique<Worker>();
        start(*worker, static_cast<int>(workers_.size()) + 1);
        workers_.push_back(std::move(worker));
      }
    } catch (const std::system_error&) {  // no more threads
    } catch (const std::bad_alloc&) {     // no memory for one
    }
  }

  // Signals are for the threads that Python knows.
  void start(Worker& worker, int number) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this, &worker, number] { loop(worker, number); }).detach();
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // The calling thread goes on listening for Ctrl-C while others finish their last task.
  static void wait_for_others(Job& job) {
    while (job.working.load(std::memory_order_acquire) > 0) {
      for (int i = 0; i < spins_before_sleep && job.working.load(std::memory_order_acquire) > 0; ++i) relax();
      if (job.working.load(std::memory_order_acquire) == 0) return;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      job.listen();
    }
  }

  void loop(Worker& worker, int number) const {
    for (unsigned seen = 0; !closed_.load(std::memory_order_acquire);) {
      seen = wait_for_change(worker.posted, seen);
      Job* job = worker.job.exchange(nullptr, std::memory_order_acq_rel);
      if (job == nullptr) continue;  // taken back, or closed
      job->work(number);
      job->working.fetch_sub(1, std::memory_order_acq_rel);  // the job may be gone from here on
    }
  }

  const bool grows_ = true;
  std::atomic<bool> closed_{false};
  std::mutex busy_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

namespace {

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
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int initial_threads() {
  const char* text = std::getenv("RNNBPTT_NUM_THREADS");
  if (text != nullptr && *text != '\0') {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > most_threads)
      throw std::runtime_error(std::string("RNNBPTT_NUM_THREADS must be an integer from 1 to ") +
                               std::to_string(most_threads) + ", not '" + text + "'");
    return static_cast<int>(value);
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
    Pool& workers = run.lent != nullptr ? *run.lent->pool_ : pool();
    if (workers.run(job, threads)) {
      if (job.error) std::rethrow_exception(job.error);
      return;
    }
  }
  for (Index i = 0; i < tasks; ++i) {
    run.checkpoint(0, work);
    task(i, 0);
  }
}

void parallel(Run& run, std::initializer_list<Stage> stages) {
  Index tasks = 0;
  double work = 0;
  for (const Stage& stage : stages) {
    tasks += stage.tasks;
    work += stage.work * static_cast<double>(stage.tasks);
  }
  if (tasks == 0) return;
  parallel(run, tasks, work / static_cast<double>(tasks), [&](Index i, int worker) {
    for (const Stage& stage : stages) {
      if (i < stage.tasks) return stage.task(i, worker);
      i -= stage.tasks;
    }
  });
}

LentThreads::LentThreads(int count) : pool_(std::make_unique<Pool>(count)) {}
LentThreads::~LentThreads() = default;
void LentThreads::serve() noexcept { pool_->serve(arrived_.fetch_add(1, std::memory_order_relaxed) + 1); }
void LentThreads::give_back() noexcept { pool_->close(); }

void prepare_threads() {
  pool();
  threads_setting();
}

int default_threads() { return threads_setting().load(std::memory_order_relaxed); }
void set_default_threads(int threads) { threads_setting().store(threads, std::memory_order_relaxed); }

}  // namespace rnnbptt
