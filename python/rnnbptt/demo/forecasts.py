"""One-step-ahead forecasts: by the linear RNN, and by the baselines it has to stand beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import rnnbptt

from .sunspots import HELD_OUT_FROM

if TYPE_CHECKING:
    from .sunspots import Array, Sunspots

LONGEST_MEMORY = 20  # years; the longest autoregression tried


def network(params: rnnbptt.Params, data: Sunspots) -> Array:
    """Forecast every year but the first with a linear RNN that has read all years before it."""
    return data.in_sunspots(rnnbptt.forward(params, data.x).o[:, 0])


def persistence(data: Sunspots) -> Array:
    """Forecast that next year is like this year."""
    return data.number[:-1]


def autoregression(data: Sunspots, order: int) -> Array:
    """Forecast by least squares on the `order` years before, fitted to all years before the held-out ones.

    Years without `order` predecessors get NaN.
    """
    past, next_year = _lagged(data, order)
    fitted = _before_held_out(data, order)
    coefficients = np.linalg.lstsq(past[fitted], next_year[fitted], rcond=None)[0]
    return np.concatenate([np.full(order - 1, np.nan), past @ coefficients])


def order_by_aic(data: Sunspots) -> int:
    """Return the order of autoregression with the least Akaike information criterion.

    Every order is judged by the same years, those before the held-out ones with `LONGEST_MEMORY`
    predecessors: ``n log(mean square residual) + 2 (order + 1)``.
    """
    fitted = _before_held_out(data, LONGEST_MEMORY)
    criterion = []
    for order in range(1, LONGEST_MEMORY + 1):
        past, next_year = (array[LONGEST_MEMORY - order :][fitted] for array in _lagged(data, order))
        residual = next_year - past @ np.linalg.lstsq(past, next_year, rcond=None)[0]
        criterion.append(len(residual) * np.log(np.mean(residual**2)) + 2 * (order + 1))
    return 1 + int(np.argmin(criterion))


def _lagged(data: Sunspots, order: int) -> tuple[Array, Array]:
    """Return the `order` numbers before each year and a one, shape (years, order + 1), and the year's own."""
    past: Array = np.lib.stride_tricks.sliding_window_view(data.number[:-1], order)
    return np.column_stack([past, np.ones(len(past))]), data.number[order:]


def _before_held_out(data: Sunspots, order: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return data.year[order:] < HELD_OUT_FROM
