"""Backpropagation through time solved on paper: equation (7), with explicit powers of W_hh^T.

Unrolling the recursion (6) leaves no recursion. The state gradient is a sum over *lags* k = i - t, and at
every lag stands the same matrix, the k-th power of W_hh^T:

    g_t = sum_{k=0..T-t} (W_hh^T)^k e_{t+k},        e_t = W_qh^T d_o_t.

The source text counts downwards, with the exponent T - i where this page writes k: that is equation (7).

The cost is O(T^2 h^2) where the recursion needs O(T h^2), and a power may overflow before a sum that the
recursion would have kept finite. This form is for reading and for checking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.floating_point import quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import ArrayLike

    from .model import Model

Array = NDArray[Any]


def powers(W: Array, n: int) -> Array:
    """Return ``W^0 .. W^n``, stacked; see `matrix_powers`."""
    result = _validate.allocate("powers", (n + 1, *W.shape), W.dtype)
    result[0] = np.eye(len(W), dtype=W.dtype)
    for k in range(n):
        result[k + 1] = result[k] @ W
    return result


def states(model: Model, x: Array, h0: Array) -> Array:
    """Solve equation (1): ``h_t = W_hh^t h_0 + sum_{k=0..t-1} W_hh^k (W_hx x_{t-k} + b_h)``.

    Returns
    -------
    ndarray, shape (T, B, h)
    """
    T = len(x)
    power = powers(model.W_hh, T)
    v = x @ model.W_hx.T
    if model.b_h is not None:
        v += model.b_h
    hidden = np.stack([h0 @ power[t].T for t in range(1, T + 1)])
    for k in range(T):
        hidden[k:] += v[: T - k] @ power[k].T
    return hidden


def state_gradients(model: Model, e: Array) -> Array:
    """Evaluate equation (7), the sum over lags k of ``(W_hh^T)^k e_{t+k}``.

    Returns
    -------
    ndarray, shape (T, B, h)
        ``g_t = dL/dh_t``.
    """
    T = len(e)
    power = powers(model.W_hh, T - 1)
    g = np.zeros_like(e)
    for k in range(T):
        g[: T - k] += e[k:] @ power[k]
    return g


def gradients(
    model: Model, x: Array, before: Array, hidden: Array, d_o: Array, e: Array, wrt: Collection[str]
) -> dict[str, Array]:
    """Evaluate equations (5) and (7) to (12), each sum over steps written out in its indices.

    Parameters and result are those of `rnnbptt.reference.recursion.gradients`. In the subscripts t is the
    step, b the sequence, and the two last letters are row and column of the weight.
    """
    g = state_gradients(model, e)  # (7)

    def d_x() -> Array:
        d_x: Array = np.einsum("tbh,hd->tbd", g, model.W_hx)
        if model.W_qx is not None:
            d_x += np.einsum("tbq,qd->tbd", d_o, model.W_qx)
        return d_x

    formula: dict[str, Callable[[], Array]] = {
        "W_qh": lambda: np.einsum("tbq,tbh->qh", d_o, hidden),  # (5)
        "W_hx": lambda: np.einsum("tbh,tbd->hd", g, x),  # (8)
        "W_hh": lambda: np.einsum("tbh,tbj->hj", g, before),  # (9)
        "h0": lambda: np.einsum("hj,bh->bj", model.W_hh, g[0]),  # (10)
        "x": d_x,  # (11)
        "b_h": lambda: np.einsum("tbh->h", g),  # (12)
        "b_q": lambda: np.einsum("tbq->q", d_o),
        "W_qx": lambda: np.einsum("tbq,tbd->qd", d_o, x),
    }
    return {name: formula[name]() for name in wrt}


@quiet
def matrix_powers(W: ArrayLike, n: int) -> Array:
    """Return the powers ``W^0, W^1, .., W^n``.

    Parameters
    ----------
    W : array_like, shape (h, h)
        A square matrix; its dtype is the dtype of the result.
    n : int
        The highest exponent, at least 0.

    Returns
    -------
    ndarray, shape (n + 1, h, h)
        The identity first.

    Raises
    ------
    TypeError, ValueError
        If `W` is not a square matrix or `n` not a non-negative integer.
    """
    matrix, n = _validate.square("W", W), _validate.integer("n", n, 0)
    _validate.allocate("powers up to n", (n + 1, *matrix.shape), matrix.dtype)  # too many are refused at once
    return powers(matrix, n)
