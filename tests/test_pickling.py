"""Whatever is public pickles and copies, also after use, and into other processes, equal to the bit."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import multiprocessing
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt import Chunked, Objective, Params, Randomized, Sliding
from rnnbptt.engine.losses import LOSSES

T, B, d, h, q = 24, 2, 2, 4, 2
rng = np.random.default_rng(5)
X, Y = rng.standard_normal((T, B, d)), rng.standard_normal((T, B, q))
LABELS = rng.integers(0, q, (T, B))
H0 = rng.standard_normal((B, h))
PARAMS = Params.random(d, h, q, biases=True, direct=True, rng=1)
SMALL = Params.random(d, h, q, rng=1, dtype=np.float32)
V = rng.standard_normal(PARAMS.size)


def power_loss(o: Any, y: Any) -> tuple[float, Any]:
    """A loss of a caller's, which pickles by its name."""
    return float(np.sum((o - y) ** 4)), 4 * (o - y) ** 3


class Noted(Objective):
    """An objective of a caller's that knows more, and takes other arguments."""

    def __init__(self, note: str) -> None:
        super().__init__(X, Y, like=PARAMS)
        self.note = note


def used(objective: Objective, like: Params = PARAMS) -> Objective:
    """Return an objective that has made all it makes on the way."""
    assert len(list(answers_of_objective(objective, like))) > 1
    return objective


def read(report: Any) -> Any:
    """Return a report whose lazy parts were computed."""
    str(report)
    report.to_dict()
    return report


def drawn(randomized: Randomized) -> Randomized:
    randomized.cuts(3, 2)
    return randomized


def fitted() -> Any:
    pytest.importorskip("sklearn")
    model = rnnbptt.LinearRNNRegressor(n_hidden=2, n_starts=2, max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a fit stopped early
        return model.fit(X[:, 0], Y[:, 0])


def flow() -> rnnbptt.GradientFlow:
    return rnnbptt.gradient_flow(PARAMS, X, Y, lags=8)


losses: dict[str, Callable[[], Any]] = {
    name: lambda name=name: Objective(  # type: ignore[misc]  # bound as it is now
        X, LABELS if LOSSES[name].labels else Y, loss=name, like=PARAMS, h0=H0, wrt=("W_hh", "h0")
    )
    for name in LOSSES
}
MAKERS: dict[str, Callable[[], Any]] = {
    "Params": lambda: PARAMS,
    "Params, float32": lambda: SMALL,
    "Gradients": lambda: rnnbptt.loss_and_grad(PARAMS, X, Y, wrt=("W_hh", "x"))[1],
    "Trajectory": lambda: rnnbptt.forward(PARAMS, X),
    "Sliding": lambda: Sliding(3),
    "Chunked": lambda: Chunked(3),
    "Randomized": lambda: drawn(Randomized(3.5, rng=4)),
    "Randomized, probability": lambda: drawn(Randomized(probability=0.1, rng=4)),
    "Schedule": lambda: rnnbptt.explain(PARAMS, X),
    "GaussNewton": lambda: Objective(X, Y, like=PARAMS).gauss_newton(PARAMS.ravel()),
    "SpectralReport": lambda: rnnbptt.spectral_report(PARAMS.W_hh),
    "SpectralReport, read": lambda: read(rnnbptt.spectral_report(PARAMS.W_hh)),
    "GradientFlow": flow,
    "GradientFlow, read": lambda: read(flow()),
    "RangeExits": lambda: flow().range_exits("float32"),
    "TruncationReport": lambda: rnnbptt.truncation_report(PARAMS, X, Y, lags=8),
    "TruncationReport, read": lambda: read(rnnbptt.truncation_report(PARAMS, X, Y, lags=8)),
    "Objective, without like": lambda: Objective(X, Y),
    "Objective, without like, used": lambda: used(Objective(X, Y)),
    "Objective, float32": lambda: used(Objective(X.astype(np.float32), Y.astype(np.float32)), SMALL),
    "Objective, of everything": lambda: used(
        Objective(
            X.swapaxes(0, 1),
            Y.swapaxes(0, 1),
            like=PARAMS,
            h0=H0,
            weights=np.ones((B, T)),
            lengths=[T, 5],
            mask=np.ones((B, T), bool),
            batch_first=True,
            wrt=(name for name in ("W_hh", "h0", "x")),  # type: ignore[arg-type]  # read once is enough
            num_threads=1,
            memory_limit=2**24,
        )
    ),
    "Objective, sliding": lambda: used(Objective(X, Y, truncate=Sliding(3))),
    "Objective, chunked": lambda: used(Objective(X, Y, truncate=Chunked(3), like=PARAMS)),
    "Objective, randomized": lambda: used(Objective(X, Y, truncate=Randomized(3, rng=2), like=PARAMS)),
    "Objective, of a caller's loss": lambda: used(Objective(X, Y, loss=power_loss, like=PARAMS)),
    "Objective, of a class of its own": lambda: used(Noted("here")),
    "regressor": fitted,
    "StateSpace": lambda: fitted().to_state_space(),
    "StartSummary": lambda: fitted().starts_[0],
    **{f"Objective, {name}": make for name, make in losses.items()},
    **{f"Objective, {name}, used": lambda make=make: used(make()) for name, make in losses.items()},  # type: ignore[misc]
}


def answers_of_objective(objective: Objective, like: Params) -> Iterator[Any]:
    yield objective(like)
    yield sorted(objective._options["wrt"] or ())
    if objective._like is not None:
        start = None if "h0" not in (objective._options["wrt"] or ()) else np.zeros_like(H0)
        theta = objective.pack(like, start)
        yield objective.flat(theta)
        if objective._truncate is None and not callable(objective._loss):
            yield objective.hessp(theta, np.ones_like(theta))
            yield objective.gauss_newton(theta)


def bits(value: Any) -> Any:
    """Return everything that an object holds and answers, as bytes and numbers that can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.random.Generator):
        return bits(value.bit_generator.state)
    if isinstance(value, Objective):
        like = SMALL if np.asarray(value._x).dtype == np.float32 else PARAMS
        return type(value), getattr(value, "note", None), [bits(v) for v in answers_of_objective(value, like)]
    if is_dataclass(value):
        held = [bits(getattr(value, field.name)) for field in fields(value) if field.repr]
        lazy = [bits(getattr(value, name, None)) for name in ("rng", "alignment", "leading_eigenvalues")]
        return type(value), held, lazy
    if isinstance(value, dict):
        return {name: bits(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value), [bits(entry) for entry in value]
    if hasattr(value, "get_params"):
        return value.get_params(), bits(value.params_), bits(value.predict(X[:, 0])), bits(value.forecast(3))
    return repr(value)


@pytest.mark.parametrize("name", MAKERS)
def test_copies_hold_and_answer_the_same_to_the_bit(name: str) -> None:
    thing = MAKERS[name]()
    pickles = [pickle.dumps(thing, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    copies = [copy.deepcopy(thing), *map(pickle.loads, pickles)]
    # Made anew for each: answers of what draws at random go on from call to call.
    expected = bits(MAKERS[name]())
    for other in copies:
        assert type(other) is type(thing)
        assert bits(other) == expected
    assert bits(copy.copy(MAKERS[name]())) == expected


def public_functions() -> list[Any]:
    modules = [rnnbptt, rnnbptt.reference]
    return [
        thing
        for module in modules
        for name in module.__all__
        if callable(thing := getattr(module, name)) and not inspect.ismodule(thing)
    ]


def test_functions_and_classes_pickle_by_name() -> None:
    for thing in public_functions():
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(thing, protocol)) is thing
    flat = pickle.loads(pickle.dumps(Objective(X, Y, like=PARAMS).flat))
    assert bits(flat(PARAMS.ravel())) == bits(Objective(X, Y, like=PARAMS).flat(PARAMS.ravel()))


def test_every_public_class_is_among_those_tested() -> None:
    tested = {type(make()).__name__ for name, make in MAKERS.items() if "regressor" not in name}
    for thing in public_functions():
        if inspect.isclass(thing) and thing.__name__ != "LinearRNNRegressor":
            assert thing.__name__ in tested


def there(things: dict[str, Any]) -> dict[str, Any]:
    """What a process does with what it was sent."""
    return {name: bits(thing) for name, thing in things.items()}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_take_everything_and_answer_the_same(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    needs_sklearn = () if importlib.util.find_spec("sklearn") else ("regressor", "StateSpace", "StartSummary")
    names = [name for name in MAKERS if name not in needs_sklearn]
    with multiprocessing.get_context(method).Pool(1) as pool:
        answered = pool.apply(there, ({name: MAKERS[name]() for name in names},))
    assert answered == {name: bits(MAKERS[name]()) for name in names}


def test_joblib_takes_everything_and_answers_the_same() -> None:
    joblib = pytest.importorskip("joblib")
    names = [*MAKERS]
    (answered,) = joblib.Parallel(n_jobs=2)([joblib.delayed(there)({name: MAKERS[name]() for name in names})])
    assert answered == {name: bits(MAKERS[name]()) for name in names}
