"""Backpropagation through time as everyone runs it: equation (6), one step after another, backwards.

The forward pass (1) and the backward pass (6) are the *same* computation, a linear scan

    s_t = A s_{t-1} + v_t,

once with A = W_hh and v_t = W_hx x_t + b_h from the first step to the last, once with A = W_hh^T and
v_t = e_t = W_qh^T d_o_t from the last step to the first. Only the scan is sequential. Every other sum over
time is one matrix product over all steps, taken outside the loop.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _validate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import ArrayLike

    from .model import Model

Array = NDArray[Any]


def scan(
    W: Array, v: Array, s0: Array | None = None, *, reverse: bool = False, transpose: bool = False
) -> Array:
    """Run ``s_t = W s_{t-1} + v_t`` over the first axis of `v`; see `linear_scan`."""
    s = v.copy()
    steps = s[::-1] if reverse else s
    # A row s_{t-1} is multiplied from the right by the transpose of what multiplies a column from the left.
    # Laid out row by row, because a product with one row is a third faster that way.
    A = np.ascontiguousarray(W if transpose else W.T)
    if s0 is not None:
        steps[0] += s0 @ A
    for before, now in pairwise(steps):
        now += before @ A
    return s


def state_gradients(model: Model, e: Array) -> Array:
    """Run equation (6), ``g_t = e_t + W_hh^T g_{t+1}`` from ``g_{T+1} = 0``, for t = T..1.

    Returns
    -------
    ndarray, shape (T, B, h)
        ``g_t = dL/dh_t``, the *total* derivative: the effect of h_t on the loss through every later step.
    """
    return scan(model.W_hh, e, reverse=True, transpose=True)


def outer_sum(a: Array, b: Array) -> Array:
    """Return ``sum_{t,b} a_{t,b} b_{t,b}^T``: a sum of outer products is one matrix product."""
    return a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1])


def gradients(
    model: Model, x: Array, h0: Array, hidden: Array, d_o: Array, e: Array, wrt: Collection[str]
) -> dict[str, Array]:
    """Evaluate equations (5), (6) and (8) to (12).

    Parameters
    ----------
    model : Model
    x, h0, hidden : ndarray, shapes (T, B, d), (B, h), (T, B, h)
        Inputs and states of the forward pass.
    d_o : ndarray, shape (T, B, q)
        ``dL/do_t``, equation (4).
    e : ndarray, shape (T, B, h)
        What the loss asks of each state directly: ``e_t = W_qh^T d_o_t``, and more for a state that is
        used otherwise.
    wrt : collection of str
        Which gradients to evaluate: fields of `rnnbptt.Gradients`.

    Returns
    -------
    dict
        One array for each name in `wrt`.
    """
    g = state_gradients(model, e)  # (6)
    return sums(model, x, h0, hidden, d_o, g, g[0] @ model.W_hh, wrt)  # (10)


def sums(
    model: Model,
    x: Array,
    h0: Array,
    hidden: Array,
    d_o: Array,
    g: Array,
    d_h0: Array,
    wrt: Collection[str],
) -> dict[str, Array]:
    """Evaluate equations (5), (8), (9), (11) and (12) from the state gradients `g`, wherever they come from.

    Each weight appears once in every step. Its gradient is therefore a sum over steps of (what the loss
    asks of that step's result) times (what the weight was multiplied with in that step).
    """
    W_hx, W_qx = model.W_hx, model.W_qx
    formula: dict[str, Callable[[], Array]] = {
        "W_qh": lambda: outer_sum(d_o, hidden),  # (5)
        "W_hx": lambda: outer_sum(g, x),  # (8)
        "W_hh": lambda: g[0].T @ h0 + outer_sum(g[1:], hidden[:-1]),  # (9)
        "h0": lambda: d_h0,
        "x": lambda: g @ W_hx if W_qx is None else g @ W_hx + d_o @ W_qx,  # (11)
        "b_h": lambda: g.sum(axis=(0, 1)),  # (12)
        "b_q": lambda: d_o.sum(axis=(0, 1)),
        "W_qx": lambda: outer_sum(d_o, x),
    }
    return {name: formula[name]() for name in wrt}


@np.errstate(over="ignore", invalid="ignore")
def linear_scan(
    W: ArrayLike,
    v: ArrayLike,
    s0: ArrayLike | None = None,
    *,
    reverse: bool = False,
    transpose: bool = False,
) -> Array:
    r"""Run the linear recurrence ``s_t = W s_{t-1} + v_t``.

    Parameters
    ----------
    W : array_like, shape (h, h)
        The matrix of the recurrence; its dtype is the dtype of the computation.
    v : array_like, shape (T, B, h) or (T, h)
        What enters at each step.
    s0 : array_like, shape (B, h) or (h,), optional
        The state before the first step taken; zero when absent.
    reverse : bool
        Run from t = T down to 1 instead: ``s_t = W s_{t+1} + v_t``, where `s0` stands for ``s_{T+1}``.
    transpose : bool
        Use ``W^T`` in place of ``W``.

    Returns
    -------
    ndarray, shape of `v`
        The states s_1 .. s_T.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Notes
    -----
    The scan with ``reverse=True, transpose=True`` is the adjoint of the scan with neither: for
    ``s = linear_scan(W, v)`` and ``r = linear_scan(W, u, reverse=True, transpose=True)``,

    .. math:: \sum_t u_t^T s_t = \sum_t r_t^T v_t .

    That sentence is backpropagation through time.
    """
    matrix = _validate.square("W", W)
    h = matrix.shape[0]
    entering, batched = _validate.sequence("v", v, matrix.dtype, h, batch_first=False)
    start = _validate.initial_state(s0, matrix.dtype, entering.shape[1], h, batched, name="s0")
    result = scan(
        matrix,
        entering,
        start,
        reverse=_validate.boolean("reverse", reverse),
        transpose=_validate.boolean("transpose", transpose),
    )
    return result if batched else result[:, 0]
