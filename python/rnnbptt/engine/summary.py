"""Arrays in a few words, where their numbers would fill the screen: name, shape, dtype, norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def text(title: str, entries: Iterable[tuple[str, Any]]) -> str:
    """Return one line that names every entry."""
    shown = [f"{name}: {' '.join(_words(value))}" for name, value in entries]
    return f"{title}({', '.join(shown)})"


def table(title: str, entries: Iterable[tuple[str, Any]]) -> str:
    """Return the same as HTML, for notebooks: a row for every entry."""
    from html import escape  # asked for in notebooks alone

    head = "<tr><th>name</th><th>shape</th><th>dtype</th><th>norm</th></tr>"
    rows = []
    for name, value in entries:
        cells = [name, *(word.removeprefix("norm ") for word in _words(value))]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><caption>{escape(title)}</caption>{head}{''.join(rows)}</table>"


def _words(value: Any) -> list[str]:
    """Return shape, dtype and norm of an array, or one word for anything else."""
    if isinstance(value, (int, float)):
        return [f"{value:.6g}"]
    if not isinstance(value, np.ndarray):
        return [type(value).__name__]
    words = [str(value.shape), str(value.dtype)]
    if value.dtype.kind in "biufc":
        words.append(f"norm {_norm(value):.4g}")
    return words


def _norm(array: np.ndarray[Any, Any]) -> float:
    """Return the root of the sum of squares, of numbers of any size."""
    with np.errstate(all="ignore"):
        size = np.abs(array, dtype=None if array.dtype.kind in "fc" else np.float64)
        largest = float(size.max(initial=0.0))
        if not 0 < largest < np.inf:
            return largest
        # Divided by the largest: squares do not overflow, and those that underflow do not count.
        return largest * float(np.sqrt(np.sum(np.square(size / largest), dtype=np.float64)))
