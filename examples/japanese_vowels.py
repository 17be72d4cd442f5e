"""Who speaks? Japanese vowels of nine men: ``python examples/japanese_vowels.py [picture]``.

Needs the extras ``fit`` and ``plot``, and ``pip install --no-deps aeon`` for the data: 270 training series
of 7 to 29 steps and 12 coefficients. The outputs of a series are averaged over its steps and compared with
the speaker by the cross-entropy. W_hh and W_hx stay as they were drawn (a reservoir with a short memory),
which 270 series do not suffice to fit; ``wrt`` names what is fitted.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize

import rnnbptt

HIDDEN, RADIUS = 16, 0.5
RIDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FOLDS = 3


class Series(NamedTuple):
    """Series side by side, (T, B, 12), their lengths and their speakers."""

    x: Any
    lengths: Any
    speaker: Any

    def only(self, chosen: Any) -> Series:
        """Return some of the series."""
        return Series(self.x[:, chosen], self.lengths[chosen], self.speaker[chosen])

    @property
    def running(self) -> Any:
        """Which steps are within a series, (T, B, 1)."""
        return (np.arange(len(self.x))[:, np.newaxis] < self.lengths)[..., np.newaxis]


def load(part: str) -> Series:
    """Read the training or the test series."""
    package = importlib.util.find_spec("aeon")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install --no-deps aeon", name="aeon")
    folder = Path(package.submodule_search_locations[0], "datasets", "data", "JapaneseVowels")
    text = (folder / f"JapaneseVowels_{part}.ts").read_text(encoding="utf-8")
    series, speakers = [], []
    for line in text.split("@data", 1)[1].split():
        *channels, speaker = line.split(":")
        series.append(np.array([[float(value) for value in c.split(",")] for c in channels]).T)
        speakers.append(int(speaker) - 1)
    lengths = np.array([len(one) for one in series])
    x = np.zeros((lengths.max(), len(series), series[0].shape[1]))
    for number, one in enumerate(series):
        x[: len(one), number] = one
    return Series(x, lengths, np.array(speakers))


def mean_outputs(o: Any, data: Series) -> Any:
    """Average outputs over the steps of each series."""
    return np.where(data.running, o, 0).sum(axis=0) / data.lengths[:, np.newaxis]


def fit(data: Series, ridge: float) -> rnnbptt.Params:
    """Fit the read-out to the series."""
    number = np.arange(len(data.speaker))

    def cross_entropy(o: Any, speaker: Any) -> tuple[float, Any]:
        z = mean_outputs(o, data)
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        loss = np.mean(np.log(np.exp(z).sum(axis=1)) - z[number, speaker])
        p[number, speaker] -= 1
        return float(loss), data.running * (p / (len(number) * data.lengths[:, np.newaxis]))

    start = rnnbptt.Params.random(
        12, HIDDEN, 9, kind="orthogonal", spectral_radius=RADIUS, biases=True, direct=True, rng=0
    )
    objective = rnnbptt.Objective(
        data.x,
        data.speaker,
        loss=cross_entropy,
        like=start,
        lengths=data.lengths,
        wrt=("W_qh", "b_q", "W_qx"),
    )
    first = start.ravel()

    def penalised(theta: Any) -> tuple[float, Any]:
        loss, gradient = objective.flat(theta)
        away = theta - first
        return loss + ridge * float(away @ away), gradient + 2 * ridge * away

    found = minimize(penalised, first, jac=True, method="L-BFGS-B", options={"maxiter": 150})
    return start.unravel(found.x)


def guess(params: rnnbptt.Params, data: Series) -> Any:
    """Return the likeliest speaker of each series."""
    return mean_outputs(rnnbptt.forward(params, data.x).o, data).argmax(axis=1)


def main(picture: str = "japanese_vowels.png") -> float:
    """Choose the ridge on the training series, fit, and return the accuracy on the test series."""
    train, test = load("TRAIN"), load("TEST")
    steps = train.x[train.running[..., 0]]
    mean, scale = steps.mean(axis=0), steps.std(axis=0)
    train, test = (
        data._replace(x=np.where(data.running, (data.x - mean) / scale, 0)) for data in (train, test)
    )
    fold = np.random.default_rng(0).permutation(len(train.speaker)) % FOLDS

    def validated(ridge: float) -> float:
        right = [guess(fit(train.only(fold != k), ridge), train.only(fold == k)) for k in range(FOLDS)]
        return float(np.mean([np.mean(right[k] == train.speaker[fold == k]) for k in range(FOLDS)]))

    ridge = max(RIDGES, key=validated)
    said = guess(fit(train, ridge), test)
    accuracy = float(np.mean(said == test.speaker))
    print(f"ridge {ridge}, chosen on the training series; accuracy on {len(said)} test series {accuracy:.4f}")

    counts = np.zeros((9, 9), int)
    np.add.at(counts, (test.speaker, said), 1)
    figure = Figure(figsize=(6, 5.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.sqrt(counts / counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1.4)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            axes.text(column, row, count, ha="center", va="center")
    names = [str(speaker) for speaker in range(1, 10)]
    axes.set_xticks(range(9), names)
    axes.set_yticks(range(9), names)
    axes.set(xlabel="speaker, as recognised", ylabel="speaker")
    axes.set_title(f"Nine speakers of Japanese vowels: {100 * accuracy:.1f} % right", loc="left")
    figure.savefig(picture)
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:])
