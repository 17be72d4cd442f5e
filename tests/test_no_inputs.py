"""Systems without inputs, d = 0, compute what those with an input of zeros do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import Array
from rnnbptt import Chunked, Gradients, Objective, Params, Randomized, Sliding, reference

#: T, B, h, q: single steps, lifts, batches, sizes with kernels of their own.
SIZES = [(1, 1, 1, 1), (50, 1, 1, 1), (300, 3, 4, 2), (2000, 1, 8, 2), (60, 32, 40, 3), (500, 1, 64, 2)]


def pair(
    T: int, B: int, h: int, q: int, dtype: Any = np.float64, *, terms: bool = True
) -> tuple[Params, Params, dict[str, Array]]:
    """Return a network without inputs, the same with one, and data."""
    rng = np.random.default_rng([T, B, h, q])
    drawn = Params.random(0, h, q, biases=terms, direct=terms, rng=rng, dtype=dtype)
    assert drawn.shape == (0, h, q)
    zeros = np.zeros((h + q, 1), dtype)
    W_qx = zeros[h:] if terms else None
    one = Params(zeros[:h], drawn.W_hh, drawn.W_qh, drawn.b_h, drawn.b_q, W_qx)
    data = {
        "none": np.zeros((T, B, 0), dtype),
        "zeros": np.zeros((T, B, 1), dtype),
        "y": rng.standard_normal((T, B, q)).astype(dtype),
        "h0": rng.standard_normal((B, h)).astype(dtype),
    }
    return drawn, one, data


def assert_the_same(found: Gradients, expected: Gradients, tolerance: float) -> None:
    for name, array in found.items():
        other = getattr(expected, name)
        if name in ("W_hx", "W_qx", "x"):
            assert array.shape == (*other.shape[:-1], 0)
        else:
            assert np.abs(array - other).max() <= tolerance * np.abs(other).max(), name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("terms", [True, False])
def test_gradients(size: tuple[int, int, int, int], dtype: Any, terms: bool) -> None:
    params, one, data = pair(*size, dtype, terms=terms)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    tolerance = 100 * float(np.finfo(dtype).eps)
    given: dict[str, Any] = {"h0": data["h0"], "wrt": wrt}
    for truncate in (None, Sliding(3), Chunked(7)):
        loss, found = rnnbptt.loss_and_grad(params, data["none"], data["y"], truncate=truncate, **given)
        same, expected = rnnbptt.loss_and_grad(one, data["zeros"], data["y"], truncate=truncate, **given)
        assert abs(loss - same) <= tolerance * same
        assert_the_same(found, expected, tolerance)
        _, by_definition = reference.loss_and_grad(
            params, data["none"], data["y"], truncate=truncate, **given
        )
        assert_the_same(by_definition, expected, 10 * tolerance)
    found, expected = (
        rnnbptt.vjp(p, x, data["y"], **given) for p, x in ((params, data["none"]), (one, data["zeros"]))
    )
    assert_the_same(found, expected, tolerance)
    moved = Randomized(5, rng=0)
    rnnbptt.loss_and_grad(params, data["none"], data["y"], truncate=moved, **given)
    for name in ("hidden", "o"):
        of = getattr(rnnbptt.forward(params, data["none"], data["h0"]), name)
        exact = getattr(reference.forward(params, data["none"], data["h0"]), name)
        assert np.abs(of - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.parametrize("method", ["recursion", "closed_form", "forward_mode"])
def test_every_form_of_the_reference(method: Any) -> None:
    params, one, data = pair(12, 2, 3, 2)
    given: dict[str, Any] = {"h0": data["h0"], "method": method}
    _, found = reference.loss_and_grad(params, data["none"], data["y"], **given)
    assert_the_same(found, reference.loss_and_grad(one, data["zeros"], data["y"], **given)[1], 1e-12)
    numerical = reference.numerical_gradient(params, data["none"], data["y"], h0=data["h0"])
    assert_the_same(found, numerical, 1e-6)


def test_second_order() -> None:
    params, one, data = pair(40, 2, 3, 2)
    x, y, h0 = data["none"], data["y"], data["h0"]
    theta = params.ravel()
    direction = np.random.default_rng(0).standard_normal(theta.size)
    objectives = [Objective(a, y, like=p, h0=h0) for p, a in ((params, x), (one, data["zeros"]))]
    parts = {name: np.full(array.shape, name in ("W_hx", "W_qx")) for name, array in one.items()}
    kept = np.flatnonzero(~np.concatenate([part.ravel() for part in parts.values()]))
    wide = np.zeros(one.size)
    wide[kept] = theta
    along = np.zeros(one.size)
    along[kept] = direction
    for name, arguments, others in (
        ("hessp", (theta, direction), (wide, along)),
        ("residuals", (theta,), (wide,)),
    ):
        found, expected = getattr(objectives[0], name)(*arguments), getattr(objectives[1], name)(*others)
        expected = expected[kept] if name == "hessp" else expected
        assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
    J, whole = objectives[0].jac(theta), objectives[1].jac(wide)
    assert J.shape == (40 * 2 * 2, params.size)
    np.testing.assert_allclose(J, whole[:, kept], rtol=0, atol=1e-12)
    np.testing.assert_allclose(objectives[0].gauss_newton(theta)[2], J.T @ J, rtol=0, atol=1e-10)
    tangent = rnnbptt.jvp(params, x, params.unravel(direction), h0=h0)
    expected = rnnbptt.jvp(one, data["zeros"], one.unravel(along), h0=h0)
    np.testing.assert_allclose(tangent, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="wrt must name something"):
        rnnbptt.output_jacobian(params, x, wrt=["W_hx"])  # it has no entries


@pytest.mark.parametrize("terms", [True, False])
def test_reports(terms: bool) -> None:
    params, one, data = pair(60, 2, 3, 2, terms=terms)
    for report in (rnnbptt.gradient_flow, rnnbptt.truncation_report):
        found = report(params, data["none"], data["y"], h0=data["h0"])
        assert str(found) == str(report(one, data["zeros"], data["y"], h0=data["h0"]))
    assert rnnbptt.explain(params, data["none"])
