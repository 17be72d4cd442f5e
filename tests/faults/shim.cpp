// Preloaded into a Python process: makes the n-th allocation, thread or write of a call fail.
//
// Allocations count where the extension asks, by the address that they return to, and where NumPy asks for the
// data of an array; what the interpreter and NumPy need besides is their own. Threads count where the C++ library
// starts them, as it does for the extension: OpenBLAS starts its own, and waits for ever for one that it did not
// get. Writes count wherever they come from, those to files alone unless standard output is asked for.
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <new>

extern "C" void* __libc_memalign(std::size_t, std::size_t);

namespace {

enum Kind { none, allocation, thread, file_write, any_write };

std::atomic<int> armed{none};
std::atomic<long> seen{0};
long first = 0;       // which fails; none when 0
bool onwards = false; // and all after it

struct Range {
  std::uintptr_t begin, end;
};
// Where the code of a library is.
struct Code {
  const char* name;
  Range ranges[8];
  int known = 0;

  bool holds(const void* address) const {
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    for (int i = 0; i < known; ++i)
      if (at >= ranges[i].begin && at < ranges[i].end) return true;
    return false;
  }
};
Code extension{"/rnnbptt/_core.", {}}, library{"/libstdc++.so", {}};

int look(dl_phdr_info* info, std::size_t, void*) {
  for (Code* code : {&extension, &library}) {
    if (std::strstr(info->dlpi_name, code->name) == nullptr) continue;
    for (int i = 0; i < info->dlpi_phnum && code->known < 8; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      const std::uintptr_t begin = info->dlpi_addr + part.p_vaddr;
      code->ranges[code->known++] = {begin, begin + part.p_memsz};
    }
  }
  return 0;
}

bool counted(Kind kind) {
  if (armed.load(std::memory_order_relaxed) != kind) return false;
  const long number = seen.fetch_add(1) + 1;
  return first != 0 && (number == first || (onwards && number > first));
}

bool fails(const void* returns_to) {
  return armed.load(std::memory_order_relaxed) == allocation && extension.holds(returns_to) &&
         counted(allocation);
}

template <typename Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define RETURNS_TO __builtin_return_address(0)

extern "C" {

void fault_arm(int kind, long which, int and_all_after) {
  if (extension.known == 0) dl_iterate_phdr(look, nullptr);
  first = which;
  onwards = and_all_after != 0;
  seen.store(0);
  armed.store(kind);
}

// How many there were.
long fault_disarm() {
  armed.store(none);
  return seen.load();
}

// What NumPy is told to get the data of arrays from.
void* fault_malloc(void*, std::size_t size) { return counted(allocation) ? nullptr : std::malloc(size); }
void* fault_calloc(void*, std::size_t n, std::size_t size) {
  return counted(allocation) ? nullptr : std::calloc(n, size);
}
void* fault_realloc(void*, void* old, std::size_t size) {
  return counted(allocation) ? nullptr : std::realloc(old, size);
}
void fault_free(void*, void* data, std::size_t) { std::free(data); }

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return fails(RETURNS_TO) ? nullptr : __libc_memalign(alignment, size);
}

int pthread_create(pthread_t* made, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  static auto* const real = next<decltype(pthread_create)>("pthread_create");
  if (library.holds(RETURNS_TO) && counted(thread)) return EAGAIN;
  return real(made, attributes, run, argument);
}

ssize_t write(int file, const void* data, std::size_t size) {
  static auto* const real = next<decltype(write)>("write");
  if ((file > 2 && counted(file_write)) || (file != 2 && counted(any_write))) {
    errno = ENOSPC;
    return -1;
  }
  return real(file, data, size);
}

}  // extern "C"

// The C++ library's own operators ask malloc, and return to themselves.
void* operator new(std::size_t size) {
  void* const result = fails(RETURNS_TO) ? nullptr : std::malloc(size);
  if (result == nullptr) throw std::bad_alloc();
  return result;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return fails(RETURNS_TO) ? nullptr : std::malloc(size);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  void* const result =
      fails(RETURNS_TO) ? nullptr : __libc_memalign(static_cast<std::size_t>(alignment), size);
  if (result == nullptr) throw std::bad_alloc();
  return result;
}
