"""Gradient flow: against powers in 60 digits, against the engine, and far beyond the range of float64."""

from __future__ import annotations

import json
import math
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest

import rnnbptt
from problems import build, draw
from rnnbptt.reports import problem
from rnnbptt.reports.flow import GradientFlow, gradient_flow
from rnnbptt.reports.lag_terms import LagTerms, side_by_side
from rnnbptt.reports.problem import pose
from rnnbptt.reports.wide_range.chunked_recurrence import chunk_of
from rnnbptt.reports.wide_range.correlation import correlate
from rnnbptt.reports.wide_range.scaled import Real, Scaled, add, normalised, raw_if_tame
from tolerances import relative_error

SUMS = 1e-10
"""What the contributions of all lags may differ from the engine's gradient, relative to it."""

LOGS = 1e-9
"""What a base-2 logarithm may differ from the exact one."""

OPTIONS: dict[str, Any] = {"loss": "mse", "h0": None, "weights": None, "lengths": None, "mask": None}


def terms_of(params: rnnbptt.Params, x: Any, y: Any, lags: int, **options: Any) -> LagTerms:
    with np.errstate(all="ignore"):
        data = pose(params, x, y, **(OPTIONS | options), batch_first=False, threads=0)
        return LagTerms(data, lags, 0)


def summed(terms: LagTerms) -> Real:
    total = terms.total()
    return total.at(np.zeros_like(total.exponent))


# --- against exact numbers ----------------------------------------------------------------------------------


class Exact:
    """The same quantities with 60 digits, by the definitions alone."""

    def __init__(self, params: rnnbptt.Params, x: Real, y: Real) -> None:
        T, q = y.shape

        def matrix(array: Any) -> Any:
            return mp.matrix(np.asarray(array, float).tolist())

        W, U, C = (matrix(getattr(params, name)) for name in ("W_hh", "W_hx", "W_qh"))
        h = [mp.matrix(W.rows, 1)]
        for t in range(T):
            h.append(U * matrix(x[t][:, None]) + W * h[-1])
        d_o = [2 * (C * h[t + 1] - matrix(y[t][:, None])) / (q * T) for t in range(T)]
        e = [C.T * d for d in d_o]
        g = [e[-1]]
        for t in reversed(range(T - 1)):
            g.insert(0, e[t] + W.T * g[0])
        power = mp.eye(W.rows)
        self.contributions, self.lag_norms, G = [], [], []
        for k in range(T):
            G.append(mp.zeros(W.rows))
            for t in range(T - k):
                G[-1] += power * (e[t + k] * h[t].T)
            self.contributions.append(_log2(G[-1]))
            mean = mp.fsum(mp.norm(power * v) ** 2 for v in e) / T
            self.lag_norms.append(float(mp.log(mean, 2) / 2))
            power = W.T * power
        total = sum(G[1:], G[0])
        square = mp.fsum(entry**2 for entry in total)
        self.total = _log2(total)
        self.shares = [float(sum(a * b for a, b in zip(term, total, strict=True)) / square) for term in G]
        self.states = [_log2(v) for v in g]


def _log2(matrix: Any) -> float:
    square = mp.fsum(entry**2 for entry in matrix)
    return float(mp.log(square, 2) / 2) if square else -math.inf


@pytest.mark.parametrize("radius", [0.5, 1.5, 2.0])
def test_every_number_is_exact(radius: float) -> None:
    T = 24
    case = build(
        np.random.default_rng(5), np.float64, (T, 1, 2, 4, 2), radius=radius, biases=False, direct=False
    )
    x, y = case.x[:, 0], case.y[:, 0]
    flow = gradient_flow(case.params, x, y)
    with mp.workdps(60):
        exact = Exact(case.params, x, y)
    np.testing.assert_allclose(flow.log2_state_gradients, exact.states, rtol=0, atol=LOGS)
    np.testing.assert_allclose(flow.log2_lag_norms, exact.lag_norms, rtol=0, atol=LOGS)
    # The first state is zero, and so the last lag adds nothing.
    np.testing.assert_allclose(flow.log2_contributions[:-1], exact.contributions[:-1], rtol=0, atol=LOGS)
    assert flow.log2_contributions[-1] == exact.contributions[-1] == -math.inf
    np.testing.assert_allclose(flow.shares, exact.shares, rtol=0, atol=1e-10)
    assert flow.log2_gradient_norm == pytest.approx(exact.total, abs=LOGS)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("lags", [1, 700, 3000])
def test_logarithms_of_one_number_beyond_float64(radius: float, lags: int) -> None:
    # h = 1: a pulse at the first step, a loss at the last; every quantity is a power of the weight.
    T = 3000
    params = rnnbptt.Params([[1.0]], [[radius]], [[1.0]])
    x, mask = np.zeros((T, 1)), np.zeros(T, bool)
    x[0, 0] = mask[-1] = 1
    flow = gradient_flow(params, x, np.zeros((T, 1)), loss="squared_error", mask=mask, lags=lags)
    step = math.log2(radius)
    # h_t = w^(t-1) = o_t, d_o_T = o_T = w^(T-1), g_t = w^(T-t) d_o_T, G_k = w^k d_o_T h_{T-k-1}
    t, k = np.arange(1, T + 1), np.arange(lags)
    np.testing.assert_allclose(flow.log2_state_gradients, step * (2 * T - 1 - t), atol=1e-7)
    np.testing.assert_allclose(flow.log2_lag_norms, step * (T - 1 + k), atol=1e-7)
    expected = np.where(k < T - 1, step * (k + T - 1 + T - k - 2), -np.inf)
    np.testing.assert_allclose(flow.log2_contributions, expected, atol=1e-7)
    np.testing.assert_allclose(flow.shares[: T - 1], 1 / (T - 1), rtol=1e-9)
    assert flow.shares.sum() + flow.remainder_share == pytest.approx(1, abs=1e-10)


# --- against the engine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_contributions_sum_up_to_the_gradient(seed: int) -> None:
    case = draw(seed, steps=60)
    T = len(case.x)
    expected = side_by_side(case.engine()[1])
    for lags in {1, max(1, T // 3), T}:
        terms = terms_of(case.params, case.x, case.y, lags, **case.options)
        assert relative_error(summed(terms), expected) <= SUMS
        flow = gradient_flow(case.params, case.x, case.y, lags=lags, **case.options)
        if not expected.any():  # one class is always right
            assert np.isnan(flow.shares).all()
            continue
        assert flow.shares.sum() + flow.remainder_share == pytest.approx(1, abs=SUMS)
        h = len(expected)
        with np.errstate(divide="ignore"):
            norm = np.log2(np.linalg.norm(expected[:, :h]))
        assert flow.log2_gradient_norm == pytest.approx(norm, abs=LOGS)


@pytest.mark.parametrize("radius", [0.9, 1.0])
def test_long_sequences(radius: float) -> None:
    case = build(np.random.default_rng(1), np.float64, (20_000, 1, 2, 12, 2), radius=radius)
    expected = side_by_side(case.engine()[1])
    terms = terms_of(case.params, case.x, case.y, 300, h0=case.options["h0"])
    assert terms.problem.raw
    assert relative_error(summed(terms), expected) <= SUMS


def test_numbers_with_exponents_are_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(np.random.default_rng(3), np.float64, (300, 2, 2, 6, 2), radius=0.97, steps=("lengths",))
    plain = gradient_flow(case.params, case.x, case.y, lags=40, **case.options)
    for module in ("wide_range.scaled", "wide_range.chunked_recurrence", "lag_terms"):
        monkeypatch.setattr(f"rnnbptt.reports.{module}.tame", lambda rows: False)
    scaled = gradient_flow(case.params, case.x, case.y, lags=40, **case.options)
    for name in ("log2_state_gradients", "log2_lag_norms", "log2_contributions", "shares", "alignment"):
        np.testing.assert_allclose(getattr(scaled, name), getattr(plain, name), rtol=0, atol=1e-9)
    assert scaled.remainder_share == pytest.approx(plain.remainder_share, abs=1e-12)


def test_state_gradients_are_those_of_the_engine() -> None:
    case = build(np.random.default_rng(2), np.float64, (70, 3, 2, 5, 2))
    o = rnnbptt.forward(case.params, case.x, case.options["h0"]).o
    g = rnnbptt.state_gradients(case.params, 2 * (o - case.y) / case.y.size)
    flow = gradient_flow(case.params, case.x, case.y, h0=case.options["h0"])
    np.testing.assert_allclose(np.exp2(flow.log2_state_gradients), np.linalg.norm(g, axis=2), rtol=1e-10)


def test_layouts_and_dtypes() -> None:
    steps = ("weights", "lengths", "mask")
    case = build(np.random.default_rng(4), np.float32, (50, 3, 2, 5, 2), steps=steps)
    flow = gradient_flow(case.params, case.x, case.y, **case.options)
    assert flow.dtype == "float32"
    assert flow.log2_state_gradients.shape == (50, 3)
    turned_steps = {name: case.options[name].T for name in ("weights", "mask")}
    options = case.options | turned_steps | {"batch_first": True}
    turned = gradient_flow(case.params, case.x.swapaxes(0, 1), case.y.swapaxes(0, 1), **options)
    np.testing.assert_array_equal(turned.log2_state_gradients, flow.log2_state_gradients.T)
    single = gradient_flow(case.params, case.x[:, 0], case.y[:, 0])
    assert single.log2_state_gradients.shape == (50,)
    wide = rnnbptt.Params(**{name: array.astype(np.float64) for name, array in case.params.items()})
    same = gradient_flow(wide, case.x, case.y, **case.options)
    np.testing.assert_allclose(same.log2_contributions, flow.log2_contributions, rtol=0, atol=LOGS)


def test_threads_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(np.random.default_rng(6), np.float64, (30, 1, 2, 4, 2))
    both = threading.Barrier(2, timeout=30)

    def meet(*args: Any) -> Any:
        both.wait()
        return chunk_of(*args)

    monkeypatch.setattr(problem, "chunk_of", meet)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(gradient_flow, case.params, case.x, case.y) for _ in range(2)]
        first, second = (call.result() for call in calls)
    np.testing.assert_array_equal(first.shares, second.shares)


def test_loss_of_the_callers_own() -> None:
    case = build(np.random.default_rng(4), np.float64, (30, 2, 2, 5, 2))

    def loss(o: Any, y: Any) -> tuple[float, Any]:
        return float(np.sum((o - y) ** 2) / y.size), 2 * (o - y) / y.size

    own = gradient_flow(case.params, case.x, case.y, loss=loss, h0=case.options["h0"])
    named = gradient_flow(case.params, case.x, case.y, h0=case.options["h0"])
    np.testing.assert_allclose(own.log2_contributions, named.log2_contributions, atol=1e-12)
    params = rnnbptt.Params([[1.0]], [[2.0]], [[1.0]])
    with pytest.raises(ValueError, match="outputs exceed the range of float64"):
        gradient_flow(params, np.ones((2000, 1)), np.ones((2000, 1)), loss=loss)


# --- far out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.5, 1.5, 2.0])
def test_a_hundred_thousand_steps_are_finite(radius: float) -> None:
    T = 100_000
    rng = np.random.default_rng(0)
    params = rnnbptt.Params.random(2, 8, 2, spectral_radius=radius, rng=3)
    flow = gradient_flow(params, rng.standard_normal((T, 2)), rng.standard_normal((T, 2)))
    for name in ("log2_state_gradients", "log2_lag_norms", "log2_contributions", "shares", "alignment"):
        assert np.isfinite(getattr(flow, name)).all(), name
    assert flow.shares.sum() + flow.remainder_share == pytest.approx(1, abs=1e-10)
    late = np.diff(flow.log2_lag_norms[500:])
    assert late.mean() == pytest.approx(math.log2(radius), rel=1e-2)
    if radius > 1:
        early = np.diff(flow.log2_state_gradients[:1000]).mean()
        assert early == pytest.approx(-math.log2(radius), rel=1e-2)
        assert flow.log2_gradient_norm > 1.9 * T * math.log2(radius)


def test_confident_classes_far_out() -> None:
    params = rnnbptt.Params([[1.0]], [[2.0]], [[1.0], [-1.0]])
    flow = gradient_flow(params, np.ones((3000, 1)), np.ones(3000, int), loss="cross_entropy")
    assert np.isfinite(flow.log2_state_gradients).all()
    assert flow.log2_state_gradients[0] > 1024


# --- what is read off ---------------------------------------------------------------------------------------


def decay(radius: float, T: int = 400, **options: Any) -> GradientFlow:
    params = rnnbptt.Params([[1.0]], [[radius]], [[1.0]])
    return gradient_flow(params, np.ones((T, 1)), np.zeros((T, 1)), **options)


def test_horizon() -> None:
    assert decay(0.9).horizon() == math.ceil(math.log(0.01) / math.log(0.9))
    assert decay(0.9).horizon(0.5) == 7
    assert decay(0.9, lags=10).horizon() is None
    assert decay(1.0).horizon() is None
    with pytest.raises(ValueError, match="tol must be positive, not 0"):
        decay(0.9).horizon(0)


def test_horizon_of_the_last_loss_is_that_of_its_gradient() -> None:
    case = build(np.random.default_rng(0), np.float64, (200, 1, 2, 6, 1), radius=0.9)
    mask = np.zeros(200, bool)
    mask[-1] = True
    flow = gradient_flow(case.params, case.x[:, 0], case.y[:, 0], mask=mask)
    norms = np.exp2(flow.log2_state_gradients[::-1])
    np.testing.assert_allclose(np.exp2(flow.log2_lag_norms), norms, rtol=1e-10)
    assert flow.horizon() == np.flatnonzero(norms < 0.01 * norms[0])[0]


def test_where_numbers_end() -> None:
    T = 3000
    params = rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])
    mask = np.arange(T) == T - 1
    flow = gradient_flow(params, np.ones((T, 1)), np.zeros((T, 1)), loss="squared_error", mask=mask, lags=T)
    # d_o = o_T = 2 to rounding: ||g_t|| = 2^(1 - (T - t)), normal down to 2^-126 and 2^-1022
    for dtype, last in (("float32", 126), ("float64", 1022)):
        exits = flow.range_exits(dtype)
        assert exits.underflow_lag == last + 2
        assert exits.underflow_step == T - last - 2
        assert exits.overflow_lag is exits.overflow_step is None
    exits = decay(2.0, 1000).range_exits("float32")
    assert exits.overflow_lag == 0
    assert exits.overflow_step == 1000
    assert exits.underflow_lag is exits.underflow_step is None
    with pytest.raises(ValueError, match="dtype must be one of"):
        flow.range_exits("float16")


def test_alignment_turns_to_one() -> None:
    params = rnnbptt.Params(np.eye(2), np.diag([0.9, 0.3]), [[1.0, 1.0]])
    flow = gradient_flow(params, np.ones((50, 2)), np.zeros((50, 1)))
    k = np.arange(50)
    np.testing.assert_allclose(flow.alignment, 0.9**k / np.hypot(0.9**k, 0.3**k), rtol=1e-12)
    assert flow.leading_eigenvalues.tolist() == [0.9]
    turning = 0.8 * np.array([[0.6, -0.8], [0.8, 0.6]])
    pair = gradient_flow(rnnbptt.Params(np.eye(2), turning, [[1.0, 1.0]]), np.ones((9, 2)), np.zeros((9, 1)))
    assert len(pair.leading_eigenvalues) == 2
    np.testing.assert_allclose(pair.alignment, 1, rtol=1e-12)


def test_alignment_is_with_what_gradients_turn_into() -> None:
    # Gradients turn into eigenvectors of W_hh^T, states into those of W_hh: here these are far apart.
    W, e = np.array([[0.9, 3.0], [0.0, 0.3]]), np.array([1.0, 2.0])
    flow = gradient_flow(rnnbptt.Params(np.eye(2), W, [e]), np.ones((30, 2)), np.zeros((30, 1)))
    values, vectors = np.linalg.eig(W.T)
    leading = vectors[:, np.argmax(np.abs(values))]
    arriving = np.array([np.linalg.matrix_power(W.T, k) @ e for k in range(30)])
    expected = np.abs(arriving @ leading) / np.linalg.norm(arriving, axis=1)
    np.testing.assert_allclose(flow.alignment, expected, rtol=1e-12)


@pytest.mark.parametrize("T", [128, 129, 159])
def test_gradients_far_below_float64_in_chunks_that_are_not_whole(T: int) -> None:
    # g_t = sum_i W^i e_{t+i} with e_t = 2/T W_qh^2 W^t h_0, one number each.
    params = rnnbptt.Params([[1.0]], [[0.5]], [[2.0**-60]])
    flow = gradient_flow(params, np.zeros((T, 1)), np.zeros((T, 1)), h0=[2.0**-1000])
    t = np.arange(1, T + 1)
    sums = (1 - 0.25 ** (T + 1.0 - t)) / 0.75
    expected = np.log2(2 / T) - 1120 - t + np.log2(sums)
    np.testing.assert_allclose(flow.log2_state_gradients, expected, rtol=1e-13)


def test_true_zeros() -> None:
    flow = gradient_flow(
        rnnbptt.Params([[1.0]], [[0.0]], [[1.0]]), np.ones((5, 1)), np.zeros((5, 1)), mask=np.arange(5) == 2
    )
    assert flow.log2_state_gradients.tolist() == [-math.inf] * 2 + [1.0] + [-math.inf] * 2
    assert np.all(flow.log2_lag_norms[1:] == -math.inf)
    assert flow.horizon() == 1
    nothing = gradient_flow(rnnbptt.Params([[1.0]], [[0.5]], [[1.0]]), np.zeros((5, 1)), np.zeros((5, 1)))
    assert nothing.log2_gradient_norm == -math.inf
    assert np.isnan(nothing.shares).all()
    assert nothing.plot() is not None
    assert "0" in str(nothing)


# --- parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("T", "count", "q", "m"),
    [
        *((1, 1, 3, 2), (5, 5, 3, 2), (900, 30, 3, 2), (3000, 700, 3, 2), (6000, 6000, 3, 2)),
        *((300, 300, 40, 3), (700, 90, 40, 20), (5, 5, 40, 20)),
    ],
)
def test_correlation(T: int, count: int, q: int, m: int) -> None:
    rng = np.random.default_rng(T)
    a, b = rng.standard_normal((T, 2, q)), rng.standard_normal((T, 2, m))
    found = correlate(raw_if_tame(a), b, count)
    for k in {0, 1, count // 2, count - 1} & set(range(count)):
        exact = np.einsum("tbq,tbm->qm", a[k:], b[: T - k])
        actual = np.ldexp(found.mantissa[k], found.exponent[k][:, None].astype(int))
        np.testing.assert_allclose(actual, exact, rtol=0, atol=1e-11 * np.sqrt(T))


@pytest.mark.parametrize(("T", "size"), [(5000, 1), (500, 24)])
def test_correlation_of_a_pulse_is_exact(T: int, size: int) -> None:
    # A transform would leave its rounding errors at the lags where nothing is.
    a, b = np.zeros((T, 1, size)), np.zeros((T, 1, size))
    a[:, 0, 0], b[3] = 0.99 ** np.arange(T), 1
    found = correlate(raw_if_tame(a), b, T)
    values = np.ldexp(found.mantissa[:, 0, 0], found.exponent[:, 0])
    np.testing.assert_allclose(values[: T - 3], a[3:, 0, 0], rtol=1e-12)
    assert not values[T - 3 :].any()


def test_correlation_has_the_same_bits_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    a, b = raw_if_tame(rng.standard_normal((3000, 3, 2))), rng.standard_normal((3000, 3, 5))
    one, two = correlate(a, b, 500, 1), correlate(a, b, 500, 2)
    np.testing.assert_array_equal(one.mantissa, two.mantissa)


@pytest.mark.parametrize("left", [1e-9, 1e-5])
def test_contributions_that_cancel_keep_their_digits(left: float) -> None:
    # P_0 = [[1, 0], [1, left]] meets Z_0 whose rows are opposite: products of Gram matrices see next to zero.
    params = rnnbptt.Params(np.eye(2), np.zeros((2, 2)), [[1.0, 0.0], [1.0, left]])
    h0, x, d_o = np.array([1.0, 2.0]), np.zeros((1, 2)), np.array([[1.0, -1.0]])
    flow = gradient_flow(params, x, None, loss=lambda o, y: (0.0, d_o), h0=h0)
    expected = math.log2(left * math.sqrt(5))  # W_qh^T d_o = (0, -left)
    assert flow.log2_contributions[0] == pytest.approx(expected, abs=LOGS)


def test_normal_rows() -> None:
    rows = np.array([[0.0, 0.0], [3e-320, 0.0], [1e308, -1e300]])
    normal = normalised(rows)
    largest = np.abs(normal.mantissa).max(axis=1)
    assert largest[0] == 0
    assert np.all((largest[1:] >= 0.5) & (largest[1:] < 1))
    np.testing.assert_array_equal(
        np.ldexp(normal.mantissa, np.maximum(normal.exponent, -5000)[:, None].astype(int)), rows
    )
    assert Scaled(*normal).log2_norms()[0] == -math.inf


def test_sums_keep_the_layout_of_their_exponents() -> None:
    one = normalised(np.full((3, 2), 0.5), axes=2)
    assert one.exponent == 0  # as if there were none
    for other in (one, normalised(np.full((3, 2), 2.0**-300), axes=2), normalised(np.zeros((3, 2)), axes=2)):
        total = add(one, other)
        assert np.shape(total.exponent) == ()
        np.testing.assert_array_equal(total.at(np.zeros_like(total.exponent)), 0.5 + other.at(one.exponent))
    huge = Scaled(np.full((3, 2), 2.0**300), np.zeros((), np.int64))
    assert np.shape(add(huge, huge).exponent) == ()
    assert add(huge, huge).log2_norms() == pytest.approx(301 + math.log2(6) / 2)


# --- reports ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flow() -> GradientFlow:
    case = build(np.random.default_rng(9), np.float64, (120, 3, 2, 6, 2), radius=0.9, steps=("lengths",))
    return gradient_flow(case.params, case.x, case.y, lags=50, **case.options)


def test_table_fits_eighty_columns(flow: GradientFlow) -> None:
    for report in (flow, decay(0.5), decay(2.0, 5000), decay(0.9, 1)):
        text = str(report)
        assert max(map(len, text.splitlines())) <= 80, text
        assert "nan" not in text
    assert "from 50 on" in str(flow)


def test_dict_is_strict_json(flow: GradientFlow) -> None:
    values = json.loads(json.dumps(flow.to_dict(), allow_nan=False))
    assert values["shares"] == flow.shares.tolist()
    assert values["horizon"] == flow.horizon()
    assert [
        float(v) for v in np.ravel(values["log2_state_gradients"])
    ] == flow.log2_state_gradients.ravel().tolist()


@pytest.mark.parametrize("report", [decay(0.9), decay(2.0, 3000), decay(0.9, 1)])
def test_picture(report: GradientFlow) -> None:
    figure = report.plot()
    figure.canvas.draw()
    assert len(figure.axes) == 3
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)


def test_picture_in_given_axes(flow: GradientFlow) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(2, 3)
    assert flow.plot(axes[1]) is figure
    assert not axes[0, 0].has_data()
    assert axes[1, 2].has_data()
    with pytest.raises(ValueError, match="axes must be 3"):
        flow.plot(axes[0, :2])


def test_picture_without_matplotlib_names_the_extra(
    flow: GradientFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'rnnbptt\[plot\]'"):
        flow.plot()


# --- bad input ----------------------------------------------------------------------------------------------

PARAMS = rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lags": 0}, ValueError, "lags must be at least 1"),
        ({"lags": 6}, ValueError, "lags must be at most T = 5, not 6"),
        ({"lags": 2.0}, TypeError, "lags must be an integer"),
        ({"loss": "mae"}, ValueError, "loss must be one of"),
        ({"x": np.full((5, 1), np.nan)}, ValueError, "x must be finite"),
        ({"y": np.full((5, 1), np.inf)}, ValueError, "y must be finite"),
        ({"h0": [math.nan]}, ValueError, "h0 must be finite"),
        ({"params": rnnbptt.Params([[1.0]], [[math.inf]], [[1.0]])}, ValueError, "W_hh must be finite"),
        ({"params": 3}, TypeError, "params must be rnnbptt.Params"),
        ({"x": np.ones((5, 2))}, ValueError, "x must have shape"),
        ({"num_threads": 0}, ValueError, "num_threads"),
        ({"loss": lambda o, y: (0.0, o), "weights": np.ones(5)}, ValueError, "weights must be None"),
        ({"loss": lambda o, y: 0.0}, TypeError, "loss must return a pair"),
        ({"loss": lambda o, y: (0.0, o[1:])}, ValueError, "d_o must have shape"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"params": PARAMS, "x": np.ones((5, 1)), "y": np.ones((5, 1))}
    with pytest.raises(error, match=message):
        gradient_flow(**(arguments | options))


def test_padding_is_not_read() -> None:
    x, y = np.ones((5, 2, 1)), np.zeros((5, 2, 1))
    flow = gradient_flow(PARAMS, x, y, lengths=[5, 3])
    x[3:, 1] = y[3:, 1] = np.nan
    padded = gradient_flow(PARAMS, x, y, lengths=[5, 3])
    np.testing.assert_array_equal(padded.log2_contributions, flow.log2_contributions)


# --- the page -----------------------------------------------------------------------------------------------


def test_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "vanishing-and-exploding.md"
    blocks = re.findall(
        r"^```(python|text)\n(.*?)^```$", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    assert [kind for kind, _ in blocks] == ["python"] + ["python", "text"] * 5
    shared: dict[str, Any] = {}
    for number, (kind, text) in enumerate(blocks):
        if kind == "python":
            exec(compile(text, f"{page.name}, block {number}", "exec"), shared)
        else:
            assert capsys.readouterr().out == text
    assert capsys.readouterr().out == ""
