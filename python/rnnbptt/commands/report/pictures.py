"""The pictures of reports: all in one file, or one by one as text for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from .sections import Section

_WIDTH, _HEIGHT = 4.7, 4.2  # of one panel, in inches
_MOST_PANELS = 3  # side by side

# The same numbers give the same file.
_STYLE = {"svg.hashsalt": "rnnbptt"}
_NO_DATES = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def save(sections: list[Section], path: Path) -> None:
    """Draw all reports, one row each; the suffix of `path` names the format."""
    columns = min(_MOST_PANELS, max(section.axes for section in sections))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * columns, _HEIGHT * len(sections)), dpi=120, layout="constrained")
        rows = figure.subfigures(len(sections), 1, squeeze=False)[:, 0]
        for row, section in zip(rows, sections, strict=True):
            _draw(section, row.subplots(1, section.axes, squeeze=False)[0])
        figure.savefig(path, metadata=_NO_DATES.get(path.suffix.lower()))


def svg(section: Section, wide: bool) -> str:
    """Draw one report, its panels side by side or one above the other."""
    panels = (1, section.axes) if wide else (section.axes, 1)
    with mpl.rc_context(_STYLE):
        width = _WIDTH * (1.5 if section.axes == 1 and wide else panels[1])
        figure = Figure(figsize=(width, _HEIGHT * panels[0]), layout="constrained")
        _draw(section, figure.subplots(*panels, squeeze=False).ravel())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=_NO_DATES[".svg"])
    return file.getvalue()


def _draw(section: Section, axes: Any) -> None:
    section.report.plot(axes if section.axes > 1 else axes[0])
