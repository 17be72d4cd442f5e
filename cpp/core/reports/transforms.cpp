// Correlations by Fourier transforms of sections of time.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/algebra/products.hpp"
#include "core/reports/correlation.hpp"

namespace rnnbptt {
namespace {

constexpr Index lanes = kernels::transform_lanes;
constexpr Index number = 2 * lanes;  // scalars of a complex number in every lane

// exp(-2 pi i k / n) for k < 3/4 n, from the first quarter.
const double* roots_of_unity(Workspace& workspace, Index n) {
  auto* roots = workspace.take<double>(2 * n);
  for (Index k = 0; k < n; ++k) {
    double *to = roots + 2 * k, *before = roots + 2 * (k - n / 4);
    if (4 * k >= n && n >= 4) {  // times -i
      to[0] = before[1];
      to[1] = -before[0];
    } else {
      const double angle = -2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(n);
      to[0] = std::cos(angle);
      to[1] = std::sin(angle);
    }
  }
  return roots;
}

// [re P | im P] = init + sum_n [re A_n | im A_n] [...], see below, over the lanes n, at one frequency: q
// rows. `spectra` holds that frequency of q + m series, each `length` numbers long; `right` has room for
// panels of the conjugates.
void multiply_spectra(Index q, Index m, Index length, const double* spectra, double* right,
                      const double* init, double* P) {
  const auto& kernel = kernels::table().of<double>();
  const Index panel = kernel.panel_columns;
  for (Index j = 0; j < m; ++j) {
    const double* c = spectra + (q + j) * length * number;
    double* re = right + j / panel * panel * number + j % panel;
    double* im = right + (m + j) / panel * panel * number + (m + j) % panel;
    for (Index l = 0; l < lanes; ++l) {
      re[l * panel] = c[l];
      re[(lanes + l) * panel] = c[lanes + l];
      im[l * panel] = -c[lanes + l];
      im[(lanes + l) * panel] = c[l];
    }
  }
  kernels::Product<double> p;
  p.rows = q;
  p.depth = number;
  p.columns = 2 * m;
  p.a = {spectra, length * number, nullptr};
  p.b = right;
  p.b_depth = panel;
  p.b_panel = panel * number;
  p.init = {init, 2 * m, nullptr};
  p.c = {P, 2 * m, nullptr};
  kernel.product(p);
}

}  // namespace

// Time is cut into sections of s = length - count + 1 steps. For one section of b, steps c s .. c s + s - 1
// and zeros, and the steps c s .. c s + length - 1 of a, the inverse transform of the product of the one
// transform and the conjugate of the other is their correlation for all lags below count. Two sections make
// one sequence of complex numbers: the real part of its correlation is the sum of theirs. Transforms of such
// pairs run side by side in lanes; products are summed over the pairs, frequency by frequency:
//
//     P(f) = sum_n A_n(f) C_n(f)^H,        [re P | im P] = sum_n [re A_n | im A_n] [  re C_n^T  -im C_n^T ]
//                                                                                  [  im C_n^T   re C_n^T ].
void correlate_by_transforms(Run& run, Workspace& workspace, Index T, Index B, Index q, Index m, Index count,
                             Index length, SequenceView<const double> a, SequenceView<const double> b,
                             double* R) {
  workspace.reset();
  const auto& table = kernels::table();
  const Index step = length - count + 1, per_sequence = (T + step - 1) / step, sections = B * per_sequence;
  const double* roots = roots_of_unity(workspace, length);
  auto* spectra = workspace.take<double>((q + m) * length * number);
  auto* products = workspace.take<double>(length * q * 2 * m);
  const Index panel = table.of<double>().panel_columns, packed = (2 * m + panel - 1) / panel * panel * number;
  auto* scratch = workspace.take<double>(run.threads * std::max(packed, length * number));

  // Series of a pair of sections: `from` on, up to `used` steps of them.
  const auto gather = [&](SequenceView<const double> rows, Index i, Index group, Index used, double* x) {
    std::fill(x, x + length * number, 0.0);
    constexpr Index strip = 64;  // what is written stays in the first cache
    for (Index n = 0; n < used; n += strip)
      for (Index l = 0; l < number; ++l) {
        const Index section = (group * lanes + l % lanes) * 2 + l / lanes;
        if (section >= sections) continue;
        const Index sequence = section / per_sequence, first = section % per_sequence * step;
        const Index stop = std::min({n + strip, used, T - first});
        for (Index t = n; t < stop; ++t) x[t * number + l] = rows.at(first + t, sequence)[i];
      }
  };
  const double transform_work = static_cast<double>(length * number) * std::log2(static_cast<double>(length));
  const Index groups = (sections + number - 1) / number;
  for (Index group = 0; group < groups; ++group) {
    parallel(run, q + m, transform_work, [&](Index i, int) {
      double* x = spectra + i * length * number;
      i < q ? gather(a, i, group, length, x) : gather(b, i - q, group, step, x);
      table.transforms->forward(length, x, roots, 1);
    });
    constexpr Index at_once = 64;
    const double work = static_cast<double>(at_once * number * 2 * m) * static_cast<double>(q + 1);
    parallel(run, (length + at_once - 1) / at_once, work, [&](Index task, int worker) {
      double* right = scratch + worker * packed;
      for (Index f = task * at_once; f < std::min(length, (task + 1) * at_once); ++f) {
        double* product = products + f * q * 2 * m;
        multiply_spectra(q, m, length, spectra + f * number, right, group > 0 ? product : nullptr, product);
      }
    });
  }
  parallel(run, (q * m + lanes - 1) / lanes, transform_work, [&](Index task, int worker) {
    double* x = scratch + worker * length * number;
    const Index first = task * lanes, some = std::min(lanes, q * m - first);
    for (Index f = 0; f < length; ++f)
      for (Index l = 0; l < lanes; ++l) {
        const Index i = (first + l) / m, j = (first + l) % m;
        const double* from = products + f * q * 2 * m + i * 2 * m + j;
        x[f * number + l] = l < some ? from[0] : 0.0;
        x[f * number + lanes + l] = l < some ? from[m] : 0.0;
      }
    table.transforms->inverse(length, x, roots, 1);
    const double scale = 1 / static_cast<double>(length);
    for (Index k = 0; k < count; ++k)
      for (Index l = 0; l < some; ++l) R[k * q * m + first + l] = x[k * number + l] * scale;
  });
}

}  // namespace rnnbptt
