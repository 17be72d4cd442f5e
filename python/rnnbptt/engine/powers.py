"""Powers of a matrix, and how they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _core, _validate
from .floating_point import quiet

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._validate import FloatArray

_MATRIX_POWERS = {np.dtype(np.float32): _core.matrix_powers32, np.dtype(np.float64): _core.matrix_powers64}

Order = Literal[2, "fro", 1] | float
#: Bits, relative to the Frobenius norm over h, that make every norm right to 2^-34.
_BITS = 35
#: Bits of a float64.
FLOAT64_BITS = 53
#: Scalars of powers held at a time.
_AT_ONCE = 2**22
#: Multiply-adds, as h^3, of what NumPy decomposes at a time: in between, Ctrl-C is heard.
_DECOMPOSED_AT_ONCE = 2**22


@quiet
def matrix_powers(
    W: ArrayLike, n: int, *, num_threads: int | None = None, out: NDArray[Any] | None = None
) -> FloatArray:
    """Return the powers ``W^0, W^1, ..., W^n``, each from the one before.

    Parameters
    ----------
    W : array_like, shape (h, h)
        A square matrix; its dtype is the dtype of the result.
    n : int
        The largest exponent, at least 0.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.
    out : ndarray, optional
        C-contiguous array of the shape and dtype of the result to write to.

    Returns
    -------
    ndarray, shape (n + 1, h, h)
        Entry k is W^k. Entries beyond the range of the dtype overflow to inf or underflow to 0: for norms
        of high powers use `power_norms`, which does neither.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    MemoryError
        If the result cannot be allocated; the message names the bytes.
    """
    matrix = _validate.square("W", W)
    h = matrix.shape[0]
    n = _validate.integer("n", n, 0)
    threads = _validate.num_threads(num_threads)
    powers = _validate.out("out", out, matrix.dtype, (n + 1, h, h), [matrix])
    _MATRIX_POWERS[matrix.dtype](h, n, matrix, powers, threads)
    return powers


@quiet
def power_norms(
    W: ArrayLike,
    ks: ArrayLike,
    ord: Order = 2,  # noqa: A002 - the name numpy.linalg.norm gives it
    *,
    num_threads: int | None = None,
) -> NDArray[np.float64]:
    r"""Return ``log2 ||W^k||`` for any exponents k, however far the power is out of range.

    Powers are carried as a mantissa times a power of two: nothing overflows or underflows. Norms are right to
    1e-10 or better, whatever the powers do on the way (see Notes).

    Parameters
    ----------
    W : array_like, shape (h, h)
        A square matrix.
    ks : array_like of int
        Exponents from 0 to 2^62, in any order and shape.
    ord : {2, "fro", 1, numpy.inf}
        Spectral norm, Frobenius norm, largest column sum or largest row sum.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.

    Returns
    -------
    ndarray of float64, shape of `ks`
        Base-2 logarithms: -inf where the power is zero, nan where `W` is not finite.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Notes
    -----
    Every power is a product of two others, down to the squares of squares of ``W``, and a bound of its error
    is computed with it: for the errors E and F of A and B,

    .. math::

        \|(A + E)(B + F) - A B\|_F \;\le\; \|A\|_2 \|F\|_F + \|E\|_F \|B\|_2 + \|E\|_F \|F\|_F ,

    plus what the product itself cuts off. Where powers grow by many orders of magnitude and then decay far
    below that peak, as those of a large Jordan block in a rotated basis do, this amplifies errors by more
    than any fixed precision holds. So powers have as many digits as it takes, some 80 bits to begin with, up
    to 900: as long as the bound exceeds 2^-35 / h of the norm, the power is computed again with more.

    Guaranteed is, for every k, order and matrix, an error below 1e-10 of the base-2 logarithm, relative where
    that exceeds 1 and absolute otherwise; in practice it is some 1e-15. The exception are powers so far below
    the factors they are products of, by 2^-800 or so, that 900 bits cannot certify them; these are given as
    computed. That takes a transient growth of hundreds of orders of magnitude. A power is zero, with
    logarithm -inf, where the nonzeros of ``W`` or exact digits show it, or where 900 bits show nothing else.

    The first thousand powers cost little more than a thousand products of (h, h) matrices for all but such
    transients. For ``ord=2`` their singular values cost several times as much. Ctrl-C is heard between any
    few of them; the singular values of one matrix take NumPy 0.25 s for h = 1000, and some ten times as long
    for twice the h.

    References
    ----------
    K. Ozaki et al., "Error-free transformations of matrix multiplication by using fast routines of matrix
    multiplication and its applications", Numer. Algorithms 59 (2012): products of slices that no
    rounding touches, of which the digits here are an instance.

    Examples
    --------
    >>> import rnnbptt
    >>> rnnbptt.power_norms([[0.5, 0.0], [0.0, 2.0]], [0, 1, 10**9]).tolist()
    [0.0, 1.0, 1000000000.0]
    """
    matrix = _validate.square("W", W).astype(np.float64)
    h = matrix.shape[0]
    exponents = _validate.integers("ks", ks, 0, 2**62)
    if isinstance(ord, str):
        _validate.choice("ord", ord, ("fro",))
    elif _validate.real("ord", ord) not in (1, 2, np.inf):
        raise ValueError(f"ord must be 2, 'fro', 1 or inf, not {ord!r}")
    threads = _validate.num_threads(num_threads)
    result = np.full(exponents.shape, np.nan)
    if not np.isfinite(matrix).all():
        return result
    distinct, where = np.unique(exponents, return_inverse=True)
    logs = np.empty(distinct.shape)
    step = max(1, _AT_ONCE // (h * h))
    for start in range(0, len(distinct), step):
        some = distinct[start : start + step]
        mantissas, scales = np.empty((len(some), h, h)), np.empty(len(some))
        _core.scaled_powers(h, matrix, some, mantissas, scales, threads, _BITS)
        logs[start : start + step] = np.log2(_norms(mantissas, ord)) + scales
    result[...] = logs[where].reshape(exponents.shape)
    return result


def _norms(matrices: NDArray[np.float64], ord: Order) -> NDArray[np.float64]:  # noqa: A002 - as above
    """Return the norms of matrices, (n, h, h), some of them at a time."""
    count, h, _ = matrices.shape
    step = max(1, _DECOMPOSED_AT_ONCE // h**3)
    norms = np.empty(count)
    for start in range(0, count, step):
        some = slice(start, start + step)
        norms[some] = np.linalg.norm(matrices[some], ord, axis=(1, 2))
    return norms
