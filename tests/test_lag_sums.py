"""What reports on gradients are summed up from: sizes, correlations, moved rows, sums over lags."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rnnbptt import _core
from rnnbptt.reports.lag_terms import log2_norms_of_products, moved_rows
from rnnbptt.reports.wide_range.chunked_recurrence import chunk_of
from rnnbptt.reports.wide_range.correlation import correlate
from rnnbptt.reports.wide_range.scaled import (
    ZERO,
    Real,
    Scaled,
    outer_sum,
    raw_if_tame,
    scan,
    tame,
    unscaled,
    vanishing,
)

SUMS = 1e-13
"""What sums may differ from NumPy's, relative to sums of moduli."""

WIDTHS = (1, 2, 3, 7, 8, 9, 15, 17, 24, 25, 33)


def rows(*shape: int) -> Real:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("sign", [1, -1])
def test_rows_of_moderate_size_are_tame(width: int, sign: int) -> None:
    ordinary = rows(20, 3, width) + sign * 3
    assert tame(ordinary)
    for value, fine in (
        (2.0**199, True),
        (2.0**201, False),
        (np.inf, False),
        (np.nan, False),
        (0.0, True),
        (-0.0, True),
        (5e-324, True),
    ):
        for at in {0, width // 2, width - 1}:
            changed = ordinary.copy()
            changed[11, 1, at] = sign * value
            # A small entry does no harm beside others; a row of small ones does.
            assert tame(changed) == (fine and not (width == 1 and 0 < value < 1)), (value, at)
    ordinary[4, 2] = sign * 2.0**-201
    assert not tame(ordinary)
    ordinary[4, 2, -1] = 1
    assert tame(ordinary)


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_rows_that_fall_to_zero_are_noticed(lanes: int) -> None:
    ordinary = rows(9, lanes, 4)
    assert not vanishing(ordinary)
    assert not vanishing(ordinary, reverse=True)
    for step, lane in itertools.product((0, 4, 8), range(lanes)):
        states = ordinary.copy()
        states[step, lane] = 0
        assert vanishing(states) == (step > 0)
        assert vanishing(states, reverse=True) == (step < 8)
    early, late = ordinary.copy(), ordinary.copy()
    early[:3], late[3:] = 0, 0
    assert not vanishing(early)
    assert vanishing(early, reverse=True)
    assert vanishing(late)
    assert not vanishing(late, reverse=True)


def test_no_rows_are_tame() -> None:
    assert tame(np.empty((0, 3)))
    assert not vanishing(np.empty((0, 2, 3)))


# --- sums over lags -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 5, 8, 9, 300, 2049])
def test_sums_of_outer_products(count: int) -> None:
    for m, n in itertools.product((1, 3, 8, 25), (1, 2, 7, 9, 24, 30)):
        a, b = rows(count, m), rows(count, n + 1)[:, :n].copy()
        found = outer_sum(a, b, 2)
        assert np.all(np.abs(found - a.T @ b) <= SUMS * (np.abs(a).T @ np.abs(b)))
        np.testing.assert_array_equal(found, outer_sum(a, b, 1))


@pytest.mark.parametrize(
    ("K", "q", "h", "w"),
    [(1, 1, 1, 1), (70, 1, 5, 6), (33, 3, 8, 9), (7, 8, 25, 25), (5, 9, 4, 30), (3, 40, 50, 2)],
)
def test_sums_over_contributions(K: int, q: int, h: int, w: int) -> None:
    P, Z, G = rows(K, q, h), rows(K, q, w), rows(h, w)
    terms = np.einsum("kqi,kqj->kij", P, Z)
    inner, again, largest = np.empty(K), np.empty(K), np.empty(K)
    _core.inner_products((K, q, h, w), P, G, Z, inner, 2)
    _core.inner_products((K, q, h, w), P, G, Z, again, 1)
    np.testing.assert_array_equal(inner, again)
    np.testing.assert_allclose(inner, np.einsum("kij,ij->k", terms, G), rtol=0, atol=SUMS * q * h * w)
    _core.gram_products((K, q, h, w), P, Z, None, inner, largest, 2)
    squares = np.square(terms).sum(axis=(1, 2))
    np.testing.assert_allclose(inner, squares, rtol=0, atol=SUMS * largest.max())
    gram = Z[0] @ Z[0].T
    _core.gram_products((K, q, h, 0), P, None, gram, inner, largest, 2)
    squares = np.square(np.einsum("kqi,qj->kij", P, Z[0])).sum(axis=(1, 2))
    np.testing.assert_allclose(inner, squares, rtol=0, atol=SUMS * largest.max())


def test_norms_of_products_say_where_digits_are_lost() -> None:
    P = np.array([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 1e-9]], [[0.0, 0.0], [0.0, 0.0]]])
    Z = np.array([[[3.0], [0.0]], [[1.0], [-1.0]], [[1.0], [1.0]]])
    with np.errstate(divide="ignore"):
        logs = log2_norms_of_products(P, Z, None, 1)
    np.testing.assert_allclose(logs, [np.log2(3), np.nan, -np.inf], rtol=1e-15)
    # All of Z Z^T counts, not what its first row looks like.
    P, Z = np.array([[[1.0, 0.0], [1.0, 0.0], [1.0, 1e-9]]]), np.array([[[0.01], [1.0], [-1.0]]])
    assert np.isnan(log2_norms_of_products(P, Z, None, 1)).all()


def test_norms_of_states_have_all_digits_where_squares_have_not() -> None:
    sizes = np.array([1.7, 1.7 * 2.0**-470, 1.7 * 2.0**-530, 1.7 * 2.0**-1000, 1.7 * 2.0**600])
    logs = np.empty((len(sizes), 1))
    u, start = sizes.reshape(-1, 1, 1), np.zeros((len(sizes), 2))
    _core.log2_state_norms((len(sizes), 1, 2, 1), np.eye(2), np.ones((2, 1)), u, start, logs, 1)
    np.testing.assert_allclose(logs[:, 0], np.log2(sizes) + 0.5, rtol=0, atol=2e-13)


def test_a_state_that_vanished_does_not_hide_what_is_far_smaller() -> None:
    # s = (0, 1), (1, 0), 0, and then what enters.
    shift = Scaled(np.array([[0.0, 0.5], [0.0, 0.0]]), np.array(1))
    entering = np.zeros((3, 1, 2))
    entering[2] = [0.5, 0.25]
    v = Scaled(entering, np.array([[ZERO], [ZERO], [-5000]]))
    states = scan(shift, v, unscaled(np.array([[0.0, 1.0]])), 1)
    assert states.mantissa[3].tolist() == [[0.5, 0.25]]
    assert states.exponent[3].tolist() == [-5000]


# --- rows moved by powers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 31, 33, 100])
def test_moved_rows_are_those_moved_step_by_step(count: int) -> None:
    W = rows(6, 6)
    W *= 0.97 / np.abs(np.linalg.eigvals(W)).max()
    first = rows(2, 6)
    moved = moved_rows(first, W, chunk_of(W, max(count, 40), 1), count, 1)
    assert moved.raw
    expected = first
    for row in moved.mantissa:
        np.testing.assert_allclose(row, expected, rtol=0, atol=1e-13 * float(np.linalg.norm(expected)))
        expected = expected @ W


@pytest.mark.parametrize("bits", [2, 7, 30])
def test_moved_rows_far_below_the_range_are_those_within(bits: int) -> None:
    W = rows(6, 6)
    W *= 0.97 / np.abs(np.linalg.eigvals(W)).max()
    within = moved_rows(rows(2, 6), W, chunk_of(W, 400, 1), 400, 1)
    small = W * 2.0**-bits
    beyond = moved_rows(rows(2, 6), small, chunk_of(small, 400, 1), 400, 1)
    assert within.raw
    assert not beyond.raw
    shift = beyond.exponent + bits * np.arange(400)[:, np.newaxis]
    errors = np.ldexp(beyond.mantissa, shift[..., np.newaxis].astype(int)) - within.mantissa
    assert np.all(np.linalg.norm(errors, axis=2) <= 1e-12 * np.linalg.norm(within.mantissa, axis=2))


def test_moved_rows_that_end_are_zero() -> None:
    # A chain of 40 numbers: the first row is zero from its 40th step on.
    W = np.diag(np.full(39, 2.0**-30), 1)
    moved = moved_rows(np.eye(40)[:1], W, chunk_of(W, 60, 1), 60, 1)
    logs = moved.log2_norms()[:, 0]
    np.testing.assert_array_equal(logs[:40], -30.0 * np.arange(40))
    assert np.all(logs[40:] == -np.inf)


def test_powers_of_a_matrix_that_squaring_would_spoil() -> None:
    # Whole numbers that grow to 10^16 within a few steps, and cancel to zero at the sixth.
    J = np.diag([1.0] * 5, 1)
    S = np.round(1e3 * np.tril(rows(6, 6), -1)) + np.eye(6)
    exact = [[int(v) for v in row] for row in S]
    inverse = np.array(_whole_inverse(exact), dtype=object)
    W = np.array(exact, dtype=object) @ J.astype(int).astype(object) @ inverse
    assert not (W @ W @ W @ W @ W @ W).any()
    chunk = chunk_of(W.astype(np.float64), 40, 1)  # exactly: no entry has more than 53 bits
    power, n = W, 1
    for mantissa, exponent in zip(*chunk.powers, strict=True):
        expected = np.array(power, dtype=np.float64)
        found = np.ldexp(mantissa, int(exponent))
        assert np.linalg.norm(found - expected) <= 2.0**-40 * np.linalg.norm(expected), n
        power, n = power @ power, 2 * n
    assert n > 2


def _whole_inverse(S: list[list[int]]) -> list[list[int]]:
    """Return the inverse of a lower triangular matrix of whole numbers with ones on its diagonal."""
    n = len(S)
    inverse = [[int(i == j) for j in range(n)] for i in range(n)]
    for i in range(n):
        for j in range(i):
            inverse[i][j] = -sum(S[i][k] * inverse[k][j] for k in range(j, i))
    return inverse


# --- correlations -------------------------------------------------------------------------------------------


def check_transforms() -> None:
    """Compare correlations by transforms of several lengths with direct sums."""
    for T, B, q, m, count in (
        (1, 1, 1, 1, 1),
        (40, 1, 2, 3, 7),
        (100, 3, 1, 9, 16),
        (700, 2, 5, 4, 500),
        (900, 1, 13, 3, 900),
        (3000, 1, 1, 1, 20),
    ):
        a, b = rows(T, B, q), rows(T, B, m + 1)[..., :m]
        direct, found, again = (np.empty((count, q, m)) for _ in range(3))
        shape = (T, B, q, m, count)
        _core.correlate(shape, a, b, direct, 0, 2)
        bound = 1e-15 * float(np.linalg.norm(a) * np.linalg.norm(b))
        least = count.bit_length()
        for bits in range(least, least + 4):
            _core.correlate(shape, a, b, found, 2**bits, 2)
            np.testing.assert_allclose(found, direct, rtol=0, atol=bound)
            _core.correlate(shape, a, b, again, 2**bits, 1)
            np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("isa", ["v2", "v3", "v4"])
def test_transforms_agree_with_sums(isa: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import test_lag_sums as t; t.check_transforms()"],
        cwd=Path(__file__).parent,
        env=os.environ | {"RNNBPTT_ISA": isa},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "RNNBPTT_ISA" in done.stderr:
        pytest.skip("this machine does not have it")
    assert done.returncode == 0, done.stderr


def test_whole_numbers_correlate_to_whole_numbers() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.integers(-9, 10, (5000, 1, 3)).astype(float) for _ in range(2))
    exact, found = np.empty((300, 3, 3)), np.empty((300, 3, 3))
    _core.correlate((5000, 1, 3, 3, 300), a, b, exact, 0, 2)
    _core.correlate((5000, 1, 3, 3, 300), a, b, found, 2048, 2)
    np.testing.assert_array_equal(np.round(found), exact)
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("gap", [0, 3, 5000])
def test_transforms_are_not_for_lags_where_little_is(gap: int) -> None:
    # Bursts `gap` steps apart: their rounding errors would be all there is elsewhere.
    T = 30_000
    a, b = np.zeros((T, 1, 4)), np.zeros((T, 1, 4))
    a[10_000 + gap : 10_050 + gap], b[10_000:10_050] = rows(50, 1, 4), rows(51, 1, 4)[1:]
    found = correlate(unscaled(a), b, 6000)
    values = np.ldexp(found.mantissa, found.exponent[..., np.newaxis].astype(int))
    some = np.zeros(6000, bool)
    some[max(0, gap - 49) : gap + 50] = True
    assert not values[~some].any()
    exact = np.einsum("tbq,tbm->qm", a[gap:], b[: T - gap])
    np.testing.assert_allclose(values[gap], exact, rtol=0, atol=1e-13)


def test_correlations_beyond_the_range_keep_their_exponents() -> None:
    a, b = rows(2000, 1, 2), rows(2000, 1, 2) * 2.0**300
    found, plain = correlate(raw_if_tame(a), b, 500), correlate(raw_if_tame(a), b * 2.0**-300, 500)
    assert plain.raw
    values = np.ldexp(found.mantissa, (found.exponent - 300)[..., np.newaxis].astype(int))
    np.testing.assert_allclose(values, plain.mantissa, rtol=0, atol=1e-12 * np.sqrt(2000))


def test_correlations_of_rows_with_exponents_and_rows_beyond_the_range() -> None:
    a, b = rows(200, 1, 2), rows(200, 1, 2)
    plain = correlate(unscaled(a), b, 50)
    tiny = Scaled(a, np.full((200, 1), -5000))
    found = correlate(tiny, b * 2.0**300, 50)
    values = np.ldexp(found.mantissa, (found.exponent + 4700)[..., np.newaxis].astype(int))
    np.testing.assert_allclose(values, plain.mantissa, rtol=0, atol=1e-12)
