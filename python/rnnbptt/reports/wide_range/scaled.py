"""Numbers far beyond the range of float64: a mantissa per entry, a power of two per row.

A row is ``mantissa * 2 ** exponent``. Rescaling by powers of two is exact, so sums and products of rows have
the rounding errors of float64 and no others, however large or small they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import _core
from ...engine.powers import FLOAT64_BITS
from ...engine.trajectories import linear_scan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._validate import IntArray

Real = NDArray[np.floating[Any]]

#: Exponent of a row of zeros: below every other one, and sums of a few of them still fit in an int64.
ZERO = -(2**50)
#: Rows whose largest entry lies within 2 ** -TAME and 2 ** TAME, or is zero, are left without exponents.
TAME = 200
_NONE = np.zeros((), np.int64)


class Scaled(NamedTuple):
    """Rows ``mantissa[i] * 2 ** exponent[i]``; `exponent` has the leading axes of `mantissa`.

    *Raw* rows have exponents of zero and mantissas of any (tame) size. *Normal* rows have a largest entry in
    [1/2, 1), or are zero with the exponent `ZERO`.
    """

    mantissa: Real
    exponent: IntArray

    @property
    def raw(self) -> bool:
        """Whether these are ordinary numbers, without exponents."""
        return _all_zero(self.exponent)

    def at(self, exponent: IntArray) -> Real:
        """Return mantissas for other exponents; what is too small for them becomes zero."""
        if self.raw and _all_zero(exponent):
            return self.mantissa
        shift = self.exponent - exponent
        return self.mantissa if _all_zero(shift) else _ldexp(self.mantissa, shift)

    def plain(self) -> Scaled:
        """Return raw rows if the exponents are moderate, else these."""
        if self.raw or not ((self.exponent == ZERO) | (np.abs(self.exponent) < TAME)).all():
            return self
        return unscaled(self.at(np.zeros_like(self.exponent)), self.mantissa.ndim - self.exponent.ndim)

    def log2_norms(self) -> Real:
        """Return the base-2 logarithm of the Euclidean norm of every row; -inf for zero."""
        flat = self.mantissa.reshape(*self.exponent.shape, -1)
        squares, exponent = _squares(flat), self.exponent
        if not ((squares > 2.0**-900) & (squares < 2.0**900)).all():
            flat, exponent = normalised(flat, exponent)
            squares = _squares(flat)
        with np.errstate(divide="ignore"):
            logs: Real = np.log2(squares) / 2 + exponent
        return logs


def _squares(rows: Real) -> Real:
    # Not vecdot: for long rows the BLAS would start threads for every one.
    squares: Real = np.einsum("...i,...i->...", rows, rows)
    return squares


def _all_zero(exponent: IntArray) -> bool:
    if exponent.size == 0 or not any(exponent.strides):  # one number, repeated
        return exponent.size == 0 or exponent.item(0) == 0
    # Several times as fast as not any(): this is called often.
    return int(exponent.min()) == 0 and int(exponent.max()) == 0


def _ldexp(mantissa: Real, exponent: IntArray) -> Real:
    """Return ``mantissa * 2 ** exponent``, exponents broadcast over the axes of a row."""
    shift = np.asarray(exponent)
    shift = shift.reshape(shift.shape + (1,) * (mantissa.ndim - shift.ndim))
    if shift.size and shift.min() >= -1022 and shift.max() <= 1023:
        # The power is a normal number and the product rounded once: the same, and several times as fast.
        scaled: Real = mantissa * np.ldexp(1.0, shift.astype(np.int32))
        return scaled
    result: Real = np.ldexp(mantissa, np.clip(shift, -5000, 5000).astype(np.int32))
    return result


def unscaled(rows: Real, axes: int = 1) -> Scaled:
    """Return raw rows; `axes` trailing axes make a row."""
    return Scaled(rows, np.broadcast_to(_NONE, rows.shape[: rows.ndim - axes]))


def normalised(mantissa: Real, exponent: IntArray | int = 0, axes: int = 1) -> Scaled:
    """Return normal rows; `axes` trailing axes make a row where `exponent` does not say so."""
    lead = mantissa.ndim - axes if isinstance(exponent, int) else exponent.ndim
    top = np.abs(mantissa).max(axis=tuple(range(lead, mantissa.ndim)))
    shift = np.frexp(top)[1].astype(np.int64)
    moved = np.where(top == 0, ZERO, shift + exponent)
    return Scaled(_ldexp(mantissa, -shift), moved)


def raw_if_tame(rows: Real) -> Scaled:
    """Return rows without exponents where that is safe, else normal ones."""
    return unscaled(rows) if tame(rows) else normalised(rows)


def tame(rows: Real) -> bool:
    """Whether the largest entry of every row is zero or of moderate size."""
    return _sizes(rows)[0]


def vanishing(rows: Real, *, reverse: bool = False) -> bool:
    """Whether tame rows of zeros follow others in time: (T, B, m), or in reversed time.

    They may be zero, or have fallen below the range of float64 within one step.
    """
    _, falls, rises = _sizes(rows)
    return rises if reverse else falls


def _sizes(rows: Real) -> tuple[bool, bool, bool]:
    lanes, width = rows.shape[-2] if rows.ndim > 2 else 1, rows.shape[-1]
    if rows.size == 0:
        return True, False, False
    return _core.row_sizes(rows.size // width, width, lanes, np.ascontiguousarray(rows), TAME)


def add(a: Scaled, b: Scaled) -> Scaled:
    """Return the sum, raw if both are."""
    if a.raw and b.raw:
        sums = a.mantissa + b.mantissa
        axes = sums.ndim - np.ndim(a.exponent)
        return unscaled(sums, axes) if tame(sums) else normalised(sums, axes=axes)
    a, b = normalised(*a), normalised(*b)  # a row of zeros is not to decide on the exponent
    top = np.maximum(a.exponent, b.exponent)
    return normalised(a.at(top) + b.at(top), top)


def product(a: Real, b: Real, threads: int, out: Real | None = None) -> NDArray[np.float64]:
    """Return the product of two matrices, by the engine: no threads of another library get in its way."""
    result: NDArray[Any] = np.empty((len(a), b.shape[1])) if out is None else out
    shape = (*a.shape, b.shape[1])
    _core.product(shape, np.ascontiguousarray(a), np.ascontiguousarray(b), result, threads)
    return result


def outer_sum(a: Real, b: Real, threads: int) -> NDArray[np.float64]:
    """Return ``a^T b``, the sum of the outer products of rows, by the engine: (n, i) and (n, j) to (i, j)."""
    result = np.empty((a.shape[1], b.shape[1]))
    shape = (*a.shape, b.shape[1])
    _core.outer_sum(shape, np.ascontiguousarray(a), np.ascontiguousarray(b), result, threads)
    return result


def power(W: Real, ks: Sequence[int], threads: int) -> Scaled:
    """Return the powers ``W^k`` for ascending k, right to the last bit, (n, h, h) under one exponent each."""
    mantissas, exponents = np.empty((len(ks), *W.shape)), np.empty(len(ks), np.int64)
    _core.scaled_powers(len(W), W, np.array(ks), mantissas, exponents, threads, FLOAT64_BITS)
    return normalised(mantissas, exponents)


def scan(M: Scaled, v: Scaled, start: Scaled, threads: int, *, reverse: bool = False) -> Scaled:
    """Run ``s_i = M s_{i-1} + v_{i-1}`` from the start s_0, (B, h): s_0 .. s_n, (n + 1, B, h).

    With `reverse`, ``s_i = M s_{i+1} + v_i`` from the start s_n. M is one scaled matrix. First as ordinary
    numbers, by the engine. If those leave the range, or could have, again with one exponent per row.
    """
    n = len(v.mantissa)
    v, start = v.plain(), start.plain()
    states = np.empty((n + 1, *start.mantissa.shape))
    first, others = (n, slice(n)) if reverse else (0, slice(1, None))
    if v.raw and start.raw and abs(int(M.exponent)) < TAME:
        states[first] = start.mantissa
        if n:
            matrix = _ldexp(M.mantissa, M.exponent)
            linear_scan(
                matrix,
                v.mantissa,
                start.mantissa,
                reverse=reverse,
                num_threads=threads or None,
                out=states[others],
            )
        if tame(states) and not vanishing(states, reverse=reverse):
            return unscaled(states)
    exponents = np.empty(states.shape[:-1], np.int64)
    states[first], exponents[first] = normalised(*start)
    entering = normalised(*v)
    _core.scaled_scan(
        (n, *start.mantissa.shape),
        np.ascontiguousarray(M.mantissa),
        int(M.exponent),
        np.ascontiguousarray(entering.mantissa),
        np.ascontiguousarray(entering.exponent),
        states,
        exponents,
        ZERO,
        reverse,
    )
    return Scaled(states, exponents)
