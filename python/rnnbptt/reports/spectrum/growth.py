"""How powers of a matrix that is not normal grow before eigenvalues rule."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...engine.powers import power_norms

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..._validate import FloatArray
    from .numbers import Real

#: Lags up to which every power is looked at for the largest; beyond, a search.
_DENSE = 32
_EPS = float(np.finfo(np.float64).eps)


def transient(W: FloatArray, last: int, tolerance: float, num_threads: int | None) -> tuple[float, int]:
    """Return log2 of the largest norm up to lag `last`, and its lag."""

    def norms(ks: NDArray[np.int64]) -> Real:
        return power_norms(W, ks, num_threads=num_threads)

    ks = np.unique(np.round(2.0 ** np.arange(0, math.log2(last) + 0.01, 0.25)).astype(np.int64))
    ks = np.union1d(np.arange(min(last, _DENSE) + 1), ks)
    # Singular values are costly: only where the Frobenius norm, which is larger, exceeds the peak so far.
    above = power_norms(W, ks, "fro", num_threads=num_threads)
    best, peak = 0, 0.0  # lag 0
    for some in np.array_split(np.argsort(-above, kind="stable"), math.ceil(len(ks) / 8)):
        chance = some[above[some] > peak]
        if chance.size == 0:
            break
        found = norms(ks[chance])
        if found.max() > peak:
            best, peak = int(chance[found.argmax()]), float(found.max())
    lag = int(ks[best])
    low, high = int(ks[max(best - 1, 0)]), int(ks[min(best + 1, len(ks) - 1)])
    while high - low > 2:
        near = np.unique(np.round(np.linspace(low, high, 10)).astype(np.int64))
        found = norms(near)
        best = int(found.argmax())
        if found[best] > peak:
            peak, lag = float(found[best]), int(near[best])
        closer = int(near[max(best - 1, 0)]), int(near[min(best + 1, len(near) - 1)])
        if closer == (low, high):
            break
        low, high = closer
    if peak <= tolerance:  # rounding of 1
        peak, lag = 0.0, 0
    return peak, lag


def _resolvent_norm(W: FloatArray, z: complex) -> float:
    """Return ||(z I - W)^-1||_2, from below: by the power method, which needs few steps near a pole."""
    try:
        inverse = np.linalg.inv(z * np.eye(len(W)) - W)
    except np.linalg.LinAlgError:
        return math.inf
    scale = float(np.abs(inverse).max())
    if not 0 < scale < math.inf:
        return math.inf
    inverse = inverse / scale
    v = inverse[:, np.linalg.norm(inverse, axis=0).argmax()]
    for _ in range(6):
        w = inverse.conj().T @ (v / np.linalg.norm(v))
        v = inverse @ (w / np.linalg.norm(w))
    return float(np.linalg.norm(v)) * scale


def _angles(eigenvalues: NDArray[np.complex128], distance: Real, grid: int) -> Real:
    """Return arguments of a dozen eigenvalues and of a grid: the upper half, for W is real."""
    chosen = eigenvalues[np.argsort(distance, kind="stable")[:24]]
    near = np.unique(np.abs(np.angle(chosen)).round(12))[:12]
    return np.union1d(near, np.linspace(0, np.pi, grid))


def _search(f: Callable[[Real], float], points: list[Real], steps: Real, rounds: int) -> float:
    """Return the largest f over `points`, then over a pattern that closes in around the best."""
    values = [f(point) for point in points]
    best, where = max(values), points[int(np.argmax(values))]
    for _ in range(rounds):
        if not math.isfinite(best):
            break
        moved = False
        for axis, sign in ((axis, sign) for axis in range(len(steps)) for sign in (1, -1)):
            trial = where.copy()
            trial[axis] += sign * steps[axis]
            if (value := f(trial)) > best:
                best, where, moved = value, trial, True
        if not moved:
            steps = steps / 3
    return best


def stability_distance(W: FloatArray, eigenvalues: NDArray[np.complex128]) -> float:
    angles = _angles(eigenvalues, np.abs(np.abs(eigenvalues) - 1), 16)
    points = [np.array([angle]) for angle in angles]
    norm = _search(lambda p: _resolvent_norm(W, np.exp(1j * p[0])), points, np.array([0.1]), 15)
    return 1 / norm


def kreiss_bound(W: FloatArray, eigenvalues: NDArray[np.complex128], peak_lag: int) -> float:
    """Return a lower bound of sup (|z| - 1) ||(z I - W)^-1||, at least its limit 1 at infinity."""

    def f(p: Real) -> float:
        excess = math.exp(min(p[1], 700.0))
        return excess * _resolvent_norm(W, (1 + excess) * np.exp(1j * p[0]))

    angles = _angles(eigenvalues, -np.abs(eigenvalues), 8)
    around = -math.log(max(peak_lag, 1))
    points = [np.array([angle, around + shift]) for angle in angles for shift in (-1.5, 0.0, 1.5)]
    return max(1.0, _search(f, points, np.array([0.1, 0.7]), 16))


def departure_from_normality(W: FloatArray, eigenvalues: NDArray[np.complex128]) -> float:
    total = float(np.sum(W * W))
    difference = total - float(np.sum(np.abs(eigenvalues) ** 2))
    return math.sqrt(difference) if difference > 16 * len(W) * _EPS * total else 0.0


def eigenvector_condition(W: FloatArray) -> float:
    vectors = np.linalg.eig(W).eigenvectors
    singular = np.linalg.svd(vectors, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf
