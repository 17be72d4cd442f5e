"""The loss, equation (3), and its derivative by the outputs, equation (4).

A loss of one step is a pair (l, dl/do). It is written here for all steps at once, in whatever dtype the
outputs have; l itself is formed in float64 at least, because L is a sum of very many of them. It is (T, B),
or where it is a sum of shares of the outputs, and these may have weights of their own, (T, B, q).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..engine.losses import Loss

Array = NDArray[Any]


def widest(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype to accumulate in: at least double precision, complex where `dtype` is."""
    return np.result_type(dtype, np.float64)


def squared_error(o: Array, y: Array) -> tuple[Array, Array]:
    """``l = 1/2 ||o - y||^2``,  ``dl/do = o - y``."""
    residual = o - y
    wide = residual.astype(widest(o.dtype), copy=False)
    # Not |residual|^2: the complex step needs a function that is analytic in o.
    return wide * wide / 2, residual


def mse(o: Array, y: Array) -> tuple[Array, Array]:
    """``l = (1/q) ||o - y||^2``,  ``dl/do = (2/q) (o - y)``."""
    q = o.shape[-1]
    half, residual = squared_error(o, y)
    return half * (2 / q), residual * (2 / q)


def cross_entropy(o: Array, y: Array) -> tuple[Array, Array]:
    """``l = -log softmax(o)[y]``,  ``dl/do = softmax(o) - onehot(y)``.

    Both are written so that a confident, correct answer loses no digits. With m the index of the largest
    output, ``l = o_m - o_y + log(1 + sum_{k != m} exp(o_k - o_m))``; and the entry of dl/do at y, which
    is p_y - 1, is taken as minus the sum of all the other probabilities.
    """
    wide = o.astype(widest(o.dtype), copy=False)
    label = y[..., np.newaxis]
    top = np.argmax(wide.real, axis=-1, keepdims=True)
    k = np.arange(o.shape[-1])
    shifted = wide - np.take_along_axis(wide, top, axis=-1)
    others = np.sum(np.where(k == top, 0, np.exp(shifted)), axis=-1)
    step_loss = np.log1p(others) - np.take_along_axis(shifted, label, axis=-1)[..., 0]

    p = np.exp(shifted) / (1 + others[..., np.newaxis])
    p = np.where(k == label, 0, p)
    dl = np.where(k == label, -p.sum(axis=-1, keepdims=True), p)
    return step_loss, dl.astype(o.dtype, copy=False)


#: Formulas of their own for the names that `rnnbptt` knows. One with a parameter gets it behind o and y.
STEP_LOSSES: dict[str, Callable[..., tuple[Array, Array]]] = {
    "squared_error": squared_error,
    "mse": mse,
    "cross_entropy": cross_entropy,
}


def weighted_mean(loss: Loss, o: Array, y: Array, w: Array) -> tuple[Any, Array]:
    """Evaluate equations (3) and (4): ``L = (1/sum w) sum w l`` and ``d_o = (w / sum w) dl/do``.

    With a weight for every output, ``L = sum_j w_j l_j / (sum w / q)``, l_j being the share of output j in l.
    A step or an output of weight zero is left out, not multiplied by zero: its target may be anything, NaN
    included. Where nothing counts, both are zero.

    Parameters
    ----------
    loss : Loss
        Its name and parameter are read, no more.
    o : ndarray, shape (T, B, q)
    y : ndarray, shape (T, B, q), or (T, B) of class labels
    w : ndarray, shape (T, B) or (T, B, q)
        Real and at least zero, float64 or wider.

    Returns
    -------
    L : scalar
    d_o : ndarray, shape (T, B, q)
        Of the dtype of `o`.
    """
    parameters = () if loss.parameter is None else (loss.parameter,)
    step_loss, dl = STEP_LOSSES[loss.name](o, y, *parameters)
    by_output = w.ndim == 3
    if step_loss.ndim == 3 and not by_output:
        step_loss = step_loss.sum(axis=-1)
    total = w.sum() / (w.shape[-1] if by_output else 1)
    counts = w > 0
    share = w / (total if total > 0 else 1)  # each step's, or output's, share of the mean
    L = np.sum(np.where(counts, share * step_loss, 0))
    if not by_output:
        counts, share = counts[..., np.newaxis], share[..., np.newaxis]
    return L, np.where(counts, share.astype(o.dtype) * dl, 0)
