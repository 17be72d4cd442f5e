"""Hankel singular values: how much each state of a balanced system carries from inputs to outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import schur, solve_sylvester

if TYPE_CHECKING:
    from .experiments import Real

#: Doublings of the steps a Gramian sums up: powers of a stable matrix of float64 vanish before.
MOST_DOUBLINGS = 80
#: Units of rounding, for every state, that an eigenvalue of modulus one may come out smaller.
ROUNDING = 10


def hankel_singular_values(A: Real, B: Real, C: Real) -> Real:
    r"""Return the singular values of the operator from past inputs to future outputs.

    .. math::

        \sigma_i = \sqrt{\lambda_i(P Q)}, \qquad P = A P A^\top + B B^\top, \qquad Q = A^\top Q A + C^\top C

    Both Gramians are kept as factors, so that small values lose no digits to large ones [1]_.

    Parameters
    ----------
    A : ndarray, shape (h, h)
    B : ndarray, shape (h, d)
    C : ndarray, shape (q, h)

    Returns
    -------
    ndarray, shape (h,)
        Largest first. A mode of A on or beyond the unit circle has an infinite one; the others are those of
        the stable part, which is cut off by a change of basis.

    References
    ----------
    .. [1] M. S. Tombs, I. Postlethwaite, "Truncated balanced realization of a stable non-minimal state-space
       system", International Journal of Control 46 (1987), 1319-1330.
    """
    h = len(A)
    inside = 1 - ROUNDING * h * float(np.finfo(np.float64).eps)
    T, Z, stable = schur(A, output="complex", sort=lambda value: abs(value) < inside)
    # T [I X; 0 I] = [I X; 0 I] diag(T11, T22): in these coordinates the two parts do not meet.
    X = solve_sylvester(T[:stable, :stable], -T[stable:, stable:], -T[:stable, stable:])
    inputs = Z.conj().T @ B
    inputs = inputs[:stable] - X @ inputs[stable:]
    reached = _gramian_factor(T[:stable, :stable], inputs)
    seen = _gramian_factor(T[:stable, :stable].conj().T, (C @ Z[:, :stable]).conj().T)
    result = np.zeros(h)
    result[: h - stable] = np.inf
    values = np.linalg.svd(seen.conj().T @ reached, compute_uv=False)
    result[h - stable : h - stable + len(values)] = values
    return result


def _gramian_factor(A: Real, L: Real) -> Real:
    """Return a factor F, ``F F^H = sum_k A^k L L^H (A^k)^H``, in no more columns than rows."""
    for _ in range(MOST_DOUBLINGS):
        further = A @ L
        L = np.concatenate([L, further], axis=1)
        if L.shape[1] > len(L):
            L = np.asarray(np.linalg.qr(L.conj().T, mode="r")).conj().T
        if np.linalg.norm(further) <= np.finfo(np.float64).eps ** 2 * np.linalg.norm(L):
            break
        A = A @ A
    return L
