"""Powers and their norms, against many digits."""

from __future__ import annotations

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt

Array = NDArray[Any]
ORDERS: dict[Any, Any] = {"fro": "f", 1: 1, np.inf: mpmath.inf}


def log2_norms(W: Array, ks: list[int], order: Any) -> Array:
    """Return log2 of norms of powers in 60 digits."""
    with mpmath.workdps(60):
        M, P, result, k = mpmath.matrix(W.tolist()), mpmath.eye(len(W)), [], 0
        for wanted in ks:
            P, k = P * M ** (wanted - k), wanted
            size = mpmath.mnorm(P, ORDERS[order])
            result.append(float(mpmath.log(size, 2)))
        return np.array(result)


def matrices() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((7, 7))
    return {
        "decaying": 0.1 * gaussian,
        "growing": 0.9 * gaussian,
        "orthogonal": np.linalg.qr(gaussian)[0],
        "Jordan block": 0.9 * np.eye(5) + np.eye(5, k=1),
        "strongly non-normal": 0.5 * np.eye(6) + 8 * np.triu(rng.standard_normal((6, 6)), 1),
        "graded": np.diag(10.0 ** np.arange(-4, 3)) @ gaussian,
        "one by one": np.array([[-1.7]]),
    }


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", matrices())
def test_power_norms_agree_with_sixty_digits(name: str, order: Any) -> None:
    W, ks = matrices()[name], [0, 1, 2, 3, 7, 64, 100, 999, 1000]
    np.testing.assert_allclose(
        rnnbptt.power_norms(W, ks, order), log2_norms(W, ks, order), rtol=1e-10, atol=1e-10
    )


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
