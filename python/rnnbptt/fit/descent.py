"""One descent from one start: the optimiser, when it stops, and what keeps the spectral radius in bounds."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize

from . import levenberg
from .levenberg import Descent
from .stable import StableProblem

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.params import Params
    from .experiments import Real
    from .problem import Problem
    from .starts import Start

#: The penalised spectral radius ends slightly above the bound of the penalty, which is this part below the
#: bound that was asked for.
INSIDE = 1e-5
#: Eigenvalues that are moved to the bound stay this part of it inside: there is room for a descent.
AT_THE_BOUND = 1e-4
#: A bound that is this close, as a part of it, has decided where the descent ended.
NEAR = 1e-3


class Fitted(NamedTuple):
    """What one start led to.

    Attributes
    ----------
    kind : str
    params : Params
    h0 : ndarray, shape (B, h)
    descent : Descent
    validation_loss : float or None
    stopped : bool
        Whether the error on what was held out ended it.
    """

    kind: str
    params: Params
    h0: Real
    descent: Descent
    validation_loss: float | None
    stopped: bool

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
        self.stopped = False
        self.theta: Real | None = None
        self.error = math.inf

    def __call__(self, theta: Real) -> bool:
        """Look at a step; return whether to stop."""
        error = self._problem.held_out_error(theta)
        if error < self.error:
            self.theta, self.error, self._idle = theta.copy(), error, 0
        else:
            self._idle += 1
        self.stopped = self._idle >= self._patience
        return self.stopped


def descend(
    problem: Problem,
    start: Start,
    *,
    solver: str,
    max_iter: int,
    tol: float,
    patience: int | None,
    stable: bool,
) -> Fitted:
    """Minimise from one start.

    Parameters
    ----------
    problem : Problem
    start : Start
    solver : {"lm", "lbfgs"}
    max_iter, tol, stable
        As for `LinearRNNRegressor`.
    patience : int or None
        Steps that may pass without a lesser held-out error; ``None`` to look at none.

    Returns
    -------
    Fitted
    """
    watch = None if patience is None else HeldOut(problem, patience)
    minimise = levenberg.minimise if solver == "lm" else _lbfgs
    run = partial(minimise, tol=tol, stop=watch)
    theta = problem.pack(start.params, start.h0)
    bound = problem.radius
    if stable:
        problem.radius, bound = None, 1.0 if bound is None else bound
        result = _within(problem, theta, bound, run, max_iter, watch)
    else:
        if watch is not None:
            watch(theta)
        if bound is None:
            result = run(problem, theta, max_iter=max_iter)
        else:
            result = _bounded(problem, theta, bound, run, max_iter, watch)
    if watch is not None and watch.theta is not None:
        kept = watch.theta if bound is None else problem.within(watch.theta, bound)
        result = replace(result, theta=kept, loss=problem.loss(kept))
    params, h0 = problem.unpack(result.theta.copy())
    validation_loss = None if watch is None else problem.held_out_error(result.theta)
    stopped = watch is not None and watch.stopped
    return Fitted(start.kind, params, h0, result, validation_loss, stopped)


def _bounded(
    problem: Problem,
    theta: Real,
    bound: float,
    run: Callable[..., Descent],
    max_iter: int,
    watch: HeldOut | None,
) -> Descent:
    """Minimise with a penalty beyond the bound; where half the steps lead to it, go on inside."""
    problem.radius = (1 - INSIDE) * bound
    result = run(problem, theta, max_iter=-(-max_iter // 2))
    inside = problem.spectral_radius(result.theta) <= (1 - NEAR) * bound
    if inside and not result.converged and result.n_iter < max_iter:
        result = _one_after_another(result, run(problem, result.theta, max_iter=max_iter - result.n_iter))
    radius, problem.radius = problem.spectral_radius(result.theta), None
    if radius <= (1 - NEAR) * bound:
        return result
    # The penalty passes through the outside, and may come back at another place than a way inside leads to.
    best = replace(result, loss=problem.loss(result.theta) if radius <= bound else math.inf)
    for origin in (result.theta, theta):
        further = _within(problem, origin, bound, run, (max_iter - result.n_iter) // 2, watch)
        kept = further if further.loss < best.loss else best
        best = replace(
            kept,
            n_iter=best.n_iter + further.n_iter,
            n_evaluations=best.n_evaluations + further.n_evaluations,
        )
    return best


def _within(
    problem: Problem,
    theta: Real,
    bound: float,
    run: Callable[..., Descent],
    max_iter: int,
    watch: HeldOut | None,
) -> Descent:
    """Move eigenvalues within the bound, fit the rest anew, and minimise where none can leave it."""
    moved = theta
    if problem.spectral_radius(theta) > bound:
        # Modes at the same place are one mode: those that were beyond the bound may be better off mirrored.
        room = (1 - AT_THE_BOUND) * bound
        ways = [problem.refitted(problem.within(theta, room, mirror=mirror)) for mirror in (False, True)]
        moved = min(ways, key=problem.loss)
    inside = StableProblem(problem, bound)
    at = inside.pack(*problem.unpack(moved))
    if watch is not None:
        watch(inside.plain(at))
        run = partial(run, stop=lambda tried: watch(inside.plain(tried)))
    result = run(inside, at, max_iter=max_iter)
    return replace(result, theta=inside.plain(result.theta))


def _one_after_another(first: Descent, then: Descent) -> Descent:
    return replace(
        then, n_iter=first.n_iter + then.n_iter, n_evaluations=first.n_evaluations + then.n_evaluations
    )


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
