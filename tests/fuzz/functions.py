"""What is called: every public function and method, by the name that calls are written with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sklearn.base

import rnnbptt
from rnnbptt import reference
from rnnbptt.fit import LinearRNNRegressor

from . import vocabulary
from .vocabulary import normal

#: How often a function is called, in shares; reports and fits take milliseconds.
FREQUENT, SELDOM, RARE = 8.0, 1.0, 0.1


@dataclass(frozen=True)
class Function:
    """What is called, the names of its arguments, and how often.

    Attributes
    ----------
    call : callable
    names : tuple of str
        All arguments that the signature names, in its order.
    needed : tuple of str
        Those without a default.
    share : float
    """

    call: Callable[..., Any]
    names: tuple[str, ...]
    needed: tuple[str, ...]
    share: float


def _function(call: Callable[..., Any], share: float) -> Function:
    listed = inspect.signature(call).parameters.values()
    known = [p for p in listed if p.name != "self"]
    return Function(
        call,
        tuple(p.name for p in known),
        tuple(p.name for p in known if p.default is inspect.Parameter.empty),
        share,
    )


#: Public functions that are not called: they set nothing, take nothing, or are what results are made of.
UNCALLED = frozenset(
    {"build_info", "get_num_threads", "reference", "Trajectory", "Gradients", "GaussNewton", "GradientFlow"}
    | {"Schedule", "SpectralReport", "TruncationReport", "LinearRNNRegressor", "RNNRegressor"}
)
_SELDOM = {"gradient_flow", "truncation_report", "spectral_report"}
METHODS = {
    **dict.fromkeys(("Params.random", "params.unravel", "objective.__call__", "coin.cuts"), FREQUENT),
    **{
        f"objective.{name}": FREQUENT
        for name in ("flat", "jac", "hessp", "residuals", "gauss_newton", "pack", "unpack")
    },
    **dict.fromkeys(("flow.horizon", "flow.range_exits", "truncated.choose"), SELDOM),
    **{f"fitted.{name}": SELDOM for name in ("predict", "simulate", "forecast", "score")},
    "fitted.fit": RARE,
}


def fit(**hyperparameters: Any) -> Any:
    """Fit an estimator of these hyperparameters, whose names are the estimator's."""
    return LinearRNNRegressor(**hyperparameters).fit(normal(20, 2), normal(20, 1))


fit.__signature__ = inspect.signature(LinearRNNRegressor)  # type: ignore[attr-defined]


def _method(name: str) -> Callable[..., Any]:
    owner, _, method = name.partition(".")
    made = rnnbptt.Params if owner == "Params" else vocabulary.made(owner)
    if name == "fitted.fit":
        made = sklearn.base.clone(made)  # others predict with what the first was fitted to
    result: Callable[..., Any] = getattr(made, method)
    return result


@cache
def functions() -> Mapping[str, Function]:
    """Return everything that is called, by the name it is written with."""
    result = {
        name: _function(getattr(rnnbptt, name), SELDOM if name in _SELDOM else FREQUENT)
        for name in rnnbptt.__all__
        if name not in UNCALLED
    }
    result |= {
        f"reference.{name}": _function(getattr(reference, name), SELDOM)
        for name in reference.__all__
        if inspect.isfunction(getattr(reference, name))
    }
    result["fit"] = _function(fit, RARE)
    return result | {name: _function(_method(name), share) for name, share in METHODS.items()}


@dataclass
class Call:
    """A call as text: its function and, for each argument given, the words for its value."""

    function: str
    arguments: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.function}({', '.join(f'{name}={words}' for name, words in self.arguments.items())})"
