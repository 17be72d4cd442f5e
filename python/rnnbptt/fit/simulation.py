"""Runs of a network on sequences given as rows, one sequence after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.trajectories import forward
from .experiments import concatenated, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engine.params import Params
    from .experiments import Real


def outputs(params: Params, rows: Real, lengths: NDArray[np.int64], h0: Real) -> Real:
    """Return the outputs (n, q) for inputs (n, d), each sequence from its own row of h0 (B, h)."""
    return concatenated(forward(params, padded(rows, lengths), h0).o, lengths)


def final_states(params: Params, rows: Real, lengths: NDArray[np.int64], h0: Real) -> Real:
    """Return the state (B, h) after the last step of each sequence."""
    hidden = forward(params, padded(rows, lengths), h0).hidden
    return np.stack([hidden[length - 1, b] for b, length in enumerate(lengths)])


def initial_states(fitted: Real, count: int) -> Real:
    """Return the states (count, h) that sequences begin in.

    Parameters
    ----------
    fitted : ndarray, shape (h,) or (B, h)
        Fitted initial states: taken as they are where B is `count`, and their mean otherwise.
    count : int
    """
    states = np.atleast_2d(fitted)
    if len(states) == count:
        return states
    return np.broadcast_to(states.mean(axis=0), (count, states.shape[1]))
