"""Every tolerance of the test suite, and the one way errors are measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

GAUGE = 1e-12
"""Relative residual of the gauge identity, float64."""

FORMS = 1e-12
"""Relative difference between two forms of the same gradient, float64."""

COMPLEX_STEP = 1e-12
"""Relative difference between a gradient and its complex step, float64."""

FINITE_DIFFERENCES = 1e-8
"""Relative difference between a gradient and Richardson-extrapolated central differences, float64."""

TIMES_SEQUENTIAL = 64
"""How many times the sequential recursion's own error a gradient may be off."""

TIMES_REFERENCE_MEDIAN = 1.5
"""What gradients of random problems may be off in the median, as a multiple of the recursion's own error."""

MARGINAL_RADIUS = 0.99
"""Spectral radius above which rounding errors add up over time instead of dying out."""


def gradient_bound(dtype: DTypeLike, h: int, T: int, spectral_radius: float) -> float:
    """Return the normwise relative error a gradient may have against an oracle of higher precision.

    ``8 ceil(log2(h T)) eps``; where the spectral radius is above 0.99, at least ``(T / 8) eps``.
    """
    # One product of two numbers still rounds: the logarithm counts as one at least.
    factor: float = 8 * max(1, math.ceil(math.log2(h * T)))
    if spectral_radius > MARGINAL_RADIUS:
        factor = max(factor, T / 8)
    return factor * float(np.finfo(np.dtype(dtype)).eps)


def relative_error(actual: ArrayLike, expected: ArrayLike) -> float:
    """Return ``||actual - expected|| / ||expected||`` in the Frobenius norm; 0 where both are zero.

    Computed in long double, so that measuring adds no rounding of its own.
    """
    a = np.asarray(actual, dtype=np.longdouble)
    b = np.asarray(expected, dtype=np.longdouble)
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape} differ"
    error = np.sqrt(np.sum((a - b) ** 2))
    size = np.sqrt(np.sum(b**2))
    return 0.0 if error == 0 else float(error / size) if size > 0 else math.inf


def sequential_bound(dtype: DTypeLike, own_error: float) -> float:
    """Return what a gradient may be off, given the sequential recursion's own error.

    64 times as much; an own error below one rounding, which is luck, counts as one.
    """
    return TIMES_SEQUENTIAL * max(own_error, float(np.finfo(np.dtype(dtype)).eps))
