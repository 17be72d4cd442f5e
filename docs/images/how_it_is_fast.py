"""Draw how-it-is-fast.png: time step by step, time in chunks, and the products that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

# Okabe and Ito's colours, which stay apart for every kind of colour vision.
INPUT, STATE, OUTPUT = "#0072B2", "#D55E00", "#009E73"
INK, GREY, PALE = "#222222", "#767676", "#F1F1F1"

STYLE = {"font.size": 11, "text.color": INK, "mathtext.fontset": "cm", "figure.facecolor": "white"}

L, CHUNKS = 8, 4
STEP = 1.0  # width of a time step
GAP = 1.6  # between chunks, where the boundary states lie
LEFT = 3.0
CHUNK = L * STEP
RIGHT = LEFT + CHUNKS * (CHUNK + GAP)
BASE = 3.3  # the middle of the products


def draw(path: Path) -> None:
    """Write the picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.6, 7.25), dpi=130)
        axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
        axes.set(xlim=(-2.6, RIGHT + 0.6), ylim=(-0.2, 28.0), aspect="equal")
        axes.axis("off")
        step_by_step(axes, 21.6)
        in_chunks(axes, 11.4)
        products(axes, 0.0)
        figure.savefig(path)


def step_by_step(axes: Any, y: float) -> None:
    heading(axes, y + 5.3, "Step by step", r"T small products with $W_{hh}$, each waiting for the one before")
    steps = L * CHUNKS
    pitch = (RIGHT - LEFT) / steps
    for t in range(steps):
        x = LEFT + (t + 0.5) * pitch
        arrow(axes, (x, y + 0.5), (x, y + 1.4), INPUT, 0.8, 5)
        arrow(axes, (x, y + 2.25), (x, y + 3.15), OUTPUT, 0.8, 5)
        cell(axes, x, y + 0.1, INPUT)
        cell(axes, x, y + 3.55, OUTPUT)
        dot(axes, x, y + 1.82, 0.36)
        arrow(axes, (x - pitch + 0.3, y + 1.82), (x - 0.36, y + 1.82), STATE, 1.5, 6)
    dot(axes, LEFT - 0.5 * pitch, y + 1.82, 0.36)
    names(axes, y)


def in_chunks(axes: Any, y: float) -> None:
    heading(
        axes,
        y + 7.1,
        "In chunks of L steps",
        r"T/L small products with the power $W_{hh}^L$; nothing else waits",
    )
    middle = y + 2.75
    for c in range(CHUNKS):
        x = LEFT + c * (CHUNK + GAP)
        box = FancyBboxPatch(
            (x, y - 0.35),
            CHUNK,
            6.2,
            boxstyle="round,pad=0.0,rounding_size=0.35",
            facecolor=PALE,
            edgecolor="none",
            zorder=0,
        )
        axes.add_patch(box)
        for i in range(L):
            cell(axes, x + (i + 0.5) * STEP, y + 0.2, INPUT)
            cell(axes, x + (i + 0.5) * STEP, y + 5.3, OUTPUT)
        start, end = x - GAP / 2, x + CHUNK + GAP / 2
        arrow(axes, (start + 0.6, middle), (end - 0.66, middle), STATE, 3, 14)
        arrow(axes, (x + 0.15, middle + 0.45), (x + 1.9, y + 4.75), STATE, 1.6, 9)
        axes.plot([x + 4.0] * 2, [middle - 0.35, middle + 0.35], color=PALE, lw=6, zorder=2.5)
        arrow(axes, (x + 4.0, y + 0.75), (x + 4.0, y + 4.75), INPUT, 1.6, 9)
        arrow(axes, (x + 6.1, y + 0.75), (x + CHUNK - 0.1, middle - 0.42), INPUT, 1.6, 9)
        label(axes, x + 1.05, y + 4.3, "Obs", STATE, "right")
        label(axes, x + 4.2, y + 4.22, "Toep", INPUT, "left")
        label(axes, x + 6.2, y + 1.35, "Ctrl", INPUT, "right")
        label(axes, x + 6.0, middle + 0.22, r"$W_{hh}^L$", STATE, "center")
        axes.text(x + CHUNK / 2, y - 0.95, rf"chunk {c + 1}", color=GREY, ha="center", va="center")
    for c in range(CHUNKS + 1):
        x = LEFT + c * (CHUNK + GAP) - GAP / 2
        dot(axes, x, middle, 0.6)
        axes.text(x, middle, rf"$s_{c}$", color="white", ha="center", va="center", zorder=4)
    names(axes, y, (0.2, 2.75, 5.3), ("inputs", "boundary\nstates", "outputs"))


def products(axes: Any, y: float) -> None:
    heading(
        axes, y + 8.0, "What is left", "large products, one row per chunk: all of them at once, on all cores"
    )
    rows, states = 2.5, 2.2
    width = 4.0  # L d, and L q
    base = y + BASE
    x = 0.0

    def matrix(w: float, h: float, colour: str, name: str, below: str, left: str = "") -> None:
        nonlocal x
        axes.add_patch(Rectangle((x, base - h / 2), w, h, facecolor=colour, edgecolor="none"))
        for i in range(1, CHUNKS) if h == rows else ():
            line = base - h / 2 + i * h / CHUNKS
            space = 0.45 if 2 * i == CHUNKS else 0.0  # for the name
            for end, inner in ((x, x + w / 2 - space), (x + w, x + w / 2 + space)):
                axes.plot([end, inner], [line, line], color="white", lw=1)
        axes.text(x + w / 2, base, name, color="white", ha="center", va="center", zorder=4)
        size_below(axes, x + w / 2, below)
        if left:
            axes.text(x - 0.25, base, left, color=GREY, ha="right", va="center", fontsize=9.5)
        x += w

    def sign(text: str, space: float = 1.0) -> None:
        nonlocal x
        axes.text(x + space / 2, base, text, ha="center", va="center", fontsize=13)
        x += space

    x = -0.7
    axes.text(x + 5.2, y + 6.6, "what each chunk adds to the state", color=INK, ha="center")
    matrix(states, rows, STATE, "U", "h", "T/L")
    sign("=", 1.2)
    matrix(width, rows, INPUT, "X", "L d")
    sign("·", 0.8)
    matrix(states, width, INPUT, r"Ctrl$^\mathsf{T}$", "h")
    axes.plot([x + 1.3, x + 1.3], [y + 0.2, y + 7.1], color="#CCCCCC", lw=1)
    x += 3.5
    axes.text(x + 11, y + 6.6, "every output, once the boundary states are known", color=INK, ha="center")
    matrix(width, rows, OUTPUT, "O", "L q", "T/L")
    sign("=", 1.2)
    matrix(states, rows, STATE, "S", "h")
    sign("·", 0.8)
    matrix(width, states, STATE, r"Obs$^\mathsf{T}$", "L q")
    sign("+", 1.2)
    matrix(width, rows, INPUT, "X", "L d")
    sign("·", 0.8)
    toeplitz(axes, x, base, width)
    x += width
    axes.text(
        x + 0.5,
        base,
        "diagonal k:\n" + r"$(W_{qh}\,W_{hh}^k\,W_{hx})^\mathsf{T}$",
        color=GREY,
        va="center",
        fontsize=9.5,
        linespacing=1.5,
    )


def toeplitz(axes: Any, x: float, middle: float, side: float) -> None:
    """Draw the triangular block: later inputs do not reach earlier outputs."""
    size = side / L
    top = middle + side / 2
    axes.add_patch(Rectangle((x, middle - side / 2), side, side, facecolor=PALE, edgecolor="none"))
    for i in range(L):
        for j in range(i, L):
            corner = (x + j * size, top - (i + 1) * size)
            shade = 0.84 ** (j - i)
            axes.add_patch(
                Rectangle(corner, size, size, facecolor=INPUT, alpha=shade, edgecolor="white", lw=0.4)
            )
    axes.text(x + 0.3 * side, top - 0.74 * side, r"Toep$^\mathsf{T}$", color=INPUT, ha="center", va="center")
    size_below(axes, x + side / 2, "L q")


def size_below(axes: Any, x: float, text: str) -> None:
    axes.text(x, BASE - 2.6, text, color=GREY, ha="center", va="center", fontsize=9.5)


def heading(axes: Any, y: float, title: str, what: str) -> None:
    written = axes.text(-2.2, y, title, weight="bold", fontsize=13, va="baseline")
    axes.annotate(
        what, xy=(1, 0), xycoords=written, xytext=(12, 0), textcoords="offset points", va="bottom", color=GREY
    )


def names(
    axes: Any,
    y: float,
    heights: tuple[float, float, float] = (0.1, 1.82, 3.55),
    words: tuple[str, str, str] = ("inputs", "states", "outputs"),
) -> None:
    for height, word, colour in zip(heights, words, (INPUT, STATE, OUTPUT), strict=True):
        axes.text(LEFT - 2.0, y + height, word, color=colour, ha="right", va="center", linespacing=0.95)


def label(axes: Any, x: float, y: float, text: str, colour: str, side: str) -> None:
    axes.text(
        x, y, text, color=colour, ha=side, va="bottom" if text.startswith("$") else "center", fontsize=10
    )


def cell(axes: Any, x: float, y: float, colour: str) -> None:
    axes.add_patch(Rectangle((x - 0.38, y - 0.38), 0.76, 0.76, facecolor=colour, edgecolor="none"))


def dot(axes: Any, x: float, y: float, radius: float) -> None:
    circle = FancyBboxPatch(
        (x, y), 0, 0, boxstyle=f"circle,pad={radius}", facecolor=STATE, edgecolor="none", zorder=3
    )
    axes.add_patch(circle)


def arrow(
    axes: Any, tail: tuple[float, float], head: tuple[float, float], colour: str, width: float, size: float
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            tail,
            head,
            arrowstyle="-|>",
            mutation_scale=size,
            linewidth=width,
            color=colour,
            shrinkA=0,
            shrinkB=0,
            zorder=2.6 if colour == INPUT else 2,
        )
    )


if __name__ == "__main__":
    draw(Path(__file__).with_name("how-it-is-fast.png"))
