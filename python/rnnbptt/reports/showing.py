"""What reports have in common: numbers beyond float64 as text, rows to show, strict JSON, axes to draw in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import need
from .._validate import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Okabe and Ito's colours, which stay apart for every kind of colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "0.5"
WIDTH = 78
#: What the axis of lags is called.
LAG = "lag k (steps back in time)"
_ROWS = 12


def power_of_two(exponent: float) -> str:
    """Return 2^exponent as a decimal number of at most 13 characters, also beyond float64."""
    if not math.isfinite(exponent):
        return "0" if exponent == -math.inf else str(float(exponent))
    if abs(exponent) < 13:
        return f"{2.0**exponent:.4g}"
    decimal = exponent * math.log10(2)
    power = math.floor(decimal)
    text = f"{10 ** (decimal - power):.2f}"
    return f"1.00e{power + 1:+d}" if text == "10.00" else f"{text}e{power:+d}"


def share(value: float) -> str:
    """Return a share as text of at most 10 characters."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.4f}" if abs(value) < 100 else f"{value:.2e}"
    return "0.0000" if text == "-0.0000" else text


def shown(count: int) -> list[int]:
    """Return some of the indices below `count`: the first ones, and ever fewer after them."""
    steps = [0, 1, 2, 3, 5, 7]
    steps += [int(n) for n in np.geomspace(10, max(10, count - 1), _ROWS - len(steps))]
    return sorted({n for n in [*steps, count - 1] if n < count})


def left_out(missing: int) -> str:
    """Return the sentence on targets that are missing."""
    return f"{missing} target{' is' if missing == 1 else 's are'} NaN: missing, and left out."


def jsonable(value: Any) -> Any:
    """Return a value as lists, numbers and strings: complex numbers as pairs, what is not finite as text."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: jsonable(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    if isinstance(value, (complex, np.complexfloating)):
        return [jsonable(value.real), jsonable(value.imag)]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def drawing_axes(axes: Any, count: int, name: str = "axes") -> Sequence[Any]:
    """Return the caller's axes, or those of a new figure."""
    need("plot()", "plot", "matplotlib.axes", "matplotlib.figure")
    import matplotlib.axes
    import matplotlib.figure

    if axes is None:
        figure = matplotlib.figure.Figure(figsize=(4.7 * count, 4.0), layout="constrained")
        axes = figure.subplots(1, count)
    given: list[Any] = axes.ravel().tolist() if isinstance(axes, np.ndarray) else [axes]
    if isinstance(axes, (list, tuple)):
        given = [one for some in axes for one in (some if isinstance(some, (list, tuple)) else [some])]
    for one in given:
        if not isinstance(one, matplotlib.axes.Axes):
            raise TypeError(f"{name} must be matplotlib Axes, not {describe(one)}")
    if len(given) != count:
        raise ValueError(f"{name} must be {count} matplotlib Axes, not {len(given)}")
    return given


def finish(axes: Any, xlabel: str, ylabel: str, title: str) -> None:
    """Label axes and draw their grid."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
