"""Gradients that look back exactly tau states.

The engine takes them as differences of two gradients (`cpp/core/sliding.hpp` says how). A difference is not
finite where either of its terms is not, be it behind the window: gradients of inputs are then summed up here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .. import _core
    from .._validate import FloatArray
    from ..engine.dataset import Dataset
    from ..engine.params import Gradients, Params


def sliding(
    dataset: Dataset, problem: _core.Problem, params: Params, threads: int, tau: int
) -> tuple[float, Gradients]:
    """Compute the loss, and the gradients that look back `tau` states.

    Parameters
    ----------
    dataset, problem
        The data, and what the extension made of them and of `tau`.
    params : Params
    threads : int
    tau : int
        States in a window, at least 1.
    """
    if "x" not in dataset.wrt or tau > dataset.steps:
        return dataset.gradients(problem, params, threads)
    d_o = _validate.allocate("d_o", (dataset.steps, dataset.batch, params.shape[2]), params.dtype)
    loss, gradients = dataset.gradients(problem, params, threads, d_o)
    assert gradients.x is not None
    if not np.isfinite(gradients.x).all():
        d_x = _validate.time_major(gradients.x, dataset.batched, dataset.batch_first)
        with np.errstate(all="ignore"):  # not finite in, not finite out, without a warning
            d_x[...] = _windows_of_x(params, d_o, tau)
    return loss, gradients


def _windows_of_x(params: Params, d_o: FloatArray, tau: int) -> NDArray[np.float64]:
    """Return the gradients of inputs from windows summed up without a difference: (T, B, d)."""
    e = d_o.astype(np.float64) @ params.W_qh
    steps = len(e)
    # Sums over n losses, n = 1, 2, 4, ...: those that tau is made of are joined.
    g, joined, n = np.zeros_like(e), 0, 1
    power, passed = params.W_hh.astype(np.float64), np.eye(len(params.W_hh))  # W_hh^n, W_hh^joined
    while True:
        if tau & n:
            g[: steps - joined] += e[joined:] @ passed
            passed, joined = passed @ power, joined + n
        if joined == tau:
            break
        e[: steps - n] += e[n:] @ power
        power, n = power @ power, 2 * n
    d_x: NDArray[np.float64] = g @ params.W_hx
    return d_x if params.W_qx is None else d_x + d_o @ params.W_qx
