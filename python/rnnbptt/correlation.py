"""The correlation of two sequences of vectors over many lags."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import _core
from .scaled import Real, Scaled, normalised, raw_if_tame, tame

#: Products of an output and an input from which transforms are faster than direct sums.
_MANY = 512
#: Lags under one exponent.
_GROUP = 64
#: Size of the terms of a lag, against the norms, above which transforms are as accurate as direct sums.
_NOT_MUCH_LESS = 1 / 16


def correlate(a: Scaled, b: Real, count: int, threads: int = 0) -> Scaled:
    """Return ``R_k = sum_t a_{t+k} b_t^T``, summed over the batch, for k below `count`: (count, q, m).

    By direct sums. Where q m is large, by transforms of blocks, whose rounding errors are of the size of
    ``||a|| ||b||``, for the lags at which ``sum_t ||a_{t+k}|| ||b_t||`` is not much less.
    """
    (T, _, q), m = a.mantissa.shape, b.shape[2]
    shift = 0
    if not tame(b):
        shift = int(np.frexp(np.abs(b).max())[1])
        b = np.ldexp(b, -shift)
    result = np.zeros((count, q, m))
    first, last = 0, min(count, T)
    if a.raw:
        if q * m >= _MANY:
            transformed, first = _by_transforms(a.mantissa, b, last)
            result[:first] = transformed[:first]
        if first < last:
            result[first:last] = _directly(a.mantissa[first:], b[: T - first], last - first, threads)
        return normalised(result, np.full((count, q), shift)) if shift else raw_if_tame(result)
    exponent = np.zeros((count, q), np.int64)
    for start in range(0, last, _GROUP):
        some = slice(start, min(start + _GROUP, last))
        # Only steps from here on matter, and steps far smaller than the largest of them do not.
        tail = Scaled(a.mantissa[start:], a.exponent[start:])
        top = tail.exponent.max()
        rows = tail.at(np.broadcast_to(top, tail.exponent.shape))
        result[some] = _directly(rows, b[: T - start], some.stop - start, threads)
        exponent[some] = top + shift
    return normalised(result, exponent)


def _directly(a: Real, b: Real, count: int, threads: int) -> Real:
    """Return R_k for k below `count`."""
    (T, B, q), m = a.shape, b.shape[2]
    result = np.empty((count, q, m))
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    _core.correlate((T, B, q, m, count), a, b, result, threads)
    return result


def _by_transforms(a: Real, b: Real, count: int) -> tuple[Real, int]:
    """Return R_k for k below `count`, and up to which lag its rounding errors do not matter."""
    (T, B, q), m = a.shape, b.shape[2]
    length = min(max(4096, 2 ** (2 * count - 1).bit_length()), _composite(T + count - 1))
    step = length - count + 1
    blocks = -(-T // step)
    # Lengths of rows as one more series: their correlation says how large the terms of a lag are.
    sizes = [np.sqrt(np.vecdot(rows, rows))[..., np.newaxis] for rows in (a, b)]
    later = np.zeros((q + 1, B, blocks * step + length))
    later[:, :, :T] = np.concatenate([a, sizes[0]], axis=2).transpose(2, 1, 0)
    earlier = np.zeros((m + 1, B, blocks * step))
    earlier[:, :, :T] = np.concatenate([b, sizes[1]], axis=2).transpose(2, 1, 0)
    seen = np.lib.stride_tricks.sliding_window_view(later, length, axis=2)[:, :, : blocks * step : step]
    A = np.fft.rfft(seen).reshape(q + 1, B * blocks, -1)
    C = np.conj(np.fft.rfft(earlier.reshape(m + 1, B, blocks, step), length)).reshape(m + 1, B * blocks, -1)
    # For every frequency the product of two matrices, summed over sequences and blocks; by parts, which the
    # usual BLAS multiplies without starting threads for each.
    (a_re, a_im), (c_re, c_im) = _parts(A, (2, 0, 1)), _parts(C, (2, 1, 0))
    product = np.empty((len(a_re), q + 1, m + 1), np.complex128)
    product.real = a_re @ c_re - a_im @ c_im
    product.imag = a_re @ c_im + a_im @ c_re
    lags = np.fft.irfft(np.ascontiguousarray(product.transpose(1, 2, 0)), length)[..., :count]
    largest = np.sqrt(np.sum(a * a) * np.sum(b * b))
    small = np.flatnonzero(lags[q, m] < _NOT_MUCH_LESS * largest)
    return lags[:q, :m].transpose(2, 0, 1), int(small[0]) if small.size else count


def _composite(least: int) -> int:
    """Return a length of at least so much, of small factors: transforms of it are fast."""
    unit = 2 ** max(0, (least - 1).bit_length() - 4)
    return next(n * unit for n in (8, 9, 10, 12, 15, 16) if n * unit >= least)


def _parts(spectra: NDArray[np.complex128], axes: tuple[int, ...]) -> tuple[Real, Real]:
    turned = spectra.transpose(axes)
    return np.ascontiguousarray(turned.real), np.ascontiguousarray(turned.imag)
