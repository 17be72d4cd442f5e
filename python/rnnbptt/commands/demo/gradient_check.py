"""The gradient of the demo's own problem, compared with `rnnbptt.reference` in value and in time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

import rnnbptt
from rnnbptt.reference.gradients import Method

from .sunspots import HELD_OUT_FROM
from .training import objective, random_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from .sunspots import Sunspots

REPEATS = 9


@dataclass(frozen=True)
class GradientCheck:
    """How a gradient compares with plain NumPy's.

    Parameters
    ----------
    steps : int
        Years the gradient runs through.
    errors : dict
        Norm of the difference over the norm of the gradient, for each form of the reference.
    seconds, reference_seconds : float
        Medians of one gradient.
    """

    steps: int
    errors: dict[str, float]
    seconds: float
    reference_seconds: float


def check(data: Sunspots, hidden: int, seed: int) -> GradientCheck:
    """Compare gradient and time on the problem the network was trained on.

    At the first random start, not at the end of training: there the gradient is a small difference of large
    terms, and a relative difference would say more about that cancellation than about anyone's arithmetic.
    """
    params = random_start(hidden, seed, 0)
    steps = data.steps_before(HELD_OUT_FROM)
    fast = objective(data, params, HELD_OUT_FROM)
    theta = params.ravel()

    def reference(method: Any = "recursion") -> tuple[float, rnnbptt.Gradients]:
        return rnnbptt.reference.loss_and_grad(
            params, data.x[:steps], data.y[:steps], weights=data.weights(HELD_OUT_FROM), method=method
        )

    gradient = fast.flat(theta)[1]
    errors = {}
    for method in get_args(Method):
        expected = reference(method)[1].ravel()
        errors[method] = float(np.linalg.norm(gradient - expected) / np.linalg.norm(expected))
    return GradientCheck(
        steps, errors, _median_seconds(lambda: fast.flat(theta), 200), _median_seconds(reference, 3)
    )


def _median_seconds(call: Callable[[], object], calls: int) -> float:
    """Return the median over `REPEATS` of the mean time of so many calls."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls)
    return float(np.median(times))
