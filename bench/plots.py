"""The pictures of a run: time against T, and GF/s against h with the limit drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from bench.contenders import CONTENDERS, OURS
from bench.measure import Measurement
from bench.problems import SWEEPS, Shape, Sweep
from bench.report import Run

# Colours that stay apart for colour-blind readers; ours is drawn on top, and wider.
COLOURS = {
    "rnnbptt": "#d55e00",
    "numpy": "#0072b2",
    "jax": "#009e73",
    "torch": "#cc79a7",
    "jax_adjoint": "#7f7f7f",
}


def draw(run: Run, folder: Path) -> tuple[Path, ...]:
    """Write one picture per kind of sweep that the run holds; return their paths."""
    drawn = []
    found = {sweep.name: (sweep, measurements) for sweep, measurements in run.swept()}
    if "T" in found:
        drawn.append(_time_against_steps(run, *found["T"], folder / "time-against-T.png"))
    widths = [sweep.name for sweep in SWEEPS if sweep.size == "h" and sweep.name in found]
    if widths:
        drawn.append(
            _rate_against_width(run, [found[name] for name in widths], folder / "rate-against-h.png")
        )
    return tuple(drawn)


def _time_against_steps(run: Run, sweep: Sweep, measurements: list[Measurement], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(6.5, 4.3), layout="constrained")
    for name in run.contenders():
        points = [(sweep.value(m.shape), s * 1e3) for m in measurements if (s := m.seconds(name)) is not None]
        _line(axes, name, points)
    shape = measurements[0].shape
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="steps T",
        ylabel="milliseconds per gradient",
        title=f"One gradient: {_sizes(shape, sweep)}, {run.threads} threads",
    )
    return _finish(figure, axes, path)


def _rate_against_width(run: Run, sweeps: list[tuple[Sweep, list[Measurement]]], path: Path) -> Path:
    figure, row = plt.subplots(
        1, len(sweeps), figsize=(1.2 + 4.3 * len(sweeps), 4.3), layout="constrained", squeeze=False
    )
    for axes, (sweep, measurements) in zip(row[0], sweeps, strict=True):
        # Before the limits of the axes are set: they would be those of a linear scale.
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        for name in run.contenders():
            points = [
                (sweep.value(m.shape), rate) for m in measurements if (rate := m.rate(name)) is not None
            ]
            _line(axes, name, points)
        shape = measurements[0].shape
        if limit := run.limit(shape.dtype):
            axes.axhline(limit, color="black", linestyle="--", linewidth=1)
            axes.annotate(
                f"limit {limit:.0f} GF/s",
                (0.02, limit),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
            )
            # Rates count the flops of step-by-step backpropagation: with fewer, the limit can be passed.
            rates = [rate for m in measurements for n in run.contenders() if (rate := m.rate(n)) is not None]
            axes.set_ylim(top=1.6 * max(limit, *rates))
        axes.set(
            xlabel="hidden size h",
            ylabel="GF/s",
            title=_sizes(shape, sweep),
        )
    return _finish(figure, row[0][0], path)


def _sizes(shape: Shape, sweep: Sweep) -> str:
    """The sizes that the sweep holds, and the dtype."""
    held = [f"{size}={getattr(shape, size)}" for size in ("T", "B", "d", "h", "q") if size != sweep.size]
    return ", ".join([*held, shape.dtype])


def _line(axes: Any, name: str, points: list[tuple[int, float]]) -> None:
    ours = name == OURS.name
    if points:
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            markersize=4,
            color=COLOURS[name],
            linewidth=2.4 if ours else 1.3,
            zorder=3 if ours else 2,
            label=CONTENDERS[name].label,
        )


def _finish(figure: Any, legend: Any, path: Path) -> Path:
    for axes in figure.axes:
        axes.grid(True, which="major", alpha=0.3)
    legend.legend(frameon=False, loc="best")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path
