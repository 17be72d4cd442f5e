"""Normal equations of a fit in blocks: steps whose cost grows linearly with experiments, or with outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
from scipy.linalg import lapack, solve_triangular

from .. import _validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..gradients.curvature import Blocks
    from .experiments import Real

#: Multiply-adds that the calls of an elimination cost beside its own.
CALLS = 300_000
#: Numbers beside blocks that are eliminated at a time: some milliseconds, after which a signal is seen.
AT_A_TIME = 1 << 20
#: Rows of a dense matrix that are decomposed at a time, for the same reason.
PANEL = 384


Eliminated = Literal["starts", "outputs", "nothing"]
#: What is eliminated, and how many parameters are left.
Choice: TypeAlias = tuple[Eliminated, int]


class Columns(NamedTuple):
    """Where vectors of all parameters hold what.

    Attributes
    ----------
    outputs : ndarray of int, shape (q, m)
        What each output alone is read out with.
    states : ndarray of int, shape (n,)
        What the states depend on.
    starts : ndarray of int, shape (B, h)
        The initial states; h is 0 where there are none.
    """

    outputs: NDArray[np.int64]
    states: NDArray[np.int64]
    starts: NDArray[np.int64]


def least_work(outputs: tuple[int, int], states: tuple[int], starts: tuple[int, int]) -> Choice:
    """Choose by the shapes of `Columns` what to eliminate, and return how many parameters are left."""
    (q, m), (n,), (B, h) = outputs, states, starts
    choices: list[tuple[Choice, int, int]] = [
        (("starts", n + q * m), B, h),
        (("outputs", n + B * h), q, m),
        (("nothing", n + q * m + B * h), 0, 0),
    ]

    def work(choice: tuple[Choice, int, int]) -> float:
        (_, rest), blocks, size = choice
        return float(blocks * size * rest * (rest + size) + rest**3 / 3 + CALLS * (blocks > 0))

    return min(choices, key=work)[0]


def check_memory(outputs: tuple[int, int], states: tuple[int], starts: tuple[int, int]) -> None:
    """Raise a MemoryError where the largest arrays of normal equations cannot be had."""
    (q, m), (n,), (B, h) = outputs, states, starts
    _, rest = least_work(outputs, states, starts)
    for shape in ((rest, rest), (q, m, m + n), (B, h, q * m + n + h)):
        _validate.allocate("the Gauss-Newton matrix of solver='lm'", shape, np.dtype(np.float64))


class NormalEquations:
    r"""``J^T J`` and the gradient of a sum of squares over the outputs of a network.

    An initial state matters to its own experiment alone, and what an output is read out with to that output
    alone. Either group is a block diagonal D beside the rest,

    .. math::

        \begin{pmatrix} D & E \\ E^\top & F \end{pmatrix} \begin{pmatrix} u \\ v \end{pmatrix}
        = \begin{pmatrix} a \\ b \end{pmatrix}, \qquad
        (F - E^\top D^{-1} E) \, v = b - E^\top D^{-1} a, \qquad u = D^{-1} (a - E v)

    and is eliminated block by block, by Cholesky's decomposition: the decomposition of the whole matrix in
    an order in which nothing fills in, and as stable. Which group is, or none, is what takes the least work.

    Parameters
    ----------
    blocks : Blocks
    gradient : ndarray, shape (p,)
    columns : Columns
        Where vectors hold the parameters.
    eliminated : {"starts", "outputs", "nothing"}, optional
        The group that is eliminated.
    """

    def __init__(
        self, blocks: Blocks, gradient: Real, columns: Columns, eliminated: Eliminated | None = None
    ) -> None:
        self.gradient, self._columns = gradient, columns
        self._states, self._outputs, self._starts = blocks
        # Numbers that outputs are read out with, other parameters, initial states.
        self._sizes = columns.outputs.size, len(columns.states), columns.starts.size
        self._eliminated = eliminated or least_work(*(part.shape for part in columns))[0]

    def add_ridge(self, alpha: float) -> None:
        """Add `alpha` to the diagonal of all parameters but the initial states."""
        _diagonal(self._states)[...] += alpha
        _diagonal(self._outputs[:, :, : self._columns.outputs.shape[1]])[...] += alpha

    def add_to_states(self, where: slice, matrix: Real) -> None:
        """Add a symmetric matrix to the block of parameters that states depend on."""
        self._states[where, where] += matrix

    def change_states(self, where: slice, pull: Callable[[Real], Real]) -> None:
        """Have derivatives by some parameters that states depend on be those by other coordinates.

        `pull`, which is linear, turns derivatives by these parameters, along the last axis, into the others.
        """
        outputs, states, starts = self._outputs, self._states, self._starts
        first, m = self._sizes[0], self._columns.outputs.shape[1]
        parts = (
            self.gradient[where],
            states[:, where],
            states.T[:, where],
            outputs[:, :, m + where.start : m + where.stop],
            starts[:, :, first + where.start : first + where.stop],
        )
        for part in parts:
            part[...] = pull(part)

    @property
    def largest(self) -> float:
        """The largest element of the diagonal."""
        outputs = self._outputs[:, :, : self._columns.outputs.shape[1]]
        parts = (self._states, outputs, self._starts[:, :, sum(self._sizes[:2]) :])
        return max(float(_diagonal(part).max(initial=0.0)) for part in parts)

    def step(self, added: float) -> Real | None:
        """Solve ``(J^T J + added I) p = -gradient``.

        Parameters
        ----------
        added : float

        Returns
        -------
        ndarray, shape (p,), or None
            ``None`` where the matrix is not positive definite to working precision.
        """
        order, D, E, F = self._arranged(self._eliminated)
        with np.errstate(all="ignore"):
            found = _solve(D, E, F, -self.gradient[order], added)
        if found is None:
            return None
        result = np.empty_like(found)
        result[order] = found
        return result

    def dense(self) -> Real:
        """Return the whole of ``J^T J``, in the order of vectors."""
        order, _, _, F = self._arranged("nothing")
        upper = np.triu(F)
        result = np.empty_like(upper)
        result[np.ix_(order, order)] = upper + np.triu(upper, 1).T
        return result

    def _arranged(self, eliminated: Eliminated) -> tuple[NDArray[np.int64], Real, list[Real], Real]:
        """Return D (K, m, m), E (K, m, n) in parts and F (n, n), and before them the order of all.

        D and F are new arrays, of which the upper part counts.
        """
        outputs, states, starts = self._sizes
        both, whole = outputs + states, outputs + states + starts
        first, second, third = (part.ravel() for part in self._columns)
        if eliminated == "starts":
            order = np.concatenate([third, first, second])
            return order, self._starts[:, :, both:].copy(), [self._starts[:, :, :both]], self._corner(0, both)
        order = np.concatenate([first, second, third])
        if eliminated == "outputs":
            _, m, _ = self._outputs.shape
            crossed = self._starts[:, :, :outputs].reshape(starts, -1, m).transpose(1, 2, 0)
            E = [self._outputs[:, :, m:], crossed]
            return order, self._outputs[:, :, :m].copy(), E, self._corner(outputs, whole)
        return order, np.empty((0, 0, 0)), [], self._corner(0, whole)

    def _corner(self, begin: int, end: int) -> Real:
        """Return a part of the whole matrix on its diagonal, with the groups in order; the upper part."""
        outputs, states, _ = self._sizes
        both = outputs + states
        result = np.zeros((end - begin, end - begin))
        at = both - begin  # where the states end
        if begin == 0:
            q, m, _ = self._outputs.shape
            result[:outputs, outputs:both] = self._outputs[:, :, m:].reshape(outputs, states)
            _blocks(result[:outputs, :outputs], q, m)[...] = self._outputs[:, :, :m]
        result[at - states : at, at - states : at] = self._states
        if end > both:
            B, h, _ = self._starts.shape
            result[:at, at:] = self._starts[:, :, begin:both].reshape(B * h, at).T
            _blocks(result[at:, at:], B, h)[...] = self._starts[:, :, both:]
        return result


def _solve(D: Real, E: list[Real], F: Real, right: Real, added: float) -> Real | None:
    """Solve the equations, with `added` on the diagonal, for right sides in the order of D and F.

    D and F are overwritten.
    """
    (K, m, _), n = D.shape, len(F)
    a, b = right[: K * m].reshape(K, m, 1), right[K * m :]
    _diagonal(D)[...] += added
    _diagonal(F)[...] += added
    count = max(1, AT_A_TIME // max(1, m * (m + n)))
    kept = []
    for first in range(0, K, count):
        part = slice(first, first + count)
        try:
            L = np.linalg.cholesky(D[part])
        except np.linalg.LinAlgError:
            return None
        # L^-1 (E, a), row by row of all blocks at once.
        Z = np.concatenate([*(e[part] for e in E), a[part]], axis=2)
        for i in range(m):
            Z[:, i] -= np.einsum("kj,kjn->kn", L[:, i, :i], Z[:, :i])
            Z[:, i] /= L[:, i, i, np.newaxis]
        rows = Z.reshape(-1, n + 1)
        product = rows[:, :n].T @ rows
        F -= product[:, :n]
        b = b - product[:, n]
        kept.append((L, Z))
    v = _solve_dense(F, b)
    if v is None:
        return None
    solved = []
    for L, Z in kept:
        u = Z[:, :, n] - Z[:, :, :n] @ v
        for i in reversed(range(m)):
            u[:, i] -= np.einsum("kj,kj->k", L[:, i + 1 :, i], u[:, i + 1 :])
            u[:, i] /= L[:, i, i]
        solved.append(u.ravel())
    return np.concatenate([*solved, v])


def _solve_dense(F: Real, b: Real) -> Real | None:
    """Solve ``F v = b`` by Cholesky's decomposition, in panels between which a signal is seen.

    The upper part of F counts, and is overwritten.
    """
    n = len(F)
    for first in range(0, n, PANEL):
        last = first + PANEL
        own, singular = lapack.dpotrf(F[first:last, first:last])
        if singular != 0:
            return None
        F[first:last, first:last] = own
        if last < n:
            F[first:last, last:] = solve_triangular(own, F[first:last, last:], trans=1, check_finite=False)
        for row in range(last, n, PANEL):
            rows = slice(row, row + PANEL)
            F[rows, row:] -= F[first:last, rows].T @ F[first:last, row:]
    # The transpose is laid out as LAPACK reads it.
    v: Real = lapack.dpotrs(F.T, b, lower=1)[0]
    return v


def _diagonal(matrices: Real) -> Real:
    """Return a view of the diagonals of matrices (..., n, n)."""
    result: Real = np.einsum("...ii->...i", matrices)
    return result


def _blocks(matrix: Real, K: int, m: int) -> Real:
    """Return a view of the K blocks (m, m) on the diagonal of a matrix."""
    result: Real = np.einsum("kikj->kij", matrix.reshape(K, m, K, m))
    return result
