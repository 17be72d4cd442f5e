// The extension module rnnbptt._core.
#include "bindings/module.hpp"

#include <cstdio>
#include <stdexcept>

#include "bindings/openmp.hpp"
#include "bindings/workspaces.hpp"
#include "kernels/table.hpp"
#include "rnnbptt/runtime.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
  try {
    rnnbptt::kernels::table();
    rnnbptt::prepare_threads();
    rnnbptt::bindings::prepare_openmp();
    rnnbptt::bindings::BorrowedWorkspace().get();
  } catch (const std::runtime_error& error) {
    throw py::import_error(error.what());
  }
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const rnnbptt::Interrupted&) {
      // The signal's handler has set the exception that Python is to see.
    } catch (const rnnbptt::OutOfMemory& error) {
      char text[80];
      std::snprintf(text, sizeof text,
                    error.limited ? "memory_limit must be at least %.0f bytes for this problem"
                                  : "cannot work in less than %.0f bytes of memory",
                    error.bytes);
      PyErr_SetString(PyExc_MemoryError, text);
    }
  });
  rnnbptt::bindings::register_problem(module);
  rnnbptt::bindings::register_trajectories(module);
  rnnbptt::bindings::register_xla(module);
  module.def("get_num_threads", &rnnbptt::default_threads);
  module.def("set_num_threads", &rnnbptt::set_default_threads, py::arg("threads"));
  module.def("set_openmp_team", &rnnbptt::bindings::set_openmp_team, py::arg("threads"));
  module.def("build", [] {
    py::list isas;
    for (const char* const* name = rnnbptt::kernels::supported_isas(); *name != nullptr; ++name)
      isas.append(*name);
    py::dict info;
    info["compiler"] = RNNBPTT_COMPILER;
    info["flags"] = RNNBPTT_FLAGS;
    info["isa"] = rnnbptt::kernels::table().isa;
    info["supported_isas"] = isas;
    return info;
  });
  module.attr("__version__") = RNNBPTT_VERSION;
}
