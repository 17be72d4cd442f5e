"""The correlation of two sequences of vectors over many lags."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import _core
from .scaled import Real, Scaled, normalised, raw_if_tame, tame

#: Products of an output and an input from which transforms are faster than direct sums.
_MANY = 512
#: Up to so many products of an output and an input, spectra are multiplied one by one.
_PAIRS = 64
#: Scalars of the spectra of some blocks.
_SPECTRA = 2**20
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
    later = _series(a, blocks * step + count - 1)
    earlier = _series(b, blocks * step).reshape(m + 1, B, blocks, step)
    seen = np.lib.stride_tricks.sliding_window_view(later, length, axis=2)[:, :, ::step]
    products = np.zeros((q, m, length // 2 + 1), np.complex128)
    sizes = np.zeros(length // 2 + 1, np.complex128)
    some = max(1, _SPECTRA // ((q + m + 2) * B * length))
    for first in range(0, blocks, some):
        A = np.fft.rfft(seen[:, :, first : first + some])
        C = np.conj(np.fft.rfft(earlier[:, :, first : first + some], length))
        sizes += np.einsum("bnf,bnf->f", A[q], C[m])
        if q * m < _PAIRS:
            for i, j in np.ndindex(q, m):
                products[i, j] += np.einsum("bnf,bnf->f", A[i], C[j])
        else:
            products += _summed_products(A[:q].reshape(q, -1, A.shape[-1]), C[:m].reshape(m, -1, A.shape[-1]))
    lags = np.fft.irfft(products, length)[..., :count]
    largest = np.sqrt(np.sum(a * a) * np.sum(b * b))
    small = np.flatnonzero(np.fft.irfft(sizes, length)[:count] < _NOT_MUCH_LESS * largest)
    return lags.transpose(2, 0, 1), int(small[0]) if small.size else count


def _series(rows: Real, steps: int) -> Real:
    """Return the entries of rows as series, and their lengths as one more, up to `steps`: (m + 1, B, steps).

    The correlation of lengths says how large the terms of a lag are.
    """
    T, B, m = rows.shape
    series = np.zeros((m + 1, B, steps))
    series[:m, :, :T] = rows.transpose(2, 1, 0)
    np.sqrt(np.einsum("mbt,mbt->bt", series[:m], series[:m]), out=series[m])
    return series


def _summed_products(A: NDArray[np.complex128], C: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return ``sum_n A_in C_jn`` for every frequency: (q, n, f) and (m, n, f) to (q, m, f)."""
    # For every frequency the product of two matrices; by parts, which the usual BLAS multiplies without
    # starting threads for each.
    (a_re, a_im), (c_re, c_im) = _parts(A, (2, 0, 1)), _parts(C, (2, 1, 0))
    product = np.empty((len(a_re), A.shape[0], C.shape[0]), np.complex128)
    product.real = a_re @ c_re - a_im @ c_im
    product.imag = a_re @ c_im + a_im @ c_re
    return product.transpose(1, 2, 0)


def _composite(least: int) -> int:
    """Return a length of at least so much, of small factors: transforms of it are fast."""
    unit = 2 ** max(0, (least - 1).bit_length() - 4)
    return next(n * unit for n in (8, 9, 10, 12, 15, 16) if n * unit >= least)


def _parts(spectra: NDArray[np.complex128], axes: tuple[int, ...]) -> tuple[Real, Real]:
    turned = spectra.transpose(axes)
    return np.ascontiguousarray(turned.real), np.ascontiguousarray(turned.imag)
