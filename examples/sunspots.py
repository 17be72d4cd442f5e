"""Sunspots, forecast a year ahead and free-running: ``python examples/sunspots.py [picture]``.

Needs the extras ``fit`` and ``plot``, and statsmodels for the data. The network's input is the number of the
year before. Fed back with its own forecasts, it runs on by itself.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from statsmodels.datasets import sunspots

import rnnbptt
from rnnbptt.fit import LinearRNNRegressor

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#E8E8E8", "#222222"
HELD_OUT_FROM = 1980
FREE_YEARS = 22


def free_run(model: LinearRNNRegressor, last: float, years: int) -> Any:
    """Forecast from the end of training on, with each forecast as the next year's input."""
    state, numbers = model.final_state_, [last]
    for _ in range(years):
        step = rnnbptt.forward(model.params_, [[numbers[-1]]], state)
        state = step.hidden[-1]
        numbers.append(float(step.o[-1, 0]))
    return np.array(numbers[1:])


def main(picture: str = "sunspots.png") -> tuple[float, float]:
    """Fit the years before `HELD_OUT_FROM`; return errors of the network and of the last year's number."""
    data = sunspots.load_pandas().data
    year, number = data["YEAR"].to_numpy()[1:].astype(int), data["SUNACTIVITY"].to_numpy()
    X, y = number[:-1, np.newaxis], number[1:]
    n = int((year < HELD_OUT_FROM).sum())
    model = LinearRNNRegressor(4, n_starts=6, ridge=1e-3, max_spectral_radius=0.99, random_state=0)
    model.fit(X[:n], y[:n])
    forecast = model.forecast(len(y) - n, X[n:])
    errors = [float(np.sqrt(np.mean((guess - y[n:]) ** 2))) for guess in (forecast, X[n:, 0])]
    free = free_run(model, y[n - 1], FREE_YEARS)
    print(f"error a year ahead, from {HELD_OUT_FROM}: {errors[0]:.1f}; last year's number: {errors[1]:.1f}")

    figure = Figure(figsize=(9, 4), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.axvspan(HELD_OUT_FROM - 0.5, year[-1], color=GREY, lw=0)
    axes.plot(year, y, color=INK, lw=1.4, label="truth")
    axes.plot(year[n:], forecast, color=BLUE, lw=1.4, label="one year ahead")
    axes.plot(year[n : n + FREE_YEARS], free, color=ORANGE, lw=1.4, ls="--", label="free-running")
    axes.set(xlabel="year", ylabel="sunspots (yearly mean)", xlim=(1900, year[-1]), ylim=(-5, 230))
    axes.set_title("Sunspots: the shaded years are forecast", loc="left")
    axes.legend(frameon=False, ncols=3, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture)
    return errors[0], errors[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
