"""Decompositions of tall matrices in blocks of rows: Ctrl-C is heard in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .experiments import Real

#: Multiply-adds, as rows times columns squared, of a block.
_AT_ONCE = 2**26


def least_squares(rows: Real, targets: Real) -> Real:
    r"""Return the shortest x with the least :math:`\|A x - b\|_2`, as `numpy.linalg.lstsq` does.

    Parameters
    ----------
    rows : ndarray, shape (n, p)
        A.
    targets : ndarray, shape (n,) or (n, m)
        b.

    Returns
    -------
    ndarray, shape (p,) or (p, m)
    """
    n, p = rows.shape
    cutoff = float(np.finfo(np.float64).eps) * max(n, p)
    R = triangle(rows, targets.reshape(n, -1))
    solution: Real = np.linalg.lstsq(R[:, :p], R[:, p:], rcond=cutoff)[0]
    return solution.reshape(p, *targets.shape[1:])


def triangle(*sides: Real) -> Real:
    """Return R of the QR decomposition of matrices side by side, or where that is no larger, these.

    R has their lengths, angles and singular values, in no more rows than columns.
    """
    n, width = len(sides[0]), sum(side.shape[1] for side in sides)
    step = max(width, _AT_ONCE // width**2)
    R = np.empty((0, width))
    for start in range(0, n, step):
        block = np.concatenate([side[start : start + step] for side in sides], axis=1)
        R = np.concatenate([R, block])
        if len(R) > width:
            R = np.asarray(np.linalg.qr(R, mode="r"))
    return R
