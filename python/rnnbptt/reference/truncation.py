"""Truncated backpropagation through time: which terms of equation (7) are kept.

With ``e_t = W_qh^T d_o_t`` for t = 1..T and ``e_0 = 0``, the full gradient is

    g_t = sum_{i>=0} (W_hh^T)^i e_{t+i},

for t = 0 too: ``g_0 = d_h_0``, equation (10). Every truncation replaces g_t, and the sums (5), (8), (9),
(11) and (12) stay the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.truncation import Chunked, Randomized, Sliding
from .scan import scan

if TYPE_CHECKING:
    from ..engine.truncation import Truncation

Array = NDArray[Any]


def state_gradients(truncate: Truncation, W: Array, e: Array) -> tuple[Array, Array]:
    """Return ``g_1 .. g_T`` and ``g_0 = d_h_0``.

    Parameters
    ----------
    truncate : Sliding, Chunked or Randomized
    W : ndarray, shape (h, h)
        W_hh.
    e : ndarray, shape (T, B, h)
        ``W_qh^T d_o_t``: the part of dL/dh_t that comes through o_t alone.
    """
    if isinstance(truncate, Sliding):
        return sliding(truncate.tau, W, e)
    if isinstance(truncate, Chunked):
        return chunked(truncate.tau, W, e)
    return randomized(truncate, W, e)


def sliding(tau: int, W: Array, e: Array) -> tuple[Array, Array]:
    """``g_t = sum_{i=0}^{tau-1} (W_hh^T)^i e_{t+i}``, for t = 0..T."""
    term = np.concatenate([np.zeros_like(e[:1]), e])  # row t: (W_hh^T)^i e_{t+i}
    g = term.copy()
    for i in range(1, min(tau, len(g))):
        term = term[1:] @ W
        g[:-i] += term
    return g[1:], g[0]


def chunked(tau: int, W: Array, e: Array) -> tuple[Array, Array]:
    """Equation (6) in each block of `tau` steps, from zero after its last step."""
    blocks = [scan(W, e[t : t + tau], reverse=True, transpose=True) for t in range(0, len(e), tau)]
    g = np.concatenate(blocks)
    return g, g[0] @ W


def randomized(truncate: Randomized, W: Array, e: Array) -> tuple[Array, Array]:
    """``g_t = e_t + a_{t+1} W_hh^T g_{t+1}``, a_t in {0, 1 / (1 - c)} drawn for every step and sequence."""
    T, B, _ = e.shape
    a = np.where(truncate.cuts(T, B), 0, truncate.factor).astype(e.dtype)[..., np.newaxis]
    g = e.copy()
    for t in reversed(range(T - 1)):
        g[t] += np.where(a[t + 1] > 0, a[t + 1] * (g[t + 1] @ W), 0)
    return g, np.where(a[0] > 0, a[0] * (g[0] @ W), 0)
