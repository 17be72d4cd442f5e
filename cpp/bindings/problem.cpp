// _core.Problem32 and _core.Problem64: a data set that is kept.
#include <pybind11/stl.h>

#include <array>
#include <mutex>
#include <utility>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"
#include "bindings/workspaces.hpp"
#include "core/gauss_newton.hpp"
#include "core/gradient.hpp"
#include "core/hessian.hpp"
#include "core/losses.hpp"
#include "core/sensitivities.hpp"

namespace rnnbptt::bindings {
namespace {

Goal goal_of(const std::string& name) {
  if (name == "outputs") return Goal::outputs;
  if (name == "states") return Goal::states;
  if (name == "gradients") return Goal::gradients;
  if (name == "input_gradients") return Goal::input_gradients;
  misfit("goal");
}

template <typename Scalar>
class BoundProblem {
 public:
  BoundProblem(const std::tuple<Index, Index, Index, Index, Index>& shape, const std::string& loss,
               double loss_parameter, py::object x, py::object y, py::object h0, py::object weights,
               py::object lengths, py::object d_hT, Index block, double flow, Index tau, double weight_sum,
               Index lift, Index window, Index splits, Index piece, int keep_all_states, double memory_limit,
               bool bias, const std::string& goal, bool tangent)
      : kept_{x, y, h0, weights, lengths, d_hT} {
    auto& s = problem_.shape;
    std::tie(s.T, s.B, s.d, s.h, s.q) = shape;
    if (loss != "given") problem_.loss = &find_loss<Scalar>(loss);
    problem_.loss_parameter = loss_parameter;
    problem_.x = sequence<Scalar>(x, "x", s.T, s.B, s.d, 3);
    if (problem_.loss != nullptr && problem_.loss->traits.labels)
      problem_.labels = sequence<std::int64_t>(y, "y", s.T, s.B, 1, 2);
    else
      problem_.y = sequence<Scalar>(y, "y", s.T, s.B, tangent ? s.q / 2 : s.q, 3);
    problem_.h0 = input<Scalar>(h0, "h0", s.B * s.h);
    problem_.weights_of_outputs =
        is_array_of<double>(weights, false) && py::reinterpret_borrow<py::array>(weights).ndim() == 3;
    problem_.weights = sequence<double>(weights, "weights", s.T, s.B, tangent ? s.q / 2 : s.q,
                                        problem_.weights_of_outputs ? 3 : 2);
    problem_.lengths = input<std::int64_t>(lengths, "lengths", s.B);
    problem_.d_hT = input<Scalar>(d_hT, "d_hT", s.B * s.h);
    problem_.block = block;
    problem_.flow = flow;
    problem_.tau = tau;
    problem_.weight_sum = weight_sum;
    problem_.tangent = tangent;
    schedule_ = plan(problem_, bias, goal_of(goal),
                     Choices{lift, window, splits, piece, keep_all_states, memory_limit});
  }

  // The loss and six new arrays: the gradients of the parameters that are `wanted`, None for others. Fills
  // d_h0 and d_x unless they are None. Gradients are cut where `cuts`, (T, B), is not zero.
  py::tuple gradient(const py::tuple& weights, const py::tuple& wanted, const py::object& d_h0,
                     const py::object& d_x, const py::object& cuts, int threads) {
    const Shape& s = problem_.shape;
    const Params<const Scalar> from = params<Scalar>(weights, s);
    if (wanted.size() != 6) misfit("wanted");
    py::tuple results(6);
    Gradients<Scalar> to;
    Scalar** const members[6] = {&to.params.W_hx, &to.params.W_hh, &to.params.W_qh,
                                 &to.params.b_h,  &to.params.b_q,  &to.params.W_qx};
    for (std::size_t i = 0; i < 6; ++i) {
      const py::object weight = weights[i];
      if (wanted[i].is_none() || weight.is_none()) {
        results[i] = py::none();
        continue;
      }
      const auto& like = reinterpret_cast<const py::array&>(weight);
      py::array_t<Scalar> result(py::array::ShapeContainer(like.shape(), like.shape() + like.ndim()));
      *members[i] = result.mutable_data();
      results[i] = std::move(result);
    }
    to.h0 = output<Scalar>(d_h0, "d_h0", s.B * s.h);
    to.x = output_sequence<Scalar>(d_x, "d_x", s.T, s.B, s.d);
    Problem<Scalar> problem = problem_;
    problem.cuts = input<std::uint8_t>(cuts, "cuts", s.T * s.B);
    double loss = 0;
    results = holding(std::move(results), [&] { loss = compute(from, problem, to, threads); });
    return py::make_tuple(loss, std::move(results));
  }

  // Which of b_h, b_q and W_qx a vector of all parameters holds, and whether h0 follows.
  using Terms = std::tuple<bool, bool, bool, bool>;

  // The loss and its gradient, both for one vector of all parameters. Returns None when theta is not a
  // contiguous vector of the right type and size: Python then says what is wrong.
  py::object flat(const py::object& theta, const Terms& terms, int threads) {
    const Parts parts = parts_of(terms);
    const auto* at = vector(theta, parts);
    if (at == nullptr) return py::none();
    py::array_t<Scalar> result(parts.size);
    Scalar* to = result.mutable_data();
    Gradients<Scalar> gradients;
    gradients.params = params_at(to, parts);
    Problem<Scalar> moved = problem_;
    if (parts.at[6] >= 0) {
      moved.h0 = at + parts.at[6];
      gradients.h0 = to + parts.at[6];
    }
    double loss = 0;
    result =
        holding(std::move(result), [&] { loss = compute(params_at(at, parts), moved, gradients, threads); });
    return py::make_tuple(loss, std::move(result));
  }

  // The Hessian of the loss at theta times v, of a tangent problem; both are vectors of all parameters of the
  // model that was doubled.
  py::object hessian_product(const py::object& theta, const py::object& v, const Terms& terms, int threads) {
    Shape single = problem_.shape;
    single.h /= 2;
    single.q /= 2;
    const Parts parts = parts_of(terms, single);
    const auto* at = vector(theta, parts);
    const auto* along = vector(v, parts);
    if (!problem_.tangent) misfit("tangent");
    if (at == nullptr || along == nullptr) return py::none();
    py::array_t<Scalar> result(parts.size);
    Scalar* to = result.mutable_data();
    BorrowedWorkspace doubled;
    Workspace& memory = doubled.get();
    return holding(std::move(result), [&] {
      in_kept_workspace(threads, [&](Run& run, Workspace& workspace, UsedSchedule* used) {
        rnnbptt::hessian_product<Scalar>(run, workspace, memory, variables_at(at, parts),
                                         variables_at(along, parts), problem_, schedule_,
                                         variables_at(to, parts), used);
      });
    });
  }

  // Fills r, (T, B, q), where the loss is 1/2 sum r^2; theta as for flat().
  void residuals(const py::object& theta, const Terms& terms, const py::object& r, int threads) const {
    const Shape& s = problem_.shape;
    if (problem_.loss == nullptr || !problem_.loss->traits.sum_of_squares) misfit("loss");
    const auto to = output_sequence<Scalar>(r, "r", s.T, s.B, s.q);
    linearize(theta, terms, threads,
              [&](Run&, Workspace&, const Point& at) { rnnbptt::residuals<Scalar>(at.problem, at.o, to); });
  }

  // Fills the derivative of r, or where dL/do is given that of the outputs, (T, B, q * total). `first` says
  // where the columns of the six parameters and of h0 begin, below zero for what is not differentiated by;
  // all others are zero.
  void jacobian(const py::object& theta, const Terms& terms, const std::array<Index, 7>& first, Index total,
                const py::object& J, int threads) const {
    const Shape& s = problem_.shape;
    const Columns columns = columns_at(first, total);
    const auto to = output_sequence<Scalar>(J, "J", s.T, s.B, s.q * total);
    linearize(theta, terms, threads, [&](Run& run, Workspace& workspace, const Point& at) {
      rnnbptt::jacobian<Scalar>(run, workspace, at.weights, at.problem, columns, at.hidden, at.o, to);
    });
  }

  // Fills the Gauss-Newton matrix, J^T J of that derivative, (total, total).
  void gauss_newton(const py::object& theta, const Terms& terms, const std::array<Index, 7>& first,
                    Index total, const py::object& matrix, int threads) const {
    const Columns columns = columns_at(first, total);
    auto* to = output<Scalar>(matrix, "matrix", total * total);
    linearize(theta, terms, threads, [&](Run& run, Workspace& workspace, const Point& at) {
      rnnbptt::gauss_newton<Scalar>(run, workspace, at.weights, at.problem, columns, at.hidden, at.o, to);
    });
  }

  // Fills the blocks of that matrix that are not zero: states (n, n), outputs (groups, m, m + n) and starts
  // (B, h, groups m + n + h), as core/gauss_newton.hpp has them. `starts` is None where h0 is not derived by.
  void gauss_newton_blocks(const py::object& theta, const Terms& terms, const std::array<Index, 7>& first,
                           Index total, const py::object& states, const py::object& outputs,
                           const py::object& starts, int threads) const {
    const Columns columns = columns_at(first, total);
    const BlockSizes sizes = block_sizes(problem_, columns);
    const Index n = sizes.states, m = sizes.outputs, h = sizes.starts, groups = sizes.groups;
    const Blocks<Scalar> to{output<Scalar>(states, "states", n * n),
                            output<Scalar>(outputs, "outputs", groups * m * (m + n)),
                            output<Scalar>(starts, "starts", problem_.shape.B * h * (groups * m + n + h))};
    if (to.states == nullptr || to.outputs == nullptr || (to.starts == nullptr) != (h == 0)) misfit("blocks");
    linearize(theta, terms, threads, [&](Run& run, Workspace& workspace, const Point& at) {
      workspace.reset();
      rnnbptt::gauss_newton_blocks<Scalar>(run, workspace, at.weights, at.problem, columns, at.hidden, at.o,
                                           to);
    });
  }

  // Fills o, (T, B, q); all states, (T, B, h), and the last ones, (B, h), unless they are None.
  void outputs(const py::tuple& weights, const py::object& o, const py::object& hidden,
               const py::object& last, int threads) const {
    const Shape& s = problem_.shape;
    const Params<const Scalar> from = params<Scalar>(weights, s);
    const auto to = output_sequence<Scalar>(o, "o", s.T, s.B, s.q);
    const auto states = output_sequence<Scalar>(hidden, "hidden", s.T, s.B, s.h);
    auto* end = output<Scalar>(last, "last", s.B * s.h);
    if (!to || (problem_.lengths != nullptr && end != nullptr)) misfit("o");
    in_workspace(threads, [&](Run& run, Workspace& workspace) {
      rnnbptt::outputs<Scalar>(run, workspace, from, problem_, to, states, end, schedule_);
    });
  }

  // The schedule of the last gradient.
  py::dict used_schedule() const {
    py::dict result;
    result["L"] = used_.L;
    result["windows"] = used_.windows;
    result["window"] = used_.schedule.window;
    result["L_wanted"] = schedule_.L;
    result["growth"] = used_.growth;
    result["splits"] = used_.schedule.splits;
    result["piece"] = used_.schedule.piece;
    result["keep_all_states"] = used_.schedule.keep_all_states;
    result["bytes"] = used_.schedule.memory;
    return result;
  }

 private:
  // Where the six parameters and h0 begin in a vector of all, below zero where it does not hold them.
  struct Parts {
    Index at[7];
    Index size = 0;
  };

  Parts parts_of(const Terms& terms) const { return parts_of(terms, problem_.shape); }

  static Parts parts_of(const Terms& terms, const Shape& shape) {
    const auto [b_h, b_q, W_qx, h0] = terms;
    const bool held[7] = {true, true, true, b_h, b_q, W_qx, h0};
    const auto sizes = sizes_of(shape);
    Parts parts;
    for (std::size_t i = 0; i < 7; ++i) {
      parts.at[i] = held[i] ? parts.size : -1;
      if (held[i]) parts.size += sizes[i];
    }
    return parts;
  }

  // The data of a vector of all parameters; null when it is none.
  const Scalar* vector(const py::object& theta, const Parts& parts) const {
    if (!is_array_of<Scalar>(theta, true)) return nullptr;
    const auto& array = *reinterpret_cast<const py::array*>(&theta);
    if (array.ndim() != 1 || array.size() != parts.size) return nullptr;
    return static_cast<const Scalar*>(array.data());
  }

  template <typename Pointee>
  static Params<Pointee> params_at(Pointee* base, const Parts& parts) {
    const auto part = [&](int i) { return parts.at[i] < 0 ? nullptr : base + parts.at[i]; };
    return {part(0), part(1), part(2), part(3), part(4), part(5)};
  }

  template <typename Pointee>
  static Variables<Pointee> variables_at(Pointee* base, const Parts& parts) {
    return {params_at(base, parts), parts.at[6] < 0 ? nullptr : base + parts.at[6]};
  }

  Columns columns_at(const std::array<Index, 7>& first, Index total) const {
    const auto sizes = sizes_of(problem_.shape);
    for (std::size_t i = 0; i < 7; ++i)
      if (first[i] >= 0 && first[i] + sizes[i] > total) misfit("columns");
    return {first[0], first[1], first[2], first[3], first[4], first[5], first[6], problem_.shape.h, total};
  }

  // A point to linearize at: parameters, the problem with the point's own initial state, and the trajectory.
  struct Point {
    Params<const Scalar> weights;
    Problem<Scalar> problem;
    SequenceView<const Scalar> hidden, o;
  };

  // Calls work(run, workspace, point) without the GIL.
  template <typename Work>
  void linearize(const py::object& theta, const Terms& terms, int threads, const Work& work) const {
    const Parts parts = parts_of(terms);
    const auto* base = vector(theta, parts);
    if (base == nullptr) misfit("theta");
    Point at{params_at(base, parts), problem_, {}, {}};
    if (parts.at[6] >= 0) at.problem.h0 = base + parts.at[6];
    BorrowedWorkspace kept;
    Workspace& trajectory = kept.get();
    in_workspace(threads, [&](Run& run, Workspace& workspace) {
      const Shape& s = problem_.shape;
      trajectory.reset();
      const SequenceView<Scalar> hidden{trajectory.take<Scalar>(s.T * s.B * s.h), s.B * s.h, s.h};
      const SequenceView<Scalar> o{trajectory.take<Scalar>(s.T * s.B * s.q), s.B * s.q, s.q};
      Problem<Scalar> whole = at.problem;  // so that no bit depends on lengths of other sequences
      whole.lengths = nullptr;
      rnnbptt::outputs<Scalar>(run, workspace, at.weights, whole, o, hidden, nullptr,
                               plan(whole, at.weights.b_h != nullptr, Goal::states, schedule_.choices));
      at.hidden = {hidden.data, hidden.step, hidden.sequence};
      at.o = {o.data, o.step, o.sequence};
      work(run, workspace, at);
    });
  }

  // Calls work(run, workspace, used) without the GIL, in a workspace that the next call finds again.
  template <typename Work>
  void in_kept_workspace(int threads, const Work& work) {
    BorrowedWorkspace borrowed(&owner_);
    Workspace& workspace = borrowed.get();
    UsedSchedule used;
    without_gil(threads, [&](Run& run) { work(run, workspace, &used); });
    const std::unique_lock lock(*noting_, std::try_to_lock);
    if (lock.owns_lock()) used_ = used;
  }

  double compute(const Params<const Scalar>& weights, const Problem<Scalar>& problem,
                 const Gradients<Scalar>& to, int threads) {
    double loss = 0;
    in_kept_workspace(threads, [&](Run& run, Workspace& workspace, UsedSchedule* used) {
      loss = rnnbptt::gradient<Scalar>(run, workspace, weights, problem, to, schedule_, used);
    });
    return loss;
  }

  py::object kept_[6];  // the arrays the views below look at
  Problem<Scalar> problem_;
  Schedule schedule_;
  UsedSchedule used_;
  Owner owner_;
  std::unique_ptr<std::mutex> noting_ = std::make_unique<std::mutex>();
};

// As py::init does it, which leaves the new object to be registered after the call, where an exception for
// lack of memory would end the process.
template <typename Class, typename... Arguments>
void construct(py::detail::value_and_holder& self, Arguments... arguments) {
  auto made = std::make_unique<Class>(std::forward<Arguments>(arguments)...);
  self.value_ptr() = made.get();
  try {
    self.type->init_instance(self.inst, &made);
  } catch (...) {
    self.value_ptr() = nullptr;
    throw;
  }
}

template <typename Scalar>
void register_as(py::module_& module, const char* name) {
  using Bound = BoundProblem<Scalar>;
  py::class_<Bound>(module, name)
      .def("__init__",
           construct<Bound, const std::tuple<Index, Index, Index, Index, Index>&, const std::string&, double,
                     py::object, py::object, py::object, py::object, py::object, py::object, Index, double,
                     Index, double, Index, Index, Index, Index, int, double, bool, const std::string&, bool>,
           py::detail::is_new_style_constructor(), py::kw_only(), py::arg("shape"), py::arg("loss"),
           py::arg("loss_parameter"), py::arg("x"), py::arg("y"), py::arg("h0"), py::arg("weights"),
           py::arg("lengths"), py::arg("d_hT"), py::arg("block"), py::arg("flow"), py::arg("tau"),
           py::arg("weight_sum"), py::arg("lift"), py::arg("window"), py::arg("splits"), py::arg("piece"),
           py::arg("keep_all_states"), py::arg("memory_limit"), py::arg("bias"), py::arg("goal"),
           py::arg("tangent"))
      .def("gradient", &Bound::gradient, py::arg("params"), py::arg("wanted"), py::arg("d_h0"),
           py::arg("d_x"), py::arg("cuts"), py::arg("threads"))
      .def("flat", &Bound::flat, py::arg("theta"), py::arg("terms"), py::arg("threads"))
      .def("hessian_product", &Bound::hessian_product, py::arg("theta"), py::arg("v"), py::arg("terms"),
           py::arg("threads"))
      .def("outputs", &Bound::outputs, py::arg("params"), py::arg("o"), py::arg("hidden"), py::arg("last"),
           py::arg("threads"))
      .def("residuals", &Bound::residuals, py::arg("theta"), py::arg("terms"), py::arg("r"),
           py::arg("threads"))
      .def("jacobian", &Bound::jacobian, py::arg("theta"), py::arg("terms"), py::arg("first"),
           py::arg("total"), py::arg("J"), py::arg("threads"))
      .def("gauss_newton", &Bound::gauss_newton, py::arg("theta"), py::arg("terms"), py::arg("first"),
           py::arg("total"), py::arg("matrix"), py::arg("threads"))
      .def("gauss_newton_blocks", &Bound::gauss_newton_blocks, py::arg("theta"), py::arg("terms"),
           py::arg("first"), py::arg("total"), py::arg("states"), py::arg("outputs"), py::arg("starts"),
           py::arg("threads"))
      .def("used_schedule", &Bound::used_schedule);
}

}  // namespace

void register_problem(py::module_& module) {
  register_as<float>(module, "Problem32");
  register_as<double>(module, "Problem64");
}

}  // namespace rnnbptt::bindings
