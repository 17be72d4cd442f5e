"""Loss and gradients of one data set, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .objective import Objective

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from ..engine.losses import LossLike
    from ..engine.params import Gradients, Params
    from ..engine.truncation import Truncation


def loss_and_grad(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    truncate: Truncation | None = None,
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> tuple[float, Gradients]:
    r"""Evaluate the loss of a linear RNN and its exact gradients by backpropagation through time.

    .. math::

        g_t = W_{qh}^T \, \partial L / \partial o_t + W_{hh}^T g_{t+1}, \qquad
        \partial L / \partial W_{hh} = \sum_t g_t h_{t-1}^T, \quad
        \partial L / \partial W_{hx} = \sum_t g_t x_t^T

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of every result.
    x, y, loss, h0, weights, lengths, mask, batch_first, wrt, truncate, num_threads, memory_limit
        As for `Objective`, which is the better choice for more than one call on the same data.

    Returns
    -------
    loss : float
        L.
    gradients : Gradients
        New arrays; ``None`` for what was not asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it, what was expected and what came.
    MemoryError
        If memory cannot be had; the message names the bytes.

    See Also
    --------
    rnnbptt.reference.loss_and_grad : the same as equations in NumPy.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> loss, gradients = rnnbptt.loss_and_grad(params, [[1.0], [1.0]], [[0.0], [0.0]], loss="squared_error")
    >>> loss, gradients.W_hh
    (3.25, array([[3.]]))
    """
    objective = Objective(
        x,
        y,
        loss=loss,
        h0=h0,
        weights=weights,
        lengths=lengths,
        mask=mask,
        batch_first=batch_first,
        wrt=wrt,
        truncate=truncate,
        num_threads=num_threads,
        memory_limit=memory_limit,
    )
    return objective(params)
