// The extension module rnnbptt._core.
#include "bindings/module.hpp"

#include <stdexcept>

#include "kernels/table.hpp"
#include "rnnbptt/runtime.hpp"

namespace py = pybind11;

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
  try {
    rnnbptt::kernels::table();
  } catch (const std::runtime_error& error) {
    throw py::import_error(error.what());
  }
  rnnbptt::bindings::register_problem(module);
  rnnbptt::bindings::register_trajectories(module);
  module.def("get_num_threads", &rnnbptt::default_threads);
  module.def("set_num_threads", &rnnbptt::set_default_threads, py::arg("threads"));
  module.def("build", [] {
    py::list isas;
    for (const char* const* name = rnnbptt::kernels::supported_isas(); *name != nullptr; ++name) isas.append(*name);
    py::dict info;
    info["compiler"] = RNNBPTT_COMPILER;
    info["flags"] = RNNBPTT_FLAGS;
    info["isa"] = rnnbptt::kernels::table().isa;
    info["supported_isas"] = isas;
    return info;
  });
  module.attr("__version__") = RNNBPTT_VERSION;
}
