"""The data: yearly sunspot numbers, which years are for what, and the numbers a network sees."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Years = NDArray[np.int64]

WARM_UP = 20  # first years whose forecasts do not count: the state is still on its way from zero
VALIDATION_FROM = 1879  # 50 years that choose among starts and stop them early
HELD_OUT_FROM = 1929  # 80 years that nothing is fitted to


@dataclass(frozen=True, eq=False)
class Sunspots:
    """Yearly means of the sunspot number, and the task of forecasting each year from those before.

    Parameters
    ----------
    year : ndarray of int, shape (n,)
        Consecutive years.
    number : ndarray, shape (n,)
        Mean number of sunspots of each year.
    """

    year: Years
    number: Array

    @property
    def target_year(self) -> Years:
        """The years to forecast: all but the first, shape (n - 1,)."""
        return self.year[1:]

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation of the years before the held-out ones."""
        known = self.number[self.year < HELD_OUT_FROM]
        return float(known.mean()), float(known.std())

    @cached_property
    def standardised(self) -> Array:
        """The numbers in units of `scale`, shape (n, 1)."""
        mean, deviation = self.scale
        scaled: Array = (self.number[:, np.newaxis] - mean) / deviation
        return scaled

    @property
    def x(self) -> Array:
        """Inputs: the standardised number of each year but the last, shape (n - 1, 1)."""
        return self.standardised[:-1]

    @property
    def y(self) -> Array:
        """Targets: the standardised number of the year after, shape (n - 1, 1)."""
        return self.standardised[1:]

    def steps_before(self, year: int) -> int:
        """Number of steps whose target lies before `year`."""
        return int(np.sum(self.target_year < year))

    def weights(self, before: int) -> Array:
        """Loss weights of the steps whose target lies before `before`: 0 while warming up, then 1."""
        return (np.arange(self.steps_before(before)) >= WARM_UP).astype(float)

    def in_sunspots(self, standardised: Array) -> Array:
        """Turn outputs of a network into numbers of sunspots."""
        mean, deviation = self.scale
        numbers: Array = mean + deviation * standardised
        return numbers

    def error(self, forecast: Array, first: int, last: int) -> float:
        """Root mean square error of a forecast over the years `first` to `last`, in sunspots.

        Parameters
        ----------
        forecast : ndarray, shape (n - 1,)
            One number for every `target_year`.
        first, last : int
            Years, both counted.
        """
        chosen = (self.target_year >= first) & (self.target_year <= last)
        return float(np.sqrt(np.mean((forecast - self.number[1:])[chosen] ** 2)))


def load() -> Sunspots:
    """Read the numbers shipped with the package; the file names their source."""
    with files(__package__).joinpath("sunspots.csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return Sunspots(
        np.array([int(row["year"]) for row in rows]), np.array([float(row["sunspots"]) for row in rows])
    )
