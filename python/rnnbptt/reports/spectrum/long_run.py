"""Which side of the unit circle eigenvalues lie on, and how far powers tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ... import _core, _validate
from ...engine.powers import FLOAT64_BITS, power_norms
from .growth import stability_distance
from .numbers import exp2, rounding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..._validate import FloatArray
    from .numbers import Growth, Real

#: Powers of two up to which powers are followed with their rounding errors.
OCTAVES = 40
_EPS = float(np.finfo(np.float64).eps)


def octaves_at_one(h: int, dtype: str) -> int:
    """Return how many octaves of lags a radius that is 1 only to rounding stays as good as 1."""
    return min(OCTAVES, max(4, int(math.log2(0.01 / rounding(h, dtype)))))


class Rate(NamedTuple):
    """What powers at k = 1, 2, 4, ... tell about the spectral radius."""

    bounds: tuple[float, float]
    rate: float
    #: The octave up to which norms are right to 2^-10.
    trusted: int
    #: Certain upper bounds of log2 norms, octave by octave; all norms here are Frobenius'.
    tops: Real


def rate_of_powers(W: FloatArray, num_threads: int | None) -> Rate:
    r"""Bound the spectral radius by :math:`|\mathrm{tr} W^k| / h \le \rho^k \le \|W^k\|`, k = 2^j.

    Powers are believed as far as they do not depend on digits far behind the last one of W: an error of
    2^-70 h |P|^2 in each square is followed, where squaring P + E leaves 2 |P| |E| + |E|^2. `power_norms`
    itself computes with more digits than that where it takes more.
    """
    h = len(W)
    ks = 2 ** np.arange(OCTAVES + 1, dtype=np.int64)
    mantissas, scales = np.empty((len(ks), h, h)), np.empty(len(ks))
    threads = _validate.num_threads(num_threads)
    _core.scaled_powers(h, W, ks, mantissas, scales, threads, FLOAT64_BITS)
    norms = np.log2(np.linalg.norm(mantissas, "fro", axis=(1, 2))) + scales
    traces = np.log2(np.abs(np.trace(mantissas, axis1=1, axis2=2))) + scales
    low, high, trusted, error = -math.inf, math.inf, 0, -math.inf
    tops = np.full(len(ks), np.inf)
    for j, (norm, trace) in enumerate(zip(norms, traces, strict=True)):
        if norm == -math.inf:
            break
        k = 2.0**j
        tops[j] = np.logaddexp2(norm, error)
        high = min(high, float(tops[j]) / k)
        # |tr E| <= h |E|; a trace of less than twice that says nothing.
        if trace > math.log2(2 * h) + error:
            certain = trace + math.log2(-math.expm1((error + math.log2(h) - trace) * math.log(2)))
            low = max(low, (certain - math.log2(h)) / k)
        if error <= norm - 10:
            trusted = j
        fresh = math.log2(h) - 70 + 2 * float(tops[j])
        error = float(np.logaddexp2(np.logaddexp2(1 + norm + error, 2 * error), fresh))
        if not error < 2**60:
            break
    rate = norms[0] if trusted == 0 else (norms[trusted] - norms[trusted - 1]) / 2.0 ** (trusted - 1)
    low, high = exp2(low) * (1 - 4 * _EPS), exp2(high) * (1 + 4 * _EPS)
    return Rate((low, high), exp2(float(rate)), trusted, tops)


class Part(NamedTuple):
    """Eigenvalues of one irreducible diagonal block: outside (1), inside (-1) or at (0) the unit circle."""

    eigenvalues: NDArray[np.complex128]
    radius: float
    bounds: tuple[float, float]
    side: int


def irreducible_part(block: FloatArray, dtype: str, whole: Rate, h: int, num_threads: int | None) -> Part:
    tolerance = rounding(h, dtype)

    def side_of(radius: float) -> int:
        return 0 if abs(radius - 1) <= tolerance else 1 if radius > 1 else -1

    if len(block) == 1:
        radius = abs(float(block[0, 0]))
        return Part(block[0].astype(np.complex128), radius, (radius, radius), side_of(radius))
    eigenvalues = np.linalg.eigvals(block).astype(np.complex128)
    low, high = (whole if len(block) == h else rate_of_powers(block, num_threads)).bounds
    radius = min(max(float(np.abs(eigenvalues).max()), low), high)
    if high < 1 - tolerance or low > 1 + tolerance:
        return Part(eigenvalues, radius, (low, high), -1 if high < 1 else 1)
    # No matrix within rounding has an eigenvalue on the circle: none was moved across it.
    moved = tolerance * float(np.linalg.norm(block, 2))
    side = side_of(radius) if stability_distance(block, eigenvalues) > moved else 0
    if side < 0:
        high = min(high, 1.0)
    elif side > 0:
        low = max(low, 1.0)
    return Part(eigenvalues, radius, (low, high), side)


def diagonal_blocks(W: FloatArray) -> list[NDArray[np.intp]]:
    """Return the strongly connected components of the graph of nonzeros: W is block triangular in them."""
    reachable = (W != 0) | np.eye(len(W), dtype=bool)
    count = -1
    while count != (count := int(np.count_nonzero(reachable))):
        # Sums of at most h ones: exact in float32.
        reachable = (reachable.astype(np.float32) @ reachable.astype(np.float32)) > 0
    together = reachable & reachable.T
    representatives = together.argmax(axis=1)
    return [np.flatnonzero(representatives == first) for first in np.unique(representatives)]


def nilpotency_index(W: FloatArray, num_threads: int | None) -> int | None:
    h = len(W)
    if power_norms(W, h, "fro", num_threads=num_threads) > -np.inf:
        return None
    norms = power_norms(W, np.arange(h + 1), "fro", num_threads=num_threads)
    return int(np.argmax(norms == -np.inf))


def growth_at_one(
    W: FloatArray,
    whole: Rate,
    normal: bool,
    condition: float,
    exact: bool,
    dtype: str,
    num_threads: int | None,
) -> tuple[Growth, float | None]:
    """Tell bounded from polynomial growth where the spectral radius is 1 to rounding."""
    # Defective matrices have condition numbers beyond 1 / sqrt(eps), and only these grow.
    if normal or condition < 0.1 / math.sqrt(float(np.finfo(dtype).eps)):
        return "bounded", None
    # A triangular structure survives rounding of the powers, however large they become.
    last = 30 if exact else min(whole.trusted, octaves_at_one(len(W), dtype))
    if last < 4:
        return "undecided", None
    ks = np.unique(np.round(2.0 ** np.arange(0, last + 0.01, 0.25)).astype(np.int64))
    norms = power_norms(W, ks, "fro", num_threads=num_threads)
    octave = np.floor(np.log2(ks)).astype(int)
    tops = np.array([norms[octave == j].max() for j in range(last)])
    first = last // 2
    degrees = np.diff(tops[first:])
    degree = float(degrees.mean())
    if degree < 0.5:
        return "bounded", None
    # Exponential growth or decay under way shows as slopes that change from octave to octave.
    if not exact and np.ptp(degrees) > max(0.75, 0.25 * degree):
        return "undecided", None
    return "polynomial", float(degrees[-1])
