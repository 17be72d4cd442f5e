"""Calls with arguments of all kinds: answered, or refused by a message that names one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnbptt
from fuzz import grammar
from fuzz.calls import corpus, fuzzed
from fuzz.checking import fault_of, parsed
from fuzz.functions import UNCALLED, Call, Function, functions
from problems import Array
from speed import slow, thinned


@pytest.mark.parametrize("line", thinned(corpus(), 4))
def test_calls_that_once_went_wrong(line: str) -> None:
    assert fault_of(parsed(line)) is None


@pytest.mark.parametrize(("count", "seed"), [(500, 1), pytest.param(5_000, 2, marks=slow)])
def test_calls_of_all_kinds(count: int, seed: int) -> None:
    _, faults = fuzzed(count, seed)
    assert list(faults.values()) == []


def test_everything_public_is_called() -> None:
    called = {name.split(".")[0] for name in functions()}
    assert set(rnnbptt.__all__) <= called | UNCALLED


def test_a_call_is_the_text_it_is_written_as() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        call = grammar.draw(rng)
        again = parsed(str(call))
        assert (again.function, list(again.arguments)) == (call.function, list(call.arguments))


def test_faults_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind one is planted, in the place of a function."""

    def planted(call: str, function: Callable[..., Any]) -> str:
        replaced = {"matrix_powers": Function(function, ("W", "n"), ("W", "n"), 1.0)}
        with monkeypatch.context() as patch:
            patch.setattr("fuzz.checking.functions", lambda: replaced)
            fault = fault_of(parsed(call))
        return "" if fault is None else fault.kind.split(": ")[1]

    def refuses(message: str) -> Callable[..., Any]:
        def call(W: object, n: object) -> None:
            raise ValueError(message)

        return call

    def writes(W: Array, n: int) -> None:
        W[0, 0] = 1

    def divides(W: Array, n: int) -> Any:
        return W / np.zeros(1)

    good = "matrix_powers(W=normal(3, 3), n=3)"
    assert planted(good, rnnbptt.matrix_powers) == ""
    assert planted(good, refuses("n is odd")) == ""
    assert planted(good, refuses("none of these")) == "names no argument"
    assert planted(good, writes) == "writes to an input"
    assert planted(good, divides) == "raises FloatingPointError"
    assert planted(good, lambda W, n: {}[n]) == "raises KeyError"
    assert planted("matrix_powers(W=normal(3, 3), n=wrong(2.0))", lambda W, n: W) == "accepts any n"
    layout = "matrix_powers(W=fortran(normal(3, 3)), n=3)"
    assert planted(layout, lambda W, n: W.ravel(order="K")) == "depends on the layout"


def test_a_simpler_call_with_the_same_fault_is_found() -> None:
    call = Call("forward", {"params": "P(1, 2, 1)", "x": "fortran(normal(3, 1))", "num_threads": "2"})
    simple = [str(other) for other in grammar.simpler(call)]
    assert simple == [
        "forward(params=P(1, 2, 1), x=fortran(normal(3, 1)))",
        "forward(params=P(1, 2, 1), x=normal(3, 1), num_threads=2)",
    ]
