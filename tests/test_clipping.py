"""Clipping by the global norm: right at every size a float can have."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rnnbptt import Gradients
from rnnbptt.gradients.clipping import clip_by_global_norm

Array = NDArray[Any]


def gradients(dtype: Any = np.float64, scale: float = 1.0) -> Gradients:
    rng = np.random.default_rng(0)
    shapes = {"W_hx": (4, 2), "W_hh": (4, 4), "W_qh": (3, 4), "b_h": (4,), "h0": (2, 4)}
    return Gradients(
        **{name: (scale * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()}
    )


def flat(g: Gradients) -> Array:
    """Return every entry in extended precision, whose exponents reach far beyond those of float64."""
    return np.concatenate([array.ravel() for _, array in g.items()]).astype(np.longdouble)


def length(g: Gradients) -> Any:
    entries = flat(g)
    largest = np.abs(entries).max()
    return largest * np.sqrt(np.sum((entries / largest) ** 2))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (np.float64, 1.0),
        (np.float64, 1e160),  # squares overflow
        (np.float64, 3e307),  # the norm itself overflows
        (np.float64, 1e-170),  # squares underflow
        (np.float64, 1e-310),  # subnormal
        (np.float32, 1.0),
        (np.float32, 1e25),
        (np.float32, 1e38),
        (np.float32, 1e-30),
    ],
)
@pytest.mark.parametrize("relative", [1e-3, 0.5, 0.999])
def test_norm_becomes_max_norm_and_the_direction_stays(dtype: Any, scale: float, relative: float) -> None:
    before = gradients(dtype, scale)
    expected = length(before)
    max_norm = relative * min(float(expected), 1e307)
    clipped, norm = clip_by_global_norm(before, max_norm)
    if expected < np.finfo(np.float64).max:
        assert norm == pytest.approx(float(expected), rel=1e-14)
    else:
        assert norm == math.inf
    eps = float(np.finfo(dtype).eps)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    factor = np.longdouble(max_norm) / expected
    np.testing.assert_array_less(
        np.abs(flat(clipped) - flat(before) * factor), 4 * eps * np.abs(flat(before)) * factor + 2 * smallest
    )
    for name, array in clipped.items():
        assert array.dtype == dtype
        assert array.shape == getattr(before, name).shape
    assert clipped.W_qx is None
    assert clipped.x is None


def test_small_gradients_come_back_as_they_are() -> None:
    before = gradients()
    clipped, norm = clip_by_global_norm(before, 1e6)
    assert all(new is old for (_, new), (_, old) in zip(clipped.items(), before.items(), strict=True))
    assert clip_by_global_norm(before, norm)[0].W_hh is before.W_hh
    assert clip_by_global_norm(before, math.inf) == (before, norm)


def test_inputs_are_not_written() -> None:
    before = gradients()
    for _, array in before.items():
        array.flags.writeable = False
    copy = flat(before)
    clip_by_global_norm(before, 0.1)
    np.testing.assert_array_equal(flat(before), copy)


def test_zero_gradients_and_no_gradients() -> None:
    zero = Gradients(W_hh=np.zeros((2, 2)))
    assert clip_by_global_norm(zero, 0.0) == (zero, 0.0)
    assert clip_by_global_norm(Gradients(), 1.0) == (Gradients(), 0.0)


def test_max_norm_zero_gives_zeros() -> None:
    clipped, norm = clip_by_global_norm(gradients(), 0)
    assert norm > 0
    assert not flat(clipped).any()


def test_one_entry_is_clipped_to_plus_or_minus_max_norm() -> None:
    for value in (3.0, -1.7e308, 5e-324):
        clipped, norm = clip_by_global_norm(Gradients(b_h=np.array([value])), abs(value) / 2)
        assert norm == abs(value)
        assert clipped.b_h is not None
        assert clipped.b_h[0] == value / 2


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_that_are_not_finite(bad: float, dtype: Any) -> None:
    before = gradients(dtype)
    assert before.W_qh is not None
    before.W_qh[1, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="W_qh holds inf or nan"):
            clip_by_global_norm(before, 1.0)
        kept, norm = clip_by_global_norm(before, 1.0, on_nonfinite="keep")
        assert kept is before  # inf is still inf, and not yet nan
        assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
        zeros, _ = clip_by_global_norm(before, 1.0, on_nonfinite="zero")
    assert not flat(zeros).any()
    assert zeros.W_qh is not None
    assert zeros.W_qh.dtype == dtype


def test_nan_outweighs_inf_wherever_it_stands() -> None:
    for values in ([math.inf, math.nan], [math.nan, math.inf]):
        g = Gradients(b_h=np.array(values[:1]), b_q=np.array(values[1:]))
        assert math.isnan(clip_by_global_norm(g, 1.0, on_nonfinite="keep")[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (({"W_hh": np.eye(2)}, 1.0), TypeError, "gradients must be Gradients, not dict"),
        ((gradients(), -1.0), ValueError, "max_norm must be finite and at least 0"),
        ((gradients(), math.nan), ValueError, "max_norm"),
        ((gradients(), "1"), TypeError, "max_norm must be a real number"),
        (
            (gradients(), np.full(2, math.inf)),
            TypeError,
            "max_norm must be a real number, not ndarray of shape",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        clip_by_global_norm(*arguments)


@pytest.mark.parametrize("dtype", [int, np.int8, np.uint64, bool])
def test_integers_are_clipped_as_float64(dtype: Any) -> None:
    before = Gradients(W_hh=np.array([[3, 0], [0, 4]]).astype(dtype), b_h=np.zeros(2, np.float32))
    clipped, norm = clip_by_global_norm(before, 1.0)
    expected = np.array([[3.0, 0], [0, 4]]).astype(dtype).astype(float)
    length_of = float(np.linalg.norm(expected))
    assert norm == pytest.approx(length_of, rel=1e-15)
    assert clipped.W_hh is not None
    assert clipped.W_hh.dtype == np.float64
    np.testing.assert_allclose(clipped.W_hh, expected / length_of, rtol=1e-15)
    assert clipped.b_h is not None
    assert clipped.b_h.dtype == np.float32


def test_lists_are_arrays() -> None:
    clipped, norm = clip_by_global_norm(Gradients(W_hh=[[3.0, 0.0], [0.0, 4.0]]), 1.0)  # type: ignore[arg-type]
    assert norm == 5.0
    assert isinstance(clipped.W_hh, np.ndarray)
    np.testing.assert_allclose(clipped.W_hh, [[0.6, 0.0], [0.0, 0.8]], rtol=1e-15)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[3 + 4j]]), "gradients.b_q must be an array of real numbers, not of dtype complex128"),
        (np.array(["a"]), "gradients.b_q must be an array of real numbers, not of dtype <U1"),
        (object(), "gradients.b_q must be an array of real numbers, not object"),
        (np.ones(2, np.float16), "gradients.b_q must be float32 or float64, not float16"),
        (np.ma.ones(2), "gradients.b_q must not be a masked array"),
    ],
)
@pytest.mark.parametrize("on_nonfinite", ["raise", "keep", "zero"])
def test_gradients_that_are_no_real_numbers_are_named(value: Any, message: str, on_nonfinite: Any) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        clip_by_global_norm(Gradients(W_hh=np.eye(2), b_q=value), 1.0, on_nonfinite=on_nonfinite)


def test_unknown_choice_is_named() -> None:
    with pytest.raises(ValueError, match="on_nonfinite must be one of"):
        clip_by_global_norm(gradients(), 1.0, on_nonfinite="ignore")  # type: ignore[arg-type]
