"""The state that new data begin in: estimated, given or chosen; model selection; networks without inputs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score, train_test_split

import rnnbptt
from problems import Array
from rnnbptt.fit import LinearRNNRegressor
from test_array_zoo import ZOO, contiguous

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SUBSPACE: dict[str, Any] = {"n_starts": 1, "starts": "subspace"}


def first_order(pole: float, n: int = 300, noise: float = 0.0, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    X, y, h = rng.standard_normal((n, 1)), np.zeros(n), 5.0
    for t in range(n):
        y[t] = h = pole * h + X[t, 0]
    return X, y + noise * rng.standard_normal(n)


def system(T: int = 120, q: int = 2) -> tuple[LinearRNNRegressor, Array, Array]:
    """A network as if fitted, inputs, and outputs from a state of their own."""
    rng = np.random.default_rng(q)
    A, B, C = (
        rnnbptt.Params.random(1, 3, 1, rng=rng).W_hh,
        rng.standard_normal((3, 2)),
        rng.standard_normal((q, 3)),
    )
    model = LinearRNNRegressor.from_state_space(A, B, C)
    X = rng.standard_normal((T, 2))
    y = model.simulate(X, rng.standard_normal(3))
    return model, X, y


# --- model selection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pole", [0.8, 0.98, 0.995])
@pytest.mark.parametrize("options", [{}, {"predict_from": "training_end", "score_from": "predict"}])
def test_cross_validation_of_successive_parts(pole: float, options: dict[str, Any]) -> None:
    X, y = first_order(pole)
    model = LinearRNNRegressor(1, **SUBSPACE, **options)
    np.testing.assert_allclose(cross_val_score(model, X, y, cv=TimeSeriesSplit(4)), 1.0, rtol=0, atol=1e-9)
    before, after, known, held = train_test_split(X, y, shuffle=False)
    model.fit(before, known)
    assert model.score(after, held) > 1 - 1e-9
    assert r2_score(held, model.forecast(len(held), after)) > 1 - 1e-9
    following = clone(model).set_params(predict_from="training_end").fit(before, known)
    np.testing.assert_allclose(following.predict(after), held, rtol=0, atol=1e-8)


@pytest.mark.parametrize("pole", [0.8, 0.98, 0.995])
def test_a_search_finds_order_and_ridge(pole: float) -> None:
    X, y = first_order(pole, noise=1e-3)
    grid = {"n_hidden": [1, 2, 3], "ridge": [0.0, 1e-3]}
    search = GridSearchCV(LinearRNNRegressor(**SUBSPACE), grid, cv=TimeSeriesSplit(4)).fit(X, y)
    assert search.best_params_ == {"n_hidden": 1, "ridge": 0.0}


def test_a_score_predicts_every_target_from_the_others() -> None:
    model, X, y = system(30, q=2)
    rng = np.random.default_rng(0)
    y = y + rng.standard_normal(y.shape)
    y[rng.random(y.shape) < 0.2] = np.nan
    lengths = [12, 18]
    expected = np.full(y.shape, np.nan)
    for t, j in np.argwhere(~np.isnan(y)):
        others = y.copy()
        others[t, j] = np.nan
        states = model.estimate_state(X, others, lengths)
        expected[t, j] = model.predict(X, lengths, h0=states)[t, j]
    known = ~np.isnan(y)
    scores = [r2_score(y[known[:, j], j], expected[known[:, j], j]) for j in range(2)]
    assert model.score(X, y, lengths=lengths) == pytest.approx(np.mean(scores), abs=1e-10)


# --- states -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2])
def test_the_state_of_new_data(q: int) -> None:
    model, X, y = system(q=q)
    state = model.estimate_state(X[:40], y[:40])
    np.testing.assert_allclose(model.predict(X, h0=state), y, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.forecast(80, X[40:], past=(X[:40], y[:40])), y[40:], rtol=0, atol=1e-8)
    held = model.forecast(3, past=(X[:40], y[:40]))
    repeated = np.concatenate([X[:40], np.repeat(X[39:40], 3, axis=0)])
    np.testing.assert_allclose(held, model.predict(repeated, h0=state)[40:], rtol=0, atol=1e-8)
    # A gap does not matter, and two sequences have states of their own.
    holed = y.copy()
    holed[5:9] = np.nan
    np.testing.assert_allclose(model.estimate_state(X[:40], holed[:40]), state, rtol=0, atol=1e-7)
    states = model.estimate_state(X, y, lengths=[50, 70])
    assert states.shape == (2, 3)
    np.testing.assert_allclose(model.predict(X, [50, 70], h0=states), y, rtol=0, atol=1e-8)
    both = model.forecast(2, np.repeat(X[:1], 4, axis=0), past=(X, y, [50, 70]))
    alone = model.forecast(2, np.repeat(X[:1], 2, axis=0), past=(X[50:], y[50:]))
    np.testing.assert_allclose(both[2:], alone, rtol=0, atol=1e-8)


def test_what_predictions_begin_in() -> None:
    X, y = first_order(0.9)
    model = LinearRNNRegressor(1, **SUBSPACE).fit(X[:200], y[:200])
    given = {"training_start": model.h0_, "training_end": model.final_state_, "zero": np.zeros(1)}
    for name, state in given.items():
        again = clone(model).set_params(predict_from=name).fit(X[:200], y[:200])
        np.testing.assert_allclose(again.predict(X), again.simulate(X, state), rtol=0, atol=1e-9)
        scored = again.set_params(score_from="predict")
        assert scored.score(X, y) == pytest.approx(r2_score(y, again.predict(X)), abs=1e-12)
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"predict_from": "end"}, "predict_from must be one of 'training_start', 'training_end', 'zero'"),
        ({"score_from": "end"}, "score_from must be one of 'targets', 'predict'"),
    )
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            LinearRNNRegressor(1, **options).fit(X, y)
    with pytest.raises(ValueError, match=r"h0 must have shape \(1,\) or \(1, 1\), not \(2,\)"):
        model.predict(X, h0=[1.0, 2.0])
    with pytest.raises(TypeError, match=r"past must be \(X, y\) or \(X, y, lengths\)"):
        model.forecast(3, past=X)  # type: ignore[arg-type]  # that is the test
    with pytest.raises(ValueError, match=r"y must have shape \(300,\), not \(300, 2\)"):
        model.estimate_state(X, np.ones((300, 2)))


def test_a_target_that_alone_tells_of_a_state() -> None:
    model = LinearRNNRegressor.from_state_space(np.diag([0.9, 0.5]), [[1.0], [1.0]], np.eye(2))
    y = np.array([[3.0, 1.0], [np.nan, 0.5]])
    X = np.zeros((2, 1))
    # The first output has one target: without it nothing is known of its state.
    np.testing.assert_allclose(model.estimate_state(X, y), [3.0, 1.0], rtol=0, atol=1e-12)


# --- without inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("biases", [True, False])
def test_networks_without_inputs(biases: bool) -> None:
    t = np.arange(100)
    y = np.column_stack([0.97**t * np.cos(0.3 * t), 0.9**t])
    model = LinearRNNRegressor(3, biases=biases, **SUBSPACE).fit(None, y)
    assert model.n_features_in_ == 0
    assert model.params_.W_hx.shape == (3, 0)
    np.testing.assert_allclose(model.predict(None), y, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.predict(np.zeros((30, 0))), y[:30], rtol=0, atol=1e-9)
    assert model.score(None, y) > 1 - 1e-9
    later = np.column_stack([0.97 ** (t + 100) * np.cos(0.3 * (t + 100)), 0.9 ** (t + 100)])
    np.testing.assert_allclose(model.forecast(100), later, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.forecast(60, past=(None, y[:40])), y[40:], rtol=0, atol=1e-9)
    state = model.estimate_state(None, y[20:])
    np.testing.assert_allclose(model.predict(np.zeros((80, 0)), h0=state), y[20:], rtol=0, atol=1e-9)
    form = model.to_state_space()
    assert form.B.shape == (3, int(biases))
    back = LinearRNNRegressor.from_state_space(*form, constant_input=biases)
    np.testing.assert_allclose(back.predict(np.zeros((100, 0))), y, rtol=0, atol=1e-8)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(None), model.predict(None))
    with pytest.raises(ValueError, match=r"X must be None or have shape \(n, 0\), not \(100, 1\)"):
        model.predict(np.zeros((100, 1)))
    with pytest.raises(ValueError, match=r"0 feature.*Pass X=None"):
        LinearRNNRegressor(3).fit(np.zeros((100, 0)), y)
    with pytest.raises(ValueError, match=r"X must have shape \(n, 1\), not None"):
        LinearRNNRegressor(1, **SUBSPACE).fit(np.ones((100, 1)), y).predict(None)


# --- every kind of array ------------------------------------------------------------------------------------


def everything(X: Array, y: Array, lengths: Array, h0: Array, weights: Array) -> list[Array]:
    """Call every method on these arguments."""
    model = LinearRNNRegressor(2, n_starts=2, max_iter=3, random_state=0).fit(X, y, lengths)
    state = model.estimate_state(X, y, lengths)
    return [
        model.params_.ravel(),
        model.predict(X, lengths),
        model.predict(X, lengths, h0=h0),
        model.simulate(X, h0[0]),
        model.forecast(len(X) // 2, X),
        model.forecast(len(X) // 2, X, past=(X, y, lengths)),
        np.array(model.score(X, y, weights, lengths)),
        state,
    ]


ARGUMENTS = ("X", "y", "lengths", "h0", "weights")


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("variety", ZOO)
def test_every_layout_of_every_argument(variety: str, argument: str) -> None:
    rng = np.random.default_rng(0)
    given: dict[str, Array] = {
        "X": rng.standard_normal((40, 2)),
        "y": rng.standard_normal((40, 2)),
        "lengths": np.array([20, 20]),
        "h0": rng.standard_normal((2, 2)),
        "weights": rng.uniform(0.5, 1, 40),
    }
    change: Callable[[Array], Array] = ZOO[variety]
    given[argument] = change(given[argument])
    before = given[argument].tobytes()
    found = everything(*given.values())
    expected = everything(*(contiguous(array) for array in given.values()))
    for one, other in zip(found, expected, strict=True):
        assert type(one) is np.ndarray
        assert one.tobytes() == other.tobytes()
    assert given[argument].tobytes() == before


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(complex),
        lambda a: a.astype("datetime64[s]"),
        lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 0),
        lambda a: np.array([{}] * a.size).reshape(a.shape),
        lambda a: np.array(["x"] * a.size).reshape(a.shape),
    ],
    ids=["complex", "datetime", "masked", "object", "string"],
)
def test_arrays_that_are_refused(argument: str, change: Callable[[Array], Array]) -> None:
    rng = np.random.default_rng(0)
    given: dict[str, Array] = {
        "X": rng.standard_normal((40, 2)),
        "y": rng.standard_normal((40, 2)),
        "lengths": np.array([20, 20]),
        "h0": rng.standard_normal((2, 2)),
        "weights": rng.uniform(0.5, 1, 40),
    }
    given[argument] = change(given[argument])
    with pytest.raises((TypeError, ValueError), match=argument.replace("weights", "sample_weight")):
        everything(*given.values())
    model = LinearRNNRegressor(2, **SUBSPACE).fit(rng.standard_normal((40, 2)), rng.standard_normal((40, 2)))
    X, y, lengths, h0, weights = given.values()
    calls: dict[str, list[Callable[[], Any]]] = {
        "X": [
            lambda: model.predict(X),
            lambda: model.simulate(X),
            lambda: model.forecast(40, X),
            lambda: model.estimate_state(X, y),
            lambda: model.score(X, y),
            lambda: model.forecast(1, past=(X, y)),
        ],
        "y": [
            lambda: model.score(X, y),
            lambda: model.estimate_state(X, y),
            lambda: model.forecast(1, past=(X, y)),
        ],
        "lengths": [lambda: model.predict(X, lengths), lambda: model.score(X, y, lengths=lengths)],
        "h0": [lambda: model.predict(X, [20, 20], h0=h0), lambda: model.simulate(X, h0[0])],
        "weights": [lambda: model.score(X, y, weights)],
    }
    for call in calls[argument]:
        with pytest.raises((TypeError, ValueError), match=argument.replace("weights", "sample_weight")):
            call()


def test_an_estimate_is_the_shortest_where_targets_do_not_tell() -> None:
    params = rnnbptt.Params.random(1, 3, 1, rng=0)
    model = LinearRNNRegressor.from_state_space(params.W_hh, params.W_hx, params.W_qh)
    state = model.estimate_state(np.zeros((1, 1)), np.ones(1))
    assert np.isfinite(state).all()
    np.testing.assert_allclose(model.predict(np.zeros((1, 1)), h0=state), 1.0, rtol=0, atol=1e-10)


def test_rows_that_are_no_successive_steps_where_an_index_tells() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = first_order(0.9, 60)
    frame = pandas.DataFrame({"u": X[:, 0]})
    model = LinearRNNRegressor(1, **SUBSPACE)
    model.fit(frame, y)
    model.fit(frame.iloc[20:], y[20:])
    model.fit(pandas.concat([frame[:30], frame[:30]]), y, lengths=[30, 30])
    model.fit(X, pandas.Series(y, index=pandas.date_range("2020-01-01", periods=60, freq="MS")))
    order = np.random.default_rng(0).permutation(60)
    with pytest.warns(UserWarning, match="not in order: a shuffled split"):
        model.fit(frame.iloc[order], y[order])
    kept = np.r_[:20, 40:60]
    with pytest.warns(UserWarning, match="has a gap: was a part cut out"):
        model.fit(frame.iloc[kept], y[kept])


# --- experiments by the labels of rows ----------------------------------------------------------------------


def test_labels_of_rows_are_experiments() -> None:
    model, X, _ = system(90, q=1)
    rng = np.random.default_rng(1)
    lengths, names = [40, 20, 30], np.repeat(["c", "a", "b"], [40, 20, 30])
    y = model.predict(X, lengths, h0=3 * rng.standard_normal((3, 3)))
    fitted = LinearRNNRegressor(3, **SUBSPACE).fit(X, y, lengths)
    within = np.concatenate([np.arange(length) for length in lengths])
    mixed = np.concatenate([np.flatnonzero(names == name) for name in "cab"])
    for rows in (mixed, np.argsort(within, kind="stable")):
        # Rows of an experiment in their order, be they among those of others.
        labelled = LinearRNNRegressor(3, **SUBSPACE).fit(X[rows], y[rows], experiments=names[rows])
        assert labelled.h0_.shape == (3, 3)
        found = labelled.predict(X[rows], experiments=names[rows])
        np.testing.assert_allclose(found, y[rows], rtol=0, atol=1e-6)
        assert labelled.score(X[rows], y[rows], experiments=names[rows]) > 1 - 1e-9
        states = labelled.estimate_state(X[rows], y[rows], experiments=names[rows])
        np.testing.assert_allclose(
            labelled.predict(X[rows], experiments=names[rows], h0=states), y[rows], rtol=0, atol=1e-6
        )
        # An experiment that was fitted begins in the state of its own, alone as well.
        one = names[rows] == "b"
        alone = labelled.predict(X[rows][one], experiments=names[rows][one])
        np.testing.assert_allclose(alone, y[rows][one], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        fitted.params_.ravel(), LinearRNNRegressor(3, **SUBSPACE).fit(X, y, experiments=names).params_.ravel()
    )
    with pytest.warns(UserWarning, match="taken for one sequence"):
        labelled.score(X, y)
    for wrong, error, message in (
        (names[:5], ValueError, r"experiments must have shape \(90,\)"),
        (np.full(90, np.nan), ValueError, "a label for every row, not NaN"),
        (np.full(90, 1j), TypeError, "experiments must hold numbers or strings"),
    ):
        with pytest.raises(error, match=message):
            fitted.fit(X, y, experiments=wrong)
    with pytest.raises(ValueError, match="lengths must not be given beside experiments"):
        fitted.fit(X, y, lengths, names)


def test_splitters_cut_labels() -> None:
    from sklearn import config_context
    from sklearn.model_selection import GroupKFold

    model, X, _ = system(120, q=1)
    names = np.repeat(np.arange(6), 20)
    y = model.predict(X, [20] * 6, h0=3 * np.random.default_rng(1).standard_normal((6, 3)))
    with config_context(enable_metadata_routing=True):
        asking = LinearRNNRegressor(3, **SUBSPACE)
        asking = asking.set_fit_request(experiments=True).set_score_request(experiments=True)
        scores = cross_val_score(
            asking, X, y, cv=GroupKFold(3), params={"experiments": names, "groups": names}
        )
    np.testing.assert_allclose(scores, 1.0, rtol=0, atol=1e-9)
