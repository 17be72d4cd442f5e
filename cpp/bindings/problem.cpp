// _core.Problem32 and _core.Problem64: a data set that is kept, with the memory its gradients are computed
// in.
#include <mutex>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"
#include "bindings/workspaces.hpp"
#include "core/gradient.hpp"

namespace rnnbptt::bindings {
namespace {

Loss loss_of(const std::string& name) {
  if (name == "squared_error") return Loss::squared_error;
  if (name == "mse") return Loss::mse;
  if (name == "cross_entropy") return Loss::cross_entropy;
  if (name == "given") return Loss::given;
  misfit("loss");
}

template <typename Scalar>
class BoundProblem {
 public:
  BoundProblem(const std::tuple<Index, Index, Index, Index, Index>& shape, const std::string& loss,
               py::object x, py::object y, py::object h0, py::object weights, py::object lengths,
               py::object d_hT, Index block, double flow, double weight_sum, int levels, Index window,
               Index splits, Index piece, double memory_limit, bool bias, bool input_gradient)
      : kept_{x, y, h0, weights, lengths, d_hT} {
    auto& s = problem_.shape;
    std::tie(s.T, s.B, s.d, s.h, s.q) = shape;
    problem_.loss = loss_of(loss);
    problem_.x = sequence<Scalar>(x, "x", s.T, s.B, s.d, 3);
    if (problem_.loss == Loss::cross_entropy)
      problem_.labels = sequence<std::int64_t>(y, "y", s.T, s.B, 1, 2);
    else
      problem_.y = sequence<Scalar>(y, "y", s.T, s.B, s.q, 3);
    problem_.h0 = input<Scalar>(h0, "h0", s.B * s.h);
    problem_.weights = sequence<Scalar>(weights, "weights", s.T, s.B, 1, 2);
    problem_.lengths = input<std::int64_t>(lengths, "lengths", s.B);
    problem_.d_hT = input<Scalar>(d_hT, "d_hT", s.B * s.h);
    problem_.block = block;
    problem_.flow = flow;
    problem_.weight_sum = weight_sum;
    schedule_ = plan(problem_, bias, input_gradient, Choices{levels, window, splits, piece, memory_limit});
  }

  // Fills the arrays of `gradients` (six parameters, h0, x, o; None where not wanted) and returns the loss.
  // With `shift` > 0 the gradients for d_o of that many steps later go to `shifted`, six parameters.
  // Gradients are cut where `cuts`, (T, B), is not zero.
  double gradient(const py::tuple& weights, const py::tuple& gradients, Index shift, const py::tuple& shifted,
                  const py::object& cuts, int threads) {
    const Shape& s = problem_.shape;
    if (gradients.size() != 9) misfit("gradients");
    Gradients<Scalar> to;
    to.params = outputs(gradients);
    to.h0 = output<Scalar>(gradients[6], "d_h0", s.B * s.h);
    to.x = output_sequence<Scalar>(gradients[7], "d_x", s.T, s.B, s.d);
    to.o = output_sequence<Scalar>(gradients[8], "d_o", s.T + shift, s.B, s.q);
    to.shift = shift;
    if (shift > 0) {
      if (!to.o || shifted.size() != 6) misfit("shifted");
      to.shifted = outputs(shifted);
    }
    Problem<Scalar> problem = problem_;
    problem.cuts = input<std::uint8_t>(cuts, "cuts", s.T * s.B);
    return compute(params<Scalar>(weights, s), problem, to, threads);
  }

  // The same for one vector of all parameters; `optional` tells which of b_h, b_q and W_qx it holds. Returns
  // None when theta is not a contiguous vector of the right type and size: Python then says what is wrong.
  py::object flat(const py::object& theta, std::tuple<bool, bool, bool> optional, int threads) {
    const Shape& s = problem_.shape;
    const auto [b_h, b_q, W_qx] = optional;
    const Index sizes[6] = {s.h * s.d,     s.h * s.h,     s.q * s.h,
                            b_h ? s.h : 0, b_q ? s.q : 0, W_qx ? s.q * s.d : 0};
    Index size = 0;
    for (const Index part : sizes) size += part;
    if (!is_array_of<Scalar>(theta, true)) return py::none();
    const auto array = py::reinterpret_borrow<py::array>(theta);
    if (array.ndim() != 1 || array.size() != size) return py::none();
    py::array_t<Scalar> result(size);
    const auto* at = static_cast<const Scalar*>(array.data());
    Scalar* to = result.mutable_data();
    Params<const Scalar> weights;
    Gradients<Scalar> gradients;
    const Scalar** inputs[6] = {&weights.W_hx, &weights.W_hh, &weights.W_qh,
                                &weights.b_h,  &weights.b_q,  &weights.W_qx};
    Scalar** outputs[6] = {&gradients.params.W_hx, &gradients.params.W_hh, &gradients.params.W_qh,
                           &gradients.params.b_h,  &gradients.params.b_q,  &gradients.params.W_qx};
    for (int i = 0; i < 6; ++i) {
      if (sizes[i] == 0) continue;
      *inputs[i] = at;
      *outputs[i] = to;
      at += sizes[i];
      to += sizes[i];
    }
    const double loss = compute(weights, problem_, gradients, threads);
    return py::make_tuple(loss, std::move(result));
  }

  // What the last gradient was computed with.
  py::dict taken() const {
    py::dict result;
    result["L"] = taken_.L;
    result["windows"] = taken_.windows;
    result["window"] = taken_.schedule.window;
    result["levels_wanted"] = schedule_.levels;
    result["splits"] = taken_.schedule.splits;
    result["piece"] = taken_.schedule.piece;
    result["bytes"] = taken_.schedule.memory;
    return result;
  }

 private:
  Params<Scalar> outputs(const py::tuple& to) const {
    const Shape& s = problem_.shape;
    return {output<Scalar>(to[0], "d_W_hx", s.h * s.d), output<Scalar>(to[1], "d_W_hh", s.h * s.h),
            output<Scalar>(to[2], "d_W_qh", s.q * s.h), output<Scalar>(to[3], "d_b_h", s.h),
            output<Scalar>(to[4], "d_b_q", s.q),        output<Scalar>(to[5], "d_W_qx", s.q * s.d)};
  }

  double compute(const Params<const Scalar>& weights, const Problem<Scalar>& problem,
                 const Gradients<Scalar>& to, int threads) {
    // One call at a time works in the kept memory; a second thread brings its own.
    const std::unique_lock lock(*busy_, std::try_to_lock);
    BorrowedWorkspace spare;
    Workspace& workspace = lock.owns_lock() ? kept_workspace_.get() : spare.get();
    double loss = 0;
    Taken taken;
    without_gil(threads, [&](Run& run) {
      loss = rnnbptt::gradient<Scalar>(run, workspace, weights, problem, to, schedule_, &taken);
    });
    if (lock.owns_lock()) taken_ = taken;
    return loss;
  }

  py::object kept_[6];  // the arrays the views below look at
  Problem<Scalar> problem_;
  Schedule schedule_;
  Taken taken_;
  BorrowedWorkspace kept_workspace_;
  std::unique_ptr<std::mutex> busy_ = std::make_unique<std::mutex>();
};

template <typename Scalar>
void register_as(py::module_& module, const char* name) {
  using Bound = BoundProblem<Scalar>;
  py::class_<Bound>(module, name)
      .def(py::init<const std::tuple<Index, Index, Index, Index, Index>&, const std::string&, py::object,
                    py::object, py::object, py::object, py::object, py::object, Index, double, double, int,
                    Index, Index, Index, double, bool, bool>(),
           py::kw_only(), py::arg("shape"), py::arg("loss"), py::arg("x"), py::arg("y"), py::arg("h0"),
           py::arg("weights"), py::arg("lengths"), py::arg("d_hT"), py::arg("block"), py::arg("flow"),
           py::arg("weight_sum"), py::arg("levels"), py::arg("window"), py::arg("splits"), py::arg("piece"),
           py::arg("memory_limit"), py::arg("bias"), py::arg("input_gradient"))
      .def("gradient", &Bound::gradient, py::arg("params"), py::arg("gradients"), py::arg("shift"),
           py::arg("shifted"), py::arg("cuts"), py::arg("threads"))
      .def("flat", &Bound::flat, py::arg("theta"), py::arg("optional"), py::arg("threads"))
      .def("taken", &Bound::taken);
}

}  // namespace

void register_problem(py::module_& module) {
  register_as<float>(module, "Problem32");
  register_as<double>(module, "Problem64");
}

}  // namespace rnnbptt::bindings
