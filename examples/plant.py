"""A measured plant, identified by Levenberg and Marquardt's method: ``python examples/plant.py [picture]``.

Needs the extras ``fit`` and ``plot``, and ``pip install --no-deps simbapy`` for the data: 200 steps of 5
inputs and 3 outputs, standardised.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.io import loadmat

from rnnbptt.fit import LinearRNNRegressor

BLUE, ORANGE, INK = "#0072B2", "#D55E00", "#222222"


def load() -> tuple[Any, Any]:
    """Return inputs (200, 5) and outputs (200, 3)."""
    package = importlib.util.find_spec("mat")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install --no-deps simbapy", name="mat")
    data = loadmat(Path(package.submodule_search_locations[0], "data", "daisy.mat"))
    return data["U"], data["Y"]


def main(picture: str = "plant.png") -> dict[int, float]:
    """Fit networks of two sizes; return the squared error of each, summed over outputs."""
    U, Y = load()
    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    rows = figure.subplots(3, 1, sharex=True)
    for row, measured in zip(rows, Y.T, strict=True):
        row.plot(measured, color=INK, lw=1.2, label="measured")
    errors = {}
    for h, colour in ((3, ORANGE), (6, BLUE)):
        model = LinearRNNRegressor(h, biases=False, random_state=0).fit(U, Y)
        simulated = model.predict(U)
        errors[h] = float(np.mean((simulated - Y) ** 2, axis=0).sum())
        print(f"h = {h}: squared error {errors[h]:.4f}, after {model.n_evaluations_} evaluations")
        for start in model.starts_:
            print(f"    {start.kind:10} {3 * start.loss:.4f} after {start.n_evaluations}")
        for row, output in zip(rows, simulated.T, strict=True):
            row.plot(output, color=colour, lw=1, label=f"simulated, h = {h}")
    for number, row in enumerate(rows, 1):
        row.set(ylabel=f"output {number}")
        row.spines[["top", "right"]].set_visible(False)
    rows[0].set_title("Three outputs of a plant, simulated from its inputs alone", loc="left")
    rows[0].legend(frameon=False, ncols=3, loc="lower right")
    rows[-1].set(xlabel="step", xlim=(0, len(Y) - 1))
    figure.savefig(picture)
    return errors


if __name__ == "__main__":
    main(*sys.argv[1:])
