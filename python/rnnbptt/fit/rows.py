"""Which rows belong to which sequence: by the lengths of sequences, or by a label of every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import named
from .experiments import experiment_lengths

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .experiments import Real


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of sequences.

    Parameters
    ----------
    lengths : ndarray of int, shape (B,)
    order : ndarray of int, shape (n,), or None
        Row numbers, one sequence after the other; None where the rows lie so.
    labels : tuple
        One for every sequence; none where there are no labels.
    """

    lengths: NDArray[np.int64]
    order: NDArray[np.int64] | None = None
    labels: tuple[Any, ...] = ()

    @classmethod
    def of(cls, lengths: ArrayLike | None, experiments: ArrayLike | None, count: int) -> Rows:
        """Return which of `count` rows make a sequence; one of all rows where neither is given."""
        if experiments is None:
            return cls(experiment_lengths(lengths, count))
        if lengths is not None:
            raise ValueError(
                "lengths must not be given beside experiments: both say which rows make a sequence"
            )
        with named("experiments"):
            given = np.asarray(experiments)
        if isinstance(experiments, np.ma.MaskedArray) or given.dtype.kind not in "biufUSO":
            raise TypeError(f"experiments must hold numbers or strings, not {given.dtype}")
        if given.shape != (count,):
            raise ValueError(
                f"experiments must have shape ({count},), a label for every row, not {given.shape}"
            )
        if given.dtype.kind == "f" and np.isnan(given).any():
            raise ValueError("experiments must have a label for every row, not NaN")
        names, number = np.unique(
            given.astype(str) if given.dtype.kind == "O" else given, return_inverse=True
        )
        # In the order in which they first appear.
        first = np.full(len(names), count)
        np.minimum.at(first, number, np.arange(count))
        place = np.argsort(np.argsort(first))[number]
        order = np.argsort(place, kind="stable")
        labels = tuple(given[np.sort(first)].tolist())
        return cls(np.bincount(place).astype(np.int64), order, labels)

    def sorted(self, values: Real) -> Real:
        """Return rows one sequence after the other."""
        return values if self.order is None else values[self.order]

    def as_given(self, values: Real) -> Real:
        """Undo `sorted`."""
        if self.order is None:
            return values
        result = np.empty_like(values)
        result[self.order] = values
        return result
