#include "core/algebra/rate.hpp"

#include <algorithm>
#include <chrono>

#include "core/algebra/products.hpp"

namespace rnnbptt {

template <typename Scalar>
double product_rate(Run& run) {
  constexpr Index rows = 64, size = 192, products = 400, rounds = 5;
  Workspace workspace;
  auto* B = workspace.take<Scalar>(size * size);
  std::fill(B, B + size * size, Scalar(1e-3));
  const Packed<Scalar> packed = pack<Scalar>(workspace, MatrixView<const Scalar>{B, size, size, size});
  auto* A = workspace.take<Scalar>(run.threads * rows * size);
  auto* C = workspace.take<Scalar>(run.threads * rows * size);
  std::fill(A, A + run.threads * rows * size, Scalar(1e-3));
  constexpr double multiply_adds = static_cast<double>(products * rows) * size * size;
  double best = 0;
  for (Index round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    parallel(run, run.threads, multiply_adds, [&](Index task, int) {
      const kernels::Rows<const Scalar*> a{A + task * rows * size, size};
      for (Index i = 0; i < products; ++i)
        multiply<Scalar>(rows, a, packed, {}, {C + task * rows * size, size});
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, 2 * multiply_adds * run.threads / seconds.count());
  }
  return best;
}

template double product_rate<float>(Run&);
template double product_rate<double>(Run&);

}  // namespace rnnbptt
