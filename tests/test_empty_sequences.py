"""Sequences of length 0, and data of which nothing counts: the loss is 0, and so is every gradient."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, Array, Case, Scalar, assert_identical, assert_same, build
from rnnbptt import Chunked, Objective, Randomized, Sliding, reference
from rnnbptt.engine import losses
from rnnbptt.engine.dataset import Dataset
from rnnbptt.engine.losses import LossName
from rnnbptt.gradients.problem import Problem
from tolerances import FORMS, gradient_bound, relative_error

T, B = 20, 5
EMPTY = np.array([20, 0, 3, 7, 0])
NOTHING: dict[str, dict[str, Array]] = {
    "lengths": {"lengths": np.zeros(B, int)},
    "mask": {"mask": np.zeros((T, B), bool)},
    "weights": {"weights": np.zeros((T, B), np.float32)},
    "all": {
        "lengths": EMPTY,
        "mask": np.arange(T)[:, np.newaxis] >= EMPTY,
        "weights": np.ones((T, B), np.float32),
    },
}
TRUNCATIONS = (None, Sliding(1), Sliding(3), Chunked(4), Randomized(3, rng=0))
SCHEDULES = [
    {"lift": lift, "window": window, "piece": piece, "splits": splits, "keep_all_states": keep}
    for lift, (window, keep), piece, splits in product(
        (1, 2, 3, 8), ((0, 1), (1, 0), (1, 1), (3, 1)), (0, 2), (1, 3)
    )
]


def drawn(dtype: Scalar = np.float64, loss: LossName = "mse", **options: Array) -> Case:
    case = build(np.random.default_rng(1), dtype, (T, B, 2, 5, 3), loss=loss)
    return case._replace(options=case.options | options)


def zero(value: float, gradients: Any) -> bool:
    return value == 0 and all(not array.any() for _, array in gradients.items())


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("nothing", NOTHING)
def test_where_nothing_counts_all_is_zero(nothing: str, loss: LossName, dtype: Scalar) -> None:
    # Nothing is read, either.
    case = drawn(dtype, loss, **NOTHING[nothing])
    case.x[:], case.options["h0"][:] = np.nan, np.nan
    case.y[:] = -1 if losses.LOSSES[loss].labels else np.nan
    params, x, y = case.params, case.x, case.y
    for truncate in copy.deepcopy(TRUNCATIONS):
        assert zero(*case.engine(truncate=truncate))
        assert zero(*case.solve(truncate=truncate, wrt=case.wrt))
    assert zero(*case.oracle())
    for schedule in SCHEDULES:
        assert zero(*case.scheduled(2, **schedule))
    objective = Objective(x, y, like=params, wrt=case.wrt[:-1], **case.options)
    assert objective.weight_sum == (0.0, 0)
    theta = objective.pack(params, np.ones((B, 5), dtype))
    value, gradient = objective.flat(theta)
    assert value == 0
    results = [gradient, objective.hessp(theta, theta), objective.gauss_newton(theta).matrix]
    if isinstance(losses.LOSSES[loss], losses.SumOfSquares):
        results += [objective.residuals(theta), objective.jac(theta)]
    assert not any(result.any() for result in results)
    assert zero(0, rnnbptt.hvp(params, x, y, params, **case.options))
    with np.errstate(all="raise"):
        flow = rnnbptt.gradient_flow(params, x, y, **case.options)
        costs = rnnbptt.truncation_report(params, x, y, **case.options)
        assert np.isneginf(flow.log2_state_gradients).all()
        assert np.isneginf(flow.log2_lag_norms).all()
        assert np.isneginf(flow.log2_gradient_norm)
        assert np.isneginf(costs.log2_gradient_norm)
        assert "No loss sends anything back" in str(flow)
        assert "The gradient is zero" in str(costs)
        assert flow.to_dict()["log2_gradient_norm"] == costs.to_dict()["log2_gradient_norm"] == "-inf"


def test_reports_of_nothing_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    case = drawn(lengths=np.zeros(B, int))
    rnnbptt.gradient_flow(case.params, case.x, case.y, **case.options).plot()
    rnnbptt.truncation_report(case.params, case.x, case.y, **case.options).plot()


def without_empty(case: Case) -> Case:
    """The same problem without its sequences of length 0."""
    some = np.flatnonzero(case.options["lengths"])
    options = case.options | {name: case.options[name][some] for name in ("h0", "lengths")}
    return Case(case.params, case.x[:, some], case.y[:, some], options)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
def test_empty_sequences_change_nothing_for_others(loss: LossName, dtype: Scalar) -> None:
    case = drawn(dtype, loss, lengths=EMPTY)
    empty = EMPTY == 0
    case.x[:, empty], case.options["h0"][empty] = np.nan, np.nan
    if not losses.LOSSES[loss].labels:
        case.y[:, empty] = np.nan
    others = without_empty(case)
    bound = gradient_bound(dtype, 5, T, 0.9)
    for truncate in TRUNCATIONS[:-1]:  # random cuts are drawn for all sequences
        expected_loss, expected = others.solve(wrt=case.wrt, truncate=truncate)
        for value, g in (case.engine(truncate=truncate), case.solve(wrt=case.wrt, truncate=truncate)):
            assert value == pytest.approx(float(expected_loss), rel=bound)
            assert not g.x[:, empty].any()  # type: ignore[index]  # it is there
            assert not g.h0[empty].any()  # type: ignore[index]
            kept = g._replace(x=g.x[:, ~empty], h0=g.h0[~empty])  # type: ignore[index]
            assert_same(kept, expected, 2 * bound)


@pytest.mark.parametrize("dtype", SCALARS)
def test_every_schedule(dtype: Scalar) -> None:
    case = drawn(dtype, lengths=EMPTY)
    exact_loss, exact = case.oracle()
    bound = gradient_bound(dtype, 5, T, 0.9)
    for schedule in SCHEDULES:
        value, actual = case.scheduled(2, **schedule)
        assert value == pytest.approx(float(exact_loss), rel=bound)
        assert_same(actual, exact, bound)
        one_thread = case.scheduled(1, **schedule)[1]
        assert_identical(actual, one_thread)


@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivatives(loss: LossName) -> None:
    case = drawn(loss=loss, lengths=EMPTY)
    others = without_empty(case)
    objectives = [
        Objective(one.x, one.y, like=one.params, wrt=one.wrt[:-1], **one.options) for one in (case, others)
    ]
    n = case.params.size
    held = np.concatenate([np.arange(n), n + np.flatnonzero(np.repeat(EMPTY > 0, 5))])
    thetas = [objective.pack(case.params) for objective in objectives]
    products = [o.hessp(theta, np.ones_like(theta)) for o, theta in zip(objectives, thetas, strict=True)]
    matrices = [o.gauss_newton(theta).matrix for o, theta in zip(objectives, thetas, strict=True)]
    assert relative_error(products[0][held], products[1]) <= FORMS
    assert relative_error(matrices[0][np.ix_(held, held)], matrices[1]) <= FORMS
    left_out = np.setdiff1d(np.arange(len(thetas[0])), held)
    assert not products[0][left_out].any()
    assert not matrices[0][left_out].any()
    J = rnnbptt.output_jacobian(case.params, case.x, case.options["h0"], lengths=EMPTY, wrt=case.wrt[:-1])
    assert not J[:, EMPTY == 0].any()
    assert not rnnbptt.output_jacobian(case.params, case.x, lengths=np.zeros(B, int)).any()


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("lengths", [EMPTY, np.zeros(B, int)], ids=["some", "all"])
def test_the_last_state_of_no_steps_is_the_first(lengths: Array, dtype: Scalar) -> None:
    case = drawn(dtype)
    rng = np.random.default_rng(2)
    d_hT = rng.standard_normal((B, 5)).astype(dtype)
    empty = lengths == 0
    given: dict[str, Any] = {"d_hT": d_hT, "lengths": lengths, "wrt": case.wrt}
    h0 = case.options["h0"]
    wide = case.wide()
    exact = reference.vjp(
        wide.params, wide.x, wide.y, wide.options["h0"], **(given | {"d_hT": d_hT.astype(float)})
    )
    for module in (rnnbptt, reference):
        g = module.vjp(case.params, case.x, case.y, h0, **given)
        assert g.h0[empty].tobytes() == d_hT[empty].tobytes()
        assert not g.x[:, empty].any()
        assert_same(g, exact, gradient_bound(dtype, 5, T, 0.9))
    one = rnnbptt.vjp(case.params, case.x[:, 0], case.y[:, 0], h0[0], d_hT=d_hT[0], lengths=0, wrt=case.wrt)
    assert one.h0 is not None
    assert one.h0.tobytes() == d_hT[0].tobytes()
    assert not any(array.any() for name, array in one.items() if name != "h0")


@pytest.mark.parametrize("lift", [1, 2, 4, 64])
@pytest.mark.parametrize("window", [0, 1, 3])
def test_last_states_on_every_schedule(window: int, lift: int) -> None:
    case = drawn()
    lengths = np.array([0, 8, 16, 0, 4])
    d_hT = np.random.default_rng(4).standard_normal((B, 5))
    dataset = Dataset(case.params, case.x, case.options["h0"], lengths=lengths, wrt=case.wrt)
    schedule = {"lift": lift, "window": window, "splits": 2, "piece": 1}
    problem = Problem(dataset, None, case.y, d_hT=d_hT, schedule=schedule)
    _, actual = problem.loss_and_gradients(case.params, 2)
    assert problem.posed.used_schedule()["L"] == min(lift, 4)
    expected = reference.vjp(
        case.params, case.x, case.y, case.options["h0"], d_hT=d_hT, lengths=lengths, wrt=case.wrt
    )
    assert_same(actual, expected, gradient_bound(np.float64, 5, T, 0.9))


def test_one_sequence_of_no_steps() -> None:
    case = drawn()
    for solve in (rnnbptt.loss_and_grad, reference.loss_and_grad):
        assert zero(*solve(case.params, case.x[:, 0], case.y[:, 0], h0=case.options["h0"][0], lengths=0))


def test_a_function_sees_zeros() -> None:
    case = drawn()

    def half(o: Array, y: Any) -> tuple[float, Array]:
        assert not o.any()
        return 0.5, np.ones_like(o)

    for solve in (rnnbptt.loss_and_grad, reference.loss_and_grad):
        value, g = solve(case.params, case.x, case.y, loss=half, lengths=np.zeros(B, int), wrt=case.wrt)
        assert value == 0.5
        assert zero(0, g)


def test_explain() -> None:
    case = drawn()
    told = rnnbptt.explain(case.params, case.x, lengths=np.zeros(B, int))
    assert told.chunks == 0
    assert told.workspace_bytes >= 0
    assert "(L = 1)" in str(told)


@pytest.mark.parametrize("memory_limit", [None, 200_000])
def test_windows_over_sequences_of_different_lengths(memory_limit: int | None) -> None:
    """Windows of 4 steps over sequences of 12, 5 and 2, states handed on from one to the next."""
    rng = np.random.default_rng(3)
    case = build(rng, np.float64, (12, 3, 2, 5, 3))
    ends, width = np.array([12, 5, 2]), 4
    total = 0.0
    _, whole = reference.loss_and_grad(
        case.params, case.x, case.y, h0=case.options["h0"], lengths=ends, truncate=Chunked(width)
    )
    summed = {name: np.zeros_like(array) for name, array in case.params.items()}
    state = case.options["h0"]
    for start in range(0, 16, width):  # the last window is behind the end of all
        part = slice(min(start, 8), min(start, 8) + width)
        lengths = np.clip(ends - start, 0, width)
        x, y = case.x[part], case.y[part]
        objective = Objective(x, y, like=case.params, h0=state, lengths=lengths, memory_limit=memory_limit)
        loss, g = objective(case.params)
        mantissa, exponent = objective.weight_sum
        share = mantissa * 2.0**exponent / ends.sum()
        assert share == lengths.sum() / ends.sum()
        total += share * loss
        for name, array in g.items():
            summed[name] += share * array
        rnnbptt.gradient_flow(case.params, x, y, h0=state, lengths=lengths)
        rnnbptt.truncation_report(case.params, x, y, h0=state, lengths=lengths)
        state = rnnbptt.forward(case.params, x, state).hidden[-1]
    expected, _ = reference.loss_and_grad(case.params, case.x, case.y, h0=case.options["h0"], lengths=ends)
    assert total == pytest.approx(expected, rel=FORMS)
    for name, array in whole.items():
        assert relative_error(summed[name], array) <= FORMS, name
