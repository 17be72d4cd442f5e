"""Backpropagation through time as everyone runs it: equation (6), one step after another, backwards.

The forward pass (1) and the backward pass (6) are the *same* computation, a linear scan

    s_t = A s_{t-1} + v_t,

once with A = W_hh and v_t = W_hx x_t + b_h from the first step to the last, once with A = W_hh^T and
v_t = e_t = W_qh^T d_o_t from the last step to the first. Only the scan is sequential. Every other sum over
time is one matrix product over all steps, taken outside the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .scan import linear_scan as linear_scan  # where older pickles look for it
from .scan import scan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .model import Model

Array = NDArray[Any]


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
    rows = a.shape[0] * a.shape[1]  # not -1, which NumPy cannot infer of no columns
    return a.reshape(rows, a.shape[2]).T @ b.reshape(rows, b.shape[2])


def gradients(
    model: Model, x: Array, before: Array, hidden: Array, d_o: Array, e: Array, wrt: Collection[str]
) -> dict[str, Array]:
    """Evaluate equations (5), (6) and (8) to (12).

    Parameters
    ----------
    model : Model
    x, before, hidden : ndarray, shapes (T, B, d), (T, B, h), (T, B, h)
        Inputs of the forward pass, and states before and after each step.
    d_o : ndarray, shape (T, B, q)
        ``dL/do_t``, equation (4).
    e : ndarray, shape (T, B, h)
        The part of dL/dh_t that comes through no later state: ``e_t = W_qh^T d_o_t``, and for the last state
        what the caller adds to it.
    wrt : collection of str
        Which gradients to evaluate: fields of `rnnbptt.Gradients`.

    Returns
    -------
    dict
        One array for each name in `wrt`.
    """
    g = state_gradients(model, e)  # (6)
    return sums(model, x, before, hidden, d_o, g, g[0] @ model.W_hh, wrt)  # (10)


def sums(
    model: Model,
    x: Array,
    before: Array,
    hidden: Array,
    d_o: Array,
    g: Array,
    d_h0: Array,
    wrt: Collection[str],
) -> dict[str, Array]:
    """Evaluate equations (5), (8), (9), (11) and (12) from the state gradients `g`, wherever they come from.

    Each weight appears once in every step. Its gradient is therefore a sum over steps of (the derivative of
    the loss by that step's result) times (the vector that the weight multiplied in that step).
    """
    W_hx, W_qx = model.W_hx, model.W_qx
    formula: dict[str, Callable[[], Array]] = {
        "W_qh": lambda: outer_sum(d_o, hidden),  # (5)
        "W_hx": lambda: outer_sum(g, x),  # (8)
        "W_hh": lambda: outer_sum(g, before),  # (9)
        "h0": lambda: d_h0,
        "x": lambda: g @ W_hx if W_qx is None else g @ W_hx + d_o @ W_qx,  # (11)
        "b_h": lambda: g.sum(axis=(0, 1)),  # (12)
        "b_q": lambda: d_o.sum(axis=(0, 1)),
        "W_qx": lambda: outer_sum(d_o, x),
    }
    return {name: formula[name]() for name in wrt}
