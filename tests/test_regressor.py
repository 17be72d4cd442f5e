"""LinearRNNRegressor: scikit-learn's contract, what it finds, missing targets, experiments, state space."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import Array
from speed import slow

pytest.importorskip("sklearn")
pytest.importorskip("joblib")
pytest.importorskip("threadpoolctl")

from joblib import parallel_config
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import check_estimator

from rnnbptt.fit import LinearRNNRegressor, subspace
from rnnbptt.fit.experiments import Experiments
from rnnbptt.fit.problem import Problem, largest_eigenvalue

#: Many tests look at fits that are stopped early, to be quick.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def system(rng: np.random.Generator, T: int = 300, *, radius: float = 0.9) -> tuple[Array, Array, Any]:
    """Inputs, outputs and parameters of a system of two states, two inputs and two outputs."""
    params = rnnbptt.Params.random(2, 2, 2, spectral_radius=radius, biases=True, direct=True, rng=rng)
    X = rng.standard_normal((T, 2))
    return X, rnnbptt.forward(params, X).o, params


# --- scikit-learn -------------------------------------------------------------------------------------------

SEQUENCES = "a prediction depends on the rows before it: that is what a model of sequences is for"


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
def test_scikit_learns_checks(solver: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks warn of what they skip, and of the failures expected
        results = check_estimator(
            LinearRNNRegressor(2, solver=solver, n_starts=1, starts="random", max_iter=30),
            expected_failed_checks={
                "check_methods_sample_order_invariance": SEQUENCES,
                "check_methods_subset_invariance": SEQUENCES,
            },
        )
    assert sum(result["status"] == "passed" for result in results) >= 45
    assert sum(result["status"] == "xfail" for result in results) == 2


@slow
def test_importing_the_package_does_not_import_scikit_learn() -> None:
    code = (
        "import sys, rnnbptt; print('sklearn' in sys.modules, 'scipy' in sys.modules);"
        "print('LinearRNNRegressor' in dir(rnnbptt), rnnbptt.LinearRNNRegressor.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "True", "LinearRNNRegressor"]


def test_a_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport rnnbptt\nrnnbptt.LinearRNNRegressor"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "rnnbptt.fit needs scikit-learn, which is not installed" in done.stderr
    assert "pip install 'rnnbptt[fit]'" in done.stderr


def test_what_is_listed_is_there_without_the_extra() -> None:
    code = "import sys; sys.modules['sklearn'] = None\nimport inspect, rnnbptt\ninspect.getmembers(rnnbptt)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cloned_searched_and_pickled() -> None:
    X, y, _ = system(np.random.default_rng(0), 120)
    model = LinearRNNRegressor(1, n_starts=1, max_iter=20, random_state=0)
    search = GridSearchCV(clone(model), {"n_hidden": [1, 2]}, cv=2).fit(X, y)
    assert search.best_params_ == {"n_hidden": 2}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(X), search.predict(X))


X_1, Y_1, _ = system(np.random.default_rng(0), 30)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # of a fit stopped early
    FITTED = LinearRNNRegressor(1, n_starts=1, max_iter=2, random_state=0).fit(X_1, Y_1)
BROKEN = X_1.copy()
BROKEN[3, 0] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FITTED.fit(BROKEN, Y_1), "X must be finite, not NaN in row 3 of column 0"),
        (lambda: FITTED.predict(-BROKEN), "X must be finite, not NaN in row 3 of column 0"),
        (lambda: FITTED.simulate(X_1 * np.inf), "X must be finite, not inf in row 0 of column 0"),
        (lambda: FITTED.forecast(30, BROKEN), "X_future must be finite, not NaN in row 3"),
        (lambda: FITTED.fit(X_1[:, 0], Y_1), "X must have shape (n, d), not (30,)"),
        (lambda: FITTED.fit(X_1, Y_1[:-1]), "y must have a row for each of the 30 rows of X, not 29"),
        (lambda: FITTED.score(X_1, Y_1[:-1]), "y must have a row for each of the 30 rows of X, not 29"),
        (lambda: FITTED.score(X_1, Y_1 * np.nan), "y has no known target in column 0"),
        (lambda: FITTED.score(X_1, Y_1, np.ones(3)), "sample_weight must have shape (30,), not (3,)"),
        (lambda: FITTED.score(X_1, Y_1, np.zeros(30)), "sample_weight must be finite, and not zero"),
        (lambda: clone(FITTED).set_params(random_state="a").fit(X_1, Y_1), "random_state must be an integer"),
        (
            lambda: clone(FITTED).set_params(random_state=10**5000).fit(X_1, Y_1),
            "random_state must be an integer",
        ),
        (
            lambda: clone(FITTED).set_params(verbose="a").fit(X_1, Y_1),
            "verbose must be an integer, not str 'a'",
        ),
        (lambda: FITTED.fit(X_1 + 1j, Y_1), "X: Complex data not supported"),
    ],
)
def test_data_that_do_not_fit_are_named_in_words_of_its_own(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert message in str(caught.value)
    assert "HistGradientBoosting" not in str(caught.value)


# --- what it finds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "tolerance"), [("lm", 1e-7), ("lbfgs", 1e-2)])
def test_finds_a_system_from_its_outputs(solver: str, tolerance: float) -> None:
    X, y, truth = system(np.random.default_rng(1))
    model = LinearRNNRegressor(2, solver=solver, random_state=0, tol=1e-10, max_iter=1000).fit(X, y)
    found = np.sort_complex(np.linalg.eigvals(model.params_.W_hh))
    expected = np.sort_complex(np.linalg.eigvals(truth.W_hh))
    assert np.abs(found - expected).max() < tolerance
    assert model.score(X, y) > 1 - tolerance
    # Columns of other sizes and offsets are another description of the same thing.
    A, B, C, D, _ = model.to_state_space()
    truth_D = truth.W_qx + truth.W_qh @ truth.W_hx
    assert np.abs(D[:, :2] - truth_D).max() < tolerance * 10
    impulse = C @ np.linalg.matrix_power(A, 3) @ B[:, :2]
    expected_impulse = truth.W_qh @ np.linalg.matrix_power(truth.W_hh, 4) @ truth.W_hx
    assert np.abs(impulse - expected_impulse).max() < tolerance * 10


def test_units_of_the_data_do_not_matter() -> None:
    X, y, _ = system(np.random.default_rng(2))
    settings: dict[str, Any] = {"n_starts": 1, "starts": "subspace", "tol": 1e-12}
    plain = LinearRNNRegressor(2, **settings).fit(X, y)
    scaled = LinearRNNRegressor(2, **settings).fit(X * 1e3 + 7e4, y * 1e-5 - 3.0)
    assert np.abs((scaled.predict(X * 1e3 + 7e4) + 3.0) * 1e5 - plain.predict(X)).max() < 1e-6


def test_the_subspace_start_alone_finds_a_system() -> None:
    X, y, truth = system(np.random.default_rng(3))
    data = Experiments.of(X, y - y.mean(0), np.array([len(X)]))
    settings: dict[str, Any] = {"biases": True, "direct": True, "fit_h0": True}
    start = subspace.identify(data, 2, **settings)
    assert start is not None
    found = np.sort_complex(np.linalg.eigvals(start[0].W_hh))
    assert np.abs(found - np.sort_complex(np.linalg.eigvals(truth.W_hh))).max() < 1e-9
    assert data.loss(*start) < 1e-20
    short = Experiments.of(X[:9], y[:9], np.array([9]))
    assert subspace.identify(short, 2, **settings) is None


def test_results_do_not_depend_on_jobs_and_depend_on_the_seed() -> None:
    X, y, _ = system(np.random.default_rng(4), 80)
    settings: dict[str, Any] = {"n_starts": 2, "starts": "random", "max_iter": 15}
    with parallel_config(backend="threading"):  # processes would take seconds to start
        one, two, other = (
            LinearRNNRegressor(2, random_state=seed, n_jobs=jobs, **settings).fit(X, y)
            for seed, jobs in ((0, None), (0, 2), (1, None))
        )
    np.testing.assert_array_equal(one.params_.ravel(), two.params_.ravel())
    assert not np.array_equal(one.params_.ravel(), other.params_.ravel())


def test_the_best_start_is_kept() -> None:
    X, y, _ = system(np.random.default_rng(5))
    model = LinearRNNRegressor(2, n_starts=5, max_iter=12, random_state=0).fit(X, y)
    kinds = [start.kind for start in model.starts_]
    assert kinds == ["subspace", "random", "orthogonal", "random", "orthogonal"]
    assert model.loss_ == min(start.loss for start in model.starts_)
    assert model.n_evaluations_ == sum(start.n_evaluations for start in model.starts_)
    assert len({start.loss for start in model.starts_}) == 5


# --- the loss -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["steps", "entries", "none"])
@pytest.mark.parametrize("radius", [None, 0.3])
def test_gradient_and_normal_equations_are_those_of_the_loss(missing: str, radius: float | None) -> None:
    rng = np.random.default_rng(6)
    X, y, _ = system(rng, 40)
    if missing == "steps":
        y[rng.random(40) < 0.3] = np.nan
    elif missing == "entries":
        y[rng.random(y.shape) < 0.3] = np.nan
    params = rnnbptt.Params.random(2, 3, 2, spectral_radius=0.9, biases=True, direct=True, rng=rng)
    data = Experiments.of(X, y, np.array([25, 15]))
    problem = Problem(params, data, ridge=0.1, max_spectral_radius=radius)
    theta = problem.pack(params, rng.standard_normal((2, 3)))
    loss, gradient = problem.flat(theta)
    equations = problem.normal_equations(theta)
    matrix, gradient_by_rows = equations.dense(), equations.gradient
    assert abs(problem.loss(theta) - loss) < 1e-12 * loss
    np.testing.assert_allclose(gradient_by_rows, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())
    for direction in rng.standard_normal((4, len(theta))):
        step = 1e-5 * direction
        slope = (problem.loss(theta + step) - problem.loss(theta - step)) / 2e-5
        assert abs(slope - direction @ gradient) < 1e-7 * np.linalg.norm(gradient) * np.linalg.norm(direction)
    # By its definition: the mean over what is known, and the penalties.
    o = np.concatenate(
        [
            rnnbptt.forward(params, part, h0).o
            for part, h0 in zip(np.split(X, [25]), problem.unpack(theta)[1], strict=True)
        ]
    )
    known = ~np.isnan(y)
    expected = np.mean((o - y)[known] ** 2) + 0.1 * params.ravel() @ params.ravel()
    if radius is not None:
        excess = np.maximum(0, np.abs(np.linalg.eigvals(params.W_hh)) - radius)
        expected += excess @ excess
    assert abs(loss - expected) < 1e-12 * expected
    # The Gauss-Newton matrix of the squared errors, by differences of the outputs.
    if radius is None:
        rows = []
        for i in range(len(theta)):
            unit = np.zeros(len(theta))
            unit[i] = 1e-6
            outputs = [
                np.concatenate(
                    [
                        rnnbptt.forward(p, part, start).o
                        for part, start in zip(np.split(X, [25]), h0, strict=True)
                    ]
                )[known]
                for p, h0 in (problem.unpack(theta + unit), problem.unpack(theta - unit))
            ]
            rows.append((outputs[0] - outputs[1]) / 2e-6)
        J = np.array(rows)
        expected_matrix = 2 / known.sum() * J @ J.T
        expected_matrix[np.arange(params.size), np.arange(params.size)] += 0.2
        np.testing.assert_allclose(matrix, expected_matrix, rtol=0, atol=1e-7 * np.abs(matrix).max())


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
@pytest.mark.parametrize("where", ["steps", "entries"])
def test_missing_targets_are_not_read(solver: str, where: str) -> None:
    # The known targets are exact here, so a fit that read anything else in the gaps could not reach them.
    rng = np.random.default_rng(7)
    X, y, _ = system(rng, 200)
    gaps = np.zeros(y.shape, bool)
    gaps[60:90] = True
    gaps[rng.random(200) < 0.1] = True
    if where == "entries":
        gaps = rng.random(y.shape) < 0.3
    holed = np.where(gaps, np.nan, y)
    before = holed.copy()
    model = LinearRNNRegressor(2, solver=solver, random_state=0, tol=1e-10, max_iter=1000).fit(X, holed)
    np.testing.assert_array_equal(holed, before)
    error = np.abs(model.predict(X) - y).max()
    assert error < (1e-4 if solver == "lm" else 0.2)
    assert model.score(X, holed) > 0.99


def test_a_trailing_gap_is_the_same_as_a_shorter_sequence() -> None:
    X, y, _ = system(np.random.default_rng(8), 90)
    holed = y.copy()
    holed[60:] = np.nan
    settings: dict[str, Any] = {"n_starts": 1, "starts": "random", "max_iter": 10, "random_state": 0}
    gap = LinearRNNRegressor(2, standardize=False, **settings).fit(X, holed)
    short = LinearRNNRegressor(2, standardize=False, **settings).fit(X[:60], y[:60])
    np.testing.assert_allclose(gap.params_.ravel(), short.params_.ravel(), rtol=0, atol=1e-9)


def test_ridge_shrinks_and_the_bound_on_the_spectral_radius_holds() -> None:
    rng = np.random.default_rng(9)
    X, y, _ = system(rng, 60, radius=1.02)
    settings: dict[str, Any] = {"n_starts": 2, "max_iter": 60, "random_state": 0}
    free = LinearRNNRegressor(2, **settings).fit(X, y)
    assert largest_eigenvalue(free.params_.W_hh) > 1.01
    for solver in ("lm", "lbfgs"):
        bounded = LinearRNNRegressor(2, solver=solver, max_spectral_radius=0.9, **settings).fit(X, y)
        assert largest_eigenvalue(bounded.params_.W_hh) <= 0.9
        assert bounded.spectral_report().growth == "decaying"
    # Without any ridge the norm is that of an arbitrary basis of the hidden state: it proves nothing.
    norms = [
        np.linalg.norm(LinearRNNRegressor(2, ridge=ridge, **settings).fit(X, y).params_.ravel())
        for ridge in (0.01, 0.1, 1.0)
    ]
    assert norms[0] > 1.02 * norms[1] > 1.1 * norms[2]


def test_early_stopping_keeps_what_does_best_on_what_was_held_out() -> None:
    rng = np.random.default_rng(10)
    X, y, _ = system(rng, 100)
    y = y + rng.standard_normal(y.shape)
    settings: dict[str, Any] = {"n_starts": 3, "starts": "random", "random_state": 0, "standardize": False}
    for solver in ("lm", "lbfgs"):
        model = LinearRNNRegressor(
            5, solver=solver, early_stopping=True, validation_fraction=0.2, n_iter_no_change=5, **settings
        ).fit(X, y)
        held = np.mean((model.predict(X)[80:] - y[80:]) ** 2)
        scores = [start.validation_loss for start in model.starts_ if start.validation_loss is not None]
        assert len(scores) == 3
        assert abs(min(scores) - held) < 1e-9
        assert model.best_start_ == int(np.argmin(scores))
        longer = LinearRNNRegressor(5, solver=solver, **settings).fit(X[:80], y[:80])
        assert held < np.mean((longer.predict(X)[80:] - y[80:]) ** 2)


# --- experiments, forecasts ---------------------------------------------------------------------------------


def test_experiments_have_initial_states_of_their_own() -> None:
    rng = np.random.default_rng(11)
    params = rnnbptt.Params.random(1, 2, 1, rng=rng)
    h0 = 3 * rng.standard_normal((3, 2))
    lengths = [40, 25, 60]
    X = rng.standard_normal((125, 1))
    parts = np.split(X, np.cumsum(lengths)[:-1])
    y = np.concatenate([rnnbptt.forward(params, x, s).o for x, s in zip(parts, h0, strict=True)])[:, 0]
    model = LinearRNNRegressor(2, random_state=0, tol=1e-10).fit(X, y, lengths=lengths)
    assert model.h0_.shape == (3, 2)
    assert np.abs(model.predict(X, lengths) - y).max() < 1e-5
    assert model.score(X, y, lengths=lengths) > 1 - 1e-8
    assert model.forecast(4).shape == (12,)
    # One sequence begins in the mean state; a state of one's own gives the third experiment alone.
    mean_state = model.simulate(parts[0], model.h0_.mean(axis=0))
    np.testing.assert_allclose(model.predict(parts[0]), mean_state, rtol=0, atol=1e-12)
    third = model.simulate(parts[2], model.h0_[2])
    np.testing.assert_allclose(third, model.predict(X, lengths)[65:], rtol=0, atol=1e-12)


def test_forecast_goes_on_where_training_ended() -> None:
    X, y, _ = system(np.random.default_rng(12), 150)
    model = LinearRNNRegressor(2, n_starts=1, random_state=0).fit(X[:100], y[:100])
    np.testing.assert_allclose(model.forecast(50, X[100:]), model.predict(X)[100:], rtol=0, atol=1e-10)
    held = model.predict(np.concatenate([X[:100], np.repeat(X[99:100], 5, axis=0)]))[100:]
    np.testing.assert_allclose(model.forecast(5), held, rtol=0, atol=1e-10)


def test_forecasts_of_experiments_go_on_where_each_ended() -> None:
    X, y, _ = system(np.random.default_rng(15), 80)
    model = LinearRNNRegressor(2, n_starts=1, max_iter=5, random_state=0).fit(X, y, lengths=[50, 30])
    future = np.random.default_rng(16).standard_normal((10, 2))
    parts = zip(np.split(X, [50]), np.split(future, 2), model.h0_, strict=True)
    expected = [model.simulate(np.concatenate([past, later]), h0)[-5:] for past, later, h0 in parts]
    np.testing.assert_allclose(model.forecast(5, future), np.concatenate(expected), rtol=0, atol=1e-10)


def test_rows_count_in_a_score_as_they_are_weighed() -> None:
    X, y, _ = system(np.random.default_rng(17), 100)
    model = LinearRNNRegressor(2, n_starts=1, max_iter=3, random_state=0, score_from="predict").fit(X, y)
    off = np.arange(100) % 3 == 0
    y[off] += 5
    error, spread = (y - model.predict(X))[~off], y[~off] - y[~off].mean(axis=0)
    expected = np.mean(1 - np.sum(error**2, axis=0) / np.sum(spread**2, axis=0))
    assert model.score(X, y, sample_weight=np.where(off, 0.0, 2.0)) == pytest.approx(expected, rel=1e-12)
    assert model.score(X, y) < expected - 0.1


# --- state space --------------------------------------------------------------------------------------------


def run_state_space(A: Array, B: Array, C: Array, D: Array, x0: Array, U: Array) -> Array:
    """Run the system step by step, as its equations stand."""
    y, s = [], x0
    for u in U:
        y.append(C @ s + D @ u)
        s = A @ s + B @ u
    return np.array(y)


def test_state_space_form_gives_the_same_outputs() -> None:
    X, y, _ = system(np.random.default_rng(13), 60)
    for biases in (True, False):
        model = LinearRNNRegressor(2, n_starts=1, max_iter=10, biases=biases, random_state=0).fit(X, y)
        form = model.to_state_space()
        U = np.column_stack([X, np.ones(len(X))]) if biases else X
        expected = model.predict(X)
        np.testing.assert_allclose(run_state_space(*form, U), expected, rtol=0, atol=1e-10)
        back = LinearRNNRegressor.from_state_space(*form, constant_input=biases)
        assert back.params_.shape == model.params_.shape
        np.testing.assert_allclose(back.predict(X), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["delay", "deadbeat", "invertible", "unread"])
def test_any_state_space_system_has_a_network(kind: str) -> None:
    rng = np.random.default_rng(14)
    A = {
        "delay": np.diag(np.ones(3), -1),
        "deadbeat": np.zeros((4, 4)),
        "invertible": rng.standard_normal((4, 4)) / 3,
        "unread": np.diag([0.5, 0.9, 0.0, 0.0]),
    }[kind]
    B, C, D = rng.standard_normal((4, 2)), rng.standard_normal((3, 4)), rng.standard_normal((3, 2))
    if kind == "unread":
        C[:, 2:] = 0
    x0, U = rng.standard_normal(4), rng.standard_normal((30, 2))
    model = LinearRNNRegressor.from_state_space(A, B, C, D, x0)
    expected = run_state_space(A, B, C, D, x0, U)
    np.testing.assert_allclose(model.predict(U), expected, rtol=0, atol=1e-11)
    assert model.params_.shape[1] == (4 if kind in ("invertible", "unread") else 7)
    np.testing.assert_allclose(run_state_space(*model.to_state_space(), U), expected, rtol=0, atol=1e-11)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_hidden": 0}, "n_hidden must be at least 1, not 0"),
        ({"solver": "adam"}, "solver must be one of 'lm', 'lbfgs', not 'adam'"),
        ({"starts": ("zeros",)}, "starts must be one of"),
        ({"starts": ()}, "starts must name at least one"),
        ({"starts": None}, "starts must be a kind of start, Params or a sequence of them, not None"),
        ({"n_jobs": "all"}, "n_jobs must be an integer, not str 'all'"),
        ({"ridge": -1.0}, "ridge must be finite and at least 0"),
        ({"max_spectral_radius": np.nan}, "max_spectral_radius must be finite"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "validation_fraction must lie between"),
        ({"early_stopping": True, "validation_fraction": 0.99}, "validation_fraction=0.99 leaves nothing"),
        ({"direct": 1}, "direct must be True or False"),
    ],
)
def test_bad_parameters(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        LinearRNNRegressor(**settings).fit(np.ones((5, 1)), np.arange(5.0))


def test_bad_arguments() -> None:
    X, y = np.random.default_rng(15).standard_normal((2, 20, 1))
    model = LinearRNNRegressor(1, n_starts=1, max_iter=3)
    with pytest.raises(ValueError, match="lengths must be a list of numbers that add up to the 20 rows"):
        model.fit(X, y, lengths=[5, 5])
    with pytest.raises(ValueError, match="lengths must lie between 1 and 20"):
        model.fit(X, y, lengths=[20, 0])
    with pytest.raises(ValueError, match="y has no known target in column 0"):
        model.fit(X, np.full(20, np.nan))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full((20, 1), np.nan), y)
    model.fit(X, y)
    with pytest.raises(ValueError, match="X_future must have 4 rows, not 20"):
        model.forecast(4, X)
    with pytest.raises(ValueError, match=r"h0 must have shape \(1,\)"):
        model.simulate(X, [0.0, 0.0])
    with pytest.raises(ValueError, match=r"B must have shape \(2, d\)"):
        LinearRNNRegressor.from_state_space(np.eye(2), np.ones((3, 1)), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"x0 must have shape"):
        LinearRNNRegressor.from_state_space(np.eye(2), np.ones((2, 1)), np.ones((1, 2)), x0=[1.0])


def test_a_progress_bar_counts_the_starts(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    X, y = np.random.default_rng(16).standard_normal((2, 20, 1))
    LinearRNNRegressor(1, n_starts=3, max_iter=3, verbose=1).fit(X, y)
    assert "3/3" in capsys.readouterr().err


# --- measured data ------------------------------------------------------------------------------------------


def plant() -> tuple[Array, Array]:
    """The standardised plant of 200 steps, 5 inputs and 3 outputs that simbapy ships."""
    scipy_io = pytest.importorskip("scipy.io")
    found = importlib.util.find_spec("mat")
    if found is None or not found.submodule_search_locations:
        pytest.skip("simbapy is not installed")
    path = Path(found.submodule_search_locations[0], "data", "daisy.mat")
    if not path.exists():
        pytest.skip("simbapy is not installed")
    data = scipy_io.loadmat(path)
    return data["U"], data["Y"]


@pytest.mark.parametrize(("h", "bar"), [(3, 0.0529), (6, 0.0146)])
def test_levenberg_marquardt_on_a_measured_plant(h: int, bar: float) -> None:
    U, Y = plant()
    model = LinearRNNRegressor(h, n_starts=6, starts="random", biases=False, random_state=0).fit(U, Y)
    reached = [3 * start.loss <= bar and start.n_evaluations < 400 for start in model.starts_]
    assert sum(reached) >= 4
    assert 3 * np.mean((model.predict(U) - Y) ** 2) <= bar
    subspace = LinearRNNRegressor(h, n_starts=1, biases=False).fit(U, Y)
    assert subspace.starts_[0].kind == "subspace"
    assert 3 * subspace.loss_ <= bar
    assert subspace.n_evaluations_ < 60


def test_weekly_co2_with_gaps() -> None:
    statsmodels = pytest.importorskip("statsmodels.datasets")
    co2 = statsmodels.co2.load_pandas().data["co2"].to_numpy()[:300]
    gaps = np.isnan(co2)
    assert gaps.sum() > 20
    X = np.zeros((len(co2), 1))
    settings: dict[str, Any] = {"n_starts": 1, "starts": "random", "max_iter": 15, "random_state": 0}
    model = LinearRNNRegressor(4, direct=False, **settings).fit(X, co2)
    # The loss is that of the known weeks, to the last digits.
    error = model.predict(X)[~gaps] - co2[~gaps]
    assert abs(np.mean(error**2) / np.var(co2[~gaps]) - model.loss_) < 1e-10
