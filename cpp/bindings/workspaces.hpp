// Workspaces that outlive a call, so that a loop of calls does not ask the system for the same memory again
// and again.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "core/runtime/workspace.hpp"

namespace rnnbptt::bindings {

// A workspace from the process-wide stock on first use, given back at the end.
class BorrowedWorkspace {
 public:
  BorrowedWorkspace() = default;
  BorrowedWorkspace(BorrowedWorkspace&&) = default;
  BorrowedWorkspace& operator=(BorrowedWorkspace&&) = delete;

  ~BorrowedWorkspace() {
    if (workspace_ == nullptr || workspace_->size() > largest_kept) return;
    const std::lock_guard lock(stock().mutex);
    if (stock().spare.size() < most_kept) stock().spare.push_back(std::move(workspace_));
  }

  Workspace& get() {
    if (workspace_ == nullptr) {
      const std::lock_guard lock(stock().mutex);
      if (!stock().spare.empty()) {
        workspace_ = std::move(stock().spare.back());
        stock().spare.pop_back();
      }
    }
    if (workspace_ == nullptr) workspace_ = std::make_unique<Workspace>();
    return *workspace_;
  }

 private:
  static constexpr std::size_t largest_kept = std::size_t{64} << 20;
  static constexpr std::size_t most_kept = 2;

  struct Stock {
    Stock() { spare.reserve(most_kept); }  // giving back is not to ask for memory
    std::mutex mutex;
    std::vector<std::unique_ptr<Workspace>> spare;
  };
  // Never destroyed: a daemon thread may still be in a call when the process exits.
  static Stock& stock() {
    static auto* instance = new Stock;
    return *instance;
  }

  std::unique_ptr<Workspace> workspace_;
};

// Calls work(run, workspace) without the GIL. The workspace is had with it: a fork finds the stock unlocked.
template <typename Work>
void in_workspace(int threads, const Work& work) {
  BorrowedWorkspace borrowed;
  Workspace& workspace = borrowed.get();
  without_gil(threads, [&](Run& run) { work(run, workspace); });
}

}  // namespace rnnbptt::bindings
