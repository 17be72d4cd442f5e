"""The correlation of two sequences of vectors over many lags, as accurate as direct sums and much faster."""

from __future__ import annotations

import numpy as np

from .scaled import Real, Scaled, normalised, raw_if_tame

#: Scalars of a product of two blocks of time.
_AT_ONCE = 2**21
#: Size of the terms of a lag, against the norms, above which transforms are as accurate as direct sums.
_NOT_MUCH_LESS = 1 / 16


def correlate(a: Scaled, b: Real, count: int) -> Scaled:
    """Return ``R_k = sum_t a_{t+k} b_t^T``, summed over the batch, for k below `count`: (count, q, m).

    By transforms of blocks, whose rounding errors are of the size of ``||a|| ||b||``, for the lags at which
    ``sum_t ||a_{t+k}|| ||b_t||`` is not much less; the other lags, such as those of a single pulse, by direct
    sums, with errors of that size.
    """
    (T, _, q), m = a.mantissa.shape, b.shape[2]
    result = np.zeros((count, q, m))
    exponent = np.zeros((count, q), np.int64)
    shift = 0
    if not raw_if_tame(b).raw:
        shift = int(np.frexp(np.abs(b).max())[1])
        b = np.ldexp(b, -shift)
    first = 0
    if a.raw:
        transformed, first = _by_transforms(a.mantissa, b, min(count, T))
        result[:first], exponent[:first] = transformed[:first], shift
    fold = 8
    while fold < 256 and (2 * fold) ** 2 * 5 * q * m <= _AT_ONCE:
        fold *= 2
    group = 4 * fold if a.raw else fold
    for start in range(first, min(count, T), group):
        some = slice(start, min(start + group, count, T))
        # Only steps from here on matter, and steps far smaller than the largest of them do not.
        tail = Scaled(a.mantissa[start:], a.exponent[start:])
        top = tail.exponent.max()
        rows = tail.at(np.broadcast_to(top, tail.exponent.shape))
        result[some] = _by_products(rows, b[: T - start], some.stop - start, fold)
        exponent[some] = top + shift
    return normalised(result, exponent)


def _by_transforms(a: Real, b: Real, count: int) -> tuple[Real, int]:
    """Return R_k for k below `count`, and up to which lag its rounding errors do not matter."""
    (T, B, q), m = a.shape, b.shape[2]
    length = max(4096, 2 ** (2 * count - 1).bit_length())
    step = length - count + 1
    blocks = -(-T // step)
    # Lengths of rows as one more series: their correlation says how large the terms of a lag are.
    sizes = [np.sqrt(np.vecdot(rows, rows))[..., np.newaxis] for rows in (a, b)]
    later = np.zeros((q + 1, B, blocks * step + length))
    later[:, :, :T] = np.concatenate([a, sizes[0]], axis=2).transpose(2, 1, 0)
    earlier = np.zeros((m + 1, B, blocks * step))
    earlier[:, :, :T] = np.concatenate([b, sizes[1]], axis=2).transpose(2, 1, 0)
    seen = np.lib.stride_tricks.sliding_window_view(later, length, axis=2)[:, :, : blocks * step : step]
    A = np.fft.rfft(seen)
    C = np.conj(np.fft.rfft(earlier.reshape(m + 1, B, blocks, step), length))

    def correlation(i: int, j: int) -> Real:
        lags: Real = np.fft.irfft(np.add.reduce(A[i] * C[j], axis=(0, 1)), length)[:count]
        return lags

    result = np.empty((count, q, m))
    for i in range(q):
        for j in range(m):
            result[:, i, j] = correlation(i, j)
    terms = correlation(q, m)
    largest = np.sqrt(np.sum(a * a) * np.sum(b * b))
    small = np.flatnonzero(terms < _NOT_MUCH_LESS * largest)
    return result, int(small[0]) if small.size else count


def _by_products(a: Real, b: Real, count: int, fold: int) -> Real:
    """Return ``sum_t a_{t+k} b_t^T`` for k below `count`, by blocks of `fold` steps."""
    (T, B, q), m = a.shape, b.shape[2]
    blocks = -(-T // fold)
    left = np.zeros((B, blocks * fold, q))
    left[:, :T] = a.swapaxes(0, 1)
    right = np.zeros((B, count - 1 + blocks * fold, m))
    right[:, count - 1 : count - 1 + T] = b.swapaxes(0, 1)
    wide = count - 1 + fold
    s = right.strides
    seen = np.lib.stride_tricks.as_strided(
        right, (B, blocks, wide * m), (s[0], fold * s[1], s[2]), writeable=False
    )
    product = left.reshape(B * blocks, fold * q).T @ seen.reshape(B * blocks, wide * m)
    # Entry (j, l) of a block is lag j + count - 1 - l.
    product = product.reshape(fold, q, wide, m)
    s = product.strides
    diagonals = np.lib.stride_tricks.as_strided(
        product, (fold, count, q, m), (s[0] + s[2], s[2], s[1], s[3]), writeable=False
    )
    sums: Real = diagonals.sum(axis=0)[::-1]
    return sums
