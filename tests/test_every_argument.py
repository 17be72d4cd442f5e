"""Every public function, every argument, and what does not belong there: it is refused and named."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt import Gradients, Objective, Params, Randomized, Sliding
from speed import slow

REFUSALS = (TypeError, ValueError, OverflowError, MemoryError)
T, B, d, h, q = 6, 2, 3, 4, 2
rng = np.random.default_rng(0)
PARAMS = Params.random(d, h, q, biases=True, direct=True, rng=0)
X, Y, H0 = rng.standard_normal((T, B, d)), rng.standard_normal((T, B, q)), rng.standard_normal((B, h))

GOOD: dict[str, Any] = {
    **PARAMS.to_dict(),
    "params": PARAMS,
    "like": PARAMS,
    "d_params": PARAMS,
    "v": PARAMS,
    "x": X,
    "d_x": X,
    "y": Y,
    "d_o": Y,
    "h0": H0,
    "d_h0": H0,
    "d_hT": None,
    "weights": np.ones((T, B)),
    "lengths": np.array([T, 2]),
    "mask": np.ones((T, B), bool),
    "batch_first": False,
    "wrt": ("W_hh",),
    "truncate": None,
    "loss": "mse",
    "num_threads": 1,
    "memory_limit": 2**26,
    "lags": 3,
    "draws": 1,
    "rng": 0,
    "out": None,
    "rate": 0.1,
    "gradients": rnnbptt.loss_and_grad(PARAMS, X, Y)[1],
    "max_norm": 1.0,
    "on_nonfinite": "raise",
    "theta": PARAMS.ravel(),
    "values": PARAMS.to_dict(),
    "W": PARAMS.W_hh,
    "s0": H0,
    "n": 3,
    "ks": [1, 2],
    "ord": 2,
    "reverse": False,
    "transpose": False,
    "tol": 0.1,
    "steps": 3,
    "batch": 2,
    "kind": "gaussian",
    "d": 2,
    "h": 3,
    "q": 1,
    "spectral_radius": 0.5,
    "biases": True,
    "direct": True,
    "axes": None,
    "ax": None,
    "direction": rnnbptt.loss_and_grad(PARAMS, X, Y)[1],
    "probability": None,
}
#: Where an argument of a name is another one, and where a method of a name is another set.
OWN: dict[str, dict[str, Any]] = {
    "linear_scan": {"v": rng.standard_normal((T, B, h))},
    "Sliding": {"tau": 2},
    "Chunked": {"tau": 2},
    "Randomized": {"tau": 2.5},
    "choose": {"method": "sliding"},
    "range_exits": {"dtype": "float32"},
    "random": {"dtype": np.float64},
    "oracle": {"dtype": np.longdouble},
    "hvp": {"dtype": np.complex128},
    "jvp": {"dtype": np.complex128},
    "hessp": {"v": PARAMS.ravel()},
}
#: An argument of another shape is found where it meets its neighbours.
MEETS = {
    "x": "x|y|h0|d_o|weights|d_x|mask|lengths|d_hT|batch",
    "params": "params|x|W_hh|y|d_params|v|h0|wrt|d_o|direction",
    "like": "like|x|y",
    "W": "W|v|s0",
    "v": "v|s0",
    "y": "y",
    "W_hh": "W_hh|W_hx",
    "loss": "loss|y|weights|mask",
    "batch_first": "batch_first|h0|lengths|x",
    "d": "d|W_hx|W_qx",
    "h": "h|W_hh|W_hx",
    "q": "q|W_qh|W_qx",
    "W_hx": "W_hx|W_qx",
    "W_qh": "W_qh|b_q|W_qx",
    "n": "n|out",
    "out": "out|hidden",
}


class Unreadable:
    """What NumPy asks for an array, and gets an error of a kind of its own."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("there is no array")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("there is nothing to print")


HUGE = 10**5000  # more digits than Python writes out
NONSENSE: list[Any] = [
    *(
        None,
        "",
        "a",
        b"a",
        3,
        -1,
        0,
        2.5,
        -0.5,
        1e308,
        float("nan"),
        float("inf"),
        True,
        False,
        1j,
        2**64,
        2**62,
    ),
    *(HUGE, -HUGE, [HUGE], (HUGE,), {HUGE}, np.array(HUGE), [None], [], {}, {"a": 1}, {1, 2}, set(), ()),
    *(("W_hh", "nope"), {"nope", "other"}, "W_hh" * 50, object(), len, float, Unreadable(), Unprintable()),
    *(
        np.zeros(0),
        np.zeros(2),
        np.zeros((2, 2)),
        np.zeros((T, B, d, 1)),
        np.zeros((1,) * 32),
        np.zeros(3, complex),
    ),
    *(np.array(["a"]), np.array(None), np.array([1, None]), np.zeros((T, B), "M8[s]"), np.ma.ones((T, B, d))),
    *(
        [[1, 2], [3]],
        np.float64(1),
        np.int64(-3),
        np.array(2),
        np.zeros(2, [("a", float)]),
        range(3),
        slice(3),
    ),
    *(
        np.random.default_rng(0),
        np.random.RandomState(0),
        np.dtype("f4"),
        ValueError("x"),
        PARAMS,
        Gradients(),
    ),
    *(np.zeros((h, h), np.float16), np.zeros((h, h), np.longdouble), Gradients(W_hh="a"), Sliding(2)),  # type: ignore[arg-type]
    *(("mse", 2.0), ("mse",), ("no", HUGE), lambda o, y: o, lambda o, y: (o, o), lambda o, y: (0.0, None)),
    *(lambda o, y: (0.0, o[:1]), lambda o, y: (0.0, o + 0j), lambda o, y: (HUGE, o), lambda o, y: [0.0, o]),
]


def foreign() -> list[Any]:
    """Return what other libraries have that is no array of numbers."""
    found: list[Any] = []
    if importlib.util.find_spec("pandas"):
        pd: Any = importlib.import_module("pandas")
        found += [pd.DataFrame({"a": ["x", "y"]}), pd.Series([1, None], dtype="Int64"), pd.NA]
    if importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module("torch")
        found += [torch.ones(2, requires_grad=True), torch.ones(2).bfloat16(), torch.ones(2, device="meta")]
    return found


def calls() -> dict[str, Callable[..., Any]]:
    """Return whatever is public and takes arguments."""
    # What holds numbers checks nothing, and the regressor reads its parameters when it is fitted.
    holders = {"Gradients", "Trajectory", "GaussNewton", "GradientFlow", "Schedule", "SpectralReport"}
    others = {"TruncationReport", "LinearRNNRegressor", "build_info", "get_num_threads", "reference"}
    found: dict[str, Callable[..., Any]] = {
        name: getattr(rnnbptt, name) for name in sorted({*rnnbptt.__all__} - holders - others)
    }
    found |= {f"reference.{name}": getattr(rnnbptt.reference, name) for name in rnnbptt.reference.__all__}
    found |= {f"Params.{name}": getattr(PARAMS, name) for name in ("unravel", "step", "from_dict", "random")}
    objective = Objective(X, Y, like=PARAMS)
    methods = ("flat", "hessp", "jac", "residuals", "gauss_newton", "unpack", "__call__")
    found |= {f"Objective.{name}": getattr(objective, name) for name in methods}
    found["Objective, h0.pack"] = Objective(X, Y, like=PARAMS, wrt=("W_hh", "h0")).pack
    flow, truncation = rnnbptt.gradient_flow(PARAMS, X, Y), rnnbptt.truncation_report(PARAMS, X, Y)
    found |= {"flow.horizon": flow.horizon, "flow.range_exits": flow.range_exits, "flow.plot": flow.plot}
    found |= {"truncation.choose": truncation.choose, "truncation.plot": truncation.plot}
    return found | {"Randomized.cuts": Randomized(3).cuts}


CALLS = calls()


def arguments(name: str) -> dict[str, Any]:
    """Return good arguments of a call."""
    short = name.rpartition(".")[2]
    known = GOOD | OWN.get(short, {})
    if short in ("state_gradients", "loss_and_grad", "vjp", "oracle"):
        known["method"] = "recursion"
    if short in ("directional_derivative", "numerical_gradient"):
        known["method"] = "complex_step"
    return {parameter: known[parameter] for parameter in inspect.signature(CALLS[name]).parameters}


def refusals(name: str, values: list[Any]) -> Iterator[tuple[str, Any, BaseException]]:
    """Put every value into the place of every argument; go through what is said."""
    good = arguments(name)
    for argument in good:
        for value in values:
            if argument == "draws" and isinstance(value, int) and value > 3:
                continue  # taken at its word
            try:
                CALLS[name](**(good | {argument: value}))
            except BaseException as error:
                yield argument, value, error


@pytest.mark.parametrize("name", CALLS)
def test_good_arguments_are_taken(name: str) -> None:
    if name.endswith("plot"):
        pytest.importorskip("matplotlib")
    if name != "set_num_threads":
        CALLS[name](**arguments(name))


def check(name: str, values: list[Any]) -> None:
    if name.endswith("plot"):
        pytest.importorskip("matplotlib")
    threads = rnnbptt.get_num_threads()
    unnamed = []
    for argument, value, error in refusals(name, values):
        words = MEETS.get(argument, argument)
        named = re.search(rf"\b({words})\b", str(error)) and "string conversion" not in str(error)
        if not (isinstance(error, REFUSALS) and named and len(str(error)) < 500):
            unnamed.append((argument, type(value).__name__, type(error).__name__, str(error)[:200]))
    rnnbptt.set_num_threads(threads)
    assert unnamed == []


@slow
@pytest.mark.parametrize("name", CALLS)
def test_whatever_is_refused_is_named(name: str) -> None:
    check(name, NONSENSE + foreign())


@pytest.mark.parametrize("name", CALLS)
def test_some_of_what_is_refused_is_named(name: str) -> None:
    few = [HUGE, [HUGE], "a", None, Unreadable(), Unprintable(), np.zeros((2, 2)), np.ones(3, complex), 1j]
    check(name, few)
