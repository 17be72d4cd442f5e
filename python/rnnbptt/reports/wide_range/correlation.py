"""The correlation of two sequences of vectors over many lags."""

from __future__ import annotations

import math

import numpy as np

from ... import _core
from .scaled import Real, Scaled, normalised, raw_if_tame, tame

#: Lags under one exponent.
_GROUP = 64
#: Steps of a bin: where lags are compared by size, the norm of a bin stands for those of its steps.
_BIN = 8
#: Size of the terms of a lag, against the norms, above which transforms are as accurate as direct sums.
_NOT_MUCH_LESS = 1 / 16


def correlate(a: Scaled, b: Real, count: int, threads: int = 0) -> Scaled:
    """Return ``R_k = sum_t a_{t+k} b_t^T``, summed over the batch, for k below `count`: (count, q, m).

    By direct sums, or where that is less work by transforms of sections. Rounding errors of those are of the
    size of ``||a|| ||b||``: they are for lags at which ``sum_t ||a_{t+k}|| ||b_t||`` is not much less.
    """
    (T, B, q), m = a.mantissa.shape, b.shape[2]
    shift = 0
    if not tame(b):
        shift = int(np.frexp(np.abs(b).max())[1])
        b = np.ldexp(b, -shift)
    result = np.zeros((count, q, m))
    first, last = 0, min(count, T)
    if a.raw:
        length = _length(T, B, q, m, last)
        if length:
            first = _even_lags(a.mantissa, b, last, threads)
            if first:
                _sums(a.mantissa, b, result[:first], threads, length)
        if first < last:
            _sums(a.mantissa[first:], b[: T - first], result[first:last], threads)
        return normalised(result, np.full((count, q), shift)) if shift else raw_if_tame(result)
    exponent = np.zeros((count, q), np.int64)
    for start in range(0, last, _GROUP):
        some = slice(start, min(start + _GROUP, last))
        # Only steps from here on matter, and steps far smaller than the largest of them do not.
        tail = Scaled(a.mantissa[start:], a.exponent[start:])
        top = tail.exponent.max()
        rows = tail.at(np.broadcast_to(top, tail.exponent.shape))
        _sums(rows, b[: T - start], result[some], threads)
        exponent[some] = top + shift
    return normalised(result, exponent)


def _sums(a: Real, b: Real, result: Real, threads: int, length: int = 0) -> None:
    """Set `result` to R_k for the lags it has room for; by transforms of `length` steps, 0 for none."""
    (T, B, q), m = a.shape, b.shape[2]
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    _core.correlate((T, B, q, m, len(result)), a, b, result, length, threads)


def _length(T: int, B: int, q: int, m: int, count: int) -> int:
    """Return the length of transforms that is least work, or 0 where direct sums are less."""
    # In nanoseconds of one core, for some machine. Sections are transformed by 16.
    cost = {0: q * m * count * (T - count / 2) * B / 25}
    for bits in range(max(4, count.bit_length()), 64):
        length = 2**bits
        one = 2 * length * (bits + length / 2048)  # long ones leave the caches
        sections = B * math.ceil(T / (length - count + 1))
        pairs = length * (60 + 5 * q * m)
        cost[length] = math.ceil(sections / 16) * ((q + m) * one + pairs) + math.ceil(q * m / 8) * one
        if length > 2 * (T + count):
            break
    return min(cost, key=lambda length: cost[length])


def _even_lags(a: Real, b: Real, count: int, threads: int) -> int:
    """Return the first lag at which ``sum_t ||a_{t+k}|| ||b_t||`` is much less than ``||a|| ||b||``."""
    n = _BIN if len(a) > 100 * _BIN else 1
    u, v = _lengths(a, n), _lengths(b, n)
    sizes = np.empty((min(count // n + 2, len(u)), 1, 1))
    _sums(u, v, sizes, threads)
    largest = np.sqrt(np.sum(u * u) * np.sum(v * v))
    small = np.flatnonzero(sizes[:, 0, 0] < _NOT_MUCH_LESS * largest)
    # A lag between n j and n (j + 1) has its terms in bins that lie j and j + 1 apart.
    return min(count, max(0, n * int(small[0]) - n + 1)) if small.size else count


def _lengths(rows: Real, n: int) -> Real:
    """Return the norms of bins of n steps: (bins, B, 1)."""
    T, B, m = rows.shape
    whole = T // n * n
    bins = rows[:whole].reshape(-1, n, B, m)
    squares = np.zeros((-(-T // n), B, 1))
    squares[: len(bins), :, 0] = np.einsum("knbi,knbi->kb", bins, bins)
    if whole < T:
        squares[-1, :, 0] = np.einsum("nbi,nbi->b", rows[whole:], rows[whole:])
    return np.sqrt(squares)
