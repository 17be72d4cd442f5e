"""Derivatives of residuals, and second derivatives of a loss, by one vector of all parameters.

The gradient of ``sum_t dL/do_t . o'_t``, which is the derivative of the loss along a direction, is the
product of the Hessian with the direction: forward over reverse [1]_. It is taken at the model of states and
tangents (`rnnbptt.engine.tangent_model`), with nothing to be derived by hand.

References
----------
.. [1] B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994), 147-160.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import _validate
from ..engine import summary
from ..engine.losses import LOSSES, Loss, SumOfSquares

if TYPE_CHECKING:
    from .. import _core
    from .._validate import FloatArray
    from ..engine.truncation import Truncation
    from .layout import Layout
    from .problem import Problem


class GaussNewton(NamedTuple):
    """What `Objective.gauss_newton` returns.

    Attributes
    ----------
    loss : float
        L.
    gradient : ndarray, shape (n,)
        dL/dtheta, which is ``J^T r`` where there are residuals r.
    matrix : ndarray, shape (n, n)
        ``J^T J``, symmetric and positive semidefinite: the part of the second derivative of L that stays
        where the outputs are linear in the parameters.
    """

    loss: float
    gradient: FloatArray
    matrix: FloatArray

    def __repr__(self) -> str:
        return summary.text("GaussNewton", self._asdict().items())

    def _repr_html_(self) -> str:
        return summary.table("GaussNewton", self._asdict().items())


class Blocks(NamedTuple):
    """The blocks of a Gauss-Newton matrix of squared errors that are not zero.

    Its columns are in three groups: parameters that the states depend on, of which there are n; what each
    output alone is read out with, m numbers (its row of W_qh, of b_q and of W_qx); and the h of each initial
    state.

    Attributes
    ----------
    states : ndarray, shape (n, n)
        On and above the diagonal; zero below.
    outputs : ndarray, shape (q, m, m + n)
        Of each output: its own block, and its columns beside those of the states.
    starts : ndarray, shape (B, h, q * m + n + h)
        Of each initial state: its columns beside those of all outputs and of the states, and its own block.
        h is 0 where vectors do not hold initial states.
    """

    states: FloatArray
    outputs: FloatArray
    starts: FloatArray


GaussNewton.__module__ = "rnnbptt"  # in a class body it would be one more field


def check_loss(name: str, loss: object, truncate: Truncation | None, *, squares: bool) -> None:
    """Raise where `name` does not exist: of truncated gradients, of a function, or of no sum of squares."""
    if truncate is not None:
        raise ValueError(f"truncate must be None for {name}, which knows whole gradients only")
    if squares and not isinstance(loss, SumOfSquares):
        known = " or ".join(repr(n) for n, some in LOSSES.items() if isinstance(some, SumOfSquares))
        shown = repr(loss.name) if isinstance(loss, Loss) else "a function"
        raise ValueError(f"loss must be {known} for {name}, not {shown}")
    if not isinstance(loss, Loss):
        raise ValueError(
            f"loss must be one of the built-in losses for {name}, not a function: "
            "its second derivative is not known"
        )


class Curvature:
    """What a problem's residuals and second derivatives are at a vector.

    Parameters
    ----------
    problem : Problem
        Of a loss that has a name, not truncated. Products with the Hessian keep to its schedule.
    layout : Layout
        How vectors hold the parameters.
    """

    def __init__(self, problem: Problem, layout: Layout) -> None:
        self._problem, self._layout = problem, layout
        self._tangent: _core.Problem | None = None

    def residuals(self, theta: FloatArray, threads: int) -> FloatArray:
        """Return the residuals: (T B q,)."""
        dataset = self._problem.dataset
        r = dataset.result("r", dataset.shape[2])
        self._problem.posed.residuals(theta, self._layout.terms, dataset.time_major(r), threads)
        return r.reshape(-1)

    def jacobian(self, theta: FloatArray, threads: int) -> FloatArray:
        """Return the derivative of the residuals: (T B q, n)."""
        dataset, layout = self._problem.dataset, self._layout
        J = dataset.result("J", dataset.shape[2] * layout.size)
        posed = self._problem.posed
        posed.jacobian(theta, layout.terms, layout.first, layout.size, dataset.time_major(J), threads)
        return J.reshape(dataset.steps * dataset.batch * dataset.shape[2], layout.size)

    def gauss_newton(self, theta: FloatArray, threads: int) -> FloatArray:
        """Return the Gauss-Newton matrix: (n, n)."""
        layout = self._layout
        matrix = _validate.allocate("matrix", (layout.size, layout.size), layout.like.dtype)
        self._problem.posed.gauss_newton(theta, layout.terms, layout.first, layout.size, matrix, threads)
        return matrix

    def gauss_newton_blocks(self, theta: FloatArray, threads: int) -> Blocks:
        """Return the blocks of the Gauss-Newton matrix of squared errors."""
        layout, dtype = self._layout, self._layout.like.dtype
        q, m = layout.output_columns.shape
        n, h = len(layout.state_columns), 0 if layout.first[-1] < 0 else layout.like.shape[1]
        states = _validate.allocate("states", (n, n), dtype)
        outputs = _validate.allocate("outputs", (q, m, m + n), dtype)
        starts = _validate.allocate("starts", (self._problem.dataset.batch, h, q * m + n + h), dtype)
        self._problem.posed.gauss_newton_blocks(
            theta,
            layout.terms,
            layout.first,
            layout.size,
            states,
            outputs,
            starts if h else None,
            threads,
        )
        return Blocks(states, outputs, starts)

    def hessian_product(self, theta: object, v: object, threads: int) -> FloatArray | None:
        """Return the product of the Hessian at `theta` with `v`; None where one is no vector of its size."""
        if self._tangent is None:
            self._tangent = self._posed_tangent()
        return self._tangent.hessian_product(theta, v, self._layout.terms, threads)

    def _posed_tangent(self) -> _core.Problem:
        """Hand the data over for a model of states and tangents."""
        dataset, loss = self._problem.dataset, self._problem.loss
        assert isinstance(loss, Loss)
        d, h, q = dataset.shape
        start = None  # part of the vector
        if dataset.start is not None and self._layout.start is None:
            start = np.concatenate([dataset.start, np.zeros_like(dataset.start)], axis=-1)
        doubled = dataset.for_model((d, 2 * h, 2 * q), start, tangent=True)
        return doubled.pose(loss, self._problem.targets(), **self._problem.schedule)
