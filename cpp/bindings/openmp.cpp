#include "bindings/openmp.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <exception>

#include "core/runtime/threads.hpp"

namespace rnnbptt::bindings {
namespace {

// What a compiler calls for `#pragma omp parallel`: fn(data) on each thread of the team of the thread that
// calls, itself among them. GCC's run time has it, LLVM's has it too.
using Parallel = void (*)(void (*fn)(void*), void* data, unsigned threads, unsigned flags);
using TeamSize = int (*)();

struct OpenMP {
  Parallel parallel = nullptr;
  TeamSize team_size = nullptr;
};

// Looked up in every call: PyTorch may be loaded, with its run time, at any time.
OpenMP loaded_openmp() {
  return {reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel")),
          reinterpret_cast<TeamSize>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"))};
}

thread_local int team = 0;

// GCC's run time does not notice a fork: in the child it would wait for threads that only the parent has.
std::atomic<bool> forked{false};

// Whether the process is a fork that has not executed a program since: what had been loaded then may have had
// threads.
bool is_fork() {
  std::FILE* file = std::fopen("/proc/self/stat", "r");
  if (file == nullptr) return false;
  // pid (name) state ppid pgrp session tty tpgid flags; a name may hold anything, at most 15 bytes of it.
  char text[256] = {};
  const std::size_t size = std::fread(text, 1, sizeof text - 1, file);
  std::fclose(file);
  const char* rest = text + size;
  while (rest > text && *rest != ')') --rest;
  unsigned long flags = 0;
  constexpr unsigned long forked_without_exec = 0x40;
  return std::sscanf(rest, ") %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 &&
         (flags & forked_without_exec) != 0;
}

struct Region {
  const std::function<void()>& work;
  const OpenMP openmp;
  Run& run;
  const pthread_t caller = pthread_self();
  LentThreads lent;
  std::exception_ptr error;
};

// No exception may pass through the run time's frames.
void in_region(void* data) noexcept {
  auto& region = *static_cast<Region*>(data);
  if (pthread_equal(pthread_self(), region.caller) == 0) return region.lent.serve();
  // Inside another region the team is this thread alone; and of fewer threads than the call may use, all are
  // given back at its end, without having worked: until then they sleep.
  if (region.openmp.team_size() >= region.run.threads) region.run.lent = &region.lent;
  try {
    region.work();
  } catch (...) {
    region.error = std::current_exception();
  }
  region.run.lent = nullptr;
  region.lent.give_back();
}

}  // namespace

void prepare_openmp() {
  forked.store(is_fork(), std::memory_order_relaxed);
  pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });
}

int set_openmp_team(int threads) {
  const int before = team;
  team = threads;
  return before;
}

void with_openmp_team(Run& run, const std::function<void()>& work) {
  if (team < 2 || run.threads < 2 || forked.load(std::memory_order_relaxed)) return work();
  const OpenMP openmp = loaded_openmp();
  if (openmp.parallel == nullptr || openmp.team_size == nullptr) return work();
  Region region{work, openmp, run, pthread_self(), LentThreads(team - 1), {}};
  openmp.parallel(in_region, &region, static_cast<unsigned>(team), 0);
  if (region.error) std::rethrow_exception(region.error);
}

}  // namespace rnnbptt::bindings
