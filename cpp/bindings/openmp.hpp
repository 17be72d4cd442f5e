// The threads of another library's OpenMP.
//
// PyTorch runs its loops on an OpenMP team. After every loop the team's threads keep their cores busy for
// some milliseconds, waiting for the next: long enough to take half of the machine from a gradient that
// begins in between. No setting can be changed once the run time is loaded. So a call that comes from PyTorch
// runs inside a parallel region of its own, where the team's threads work for it instead.
//
// Nothing of OpenMP is needed to build or load this: the run time is found where PyTorch has loaded one.
#pragma once

#include <functional>

#include "rnnbptt/runtime.hpp"

namespace rnnbptt::bindings {

// To be called once, before any thread may fork.
void prepare_openmp();

// Sets the size of the OpenMP team that the next calls on this thread are to borrow, below two for none;
// returns what it was.
int set_openmp_team(int threads);

// Calls work(), with run.lent set where a team is to be borrowed.
void with_openmp_team(Run& run, const std::function<void()>& work);

}  // namespace rnnbptt::bindings
