"""Training: SciPy's L-BFGS on `rnnbptt.Objective`, from several random starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize

import rnnbptt

from . import forecasts
from .spectrum import spectral_radius
from .sunspots import HELD_OUT_FROM, VALIDATION_FROM

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sunspots import Array, Sunspots

STARTS = 12
ITERATIONS = 60  # of each start
FINAL_ITERATIONS = 500  # of the best one, on all years before the held-out ones; it converges earlier
TOTAL_ITERATIONS = STARTS * ITERATIONS + FINAL_ITERATIONS
PENALTY = 1e-3  # times the squared norm of all parameters
START_RADIUS = 0.5  # spectral radius of a start: one that forgets within a few years


@dataclass(frozen=True, eq=False)
class Training:
    """A trained network and how it came about.

    Parameters
    ----------
    params : Params
        The network.
    evaluations : int
        Loss-and-gradient evaluations, over all starts.
    unstable : int
        Starts that ended with an eigenvalue of ``W_hh`` on or outside the unit circle.
    """

    params: rnnbptt.Params
    evaluations: int
    unstable: int


class Descent:
    """One run of L-BFGS, which remembers the best stable network on its way.

    A network with an eigenvalue outside the unit circle can fit the years it was trained on, by letting
    something grow slowly through them; in the years after, that growth takes over. So a network counts only
    while every eigenvalue of ``W_hh`` lies inside.

    Parameters
    ----------
    data : Sunspots
    start : Params
        Where to start.
    before : int
        The loss counts the years before this one.
    judge : callable, optional
        Number to minimise over the iterates, a function of the network; the penalised loss when absent.
    """

    def __init__(
        self,
        data: Sunspots,
        start: rnnbptt.Params,
        before: int,
        judge: Callable[[rnnbptt.Params], float] | None = None,
    ) -> None:
        self.objective = objective(data, start, before)
        self.best = start
        self.best_score = math.inf
        self.last = start
        self.evaluations = 0
        self._judge = judge

    def run(self, iterations: int, step: Callable[[], None]) -> Descent:
        """Descend for at most so many iterations; `step` is called after each."""

        def note(intermediate_result: Any) -> None:
            self.last = self.best.unravel(intermediate_result.x.copy())
            score = intermediate_result.fun if self._judge is None else self._judge(self.last)
            if score < self.best_score and spectral_radius(self.last.W_hh) < 1:
                self.best, self.best_score = self.last, score
            step()

        minimize(
            self.penalised,
            self.best.ravel(),
            jac=True,
            method="L-BFGS-B",
            callback=note,
            options={"maxiter": iterations, "ftol": 1e-12},
        )
        return self

    def penalised(self, theta: Array) -> tuple[float, Array]:
        """Evaluate the loss plus ``PENALTY ||theta||^2``, and its gradient."""
        self.evaluations += 1
        loss, gradient = self.objective.flat(theta)
        return loss + PENALTY * float(theta @ theta), gradient + 2 * PENALTY * theta


def objective(data: Sunspots, like: rnnbptt.Params, before: int) -> rnnbptt.Objective:
    """Return the mean square error of forecasting the years before `before`."""
    steps = data.steps_before(before)
    return rnnbptt.Objective(
        data.x[:steps],
        data.y[:steps],
        like=like,
        weights=data.weights(before),
        num_threads=1,  # a few microseconds of work each
    )


def random_start(hidden: int, seed: int, number: int) -> rnnbptt.Params:
    """Return the start of this number."""
    rng = np.random.default_rng([seed, number])
    return rnnbptt.Params.random(1, hidden, 1, spectral_radius=START_RADIUS, biases=True, rng=rng)


def train(data: Sunspots, hidden: int, seed: int, step: Callable[[int], None]) -> Training:
    """Train a linear RNN with biases to forecast the next year.

    Each random start is trained on the years before validation and keeps the iterate with the least error on
    the validation years; the best of them goes on to be trained on both.

    Parameters
    ----------
    data : Sunspots
    hidden : int
        Size of the hidden state.
    seed : int
        Seed of the random starts. The result depends on nothing else.
    step : callable
        Told how many of `TOTAL_ITERATIONS` are over, counting those that convergence made superfluous.
    """

    def validation_error(params: rnnbptt.Params) -> float:
        with np.errstate(all="ignore"):  # an unstable network may overflow; it will not be chosen
            forecast = forecasts.network(params, data)
            return data.error(forecast, VALIDATION_FROM, HELD_OUT_FROM - 1)

    descents = []
    for number in range(STARTS):
        descent = Descent(data, random_start(hidden, seed, number), VALIDATION_FROM, validation_error)
        done = number * ITERATIONS
        descents.append(descent.run(ITERATIONS, _counter(step, done)))
        step(done + ITERATIONS)
    best = min(descents, key=lambda descent: descent.best_score)
    final = Descent(data, best.best, HELD_OUT_FROM)
    final.run(FINAL_ITERATIONS, _counter(step, STARTS * ITERATIONS))
    step(TOTAL_ITERATIONS)
    return Training(
        final.best,
        evaluations=sum(descent.evaluations for descent in [*descents, final]),
        unstable=sum(spectral_radius(descent.last.W_hh) >= 1 for descent in descents),
    )


def _counter(step: Callable[[int], None], done: int) -> Callable[[], None]:
    def count() -> None:
        nonlocal done
        done += 1
        step(done)

    return count
