"""Numbers near the end of a dtype's range: where the recursion is finite, so is every schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, Array, Case, Scalar, build
from rnnbptt import Chunked, Params, Sliding
from rnnbptt.engine.dataset import Dataset
from rnnbptt.gradients.problem import Problem
from speed import thinned
from tolerances import gradient_bound, relative_error

SCHEDULES: list[dict[str, int]] = [
    {},
    *({"lift": lift, "window": window} for lift in (1, 4, 7, 32) for window in (0, 3)),
    {"lift": 1, "piece": 5},
    {"lift": 4, "splits": 3, "window": 7, "keep_all_states": 0},
]
TOLD = 64
"""How far from the end of the range a number is told apart from one beyond it."""


def near_overflow(seed: int, dtype: Scalar) -> Case:
    """Draw a problem whose states, or gradients alone, come close to the end of the range, or leave it."""
    rng = np.random.default_rng(seed)
    largest = float(np.finfo(dtype).max)
    loss = LOSSES[seed % len(LOSSES)]
    if seed % 2:  # data near the square root of the largest number
        case = build(rng, dtype, (40, 1 + seed % 3, 2, 4, 2), radius=float(rng.uniform(0.3, 1)))
        size = dtype(largest ** rng.uniform(0.47, 0.52))
        options = case.options | {"h0": case.options["h0"] * size}
        return case._replace(x=case.x * size, y=case.y * size, options=options)
    if seed % 4:  # data near the largest number, a cotangent of any size
        case = build(rng, dtype, (30, 2, 2, 4, 2), radius=float(rng.uniform(0.3, 1)))
        size = dtype(largest * rng.uniform(0.02, 0.5))
        x = (case.x / np.abs(case.x).max()).astype(dtype) * size
        return case._replace(x=x, y=case.y * dtype(10.0 ** rng.uniform(-4, 0)), options={"loss": "given"})
    # growth that reaches it
    radius = float(rng.uniform(1.2, 6))
    steps = max(2, int(np.log(largest) / np.log(radius) * rng.uniform(0.4, 1.1)))
    return build(rng, dtype, (steps, 1 + seed % 3, 2, 4, 2), loss=loss, radius=radius)


def by_recursion(case: Case) -> tuple[float, rnnbptt.Gradients]:
    if case.options.get("loss") != "given":
        return case.sequential()
    return 0.0, rnnbptt.reference.vjp(case.params, case.x, case.y, case.options.get("h0"), wrt=case.wrt)


def exactly(case: Case) -> rnnbptt.Gradients:
    if case.options.get("loss") != "given":
        return case.oracle()[1]
    zero = np.zeros_like(case.y)

    def given(_o: Array, _y: Array) -> tuple[float, Array]:
        return 0.0, case.y.astype(np.longdouble)

    return rnnbptt.reference.oracle(case.params, case.x, zero, loss=given, wrt=case.wrt)[1]


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("seed", thinned(range(400), 8))
def test_every_schedule_is_finite_where_the_recursion_is(seed: int, dtype: Scalar) -> None:
    case = near_overflow(seed, dtype)
    expected_loss, expected = by_recursion(case)
    exact = exactly(case)
    largest = np.longdouble(np.finfo(dtype).max)
    for schedule in SCHEDULES:
        loss, actual = case.scheduled(**schedule)
        assert np.isfinite(loss) or not np.isfinite(expected_loss)
        for name, gradient in actual.items():
            right = getattr(exact, name)
            finite = np.isfinite(getattr(expected, name))
            assert np.isfinite(gradient[finite]).all(), f"{name} {schedule}"
            assert not np.isfinite(gradient[np.abs(right) > largest * TOLD]).any(), f"{name} {schedule}"
            if not finite.any():
                continue
            # As accurate as the recursion, too: what is near the end of the range is scaled, not given up.
            unit = np.abs(right[finite]).max()
            if unit == 0:
                continue
            own = relative_error(getattr(expected, name)[finite] / unit, right[finite] / unit)
            bound = gradient_bound(dtype, 4, len(case.x), 0.9)
            error = relative_error(gradient[finite] / unit, right[finite] / unit)
            assert error <= max(bound, 64 * own), f"{name} {schedule}"


def test_sums_may_pass_through_infinity_by_hand() -> None:
    # dW_hx = g_1 x_1 + g_2 x_2 + g_3 x_3 = (3/4 + 3/4 - 3/4) max, which two of three orders do not leave.
    for dtype in SCALARS:
        one = np.ones((1, 1), dtype)
        params = Params(one, 0 * one, one, b_h=np.zeros(1, dtype), b_q=np.zeros(1, dtype))
        size = dtype(0.75 * float(np.finfo(dtype).max))
        x = np.array([[size], [size], [-size]], dtype)
        for order in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
            g = rnnbptt.vjp(params, x[order], one.repeat(3, axis=0), wrt=["W_hx", "W_qh"])
            assert g.W_hx == size
            assert g.W_qh == size


# --- slopes that are bounded --------------------------------------------------------------------------------


def huber(o: Array, y: Array) -> tuple[float, Array]:
    """Square near zero, and a slope of at most one."""
    with np.errstate(all="ignore"):
        r = o - y
        size = np.abs(r)
        loss = np.where(size <= 1, r * r / 2, size - 0.5).mean()
        d_o = np.where(size <= 1, r, np.sign(r)) / r.size
    return float(loss) if np.isfinite(loss) else float("inf"), d_o.astype(o.dtype)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", ["x", "y", "h0", "W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx"])
def test_bounded_slopes_are_not_finite_where_the_recursion_is_not(
    place: str, value: float, dtype: Scalar
) -> None:
    rng = np.random.default_rng(len(place))
    for h in (1, 4):
        case = build(rng, dtype, (70, 2, 3, h, 2))
        arrays: dict[str, Any] = dict(case.params.items()) | {"x": case.x, "y": case.y}
        arrays |= {"h0": case.options["h0"]}
        spoilt = arrays[place].copy()
        spoilt[tuple(int(rng.integers(n)) for n in spoilt.shape)] = value
        arrays[place] = spoilt
        x, y, h0 = (arrays.pop(name) for name in ("x", "y", "h0"))
        params = Params(**arrays)
        for truncate in (None, Chunked(35), Sliding(20)):
            given: dict[str, Any] = {"loss": huber, "h0": h0, "wrt": case.wrt, "truncate": truncate}
            _, expected = rnnbptt.reference.loss_and_grad(params, x, y, **given)
            for schedule in SCHEDULES:
                if truncate is not None and schedule:
                    continue
                dataset = Dataset(params, x, h0, wrt=case.wrt)
                problem = Problem(dataset, huber, y, truncate, schedule=schedule)
                for name, gradient in problem.loss_and_gradients(params, 1)[1].items():
                    np.testing.assert_array_equal(
                        np.isfinite(gradient),
                        np.isfinite(getattr(expected, name)),
                        err_msg=f"{name} {schedule} {truncate}",
                    )


# --- weights whose products leave the range -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("sizes", [(1, -1, 0), (-1, -1, 1), (1, 1, -1), (-1, 1, 0)])
def test_weights_of_extreme_sizes(sizes: tuple[int, int, int], dtype: Scalar) -> None:
    # o = W_qh (W_hx x) is of ordinary size or within the range, the product W_qh W_hx is not.
    unit = 1e200 if dtype is np.float64 else 1e25
    W_qh, W_hx, x = (dtype(unit**size) for size in sizes)
    case = build(np.random.default_rng(3), dtype, (60, 2, 2, 4, 2), h0=False, biases=False, direct=False)
    params = Params(case.params.W_hx * W_hx, case.params.W_hh, case.params.W_qh * W_qh)
    case = case._replace(params=params, x=case.x * x, y=case.y, options={"loss": "given"})
    expected, exact = by_recursion(case)[1], exactly(case)
    for schedule in SCHEDULES:
        for name, gradient in case.scheduled(**schedule)[1].items():
            right = getattr(exact, name)
            unit_of = np.abs(right).max()
            if not np.isfinite(getattr(expected, name)).all() or unit_of < np.finfo(dtype).tiny * 1e8:
                continue
            error = relative_error(gradient / unit_of, right / unit_of)
            own = relative_error(getattr(expected, name) / unit_of, right / unit_of)
            assert error <= max(gradient_bound(dtype, 4, 60, 0.9), 64 * own), f"{name} {schedule}"
