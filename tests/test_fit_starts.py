"""Starts and bounds of LinearRNNRegressor: what is there is found, and nothing is silent."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.exceptions import ConvergenceWarning

import rnnbptt
from problems import Array
from rnnbptt.fit import LinearRNNRegressor
from rnnbptt.fit.experiments import Experiments, Units
from rnnbptt.fit.problem import Problem, clipped, largest_eigenvalue
from rnnbptt.fit.stable import Contractions, StableProblem

SUBSPACE: dict[str, Any] = {"n_starts": 1, "starts": "subspace"}


def eigenvalues(model: LinearRNNRegressor) -> Array:
    return np.sort_complex(np.linalg.eigvals(model.params_.W_hh))


# --- no inputs to speak of ----------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("modes", [1, 2, 3])
def test_a_free_decay_is_found_by_its_start_alone(modes: int, biases: bool) -> None:
    rng, t = np.random.default_rng(modes), np.arange(200)
    poles = np.exp(-rng.uniform(0.002, 0.03, modes) + 1j * rng.uniform(0.1, 2.5, modes))
    y = np.real(poles ** t[:, np.newaxis] @ (rng.standard_normal(modes) + 1j))
    model = LinearRNNRegressor(2 * modes, biases=biases, **SUBSPACE).fit(np.zeros((200, 1)), y)
    assert model.score(np.zeros((200, 1)), y) > 1 - 1e-12
    expected = np.sort_complex(np.concatenate([poles, poles.conj()]))
    np.testing.assert_allclose(eigenvalues(model), expected, rtol=0, atol=1e-8)


def test_one_decay_without_biases_whatever_the_seed() -> None:
    X, y = np.zeros((60, 1)), 0.9 ** np.arange(60.0)
    for seed in range(8):
        model = LinearRNNRegressor(1, biases=False, random_state=seed).fit(X, y)
        assert model.score(X, y) > 1 - 1e-12
        assert model.params_.W_hh.item() == pytest.approx(0.9, rel=1e-10)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(("base", "n"), [(1.05, 600), (2.0, 40), (1.5, 60), (1.5, 20), (1.05, 300)])
def test_growth(base: float, n: int, biases: bool) -> None:
    X, y = np.zeros((n, 1)), base ** np.arange(n)
    model = LinearRNNRegressor(1, biases=biases, random_state=0).fit(X, y)
    assert model.params_.W_hh.item() == pytest.approx(base, rel=1e-9)
    assert model.forecast(1).item() == pytest.approx(base**n, rel=1e-7)


def test_growth_of_several_experiments() -> None:
    y = np.concatenate([size * 1.2 ** np.arange(30) + 3 for size in (1, 2, -1.5)])
    for h, biases in ((1, True), (2, False), (3, False)):
        model = LinearRNNRegressor(h, biases=biases, random_state=0)
        model.fit(np.zeros((90, 1)), y, lengths=[30] * 3)
        assert np.abs(model.predict(np.zeros((90, 1)), [30] * 3) - y).max() < 1e-6
        assert np.abs(eigenvalues(model) - 1.2).min() < 1e-8


# --- unstable plants in closed loop -------------------------------------------------------------------------


def closed_loop(pole: float, n: int, feedback: float, noise: float) -> tuple[Array, Array]:
    """A bounded record of y_t = pole y_{t-1} + u_t, u_t = r_t - feedback y_{t-1}."""
    rng = np.random.default_rng(0)
    r, u, y, h = rng.standard_normal(n), np.zeros(n), np.zeros(n), 0.0
    for t in range(n):
        u[t] = r[t] - feedback * h
        y[t] = h = pole * h + u[t]
    return u[:, np.newaxis], y + noise * y.std() * rng.standard_normal(n)


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize(
    ("pole", "n", "feedback"),
    [(1.2, 80, 0.9), (1.2, 100, 0.9), (1.2, 140, 0.9), (1.05, 500, 0.5), (1.01, 2000, 0.3)],
)
def test_an_unstable_pole(pole: float, n: int, feedback: float, biases: bool) -> None:
    X, y = closed_loop(pole, n, feedback, 0.0)
    model = LinearRNNRegressor(1, biases=biases, **SUBSPACE).fit(X, y)
    assert model.params_.W_hh.item() == pytest.approx(pole, rel=1e-9)
    assert 1 - np.var(model.predict(X) - y) / np.var(y) > 1 - 1e-9
    X, y = closed_loop(pole, n, feedback, 0.01)
    noisy = LinearRNNRegressor(1, biases=biases, **SUBSPACE).fit(X, y)
    assert noisy.params_.W_hh.item() == pytest.approx(pole, rel=2e-3)
    assert 1 - np.var(noisy.predict(X) - y) / np.var(y) > 0.9998


# --- offsets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("offsets", [(50.0, 1000.0), (1000.0,), (1e5,), (-300.0, 0.0, 20.0)])
def test_offsets_without_biases(offsets: tuple[float, ...], noise: float, standardize: bool) -> None:
    rng = np.random.default_rng(1)
    n, d = 400, len(offsets)
    u: Array = np.repeat(rng.choice([-1.0, 1.0], (n // 20, d)), 20, axis=0) * np.arange(1, d + 1)
    u += 0.1 * rng.standard_normal((n, d)) + offsets
    A, B, C = np.array([[0.9, 0.2], [-0.1, 0.8]]), rng.standard_normal((2, d)) / 5, np.array([1.0, 0.5])
    x, y = np.linalg.solve(np.eye(2) - A, B @ offsets), np.zeros(n)
    for k in range(n):
        y[k] = C @ x
        x = A @ x + B @ u[k]
    added = noise * y.std() * rng.standard_normal(n)
    y += added
    model = LinearRNNRegressor(2, biases=False, standardize=standardize, **SUBSPACE).fit(u, y)
    expected = np.sort_complex(np.linalg.eigvals(A))
    assert np.abs(eigenvalues(model) - expected).max() < (0.01 if noise else 1e-6)
    assert np.var(model.predict(u) - y) < 1.01 * np.var(added) + 1e-10


def test_more_states_than_the_data_have() -> None:
    rng = np.random.default_rng(2)
    truth = rnnbptt.Params.random(2, 2, 1, rng=rng)
    X = rng.standard_normal((200, 2))
    y = rnnbptt.forward(truth, X).o
    model = LinearRNNRegressor(5, biases=False, **SUBSPACE).fit(X, y)
    assert model.starts_[0].kind == "subspace"
    assert np.abs(model.predict(X) - y).max() < 1e-7


# --- a start of one's own, and what has not converged -------------------------------------------------------


def test_going_on_from_another_fit() -> None:
    rng = np.random.default_rng(3)
    truth = rnnbptt.Params.random(2, 3, 2, biases=True, direct=True, rng=rng)
    X = 5 + 3 * rng.standard_normal((300, 2))
    y = rnnbptt.forward(truth, X, rng.standard_normal(3)).o + 100
    settings: dict[str, Any] = {"n_starts": 1, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match=r"not converged after 1 steps: raise max_iter \(it is 1\)"):
        short = LinearRNNRegressor(3, starts="random", max_iter=1, **settings).fit(X, y)
    assert not short.starts_[0].converged
    long = LinearRNNRegressor(3, starts="subspace", tol=1e-12, **settings).fit(X, y)
    again = LinearRNNRegressor(3, starts=long.params_, **settings).fit(X, y)
    assert [start.kind for start in again.starts_] == ["given"]
    assert again.n_evaluations_ < 20
    assert np.abs(again.predict(X) - y).max() < 1e-6
    both = LinearRNNRegressor(3, starts=[long.params_, "random"], n_starts=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        kinds = [start.kind for start in both.fit(X, y).starts_]
        narrow = rnnbptt.Params(*(array.astype(np.float32) for _, array in long.params_.items()))
        assert LinearRNNRegressor(3, starts=narrow, **settings).fit(X, y).score(X, y) > 1 - 1e-9
    assert kinds == ["given", "random", "random"]
    for wrong, message in (
        (rnnbptt.Params.random(2, 2, 2, rng=0), r"shape \(d, h, q\) = \(2, 3, 2\), not \(2, 2, 2\)"),
        (rnnbptt.Params(truth.W_hx * np.nan, truth.W_hh, truth.W_qh), "not W_hx with NaN or inf"),
    ):
        with pytest.raises(ValueError, match=message):
            LinearRNNRegressor(3, starts=wrong).fit(X, y)
    with pytest.raises(ValueError, match="without b_h, which biases=False does not fit"):
        LinearRNNRegressor(3, starts=truth, biases=False).fit(X, y)
    with pytest.raises(ValueError, match="without W_qx, which direct=False does not fit"):
        LinearRNNRegressor(3, starts=truth, direct=False).fit(X, y)


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
def test_a_start_that_is_kept_has_converged_or_it_is_said(solver: str) -> None:
    rng = np.random.default_rng(4)
    truth = rnnbptt.Params.random(2, 2, 1, rng=rng)
    X = rng.standard_normal((100, 2))
    y = rnnbptt.forward(truth, X).o + 0.1 * rng.standard_normal((100, 1))
    for steps in (1, 3, 3000):
        for options in ({}, {"max_spectral_radius": 0.9}, {"stable": True}):
            settings: dict[str, Any] = {"n_starts": 2, "random_state": 0, **options}
            model = LinearRNNRegressor(2, solver=solver, max_iter=steps, **settings)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                model.fit(X, y)
            assert bool(caught) != model.starts_[model.best_start_].converged
    # Early stopping is an end as good as any.
    model = LinearRNNRegressor(2, solver=solver, early_stopping=True, n_iter_no_change=1, random_state=0)
    model.fit(X, y)


def test_units_there_and_back() -> None:
    rng = np.random.default_rng(5)
    X, y = 3 + rng.standard_normal((2, 30, 2))
    for terms in (True, False):
        params = rnnbptt.Params.random(2, 3, 2, biases=terms, direct=terms, rng=rng)
        units = Units.of(X, y, standardize=True, centre=terms)
        np.testing.assert_allclose(units.undo(units.into(params)).ravel(), params.ravel(), rtol=1e-12)


# --- bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1, 2, 5])
def test_the_derivative_of_contractions(h: int) -> None:
    rng = np.random.default_rng(h)
    M, direction = rng.standard_normal((2, h, h))
    at = Contractions(0.9, M)
    assert np.linalg.norm(at.W, 2) <= 0.9
    step = 1e-6 * direction
    slope = (Contractions(0.9, M + step).W - Contractions(0.9, M - step).W) / 2e-6
    np.testing.assert_allclose(at.pull(direction), slope, rtol=0, atol=1e-8)
    inside = 0.8 * at.W
    np.testing.assert_allclose(Contractions(0.9, Contractions.at(0.9, inside)).W, inside, rtol=0, atol=1e-10)


def test_a_stable_problem_is_the_same_in_other_coordinates() -> None:
    rng = np.random.default_rng(6)
    params = rnnbptt.Params.random(2, 3, 2, spectral_radius=0.8, biases=True, direct=True, rng=rng)
    X, y = rng.standard_normal((2, 40, 2))
    problem = Problem(params, Experiments.of(X, y, np.array([25, 15])), ridge=0.0)
    stable = StableProblem(problem, 0.9)
    h0 = rng.standard_normal((2, 3))
    theta = stable.pack(params, h0)
    assert stable.loss(theta) == pytest.approx(problem.loss(problem.pack(params, h0)), rel=1e-8)
    _, gradient = stable.flat(theta)
    equations = stable.normal_equations(theta)
    matrix, again = equations.dense(), equations.gradient
    np.testing.assert_allclose(again, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    np.testing.assert_allclose(matrix, matrix.T, rtol=0, atol=1e-12 * np.abs(matrix).max())
    for direction in rng.standard_normal((4, len(theta))):
        step = 1e-5 * direction
        slope = (stable.loss(theta + step) - stable.loss(theta - step)) / 2e-5
        assert abs(slope - direction @ gradient) < 1e-7 * np.linalg.norm(gradient) * np.linalg.norm(direction)


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_do_not_wreck_a_fit(seed: int, solver: str) -> None:
    # Two modes of the free fit grow; a line with seasons is inside the circle, and leaves 1.2;
    # what bends like one within 0.999 leaves 1.5.
    rng, t = np.random.default_rng(seed), np.arange(240.0)
    year = 2 * np.pi * t / 12
    y = 300 + 0.1 * t + 4e-4 * t**2 + 3 * np.sin(year) + np.sin(2 * year) + 0.3 * rng.standard_normal(240)
    X = np.zeros((240, 1))
    settings: dict[str, Any] = {"direct": False, "solver": solver, "max_iter": 400, **SUBSPACE}
    for radius, stable in ((1.0, False), (None, True), (0.999, True)):
        options: dict[str, Any] = {"max_spectral_radius": radius, "stable": stable}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LinearRNNRegressor(7, **settings, **options).fit(X[:200], y[:200])
        assert largest_eigenvalue(model.params_.W_hh) <= (radius or 1.0)
        assert np.std(model.predict(X[:200]) - y[:200]) < (1.6 if radius == 0.999 else 1.3)
        assert np.std(model.forecast(40) - y[200:]) < 3


def test_eigenvalues_are_moved_one_by_one_where_eigenvectors_are_parallel() -> None:
    W = np.diag([1.05, 1.05, 1.05, 0.3]) + np.diag([1.0, 1.0, 0.0], 1)
    for mirror, expected in ((False, 1.0), (True, 1 / 1.05)):
        moved = clipped(W, 1.0, mirror=mirror)
        assert largest_eigenvalue(moved) <= 1.0
        values = np.sort(np.abs(np.linalg.eigvals(moved)))
        np.testing.assert_allclose(values, [0.3, *[expected] * 3], atol=1e-3)


def test_monthly_co2_within_the_circle() -> None:
    data = pytest.importorskip("statsmodels.datasets").co2.load_pandas().data["co2"]
    y = data.resample("MS").mean().to_numpy()
    X, n = np.zeros((len(y), 1)), len(y) - 48
    for options in ({"max_spectral_radius": 1.0}, {"stable": True}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LinearRNNRegressor(8, direct=False, **SUBSPACE, **options).fit(X[:n], y[:n])
        assert np.sqrt(np.nanmean((model.predict(X[:n]) - y[:n]) ** 2)) < 1.0
        assert np.sqrt(np.nanmean((model.forecast(48) - y[n:]) ** 2)) < 2.0
