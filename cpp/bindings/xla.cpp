// The engine as functions that XLA calls in the midst of a compiled program, on its own thread, without
// Python and the GIL. rnnbptt.jax registers them.
#include <algorithm>
#include <array>
#include <cfenv>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>

#include "bindings/module.hpp"
#include "bindings/workspaces.hpp"
#include "bindings/xla_ffi.hpp"
#include "core/gradient.hpp"

namespace rnnbptt::bindings {
namespace {

// The arrays of a point, in the order of rnnbptt.bridge.NAMES. A set of them is a number with these bits.
enum Place : std::size_t { W_hx, W_hh, W_qh, b_h, b_q, W_qx, h0, x, places };
constexpr const char* names[places] = {"W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "h0", "x"};

bool has(std::int64_t set, std::size_t place) { return (set >> place & 1) != 0; }

[[noreturn]] void misfit(const std::string& name) {
  throw std::invalid_argument(name + " does not fit the problem (internal check)");
}

// XLA computes with subnormal numbers flushed to zero; the engine does not, on any of its threads.
class DefaultFloatingPoint {
 public:
  DefaultFloatingPoint() {
    std::fegetenv(&before_);
    std::fesetenv(FE_DFL_ENV);
  }
  DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
  DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;
  ~DefaultFloatingPoint() { std::fesetenv(&before_); }

 private:
  std::fenv_t before_;
};

const xla::Buffer& buffer(const xla::Items& items, std::int64_t i, const char* name) {
  if (i >= items.size || items.types[i] != xla::buffer_type) misfit(name);
  const auto* found = static_cast<const xla::Buffer*>(items.items[i]);
  if (found->struct_size < offsetof(xla::Buffer, dims) + sizeof(found->dims)) misfit(name);
  return *found;
}

std::int64_t attribute(const xla::CallFrame& frame, const char* name) {
  const xla::Attributes& all = frame.attributes;
  for (std::int64_t i = 0; i < all.size; ++i) {
    const xla::Name& found = *all.names[i];
    if (found.size != std::strlen(name) || std::memcmp(found.data, name, found.size) != 0) continue;
    const auto* number = static_cast<const xla::Number*>(all.values[i]);
    if (all.types[i] != xla::scalar_type || number->dtype != xla::DataType::s64) misfit(name);
    return *static_cast<const std::int64_t*>(number->value);
  }
  misfit(name);
}

template <typename Scalar>
constexpr xla::DataType type_of = sizeof(Scalar) == 4 ? xla::DataType::f32 : xla::DataType::f64;

template <typename Scalar>
Scalar* data(const xla::Buffer& found, const char* name, std::initializer_list<Index> dims) {
  if (found.dtype != type_of<Scalar> || found.rank != static_cast<std::int64_t>(dims.size())) misfit(name);
  const std::int64_t* at = found.dims;
  for (const Index size : dims)
    if (*at++ != size) misfit(name);
  return static_cast<Scalar*>(found.data);
}

// Data of an array of the point, or of one of the same shape.
template <typename Scalar>
Scalar* data_at(const xla::Buffer& found, std::size_t place, const Shape& s) {
  const char* name = names[place];
  switch (place) {
    case W_hx:
      return data<Scalar>(found, name, {s.h, s.d});
    case W_hh:
      return data<Scalar>(found, name, {s.h, s.h});
    case W_qh:
      return data<Scalar>(found, name, {s.q, s.h});
    case b_h:
      return data<Scalar>(found, name, {s.h});
    case b_q:
      return data<Scalar>(found, name, {s.q});
    case W_qx:
      return data<Scalar>(found, name, {s.q, s.d});
    case h0:
      return data<Scalar>(found, name, {s.B, s.h});
    default:
      return data<Scalar>(found, name, {s.T, s.B, s.d});
  }
}

template <typename Scalar>
SequenceView<Scalar> view(Scalar* data, Index B, Index size) {
  return {data, B * size, size};
}

template <typename Scalar>
struct Point {
  Params<const Scalar> params;
  Problem<Scalar> problem;
  std::int64_t arguments = 0;  // how many it takes
};

template <typename Scalar>
Point<Scalar> point_of(const xla::CallFrame& frame, std::int64_t present) {
  std::array<const xla::Buffer*, places> buffers{};
  Point<Scalar> point;
  for (std::size_t i = 0; i < places; ++i)
    if (has(present, i)) buffers[i] = &buffer(frame.arguments, point.arguments++, names[i]);
  const auto size = [&](std::size_t place, int rank, int axis) {
    if (buffers[place] == nullptr || buffers[place]->rank != rank) misfit(names[place]);
    return static_cast<Index>(buffers[place]->dims[axis]);
  };
  const Shape s{size(x, 3, 0), size(x, 3, 1), size(x, 3, 2), size(W_hh, 2, 0), size(W_qh, 2, 0)};
  if (buffers[W_hx] == nullptr) misfit(names[W_hx]);
  const auto at = [&](std::size_t place) -> const Scalar* {
    return buffers[place] == nullptr ? nullptr : data_at<const Scalar>(*buffers[place], place, s);
  };
  point.params = {at(W_hx), at(W_hh), at(W_qh), at(b_h), at(b_q), at(W_qx)};
  point.problem.shape = s;
  point.problem.x = view(at(x), s.B, s.d);
  point.problem.h0 = at(h0);
  point.problem.weight_sum = static_cast<double>(s.T) * static_cast<double>(s.B);
  return point;
}

// Arguments: a point. Results: its outputs, (T, B, q), and last states, (B, h).
template <typename Scalar>
void run_point(const xla::CallFrame& frame) {
  const auto [params, problem, n] = point_of<Scalar>(frame, attribute(frame, "present"));
  const Shape& s = problem.shape;
  auto* o = data<Scalar>(buffer(frame.results, 0, "o"), "o", {s.T, s.B, s.q});
  auto* last = data<Scalar>(buffer(frame.results, 1, "h_T"), "h_T", {s.B, s.h});
  BorrowedWorkspace workspace;
  Run run(default_threads(), {});
  outputs<Scalar>(run, workspace.get(), params, problem, view(o, s.B, s.q), {}, last,
                  plan(problem, params.b_h != nullptr, Goal::outputs, {}));
}

// Arguments: a point, and derivatives by its outputs and last states. Results: gradients by what is in `wrt`.
template <typename Scalar>
void pull_point(const xla::CallFrame& frame) {
  const std::int64_t present = attribute(frame, "present"), wrt = attribute(frame, "wrt");
  auto [params, problem, n] = point_of<Scalar>(frame, present);
  const Shape& s = problem.shape;
  const auto* d_o = data<const Scalar>(buffer(frame.arguments, n, "d_o"), "d_o", {s.T, s.B, s.q});
  const auto* d_hT = data<const Scalar>(buffer(frame.arguments, n + 1, "d_hT"), "d_hT", {s.B, s.h});
  problem.y = view(d_o, s.B, s.q);
  // Zeros are left out: L has to divide T where there is a d_hT.
  for (Index i = 0; i < s.B * s.h && problem.d_hT == nullptr; ++i)
    if (d_hT[i] != 0) problem.d_hT = d_hT;
  std::array<Scalar*, places> to{};
  std::int64_t result = 0;
  for (std::size_t i = 0; i < places; ++i)
    if (has(wrt, i)) {
      if (!has(present, i)) misfit(names[i]);
      to[i] = data_at<Scalar>(buffer(frame.results, result++, names[i]), i, s);
    }
  Gradients<Scalar> gradients;
  gradients.params = {to[W_hx], to[W_hh], to[W_qh], to[b_h], to[b_q], to[W_qx]};
  gradients.h0 = to[h0];
  gradients.x = view(to[x], s.B, s.d);
  BorrowedWorkspace workspace;
  Run run(default_threads(), {});
  gradient<Scalar>(
      run, workspace.get(), params, problem, gradients,
      plan(problem, params.b_h != nullptr, has(wrt, x) ? Goal::input_gradients : Goal::gradients, {}),
      nullptr);
}

// Whether the structures of a frame have the layout they are read by.
bool known(const xla::CallFrame& frame) {
  return frame.struct_size >= offsetof(xla::CallFrame, attributes) + sizeof(frame.attributes) &&
         frame.api->version.major == xla::api_major &&
         frame.arguments.struct_size == sizeof(frame.arguments) &&
         frame.results.struct_size == sizeof(frame.results) &&
         frame.attributes.struct_size == sizeof(frame.attributes);
}

xla::Error* error(const xla::CallFrame& frame, xla::Code code, const char* message) {
  xla::ErrorArguments arguments{offsetof(xla::ErrorArguments, code) + sizeof(code), nullptr, message, code};
  return frame.api->create_error(&arguments);
}

template <typename Work>
xla::Error* answer(xla::CallFrame* frame, const Work& work) noexcept {
  if (frame->extension != nullptr && frame->extension->type == xla::metadata_type) {
    xla::Metadata& metadata = *reinterpret_cast<xla::MetadataExtension*>(frame->extension)->metadata;
    if (metadata.struct_size < offsetof(xla::Metadata, traits) + sizeof(metadata.traits)) return nullptr;
    const int minor = std::min(xla::api_minor, frame->api->version.minor);
    metadata.api_version = {sizeof(xla::Version), nullptr, xla::api_major, minor};
    metadata.traits = 0;
    return nullptr;
  }
  if (!known(*frame) || frame->stage != xla::execute_stage)
    return error(*frame, xla::Code::internal, "rnnbptt does not know this interface of XLA");
  try {
    const DefaultFloatingPoint environment;
    work(*frame);
    return nullptr;
  } catch (const OutOfMemory& failed) {
    const std::string text = "cannot work in less than " +
                             std::to_string(static_cast<long long>(failed.bytes)) + " bytes of memory";
    return error(*frame, xla::Code::resource_exhausted, text.c_str());
  } catch (const std::bad_alloc& failed) {
    return error(*frame, xla::Code::resource_exhausted, failed.what());
  } catch (const std::invalid_argument& failed) {
    return error(*frame, xla::Code::invalid_argument, failed.what());
  } catch (const std::exception& failed) {
    return error(*frame, xla::Code::internal, failed.what());
  }
}

bool is_float32(const xla::CallFrame& frame) {
  return buffer(frame.arguments, 0, "W_hx").dtype == xla::DataType::f32;
}

xla::Error* run(xla::CallFrame* frame) {
  return answer(frame,
                [](const xla::CallFrame& f) { is_float32(f) ? run_point<float>(f) : run_point<double>(f); });
}

xla::Error* pull(xla::CallFrame* frame) {
  return answer(
      frame, [](const xla::CallFrame& f) { is_float32(f) ? pull_point<float>(f) : pull_point<double>(f); });
}

}  // namespace

void register_xla(pybind11::module_& module) {
  const auto capsule = [](xla::Handler* handler) {
    return pybind11::capsule(reinterpret_cast<const void*>(handler));
  };
  pybind11::dict handlers;
  handlers["run"] = capsule(&run);
  handlers["pull"] = capsule(&pull);
  module.attr("xla_handlers") = handlers;
}

}  // namespace rnnbptt::bindings
