"""rnnbptt: one `Objective`, called with the parameters as an optimiser would."""

from __future__ import annotations

from functools import partial

import numpy as np

import rnnbptt
from bench.contenders import Call, Prepare, Result
from bench.problems import Problem, Shape
from rnnbptt import _core


def version() -> str:
    return f"rnnbptt {rnnbptt.__version__}"


def panel_rate(dtype: str, threads: int) -> float:
    """Rate of the packed panel product on hot data in GF/s."""
    return _core.panel_product_rate(dtype, threads)


def variants(shape: Shape, threads: int) -> dict[str, Prepare]:
    return {"Objective": partial(_objective, threads), "Objective.flat": partial(_flat, threads)}


def _objective(threads: int, problem: Problem) -> Call:
    params = rnnbptt.Params(problem.W_hx, problem.W_hh, problem.W_qh)
    objective = rnnbptt.Objective(problem.x, problem.y, loss="mse", like=params, num_threads=threads)

    def call() -> Result:
        loss, gradients = objective(params)
        return Result(loss, gradients.W_hx, gradients.W_hh, gradients.W_qh)

    return call


def _flat(threads: int, problem: Problem) -> Call:
    """As SciPy's optimisers call it: one vector in, one out."""
    params = rnnbptt.Params(problem.W_hx, problem.W_hh, problem.W_qh)
    objective = rnnbptt.Objective(problem.x, problem.y, loss="mse", like=params, num_threads=threads)
    theta = params.ravel()
    shapes = [array.shape for _, array in params.items()]
    ends = [0, *(int(n) for n in np.cumsum([array.size for _, array in params.items()]))]

    def call() -> Result:
        loss, gradient = objective.flat(theta)
        parts = [gradient[ends[i] : ends[i + 1]].reshape(shapes[i]) for i in range(3)]
        return Result(loss, *parts)

    return call
