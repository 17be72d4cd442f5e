"""What a report on a file consists of: what was found in it, and the reports on that."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ...reports.showing import WIDTH
from ..shown import shown
from .weights import NOT_USED

if TYPE_CHECKING:
    from .data import Data
    from .weights import Weights

#: Tensors listed at most, but for those that are used.
_LISTED = 40


class Report(Protocol):
    """What all reports can do."""

    def __str__(self) -> str:
        """Return a table and, behind an empty line, a paragraph."""

    def to_dict(self) -> dict[str, Any]:
        """Return what strict JSON can hold."""

    def plot(self, axes: Any = None, /) -> Any:
        """Draw, into given axes or a new figure; return the figure."""


class Section(NamedTuple):
    """A report with its name in JSON, its title, and the number of axes it draws in."""

    key: str
    title: str
    axes: int
    report: Report


def found_text(weights: Weights, data: Data | None) -> str:
    """Return which tensors and arrays there are, and what they were taken for."""
    # Those that are used first: a file may hold thousands of others.
    tensors = sorted(weights.tensors, key=lambda tensor: tensor.taken_for == NOT_USED)
    listed = tensors[: max(_LISTED, sum(tensor.taken_for != NOT_USED for tensor in tensors))]
    rows = [(shown(t.name), str(t.shape), shown(t.dtype), t.taken_for) for t in listed]
    lines = [f"{shown(weights.file)}: {weights.notes[0]}", *_aligned(rows)]
    if len(listed) < len(tensors):
        lines.append(_note(f"... and {len(tensors) - len(listed):,} more that are not used"))
    lines += map(_note, weights.notes[1:])
    if data is not None:
        rows = [(name, str(value.shape), str(value.dtype), "") for name, value in data.arrays.items()]
        lines += ["", f"{shown(data.file)}: data", *_aligned(rows), *map(_note, data.notes)]
        if not np.can_cast(data.dtype, weights.parameters["W_hh"].dtype):
            lines.append(_note(f"Weights are widened to the {data.dtype} of the data."))
    return "\n".join(lines)


def _note(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _aligned(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]
