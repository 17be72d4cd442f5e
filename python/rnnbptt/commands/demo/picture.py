"""The picture: forecast against truth, eigenvalues in the unit circle, gradient flow by lag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from . import forecasts, spectrum
from .sunspots import HELD_OUT_FROM

if TYPE_CHECKING:
    from pathlib import Path

    import rnnbptt

    from .sunspots import Array, Sunspots

# Okabe and Ito's colours, which stay apart for every kind of colour vision.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#767676", "#DDDDDD"

SHOWN_FROM = 1880  # the forecast is drawn from here on

STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "svg.hashsalt": "rnnbptt",
}


def draw(path: Path, params: rnnbptt.Params, data: Sunspots, flow: Array) -> None:
    """Write the picture of a trained network.

    Parameters
    ----------
    path : Path
        File to write; its suffix names the format.
    params : Params
    data : Sunspots
    flow : ndarray, shape (lags + 1,)
        Gradient norms by lag, as `spectrum.gradient_flow` returns them.
    """
    with mpl.rc_context(STYLE):
        spacing = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.04, hspace=0.05)
        figure = Figure(figsize=(9, 6.8), dpi=120, layout=spacing)
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.25), width_ratios=(1, 1.25))
        _forecast(figure.add_subplot(grid[0, :]), params, data)
        _eigenvalues(figure.add_subplot(grid[1, 0]), params)
        _gradient_flow(figure.add_subplot(grid[1, 1]), params, flow)
        # Without dates, the same numbers give the same file.
        dates = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
        figure.savefig(path, metadata=dates.get(path.suffix.lower()))


def _forecast(axes: Any, params: rnnbptt.Params, data: Sunspots) -> None:
    shown = data.target_year >= SHOWN_FROM
    years, truth = data.target_year[shown], data.number[1:][shown]
    forecast = forecasts.network(params, data)[shown]
    axes.axvspan(HELD_OUT_FROM - 0.5, years[-1] + 0.5, color="#F2F2F2", lw=0, zorder=0)
    axes.plot(years, truth, color=INK, lw=1.4, label="truth")
    axes.plot(years, forecast, color=ORANGE, lw=1.6, ls=(0, (4, 1.2)), label="linear RNN, one year ahead")
    top = 1.18 * max(truth.max(), forecast.max())
    axes.set(
        title="Forecast against truth",
        xlabel="year",
        ylabel="sunspots (yearly mean)",
        xlim=(years[0], years[-1] + 0.5),
        ylim=(min(0, 1.1 * forecast.min()), top),
    )
    axes.text(HELD_OUT_FROM + 0.5, 0.97 * top, f"held out, {HELD_OUT_FROM}-{years[-1]}", color=GREY, va="top")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.2)


def _eigenvalues(axes: Any, params: rnnbptt.Params) -> None:
    turn = np.linspace(0, 2 * np.pi, 361)
    axes.axhline(0, color=PALE, lw=0.8, zorder=0)
    axes.axvline(0, color=PALE, lw=0.8, zorder=0)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, lw=1)
    own = np.linalg.eigvals(params.W_hh)
    fed_back = np.linalg.eigvals(spectrum.feedback(params))
    axes.scatter(
        fed_back.real, fed_back.imag, s=46, color=BLUE, zorder=3, label=r"$W_{hh} + W_{hx} W_{qh}$, fed back"
    )
    axes.scatter(
        own.real, own.imag, s=46, facecolor="none", edgecolor=ORANGE, lw=1.6, zorder=4, label=r"$W_{hh}$"
    )
    found = spectrum.cycle(spectrum.modes(spectrum.feedback(params)))
    if found is not None:
        value = found.eigenvalue
        axes.annotate(
            f"{found.period:.1f} years",
            (value.real, value.imag),
            xytext=(0.3 * value.real, 0.75),
            ha="center",
            va="center",
            color=BLUE,
            arrowprops={"arrowstyle": "-", "color": BLUE, "lw": 0.8, "shrinkB": 4},
        )
    reach = 1.08 * max(1.0, np.abs(own).max(), np.abs(fed_back).max())
    axes.set(
        title="Eigenvalues in the unit circle",
        xlabel="real part",
        ylabel="imaginary part",
        xlim=(-reach, reach),
        ylim=(-reach, reach),
        aspect="equal",
        xticks=(-1, 0, 1),
        yticks=(-1, 0, 1),
    )
    # Below the axis label: inside the circle there is no place that no eigenvalue ever takes.
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.19),
        handletextpad=0.2,
        ncols=2,
        columnspacing=1,
        borderaxespad=0,
    )


def _gradient_flow(axes: Any, params: rnnbptt.Params, flow: Array) -> None:
    lags = np.arange(len(flow))
    radius = spectrum.spectral_radius(params.W_hh)
    axes.axhline(0.01, color=PALE, lw=1, zorder=0)
    axes.text(0, 0.0105, "1 %", color=GREY, va="bottom")
    # The asymptote, drawn through the last lag: parallel to the flow wherever the slowest mode rules it.
    law = flow[-1] * radius ** (lags - lags[-1])
    axes.plot(lags, law, color=GREY, lw=1.2, ls=":", label=f"falls as {radius:.3f}$^k$, the spectral radius")
    axes.plot(lags, flow, color=BLUE, lw=1.4, marker="o", ms=3, label=r"$\Vert dL_T / dh_{T-k} \Vert$")
    horizon = spectrum.memory_horizon(flow)
    if horizon is not None:
        axes.plot(horizon, flow[horizon], "o", ms=7, mfc="none", mec=ORANGE, mew=1.6)
        axes.annotate(
            f"memory horizon: {horizon} years",
            (horizon, flow[horizon]),
            xytext=(8, 8),
            textcoords="offset points",
            color=ORANGE,
        )
    axes.set(
        title="Gradient flow: a loss at year T, k years back",
        xlabel="lag k (years)",
        ylabel="share of lag 0",
        yscale="log",
        xlim=(-1, lags[-1] + 1),
    )
    axes.legend(loc="upper right")
