"""The structure of a fit's least squares: blocks, their elimination, and how cost grows."""

from __future__ import annotations

import time
import tracemalloc
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import rnnbptt
from response import ANSWER_TO_CTRL_C, answer_to_ctrl_c
from rnnbptt.fit import LinearRNNRegressor
from rnnbptt.fit.experiments import Experiments
from rnnbptt.fit.normal_equations import PANEL, Eliminated, NormalEquations, _solve_dense, check_memory
from rnnbptt.fit.problem import Problem
from rnnbptt.gradients.curvature import Blocks
from speed import slow, thinned

Array = np.ndarray[Any, np.dtype[np.float64]]

#: Backward error of a solution: a few units of rounding.
BACKWARD = 1e-15


def drawn(
    B: int,
    T: int,
    sizes: tuple[int, int, int],
    *,
    missing: float = 0.0,
    fit_h0: bool = True,
    terms: bool = True,
    seed: int = 0,
    params: rnnbptt.Params | None = None,
) -> tuple[Problem, Array]:
    """Return a problem of B experiments of at most T rows, and a vector to look at it from."""
    rng = np.random.default_rng(seed)
    d, h, q = sizes
    lengths = rng.integers(max(1, T // 2), T + 1, B)
    lengths[0] = T
    X, y = rng.standard_normal((lengths.sum(), d)), rng.standard_normal((lengths.sum(), q))
    y[rng.random(y.shape) < missing] = np.nan
    if params is None:
        params = rnnbptt.Params.random(d, h, q, spectral_radius=0.95, biases=terms, direct=terms, rng=rng)
    problem = Problem(params, Experiments.of(X, y, lengths), fit_h0=fit_h0, num_threads=1)
    return problem, problem.pack(params, rng.standard_normal((B, h)))


def redundant(d: int, h: int, q: int) -> rnnbptt.Params:
    """Return a network whose last state does what the first one does, and is hardly read."""
    drawn = rnnbptt.Params.random(d, h, q, spectral_radius=0.95, biases=True, direct=True, rng=1)
    W_hh, W_qh = drawn.W_hh.copy(), drawn.W_qh.copy()
    W_hh[-1] = W_hh[0] + 1e-9 * W_hh[-1]
    W_qh[:, -1] = 1e-8 * W_qh[:, 0]
    return rnnbptt.Params(drawn.W_hx, W_hh, W_qh, drawn.b_h, drawn.b_q, drawn.W_qx)


# --- blocks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fit_h0", "terms"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(
    "shape", [(7, 6, (2, 3, 4)), (1, 30, (1, 2, 1)), (300, 4, (1, 2, 2)), (1, 3000, (3, 12, 5))]
)
def test_blocks_are_those_of_the_jacobian(shape: Any, missing: float, fit_h0: bool, terms: bool) -> None:
    problem, theta = drawn(*shape, missing=missing, fit_h0=fit_h0, terms=terms)
    J = problem._objective.jac(theta)
    expected = J.T @ J
    matrix = problem.normal_equations(theta).dense()
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    # What blocks leave out is zero: a bound on each entry by its own size.
    sizes = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert (np.abs(matrix - expected) <= 1e-11 * sizes).all()
    np.testing.assert_array_equal(matrix, problem._objective.gauss_newton(theta).matrix)


# --- elimination --------------------------------------------------------------------------------------------


def exact_step(matrix: Array, gradient: Array) -> Any:
    """Solve ``matrix p = -gradient`` by Cholesky's decomposition in extended precision."""
    L = np.tril(matrix).astype(np.longdouble)
    p = -gradient.astype(np.longdouble)
    n = len(p)
    for j in range(n):
        L[j, j] = np.sqrt(L[j, j])
        L[j + 1 :, j] /= L[j, j]
        L[j + 1 :, j + 1 :] -= np.tril(np.outer(L[j + 1 :, j], L[j + 1 :, j]))
        p[j] = (p[j] - L[j, :j] @ p[:j]) / L[j, j]
    for i in reversed(range(n)):
        p[i] = (p[i] - L[i + 1 :, i] @ p[i + 1 :]) / L[i, i]
    return p


@pytest.mark.parametrize(
    ("shape", "ill", "damping", "eliminated"),
    thinned(
        product(
            [(25, 7, (2, 2, 3)), (3, 60, (2, 6, 5))],
            [False, True],
            [1e-14, 1e-11, 1e-6, 1e-2],
            get_args(Eliminated),
        ),
        every=5,
    ),
)
def test_elimination_is_as_accurate_as_the_dense_decomposition(
    shape: Any, ill: bool, damping: float, eliminated: Eliminated
) -> None:
    B, T, sizes = shape
    problem, theta = drawn(B, T, sizes, missing=0.2, params=redundant(*sizes) if ill else None)
    equations = problem.normal_equations(theta)
    added = damping * equations.largest
    matrix = equations.dense() + added * np.eye(len(theta))
    blocks = Blocks(equations._states, equations._outputs, equations._starts)
    step = NormalEquations(blocks, equations.gradient, equations._columns, eliminated).step(added)
    assert step is not None
    # Backward: it solves equations that differ by rounding.
    size = np.linalg.norm(matrix, 2) * np.linalg.norm(step)
    residual = matrix.astype(np.longdouble) @ step + equations.gradient
    assert np.linalg.norm(residual.astype(float)) <= BACKWARD * size
    # Forward: not farther from the solution than LAPACK on the whole matrix, but for luck.
    exact = exact_step(matrix, equations.gradient)
    dense = np.linalg.solve(matrix, -equations.gradient)

    def error(p: Any) -> float:
        return float(np.linalg.norm((p - exact).astype(float)) / np.linalg.norm(exact.astype(float)))

    assert error(step) <= 10 * error(dense) + 1e-13


def test_steps_with_penalties_are_those_of_the_dense_matrix() -> None:
    for B, q in ((100, 2), (1, 40)):
        problem, theta = drawn(B, 12, (1, 2, q))
        problem.ridge, problem.radius = 0.1, 0.3
        equations = problem.normal_equations(theta)
        assert equations._eliminated == ("starts" if B > 1 else "outputs")
        added = 1e-3 * equations.largest
        step = equations.step(added)
        assert step is not None
        expected: Any = np.linalg.solve(equations.dense() + added * np.eye(len(theta)), -equations.gradient)
        np.testing.assert_allclose(step, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
        assert equations.largest == np.diag(equations.dense()).max()


def test_a_matrix_that_is_not_positive_definite_is_told() -> None:
    for B, q in ((100, 2), (1, 60), (1, 1)):
        problem, theta = drawn(B, 10, (1, 2, q))
        equations = problem.normal_equations(theta)
        assert equations.step(-2 * equations.largest) is None


def test_dense_matrices_are_decomposed_in_panels() -> None:
    n = 2 * PANEL + 17
    A = np.random.default_rng(0).standard_normal((n, n + 9))
    A, b = A @ A.T + np.eye(n), np.ones(n)
    solution = _solve_dense(np.triu(A), b)
    assert solution is not None
    assert np.linalg.norm(A @ solution - b) <= BACKWARD * np.linalg.norm(A) * np.linalg.norm(solution)
    A[-1, -1] = 0
    assert _solve_dense(A, b) is None


# --- cost ---------------------------------------------------------------------------------------------------


def step_of(problem: Problem, theta: Array) -> None:
    equations = problem.normal_equations(theta)
    step = equations.step(1e-3)
    assert step is not None
    problem.loss(theta + 1e-9 * step)


def memory(problem: Problem, theta: Array) -> int:
    """Return the most bytes of arrays that a step takes."""
    step_of(problem, theta)
    tracemalloc.start()
    step_of(problem, theta)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


#: (B, T, (d, h, q)), and what four times as much of it is.
GROWTH = {
    "experiments": ((250, 7, (2, 2, 3)), (1000, 7, (2, 2, 3))),
    "outputs": ((1, 400, (2, 3, 25)), (1, 400, (2, 3, 100))),
    "steps": ((1, 8000, (2, 3, 2)), (1, 32_000, (2, 3, 2))),
    "outputs of many experiments": ((100, 7, (1, 2, 30)), (100, 7, (1, 2, 120))),
}


@pytest.mark.parametrize("what", GROWTH)
def test_memory_grows_linearly(what: str) -> None:
    small, large = (drawn(*shape) for shape in GROWTH[what])
    assert memory(*large) <= 4.5 * memory(*small)


def test_a_million_experiments_are_not_refused_for_lack_of_memory() -> None:
    check_memory((3, 5), (10,), (1_000_000, 2))
    with pytest.raises(MemoryError, match=r"cannot allocate \d+ bytes for the Gauss-Newton matrix"):
        check_memory((3, 5), (3_000_000,), (1, 2))


def seconds(problem: Problem, theta: Array) -> float:
    """Return the CPU time of a step, the least of some: what other processes do is no part of it."""
    least = np.inf
    with threadpool_limits(1, user_api="blas"):
        for _ in range(15):
            begin = time.process_time()
            for _ in range(3):
                step_of(problem, theta)
            least = min(least, time.process_time() - begin)
    return float(least)


@slow
@pytest.mark.parametrize("what", ["experiments", "outputs", "steps"])
def test_time_grows_linearly(what: str) -> None:
    small, large = (drawn(*shape) for shape in GROWTH[what])
    assert seconds(*large) <= 6 * seconds(*small)


@slow
def test_one_missing_value_costs_nothing() -> None:
    def problem(gap: bool) -> tuple[Problem, Array]:
        whole, theta = drawn(1000, 7, (2, 2, 3))
        whole.data.known[3, 0, 0] &= not gap
        return Problem(whole.like, whole.data, num_threads=1), theta

    assert seconds(*problem(True)) <= 1.4 * seconds(*problem(False))


def individuals(count: int) -> tuple[Any, ...]:
    """Return inputs, outputs with half of them missing, outputs without noise, lengths and W_hh."""
    rng = np.random.default_rng(0)
    A = np.array([[0.8, 0.3], [-0.2, 0.7]])
    true = rnnbptt.Params(rng.standard_normal((2, 2)), A, rng.standard_normal((3, 2)))
    lengths = rng.integers(5, 11, count).tolist()
    inputs = [rng.standard_normal((length, 2)) for length in lengths]
    clean = np.vstack([rnnbptt.forward(true, x, rng.standard_normal(2)).o for x in inputs])
    y = clean + 0.01 * rng.standard_normal(clean.shape)
    y[rng.random(y.shape) < 0.5] = np.nan
    return np.vstack(inputs), y, clean, lengths, A


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=slow)])
def test_hundreds_of_short_experiments(count: int) -> None:
    X, y, clean, lengths, A = individuals(count)
    begin = time.process_time()
    model = LinearRNNRegressor(n_hidden=2, random_state=0).fit(X, y, lengths=lengths)
    taken = time.process_time() - begin
    error = model.predict(X, lengths) - clean
    assert 1 - (error**2).sum() / ((clean - clean.mean(axis=0)) ** 2).sum() > 0.9999
    found = np.sort_complex(np.linalg.eigvals(model.params_.W_hh))
    assert np.abs(found - np.sort_complex(np.linalg.eigvals(A))).max() < 3e-3
    assert taken < 15  # 2 s on an idle machine; a step of dense equations alone takes 0.1 s of 500


@slow
def test_ctrl_c_ends_a_fit_of_many_experiments_or_parameters() -> None:
    rng = np.random.default_rng(0)
    for lengths, sizes in (([7] * 30_000, (2, 2, 3)), ([3000], (2, 40, 2))):
        d, h, q = sizes
        X, y = rng.standard_normal((sum(lengths), d)), rng.standard_normal((sum(lengths), q))
        model = LinearRNNRegressor(h, n_starts=1, starts="random", tol=0, random_state=0)
        model.set_params(max_iter=100_000)
        assert answer_to_ctrl_c(partial(model.fit, X, y, lengths), 1.5) < ANSWER_TO_CTRL_C
