"""No public call raises FloatingPointError or warns of one, whatever the caller's ``numpy.errstate``."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, Array
from rnnbptt import Chunked, Gradients, Objective, Params, Randomized, Sliding
from rnnbptt.engine import losses

Call = Callable[[], Any]

SIZES = (0.0, 5e-324, 1e-310, 1e-200, 1e-30, 1.0, 1e30, 1e200, 1.7e308)


def matrices() -> Iterator[Array]:
    """Go through matrices of every size and of many kinds."""
    rng = np.random.default_rng(0)
    for size in SIZES:
        yield np.array([[size]])
        yield np.eye(3) * size
        yield np.array([[0.5, size], [0, 0.3]])
        yield np.array([[0.5, size], [size, 0.3]])
        yield np.array([[0, size], [0, 0]])
        yield np.array([[0.5, 1], [0, 0.5]]) * size
        yield np.diag([size, -size, 1.0])
        yield rng.uniform(-1, 1, (4, 4)) * size
    yield np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    yield 1.5 * np.array([[np.cos(1), np.sin(1)], [-np.sin(1), np.cos(1)]])
    yield np.diag([1e-300, 1e300])
    yield np.triu(np.full((5, 5), 1e100), 1) + np.eye(5) / 2
    yield np.array([[1, 1], [0, 1]], np.float32) * np.float32(1e-40)
    yield np.eye(2, dtype=np.float32) * np.float32(3e38)
    for value in (np.nan, np.inf):
        yield np.array([[value, 1], [0, 1]])


MATRICES = list(matrices())


def everything_of(value: Any) -> None:
    """Ask for every public attribute of an object, and call the methods that need no argument."""
    for name in dir(type(value)):
        if name.startswith("_") or name in ("random", "unravel", "from_state_space"):
            continue
        attribute = getattr(value, name)
        if name == "plot":
            pytest.importorskip("matplotlib")
            from matplotlib import pyplot as plt

            figure = attribute()
            figure.canvas.draw()
            plt.close(figure)
        elif callable(attribute):
            attribute()
    arriving = getattr(value, "arriving", None)
    if arriving is not None:
        everything_of(arriving)
    str(value), repr(value)
    pickle.loads(pickle.dumps(value))
    copy.deepcopy(value)


def quietly(call: Call) -> None:
    """Call with floating-point errors raised; warnings are errors in all tests."""
    with np.errstate(all="raise"):
        try:
            result = call()
        except ValueError:  # of an argument that is refused
            return
        if hasattr(result, "to_dict"):
            for tol in (1e-300, 0.01, 0.5):
                for name in ("choose", "horizon"):
                    if hasattr(result, name):
                        getattr(result, name)(tol)
            everything_of(result)


@pytest.mark.parametrize("number", range(len(MATRICES)))
def test_matrices(number: int) -> None:
    W = MATRICES[number]
    quietly(lambda: rnnbptt.spectral_report(W))
    quietly(lambda: rnnbptt.matrix_powers(W, 5))
    for order in (2, "fro", 1, np.inf):
        quietly(lambda order=order: rnnbptt.power_norms(W, [0, 1, 2, 7, 10**9], order))  # type: ignore[misc]
    quietly(lambda: rnnbptt.linear_scan(W, np.ones((40, len(W)), W.dtype)))


def test_the_examples_give_the_right_value_too() -> None:
    with np.errstate(all="raise"):
        report = rnnbptt.spectral_report([[0.5, 1e-200], [0, 0.3]])
        assert report.spectral_radius == 0.5
        assert report.growth == "decaying"
        report = rnnbptt.spectral_report(np.eye(3) * 1e-310)
        assert report.spectral_radius == 1e-310
        assert report.largest_singular_value == 1e-310
        assert rnnbptt.power_norms([[1e-310]], [2])[0] == pytest.approx(2 * np.log2(1e-310), rel=1e-15)


def problem(seed: int) -> tuple[Params, Array, Array, dict[str, Any]]:
    """Draw a problem with one or two arrays of an extreme size."""
    rng = np.random.default_rng(seed)
    d, h, q, T, B = 2, 3, 2, 12, 2
    dtype = (np.float64, np.float32)[seed % 2]
    arrays: dict[str, Array] = {
        "W_hx": rng.standard_normal((h, d)),
        "W_hh": rng.standard_normal((h, h)) * rng.choice([0.2, 0.6, 2]),
        "W_qh": rng.standard_normal((q, h)),
        "b_h": rng.standard_normal(h),
        "b_q": rng.standard_normal(q),
        "W_qx": rng.standard_normal((q, d)),
        "x": rng.standard_normal((T, B, d)),
        "h0": rng.standard_normal((B, h)),
        "y": rng.standard_normal((T, B, q)),
    }
    sizes = [*SIZES, np.nan, np.inf]
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(list(arrays)))
        array = arrays[name]
        with np.errstate(all="ignore"):
            array = array * rng.choice(sizes) if rng.integers(2) else array
            if rng.integers(2):
                array.flat[int(rng.integers(array.size))] = rng.choice(sizes)
        arrays[name] = array
    with np.errstate(all="ignore"):
        arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    x, h0, y = (arrays.pop(name) for name in ("x", "h0", "y"))
    loss = LOSSES[seed % len(LOSSES)]
    if losses.LOSSES[loss].labels:
        y = rng.integers(0, q, (T, B))
    return Params(**arrays), x, y, {"loss": loss, "h0": h0}


@pytest.mark.parametrize("seed", range(60))
def test_problems(seed: int) -> None:
    params, x, y, options = problem(seed)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    d_o = np.ones((len(x), 2, 2), params.dtype)
    h0 = options["h0"]
    quietly(lambda: rnnbptt.gradient_flow(params, x, y, **options))
    quietly(lambda: rnnbptt.truncation_report(params, x, y, rng=0, **options))
    quietly(lambda: rnnbptt.forward(params, x, h0))
    quietly(lambda: rnnbptt.explain(params, x))
    for truncate in (None, Sliding(3), Chunked(4), Randomized(4, rng=0)):
        quietly(lambda t=truncate: rnnbptt.loss_and_grad(params, x, y, wrt=wrt, truncate=t, **options))  # type: ignore[misc]
        quietly(lambda t=truncate: rnnbptt.vjp(params, x, d_o, h0, wrt=wrt, truncate=t))  # type: ignore[misc]
    for method in ("recursion", "closed_form", "scan"):
        quietly(lambda m=method: rnnbptt.state_gradients(params, d_o, method=m))  # type: ignore[misc]
    along = Gradients(**dict(params.items()), h0=h0)
    quietly(lambda: rnnbptt.jvp(params, x, along, h0=h0))
    quietly(lambda: rnnbptt.hvp(params, x, y, along, **options))
    quietly(lambda: rnnbptt.output_jacobian(params, x, h0=h0))
    for keep in ("raise", "keep", "zero"):
        quietly(lambda k=keep: rnnbptt.clip_by_global_norm(along, 1e-300, on_nonfinite=k))  # type: ignore[misc]
        quietly(lambda k=keep: rnnbptt.clip_by_global_norm(along, 1.0, on_nonfinite=k))  # type: ignore[misc]
    objective = Objective(x, y, like=params, **options)
    theta = params.ravel()
    quietly(lambda: objective(params))
    quietly(lambda: objective.flat(theta))
    quietly(lambda: objective.hessp(theta, theta))
    quietly(lambda: objective.residuals(theta))
    quietly(lambda: objective.jac(theta))
    quietly(lambda: objective.gauss_newton(theta))
    reference = rnnbptt.reference
    quietly(lambda: reference.forward(params, x, h0))
    quietly(lambda: reference.loss_and_grad(params, x, y, wrt=wrt, **options))
    quietly(lambda: reference.vjp(params, x, d_o, h0, wrt=wrt))


@pytest.mark.parametrize("size", [1e-310, 1e-200, 1.0, 1e150])
def test_regressor(size: float) -> None:
    fit: Any = pytest.importorskip("rnnbptt.fit")

    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2)) * size
    y = np.cumsum(X[:, 0]) + size * rng.standard_normal(60)

    def fitted() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a fit stopped early
            model = fit.LinearRNNRegressor(2, n_starts=2, max_iter=5, random_state=0).fit(X, y)
        model.predict(X)
        model.score(X, y)
        model.forecast(3, X[:3])
        model.simulate(X)
        model.to_state_space()
        str(model.spectral_report())

    quietly(fitted)
