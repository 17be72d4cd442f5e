"""Accuracy where powers of W_hh grow before they decay, of everything that multiplies by them.

The bound is that of all gradients. Where one moves further than that when its data are rounded once, or the
recursion step by step breaks it, 64 times the recursion's own error is allowed instead: the worst of a few
runs with inputs rounded differently, as one alone may be right by luck.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import rnnbptt
from non_normal import FAMILIES, companion, draw_non_normal
from problems import SCALARS, Array, Case, Scalar, build, nudged
from rnnbptt import Chunked, Gradients, Randomized, Sliding, reference
from rnnbptt.engine.truncation import Truncation
from speed import slow
from tolerances import gradient_bound, relative_error, sequential_bound

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).eps == np.finfo(np.float64).eps,
    reason="long double is float64 on this platform",
)

#: Problems of each dtype, over all families; RNNBPTT_NON_NORMAL_PROBLEMS=1000 draws what the session does.
PROBLEMS = int(os.environ.get("RNNBPTT_NON_NORMAL_PROBLEMS", "100"))
EACH = max(1, PROBLEMS // len(FAMILIES))
NUDGES = 3
FORCED: tuple[dict[str, int], ...] = (
    {"lift": 1, "piece": 5},
    {"lift": 1, "piece": 16, "splits": 3},
    {"lift": 2, "piece": 0},
    {"lift": 3, "piece": 9, "window": 5},
    {"lift": 8, "piece": 4},
    {"lift": 16, "piece": 0, "splits": 2},
    {"lift": 22, "piece": 0, "window": 2, "keep_all_states": 0},
    {"lift": 64, "piece": 0},
)
seeds = pytest.mark.parametrize("seed", [*range(2), *(pytest.param(s, marks=slow) for s in range(2, EACH))])
families = pytest.mark.parametrize("family", FAMILIES)
dtypes = pytest.mark.parametrize("dtype", SCALARS)

Parts = Mapping[str, Any]


class Contract:
    """What the parts of a result may be off, by an oracle and the recursion as functions of a problem."""

    def __init__(self, case: Case, exact: Callable[[Case], Parts], by_steps: Callable[[Case], Parts]) -> None:
        self.case, self.exact, self.by_steps = case, exact, by_steps
        self.expected = exact(case)
        self.dtype, h, T = case.params.dtype, case.params.shape[1], len(case.x)
        radius = float(np.abs(np.linalg.eigvals(case.params.W_hh.astype(np.float64))).max())
        self.bound = gradient_bound(self.dtype, h, T, radius)

    def other_data(self, seed: int) -> Case:
        """Round the data differently, not the parameters."""
        other = nudged(self.case, seed)
        return Case(self.case.params, other.x, other.y, other.options)

    def allowed(self, name: str) -> float:
        cases = [self.case, *(self.other_data(seed) for seed in range(NUDGES))]
        own = max(relative_error(self.by_steps(case)[name], self.exact(case)[name]) for case in cases)
        moved = (self.exact(nudged(self.case, seed))[name] for seed in range(NUDGES))
        sensitive = any(relative_error(m, self.expected[name]) > self.bound for m in moved)
        if not sensitive and own <= self.bound:
            return self.bound
        return max(self.bound, sequential_bound(self.dtype, own))

    def hold(self, actual: Parts, what: object) -> None:
        for name, expected in self.expected.items():
            error = relative_error(actual[name], expected)
            if not error <= self.bound:
                allowed = self.allowed(name)
                assert error <= allowed, (what, name, f"{error:.2g} of {allowed:.2g}, bound {self.bound:.2g}")


def gradients(case: Case, truncate: Callable[[], Truncation] | None = None) -> Contract:
    def solved(solve: Any) -> Callable[[Case], Parts]:
        def answer(c: Case) -> Parts:
            more = {} if truncate is None else {"truncate": truncate()}
            return dict(solve(c.params, c.x, c.y, wrt=c.wrt, **c.options, **more)[1].items())

        return answer

    return Contract(case, solved(reference.oracle), solved(reference.loss_and_grad))


def check_schedules(case: Case, seed: int) -> None:
    contract = gradients(case)
    contract.hold(dict(case.engine()[1].items()), "free")
    for number in range(2):
        schedule = FORCED[(seed + 3 * number) % len(FORCED)]
        problem = case.posed(**schedule)
        _, actual = problem.loss_and_gradients(case.params, 1)
        taken = problem.posed.used_schedule()["L"]
        assert taken <= schedule["lift"]
        contract.hold(dict(actual.items()), (schedule, taken))


# --- gradients ----------------------------------------------------------------------------------------------


@families
@dtypes
@seeds
def test_every_schedule(seed: int, dtype: Scalar, family: str) -> None:
    check_schedules(draw_non_normal(seed, family, dtype), seed)


@families
@dtypes
@pytest.mark.parametrize("radius", [1.0, 1.02, 1.1])
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=slow) for s in range(1, max(2, EACH // 6)))])
def test_where_nothing_decays(seed: int, radius: float, dtype: Scalar, family: str) -> None:
    check_schedules(draw_non_normal(seed, family, dtype, steps=150, radius=radius), seed)


@families
@dtypes
@seeds
def test_truncations(seed: int, dtype: Scalar, family: str) -> None:
    case = draw_non_normal(seed, family, dtype, steps=200)
    tau = (3, 20, 90)[seed % 3]
    makes: tuple[Callable[[], Truncation], ...] = (
        lambda: Sliding(tau),
        lambda: Chunked(tau),
        lambda: Randomized(tau, rng=7),
    )
    for make in makes if seed % 4 == 0 else makes[:1]:
        _, actual = case.engine(truncate=make())
        gradients(case, make).hold(dict(actual.items()), make())


# --- second order -------------------------------------------------------------------------------------------


@families
@dtypes
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=slow) for s in range(1, max(2, EACH // 2)))])
def test_tangents_hessian_products_and_jacobians(seed: int, dtype: Scalar, family: str) -> None:
    case = draw_non_normal(seed, family, dtype, steps=200)
    rng = np.random.default_rng(seed)
    parts: dict[str, Array] = {
        name: rng.standard_normal(part.shape).astype(dtype) for name, part in case.params.items()
    }
    parts["h0"] = rng.standard_normal((case.x.shape[1], case.params.shape[1])).astype(dtype)
    v = Gradients(**parts)
    names = list(parts)
    wider = float(np.finfo(dtype).eps / np.finfo(np.float64).eps)

    def tangents(numbers: Any) -> Callable[[Case], Parts]:
        return lambda c: {"o": reference.jvp(c.params, c.x, v, h0=c.options.get("h0"), dtype=numbers)}

    def products(numbers: Any) -> Callable[[Case], Parts]:
        return lambda c: dict(
            reference.hvp(c.params, c.x, c.y, v, wrt=names, dtype=numbers, **c.options).items()
        )

    def rounded(by_steps: Callable[[Case], Parts], exact: Callable[[Case], Parts]) -> Callable[[Case], Parts]:
        """Scale the recursion's errors in float64 to those of the problem's dtype."""

        def answer(c: Case) -> Parts:
            right, found = exact(c), by_steps(c)
            return {name: right[name] + wider * (found[name] - right[name]) for name in right}

        return answer

    for form, actual in (
        (tangents, {"o": rnnbptt.jvp(case.params, case.x, v, h0=case.options.get("h0"))}),
        (products, dict(rnnbptt.hvp(case.params, case.x, case.y, v, wrt=names, **case.options).items())),
    ):
        exact = form(np.clongdouble)
        Contract(case, exact, rounded(form(np.complex128), exact)).hold(actual, form.__name__)
    J = rnnbptt.output_jacobian(case.params, case.x, case.options.get("h0"), wrt=names)
    along = np.concatenate([part.ravel() for part in parts.values()]).astype(np.longdouble)
    exact = tangents(np.clongdouble)
    Contract(case, exact, rounded(tangents(np.complex128), exact)).hold({"o": J @ along}, "Jacobian")


# --- what is decided ----------------------------------------------------------------------------------------


def filters(order: int, cutoff: float) -> Array:
    scipy_signal = pytest.importorskip("scipy.signal")
    return companion(scipy_signal.butter(order, cutoff)[1])


@pytest.mark.parametrize(("order", "cutoff"), [(8, 0.2), (10, 0.25)])
def test_a_filter_is_not_lifted_and_explain_says_why(order: int, cutoff: float) -> None:
    rng = np.random.default_rng(0)
    W_hh = filters(order, cutoff)
    params = rnnbptt.Params(rng.standard_normal((order, 2)), W_hh, rng.standard_normal((2, order)))
    schedule = rnnbptt.explain(params, np.zeros((10_000, 2)))
    assert schedule.steps_per_chunk == 1
    assert schedule.wanted_steps_per_chunk > 1
    assert schedule.growth > 100
    assert f"Powers of W_hh grow {schedule.growth:,.3g}-fold" in str(schedule)
    case = Case(params, rng.standard_normal((300, 1, 2)), rng.standard_normal((300, 1, 2)), {"loss": "mse"})
    check_schedules(case, 7)


@dtypes
@pytest.mark.parametrize("radius", [0.5, 0.95])
@pytest.mark.parametrize("lift", [2, 8, 64])
def test_forced_lifts_are_taken_where_nothing_grows(lift: int, radius: float, dtype: Scalar) -> None:
    case = build(np.random.default_rng(1), dtype, (600, 1, 2, 24, 2), radius=radius)
    problem = case.posed(lift=lift)
    problem.loss_and_gradients(case.params, 1)
    used = problem.posed.used_schedule()
    assert used["L"] == lift
    assert 0 < used["growth"] < 16


@dtypes
def test_scales_of_states_cost_no_lift(dtype: Scalar) -> None:
    """D W D^-1 is lifted like W, whose growth is as small: balancing finds D."""
    case = build(np.random.default_rng(2), dtype, (600, 1, 2, 12, 2), radius=0.9)
    scales = 2.0 ** np.random.default_rng(3).permutation(np.linspace(-10, 10, 12).round())
    p = case.params
    assert p.b_h is not None
    scaled = rnnbptt.Params(
        W_hx=(scales[:, None] * p.W_hx).astype(dtype),
        W_hh=(scales[:, None] * p.W_hh / scales).astype(dtype),
        W_qh=(p.W_qh / scales).astype(dtype),
        b_h=(scales * p.b_h).astype(dtype),
        b_q=p.b_q,
    )
    case = case._replace(params=scaled, options={"loss": "mse"})
    problem = case.posed(lift=16)
    _, actual = problem.loss_and_gradients(scaled, 1)
    assert problem.posed.used_schedule()["L"] == 16
    gradients(case).hold(dict(actual.items()), "scaled")
