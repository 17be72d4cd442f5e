// What module.cpp registers.
#pragma once

#include <pybind11/pybind11.h>

namespace rnnbptt::bindings {

void register_problem(pybind11::module_& module);
void register_trajectories(pybind11::module_& module);
void register_xla(pybind11::module_& module);

}  // namespace rnnbptt::bindings
