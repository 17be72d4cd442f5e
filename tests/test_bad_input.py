"""Arguments that do not fit are refused before any work, by a message that names them."""

# ruff: noqa: E501  (a table of messages, one row each)

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES
from rnnbptt import Objective, Params
from rnnbptt.engine.dataset import Dataset
from rnnbptt.engine.losses import LOSSES as NAMED_LOSSES
from rnnbptt.gradients.problem import Problem

REFUSALS = (TypeError, ValueError, OverflowError, MemoryError)
T, B, d, h, q = 6, 2, 3, 4, 2


def arguments() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "W_hx": rng.standard_normal((h, d)),
        "W_hh": rng.standard_normal((h, h)) / 3,
        "W_qh": rng.standard_normal((q, h)),
        "b_h": rng.standard_normal(h),
        "b_q": rng.standard_normal(q),
        "W_qx": rng.standard_normal((q, d)),
        "x": rng.standard_normal((T, B, d)),
        "y": rng.standard_normal((T, B, q)),
        "d_o": rng.standard_normal((T, B, q)),
        "labels": rng.integers(0, q, (T, B)),
        "h0": rng.standard_normal((B, h)),
        "weights": rng.uniform(size=(T, B)),
        "mask": np.ones((T, B), bool),
        "lengths": np.array([T, 2]),
        "v": rng.standard_normal((T, B, h)),
        "s0": rng.standard_normal((B, h)),
    }


GOOD = arguments()
PARAMETERS = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx")
params = Params(*(GOOD[name] for name in PARAMETERS))
narrow = Params(GOOD["W_hx"], GOOD["W_hh"], GOOD["W_qh"][:1])


def make_params(**changed: Any) -> Any:
    return Params(**({name: GOOD[name] for name in PARAMETERS} | changed))


def grad(**changed: Any) -> Any:
    given = {"params": params, "x": GOOD["x"], "y": GOOD["y"]} | changed
    return rnnbptt.loss_and_grad(given.pop("params"), given.pop("x"), given.pop("y"), **given)


def classify(**changed: Any) -> Any:
    return grad(**({"y": GOOD["labels"], "loss": "cross_entropy"} | changed))


def scan(**changed: Any) -> Any:
    given = {"W": GOOD["W_hh"], "v": GOOD["v"], "s0": GOOD["s0"]} | changed
    return rnnbptt.linear_scan(given.pop("W"), given.pop("v"), given.pop("s0"), **given)


def pull(**changed: Any) -> Any:
    given = {"params": params, "x": GOOD["x"], "d_o": GOOD["d_o"]} | changed
    return rnnbptt.vjp(given.pop("params"), given.pop("x"), given.pop("d_o"), **given)


def run(**changed: Any) -> Any:
    given = {"params": params, "x": GOOD["x"]} | changed
    return rnnbptt.forward(given.pop("params"), given.pop("x"), **given)


def states(**changed: Any) -> Any:
    given = {"params": params, "d_o": GOOD["d_o"]} | changed
    return rnnbptt.state_gradients(given.pop("params"), given.pop("d_o"), **given)


def powers(**changed: Any) -> Any:
    given = {"W": GOOD["W_hh"], "n": 3} | changed
    return rnnbptt.matrix_powers(given.pop("W"), given.pop("n"), **given)


def norms(**changed: Any) -> Any:
    given = {"W": GOOD["W_hh"], "ks": [3]} | changed
    return rnnbptt.power_norms(given.pop("W"), given.pop("ks"), **given)


ones = np.ones
Bad = tuple[Callable[..., Any], dict[str, Any], type[Exception], str]
BAD: list[Bad] = [
    # Parameters against one another.
    (make_params, {"W_hh": ones((4, 3))}, ValueError, "W_hh must be a square matrix of size at least 1, not of shape (4, 3)"),
    (make_params, {"W_hh": ones((0, 0))}, ValueError, "W_hh must be a square matrix"),
    (make_params, {"W_hh": 3.0}, ValueError, "W_hh must be a square matrix"),
    (make_params, {"W_hx": ones((3, 3))}, ValueError, "W_hx must have shape (4, d), not (3, 3)"),
    (make_params, {"W_hx": ones((0, 4))}, ValueError, "W_hx must have shape (4, d), not (0, 4)"),
    (make_params, {"W_qh": ones((2, 3))}, ValueError, "W_qh must have shape (q, 4), not (2, 3)"),
    (make_params, {"b_h": ones(3)}, ValueError, "b_h must have shape (4,), not (3,)"),
    (make_params, {"b_q": ones((2, 1))}, ValueError, "b_q must have shape (2,), not (2, 1)"),
    (make_params, {"W_qx": ones((2, 4))}, ValueError, "W_qx must have shape (2, 3), not (2, 4)"),
    (make_params, {"W_hh": ones((4, 4), np.float16)}, TypeError, "W_hh must be float32 or float64, not float16"),
    (make_params, {"W_hh": ones((4, 4), np.longdouble)}, TypeError, "W_hh must be float32 or float64"),
    (make_params, {"W_hh": ones((4, 4), complex)}, TypeError, "W_hh must be an array of real numbers, not of dtype complex128"),
    (make_params, {"W_hh": ones((4, 4), np.float32)}, TypeError, "W_hx has dtype float64, which cannot be cast safely to float32"),
    (make_params, {"W_hh": ones((4, 4), object)}, TypeError, "W_hh must be an array of real numbers, not of dtype object"),
    (make_params, {"W_hh": [["a", "b"], ["c", "d"]]}, TypeError, "W_hh must be an array of real numbers, not of dtype <U1"),
    (make_params, {"W_hh": np.ma.ones((4, 4))}, TypeError, "W_hh must not be a masked array"),
    (make_params, {"W_hh": [[1, 2], [3]]}, ValueError, "W_hh must be an array of numbers"),
    (make_params, {"W_hx": ones((4, 3), "M8[s]")}, TypeError, "W_hx must be an array of real numbers"),
    (make_params, {"W_hx": ones((4, 3), np.int64).astype("m8[s]")}, TypeError, "W_hx must be an array of real numbers"),
    # Sequences.
    (run, {"params": GOOD["W_hh"]}, TypeError, "params must be rnnbptt.Params, not ndarray"),
    (run, {"x": ones((6, 2, 4))}, ValueError, "x must have shape (T, 3) or (T, B, 3), not (6, 2, 4)"),
    (run, {"x": ones((6, 2, 4)), "batch_first": True}, ValueError, "x must have shape (T, 3) or (B, T, 3)"),
    (run, {"x": ones(3)}, ValueError, "x must have shape (T, 3)"),
    (run, {"x": ones((0, 2, 3))}, ValueError, "x must have at least one step and one sequence, not shape (0, 2, 3)"),
    (run, {"x": ones((6, 0, 3))}, ValueError, "x must have at least one step and one sequence"),
    (run, {"x": ones((6, 2, 3), np.longdouble)}, TypeError, "x has dtype"),
    (run, {"x": ones((6, 2, 3), complex)}, TypeError, "x must be an array of real numbers"),
    (run, {"x": None}, TypeError, "x must be an array of real numbers"),
    (run, {"h0": ones(4)}, ValueError, "h0 must have shape (2, 4), not (4,)"),
    (run, {"x": ones((6, 3)), "h0": ones((1, 4))}, ValueError, "h0 must have shape (4,), not (1, 4)"),
    (run, {"batch_first": 1}, TypeError, "batch_first must be True or False, not int 1"),
    (run, {"num_threads": 0}, ValueError, "num_threads must be at least 1, not 0"),
    (run, {"num_threads": float("nan")}, TypeError, "num_threads must be an integer, not float nan"),
    (run, {"num_threads": 2.0}, TypeError, "num_threads must be an integer"),
    (run, {"num_threads": True}, TypeError, "num_threads must be an integer, not True"),
    (run, {"num_threads": 10**30}, OverflowError, "num_threads must be at most"),
    (run, {"num_threads": "2"}, TypeError, "num_threads must be an integer"),
    # Losses and their weights.
    (grad, {"y": ones((6, 2, 3))}, ValueError, "y must have shape (6, 2, 2), not (6, 2, 3)"),
    (grad, {"y": ones((5, 2, 2))}, ValueError, "y must have shape (6, 2, 2), not (5, 2, 2)"),
    (grad, {"x": ones((2, 6, 3)), "batch_first": True}, ValueError, "y must have shape (2, 6, 2), not (6, 2, 2)"),
    (grad, {"loss": "mae"}, ValueError, f"loss must be one of {', '.join(map(repr, LOSSES))}, not 'mae'"),
    (grad, {"loss": None}, TypeError, "loss must be a string"),
    (grad, {"weights": -ones((6, 2))}, ValueError, "weights must be finite and at least 0"),
    (grad, {"weights": np.full((6, 2), np.nan)}, ValueError, "weights must be finite and at least 0"),
    (grad, {"weights": np.full((6, 2), np.inf)}, ValueError, "weights must be finite"),
    (grad, {"weights": ones(6)}, ValueError, "weights must have shape (6, 2), not (6,)"),
    (grad, {"weights": ones((6, 2, 3))}, ValueError, "weights must have shape (6, 2, 2), not (6, 2, 3)"),
    (grad, {"weights": ones((6, 2, 2, 1))}, ValueError, "weights must have shape (6, 2), not (6, 2, 2, 1)"),
    (grad, {"weights": -ones((6, 2, 2))}, ValueError, "weights must be finite and at least 0"),
    (classify, {"weights": ones((6, 2, 2))}, ValueError, "weights and mask must have one entry for each step for loss='cross_entropy': those of single outputs are for 'mse' and 'squared_error'"),
    (classify, {"mask": ones((6, 2, 2), bool)}, ValueError, "weights and mask must have one entry for each step for loss='cross_entropy'"),
    (grad, {"mask": ones((6, 2))}, TypeError, "mask must be an array of booleans, not of float64"),
    (grad, {"mask": ones((2, 6), bool)}, ValueError, "mask must have shape (6, 2), not (2, 6)"),
    (grad, {"mask": ones((6, 2, 3), bool)}, ValueError, "mask must have shape (6, 2, 2), not (6, 2, 3)"),
    (grad, {"lengths": [6, 7]}, ValueError, "lengths must lie between 0 and T = 6, not 7"),
    (grad, {"lengths": [-1, 6]}, ValueError, "lengths must lie between 0 and T = 6, not -1"),
    (grad, {"lengths": [6.0, 6.0]}, TypeError, "lengths must be integers, not of dtype float64"),
    (grad, {"lengths": [6]}, ValueError, "lengths must have shape (2,), not (1,)"),
    (grad, {"x": ones((6, 3)), "y": ones((6, 2)), "lengths": [6]}, ValueError, "lengths must be one number where x has no batch axis, not an array of shape (1,)"),
    (grad, {"lengths": [10**5000, 1]}, TypeError, "lengths must be an array of real numbers, not of dtype object"),
    (grad, {"params": narrow, "y": ones((6, 2))}, ValueError, "y must have shape (6, 2, 1), not (6, 2): pass y[:, :, None]"),
    (grad, {"params": narrow, "x": ones((6, 3)), "y": ones(6)}, ValueError, "y must have shape (6, 1), not (6,): pass y[:, None]"),
    (grad, {"params": Params([[1.0]], [[1.0]], [[1.0]]), "x": ones(6)}, ValueError, "x must have shape (T, 1) or (T, B, 1), not (6,): pass x[:, None]"),
    (grad, {"memory_limit": 1}, MemoryError, "memory_limit must be at least "),
    (grad, {"memory_limit": -(10**5000)}, ValueError, "memory_limit must be at least 1, not a number of 16610 bits"),
    (classify, {"y": GOOD["labels"][..., None]}, ValueError, "y must have shape (6, 2), not (6, 2, 1): pass y[..., 0]"),
    (rnnbptt.spectral_report, {"W_hh": params}, TypeError, "W_hh must be a square matrix, not Params: pass params.W_hh"),
    (norms, {"W": params}, TypeError, "W must be a square matrix, not Params: pass params.W_hh"),
    (rnnbptt.Randomized(2).cuts, {"steps": -1, "batch": 1}, ValueError, "steps must be at least 1, not -1"),
    (rnnbptt.reference.forward, {"params": 3, "x": GOOD["x"]}, TypeError, "params must be rnnbptt.Params, not int"),
    (rnnbptt.reference.loss_and_grad, {"params": params, "x": GOOD["x"], "y": GOOD["y"], "loss": lambda o, y: o}, TypeError, "loss must return a pair (L, d_o), not ndarray of shape (6, 2, 2)"),
    (grad, {"lengths": np.array([2**64 - 1, 6], np.uint64)}, ValueError, "lengths must lie between 0 and T = 6"),
    (grad, {"loss": lambda o, y: 0.0}, TypeError, "loss must return a pair (L, d_o), not float"),
    (grad, {"loss": lambda o, y: (0.0, o[:-1])}, ValueError, "d_o returned by loss must have shape (6, 2, 2), not (5, 2, 2)"),
    (grad, {"loss": lambda o, y: (None, o)}, TypeError, "L returned by loss must be a real number, not None"),
    (grad, {"loss": lambda o, y: ("1.5", o)}, TypeError, "L returned by loss must be a real number, not str '1.5'"),
    (grad, {"loss": lambda o, y: (1j, o)}, TypeError, "L returned by loss must be a real number, not complex 1j"),
    (grad, {"loss": lambda o, y: (ones(1), o)}, ValueError, "L returned by loss must be a number, not an array of shape (1,)"),
    (grad, {"loss": lambda o, y: o - y}, TypeError, "loss must return a pair (L, d_o), not ndarray of shape (6, 2, 2)"),
    (grad, {"loss": lambda o, y: (0.0, o, y)}, TypeError, "loss must return a pair (L, d_o), not a tuple of 3"),
    (grad, {"loss": lambda o, y: (0.0, o), "weights": ones((6, 2))}, ValueError, "weights must be None when loss is a function"),
    (grad, {"loss": lambda o, y: (0.0, o), "mask": ones((6, 2), bool)}, ValueError, "mask must be None when loss is a function"),
    (grad, {"wrt": ("W_hh", "W_xx")}, ValueError, "wrt must name some of 'W_hx'"),
    (grad, {"wrt": 3}, TypeError, "wrt must be a collection of names, not int 3"),
    (grad, {"wrt": (1,)}, TypeError, "wrt must hold names, not int 1"),
    (grad, {"params": Params(ones((4, 3)), ones((4, 4)), ones((2, 4))), "wrt": "b_h"}, ValueError, "wrt must name some of"),
    (classify, {"y": GOOD["y"]}, TypeError, "y must hold integer class labels for loss='cross_entropy', not float64"),
    (classify, {"y": np.full((6, 2), 2)}, ValueError, "y must hold class labels from 0 to 1, not 2"),
    (classify, {"y": np.full((6, 2), -1)}, ValueError, "y must hold class labels from 0 to 1, not -1"),
    (classify, {"y": np.full((6, 2), 2**64 - 1, np.uint64)}, ValueError, "y must hold class labels from 0 to 1"),
    (classify, {"y": np.zeros((6, 3), int)}, ValueError, "y must have shape (6, 2), not (6, 3)"),
    (pull, {"d_o": ones((6, 2, 3))}, ValueError, "d_o must have shape (6, 2, 2), not (6, 2, 3)"),
    (pull, {"d_o": ones((6, 2, 2), complex)}, TypeError, "d_o must be an array of real numbers"),
    # Scans and powers.
    (scan, {"W": ones((3, 4))}, ValueError, "W must be a square matrix"),
    (scan, {"v": ones((6, 2, 3))}, ValueError, "v must have shape (T, 4) or (T, B, 4), not (6, 2, 3)"),
    (scan, {"s0": ones((2, 3))}, ValueError, "s0 must have shape (2, 4), not (2, 3)"),
    (scan, {"reverse": 1}, TypeError, "reverse must be True or False"),
    (scan, {"transpose": "yes"}, TypeError, "transpose must be True or False"),
    (norms, {"ord": ones(2)}, TypeError, "ord must be a real number, not "),
    (norms, {"ord": True}, TypeError, "ord must be a real number, not "),
    (norms, {"ord": 3}, ValueError, "ord must be 2, 'fro', 1 or inf, not 3"),
    (rnnbptt.Randomized, {"tau": 10**400}, OverflowError, "tau must be at most"),
    (rnnbptt.Randomized, {"tau": 5, "rng": "a"}, TypeError, "rng must be a Generator, an integer or None, not str"),
    (rnnbptt.Params.random, {"d": 1, "h": 2, "q": 1, "rng": -1}, ValueError, "rng must be at least 0, not -1"),
    (rnnbptt.Params.random, {"d": 1, "h": 2, "q": 1, "rng": 1.5}, TypeError, "rng must be a Generator"),
    (powers, {"n": -1}, ValueError, "n must be at least 0, not -1"),
    (powers, {"n": 2.5}, TypeError, "n must be an integer, not float 2.5"),
    (powers, {"n": 10**30}, OverflowError, "n must be at most"),
    (states, {"method": "magic"}, ValueError, "method must be one of 'recursion', 'closed_form', 'scan', not 'magic'"),
    (states, {"method": 1}, TypeError, "method must be a string"),
    (states, {"d_o": ones((6, 3))}, ValueError, "d_o must have shape (T, 2) or (T, B, 2), not (6, 3)"),
    # Random parameters, vectors of parameters, threads.
    (Params.random, {"d": -1, "h": 1, "q": 1}, ValueError, "d must be at least 0, not -1"),
    (Params.random, {"d": 1, "h": 1.0, "q": 1}, TypeError, "h must be an integer, not float 1.0"),
    (Params.random, {"d": 1, "h": 1, "q": 1, "dtype": int}, TypeError, "dtype must be float32 or float64, not int64"),
    (Params.random, {"d": 1, "h": 1, "q": 1, "kind": "odd"}, ValueError, "kind must be one of 'gaussian', 'orthogonal', 'symmetric', 'identity', not 'odd'"),
    (Params.random, {"d": 1, "h": 2, "q": 1, "kind": ones(2)}, TypeError, "kind must be a string, not ndarray of shape (2,)"),
    (Params.random, {"d": 1, "h": 2, "q": 1, "biases": "no"}, TypeError, "biases must be True or False, not str 'no'"),
    (Params.random, {"d": 1, "h": 2, "q": 1, "direct": 1}, TypeError, "direct must be True or False, not int 1"),
    (Params.random, {"d": 1, "h": 2, "q": 1, "dtype": 10**5000}, TypeError, "dtype must be float32 or float64, not int a number of 16610 bits"),
    (Params.random, {"d": 1, "h": 1, "q": 1, "spectral_radius": -1}, ValueError, "spectral_radius must be finite and at least 0"),
    (params.unravel, {"theta": ones(3)}, ValueError, f"theta must have shape ({params.size},), not (3,)"),
    (rnnbptt.set_num_threads, {"num_threads": 0}, ValueError, "num_threads must be at least 1"),
    (rnnbptt.set_num_threads, {"num_threads": float("nan")}, TypeError, "num_threads must be an integer"),
    (Objective, {"x": GOOD["x"], "y": GOOD["y"], "like": GOOD["W_hh"]}, TypeError, "like must be rnnbptt.Params"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "changed", "error", "message"), BAD, ids=[f"{b[0].__name__}: {b[3]}" for b in BAD]
)
def test_message(
    call: Callable[..., Any], changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(**changed)


@pytest.mark.parametrize(
    "wrt", [("W_xx", "W_yy"), {"W_xx", "W_yy", "b"}, frozenset({"W_xx", "W_yy", 3, None})]
)
def test_messages_do_not_depend_on_the_seed_of_hashes(wrt: Any) -> None:
    # Sets are gone through in the order of their hashes, which differs from one process to the next.
    code = f"""
import numpy as np, rnnbptt
try:
    rnnbptt.loss_and_grad(rnnbptt.Params([[1.]], [[1.]], [[1.]]), np.ones((3, 1)), np.ones((3, 1)), wrt={wrt!r})
except (ValueError, TypeError) as error:
    print(error)
"""
    said = set()
    for seed in "0123":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        said.add(done.stdout)
    assert len(said) == 1
    assert "wrt must" in said.pop()


def test_a_loss_of_labels_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hinge(type(NAMED_LOSSES["cross_entropy"])):  # type: ignore[misc]  # a loss of labels that may come
        name = "hinge"

    monkeypatch.setitem(NAMED_LOSSES, "hinge", Hinge())
    with pytest.raises(TypeError, match="integer class labels for loss='hinge', not float64"):
        grad(loss="hinge", y=GOOD["y"])


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="thread_count"):
        grad(thread_count=1)


# --- two thousand bad calls ---------------------------------------------------------------------------------

#: What each function accepts, and so what may be spoilt.
CALLS: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
    (make_params, PARAMETERS),
    (run, ("x", "h0", "num_threads", "batch_first", "params", "out")),
    (
        grad,
        ("x", "y", "h0", "weights", "mask", "lengths", "loss", "wrt", "num_threads", "batch_first", "params"),
    ),
    (classify, ("x", "y", "h0", "weights", "mask", "lengths", "num_threads")),
    (pull, ("x", "d_o", "h0", "lengths", "wrt", "num_threads", "batch_first")),
    (scan, ("W", "v", "s0", "reverse", "transpose", "num_threads", "out")),
    (powers, ("W", "n", "num_threads", "out")),
    (states, ("d_o", "method", "num_threads", "out")),
]
SCALAR_NONSENSE: dict[str, list[Any]] = {
    "num_threads": [
        0,
        -1,
        float("nan"),
        float("inf"),
        1.5,
        "two",
        True,
        [],
        2**80,
        -(2**80),
        1j,
        b"1",
        np.nan,
        {},
    ],
    "n": [-1, float("nan"), 2.0, "3", None, 2**80, [], 1j, False],
    "batch_first": [0, 1, None, "True", 1.0, [], np.zeros(2)],
    "reverse": [0, 1, None, "no", [], 2.0],
    "transpose": [0, 1, None, "no", [], 2.0],
    "loss": ["", "MSE", 3, None, b"mse", [], float("nan")],
    "method": ["", "Recursion", 3, None, b"scan", []],
    "wrt": [3, "W", ("W_hh", 3), [None], ("x", "y"), float("nan"), [["W_hh"]]],
    "params": [None, 3, "params", {}, GOOD["W_hh"], (1, 2, 3)],
    "out": [
        3,
        "out",
        [],
        {},
        np.zeros(3),
        np.zeros((1, 1, 1), np.int8),
        (None,),
        np.zeros((T, B, h), np.float32),
    ],
}


def spoilt(rng: np.random.Generator, name: str, good: Any) -> Any:
    """Return something that cannot stand where `good` did."""
    array = np.asarray(good)
    wrong_dtypes = [complex, object, "U3", "S2", "M8[ns]", "m8[D]", np.clongdouble, [("a", float)]]
    if name in ("mask", "labels"):
        wrong_dtypes += [np.float64, np.float32]
    if name == "lengths":
        wrong_dtypes += [np.float64, bool]
    if array.dtype.kind == "f":
        wrong_dtypes.append(np.longdouble if name != "W_hh" else np.float16)
    axis = int(rng.integers(array.ndim))
    choices: list[Callable[[], Any]] = [
        lambda: np.zeros(array.shape, wrong_dtypes[rng.integers(len(wrong_dtypes))]),
        lambda: np.ma.masked_array(array),
        lambda: array[..., np.newaxis, np.newaxis],
        lambda: np.delete(array, slice(None), axis),
        lambda: np.concatenate([array, array.take([0], -1)], -1),
        lambda: rng.choice(np.array([3.5, np.nan, 1e300])),
        lambda: [[1.0, 2.0], [3.0]],
        lambda: ["a", "b"],
        object,
        lambda: len,
        lambda: {"a": 1},
        lambda: {1, 2},
        lambda: (x for x in (1, 2)),
        lambda: array.astype(object),
        lambda: b"bytes",
        lambda: 1j,
    ]
    return choices[rng.integers(len(choices))]()


def test_two_thousand_bad_calls() -> None:
    rng = np.random.default_rng(2024)
    before = {name: np.asarray(value).tobytes() for name, value in GOOD.items()}
    # A parameter of another shape is found where it meets its neighbours; so are sequences.
    family = dict.fromkeys(PARAMETERS, PARAMETERS) | {"x": ("x", "y", "d_o", "h0"), "W": ("W", "v", "s0")}
    silent, unnamed = [], []
    for number in range(2000):
        call, names = CALLS[rng.integers(len(CALLS))]
        name = names[rng.integers(len(names))]
        if name in SCALAR_NONSENSE:
            options = SCALAR_NONSENSE[name]
            value = options[rng.integers(len(options))]
        else:
            key = {"W": "W_hh", "y": "labels" if call is classify else "y"}.get(name, name)
            value = spoilt(rng, key, GOOD[key])
        try:
            call(**{name: value})
        except REFUSALS as error:
            if not any(re.search(rf"\b{n}\b", str(error)) for n in family.get(name, (name,))):
                unnamed.append((number, call.__name__, name, value, error))
        else:
            silent.append((number, call.__name__, name, value))
    assert silent == []
    assert unnamed == []
    assert {name: np.asarray(value).tobytes() for name, value in GOOD.items()} == before


# --- the extension itself ------------------------------------------------------------------------------------


def test_the_extension_has_residuals_for_sums_of_squares_alone() -> None:
    dataset = Dataset(params, GOOD["x"])
    r = np.empty((T, B, q))
    for problem in (
        Problem(dataset, NAMED_LOSSES["cross_entropy"], GOOD["labels"]).posed,
        Problem(dataset, None, GOOD["d_o"]).posed,
    ):
        with pytest.raises(ValueError, match="loss"):
            problem.residuals(params.ravel(), (True, True, True, False), r, 1)
