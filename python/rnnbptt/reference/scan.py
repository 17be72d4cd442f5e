"""The linear scan, ``s_t = A s_{t-1} + v_t``: all that is sequential, forwards and backwards."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.floating_point import quiet

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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


@quiet
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

    This identity is backpropagation through time.
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
