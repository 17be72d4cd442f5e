"""Numbers with an exponent each: a `Scaled` whose exponents have the shape of its mantissas.

Where rows have one exponent, a number far below the largest of its row is lost, which may be the only one
that is read out, or that grows. These are for such problems: as accurate as float64 would be without ends to
its range, at some ten times the cost of ordinary numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ... import _core
from .scaled import ZERO, Real, Scaled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..._validate import IntArray


def entries(numbers: Real) -> Scaled:
    """Return ordinary numbers with an exponent each."""
    mantissa, exponent = np.frexp(np.asarray(numbers, np.float64))
    return Scaled(mantissa, np.where(mantissa == 0, ZERO, exponent.astype(np.int64)))


def normal(mantissa: Real, exponent: IntArray) -> Scaled:
    """Return numbers of any mantissas with an exponent each."""
    some = entries(mantissa)
    return Scaled(some.mantissa, np.where(some.mantissa == 0, ZERO, some.exponent + exponent))


def rows(numbers: Scaled, axes: int = 1) -> Scaled:
    """Return normal rows with one exponent, which keep their norms alone; `axes` trailing axes make a row."""
    top = numbers.exponent.max(axis=tuple(range(numbers.mantissa.ndim - axes, numbers.mantissa.ndim)))
    spread = top.reshape(*top.shape, *(1,) * axes)
    return Scaled(numbers.at(np.broadcast_to(spread, numbers.exponent.shape)), top)


def moderate(numbers: Real, bits: int) -> bool:
    """Whether all numbers but zeros lie within ``2 ** -bits`` and ``2 ** bits``."""
    sizes = np.abs(numbers[numbers != 0])
    return not sizes.size or bool(sizes.min() > 2.0**-bits and sizes.max() < 2.0**bits)


def part(numbers: Scaled, index: slice | int | tuple[slice | int, ...]) -> Scaled:
    """Return what an index picks."""
    return Scaled(numbers.mantissa[index], numbers.exponent[index])


def transposed(matrix: Scaled) -> Scaled:
    """Return the transpose of a matrix."""
    return Scaled(matrix.mantissa.T, matrix.exponent.T)


def flat(numbers: Scaled) -> Scaled:
    """Return the last axis as rows of a matrix."""
    width = numbers.mantissa.shape[-1]
    return Scaled(numbers.mantissa.reshape(-1, width), numbers.exponent.reshape(-1, width))


def joined(parts: Sequence[Scaled], axis: int) -> Scaled:
    """Return arrays side by side."""
    mantissas, exponents = ([some[i] for some in parts] for i in (0, 1))
    return Scaled(np.concatenate(mantissas, axis), np.concatenate(exponents, axis))


def total(a: Scaled, b: Scaled) -> Scaled:
    """Return the sum, number by number."""
    top = np.maximum(a.exponent, b.exponent)
    return normal(a.at(top) + b.at(top), top)


def negative(numbers: Scaled) -> Scaled:
    """Return the numbers with the other sign."""
    return Scaled(-numbers.mantissa, numbers.exponent)


def times(numbers: Scaled, factors: Real) -> Scaled:
    """Return numbers times ordinary ones, which are broadcast."""
    some = entries(factors)
    exponent = np.where(some.exponent == ZERO, 0, some.exponent)
    return normal(numbers.mantissa * some.mantissa, numbers.exponent + exponent)


def largest(numbers: Scaled) -> Scaled:
    """Return the largest number along the last axis, which is kept."""
    mantissa, exponent = numbers
    order = np.sign(mantissa).astype(np.int64) * (exponent - ZERO + 1)
    first = order == order.max(axis=-1, keepdims=True)
    where = np.where(first, mantissa, -np.inf).argmax(axis=-1)[..., np.newaxis]
    return Scaled(np.take_along_axis(mantissa, where, -1), np.take_along_axis(exponent, where, -1))


def product(a: Scaled, b: Scaled, threads: int) -> Scaled:
    """Return the product of the rows of `a`, (..., k), and a matrix, (k, n)."""
    lead, (k, n) = a.mantissa.shape[:-1], b.mantissa.shape
    left = flat(a)
    result = _empty(len(left.mantissa), n)
    shape = (len(left.mantissa), k, n)
    _core.multiply_entries(shape, _whole(left), _whole(b), result, ZERO, threads)
    return Scaled(result.mantissa.reshape(*lead, n), result.exponent.reshape(*lead, n))


def scan(M: Scaled, v: Scaled, start: Scaled, *, reverse: bool = False) -> Scaled:
    """Run ``s_i = M s_{i-1} + v_{i-1}`` from the start s_0, (B, h): s_0 .. s_n, (n + 1, B, h).

    With `reverse`, ``s_i = M s_{i+1} + v_i`` from the start s_n.
    """
    n, B, h = v.mantissa.shape
    states = _empty(n + 1, B, h)
    for array, first in zip(states, start, strict=True):
        array[n if reverse else 0] = first
    _core.scan_entries((n, B, h), _whole(M), _whole(v), states, ZERO, reverse)
    return states


def correlate(a: Scaled, b: Scaled, count: int, threads: int) -> Scaled:
    """Return ``R_k = sum_t a_{t+k} b_t^T``, summed over the batch, for k below `count`: (count, q, m)."""
    (T, B, q), m = a.mantissa.shape, b.mantissa.shape[2]
    result = _empty(count, q, m)
    _core.correlate_entries((T, B, q, m, count), _whole(a), _whole(b), result, ZERO, threads)
    return result


def power(W: Scaled, n: int, threads: int) -> Scaled:
    """Return ``W^n``, by squares."""
    result = entries(np.eye(len(W.mantissa)))
    while n:
        if n & 1:
            result = product(result, W, threads)
        n >>= 1
        if n:
            W = product(W, W, threads)
    return result


def _empty(*shape: int) -> Scaled:
    return Scaled(np.empty(shape), np.empty(shape, np.int64))


def _whole(numbers: Scaled) -> Scaled:
    return Scaled(np.ascontiguousarray(numbers.mantissa), np.ascontiguousarray(numbers.exponent))
