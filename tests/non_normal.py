"""Strongly non-normal W_hh of ordinary systems: their powers grow before they decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import scipy.linalg
import scipy.signal
from numpy.typing import NDArray

from problems import Array, Case, Scalar
from rnnbptt import Params

Matrix = NDArray[np.float64]


def companion(polynomial: Any) -> Matrix:
    """Return the companion matrix of a monic polynomial, highest power first: a digital filter's W_hh."""
    a = np.asarray(polynomial, dtype=np.float64)
    h = a.size - 1
    return np.vstack([-a[1:], np.eye(h)[:-1]])


def butterworth(rng: np.random.Generator) -> Matrix:
    _, a = scipy.signal.butter(int(rng.integers(2, 13)), rng.uniform(0.08, 0.6))
    return companion(a)


def chebyshev(rng: np.random.Generator) -> Matrix:
    _, a = scipy.signal.cheby1(int(rng.integers(2, 11)), rng.uniform(0.1, 3), rng.uniform(0.1, 0.6))
    return companion(a)


def real_poles(rng: np.random.Generator) -> Matrix:
    return companion(np.poly(rng.uniform(0.3, 0.97, rng.integers(2, 13))))


def jordan(rng: np.random.Generator) -> Matrix:
    h = int(rng.integers(2, 17))
    eigenvalue = float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.97))
    return eigenvalue * np.eye(h) + float(rng.choice([1.0, 0.5])) * np.eye(h, k=1)


def rotated_jordan(rng: np.random.Generator) -> Matrix:
    J = jordan(rng)
    Q = np.linalg.qr(rng.standard_normal(J.shape))[0]
    return cast(Matrix, Q @ J @ Q.T)


def graded(rng: np.random.Generator) -> Matrix:
    """D A D^-1, with scales over six decades."""
    h = int(rng.integers(2, 33))
    A = rng.standard_normal((h, h))
    A *= rng.uniform(0.3, 0.97) / np.abs(np.linalg.eigvals(A)).max()
    scales: Matrix = 10 ** rng.permutation(np.linspace(-3, 3, h))
    D_A: Matrix = scales[:, np.newaxis] * A
    return D_A / scales


def rank_one(rng: np.random.Generator) -> Matrix:
    """u v^T of norm up to 10^4 whose one eigenvalue, v^T u, lies within the unit circle."""
    h = int(rng.integers(2, 33))
    u, v = np.linalg.qr(rng.standard_normal((h, 2)))[0].T
    norm = 10 ** rng.uniform(0.3, 4)
    return norm * np.outer(u, v + rng.uniform(-0.97, 0.97) / norm * u)


def triangular(rng: np.random.Generator) -> Matrix:
    h = int(rng.integers(2, 17))
    strict = np.triu(rng.standard_normal((h, h)), 1) * 10 ** rng.uniform(-0.5, 1)
    return np.diag(rng.uniform(-0.95, 0.95, h)) + strict


FAMILIES: dict[str, Callable[[np.random.Generator], Matrix]] = {
    family.__name__: family
    for family in (butterworth, chebyshev, real_poles, jordan, rotated_jordan, graded, rank_one, triangular)
}


def largest_power(W: Matrix) -> float:
    """Return the largest norm of W^k for k up to 128, apart from the scales of states."""
    W = scipy.linalg.matrix_balance(W, permute=False)[0]
    P, largest = np.eye(len(W)), 1.0
    for _ in range(128):
        P = P @ W
        largest = max(largest, float(np.linalg.norm(P)))
    return largest


def draw_matrix(rng: np.random.Generator, family: str, dtype: Scalar) -> Matrix:
    """Draw a matrix, or its transpose, that is stable as rounded, and leaves the recursion some digits."""
    most = 3e-5 / float(np.finfo(dtype).eps)
    while True:
        W = FAMILIES[family](rng).astype(dtype).astype(np.float64)
        if np.abs(np.linalg.eigvals(W)).max() < 0.99 and largest_power(W) < most:
            return W.T if rng.integers(2) else W


def draw_non_normal(seed: int, family: str, dtype: Scalar, steps: int = 400, radius: float = 0) -> Case:
    """Draw a problem of a family: as filters have their inputs, in one state, or anywhere.

    A `radius` that is not zero replaces the matrix's own.
    """
    rng = np.random.default_rng([seed, list(FAMILIES).index(family)])
    W_hh = draw_matrix(rng, family, dtype)
    own = np.abs(np.linalg.eigvals(W_hh)).max()
    if radius > 0 and own > 0:
        W_hh = W_hh * (radius / own)
    h = len(W_hh)
    T, B = int(rng.integers(20, steps + 1)), int(rng.integers(1, 4))
    d, q = (int(n) for n in rng.integers(1, 4, 2))
    W_hx, W_qh = rng.standard_normal((h, d)), rng.standard_normal((q, h))
    if rng.integers(2):
        W_hx[1:] = 0
    if rng.integers(2):
        W_qh[:, :-1] = 0
    more: dict[str, Any] = {}
    if rng.integers(2):
        more |= {"b_h": rng.standard_normal(h), "b_q": rng.standard_normal(q)}
    if rng.integers(2):
        more["W_qx"] = rng.standard_normal((q, d))
    parts = {"W_hx": W_hx, "W_hh": W_hh, "W_qh": W_qh} | more
    params = Params(**{name: np.ascontiguousarray(part, dtype) for name, part in parts.items()})
    x: Array = rng.standard_normal((T, B, d)).astype(dtype)
    y: Array = rng.standard_normal((T, B, q)).astype(dtype)
    options: dict[str, Any] = {"loss": "mse"}
    if rng.integers(2):
        options["h0"] = rng.standard_normal((B, h)).astype(dtype)
    return Case(params, x, y, options)
