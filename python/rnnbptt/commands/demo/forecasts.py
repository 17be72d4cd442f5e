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
    return data.in_sunspots(rnnbptt.forward(params, data.x, num_threads=1).o[:, 0])


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


def best_order_in_hindsight(data: Sunspots) -> int:
    """Return the order, up to `LONGEST_MEMORY`, whose autoregression errs least in the held-out years.

    No forecaster could have known it. That makes it the strictest baseline: whoever beats it beats every
    order.
    """
    last = int(data.year[-1])
    return min(
        range(1, LONGEST_MEMORY + 1),
        key=lambda order: data.error(autoregression(data, order), HELD_OUT_FROM, last),
    )


def _lagged(data: Sunspots, order: int) -> tuple[Array, Array]:
    """Return the `order` numbers before each year and a one, shape (years, order + 1), and the year's own."""
    past: Array = np.lib.stride_tricks.sliding_window_view(data.number[:-1], order)
    return np.column_stack([past, np.ones(len(past))]), data.number[order:]


def _before_held_out(data: Sunspots, order: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return data.year[order:] < HELD_OUT_FROM
