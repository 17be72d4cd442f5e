"""Reports on numbers hundreds of orders of magnitude apart, against arithmetic without a range."""

from __future__ import annotations

from typing import Any, NamedTuple

import mpmath as mp
import numpy as np
import pytest

import rnnbptt
from problems import Array
from rnnbptt import Params
from rnnbptt.reports.wide_range import entries
from speed import thinned

LOGS = 1e-9
"""What a base-2 logarithm may differ from the exact one."""


class Exact(NamedTuple):
    """The numbers of a report, computed by definition; base-2 logarithms, -inf for zero."""

    state_gradients: list[float]
    lag_norms: list[float]
    contributions: list[float]
    gradient: float
    shares: list[float]
    remainder: float


def log2_norm(numbers: Any) -> float:
    square = mp.fsum(v * v for v in numbers)
    return float(mp.log(square, 2) / 2) if square > 0 else -np.inf


def exactly(params: Params, x: Array, y: Array, h0: Array, lags: int, bits: int) -> Exact:
    """Compute with so many bits, and no end to exponents."""

    def matrix(array: Any) -> Any:
        return mp.matrix(np.atleast_2d(np.asarray(array, float)).tolist())

    with mp.workprec(bits):
        W, U, C = (matrix(getattr(params, name)) for name in ("W_hh", "W_hx", "W_qh"))
        T, q = y.shape
        b_h = matrix(params.b_h[:, None]) if params.b_h is not None else mp.matrix(W.rows, 1)
        h = [matrix(h0[:, None])]
        d_o = []
        for t in range(T):
            h.append(U * matrix(x[t][:, None]) + b_h + W * h[-1])
            o = C * h[-1]
            if params.W_qx is not None:
                o += matrix(params.W_qx) * matrix(x[t][:, None])
            d_o.append(2 * (o - matrix(y[t][:, None])) / (q * T))
        e = [C.T * d for d in d_o]
        g = [mp.matrix(W.rows, 1)]
        for t in reversed(range(T)):
            g.insert(0, e[t] + W.T * g[0])
        lag_norms, parts, total = [], [], mp.zeros(W.rows)
        arriving = list(e)
        for k in range(T):
            if k < lags:
                square = mp.fsum(v * v for vector in arriving for v in vector) / T
                lag_norms.append(float(mp.log(square, 2) / 2) if square > 0 else -np.inf)
            part = mp.zeros(W.rows)
            for t in range(T - k):
                part += arriving[t + k] * h[t].T
            if k < lags:
                parts.append(part)
            total += part
            arriving = [W.T * vector for vector in arriving]
        square = mp.fsum(v * v for v in total)
        shares = [
            float(mp.fsum(a * b for a, b in zip(part, total, strict=True)) / square) if square > 0 else np.nan
            for part in parts
        ]
        rest = total.copy()
        for part in parts:
            rest -= part
        return Exact(
            [log2_norm(g[t]) for t in range(T)],
            lag_norms,
            [log2_norm(part) for part in parts],
            log2_norm(total),
            shares,
            log2_norm(rest),
        )


def wild(seed: int) -> tuple[Params, Array, Array, Array]:
    """Draw a problem with weights and data anywhere from 1e-300 to 1e300, and modes that are not read."""
    rng = np.random.default_rng(seed)
    h, d, q = (int(n) for n in rng.integers(1, 4, 3))
    T = int(rng.integers(2, 25))

    def drawn(*shape: int) -> Array:
        array = rng.standard_normal(shape)
        match int(rng.integers(5)):
            case 0:
                array *= 10.0 ** rng.uniform(-300, 300)
            case 1:
                array *= 10.0 ** rng.uniform(-300, 300, shape)
            case 2:
                array[rng.uniform(size=shape) < 0.4] = 0
            case _:
                pass
        return np.asarray(array)

    W = rng.standard_normal((h, h))
    W *= rng.choice([0.3, 1, 1.5]) / np.abs(np.linalg.eigvals(W)).max()
    match int(rng.integers(4)):
        case 0:
            W = np.diag(rng.choice([0.3, 0.9, 1.5, 1e-200, 1e150], h))
        case 1:
            W = np.triu(W) * 10.0 ** rng.uniform(-100, 100, (h, h))
        case _:
            pass
    options: dict[str, Array] = {}
    if rng.integers(3) == 0:
        options["b_h"] = drawn(h)
    if rng.integers(3) == 0:
        options["W_qx"] = drawn(q, d)
    return Params(drawn(h, d), W, drawn(q, h), **options), drawn(T, d), drawn(T, q), drawn(h)


@pytest.mark.parametrize("seed", thinned(range(600), 10))
def test_numbers_of_any_size(seed: int) -> None:
    params, x, y, h0 = wild(seed)
    lags = 1 + seed % len(x)
    flow = rnnbptt.gradient_flow(params, x, y, h0=h0, lags=lags)
    exact = exactly(params, x, y, h0, lags, 400)
    # What 53 bits without an end to exponents make of it: cancellation costs digits there, too.
    rounded = exactly(params, x, y, h0, lags, 53)
    for name, actual in (
        ("state_gradients", flow.log2_state_gradients),
        ("lag_norms", flow.log2_lag_norms),
        ("contributions", flow.log2_contributions),
        ("gradient", flow.log2_gradient_norm),
    ):
        right, other = (np.atleast_1d(getattr(results, name)) for results in (exact, rounded))
        got = np.atleast_1d(actual)
        with np.errstate(invalid="ignore"):
            loss = np.abs(np.where(right == other, 0, right - other))
            error = np.abs(np.where(right == got, 0, right - got))
        # Where 53 bits keep four digits, so must the report; what cancels exactly is anybody's guess.
        kept = loss < 1e-4
        assert np.isfinite(got[kept & np.isfinite(right)]).all(), name
        assert (error[kept] <= np.maximum(LOGS, 1e4 * loss[kept])).all(), f"{name} {right} {got}"
    if abs(exact.gradient - rounded.gradient) < 1e-12:
        np.testing.assert_allclose(flow.shares, exact.shares, rtol=0, atol=1e-8)


@pytest.mark.parametrize("T", [40, 3000])
def test_a_growing_mode_that_is_not_read_out(T: int) -> None:
    params = Params([[1.0], [1.0]], np.diag([0.9, 1.5]), [[1.0, 0.0]])
    alone = Params([[1.0]], [[0.9]], [[1.0]])
    flow, right = (
        rnnbptt.gradient_flow(p, np.ones((T, 1)), np.ones((T, 1)), lags=20) for p in (params, alone)
    )
    np.testing.assert_allclose(flow.log2_state_gradients, right.log2_state_gradients, rtol=0, atol=LOGS)
    np.testing.assert_allclose(flow.log2_lag_norms, right.log2_lag_norms, rtol=0, atol=LOGS)
    if T == 3000:
        assert flow.log2_state_gradients[2000] == pytest.approx(-4.06, abs=0.005)
        # G holds what W_hh[0, 1] would read of the mode.
        assert flow.log2_gradient_norm > 1000


def test_tiny_weights_of_the_outputs() -> None:
    params = Params([[1.0]], [[0.5]], [[1e-300]])
    flow = rnnbptt.gradient_flow(params, np.zeros((4, 1)), np.zeros((4, 1)), h0=[1.0])
    # g_T = (1e-300)^2 0.5^4 2 / 4
    assert flow.log2_state_gradients[-1] == pytest.approx(2 * np.log2(1e-300) - 5, abs=LOGS)
    assert np.isfinite(flow.log2_state_gradients).all()


def test_targets_far_apart() -> None:
    params = Params([[1.0]], [[0.5]], [[1.0]])
    y = np.array([[1e250], [1e-250], [1e-250]])
    flow = rnnbptt.gradient_flow(params, np.zeros((3, 1)), y, loss="squared_error")
    expected = [np.log2(1e250 / 3), np.log2(1.5e-250 / 3), np.log2(1e-250 / 3)]
    np.testing.assert_allclose(flow.log2_state_gradients, expected, rtol=0, atol=LOGS)


def test_largest_numbers() -> None:
    numbers = entries.entries(np.array([[-1e300, 1.0, 2.0], [-1, -2, -1e-300], [0, -1, 0], [3, 2, 2.5]]))
    found = entries.largest(numbers)
    np.testing.assert_array_equal(found.at(np.zeros((4, 1), np.int64)), [[2.0], [-1e-300], [0], [3]])


@pytest.mark.parametrize("seed", range(3))
def test_products_and_powers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((7, 5)), rng.standard_normal((5, 6))
    W = rng.standard_normal((4, 4))

    def plain(numbers: Any) -> Array:
        return np.asarray(numbers.at(np.zeros_like(numbers.exponent)))

    a, b, w = (entries.entries(array) for array in (A, B, W))
    np.testing.assert_allclose(plain(entries.product(a, b, 1)), A @ B, rtol=1e-13)
    np.testing.assert_allclose(plain(entries.power(w, 11, 1)), np.linalg.matrix_power(W, 11), rtol=1e-11)
    x = rng.standard_normal((9, 2, 3))
    R = plain(entries.correlate(entries.entries(x), entries.entries(x), 11, 1))
    for k in range(11):
        np.testing.assert_allclose(R[k], np.einsum("tbi,tbj->ij", x[k:], x[: max(9 - k, 0)]), atol=1e-13)
