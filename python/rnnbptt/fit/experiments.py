"""Rows of experiments as padded sequences, which of their targets are known, and the units of a fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.params import Params
from ..engine.trajectories import forward

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

#: An array of float64.
Real = NDArray[Any]


def experiment_lengths(lengths: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    """Return the number of rows of every experiment; one experiment of all rows when absent."""
    if lengths is None:
        return np.array([rows], np.int64)
    counts = _validate.integers("lengths", lengths, 1, rows)
    if counts.ndim != 1 or counts.sum() != rows:
        raise ValueError(
            f"lengths must be a list of numbers that add up to the {rows} rows of X, "
            f"not of shape {counts.shape} with sum {counts.sum()}"
        )
    return counts


def checked_columns(targets: Real) -> Real:
    """Return targets (n,) or (n, q) as rows (n, q), of which every column has a known one."""
    columns = targets.reshape(len(targets), -1)
    empty = np.isnan(columns).all(axis=0)
    if empty.any():
        raise ValueError(f"y has no known target in column {int(np.argmax(empty))}")
    return columns


def padded(rows: Real, lengths: NDArray[np.int64], fill: float = 0.0) -> Real:
    """Return concatenated rows (n, m) as sequences side by side, (T, B, m), with `fill` beyond their ends."""
    if len(lengths) == 1:
        return np.ascontiguousarray(rows[:, np.newaxis])
    result = np.full((int(lengths.max()), len(lengths), rows.shape[1]), fill)
    for sequence, part in enumerate(np.split(rows, np.cumsum(lengths)[:-1])):
        result[: len(part), sequence] = part
    return result


def concatenated(sequences: Real, lengths: NDArray[np.int64]) -> Real:
    """Undo `padded`."""
    return np.concatenate([sequences[:length, b] for b, length in enumerate(lengths)])


@dataclass(frozen=True, eq=False)
class Experiments:
    """Sequences to fit.

    Parameters
    ----------
    x : ndarray, shape (T, B, d)
        Inputs, zero beyond the ends of sequences.
    y : ndarray, shape (T, B, q)
        Targets, zero where they are not known.
    known : ndarray of bool, shape (T, B, q)
        Which targets count in the loss.
    held_out : ndarray of bool, shape (T, B, q)
        Which targets are kept from the loss to decide when to stop; they are known as well, but not in
        `known`.
    lengths : ndarray of int, shape (B,)
    """

    x: Real
    y: Real
    known: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, X: Real, y: Real, lengths: NDArray[np.int64]) -> Experiments:
        """Lay out rows X (n, d) and y (n, q), in which NaN stands for a missing target."""
        targets = padded(y, lengths, fill=np.nan)
        known = ~np.isnan(targets)
        return cls(padded(X, lengths), np.where(known, targets, 0.0), known, np.zeros_like(known), lengths)

    def with_targets(self, y: Real) -> Experiments:
        """Return the same experiments with other targets (T, B, q) where these are known."""
        return replace(self, y=np.where(self.known, y, 0.0))

    def loss(self, params: Params, h0: Real) -> float:
        """Return the mean squared error of the known targets; it may overflow."""
        with np.errstate(all="ignore"):
            error = (forward(params, self.x, h0).o - self.y)[self.known]
            return float(np.mean(error**2))

    def holding_out(self, fraction: float) -> Experiments:
        """Keep the last part of every experiment from the loss."""
        held = np.ceil(self.lengths * fraction).astype(np.int64)
        late = np.arange(len(self.x))[:, np.newaxis] >= self.lengths - held
        late = late[..., np.newaxis]
        result = replace(self, known=self.known & ~late, held_out=self.known & late)
        if not (result.known.any() and result.held_out.any()):
            raise ValueError(
                f"validation_fraction={fraction} leaves nothing to fit, or no known target held out: "
                "the experiments are too short for it"
            )
        return result


@dataclass(frozen=True, eq=False)
class Units:
    """Offset and scale of inputs and targets: a fit works on ``(value - offset) / scale``.

    Parameters
    ----------
    x_offset, x_scale : ndarray, shape (d,)
    y_offset, y_scale : ndarray, shape (q,)
    """

    x_offset: Real
    x_scale: Real
    y_offset: Real
    y_scale: Real

    @classmethod
    def of(cls, X: Real, y: Real, *, standardize: bool, centre: bool) -> Units:
        """Choose units for rows X (n, d) and y (n, q): those of the data unless `standardize`.

        With `centre` they are mean and standard deviation of every column, else zero and the root mean
        square.
        """
        if not standardize:
            d, q = X.shape[1], y.shape[1]
            return cls(np.zeros(d), np.ones(d), np.zeros(q), np.ones(q))
        return cls(*_offset_and_scale(X, centre), *_offset_and_scale(y, centre))

    def inputs(self, X: Real) -> Real:
        """Express inputs in these units."""
        return (X - self.x_offset) / self.x_scale

    def targets(self, y: Real) -> Real:
        """Express targets in these units."""
        return (y - self.y_offset) / self.y_scale

    def undo(self, params: Params) -> Params:
        """Return the parameters that do to the data themselves what `params` do to them in these units."""
        W_hx = params.W_hx / self.x_scale
        W_qh = self.y_scale[:, np.newaxis] * params.W_qh
        W_qx = None if params.W_qx is None else self.y_scale[:, np.newaxis] * params.W_qx / self.x_scale
        b_h, b_q = params.b_h, params.b_q
        if b_h is not None and b_q is not None:
            b_h = b_h - W_hx @ self.x_offset
            b_q = self.y_scale * b_q + self.y_offset
            if W_qx is not None:
                b_q = b_q - W_qx @ self.x_offset
        return Params(W_hx, params.W_hh, W_qh, b_h, b_q, W_qx)

    def into(self, params: Params) -> Params:
        """Undo `undo`."""
        scale = self.y_scale[:, np.newaxis]
        W_qx = params.W_qx
        b_h, b_q = params.b_h, params.b_q
        if b_h is not None and b_q is not None:
            b_h = b_h + params.W_hx @ self.x_offset
            b_q = b_q - self.y_offset if W_qx is None else b_q - self.y_offset + W_qx @ self.x_offset
            b_q = b_q / self.y_scale
        if W_qx is not None:
            W_qx = W_qx * self.x_scale / scale
        return Params(params.W_hx * self.x_scale, params.W_hh, params.W_qh / scale, b_h, b_q, W_qx)


def _offset_and_scale(columns: Real, centre: bool) -> tuple[Real, Real]:
    offset = np.nanmean(columns, axis=0) if centre else np.zeros(columns.shape[1])
    # Divided by the largest deviation first: squares of numbers near the end of the range would overflow.
    deviation = np.abs(columns - offset)
    largest = np.nanmax(deviation, axis=0)
    rounding = 8 * np.finfo(np.float64).eps * np.abs(offset)
    varies = largest > rounding
    safe = np.where(varies, largest, 1.0)
    scale = safe * np.sqrt(np.nanmean((deviation / safe) ** 2, axis=0))
    return offset, np.where(varies, scale, 1.0)
