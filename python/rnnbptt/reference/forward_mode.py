"""Gradients without a backward pass: forward-mode sensitivities, known as real-time recurrent learning.

The derivative of the state h_t by every parameter is computed along with h_t. Differentiate equation (1) by
an entry w of W_hh, and mind that h_{t-1} depends on w too:

    d h_t / dw   =   (dW_hh/dw) h_{t-1}   +   W_hh (d h_{t-1} / dw)                                   (13)
    the total         the immediate             what earlier steps
    derivative        partial derivative        handed on

The loss then follows from the *total* derivative of the state by the chain rule,

    d L / dw = sum_t e_t^T (d h_t / dw),                        e_t = W_qh^T d_o_t.                   (14)

Equation (9) says the same with the roles exchanged: there the derivative of the loss by h_t is total and the
derivative of h_t by W_hh immediate. Either way each path from w to L is counted exactly once.

The sensitivities of one sequence are h x h x h numbers, and moving them one step costs O(h^4). In
return no earlier state is needed: the gradient is there while the sequence is still arriving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Collection

    from .model import Model

Array = NDArray[Any]


def state_gradients(model: Model, e: Array) -> Array:
    """Carry ``S_s = dh_t/dh_s`` forward for every s <= t, and collect ``g_s = sum_t S_s^T e_t``.

    Returns
    -------
    ndarray, shape (T, B, h)
        ``g_s = dL/dh_s``.
    """
    T, h = len(e), len(model.W_hh)
    g = np.zeros_like(e)
    S = np.zeros((T, h, h), e.dtype)
    for t in range(T):
        S[:t] = model.W_hh @ S[:t]
        S[t] = np.eye(h, dtype=e.dtype)
        g[: t + 1] += e[t] @ S[: t + 1]
    return g


def gradients(
    model: Model, x: Array, before: Array, hidden: Array, d_o: Array, e: Array, wrt: Collection[str]
) -> dict[str, Array]:
    """Evaluate equations (13) and (14) in one pass forward through time.

    Equation (1) is ``h_t = A z_t`` with everything it multiplies in one matrix and one vector,
    ``A = [W_hx  W_hh  b_h]`` and ``z_t = [x_t; h_{t-1}; 1]``, so one sensitivity serves all three.

    Parameters and result are those of `rnnbptt.reference.recursion.gradients`.
    """
    T, B, d = x.shape
    h, dtype = len(model.W_hh), d_o.dtype
    one = np.ones((B, 1), dtype)
    rows = np.arange(h)

    D_A = np.zeros((B, h, h, d + h + 1), dtype)  # D_A[b, i, m, n] = d h_t[b, i] / d A[m, n]
    D_h0 = np.eye(h, dtype=dtype)  # D_h0[i, j] = d h_t[i] / d h_0[j], the same for every sequence
    d_A = np.zeros((h, d + h + 1), dtype)
    d_h0 = np.zeros((B, h), dtype)
    d_W_qh, d_b_q = np.zeros_like(model.W_qh), np.zeros(d_o.shape[-1], dtype)
    d_W_qx = np.zeros((d_o.shape[-1], d), dtype)

    for t in range(T):
        z = np.concatenate([x[t], before[t], one], axis=-1)
        D_A = np.tensordot(D_A, model.W_hh, axes=(1, 1)).transpose(0, 3, 1, 2)  # (13), handed on
        D_A[:, rows, rows] += z[:, np.newaxis]  # (13), immediate
        D_h0 = model.W_hh @ D_h0

        d_A += np.tensordot(e[t], D_A, axes=2)  # (14)
        d_h0 += e[t] @ D_h0
        # The output weights feed no later step: for them immediate and total derivative are the same.
        d_W_qh += d_o[t].T @ hidden[t]
        d_W_qx += d_o[t].T @ x[t]
        d_b_q += d_o[t].sum(axis=0)

    found = {"W_hx": d_A[:, :d], "W_hh": d_A[:, d : d + h], "b_h": d_A[:, d + h]}
    found |= {"W_qh": d_W_qh, "W_qx": d_W_qx, "b_q": d_b_q, "h0": d_h0}
    if "x" in wrt:
        # W_hx x_t enters the state at step t as it is: dL/dx_t follows from dL/dh_t, itself in forward mode.
        found["x"] = state_gradients(model, e) @ model.W_hx
        if model.W_qx is not None:
            found["x"] += d_o @ model.W_qx
    return {name: np.ascontiguousarray(found[name]) for name in wrt}
