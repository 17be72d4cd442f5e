// Workspaces that outlive a call, so that a loop of calls does not ask the system for the same memory again
// and again. All problems share them: what is kept depends on how many calls run at a time, not on how many
// problems live.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "core/runtime/workspace.hpp"

namespace rnnbptt::bindings {

class Stock;

// A problem that is called again and again, and so may find a large workspace again.
class Owner {
 public:
  Owner() = default;
  Owner(Owner&&) noexcept {}
  Owner& operator=(Owner&&) = delete;
  ~Owner();

 private:
  friend class Stock;
  std::atomic<bool> has_left_a_large_one_{false};
};

// Nothing here waits: what cannot be had or put away at once is made anew or freed. So a fork, which may come
// while a thread is in here, leaves nothing behind that its child would wait for.
class Stock {
 public:
  // Never destroyed: a daemon thread may still be in a call when the process exits.
  static Stock& instance() {
    static auto* stock = new Stock;
    return *stock;
  }

  // The workspace that was put away last. A large one goes only to the owner that left it.
  std::unique_ptr<Workspace> take(const Owner* owner) {
    if (owner == nullptr || !owner->has_left_a_large_one_.load(std::memory_order_relaxed)) {
      std::unique_ptr<Workspace> last(last_.exchange(nullptr, std::memory_order_acquire));
      if (last != nullptr) return last;
      owner = nullptr;
    }
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock.owns_lock())
      for (std::size_t i = kept_.size(); i-- > 0;)
        if (kept_[i].owner == owner) {
          std::unique_ptr<Workspace> found = std::move(kept_[i].workspace);
          kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(i));
          return found;
        }
    return std::make_unique<Workspace>();
  }

  void put_away(std::unique_ptr<Workspace> workspace, Owner* owner) {
    const bool large = workspace->size() > largest_shared;
    if (!large) {
      Workspace* none = nullptr;
      owner = nullptr;
      if (last_.compare_exchange_strong(none, workspace.get(), std::memory_order_acq_rel)) {
        static_cast<void>(workspace.release());
        return;
      }
    } else if (owner == nullptr) {
      return;
    } else {
      owner->has_left_a_large_one_.store(true, std::memory_order_relaxed);
    }
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;
    std::size_t bytes = workspace->size();
    for (const Kept& kept : kept_) bytes += kept.workspace->size();
    while (!kept_.empty() && (bytes > most_bytes || kept_.size() == most_kept)) {
      bytes -= kept_.front().workspace->size();
      kept_.erase(kept_.begin());
    }
    kept_.push_back({std::move(workspace), owner});
  }

  void free_what_is_left_by(const Owner& owner) {
    if (!owner.has_left_a_large_one_.load(std::memory_order_relaxed)) return;
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (lock.owns_lock()) std::erase_if(kept_, [&](const Kept& kept) { return kept.owner == &owner; });
  }

 private:
  // Putting away allocates nothing: it must not fail.
  Stock() { kept_.reserve(most_kept); }

  // Beyond this a workspace is one problem's alone, and is freed with it.
  static constexpr std::size_t largest_shared = std::size_t{64} << 20;
  // Of all that are put away, but for one that exceeds it by itself.
  static constexpr std::size_t most_bytes = std::size_t{256} << 20;
  static constexpr std::size_t most_kept = 64;

  struct Kept {
    std::unique_ptr<Workspace> workspace;
    const Owner* owner;  // of a large one
  };

  std::atomic<Workspace*> last_{nullptr};  // most calls find it here, and need no lock
  std::mutex mutex_;
  std::vector<Kept> kept_;  // the newest last
};

inline Owner::~Owner() { Stock::instance().free_what_is_left_by(*this); }

// A workspace from the stock on first use, put away at the end.
class BorrowedWorkspace {
 public:
  explicit BorrowedWorkspace(Owner* owner = nullptr) : owner_(owner) {}
  BorrowedWorkspace(const BorrowedWorkspace&) = delete;
  BorrowedWorkspace& operator=(const BorrowedWorkspace&) = delete;

  ~BorrowedWorkspace() {
    if (workspace_ != nullptr) Stock::instance().put_away(std::move(workspace_), owner_);
  }

  Workspace& get() {
    if (workspace_ == nullptr) workspace_ = Stock::instance().take(owner_);
    return *workspace_;
  }

 private:
  Owner* owner_;
  std::unique_ptr<Workspace> workspace_;
};

// Calls work(run, workspace) without the GIL.
template <typename Work>
void in_workspace(int threads, const Work& work) {
  BorrowedWorkspace borrowed;
  Workspace& workspace = borrowed.get();
  without_gil(threads, [&](Run& run) { work(run, workspace); });
}

}  // namespace rnnbptt::bindings
