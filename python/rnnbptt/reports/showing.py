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
#: Relative differences below this are rounding.
ROUNDING = 1e-15
#: Lines of so few points show them.
FEW = 40
_ROWS = 12


def number(value: float, digits: int = 4) -> str:
    """Return a number as text of at most 12 characters, as all reports do: 0.01234, 12.34, 1.23e-12."""
    if not math.isfinite(value):
        return str(float(value))
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.0f}"
    return f"{value:.2e}"


def side_of_1(value: float) -> str:
    """Return a number to five digits, and 1 with the side on which it lies: the point of a radius."""
    text = number(value, 5)
    if text == "1" and abs(value - 1) > 1e-12:
        return f"1{value - 1:+.0e}"
    return text


def power_of_two(exponent: float, digits: int = 4) -> str:
    """Return 2^exponent as `number` writes it, also beyond float64."""
    if not math.isfinite(exponent) or abs(exponent) < 1000:
        return number(2.0**exponent if exponent > -math.inf else 0.0, digits)
    decimal = exponent * math.log10(2)
    power = math.floor(decimal)
    text = f"{10 ** (decimal - power):.2f}"
    return f"1.00e{power + 1:+03d}" if text == "10.00" else f"{text}e{power:+03d}"


def ratio(exponent: float) -> str:
    """Return 2^exponent, relative to something that float64 has to some `ROUNDING`: no digits below that."""
    return f"<{ROUNDING:.0e}" if -math.inf < exponent < math.log2(ROUNDING) else power_of_two(exponent)


def share(value: float) -> str:
    """Return a share as text of at most 10 characters."""
    if not math.isfinite(value):
        return "-"
    text = f"{value:.4f}" if abs(value) < 100 else number(value)
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


def marks(count: int) -> dict[str, Any]:
    """Return how to mark the points of a line: where they are few, or a single one would not be seen."""
    return {"marker": "o", "ms": 3} if count <= FEW else {}


def whole_numbers(axes: Any) -> None:
    """Let steps and lags have ticks at whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def at_least(axes: Any, span: float) -> None:
    """Widen the range of y to `span`, about its middle: rounding is not to fill a picture."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        axes.set_ylim(middle - span / 2, middle + span / 2)


def finish(axes: Any, xlabel: str, ylabel: str, title: str) -> None:
    """Label axes and draw their grid."""
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
