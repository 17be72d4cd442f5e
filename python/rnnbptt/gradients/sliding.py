"""Gradients of inputs that look back exactly tau states, summed up without a difference.

The engine takes lag windows as differences of two gradients (cpp/core/sliding says how). A difference is not
finite where either of its terms is not, even where that lies behind the lag window; these sums
do not look there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._validate import FloatArray
    from ..engine.params import Params


def lag_windows_of_x(params: Params, d_o: FloatArray, tau: int) -> NDArray[np.float64]:
    """Return ``d_x`` of losses that look back at `tau` states: (T, B, d)."""
    e = d_o.astype(np.float64) @ params.W_qh
    steps = len(e)
    # Sums over n losses, n = 1, 2, 4, ...: those that tau is made of are joined.
    g, joined, n = np.zeros_like(e), 0, 1
    power, passed = params.W_hh.astype(np.float64), np.eye(len(params.W_hh))  # W_hh^n, W_hh^joined
    while True:
        if tau & n:
            g[: steps - joined] += e[joined:] @ passed
            passed, joined = passed @ power, joined + n
        if joined == tau:
            break
        e[: steps - n] += e[n:] @ power
        power, n = power @ power, 2 * n
    d_x: NDArray[np.float64] = g @ params.W_hx
    return d_x if params.W_qx is None else d_x + d_o @ params.W_qx
