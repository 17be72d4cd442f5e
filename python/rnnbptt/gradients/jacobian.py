"""The derivative of the outputs by the parameters, as one dense array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from .layout import Layout

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from .._validate import FloatArray
    from ..engine.params import Params


def output_jacobian(
    params: Params,
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    num_threads: int | None = None,
) -> FloatArray:
    r"""Evaluate the derivative of every output by every parameter, carried forward in time.

    .. math::

        \frac{d h_t}{d\theta} = W_{hh} \frac{d h_{t-1}}{d\theta}
            + \frac{\partial (W_{hx} x_t + W_{hh} h_{t-1} + b_h)}{\partial\theta}, \qquad
        \frac{d o_t}{d\theta} = W_{qh} \frac{d h_t}{d\theta}
            + \frac{\partial (W_{qh} h_t + W_{qx} x_t + b_q)}{\partial\theta}

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the result.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    lengths : array_like of int, shape (B,) or (), optional
        Number of steps of each sequence, from 0 to T; the rows of later steps are zero.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...), on the way in and on the way out.
    wrt : collection of str, optional
        What to differentiate by: every parameter that is present when absent; may name ``"h0"``.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent. No bit of the result depends on it.

    Returns
    -------
    ndarray, shape (T, B, q, p) or (T, q, p)
        A new array. Its columns are those parameters that `wrt` names, in the order of `Params.ravel`, and
        then ``h0.ravel()``.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    MemoryError
        If the result cannot be allocated; the message names the bytes.

    See Also
    --------
    jvp, vjp : products with this array and with its transpose, which need not form it.

    Notes
    -----
    Costs T B p (h + q) h multiply-adds for p columns of the state's parameters, p = h (d + h + 1): meant for
    small models.

    Examples
    --------
    >>> import rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> rnnbptt.output_jacobian(params, [[1.0], [1.0]])  # by W_hx, W_hh, W_qh
    array([[[2. , 0. , 1. ]],
    <BLANKLINE>
           [[3. , 2. , 1.5]]])
    """
    terms = [name for name, _ in checked(params).items()]
    if wrt is not None:
        wrt = _validate.names("wrt", wrt, (*terms, "h0"))
    dataset = Dataset(params, x, h0, lengths=lengths, batch_first=batch_first, wrt=wrt)
    threads = _validate.num_threads(num_threads)
    layout = Layout(params, dataset)
    if layout.size == sum(hole.stop - hole.start for hole in layout.holes):
        raise ValueError("wrt must name something to differentiate by")
    first, total = layout.without_holes()
    J = dataset.result("J", dataset.shape[2] * total)
    posed = dataset.pose(None, None)
    theta = params.ravel()
    if layout.start is not None:
        start = np.zeros(layout.start, params.dtype) if dataset.start is None else dataset.start
        theta = np.concatenate([theta, start.ravel()])
    posed.jacobian(theta, layout.terms, first, total, dataset.time_major(J), threads)
    return J.reshape(*J.shape[:-1], dataset.shape[2], total)
