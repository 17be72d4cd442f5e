"""Hankel singular values of fitted networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy.linalg import block_diag, solve_discrete_lyapunov, toeplitz
from sklearn.exceptions import NotFittedError

from rnnbptt import Params
from rnnbptt.fit import LinearRNNRegressor
from rnnbptt.fit.hankel import hankel_singular_values


def system(seed: int, sizes: tuple[int, int, int], radius: float, kind: Any = "gaussian") -> Any:
    params = Params.random(*sizes, spectral_radius=radius, kind=kind, rng=seed)
    return params.W_hh, params.W_hx, params.W_qh


def by_lyapunov(A: Any, B: Any, C: Any) -> Any:
    P, Q = solve_discrete_lyapunov(A, B @ B.T), solve_discrete_lyapunov(A.T, C.T @ C)
    return np.sort(np.sqrt(np.abs(np.linalg.eigvals(P @ Q))))[::-1]


@pytest.mark.parametrize("radius", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["gaussian", "orthogonal"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 4, 1), (3, 6, 2), (7, 3, 5)])
def test_values_are_those_of_the_gramians(sizes: tuple[int, int, int], kind: str, radius: float) -> None:
    A, B, C = system(1, sizes, radius, kind)
    expected = by_lyapunov(A, B, C)
    values = hankel_singular_values(A, B, C)
    # Products of Gramians lose half of the digits of small values.
    np.testing.assert_allclose(values, expected, rtol=1e-8, atol=1e-7 * expected[0])
    assert (np.diff(values) <= 0).all()


def test_values_are_singular_values_of_the_hankel_matrix() -> None:
    A, B, C = system(2, (2, 5, 3), 0.7)
    n = 120
    markov = [C @ np.linalg.matrix_power(A, k) @ B for k in range(2 * n)]
    matrix = np.block([[markov[i + j] for j in range(n)] for i in range(n)])
    expected = np.linalg.svd(matrix, compute_uv=False)[:5]
    np.testing.assert_allclose(hankel_singular_values(A, B, C), expected, rtol=1e-12)


def test_small_values_keep_their_digits() -> None:
    # Two parts that do not meet, one of which carries 1e-12 of the other: products of Gramians see 1e-24.
    A = np.diag([0.5, 0.25])
    B, C = np.diag([1.0, 1e-6]), np.diag([1.0, 1e-6])
    expected = [1 / (1 - 0.25), 1e-12 / (1 - 0.0625)]
    np.testing.assert_allclose(hankel_singular_values(A, B, C), expected, rtol=1e-13)


@pytest.mark.parametrize("unstable", [[[1.2]], [[1.0]], [[0.0, 1.1], [-1.1, 0.0]], [[0.0, 1.0], [-1.0, 0.0]]])
def test_modes_that_do_not_decay_have_infinite_values(unstable: Any) -> None:
    A, B, C = system(3, (2, 3, 2), 0.8)
    wild = np.array(unstable)
    rng = np.random.default_rng(4)
    size = len(wild)
    mixed = block_diag(A, wild)
    basis = toeplitz(np.r_[4.0, rng.standard_normal(2 + size)])
    inputs, outputs = np.vstack([B, np.ones((size, 2))]), np.hstack([C, np.ones((2, size))])
    values = hankel_singular_values(
        np.linalg.solve(basis, mixed @ basis), np.linalg.solve(basis, inputs), outputs @ basis
    )
    assert (values[:size] == np.inf).all()
    np.testing.assert_allclose(values[size:], hankel_singular_values(A, B, C), rtol=1e-9)


def test_nearly_unstable_and_without_inputs() -> None:
    pole = 1 - 1e-12
    value = hankel_singular_values(np.array([[pole]]), np.ones((1, 1)), np.ones((1, 1)))
    np.testing.assert_allclose(value, 1 / (1 - pole**2), rtol=1e-6)
    A, _, C = system(5, (1, 3, 2), 0.5)
    np.testing.assert_array_equal(hankel_singular_values(A, np.zeros((3, 0)), C), np.zeros(3))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_order_that_is_too_high_shows() -> None:
    rng = np.random.default_rng(6)
    A = np.array([[0.8, 0.3], [-0.3, 0.8]])
    true = Params(rng.standard_normal((2, 1)), A, rng.standard_normal((1, 2)))
    plant = LinearRNNRegressor.from_state_space(A, true.W_hx, true.W_qh @ A, true.W_qh @ true.W_hx)
    X = 3 + 5 * rng.standard_normal((400, 1))
    model = LinearRNNRegressor(4, random_state=0, n_starts=1).fit(X, 2 + plant.predict(X))
    values = model.hankel_singular_values_
    expected = by_lyapunov(A, true.W_hx, true.W_qh @ A)
    np.testing.assert_allclose(plant.hankel_singular_values_, expected, rtol=1e-10)
    np.testing.assert_allclose(values[:2], expected, rtol=1e-6)
    assert (values[2:] < 1e-4 * values[0]).all()
    with pytest.raises(NotFittedError):
        _ = LinearRNNRegressor(4).hankel_singular_values_
