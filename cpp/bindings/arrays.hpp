// From NumPy arrays to views. Python has checked every argument; here it is only made sure that a view fits
// its array.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif

#include <array>
#include <exception>
#include <string>

#include "bindings/openmp.hpp"
#include "rnnbptt/problem.hpp"
#include "rnnbptt/runtime.hpp"

namespace rnnbptt::bindings {

namespace py = pybind11;

[[noreturn]] inline void misfit(const char* name) {
  throw py::value_error(std::string(name) + " does not fit the problem (internal check)");
}

// Whether an object is an array of native, aligned scalars; with `contiguous`, in C order too. This runs some
// ten times in each call, so it asks NumPy's structures rather than NumPy.
template <typename Scalar>
bool is_array_of(const py::handle& object, bool contiguous) {
  if (!py::isinstance<py::array>(object)) return false;
  const auto& array = *reinterpret_cast<const py::array*>(&object);
  int needed = py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if (contiguous) needed |= py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
  const auto* type = py::detail::array_descriptor_proxy(py::detail::array_proxy(array.ptr())->descr);
  return (array.flags() & needed) == needed &&
         type->type_num == py::detail::npy_format_descriptor<Scalar>::value &&
         (type->byteorder == '=' || type->byteorder == '|');
}

// Contiguous data of exactly `size` scalars; null for None.
template <typename Scalar>
const Scalar* input(const py::handle& object, const char* name, Index size) {
  if (object.is_none()) return nullptr;
  if (!is_array_of<Scalar>(object, true)) misfit(name);
  const auto& array = *reinterpret_cast<const py::array*>(&object);
  if (array.size() != size) misfit(name);
  return static_cast<const Scalar*>(array.data());
}

template <typename Scalar>
Scalar* output(const py::handle& object, const char* name, Index size) {
  const auto* data = input<Scalar>(object, name, size);
  if (data != nullptr && !reinterpret_cast<const py::array*>(&object)->writeable()) misfit(name);
  return const_cast<Scalar*>(data);
}

// A time-major (T, B, size) array, or (T, B) where size is 1, whose last axis is contiguous; null for None.
template <typename Scalar>
SequenceView<const Scalar> sequence(const py::handle& object, const char* name, Index T, Index B, Index size,
                                    py::ssize_t ndim) {
  if (object.is_none()) return {};
  if (!is_array_of<Scalar>(object, false)) misfit(name);
  const auto& array = *reinterpret_cast<const py::array*>(&object);
  if (array.ndim() != ndim) misfit(name);
  constexpr auto item = static_cast<py::ssize_t>(sizeof(Scalar));
  if (array.shape(0) != T || array.shape(1) != B || (ndim == 3 && array.shape(2) != size)) misfit(name);
  if (ndim == 3 && size > 1 && array.strides(2) != item) misfit(name);
  if (array.strides(0) % item != 0 || array.strides(1) % item != 0) misfit(name);
  return {static_cast<const Scalar*>(array.data()), array.strides(0) / item, array.strides(1) / item};
}

template <typename Scalar>
SequenceView<Scalar> output_sequence(const py::handle& object, const char* name, Index T, Index B,
                                     Index size) {
  const auto view = sequence<Scalar>(object, name, T, B, size, 3);
  if (view && !py::reinterpret_borrow<py::array>(object).writeable()) misfit(name);
  return {const_cast<Scalar*>(view.data), view.step, view.sequence};
}

// Sizes of the six parameters, in the order of Params, and of h0.
inline std::array<Index, 7> sizes_of(const Shape& s) {
  return {s.h * s.d, s.h * s.h, s.q * s.h, s.h, s.q, s.q * s.d, s.B * s.h};
}

// Six parameters, absent ones None, in the order of Params.
template <typename Scalar>
Params<const Scalar> params(const py::tuple& arrays, const Shape& shape) {
  if (arrays.size() != 6) misfit("params");
  const auto sizes = sizes_of(shape);
  const auto at = [&](std::size_t i, const char* name) { return input<Scalar>(arrays[i], name, sizes[i]); };
  return {at(0, "W_hx"), at(1, "W_hh"), at(2, "W_qh"), at(3, "b_h"), at(4, "b_q"), at(5, "W_qx")};
}

// Only the main thread hears of signals, and only it can ask for the GIL without risk: in another one, asking
// while the interpreter shuts down ends the thread on the spot.
inline bool is_main_thread() {
#if defined(__linux__)
  return static_cast<pid_t>(syscall(SYS_gettid)) == getpid();
#else
  return pthread_main_np() != 0;
#endif
}

// Calls work(run) without the GIL. Ctrl-C is looked for on the calling thread.
template <typename Work>
void without_gil(int threads, const Work& work) {
  // Asked for the thread only when it looks: in a small call the question costs more than all else here.
  Run run(threads > 0 ? threads : default_threads(), [] {
    if (!is_main_thread()) return false;
    const py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  });
  // Not py::gil_scoped_release: where the interpreter is shutting down, taking the GIL back ends a daemon
  // thread by unwinding its stack, which no destructor may let happen.
  std::exception_ptr error;
  PyThreadState* state = PyEval_SaveThread();
  try {
    with_openmp_team(run, [&] { work(run); });
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

// Returns `made` after work() has run without the GIL. Until then nobody owns it: a daemon thread that asks
// for the GIL while the interpreter shuts down is unwound without it, and must not free a Python object on
// the way.
template <typename Object, typename Work>
Object holding(Object made, const Work& work) {
  const py::handle held = made.release();
  try {
    work();
  } catch (const std::exception&) {
    held.dec_ref();
    throw;
  }
  return py::reinterpret_steal<Object>(held);
}

}  // namespace rnnbptt::bindings
