"""Powers and their norms, against many digits."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from speed import slow

Array = NDArray[Any]
ORDERS: tuple[Any, ...] = (2, "fro", 1, np.inf)


def log2_norms(W: Array, ks: list[int], orders: tuple[Any, ...]) -> dict[Any, list[float]]:
    """Return log2 of norms of powers in so many digits that no transient takes them all."""
    with mpmath.workdps(600):
        M, P, k = mpmath.matrix(W.tolist()), mpmath.eye(len(W)), 0
        result: dict[Any, list[float]] = {order: [] for order in orders}
        for wanted in ks:
            P, k = P * M ** (wanted - k), wanted
            top = max(abs(entry) for entry in P)
            # Rounded only now, next to 1.
            near_one = np.array((P / top).tolist() if top else np.zeros_like(W), float)
            for order in orders:
                size = np.linalg.norm(near_one, order)
                result[order].append(float(mpmath.log(top * mpmath.mpf(float(size)), 2)) if top else -np.inf)
        return result


def rotated(W: Array) -> Array:
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal(W.shape))[0]
    return np.asarray(Q @ W @ Q.T)


def jordan(eigenvalue: float, size: int) -> Array:
    return eigenvalue * np.eye(size) + np.eye(size, k=1)


def matrices() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((7, 7))
    shear = np.triu(rng.standard_normal((6, 6)), 1)
    return {
        "decaying": 0.1 * gaussian,
        "growing": 0.9 * gaussian,
        "orthogonal": np.linalg.qr(gaussian)[0],
        "symmetric": 0.2 * (gaussian + gaussian.T),
        "Jordan block": jordan(0.9, 5),
        "rotated Jordan block at 0.9": rotated(jordan(0.9, 12)),
        "rotated Jordan block at 0.5": rotated(jordan(0.5, 12)),
        "rotated Jordan block at 1": rotated(jordan(1, 12)),
        "transient of 1e3": rotated(0.5 * np.eye(6) + 8 * shear),
        "transient of 1e6": rotated(0.5 * np.eye(6) + 40 * shear),
        "transient of 1e30": rotated(0.1 * np.eye(6) + 1e6 * shear),
        "strongly non-normal": 0.5 * np.eye(6) + 8 * shear,
        "nilpotent": np.eye(6, k=1),
        "nilpotent but for rounding": rotated(np.eye(8, k=1)),
        "strictly triangular": shear,
        "companion": np.vstack([-np.poly(np.linspace(0.1, 0.95, 10))[1:], np.eye(9, 10)]),
        "companion, defective": np.vstack([-np.poly(np.full(6, 0.9))[1:], np.eye(5, 6)]),
        "graded": np.diag(10.0 ** np.arange(-4, 3)) @ gaussian,
        "all magnitudes": np.diag([1e-300, 1.0, 1e300]) + np.eye(3, k=1),
        "smallest": np.full((2, 2), 5e-324),
        "one by one": np.array([[-1.7]]),
    }


# Of each sort of matrix another one takes less time: six hundred digits of large rotated matrices are many.
LONG = {
    "decaying",
    "orthogonal",
    "symmetric",
    "rotated Jordan block at 0.9",
    "rotated Jordan block at 0.5",
    "rotated Jordan block at 1",
    "transient of 1e3",
    "companion",
    "graded",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow if name in LONG else ()) for name in matrices()]
)
def test_power_norms_agree_with_six_hundred_digits(name: str) -> None:
    W, ks = matrices()[name], [0, 1, 2, 3, 7, 16, 44, 64, 100, 128, 256, 500, 999, 1000]
    for order, expected in log2_norms(W, ks, ORDERS).items():
        found = rnnbptt.power_norms(W, ks, order)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10, err_msg=str(order))
        # Every power together is the same to that accuracy as some of them, and as each alone.
        together = rnnbptt.power_norms(W, range(1001), order)[ks]
        np.testing.assert_allclose(together, expected, rtol=1e-10, atol=1e-10, err_msg=str(order))
        alone = rnnbptt.power_norms(W, 500, order)
        np.testing.assert_allclose(alone, expected[ks.index(500)], rtol=1e-10, atol=1e-10)


def test_large_matrix_agrees_with_many_digits() -> None:
    W = 4 * rnnbptt.Params.random(1, 50, 1, rng=0).W_hh @ np.diag(np.geomspace(1, 1e-3, 50))
    # Exactly, in integers: W is a multiple of 2^-80 but for bits that are cut off here.
    W = np.trunc(W * 2.0**80) / 2.0**80
    M = np.array([[int(v * 2.0**80) for v in row] for row in W], dtype=object)
    P = M @ M @ M @ M
    P = P @ P @ M
    # Not np.linalg.norm, which knows no integers beyond 64 bits.
    square = sum(int(v) ** 2 for v in P.ravel())
    expected = float(mpmath.log(mpmath.mpf(square), 2)) / 2 - 9 * 80
    assert rnnbptt.power_norms(W, 9, "fro") == pytest.approx(expected, rel=1e-12)


def test_power_that_cancels_exactly_is_zero() -> None:
    W = np.array([[0.1, 0.1], [-0.1, -0.1]])
    assert rnnbptt.power_norms(W, [1, 2, 50, 10**9], "fro").tolist() == [np.log2(0.2), *[-np.inf] * 3]


def test_spectral_norm_of_a_power_is_its_largest_singular_value() -> None:
    W = matrices()["strongly non-normal"]
    expected = [np.log2(np.linalg.norm(np.linalg.matrix_power(W, k), 2)) for k in range(12)]
    np.testing.assert_allclose(rnnbptt.power_norms(W, range(12)), expected, atol=1e-12)


def test_a_billionth_power_neither_overflows_nor_underflows() -> None:
    assert rnnbptt.power_norms(np.diag([0.5, 2]), 10**9) == 10**9
    assert rnnbptt.power_norms(np.diag([0.5, 0.25]), 10**9) == -(10**9)
    c, s = np.cos(0.3), np.sin(0.3)
    with mpmath.workdps(60):  # these two numbers are not quite those of a rotation
        expected = float(mpmath.log(mpmath.mpf(c) ** 2 + mpmath.mpf(s) ** 2, 2) * 10**9 / 2)
    found = rnnbptt.power_norms([[c, -s], [s, c]], 10**9)
    # One rounding of a norm next to 1 is 1e-16 of log2, and all there is to lose.
    assert abs(found - expected) <= 1e-9 * abs(expected) + 1e-15


def test_logarithms_pass_the_range_of_integers() -> None:
    assert rnnbptt.power_norms([[1e300]], 2**62) == pytest.approx(2.0**62 * np.log2(1e300), rel=1e-14)
    assert rnnbptt.power_norms([[1e-300]], 2**62) == pytest.approx(-(2.0**62) * np.log2(1e300), rel=1e-14)


def test_zero_powers_have_the_logarithm_of_zero() -> None:
    nilpotent = np.eye(3, k=1)
    assert rnnbptt.power_norms(nilpotent, [0, 1, 2, 3, 4]).tolist() == [0, 0, 0, -np.inf, -np.inf]
    assert rnnbptt.power_norms(np.zeros((2, 2)), [0, 1]).tolist() == [0, -np.inf]


def test_order_and_shape_of_exponents_are_the_callers() -> None:
    W = matrices()["growing"]
    ks = np.array([[5, 3], [3, 900]], np.uint16)
    found = rnnbptt.power_norms(W, ks)
    assert found.shape == (2, 2)
    assert found[0, 1] == found[1, 0] == rnnbptt.power_norms(W, 3)


def test_matrix_that_is_not_finite_has_no_norms() -> None:
    assert np.isnan(rnnbptt.power_norms([[np.nan]], [1, 2])).all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    W = np.random.default_rng(1).standard_normal((80, 80))
    one = rnnbptt.power_norms(W, [1, 77, 10**6], num_threads=1)
    assert rnnbptt.power_norms(W, [1, 77, 10**6], num_threads=threads).tobytes() == one.tobytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0, 2.0]], 1), ValueError, "W must be a square matrix"),
        (([[1.0]], -1), ValueError, "ks must lie between 0"),
        (([[1.0]], 0.5), TypeError, "ks must hold integers"),
        (([[1.0]], 1, 3), ValueError, "ord must be 2, 'fro', 1 or inf, not 3"),
        (([[1.0]], 1, "nuc"), ValueError, "ord must be one of 'fro'"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rnnbptt.power_norms(*arguments)


@pytest.mark.parametrize(("h", "n"), list(itertools.product([1, 3, 8, 17], [0, 1, 9])))
def test_matrix_powers_are_those_of_the_reference(h: int, n: int) -> None:
    W = rnnbptt.Params.random(1, h, 1, rng=h).W_hh
    np.testing.assert_allclose(
        rnnbptt.matrix_powers(W, n), rnnbptt.reference.matrix_powers(W, n), rtol=1e-12, atol=1e-14
    )
