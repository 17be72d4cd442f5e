// _core.linear_scan, _core.matrix_powers, _core.scaled_powers, _core.scaled_scan, _core.product,
// _core.multiply_entries, _core.scan_entries, _core.correlate_entries,
// _core.correlate, _core.log2_state_norms, _core.outer_sum, _core.inner_products, _core.gram_products:
// results go to arrays that Python has allocated; _core.row_sizes; and _core.panel_product_rate, the
// machine's limit for benchmarks.
#include <algorithm>

#include "bindings/arrays.hpp"
#include "bindings/module.hpp"
#include "bindings/workspaces.hpp"
#include "core/algebra/rate.hpp"
#include "core/recurrence.hpp"
#include "core/reports/correlation.hpp"
#include "core/reports/entries.hpp"
#include "core/reports/lag_sums.hpp"
#include "core/reports/row_sizes.hpp"
#include "core/reports/scaled_powers.hpp"
#include "core/reports/scaled_scan.hpp"
#include "core/reports/state_norms.hpp"

namespace rnnbptt::bindings {
namespace {

template <typename Scalar>
void bound_linear_scan(const std::tuple<Index, Index, Index>& sizes, const py::object& W, const py::object& v,
                       const py::object& s0, bool reverse, bool transpose, const py::object& s, Index piece,
                       int threads) {
  const auto [T, B, h] = sizes;
  const auto* matrix = input<Scalar>(W, "W", h * h);
  const auto entering = sequence<Scalar>(v, "v", T, B, h, 3);
  const auto* start = input<Scalar>(s0, "s0", B * h);
  const auto states = output_sequence<Scalar>(s, "s", T, B, h);
  in_workspace(threads, [&, T = T, B = B, h = h](Run& run, Workspace& workspace) {
    linear_scan(run, workspace, T, B, h, matrix, entering, start, reverse, transpose, states, piece);
  });
}

template <typename Scalar>
void bound_matrix_powers(Index h, Index n, const py::object& W, const py::object& powers, int threads) {
  const auto* matrix = input<Scalar>(W, "W", h * h);
  auto* to = output<Scalar>(powers, "powers", (n + 1) * h * h);
  in_workspace(threads,
               [&](Run& run, Workspace& workspace) { matrix_powers(run, workspace, h, n, matrix, to); });
}

template <typename Scalar>
void register_as(py::module_& module, const std::string& bits) {
  module.def(("linear_scan" + bits).c_str(), &bound_linear_scan<Scalar>, py::arg("shape"), py::arg("W"),
             py::arg("v"), py::arg("s0"), py::arg("reverse"), py::arg("transpose"), py::arg("s"),
             py::arg("piece"), py::arg("threads"));
  module.def(("matrix_powers" + bits).c_str(), &bound_matrix_powers<Scalar>, py::arg("h"), py::arg("n"),
             py::arg("W"), py::arg("powers"), py::arg("threads"));
}

// exponents: float64, which holds all of them, or int64 for callers that keep to what it holds.
void bound_scaled_powers(Index h, const py::object& W, const py::object& ks, const py::object& mantissas,
                         const py::object& exponents, int threads, int bits) {
  const auto* matrix = input<double>(W, "W", h * h);
  const Index count = py::reinterpret_borrow<py::array>(ks).size();
  const auto* powers = input<std::int64_t>(ks, "ks", count);
  auto* to = output<double>(mantissas, "mantissas", count * h * h);
  const bool wide = py::isinstance<py::array_t<double>>(exponents);
  auto* scales = wide ? output<double>(exponents, "exponents", count) : nullptr;
  auto* integers = wide ? nullptr : output<std::int64_t>(exponents, "exponents", count);
  in_workspace(threads, [&](Run& run, Workspace& workspace) {
    workspace.reset();
    auto* copy = workspace.take<double>(h * h);
    std::copy(matrix, matrix + h * h, copy);
    if (!wide) scales = workspace.take<double>(count);
    scaled_powers(run, workspace, h, copy, count, powers, bits, to, scales);
    if (wide) return;
    constexpr double most = 0x1p62;
    for (Index i = 0; i < count; ++i)
      integers[i] = static_cast<std::int64_t>(std::clamp(scales[i], -most, most));
  });
}

void bound_scaled_scan(const std::tuple<Index, Index, Index>& sizes, const py::object& M,
                       std::int64_t exponent, const py::object& v, const py::object& v_exponents,
                       const py::object& s, const py::object& s_exponents, std::int64_t zero, bool reverse) {
  const auto [steps, B, h] = sizes;
  const auto* matrix = input<double>(M, "M", h * h);
  const ScaledRows<const double, const std::int64_t> entering{
      input<double>(v, "v", steps * B * h), input<std::int64_t>(v_exponents, "v_exponents", steps * B)};
  const ScaledRows<double, std::int64_t> states{
      output<double>(s, "s", (steps + 1) * B * h),
      output<std::int64_t>(s_exponents, "s_exponents", (steps + 1) * B)};
  in_workspace(1, [&, steps = steps, B = B, h = h](Run& run, Workspace& workspace) {
    scaled_scan(run, workspace, steps, B, h, matrix, exponent, entering, states, zero, reverse);
  });
}

using Numbers = std::tuple<py::object, py::object>;  // mantissas and exponents

GivenEntries given(const Numbers& numbers, const char* name, Index size) {
  return {input<double>(std::get<0>(numbers), name, size),
          input<std::int64_t>(std::get<1>(numbers), name, size)};
}

WrittenEntries written(const Numbers& numbers, const char* name, Index size) {
  return {output<double>(std::get<0>(numbers), name, size),
          output<std::int64_t>(std::get<1>(numbers), name, size)};
}

void bound_multiply_entries(const std::tuple<Index, Index, Index>& sizes, const Numbers& A, const Numbers& B,
                            const Numbers& C, std::int64_t zero, int threads) {
  const auto [m, k, n] = sizes;
  const GivenEntries left = given(A, "A", m * k), right = given(B, "B", k * n);
  const WrittenEntries to = written(C, "C", m * n);
  without_gil(threads,
              [&, m = m, k = k, n = n](Run& run) { multiply_entries(run, m, k, n, left, right, to, zero); });
}

void bound_scan_entries(const std::tuple<Index, Index, Index>& sizes, const Numbers& M, const Numbers& v,
                        const Numbers& s, std::int64_t zero, bool reverse) {
  const auto [steps, B, h] = sizes;
  const GivenEntries matrix = given(M, "M", h * h), entering = given(v, "v", steps * B * h);
  const WrittenEntries states = written(s, "s", (steps + 1) * B * h);
  without_gil(1, [&, steps = steps, B = B, h = h](Run& run) {
    scan_entries(run, steps, B, h, matrix, entering, states, zero, reverse);
  });
}

void bound_correlate_entries(const std::tuple<Index, Index, Index, Index, Index>& sizes, const Numbers& a,
                             const Numbers& b, const Numbers& R, std::int64_t zero, int threads) {
  const auto [T, B, q, m, count] = sizes;
  const GivenEntries left = given(a, "a", T * B * q), right = given(b, "b", T * B * m);
  const WrittenEntries to = written(R, "R", count * q * m);
  without_gil(threads, [&, T = T, B = B, q = q, m = m, count = count](Run& run) {
    correlate_entries(run, T, B, q, m, count, left, right, to, zero);
  });
}

// C = A B, (m, k) times (k, n).
void bound_product(const std::tuple<Index, Index, Index>& sizes, const py::object& A, const py::object& B,
                   const py::object& C, int threads) {
  const auto [m, k, n] = sizes;
  const auto* left = input<double>(A, "A", m * k);
  const auto* right = input<double>(B, "B", k * n);
  auto* to = output<double>(C, "C", m * n);
  in_workspace(threads, [&, m = m, k = k, n = n](Run& run, Workspace& workspace) {
    workspace.reset();
    auto* copy = workspace.take<double>(k * n);
    std::copy(right, right + k * n, copy);
    multiply_strided<double>(run, workspace, {left, m, k, k}, {copy, k, n, n}, nullptr, to);
  });
}

// By direct sums, or by transforms of `length` steps where that is not zero.
void bound_correlate(const std::tuple<Index, Index, Index, Index, Index>& sizes, const py::object& a,
                     const py::object& b, const py::object& R, Index length, int threads) {
  const auto [T, B, q, m, count] = sizes;
  const auto left = sequence<double>(a, "a", T, B, q, 3);
  const auto right = sequence<double>(b, "b", T, B, m, 3);
  auto* to = output<double>(R, "R", count * q * m);
  BorrowedWorkspace borrowed;
  Workspace& workspace = borrowed.get();
  without_gil(threads, [&, T = T, B = B, q = q, m = m, count = count](Run& run) {
    if (length == 0) return correlate(run, workspace, T, B, q, m, count, left, right, to);
    correlate_by_transforms(run, workspace, T, B, q, m, count, length, left, right, to);
  });
}

void bound_log2_state_norms(const std::tuple<Index, Index, Index, Index>& sizes, const py::object& W,
                            const py::object& U, const py::object& u, const py::object& start,
                            const py::object& logs, int threads) {
  const auto [lanes, steps, h, m] = sizes;
  const auto* matrix = input<double>(W, "W", h * h);
  const auto* columns = input<double>(U, "U", h * m);
  const auto* entering = input<double>(u, "u", lanes * steps * m);
  const auto* states = input<double>(start, "start", lanes * h);
  auto* to = output<double>(logs, "logs", lanes * steps);
  BorrowedWorkspace borrowed;
  Workspace& workspace = borrowed.get();
  without_gil(threads, [&, lanes = lanes, steps = steps, h = h, m = m](Run& run) {
    log2_state_norms(run, workspace, lanes, steps, h, m, matrix, columns, entering, states, to);
  });
}

std::tuple<bool, bool, bool> bound_row_sizes(Index rows, Index width, Index lanes, const py::object& data,
                                             int bits) {
  const auto* from = input<double>(data, "data", rows * width);
  RowSizes found{};
  without_gil(1, [&](Run&) { found = row_sizes(rows, width, lanes, from, bits); });
  return {found.tame, found.falls, found.rises};
}

void bound_outer_sum(const std::tuple<Index, Index, Index>& sizes, const py::object& A, const py::object& B,
                     const py::object& C, int threads) {
  const auto [rows, m, n] = sizes;
  const auto* left = input<double>(A, "A", rows * m);
  const auto* right = input<double>(B, "B", rows * n);
  auto* to = output<double>(C, "C", m * n);
  in_workspace(threads, [&, rows = rows, m = m, n = n](Run& run, Workspace& workspace) {
    outer_sum(run, workspace, rows, left, m, right, n, to);
  });
}

void bound_inner_products(const std::tuple<Index, Index, Index, Index>& sizes, const py::object& P,
                          const py::object& G, const py::object& Z, const py::object& inner, int threads) {
  const auto [K, q, h, w] = sizes;
  const auto* left = input<double>(P, "P", K * q * h);
  const auto* matrix = input<double>(G, "G", h * w);
  const auto* right = input<double>(Z, "Z", K * q * w);
  auto* to = output<double>(inner, "inner", K);
  in_workspace(threads, [&, K = K, q = q, h = h, w = w](Run& run, Workspace& workspace) {
    inner_products(run, workspace, K, q, h, w, left, matrix, right, to);
  });
}

void bound_gram_products(const std::tuple<Index, Index, Index, Index>& sizes, const py::object& P,
                         const py::object& Z, const py::object& B, const py::object& inner,
                         const py::object& largest, int threads) {
  const auto [K, q, h, w] = sizes;
  const auto* left = input<double>(P, "P", K * q * h);
  const auto* right = input<double>(Z, "Z", K * q * w);
  const auto* same = input<double>(B, "B", q * q);
  if ((right == nullptr) == (same == nullptr)) misfit("B");
  auto* to = output<double>(inner, "inner", K);
  auto* sizes_to = output<double>(largest, "largest", K);
  in_workspace(threads, [&, K = K, q = q, h = h, w = w](Run& run, Workspace& workspace) {
    gram_products(run, workspace, K, q, h, w, left, right, same, to, sizes_to);
  });
}

double panel_product_rate(const std::string& dtype, int threads) {
  double rate = 0;
  without_gil(threads, [&](Run& run) {
    rate = dtype == "f32" ? product_rate<float>(run) : product_rate<double>(run);
  });
  return rate / 1e9;
}

}  // namespace

void register_trajectories(py::module_& module) {
  register_as<float>(module, "32");
  register_as<double>(module, "64");
  module.def("scaled_powers", &bound_scaled_powers, py::arg("h"), py::arg("W"), py::arg("ks"),
             py::arg("mantissas"), py::arg("exponents"), py::arg("threads"), py::arg("bits"));
  module.def("scaled_scan", &bound_scaled_scan, py::arg("shape"), py::arg("M"), py::arg("exponent"),
             py::arg("v"), py::arg("v_exponents"), py::arg("s"), py::arg("s_exponents"), py::arg("zero"),
             py::arg("reverse"));
  module.def("multiply_entries", &bound_multiply_entries, py::arg("shape"), py::arg("A"), py::arg("B"),
             py::arg("C"), py::arg("zero"), py::arg("threads"));
  module.def("scan_entries", &bound_scan_entries, py::arg("shape"), py::arg("M"), py::arg("v"), py::arg("s"),
             py::arg("zero"), py::arg("reverse"));
  module.def("correlate_entries", &bound_correlate_entries, py::arg("shape"), py::arg("a"), py::arg("b"),
             py::arg("R"), py::arg("zero"), py::arg("threads"));
  module.def("product", &bound_product, py::arg("shape"), py::arg("A"), py::arg("B"), py::arg("C"),
             py::arg("threads"));
  module.def("correlate", &bound_correlate, py::arg("shape"), py::arg("a"), py::arg("b"), py::arg("R"),
             py::arg("length"), py::arg("threads"));
  module.def("row_sizes", &bound_row_sizes, py::arg("rows"), py::arg("width"), py::arg("lanes"),
             py::arg("data"), py::arg("bits"));
  module.def("outer_sum", &bound_outer_sum, py::arg("shape"), py::arg("A"), py::arg("B"), py::arg("C"),
             py::arg("threads"));
  module.def("inner_products", &bound_inner_products, py::arg("shape"), py::arg("P"), py::arg("G"),
             py::arg("Z"), py::arg("inner"), py::arg("threads"));
  module.def("gram_products", &bound_gram_products, py::arg("shape"), py::arg("P"), py::arg("Z"),
             py::arg("B"), py::arg("inner"), py::arg("largest"), py::arg("threads"));
  module.def("log2_state_norms", &bound_log2_state_norms, py::arg("shape"), py::arg("W"), py::arg("U"),
             py::arg("u"), py::arg("start"), py::arg("logs"), py::arg("threads"));
  module.def("panel_product_rate", &panel_product_rate, py::arg("dtype"), py::arg("threads"));
}

}  // namespace rnnbptt::bindings
