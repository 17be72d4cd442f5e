"""NaN, infinities, overflow and underflow: what goes in comes out, quietly, and only where it must."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, Array, Case, Scalar, assert_identical, build
from rnnbptt import Chunked, Params, Sliding
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from speed import thinned
from tolerances import gradient_bound, relative_error

PLACES = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "x", "y", "h0")
POISONS = (np.nan, np.inf, -np.inf)
HEADROOM = 1024  # how far from the end of a dtype's range rounding cannot decide what is finite
SCHEDULES = [
    {"lift": lift, "window": window, "keep_all_states": keep}
    for lift in (1, 4, 7, 32)
    for window, keep in ((0, 1), (3, 0), (3, 1))
]


def poisoned(case: Case, place: str, value: float, rng: np.random.Generator) -> Case:
    """Put `value` somewhere into one of the arrays."""

    def spoil(array: Array) -> Array:
        array = array.copy()
        array[tuple(int(rng.integers(n)) for n in array.shape)] = value
        return array

    if place == "x":
        return case._replace(x=spoil(case.x))
    if place == "y":
        return case._replace(y=spoil(case.y))
    if place == "h0":
        return case._replace(options=case.options | {"h0": spoil(case.options["h0"])})
    arrays = dict(case.params.items())
    return case._replace(params=Params(**(arrays | {place: spoil(arrays[place])})))


def assert_finite_alike(case: Case, **schedule: int) -> None:
    """Compare which numbers are finite with the recursion step by step."""
    expected_loss, expected = case.sequential()
    loss, actual = case.scheduled(**schedule) if schedule else case.engine()
    assert np.isfinite(loss) == np.isfinite(expected_loss)
    for name, gradient in actual.items():
        by_steps = getattr(expected, name)
        np.testing.assert_array_equal(
            np.isfinite(gradient), np.isfinite(by_steps), err_msg=f"{name} {schedule}"
        )


# --- in and out ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("place", "value"), thinned(product(PLACES, POISONS), 2))
def test_gradients_are_not_finite_where_the_recursion_is_not(place: str, value: float, dtype: Scalar) -> None:
    rng = np.random.default_rng(len(place))
    for loss in LOSSES:
        known = losses.LOSSES[loss]
        if place == "y" and known.labels:
            continue
        # Where dl/do is bounded, an infinite output asks for finite gradients.
        if (
            not known.labels
            and np.isfinite(known.derivative(np.full((1, 2), np.inf), np.zeros((1, 2)))).all()
        ):
            continue
        for steps in ((), STEP_OPTIONS):
            case = poisoned(build(rng, dtype, (40, 2, 3, 5, 2), loss=loss, steps=steps), place, value, rng)
            assert_finite_alike(case)
            for schedule in SCHEDULES:
                assert_finite_alike(case, **schedule)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("value", POISONS)
@pytest.mark.parametrize("place", ["x", "d_o", "W_hx", "W_hh", "W_qh", "h0"])
def test_vjp_is_not_finite_where_the_recursion_is_not(place: str, value: float, dtype: Scalar) -> None:
    rng = np.random.default_rng(len(place))
    for _ in range(5):
        case = build(rng, dtype, (40, 2, 3, 5, 2))
        case = poisoned(case, "y" if place == "d_o" else place, value, rng)
        given = case.params, case.x, case.y, case.options["h0"]
        expected = rnnbptt.reference.vjp(*given, wrt=case.wrt)
        for name, gradient in rnnbptt.vjp(*given, wrt=case.wrt).items():
            np.testing.assert_array_equal(np.isfinite(gradient), np.isfinite(getattr(expected, name)), name)
        forced = case._replace(options=case.options | {"loss": "given"})
        for schedule in SCHEDULES:
            for name, gradient in forced.scheduled(**schedule)[1].items():
                np.testing.assert_array_equal(
                    np.isfinite(gradient), np.isfinite(getattr(expected, name)), f"{name} {schedule}"
                )


@pytest.mark.parametrize("value", POISONS)
def test_states_scans_and_powers(value: float) -> None:
    rng = np.random.default_rng(1)
    case = build(rng, np.float64, (600, 2, 3, 5, 2))
    for place in ("x", "h0", "W_hx", "W_hh", "W_qh"):
        p, x, _, options = poisoned(case, place, value, rng)
        for a, e in zip(
            rnnbptt.forward(p, x, options["h0"]), rnnbptt.reference.forward(p, x, options["h0"]), strict=True
        ):
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(e))
    v = rng.standard_normal((600, 1, 5))
    v[300, 0, 2] = value
    W = case.params.W_hh
    for reverse in (False, True):
        a, e = (f.linear_scan(W, v, reverse=reverse) for f in (rnnbptt, rnnbptt.reference))
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(e))
    W = W.copy()
    W[1, 2] = value
    a, e = rnnbptt.matrix_powers(W, 6), rnnbptt.reference.matrix_powers(W, 6)
    np.testing.assert_array_equal(np.isfinite(a[1:]), np.isfinite(e[1:]))


def test_zero_times_infinity_is_not_skipped() -> None:
    p = Params([[1.0]], [[0.0]], [[1.0]])
    hidden = rnnbptt.forward(p, [[np.inf], [1.0]]).hidden
    assert hidden[0, 0] == np.inf
    assert np.isnan(hidden[1, 0])
    assert np.isnan(rnnbptt.linear_scan([[0.0]], [[np.inf], [1.0]])[1, 0])


# --- overflow -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("seed", thinned(range(100), 5))
def test_exploding_gradients(seed: int, dtype: Scalar) -> None:
    # Steps enough for the largest eigenvalue to leave the range of the dtype, or nearly so.
    rng = np.random.default_rng(seed)
    radius = float(rng.uniform(1.2, 6))
    limit = np.log(float(np.finfo(dtype).max)) / np.log(radius)
    T = max(2, int(limit * rng.uniform(0.3, 1.3)))
    case = build(rng, dtype, (T, 1 + seed % 3, 2, 4, 2), loss=LOSSES[seed % len(LOSSES)], radius=radius)
    expected_loss, expected = case.sequential()
    exact_loss, exact = case.oracle()
    largest = np.longdouble(np.finfo(dtype).max)
    for loss, actual in (case.engine(), *(case.scheduled(**schedule) for schedule in SCHEDULES)):
        if np.isfinite(expected_loss) and exact_loss < np.finfo(np.float64).max / HEADROOM:
            assert np.isfinite(loss)
        for name, gradient in actual.items():
            size = np.abs(getattr(exact, name))
            # Finite where the recursion is, but for a hair; not finite where no number of this dtype will do.
            kept = np.isfinite(getattr(expected, name)) & (size < largest / HEADROOM)
            assert np.isfinite(gradient[kept]).all(), name
            assert not np.isfinite(gradient[size > largest * HEADROOM]).any(), name


@pytest.mark.parametrize("dtype", SCALARS)
def test_powers_that_overflow_do_not_spoil_what_is_finite(dtype: Scalar) -> None:
    # The large eigenvalue belongs to a state that nothing excites: powers overflow, the recursion does not.
    p = Params(np.array([[1], [0]], dtype), np.diag([0.5, 1e30]).astype(dtype), np.array([[1, 0]], dtype))
    x, y = np.ones((300, 1), dtype), np.zeros((300, 1), dtype)
    case = Case(p, x, y, {})
    _, expected = case.sequential()
    for _, actual in (case.engine(), *(case.scheduled(**schedule) for schedule in SCHEDULES)):
        for name, gradient in actual.items():
            assert np.isfinite(getattr(expected, name)).all()
            assert relative_error(gradient, getattr(expected, name)) < 1e-5, name


@pytest.mark.parametrize("dtype", SCALARS)
def test_confident_classifiers(dtype: Scalar) -> None:
    for size in (1e2, 1e4, 1e30):
        zero = np.zeros((1, 1), dtype)
        p = Params(zero, zero, np.zeros((3, 1), dtype), b_q=np.array([size, 0, -size], dtype))
        x = np.zeros((3, 1), dtype)
        for label in range(3):
            loss, g = rnnbptt.loss_and_grad(p, x, [label] * 3, loss="cross_entropy")
            assert loss == pytest.approx(label * float(np.float32(size)), rel=1e-6, abs=1e-40)
            assert g.b_q is not None
            target = np.eye(3)[label]
            np.testing.assert_allclose(g.b_q, np.array([1.0, 0, 0]) - target, atol=1e-40)


# --- last states --------------------------------------------------------------------------------------------

# Gradients read the state before each step: the last one takes part in outputs alone. In the rows of a window
# it stands before the next sequence, whose gradient there is 0, and 0 times an infinity is not 0.
ENDS = [
    pytest.param((40,), (0,), id="alone"),
    pytest.param((40, 40), (0,), id="before another"),
    pytest.param((40, 40), (1,), id="after another"),
    pytest.param((40, 40, 40), (0, 1, 2), id="each"),
    pytest.param((33, 40, 17), (0, 1, 2), id="each of another length"),
    pytest.param((17, 40, 33), (2,), id="between longer and shorter"),
]


def apart(case: Case, truncate: Any = None) -> dict[str, Array]:
    """Add up the gradients of sequences that the reference runs one by one, each to its own end."""
    T, B = case.x.shape[:2]
    h0 = case.options["h0"]
    total: dict[str, Array] = {"x": np.zeros_like(case.x), "h0": np.zeros_like(h0)}
    for b, n in enumerate(case.options.get("lengths", [T] * B)):
        own = rnnbptt.reference.vjp(
            case.params, case.x[:n, b], case.y[:n, b], h0[b], wrt=case.wrt, truncate=truncate
        )
        for name, value in own.items():
            if name in ("x", "h0"):
                total[name][(slice(n), b) if name == "x" else b] = value
            else:
                with np.errstate(all="ignore"):
                    total[name] = value + total.get(name, 0)
    return total


def assert_right_where_finite(actual: rnnbptt.Gradients, expected: dict[str, Array], message: str) -> None:
    """Compare numbers that the recursion finds finite; others may be lucky in another order of sums."""
    for name, value in actual.items():
        finite = np.isfinite(expected[name])
        largest = np.abs(expected[name][finite], dtype=np.longdouble).max(initial=1)
        a, e = value[finite] / largest, expected[name][finite] / largest
        assert np.isfinite(a).all(), f"{name} {message}"
        assert np.linalg.norm(a - e) <= 512 * np.finfo(value.dtype).eps * np.linalg.norm(e), (
            f"{name} {message}"
        )


def test_a_last_state_beyond_the_range_by_hand() -> None:
    # In both sequences s = 1, 2, infinity: dW_hh = 2 (g_1 * 1 + g_2 * 2), where g_1 = d_o_1 + 2 g_2.
    for dtype in SCALARS:
        p = Params(*(np.array([[value]], dtype) for value in (16, 2, 1)))
        x = np.zeros((2, 2, 1), dtype)
        x[1] = np.finfo(dtype).max / 4
        assert np.isinf(rnnbptt.forward(p, x, np.ones((2, 1), dtype)).hidden[1]).all()
        for first, last, d_hT, W_hh in ((1, 1, 0, 10), (3, 0, 0, 6), (0, 0, 1, 8)):
            d_o = np.repeat(np.array([[[first]], [[last]]], dtype), 2, axis=1)
            g = rnnbptt.vjp(p, x, d_o, np.ones((2, 1), dtype), d_hT=np.full((2, 1), d_hT, dtype))
            assert g.W_hh == W_hh


@pytest.mark.parametrize("last_d_o", ["some", "zero"])
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("lengths", "leave"), ENDS)
def test_a_last_state_beyond_the_range_spoils_no_other_gradient(
    lengths: tuple[int, ...], leave: tuple[int, ...], dtype: Scalar, last_d_o: str
) -> None:
    B = len(lengths)
    ends = np.array(lengths) - 1, np.arange(B)
    case = build(np.random.default_rng(B), dtype, (40, B, 3, 5, 2))
    W_hx = case.params.W_hx.copy()
    W_hx[:, 0] = 16
    x, d_o = case.x.copy(), case.y.copy()
    x[..., 0] = 0
    for b in leave:
        x[lengths[b] - 1, b, 0] = np.finfo(dtype).max / 8
    if last_d_o == "zero":
        d_o[ends] = 0
    steps: dict[str, Any] = {} if set(lengths) == {40} else {"lengths": np.array(lengths)}
    params = Params(**(dict(case.params.items()) | {"W_hx": W_hx}))
    case = Case(params, x, d_o, case.options | {"loss": "given"} | steps)
    for truncate in (None, Chunked(4), Sliding(5)):
        expected = apart(case, truncate)
        assert np.isfinite(expected["W_hh"]).all()
        own = rnnbptt.vjp(params, x, d_o, case.options["h0"], wrt=case.wrt, truncate=truncate, **steps)
        assert_right_where_finite(own, expected, f"{truncate}")
    expected = apart(case)
    for schedule in SCHEDULES:
        assert_right_where_finite(case.scheduled(**schedule)[1], expected, f"{schedule}")


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("method", ["recursion", "closed_form", "forward_mode"])
def test_the_reference_drops_last_states_too(method: Any, dtype: Scalar) -> None:
    # s = 1, infinity in the first sequence, which ends there: dW_hh = 2 g_2 h_1 + g_1 h_0 of both.
    p = Params(*(np.array([[value]], dtype) for value in (16, 2, 1)))
    x = np.zeros((4, 2, 1), dtype)
    x[1, 0] = np.finfo(dtype).max / 4
    d_o, h0 = np.ones((4, 2, 1), dtype), np.ones((2, 1), dtype)
    for truncate in (None, Sliding(9), Chunked(9)):
        if truncate is not None and method != "recursion":
            continue
        given: dict[str, Any] = {"lengths": [2, 4], "wrt": ["W_hh", "h0", "x"], "truncate": truncate}
        expected = rnnbptt.reference.vjp(p, x, d_o, h0, method=method, **given)
        alone = [
            rnnbptt.reference.vjp(p, x[:n, b], d_o[:n, b], h0[b], method=method, wrt=["W_hh"])
            for b, n in ((0, 2), (1, 4))
        ]
        assert expected.W_hh == sum(g.W_hh for g in alone if g.W_hh is not None)
        assert_identical(rnnbptt.vjp(p, x, d_o, h0, **given), expected)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("growth", [1.2, 4.0])
@pytest.mark.parametrize("lengths", [(38,), (38, 38), (17, 38), (38, 30, 17)])
def test_steps_behind_the_end_may_leave_the_range(
    lengths: tuple[int, ...], growth: float, dtype: Scalar
) -> None:
    # A chunk that goes on behind the end of its sequence multiplies a last state that barely fits.
    T, B = max(lengths), len(lengths)
    case = build(np.random.default_rng(B), dtype, (T, B, 3, 5, 2), radius=growth, kind="orthogonal")
    h0 = case.options["h0"].astype(np.float64)
    size = float(np.finfo(dtype).max) / 4 / growth ** np.array(lengths)[:, np.newaxis]
    h0 = (h0 / np.linalg.norm(h0, axis=1, keepdims=True) * size).astype(dtype)
    options: dict[str, Any] = {"loss": "given", "h0": h0}
    if len(set(lengths)) > 1:
        options["lengths"] = np.array(lengths)
    case = case._replace(y=np.ldexp(case.y, -30).astype(dtype), options=options)
    expected = apart(case)
    assert all(np.isfinite(value).all() for value in expected.values())
    for schedule in ({}, *SCHEDULES):
        assert_right_where_finite(case.scheduled(**schedule)[1], expected, f"{schedule}")


# --- underflow and the floating-point environment -----------------------------------------------------------


def test_subnormal_numbers_are_kept() -> None:
    for dtype, smallest in ((np.float64, 5e-324), (np.float32, 1e-45)):
        one = np.ones((1, 1), dtype)
        tiny = np.array([[smallest]], dtype)
        assert tiny.item() > 0
        assert rnnbptt.linear_scan(one, np.concatenate([tiny, 0 * tiny]))[1] == tiny[0]
        powers = rnnbptt.matrix_powers(one / 2, 149 if dtype is np.float32 else 1074)
        assert powers[-1] == tiny
        g = rnnbptt.vjp(Params(one, one, one), tiny, one)
        assert g.W_hx == tiny
        assert np.array([smallest], dtype)[0] * dtype(1) == tiny[0, 0]


@pytest.mark.parametrize("dtype", SCALARS)
def test_vanishing_gradients_underflow_gradually(dtype: Scalar) -> None:
    p = Params.random(1, 3, 1, spectral_radius=0.5, kind="orthogonal", rng=0, dtype=dtype)
    T = 5000
    d_o = np.zeros((T, 1), dtype)
    d_o[-1] = 1
    actual, expected = (f.state_gradients(p, d_o) for f in (rnnbptt, rnnbptt.reference))
    tiny = float(np.finfo(dtype).smallest_subnormal)
    for a, e in zip(actual.astype(np.longdouble), expected.astype(np.longdouble), strict=True):
        error, size = np.abs(a - e).max(), np.abs(e).max()
        assert error <= gradient_bound(dtype, 3, T, 0.5) * size + 8 * tiny
    assert (np.abs(actual[actual != 0]) < np.finfo(dtype).tiny).any()


def test_no_warning_and_no_exception_whatever_errstate_says() -> None:
    case = build(np.random.default_rng(2), np.float64, (50, 2, 3, 4, 2), radius=1.0)
    for place in ("x", "W_hh", "y"):
        bad = poisoned(case, place, np.inf, np.random.default_rng(3))
        with np.errstate(all="raise"):
            _, actual = bad.engine()
            rnnbptt.forward(bad.params, bad.x)
            for method in ("recursion", "closed_form", "scan"):
                rnnbptt.state_gradients(bad.params, bad.y, method=method)
        assert_identical(actual, bad.engine()[1])
    huge = Params.random(1, 3, 1, spectral_radius=1e200, rng=0)
    with np.errstate(all="raise"):
        rnnbptt.matrix_powers(huge.W_hh, 5)
        rnnbptt.loss_and_grad(huge, np.ones((9, 1)), np.ones((9, 1)), num_threads=2)


def test_the_floating_point_environment_stays_as_it_was() -> None:
    def probe() -> list[Any]:
        with np.errstate(all="ignore"):
            return [
                np.geterr(),
                np.float64(5e-324) * 1.0,
                np.float64(2.2250738585072014e-308) / 4,
                np.float64(1) + np.float64(2**-53),
                np.float64(1) + np.nextafter(2**-53, 1),
                np.rint(np.array([0.5, 1.5, 2.5])).tolist(),
                np.sqrt(np.float64(2)).hex(),
            ]

    before = probe()
    case = build(np.random.default_rng(4), np.float64, (300, 2, 3, 4, 2), radius=5.0)
    case.engine(num_threads=2)
    assert probe() == before
    # An overflow in there must not be reported by what comes after.
    with np.errstate(all="raise"):
        np.ones(3) + np.ones(3)
        np.exp(np.zeros(3))


# --- what is not read ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_does_not_count_is_not_read(loss: LossName, dtype: Scalar) -> None:
    rng = np.random.default_rng(5)
    T, B = 60, 4
    case = build(rng, dtype, (T, B, 3, 5, 2), loss=loss)
    lengths = np.array([60, 1, 17, 42])
    weights: Array = rng.uniform(0.5, 2, (T, B)).astype(dtype)
    mask = rng.uniform(size=(T, B)) < 0.6
    mask[0] = True
    weights[mask & (rng.uniform(size=(T, B)) < 0.2)] = 0
    weights[0] = 1
    clean = case._replace(options=case.options | {"lengths": lengths, "weights": weights, "mask": mask})
    counted = mask & np.greater(weights, 0) & (np.arange(T)[:, np.newaxis] < lengths)
    last = T - np.argmax(counted[::-1], axis=0)
    x, y, w = clean.x.copy(), clean.y.copy(), weights.copy()
    x[np.arange(T)[:, np.newaxis] >= last] = np.nan
    y[~counted] = -1 if losses.LOSSES[loss].labels else np.nan
    dirty = clean._replace(x=x, y=y, options=clean.options | {"weights": w})
    for schedule in ({}, *SCHEDULES):
        expected_loss, expected = clean.scheduled(**schedule)
        value, actual = dirty.scheduled(**schedule)
        assert np.isfinite(value)
        assert value == expected_loss
        assert_identical(actual, expected)
        assert actual.x is not None
        assert not actual.x[np.arange(T)[:, np.newaxis] >= last].any()
    assert_finite_alike(dirty)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sequence_that_does_not_count_at_all(loss: LossName) -> None:
    case = build(np.random.default_rng(6), np.float64, (30, 3, 2, 4, 2), loss=loss)
    weights = np.ones((30, 3))
    weights[:, 1] = 0
    x = case.x.copy()
    x[:, 1] = np.nan
    _, actual = case._replace(x=x, options=case.options | {"weights": weights}).engine()
    pair = case._replace(
        x=case.x[:, ::2], y=case.y[:, ::2], options=case.options | {"h0": case.options["h0"][::2]}
    )
    _, expected = pair.engine()
    for name, _ in case.params.items():
        assert relative_error(getattr(actual, name), getattr(expected, name)) < 1e-13, name
    assert actual.x is not None
    assert actual.h0 is not None
    assert not actual.x[:, 1].any()
    assert not actual.h0[1].any()


def test_forward_runs_all_steps_and_vjp_reads_no_cotangent_beyond_the_end() -> None:
    case = build(np.random.default_rng(7), np.float64, (50, 2, 3, 4, 2))
    d_o = case.y.copy()
    d_o[20:, 0] = np.nan
    x = case.x.copy()
    x[20:, 0] = np.inf
    clean = rnnbptt.vjp(case.params, case.x, case.y, lengths=[20, 50], wrt=case.wrt)
    assert_identical(rnnbptt.vjp(case.params, x, d_o, lengths=[20, 50], wrt=case.wrt), clean)
