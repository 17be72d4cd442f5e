"""One vector of all parameters: where each stands in it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .. import _validate
from ..engine.params import PARAMETERS, Gradients, Params

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._validate import FloatArray
    from ..engine.dataset import Dataset

_OPTIONAL = ("b_h", "b_q", "W_qx")


class Layout:
    """How one vector holds the parameters, in the order of `Params.ravel`, and h0 behind them.

    Attributes
    ----------
    like : Params
    size : int
        Length of the vector.
    terms : tuple of bool
        Whether b_h, b_q, W_qx and h0 are in it.
    holes : list of slice
        Parameters in the vector that are not differentiated by.
    first : tuple of int
        Where the derivatives by the six parameters and by h0 begin; -1 for none.
    """

    def __init__(self, like: Params, dataset: Dataset) -> None:
        self.like = like
        shape = (dataset.batch, dataset.shape[1]) if dataset.batched else (dataset.shape[1],)
        self.start = shape if "h0" in dataset.wrt else None
        sizes = {name: array.size for name, array in like.items()}
        if self.start is not None:
            sizes["h0"] = dataset.batch * dataset.shape[1]
        self.holes, first, at = [], dict.fromkeys((*PARAMETERS, "h0"), -1), 0
        for name, size in sizes.items():
            if name in dataset.wrt:
                first[name] = at
            else:
                self.holes.append(slice(at, at + size))
            at += size
        self.size, self.first = at, tuple(first.values())
        b_h, b_q, W_qx = (name in sizes for name in _OPTIONAL)
        self.terms = (b_h, b_q, W_qx, self.start is not None)

    @cached_property
    def state_columns(self) -> NDArray[np.int64]:
        """Where a vector holds what states depend on and is differentiated by: W_hx, W_hh, b_h."""
        return np.concatenate([self._columns(name) for name in ("W_hx", "W_hh", "b_h")])

    @cached_property
    def output_columns(self) -> NDArray[np.int64]:
        """The same of what outputs are read out with, (q, m): rows of W_qh, b_q, W_qx of each output."""
        rows = [self._columns(name).reshape(self.like.shape[2], -1) for name in ("W_qh", "b_q", "W_qx")]
        return np.concatenate(rows, axis=1)

    def _columns(self, name: str) -> NDArray[np.int64]:
        """Where a vector holds a parameter; nowhere, if it is not differentiated by."""
        first = self.first[PARAMETERS.index(name)]
        return np.arange(first, first + (getattr(self.like, name).size if first >= 0 else 0))

    def without_holes(self) -> tuple[tuple[int, ...], int]:
        """Return `first` and the length where what is not differentiated by is left out."""
        skipped = [
            sum(hole.stop - hole.start for hole in self.holes if hole.start < at) if at >= 0 else 0
            for at in self.first
        ]
        first = tuple(at - less for at, less in zip(self.first, skipped, strict=True))
        return first, self.size - sum(hole.stop - hole.start for hole in self.holes)

    def clear_holes(self, vector: FloatArray) -> FloatArray:
        """Write zeros into the holes of a vector, and return it."""
        for hole in self.holes:
            vector[hole] = 0
        return vector

    def vector(self, name: str, value: ArrayLike) -> FloatArray:
        """Return `value` as a vector of this layout."""
        return _validate.array(name, value, self.like.dtype, (self.size,))

    def pack(self, params: Params, h0: ArrayLike | None, start: FloatArray | None) -> FloatArray:
        """Write parameters, and h0 where vectors hold it, into a new vector; `start` where no h0 is given."""
        if params._kind != self.like._kind:
            raise ValueError(
                f"params must have shapes, dtype and terms {self.like._kind}, not {params._kind}"
            )
        if self.start is None:
            if h0 is not None:
                raise ValueError("h0 must be None unless wrt names it")
            return params.ravel()
        if h0 is None:
            h0 = np.zeros(self.start, params.dtype) if start is None else start.reshape(self.start)
        return np.concatenate([params.ravel(), _validate.array("h0", h0, params.dtype, self.start).ravel()])

    def unpack(self, vector: FloatArray) -> tuple[Params, FloatArray | None]:
        """Take a vector apart; the parts share its memory."""
        params = self.like.unravel(vector[: self.like.size])
        return params, None if self.start is None else vector[self.like.size :].reshape(self.start)

    def join(self, gradients: Gradients) -> FloatArray:
        """Put gradients where the vector holds what they are gradients of, and zeros in the holes."""
        names = [name for name, _ in self.like.items()] + ["h0"] * self.terms[3]
        given = gradients._asdict()
        return np.concatenate(
            [
                np.zeros(getattr(self.like, name).size, self.like.dtype)
                if given[name] is None
                else given[name].ravel()
                for name in names
            ]
        )
