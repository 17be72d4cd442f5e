"""The state in which new data begin, from their own targets, and how well a network then predicts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.trajectories import forward
from . import regressions
from .experiments import Experiments, concatenated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.params import Params
    from .experiments import Real

#: A target that alone tells of a state to this part is predicted without that state.
ALONE = 1e-8


def initial_states(params: Params, rows: Real, targets: Real, lengths: NDArray[np.int64]) -> Real:
    """Return the initial states (B, h) that come closest to the known targets (n, q), by least squares."""
    return regressions.initial_states(params, Experiments.of(rows, targets, lengths))


def left_out(params: Params, rows: Real, targets: Real, lengths: NDArray[np.int64]) -> Real:
    r"""Predict every known target from a state that is estimated from the other targets of its sequence.

    With free responses F, outputs e that they are to explain and :math:`H = F F^+`, what is left of a target
    without itself in the regression is :math:`(e - H e)_i / (1 - H_{ii})`.

    Returns
    -------
    ndarray, shape (n, q)
        NaN where the target is.
    """
    data = Experiments.of(rows, targets, lengths)
    driven = forward(params, data.x).o
    free = regressions.free_responses(params, len(data.x))
    result = np.full_like(data.y, np.nan)
    for b in range(len(lengths)):
        known = data.known[:, b]
        Q = regressions.basis(free[known])
        e = (data.y[:, b] - driven[:, b])[known]
        left, rest = e - Q @ (Q.T @ e), 1 - np.einsum("ij,ij->i", Q, Q)
        error = np.where(rest > ALONE, left / np.maximum(rest, ALONE), e)
        result[:, b][known] = data.y[:, b][known] - error
    return concatenated(result, lengths)
