"""Gradients of a loss that the caller differentiates by the outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _validate
from ..engine import truncation
from ..engine.dataset import Dataset, checked
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from ..engine.params import Gradients, Params
    from ..engine.truncation import Truncation


def vjp(
    params: Params,
    x: ArrayLike,
    d_o: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    d_hT: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    truncate: Truncation | None = None,
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> Gradients:
    """Pull ``d_o = dL/do`` back to parameters, initial state and inputs: BPTT for a loss of your own.

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of every result.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    d_o : array_like, shape (T, B, q) or (T, q)
        Derivative of the loss by the outputs. Entries beyond `lengths` are not read.
    d_hT : array_like, shape (B, h) or (h,), optional
        Derivative of the loss by the last state of each sequence other than through `d_o`: by what was
        computed from that state afterwards. Zero when absent. Time is lifted in chunks of L steps only
        where L divides every length. The last state of a sequence of length 0 is its h0. Not to be had with
        `truncate`.
    h0, lengths, batch_first, wrt, truncate, num_threads, memory_limit
        As for `Objective`.

    Returns
    -------
    Gradients
        The vector-Jacobian product of the map from parameters (and h0, x) to outputs and last state.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Examples
    --------
    A sequence in two parts: the gradient by the state they share is carried from the later to the earlier.

    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> x, d_o = np.ones((6, 1)), np.ones((6, 1))
    >>> h3 = rnnbptt.forward(params, x[:3]).hidden[-1]
    >>> late = rnnbptt.vjp(params, x[3:], d_o[3:], h3, wrt=("W_hh", "h0"))
    >>> early = rnnbptt.vjp(params, x[:3], d_o[:3], d_hT=late.h0)
    >>> early.W_hh + late.W_hh == rnnbptt.vjp(params, x, d_o).W_hh
    array([[ True]])
    """
    dataset = Dataset(
        checked(params),
        x,
        h0,
        lengths=lengths,
        batch_first=batch_first,
        wrt=wrt,
        memory_limit=memory_limit,
    )
    threads = _validate.num_threads(num_threads)
    truncation.checked(truncate)
    if d_hT is not None and truncate is not None:
        raise ValueError("d_hT must be None when gradients are truncated")
    last = dataset.state("d_hT", d_hT)
    return Problem(dataset, None, d_o, truncate, d_hT=last).loss_and_gradients(params, threads)[1]
