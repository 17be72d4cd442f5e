"""Linear RNNs as state-space systems, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _validate
from ..engine.params import Params

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .experiments import Real

#: Where W_qh A = C holds to no better than this part of C, or takes a W_qh so large that rounding would be as
#: bad, the state is extended instead.
EXACT = 1e-9


class StateSpace(NamedTuple):
    r"""A discrete-time system whose output sees the state before its update.

    .. math::

        s_{k+1} = A s_k + B u_k, \qquad y_k = C s_k + D u_k, \qquad s_0 = x_0

    Attributes
    ----------
    A : ndarray, shape (h, h)
    B : ndarray, shape (h, d), or (h, d + 1) of a network with biases
        Empty of a system without inputs and biases.
    C : ndarray, shape (q, h)
    D : ndarray, shape (q, d), or (q, d + 1) of a network with biases
    x0 : ndarray, shape (h,) or (B, h)
        Initial state; one row for every experiment where there are several.
    """

    A: Real
    B: Real
    C: Real
    D: Real
    x0: Real


def to_state_space(params: Params, h0: Real) -> StateSpace:
    r"""Write a network as a state-space system.

    The network updates its state first and reads it afterwards, the system reads first. With
    :math:`s_k = h_{k-1}`,

    .. math::

        A = W_{hh}, \quad B = W_{hx}, \quad C = W_{qh} W_{hh}, \quad D = W_{qx} + W_{qh} W_{hx}.

    Biases become the column of an extra, last input that is always one: ``b_h`` in B,
    ``b_q + W_qh b_h`` in D.

    Parameters
    ----------
    params : Params
    h0 : ndarray, shape (h,) or (B, h)

    Returns
    -------
    StateSpace
    """
    B, D = params.W_hx, params.W_qh @ params.W_hx
    if params.W_qx is not None:
        D = D + params.W_qx
    if params.b_h is not None or params.b_q is not None:
        _, h, q = params.shape
        b_h = np.zeros(h) if params.b_h is None else params.b_h
        b_q = np.zeros(q) if params.b_q is None else params.b_q
        B = np.column_stack([B, b_h])
        D = np.column_stack([D, b_q + params.W_qh @ b_h])
    return StateSpace(params.W_hh.copy(), B.copy(), params.W_qh @ params.W_hh, D, np.array(h0))


def from_state_space(
    A: ArrayLike, B: ArrayLike, C: ArrayLike, D: ArrayLike | None, x0: ArrayLike | None, constant_input: bool
) -> tuple[Params, Real]:
    """Write a state-space system as a network: its parameters, and its initial state.

    Where ``W_qh A = C`` has a solution, ``W_qx = D - W_qh B`` does the rest. Otherwise (A has lost what C
    reads, as in a pure delay) q more hidden units keep ``C s_k`` for one step, and read-out is exact again.

    Parameters
    ----------
    A, B, C, D, x0 : array_like
        As in `StateSpace`; D and x0 are zero when absent.
    constant_input : bool
        Whether the last input is always one, and becomes biases.

    Returns
    -------
    params : Params
    h0 : ndarray, shape (h,) or (B, h)
    """
    float64 = np.dtype(np.float64)
    state = _validate.square("A", A)
    h = state.shape[0]
    inputs, read = _validate.numeric("B", B), _validate.numeric("C", C)
    if inputs.ndim != 2 or inputs.shape[0] != h:
        raise ValueError(f"B must have shape ({h}, d), not {inputs.shape}")
    if read.ndim != 2 or read.shape[1] != h or read.shape[0] == 0:
        raise ValueError(f"C must have shape (q, {h}), not {read.shape}")
    d, q = inputs.shape[1], read.shape[0]
    if constant_input and d == 0:
        raise ValueError("B must have a column, that of the constant input")
    a: Any = _validate.array("A", state, float64, (h, h))
    b: Any = _validate.array("B", inputs, float64, (h, d))
    c: Any = _validate.array("C", read, float64, (q, h))
    direct: Any = np.zeros((q, d)) if D is None else _validate.array("D", D, float64, (q, d))
    start = np.zeros(h) if x0 is None else _validate.numeric("x0", x0)
    if start.ndim not in (1, 2) or start.shape[-1] != h:
        raise ValueError(f"x0 must have shape ({h},) or (B, {h}), not {start.shape}")
    h0: Any = _validate.array("x0", start, float64, start.shape)

    W_qh: Any = np.linalg.lstsq(a.T, c.T, rcond=None)[0].T
    size = np.linalg.norm(c)
    misses = np.linalg.norm(W_qh @ a - c) > EXACT * size
    if misses or np.linalg.norm(W_qh) * np.linalg.norm(a) > size / EXACT:
        a = np.block([[a, np.zeros((h, q))], [c, np.zeros((q, q))]])
        b = np.vstack([b, np.zeros((q, d))])
        h0 = np.concatenate([h0, np.zeros((*h0.shape[:-1], q))], axis=-1)
        W_qh = np.hstack([np.zeros((q, h)), np.eye(q)])
    W_qx = direct - W_qh @ b
    if not constant_input:
        return Params(b, a, W_qh, W_qx=W_qx), h0
    return Params(b[:, :-1], a, W_qh, b[:, -1], W_qx[:, -1], W_qx[:, :-1]), h0
