"""Atmospheric CO2 at Mauna Loa, weekly and with gaps: ``python examples/co2.py [picture]``.

Needs the extras ``fit`` and ``plot``, and statsmodels for the data. The network has no input to speak of:
trend and seasons are modes of W_hh, set off by the fitted initial state. Weeks without a measurement are NaN
in the data and are left out of the loss.
"""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.figure import Figure
from statsmodels.datasets import co2

from rnnbptt.fit import LinearRNNRegressor

BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#E8E8E8", "#222222"
HELD_OUT_FROM = "1997"
WEEKS = 365.2425 / 7  # in a year


def main(picture: str = "co2.png") -> tuple[float, float]:
    """Fit the weeks before `HELD_OUT_FROM`; return the errors of forecast and baseline after it, in ppm."""
    series = co2.load_pandas().data["co2"]
    y, year = series.to_numpy(), 1958.24 + np.arange(len(series)) / WEEKS
    n = int((series.index < HELD_OUT_FROM).sum())
    nothing = np.zeros((len(y), 1))
    model = LinearRNNRegressor(6, starts="subspace", n_starts=1, direct=False).fit(nothing[:n], y[:n])
    forecast = model.forecast(len(y) - n)
    # The baseline: a straight line through the last five years, with seasons as they were.
    last = np.arange(n - round(5 * WEEKS), len(y))
    seasons = [f(2 * np.pi * k * last / WEEKS) for k in (1, 2) for f in (np.sin, np.cos)]
    terms = np.column_stack([np.ones(len(last)), last, *seasons])
    known = (last < n) & ~np.isnan(y[last])
    baseline = (terms @ np.linalg.lstsq(terms[known], y[last][known], rcond=None)[0])[last >= n]
    errors = [float(np.sqrt(np.nanmean((guess - y[n:]) ** 2))) for guess in (forecast, baseline)]

    print(f"{int(np.isnan(y[:n]).sum())} of {n} weeks are missing")
    print(f"error after {HELD_OUT_FROM}: {errors[0]:.2f} ppm; a line with seasons: {errors[1]:.2f} ppm")
    report = model.spectral_report()
    periods = sorted({round(float(p) / WEEKS, 2) for p in report.periods if np.isfinite(p)}, reverse=True)
    print("periods of the modes, in years:", *periods)

    figure = Figure(figsize=(9, 4.5), dpi=110, layout="constrained")
    whole, part = figure.subplots(1, 2, width_ratios=(1, 1.3))
    fitted = np.concatenate([model.predict(nothing[:n]), forecast])
    for axes in (whole, part):
        axes.axvspan(year[n], year[-1], color=GREY, lw=0)
        axes.plot(year, y, color=INK, lw=1.2, label="measured")
        axes.plot(year[:n], fitted[:n], color=BLUE, lw=0.9, label="linear RNN, fitted")
        axes.plot(year[n:], fitted[n:], color=ORANGE, lw=1.2, label="forecast")
        axes.spines[["top", "right"]].set_visible(False)
        axes.set(xlabel="year")
    whole.set(ylabel="CO2 (ppm)", xlim=(year[0], year[-1]))
    whole.set_title("Weekly CO2 at Mauna Loa", loc="left")
    part.set(xlim=(1993, year[-1]), ylim=(350, 376))
    part.set_title("The last years, of which the shaded are forecast", loc="left")
    part.legend(frameon=False, loc="upper left")
    figure.savefig(picture)
    return errors[0], errors[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
