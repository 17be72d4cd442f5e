"""One descent from one start: the optimiser, when it stops, and what keeps the spectral radius in bounds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from . import levenberg
from .levenberg import Descent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.params import Params
    from .experiments import Real
    from .problem import Problem

#: The penalised spectral radius ends slightly above the bound of the penalty, which is this part below the
#: bound that was asked for.
INSIDE = 1e-5
#: How often the weight of the penalty is raised, and how much, before eigenvalues are moved instead.
RAISES, RAISE = 3, 100.0


class Fitted(NamedTuple):
    """What one start led to.

    Attributes
    ----------
    kind : str
    params : Params
    h0 : ndarray, shape (B, h)
    descent : Descent
    validation_loss : float or None
    """

    kind: str
    params: Params
    h0: Real
    descent: Descent
    validation_loss: float | None

    @property
    def score(self) -> float:
        """What decides between starts: the error on what was held out, or the loss."""
        score = self.descent.loss if self.validation_loss is None else self.validation_loss
        return score if math.isfinite(score) else math.inf


class HeldOut:
    """Watches the mean squared error of held-out targets, and remembers where it was least.

    Parameters
    ----------
    problem : Problem
    patience : int
        Steps without a lesser error after which to stop.
    """

    def __init__(self, problem: Problem, patience: int) -> None:
        self._problem, self._patience = problem, patience
        self._idle = 0
        self.theta: Real | None = None
        self.error = math.inf

    def __call__(self, theta: Real) -> bool:
        """Look at a step; return whether to stop."""
        error = self._problem.held_out_error(theta)
        if error < self.error:
            self.theta, self.error, self._idle = theta.copy(), error, 0
        else:
            self._idle += 1
        return self._idle >= self._patience


def descend(
    problem: Problem,
    kind: str,
    start: Real,
    *,
    solver: str,
    max_iter: int,
    tol: float,
    patience: int | None,
) -> Fitted:
    """Minimise from one start.

    Parameters
    ----------
    problem : Problem
    kind : str
        Kind of the start, for the summary.
    start : ndarray
        Vector to start from.
    solver : {"lm", "lbfgs"}
    max_iter, tol
        As for `LinearRNNRegressor`.
    patience : int or None
        Steps that may pass without a lesser held-out error; ``None`` to look at none.

    Returns
    -------
    Fitted
    """
    watch = None if patience is None else HeldOut(problem, patience)
    if watch is not None:
        watch(start)
    minimise = levenberg.minimise if solver == "lm" else _lbfgs
    bound = problem.radius
    if bound is not None:
        problem.radius = (1 - INSIDE) * bound
    result = minimise(problem, start, max_iter=max_iter, tol=tol, stop=watch)
    if bound is not None:
        for _ in range(RAISES):
            left = max_iter - result.n_iter
            if problem.spectral_radius(result.theta) <= bound or left <= 0:
                break
            problem.radius_weight *= RAISE
            further = minimise(problem, result.theta, max_iter=left, tol=tol, stop=watch)
            result = replace(
                further,
                n_iter=result.n_iter + further.n_iter,
                n_evaluations=result.n_evaluations + further.n_evaluations,
            )
    theta = result.theta if watch is None or watch.theta is None else watch.theta
    if bound is not None:
        theta = problem.within(theta, bound)
    if theta is not result.theta:
        result = replace(result, theta=theta, loss=problem.loss(theta))
    params, h0 = problem.unpack(theta.copy())
    validation_loss = None if watch is None else problem.held_out_error(theta)
    return Fitted(kind, params, h0, result, validation_loss)


def _lbfgs(
    problem: Problem, theta: Real, *, max_iter: int, tol: float, stop: Callable[[Real], bool] | None
) -> Descent:
    """Minimise by SciPy's L-BFGS."""

    def callback(intermediate_result: Any) -> None:
        if stop is not None and stop(np.array(intermediate_result.x)):
            raise StopIteration

    result = minimize(
        problem.flat,
        theta,
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        # SciPy compares ftol with single steps, and those of L-BFGS are often short.
        options={
            "maxiter": max_iter,
            "maxfun": 2 * max_iter + 10,
            "ftol": tol / 1000,
            "gtol": 1e-12,
            "maxcor": 20,
        },
    )
    return Descent(result.x, float(result.fun), int(result.nit), int(result.nfev), result.status == 0)
