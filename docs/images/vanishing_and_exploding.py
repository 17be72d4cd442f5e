"""Draw vanishing-and-exploding.png and truncation.png, with the numbers of vanishing-and-exploding.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import rnnbptt

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.45"
H = 16
STYLE = {"font.size": 10.5, "figure.facecolor": "white", "axes.spines.top": False, "axes.spines.right": False}


def draw(folder: Path) -> None:
    """Write the pictures."""
    W_qh = np.random.default_rng(1).standard_normal((1, H))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        by_lag(left, W_qh)
        by_step(right)
        figure.savefig(folder / "vanishing-and-exploding.png")
        figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        truncation(left, right, W_qh)
        figure.savefig(folder / "truncation.png")


def matrices() -> dict[str, Any]:
    """Return the four matrices of the page."""
    random = rnnbptt.Params.random
    return {
        "symmetric, radius 1.1": random(1, H, 1, kind="symmetric", spectral_radius=1.1, rng=1).W_hh,
        "orthogonal": random(1, H, 1, kind="orthogonal", spectral_radius=1, rng=1).W_hh,
        "non-normal, radius 0.6": 0.6 * np.eye(H) + 0.9 * np.eye(H, k=1),
        "symmetric, radius 0.9": random(1, H, 1, kind="symmetric", spectral_radius=0.9, rng=1).W_hh,
    }


def by_lag(axes: Any, W_qh: Any) -> None:
    """Draw how gradients of the last loss go back in time, for four matrices."""
    d_o = np.zeros((201, 1))
    d_o[-1] = 1
    looks = ((ORANGE, "-"), (GREY, "-"), (PINK, "-"), (BLUE, "-"))
    for (name, W_hh), (color, style) in zip(matrices().items(), looks, strict=True):
        g = rnnbptt.state_gradients(rnnbptt.Params(np.ones((H, 1)), W_hh, W_qh), d_o)
        norms = np.linalg.norm(g, axis=1)[::-1]
        axes.plot(np.log2(norms / norms[0]), color=color, ls=style, lw=2)
        at, ha, va = {
            "non-normal, radius 0.6": (37, "center", "bottom"),
            "symmetric, radius 0.9": (105, "right", "top"),
        }.get(name, (150, "right", "bottom"))
        height = np.log2(norms[at] / norms[0])
        offset = (0, 5 if va == "bottom" else -5)
        axes.annotate(name, (at, height), offset, textcoords="offset points", color=color, ha=ha, va=va)
    axes.set(
        xlabel="lag k (steps back in time)",
        ylabel=r"log$_2$ of the norm, relative to lag 0",
        title="Gradients of one loss, k steps back",
        ylim=(-40, 30),
    )
    axes.grid(color="0.92", lw=0.6)


def by_step(axes: Any) -> None:
    """Draw the gradients of states at three radii, far beyond the range of float64."""
    T, rng = 100_000, np.random.default_rng(0)
    x, y = rng.standard_normal((T, 2)), rng.standard_normal((T, 2))
    for radius, color in ((2.0, ORANGE), (1.5, GREEN), (0.5, BLUE)):
        params = rnnbptt.Params.random(2, 8, 2, spectral_radius=radius, rng=3)
        flow = rnnbptt.gradient_flow(params, x, y)
        axes.plot(np.arange(1, T + 1, 50), flow.log2_state_gradients[::50], color=color, lw=2)
        axes.annotate(
            f"radius {radius:g}",
            (T / 2, flow.log2_state_gradients[T // 2]),
            (6, 4),
            textcoords="offset points",
            color=color,
        )
    axes.axhspan(-1022, 1024, color="0.8", lw=0, zorder=0)
    axes.annotate(
        "float64 ends at ±1024",
        (T, -1100),
        (0, -4),
        textcoords="offset points",
        color=GREY,
        ha="right",
        va="top",
        fontsize=9,
    )
    axes.set(
        xlabel="time step t",
        ylabel=r"log$_2$  $\Vert \partial L/\partial h_t \Vert$",
        title="Gradients of all losses, over 100,000 steps",
        ylim=(-16_000, None),
    )
    axes.grid(color="0.92", lw=0.6)


def truncation(left: Any, right: Any, W_qh: Any) -> None:
    """Draw what lags are worth, and what truncation loses."""
    T, rng = 2000, np.random.default_rng(2)
    x = rng.standard_normal((T, 1))
    y = np.convolve(x[:, 0], 0.95 ** np.arange(100))[:T, None]
    params = rnnbptt.Params(np.ones((H, 1)) / 4, matrices()["symmetric, radius 0.9"], W_qh)
    flow = rnnbptt.gradient_flow(params, x, y, lags=100)
    left.axhline(1, color=GREY, lw=0.8)
    left.bar(np.arange(100), flow.shares, width=0.9, color=BLUE, label="share of lag k")
    left.plot(flow.cumulative_shares, color=ORANGE, lw=2, label="lags up to k")
    left.axvline(flow.horizon(), color=GREY, ls=":", label=f"1 % of a gradient left: lag {flow.horizon()}")
    left.set(
        xlabel="lag k (steps back in time)",
        ylabel=r"share of $\partial L/\partial W_{hh}$",
        title="What each lag is worth",
        xlim=(-1, 60),
    )
    left.legend(frameon=False, loc=(0.5, 0.4), fontsize="small", handlelength=1.2)
    left.grid(color="0.92", lw=0.6)
    left.set_axisbelow(True)
    rnnbptt.truncation_report(params, x, y, lags=200).plot(right)


if __name__ == "__main__":
    draw(Path(__file__).parent)
