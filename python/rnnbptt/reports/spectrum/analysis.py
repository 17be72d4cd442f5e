"""What a recurrent matrix does to gradients in the long run, and on the way there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ... import _validate
from ...engine.floating_point import quiet
from ...engine.powers import power_norms
from .growth import (
    departure_from_normality,
    eigenvector_condition,
    kreiss_bound,
    stability_distance,
    transient,
)
from .long_run import (
    OCTAVES,
    diagonal_blocks,
    growth_at_one,
    irreducible_part,
    nilpotency_index,
    octaves_at_one,
    rate_of_powers,
)
from .numbers import Growth, Real, exp2, rounding
from .report import SpectralReport
from .verdict import in_words

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: Points of the curve of norms that a report holds.
_CURVE = 40
#: A relative departure from normality below this leaves no trace in norms.
_NORMAL = 1e-6


@quiet
def spectral_report(W_hh: ArrayLike, *, num_threads: int | None = None) -> SpectralReport:
    r"""Tell whether, how fast and by which detour gradients through ``W_hh`` vanish or explode.

    Eigenvalues decide the long run, singular values one step, and neither what happens in between: for
    a matrix that is not normal, norms of powers can grow over many steps before they decay,

    .. math::

        \rho(W)^k \;\le\; \|W^k\|_2 \;\le\; \|W\|_2^k, \qquad
        K \;\le\; \max_k \|W^k\|_2 \;\le\; e\,h\,K, \qquad
        K = \sup_{|z|>1} (|z|-1)\, \|(zI - W)^{-1}\|_2 .

    Computed eigenvalues do not decide alone either: rounding by eps moves those of an m-fold defective one
    by ``eps ** (1/m)``. They are believed where no matrix within rounding of ``W_hh`` has an eigenvalue on
    the unit circle. Elsewhere `power_norms` of high powers decide, as far as their own rounding allows;
    beyond that the report says that it cannot tell. An eigenvalue that stands alone on the diagonal, as in
    triangular matrices, is exact.

    Parameters
    ----------
    W_hh : array_like, shape (h, h)
        Hidden-to-hidden weights, float32 or float64. All computing is in float64.
    num_threads : int, optional
        Threads to use for powers; `get_num_threads` when absent.

    Returns
    -------
    SpectralReport

    Raises
    ------
    TypeError, ValueError
        If ``W_hh`` is not a square matrix of finite real numbers.

    Notes
    -----
    Largest norm: every lag up to 32, then four lags per octave up to a power of two m with ``||W^m|| <= 1``
    (later norms cannot exceed the largest before m), then closer and closer around the largest; a narrow
    peak between lags beyond 32 can be missed.

    Kreiss constant: the supremum is searched over arguments of eigenvalues and a grid, at ``|z| - 1`` near
    1/k for the k of the largest norm, then refined by a pattern search. Every point is a lower bound, and so
    is the result.

    The cost is that of some 200 inversions of a complex h x h matrix and up to 100 decompositions: some 30 ms
    at h = 32, seconds at h = 256.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
       ICML 2013.
    .. [2] L. N. Trefethen, M. Embree, *Spectra and Pseudospectra*, Princeton 2005, chapters 16 and 18.
    .. [3] P. Henrici, "Bounds for iterates, inverses, spectral variation and fields of values of
       non-normal matrices", Numer. Math. 4 (1962).

    Examples
    --------
    >>> import rnnbptt
    >>> report = rnnbptt.spectral_report([[0.5, 100.0], [0.0, 0.5]])
    >>> report.growth, report.spectral_radius, report.transient_lag, round(report.transient_growth)
    ('decaying', 0.5, 1, 100)
    """
    given = _validate.square("W_hh", W_hh)
    _validate.num_threads(num_threads)
    if not np.isfinite(given).all():
        row, column = np.argwhere(~np.isfinite(given))[0]
        raise ValueError(f"W_hh must be finite, not {given[row, column]} at [{row}, {column}]")
    W = given.astype(np.float64)
    h, dtype = len(W), str(given.dtype)
    tolerance = rounding(h, dtype)
    largest_singular_value = float(np.linalg.norm(W, 2))

    index = nilpotency_index(W, num_threads)
    whole = rate_of_powers(W, num_threads)
    parts = [
        irreducible_part(W[np.ix_(block, block)], dtype, whole, h, num_threads)
        for block in diagonal_blocks(W)
    ]
    eigenvalues = np.concatenate([part.eigenvalues for part in parts])
    if index is not None:
        eigenvalues = np.zeros(h, np.complex128)
    scale = 2.0 ** (math.frexp(float(np.abs(W).max()))[1] - 1) if W.any() else 1.0
    # Part by part: a division of complex numbers overflows on the way.
    scaled = (eigenvalues.view(np.float64) / scale).view(np.complex128)
    order = np.lexsort((-scaled.imag, -scaled.real, -np.abs(scaled).round(14)))
    eigenvalues = eigenvalues[order]
    radius = 0.0 if index is not None else max(part.radius for part in parts)
    bounds = tuple(0.0 if index is not None else max(part.bounds[i] for part in parts) for i in (0, 1))

    departure = departure_from_normality(W / scale, scaled)
    normal = departure <= _NORMAL * float(np.linalg.norm(W / scale))
    condition = 1.0 if normal else eigenvector_condition(W)

    degree = None
    if index is not None:
        growth: Growth = "nilpotent"
    elif any(part.side > 0 for part in parts):
        growth = "growing"
    elif all(part.side < 0 for part in parts):
        growth = "decaying"
    else:
        on_circle = [part for part in parts if part.side == 0]
        triangular = all(len(part.eigenvalues) == 1 for part in on_circle)
        growth, degree = growth_at_one(W, whole, normal, condition, triangular, dtype, num_threads)

    if growth == "polynomial":
        radius = min(max(1.0, bounds[0]), bounds[1])
    # A triangular structure survives rounding of the powers, however large they become.
    exact = index is not None or all(len(part.eigenvalues) == 1 for part in parts)
    rate, horizon = whole.rate, 2**whole.trusted
    if exact or whole.trusted == OCTAVES:
        horizon = 2**61
        tops = power_norms(W, 2 ** np.arange(62), "fro", num_threads=num_threads)
    else:
        tops = whole.tops
    if exact and index is None:
        rate = exp2(float(tops[31] - tops[30]) / 2**30)

    peak, peak_lag, contraction = math.inf, None, None
    if normal and growth in ("decaying", "bounded", "nilpotent"):
        peak, peak_lag, contraction = 0.0, 0, 0
    elif growth not in ("growing", "polynomial"):
        if growth == "bounded":
            last = 2 ** min(whole.trusted, octaves_at_one(h, dtype))
        else:
            last = 2 ** int(np.argmax(tops <= 0)) if (tops <= 0).any() else horizon
        peak, peak_lag = transient(W, last, tolerance, num_threads)
        # ||W^(m+j)|| <= ||W^m|| max_j ||W^j||
        small = tops + peak <= 0
        if peak == 0:
            contraction = 0
        elif growth != "bounded" and small.any():
            contraction = 2 ** int(np.argmax(small))
    bound = math.inf
    if peak_lag is not None:
        bound = kreiss_bound(W, eigenvalues, peak_lag)
        # No larger than the largest norm, but for rounding where W is all but singular to invert.
        if contraction is not None:
            bound = min(bound, max(1.0, exp2(peak)))

    moduli = np.abs(eigenvalues)
    logs = np.log(moduli)
    decay_times = np.where(np.abs(logs) <= tolerance, np.inf, -1 / logs) + 0.0
    periods = 2 * np.pi / np.abs(np.angle(eigenvalues))
    reach = max(4 * (peak_lag or 0), _reach(growth, index, decay_times))
    reach = min(max(reach, min(contraction or 0, 16 * (peak_lag or 0))), horizon)
    step = 2 ** max(0, math.ceil(math.log2(reach / _CURVE)))
    # Dense where it starts, by half octaves, then even: a detour is early, however far the long run is.
    early = np.union1d(np.arange(9), np.round(2.0 ** np.arange(3, math.log2(step) + 1, 0.5)).astype(np.int64))
    curve = np.union1d(early[early <= reach], np.arange(0, reach + 1, step))
    report = SpectralReport(
        size=h,
        dtype=dtype,
        growth=growth,
        verdict="",
        spectral_radius=radius,
        spectral_radius_bounds=(bounds[0], bounds[1]),
        largest_singular_value=largest_singular_value,
        growth_rate=0.0 if index is not None else rate,
        growth_degree=degree,
        nilpotency_index=index,
        log2_transient_growth=peak,
        transient_lag=peak_lag,
        contraction_lag=contraction,
        kreiss_lower_bound=bound,
        departure_from_normality=departure * scale,
        eigenvector_condition=condition,
        stability_distance=stability_distance(W, eigenvalues),
        eigenvalues=eigenvalues,
        decay_times=decay_times,
        periods=periods,
        unit_circle_distances=1 - moduli,
        lags=curve,
        log2_norms=power_norms(W, curve, num_threads=num_threads),
    )
    return replace(report, verdict=in_words(report, normal))


def _reach(growth: Growth, index: int | None, decay_times: Real) -> int:
    """Return the last lag that a picture of the norms needs."""
    if growth == "nilpotent":
        return max(8, 2 * (index or 0))
    times = np.abs(decay_times[np.isfinite(decay_times) & (decay_times != 0)])
    time = (
        float(times.max()) if times.size and growth == "bounded" else float(times[0]) if times.size else 16.0
    )
    return int(min(max(16.0, 4 * time), 2.0**20))
