"""One gradient by `Objective`, by `loss_and_grad` and by the NumPy time loop, side by side on one thread.

Each group is one shape; the ratio of its rows is the figure. Peers from deep-learning frameworks need
processes of their own: `python -m bench` measures those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import rnnbptt
from bench.contenders import Call, Result, numpy_loop
from bench.problems import Problem, Shape, build

SHAPES = [
    Shape(10, 1, 1, 4, 1),
    Shape(100, 1, 1, 4, 1),
    Shape(1000, 1, 4, 16, 2),
    Shape(1000, 1, 8, 64, 8),
    Shape(1000, 1, 8, 64, 8, "f32"),
    Shape(200, 32, 8, 32, 4),
    Shape(50, 32, 64, 128, 64),
]
RELATIVE_ERROR = {"f64": 1e-12, "f32": 1e-4}


def objective(problem: Problem) -> Call:
    params = rnnbptt.Params(problem.W_hx, problem.W_hh, problem.W_qh)
    evaluate = rnnbptt.Objective(problem.x, problem.y, like=params, num_threads=1)

    def call() -> Result:
        loss, gradients = evaluate(params)
        return Result(loss, gradients.W_hx, gradients.W_hh, gradients.W_qh)

    return call


def loss_and_grad(problem: Problem) -> Call:
    params = rnnbptt.Params(problem.W_hx, problem.W_hh, problem.W_qh)

    def call() -> Result:
        loss, gradients = rnnbptt.loss_and_grad(params, problem.x, problem.y, num_threads=1)
        return Result(loss, gradients.W_hx, gradients.W_hh, gradients.W_qh)

    return call


WAYS: dict[str, Callable[[Problem], Call]] = {
    "Objective": objective,
    "loss_and_grad": loss_and_grad,
    "NumPy, textbook loop": numpy_loop.split,
    "NumPy, one call a step": numpy_loop.joined,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient(benchmark: Any, shape: Shape, way: str) -> None:
    problem = build(shape)
    expected = numpy_loop.split(problem.astype("f64"))()
    benchmark.group = f"T,B,d,h,q = {shape}"
    benchmark.name = way
    call = WAYS[way](problem)
    for name, value, wanted in zip(Result._fields, call(), expected, strict=True):
        error = np.linalg.norm(value - wanted) / np.linalg.norm(wanted)
        assert error <= RELATIVE_ERROR[shape.dtype], f"{name} is off by {error:.1e}"
    with threadpool_limits(1):
        benchmark(call)
