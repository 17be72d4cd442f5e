"""Parameters and gradients as objects: steps, dicts and files, what they look like on a screen."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt import Gradients, Objective, Params

PARAMS = Params.random(2, 4, 3, biases=True, direct=True, rng=0)
SMALL = Params.random(2, 4, 3, rng=0, dtype=np.float32)
X, Y = np.ones((6, 2)), np.zeros((6, 3))


# --- steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [PARAMS, SMALL], ids=["float64", "float32"])
@pytest.mark.parametrize("rate", [0.1, -0.5, 0, np.float32(0.25), 2])
def test_a_step_is_the_difference(params: Params, rate: Any) -> None:
    x, y = X.astype(params.dtype), Y.astype(params.dtype)
    _, gradients = rnnbptt.loss_and_grad(params, x, y)
    after = params.step(gradients, rate)
    assert after.dtype == params.dtype
    for (name, new), (_, old) in zip(after.items(), params.items(), strict=True):
        expected = old - params.dtype.type(rate) * getattr(gradients, name)
        assert new.tobytes() == expected.tobytes(), name


def test_steps_go_down() -> None:
    params, losses = PARAMS, []
    for _ in range(20):
        loss, gradients = rnnbptt.loss_and_grad(params, X, Y)
        losses.append(loss)
        params = params.step(gradients, rate=0.02)
    assert np.all(np.diff(losses) < 0)


def test_what_was_not_asked_for_stays() -> None:
    _, gradients = rnnbptt.loss_and_grad(PARAMS, X, Y, wrt=("W_hh", "h0", "x"))
    after = PARAMS.step(gradients, 0.1)
    assert not np.array_equal(after.W_hh, PARAMS.W_hh)
    assert all(getattr(after, name) is array for name, array in PARAMS.items() if name != "W_hh")
    assert PARAMS.step(Gradients(), 0.1).ravel().tobytes() == PARAMS.ravel().tobytes()


def test_steps_that_overflow_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = PARAMS.step(Gradients(W_hh=np.full((4, 4), 1e308)), 1e10)
        assert np.isneginf(after.W_hh).all()
        assert np.isnan(PARAMS.step(Gradients(b_h=np.full(4, np.nan)), 0.0).b_h).all()  # type: ignore[arg-type]
        SMALL.step(Gradients(W_hh=np.ones((4, 4), np.float32)), 1e300)


NO_STEPS: list[tuple[Params, Any, Any, type[Exception], str]] = [
    (PARAMS, PARAMS, 0.1, TypeError, "gradients must be Gradients, not Params"),
    (PARAMS, {"W_hh": np.eye(4)}, 0.1, TypeError, "gradients must be Gradients, not dict"),
    (PARAMS, {"W_hh": np.eye(3)}, None, ValueError, "gradients.W_hh must have shape (4, 4), not (3, 3)"),
    (PARAMS, {"W_hh": np.eye(4) * 1j}, None, TypeError, "gradients.W_hh must be an array of real numbers"),
    (SMALL, {"W_hh": np.eye(4)}, None, TypeError, "gradients.W_hh has dtype float64, which cannot be cast"),
    (SMALL, {"b_h": np.ones(4)}, None, ValueError, "gradients must have no b_h, as params has none"),
    (PARAMS, Gradients(), np.inf, ValueError, "rate must be finite, not inf"),
    (PARAMS, Gradients(), "0.1", TypeError, "rate must be a real number, not str '0.1'"),
    (PARAMS, Gradients(), True, TypeError, "rate must be a real number, not True"),
    (PARAMS, Gradients(), np.ones(2), TypeError, "rate must be a real number, not ndarray of shape (2,)"),
]


@pytest.mark.parametrize(("params", "gradients", "rate", "error", "message"), NO_STEPS)
def test_steps_that_do_not_fit_are_named(
    params: Params, gradients: Any, rate: Any, error: type[Exception], message: str
) -> None:
    if rate is None:  # what is wrong is a field
        gradients, rate = Gradients(**gradients), 0.1
    with pytest.raises(error, match=re.escape(message)):
        params.step(gradients, rate)


# --- dicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [PARAMS, SMALL], ids=["all terms", "three terms"])
def test_dicts_and_files_hold_what_is_present(params: Params, tmp_path: Path) -> None:
    values = params.to_dict()
    assert list(values) == [name for name, _ in params.items()]
    np.savez(tmp_path / "model.npz", **values)
    with np.load(tmp_path / "model.npz") as file:
        copies = [Params.from_dict(values), Params.from_dict(file)]
    for again in copies:
        assert again.dtype == params.dtype
        assert [(n, a.tobytes()) for n, a in again.items()] == [(n, a.tobytes()) for n, a in params.items()]
    assert Params.from_dict(values | {"b_h": None}).b_h is None


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"W_hx": [[1.0]], "W_hh": [[1.0]]}, ValueError, "values must hold W_qh"),
        (PARAMS.to_dict() | {"W_xx": [[1.0]]}, ValueError, "values must name some of 'W_hx', "),
        (PARAMS.to_dict() | {3: [[1.0]]}, TypeError, "values must hold names, not int 3"),
        (PARAMS.to_dict() | {"W_qh": np.eye(3)}, ValueError, "W_qh must have shape (q, 4), not (3, 3)"),
        (3, TypeError, "values must be a mapping of names to arrays, not int 3"),
        (PARAMS, TypeError, "values must be a mapping of names to arrays, not Params"),
    ],
)
def test_dicts_that_do_not_fit_are_named(values: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Params.from_dict(values)


# --- on a screen --------------------------------------------------------------------------------------------


def shown() -> dict[str, Any]:
    return {
        "Params": Params.random(50, 300, 20, rng=0),
        "Gradients": rnnbptt.loss_and_grad(PARAMS, X, Y, wrt=("W_hh", "x"))[1],
        "Trajectory": rnnbptt.forward(PARAMS, np.ones((5000, 2))),
        "GaussNewton": Objective(X, Y, like=PARAMS).gauss_newton(PARAMS.ravel()),
    }


def test_what_is_shown_is_short_and_says_shape_dtype_and_norm() -> None:
    for name, thing in shown().items():
        text = repr(thing)
        assert text.startswith(f"{name}(")
        assert len(text) < 300
        assert "\n" not in text
        html = thing._repr_html_()
        assert html.startswith("<table>")
        parts = thing._asdict() if hasattr(thing, "_asdict") else thing.to_dict()
        for field, array in parts.items():
            if isinstance(array, np.ndarray):
                words = f"{field}: {array.shape} {array.dtype} norm {np.linalg.norm(array):.4g}"
                assert words in text
                assert f"<td>{field}</td><td>{array.shape}</td><td>{array.dtype}</td>" in html
    assert repr(Gradients()) == "Gradients()"


@pytest.mark.parametrize(
    ("array", "norm"),
    [
        (np.full(4, 1e300), "2e+300"),
        (np.full(4, 1e-320), "2e-320"),
        (np.array([np.inf, 1.0]), "inf"),
        (np.array([np.nan, np.inf]), "nan"),
        (np.zeros((0, 3)), "0"),
        (np.zeros(3), "0"),
        (np.array([3, 4]), "5"),
        (np.array([3 + 4j]), "5"),
        (np.full(4, 1e38, np.float32), "2e+38"),
    ],
)
def test_norms_of_all_sizes_are_shown(array: Any, norm: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(Gradients(W_hh=array)).endswith(f"norm {norm})")


def test_what_holds_no_arrays_is_shown_too() -> None:
    strange: Any = {"W_hh": [[1.0]], "b_h": "<b>", "x": object()}
    assert repr(Gradients(**strange)) == "Gradients(W_hh: list, b_h: str, x: object)"
    assert "<b>" not in Gradients(W_hh=type("<b>", (), {})())._repr_html_()


def test_gradients_of_no_parameter_are_an_empty_vector() -> None:
    assert Gradients().ravel().shape == (0,)
    assert Gradients(x=np.ones((3, 2))).ravel().shape == (0,)
    listed: Any = Gradients(W_hh=[[1.0, 2.0]])  # type: ignore[arg-type]
    assert listed.ravel().tolist() == [1.0, 2.0]
