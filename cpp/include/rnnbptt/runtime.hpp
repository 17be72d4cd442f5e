// How a call runs: threads, interruption, and the errors the core reports.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <utility>

namespace rnnbptt {

// The caller asked to stop (Ctrl-C).
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// Memory that could not be had: `bytes` is what was asked for. `limited`: the caller's own limit forbids it.
struct OutOfMemory : std::exception {
  explicit OutOfMemory(double bytes, bool limited = false) : bytes(bytes), limited(limited) {}
  double bytes;
  bool limited;
  const char* what() const noexcept override { return "out of memory"; }
};

class LentThreads;

// One call of the engine: how many threads it may use, and how it learns that it should stop.
class Run {
 public:
  // `poll` runs on the calling thread only and returns true when the call should stop.
  Run(int threads, std::function<bool()> poll) : threads(threads), poll_(std::move(poll)) {}

  const int threads;
  // Threads of another library that are to work in place of this one's, or null; see
  // core/runtime/threads.hpp.
  LentThreads* lent = nullptr;

  // Throws Interrupted if the call should stop. To be called before each `work` multiply-adds. Worker 0, the
  // calling thread, alone looks at the clock, and that only after enough work to make it worth while.
  void checkpoint(int worker, double work) {
    constexpr double between_looks = 2e5;
    if (worker == 0 && (pending_ += work) >= between_looks && poll_) {
      pending_ = 0;
      const auto now = std::chrono::steady_clock::now();
      if (now - last_ >= std::chrono::milliseconds(20)) {
        last_ = now;
        if (poll_()) stop_.store(true, std::memory_order_relaxed);
      }
    }
    if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
  }

  void stop() { stop_.store(true, std::memory_order_relaxed); }

 private:
  std::function<bool()> poll_;
  std::atomic<bool> stop_{false};
  double pending_ = 0;
  std::chrono::steady_clock::time_point last_{};
};

// Starts what all calls share. To be called once, before any fork.
void prepare_threads();

// The number of threads of a call that names none: CPUs this process may use, RNNBPTT_NUM_THREADS, or what
// was set.
int default_threads();
void set_default_threads(int threads);

}  // namespace rnnbptt
