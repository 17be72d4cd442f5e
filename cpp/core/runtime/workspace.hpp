// Memory for one call at a time, kept for the next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <vector>

#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt {

// Hands out aligned arrays from one slab. What does not fit goes to slabs of its own; reset() frees all
// arrays and merges the slabs, so that from the second call of the same size on nothing is allocated.
class Workspace {
 public:
  // Kernels read whole panels: up to this many bytes behind the end of an array belong to the workspace.
  static constexpr std::size_t alignment = 64, slack = 512;

  Workspace() = default;
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() { release(); }

  template <typename T>
  T* take(Index count) {
    const double wanted = static_cast<double>(count) * sizeof(T);
    if (wanted > static_cast<double>(std::numeric_limits<std::ptrdiff_t>::max() / 2))
      throw OutOfMemory(wanted);
    const std::size_t bytes =
        (static_cast<std::size_t>(count) * sizeof(T) + slack + alignment - 1) / alignment * alignment;
    if (slabs_.empty() || slabs_.back().size - used_ < bytes) grow(bytes);
    std::byte* result = slabs_.back().data + used_;
    used_ += bytes;
    return reinterpret_cast<T*>(result);
  }

  // What was taken since mark() is free again after release_to(). Of slabs that were added in between, all
  // but the last stay until reset().
  struct Mark {
    std::size_t slabs, used;
  };
  Mark mark() const { return {slabs_.size(), used_}; }
  void release_to(const Mark& mark) {
    used_ = mark.slabs == slabs_.size() ? mark.used : 0;  // a slab added since holds nothing older
  }

  void reset() {
    if (slabs_.size() > 1) {
      const std::size_t all = size();
      release();
      grow(all);
    }
    used_ = 0;
  }

  std::size_t size() const {
    std::size_t sum = 0;
    for (const Slab& slab : slabs_) sum += slab.size;
    return sum;
  }

 private:
  struct Slab {
    std::byte* data;
    std::size_t size;
  };

  void grow(std::size_t bytes) {
    // Small arrays share a slab from the first call on.
    const std::size_t size = bytes < minimum ? minimum : bytes;
    auto* data = static_cast<std::byte*>(std::aligned_alloc(alignment, size));
    if (data == nullptr) throw OutOfMemory(static_cast<double>(bytes));
    slabs_.push_back({data, size});
    used_ = 0;
  }

  void release() {
    for (const Slab& slab : slabs_) std::free(slab.data);
    slabs_.clear();
  }

  static constexpr std::size_t minimum = 1 << 14;
  std::vector<Slab> slabs_;
  std::size_t used_ = 0;
};

// A copy in a workspace, where kernels may read behind the ends of rows.
template <typename Real, typename Source>
const Real* copy_as(Workspace& workspace, const Source* A, Index n) {
  auto* copy = workspace.take<Real>(n);
  std::transform(A, A + n, copy, [](Source v) { return static_cast<Real>(v); });
  return copy;
}

}  // namespace rnnbptt
