"""Tangents, Hessian products, Jacobians and Gauss-Newton matrices, held against forms that share no code."""

from __future__ import annotations

import importlib.util
import threading
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares, minimize

import rnnbptt
from problems import KINDS, LOSSES, SCALARS, STEP_OPTIONS, Array, Case, Scalar, build, draw
from response import ANSWER_TO_CTRL_C, answer_to_ctrl_c
from rnnbptt import Gradients, Objective, Params, reference
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from tolerances import FINITE_DIFFERENCES, FORMS, relative_error

SQUARES = [name for name in LOSSES if isinstance(losses.LOSSES[name], losses.SumOfSquares)]
SHAPES = [(1, 1, 1, 1, 1), (40, 3, 2, 5, 4), (300, 1, 3, 14, 2), (25, 40, 1, 3, 2)]


def direction(case: Case, seed: int = 0, *, x: bool = False) -> Gradients:
    """Draw a direction of every parameter and of h0."""
    rng = np.random.default_rng(seed)
    dtype = case.params.dtype
    parts = {name: rng.standard_normal(array.shape).astype(dtype) for name, array in case.params.items()}
    parts["h0"] = rng.standard_normal((case.x.shape[1], case.params.shape[1])).astype(dtype)
    if x:
        parts["x"] = rng.standard_normal(case.x.shape).astype(dtype)
    return Gradients(**parts)


def with_start(case: Case, **more: Any) -> tuple[Objective, Array]:
    """Return an objective of all parameters and h0, and its vector."""
    names = [*(name for name, _ in case.params.items()), "h0"]
    options: dict[str, Any] = {"wrt": names, "like": case.params} | case.options | more
    objective = Objective(case.x, case.y, **options)
    return objective, objective.pack(case.params)


def assert_parts_agree(actual: Gradients, expected: Gradients, tolerance: float = FORMS) -> None:
    """Compare every part, relative to the whole: a part may vanish by cancellation."""
    assert [name for name, _ in actual.items()] == [name for name, _ in expected.items()]
    whole = np.sqrt(sum(float(np.sum(part**2)) for _, part in expected.items()))
    for (name, a), (_, b) in zip(actual.items(), expected.items(), strict=True):
        assert a.shape == b.shape, name
        assert np.linalg.norm(a - b) <= tolerance * whole, name


# --- tangents -----------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_jvp_is_the_complex_step_of_the_outputs(seed: int) -> None:
    case = draw(seed)
    v = direction(case, seed, x=True)
    h0 = case.options.get("h0")
    expected = reference.jvp(case.params, case.x, v, h0=h0)
    assert relative_error(rnnbptt.jvp(case.params, case.x, v, h0=h0), expected) <= FORMS
    # Every part may be left out, and be handed over on its own.
    weights = Params(**{name: part for name, part in v.items() if name not in ("h0", "x")})
    actual = rnnbptt.jvp(case.params, case.x, weights, h0=h0, d_h0=v.h0, d_x=v.x)
    assert relative_error(actual, expected) <= FORMS
    kept = Gradients(**{name: part for name, part in v.items() if name != "W_hh"})
    actual = rnnbptt.jvp(case.params, case.x, kept, h0=h0)
    assert relative_error(actual, reference.jvp(case.params, case.x, kept, h0=h0)) <= FORMS


@given(st.integers(0, 10**6))
def test_jvp_is_the_adjoint_of_vjp(seed: int) -> None:
    case = draw(seed)
    v = direction(case, seed, x=True)
    h0 = case.options.get("h0")
    tangent = rnnbptt.jvp(case.params, case.x, v, h0=h0)
    u = np.random.default_rng(seed).standard_normal(tangent.shape)
    back = rnnbptt.vjp(case.params, case.x, u, h0, wrt=case.wrt)
    terms = [float(np.sum(a * b)) for (_, a), (_, b) in zip(back.items(), v.items(), strict=True)]
    scale = np.linalg.norm(tangent) * np.linalg.norm(u) + sum(map(abs, terms))
    assert abs(sum(terms) - float(np.sum(u * tangent))) <= FORMS * scale


def test_jvp_keeps_layout_and_dtype() -> None:
    for dtype in SCALARS:
        case = build(np.random.default_rng(1), dtype, (9, 3, 2, 4, 2))
        v = direction(case, x=True)
        h0 = case.options["h0"]
        tangent = rnnbptt.jvp(case.params, case.x, v, h0=h0)
        assert tangent.dtype == dtype
        assert v.x is not None
        assert v.h0 is not None
        turned = v._replace(x=v.x.swapaxes(0, 1))
        other = rnnbptt.jvp(case.params, case.x.swapaxes(0, 1), turned, h0=h0, batch_first=True)
        assert other.swapaxes(0, 1).tobytes() == tangent.tobytes()
        single = v._replace(h0=v.h0[1], x=v.x[:, 1])
        one = rnnbptt.jvp(case.params, case.x[:, 1], single, h0=h0[1])
        assert one.shape == (9, 2)
        np.testing.assert_allclose(one, tangent[:, 1], rtol=1e-4 if dtype == np.float32 else 1e-12)


# --- Hessian products ---------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_hvp_is_the_complex_step_of_the_gradient(seed: int) -> None:
    case = draw(seed)
    v = direction(case, seed)
    wrt = [name for name in case.wrt if name != "x"]
    expected = reference.hvp(case.params, case.x, case.y, v, wrt=wrt, **case.options)
    actual = rnnbptt.hvp(case.params, case.x, case.y, v, wrt=wrt, **case.options)
    assert_parts_agree(actual, expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_hvp_on_long_sequences_and_every_option(loss: LossName) -> None:
    for sizes in ((700, 2, 2, 16, 3), (3, 2, 1, 1, 1), (60, 9, 4, 30, 5)):
        case = build(np.random.default_rng(2), np.float64, sizes, loss=loss, steps=STEP_OPTIONS)
        v = direction(case)
        wrt = ["W_hh", "h0", "b_q"]
        expected = reference.hvp(case.params, case.x, case.y, v, wrt=wrt, **case.options)
        actual = rnnbptt.hvp(case.params, case.x, case.y, v, wrt=wrt, **case.options)
        assert_parts_agree(actual, expected)


def test_hvp_of_a_confident_answer_keeps_its_digits() -> None:
    # p = 1 - 2e-18: p (o' - sum p o') must not be formed from 1 - p.
    params = Params([[1.0]], [[0.5]], [[20.0], [-20.7]])
    v = Params([[1.0]], [[0.3]], [[0.2], [0.9]])
    x = np.ones((3, 1))
    for labels in ([0, 0, 0], [1, 0, 1]):
        y = np.array(labels)
        expected = reference.hvp(params, x, y, v, loss="cross_entropy")
        actual = rnnbptt.hvp(params, x, y, v, loss="cross_entropy")
        assert_parts_agree(actual, expected, 1e-11)


@pytest.mark.parametrize("loss", LOSSES)
def test_hessp_is_symmetric_and_linear(loss: LossName) -> None:
    case = build(np.random.default_rng(3), np.float64, (60, 2, 2, 5, 3), loss=loss, steps=("weights",))
    objective, theta = with_start(case)
    n = theta.size
    H = np.array([objective.hessp(theta, unit) for unit in np.eye(n)])
    assert np.abs(H - H.T).max() <= FORMS * np.abs(H).max()
    u = np.random.default_rng(4).standard_normal(n)
    np.testing.assert_allclose(objective.hessp(theta, u), H @ u, rtol=1e-9, atol=1e-11 * np.abs(H).max())
    # Of any size: the power of two that it is scaled by is exact.
    for power in (-400, -1, 3, 400, 1005):
        scaled = objective.hessp(theta, np.ldexp(u, power))
        assert scaled.tobytes() == np.ldexp(objective.hessp(theta, u), power).tobytes()
    whole = np.round(u * 64)
    tiny = objective.hessp(theta, np.ldexp(whole, -1060))
    np.testing.assert_allclose(tiny, np.ldexp(objective.hessp(theta, whole), -1060), rtol=0, atol=5e-324)
    assert not objective.hessp(theta, np.zeros(n)).any()
    assert objective.hessp(np.zeros(n), u).shape == (n,)
    # What wrt leaves out is neither moved nor asked about.
    partial, theta = with_start(case, wrt=("W_hh", "h0"))
    kept = np.zeros(n, bool)
    d, h, _ = case.params.shape
    kept[h * d : h * d + h * h] = kept[case.params.size :] = True
    expected = np.where(kept, H @ (u * kept), 0)
    np.testing.assert_allclose(partial.hessp(theta, u), expected, rtol=1e-9, atol=1e-11 * np.abs(H).max())


# Sizes on both sides of those from which zeros of the doubled model are left out; then a ragged batch.
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(
    "sizes", [(75, 1, 2, 3, 1), (75, 1, 3, 30, 26), (75, 2, 2, 13, 3), (75, 12, 2, 9, 2)]
)
def test_hessian_products_on_every_schedule(sizes: tuple[int, int, int, int, int], dtype: Scalar) -> None:
    _, B, _, _, q = sizes
    tolerance = FORMS if dtype is np.float64 else 1e-5
    # Orthogonal: nothing is forgotten, and float32 carries the states of chunks in float64.
    for terms, kind, radius in ((True, KINDS[0], 0.9), (False, KINDS[1], 1.0)):
        case = build(
            np.random.default_rng(29),
            dtype,
            sizes,
            loss=LOSSES[(q + 2 + terms) % len(LOSSES)],
            radius=radius,
            kind=kind,
            biases=terms,
            direct=terms,
            h0=terms,
            steps=STEP_OPTIONS if B > 2 else (),
        )
        _, v = case.hessian_product(1)
        wide = case.wide()
        along = Gradients(**{name: part.astype(np.float64) for name, part in v.items()})
        exact = reference.hvp(wide.params, wide.x, wide.y, along, wrt=case.wrt[:-1], **wide.options)
        expected = np.concatenate([part.ravel() for _, part in exact.items()])
        for lift, (window, keep), piece in product(
            (1, 2, 5, 8, 32), ((0, 1), (2, 0), (2, 1), (5, 1)), (-1, 0, 3)
        ):
            schedule = {
                "lift": lift,
                "window": window,
                "keep_all_states": keep,
                "piece": piece,
                "splits": 1 + keep,
            }
            actual, _ = case.hessian_product(1, **schedule)
            assert relative_error(actual, expected) <= tolerance, schedule
            if keep:
                again, _ = case.hessian_product(1, threads=3, **schedule)
                assert again.tobytes() == actual.tobytes(), schedule


def test_hessp_looks_at_its_vectors_every_time() -> None:
    case = build(np.random.default_rng(30), np.float64, (20, 2, 2, 4, 2))
    objective, theta = with_start(case)
    v = np.random.default_rng(31).standard_normal(theta.size)
    calls: list[tuple[Any, Any, type[Exception]]] = [
        (theta[1:], v, ValueError),
        (theta, v[1:], ValueError),
        (theta, np.ma.array(v), TypeError),
        (theta, v + 0j, TypeError),
    ]
    strided = np.repeat(v, 3)[::3]
    before = theta.tobytes(), strided.tobytes()
    expected = objective.hessp(theta, v)  # the first of all: later ones take a shorter way where they can
    for along in (strided, v.tolist(), v.astype(">f8"), v):
        assert objective.hessp(theta, along).tobytes() == expected.tobytes()
    for point, along, error in calls:
        with pytest.raises(error):
            objective.hessp(point, along)
    assert (theta.tobytes(), strided.tobytes()) == before


def test_hessp_is_the_difference_of_gradients() -> None:
    case = build(np.random.default_rng(5), np.float64, (50, 2, 2, 4, 2), steps=STEP_OPTIONS)
    for wrt in (None, case.wrt[:-1]):
        objective = Objective(case.x, case.y, like=case.params, wrt=wrt, **case.options)
        theta = objective.pack(case.params)
        v = np.random.default_rng(6).standard_normal(theta.size)

        def central(step: float, at: Objective = objective, theta: Array = theta, v: Array = v) -> Array:
            difference: Array = at.flat(theta + step * v)[1] - at.flat(theta - step * v)[1]
            return difference / (2 * step)

        expected = (4 * central(2.5e-4) - central(5e-4)) / 3
        assert relative_error(objective.hessp(theta, v), expected) <= FINITE_DIFFERENCES


def test_float32_stays_float32() -> None:
    for loss in LOSSES:
        case = build(np.random.default_rng(7), np.float32, (80, 2, 2, 6, 3), loss=loss)
        (narrow, theta), (exact, theta64) = with_start(case), with_start(case.wide())
        v = np.random.default_rng(8).standard_normal(theta.size).astype(np.float32)
        pairs = [
            (narrow.hessp(theta, v), exact.hessp(theta64, v.astype(np.float64))),
            (narrow.gauss_newton(theta).matrix, exact.gauss_newton(theta64).matrix),
        ]
        if loss in SQUARES:
            pairs += [(narrow.jac(theta), exact.jac(theta64))]
            pairs += [(narrow.residuals(theta), exact.residuals(theta64))]
        for actual, expected in pairs:
            assert actual.dtype == np.float32
            assert relative_error(actual, expected) <= 1e-5


# --- Jacobians ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_output_jacobian_holds_the_tangents_of_unit_directions(shape: tuple[int, ...]) -> None:
    case = build(np.random.default_rng(9), np.float64, (*shape,))  # type: ignore[arg-type]  # five sizes
    T, B, _, h, q = shape
    h0 = case.options["h0"]
    names = case.wrt[:-1]
    J = rnnbptt.output_jacobian(case.params, case.x, h0, wrt=names)
    p = case.params.size + B * h
    assert J.shape == (T, B, q, p)
    rng = np.random.default_rng(10)
    for column in rng.choice(p, min(p, 12), replace=False):
        unit = np.zeros(p)
        unit[column] = 1
        v = Gradients(**dict(case.params.unravel(unit[: case.params.size]).items()))
        v = v._replace(h0=unit[case.params.size :].reshape(B, h))
        expected = reference.jvp(case.params, case.x, v, h0=h0)
        assert relative_error(J[..., column], expected) <= FORMS
    # By rows it is what vjp sums up.
    u = rng.standard_normal((T, B, q))
    back = rnnbptt.vjp(case.params, case.x, u, h0, wrt=names)
    assert back.h0 is not None
    expected = np.concatenate([back.ravel(), back.h0.ravel()])
    assert relative_error(np.tensordot(u, J, 3), expected) <= FORMS
    # The columns of some parameters alone, in the order of ravel whatever that of wrt.
    some = rnnbptt.output_jacobian(case.params, case.x, h0, wrt=["h0", "b_q", "W_hh"])
    sizes = np.cumsum([0, *(array.size for _, array in case.params.items()), B * h])
    spans = {name: slice(*sizes[i : i + 2]) for i, name in enumerate(names)}
    expected = np.concatenate([J[..., spans[name]] for name in ("W_hh", "b_q", "h0")], axis=-1)
    assert relative_error(some, expected) <= FORMS


def test_output_jacobian_in_every_layout() -> None:
    case = build(np.random.default_rng(11), np.float64, (12, 3, 2, 4, 2))
    h0 = case.options["h0"]
    lengths = [12, 1, 7]
    J = rnnbptt.output_jacobian(case.params, case.x, h0, lengths=lengths)
    whole = rnnbptt.output_jacobian(case.params, case.x, h0)
    for b, length in enumerate(lengths):
        assert J[:length, b].tobytes() == whole[:length, b].tobytes()
        assert not J[length:, b].any()
    turned = rnnbptt.output_jacobian(case.params, case.x.swapaxes(0, 1), h0, batch_first=True)
    assert turned.swapaxes(0, 1).tobytes() == whole.tobytes()
    one = rnnbptt.output_jacobian(case.params, case.x[:, 1], h0[1])
    assert relative_error(one, whole[:, 1]) <= FORMS
    # Without h0, its derivative is that at zero.
    from_rest = rnnbptt.output_jacobian(case.params, case.x, wrt="h0")
    by_powers = np.einsum("qh,thk->tqk", case.params.W_qh, rnnbptt.matrix_powers(case.params.W_hh, 12)[1:])
    for b in range(3):
        assert relative_error(from_rest[:, b, :, 4 * b : 4 * b + 4], by_powers) <= FORMS
        others = np.delete(from_rest[:, b], np.s_[4 * b : 4 * b + 4], axis=-1)
        assert not others.any()


def test_output_jacobian_against_mpmath() -> None:
    mpmath = pytest.importorskip("mpmath")
    params = Params.random(1, 2, 1, biases=True, rng=12)
    x = np.random.default_rng(13).standard_normal((5, 1))
    J = rnnbptt.output_jacobian(params, x)
    theta = params.ravel()

    def output(t: int, values: list[Any]) -> Any:
        a, w, c, b, e = values[:2], values[2:6], values[6:8], values[8:10], values[10]
        s = [mpmath.mpf(0), mpmath.mpf(0)]
        for u in x[: t + 1, 0]:
            s = [a[i] * mpmath.mpf(float(u)) + w[2 * i] * s[0] + w[2 * i + 1] * s[1] + b[i] for i in (0, 1)]
        return c[0] * s[0] + c[1] * s[1] + e

    with mpmath.workdps(40):
        for t in range(5):
            for column in range(theta.size):

                def along(z: Any, t: int = t, column: int = column) -> Any:
                    values = [mpmath.mpf(float(v)) for v in theta]
                    values[column] += z
                    return output(t, values)

                assert abs(J[t, 0, column] - float(mpmath.diff(along, 0))) <= 1e-14


# --- least squares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", SQUARES)
@pytest.mark.parametrize("shape", SHAPES)
def test_residuals_and_jacobian_are_those_of_the_loss(shape: tuple[int, ...], loss: LossName) -> None:
    for steps in ((), STEP_OPTIONS):
        case = build(np.random.default_rng(14), np.float64, (*shape,), loss=loss, steps=steps)  # type: ignore[arg-type]
        for objective, theta in (
            with_start(case),
            with_start(case, wrt=("h0", "W_hh", "W_qx")),
            with_start(case, wrt=None),
        ):
            L, gradient = objective.flat(theta)
            r, J = objective.residuals(theta), objective.jac(theta)
            assert r.shape == (case.y.size,)
            assert J.shape == (case.y.size, theta.size)
            assert 0.5 * float(r @ r) == pytest.approx(L, rel=1e-13)
            assert relative_error(J.T @ r, gradient) <= FORMS
            G = objective.gauss_newton(theta)
            assert G.loss == L
            assert G.gradient.tobytes() == gradient.tobytes()
            assert relative_error(G.matrix, J.T @ J) <= FORMS
            assert G.matrix.tobytes() == np.ascontiguousarray(G.matrix.T).tobytes()
            v = np.random.default_rng(15).standard_normal(theta.size) * J.any(axis=0)
            step = 1e-6
            slope = (objective.residuals(theta + step * v) - objective.residuals(theta - step * v)) / (
                2 * step
            )
            assert relative_error(J @ v, slope) <= 1e-7


def test_residuals_lie_as_the_targets_do() -> None:
    case = build(np.random.default_rng(16), np.float64, (7, 3, 2, 4, 2), h0=False, loss="squared_error")
    o = rnnbptt.forward(case.params, case.x).o
    theta = case.params.ravel()
    expected = (o - case.y) / np.sqrt(21)
    r = Objective(case.x, case.y, like=case.params, loss="squared_error").residuals(theta)
    np.testing.assert_allclose(r, expected.ravel(), rtol=1e-12)
    x, y = case.x.swapaxes(0, 1), case.y.swapaxes(0, 1)
    turned = Objective(x, y, like=case.params, loss="squared_error", batch_first=True)
    np.testing.assert_allclose(turned.residuals(theta), expected.swapaxes(0, 1).ravel(), rtol=1e-12)
    J = Objective(case.x, case.y, like=case.params, loss="squared_error").jac(theta)
    J = J.reshape(7, 3, 2, -1).swapaxes(0, 1).reshape(42, -1)
    assert turned.jac(theta).tobytes() == np.ascontiguousarray(J).tobytes()


def test_what_lies_beyond_the_ends_of_sequences_is_not_read() -> None:
    case = build(np.random.default_rng(17), np.float64, (9, 2, 2, 4, 2))
    x, y = case.x.copy(), case.y.copy()
    x[5:, 1], y[5:, 1], y[2, 0] = np.nan, np.nan, np.nan
    weights = np.ones((9, 2))
    weights[2, 0] = 0
    options = case.options | {"lengths": [9, 5], "weights": weights}
    (dirty, theta), (clean, _) = (
        with_start(Case(case.params, x, y, options)),
        with_start(case._replace(options=options)),
    )
    for name in ("residuals", "jac"):
        assert getattr(dirty, name)(theta).tobytes() == getattr(clean, name)(theta).tobytes()
    assert np.isfinite(dirty.gauss_newton(theta).matrix).all()
    assert dirty.hessp(theta, theta).tobytes() == clean.hessp(theta, theta).tobytes()


def test_gauss_newton_of_the_cross_entropy() -> None:
    for steps in ((), STEP_OPTIONS):
        case = build(
            np.random.default_rng(18), np.float64, (30, 2, 2, 5, 4), loss="cross_entropy", steps=steps
        )
        objective, theta = with_start(case)
        found = objective.gauss_newton(theta)
        J = rnnbptt.output_jacobian(case.params, case.x, case.options["h0"], wrt=case.wrt[:-1])
        o = rnnbptt.forward(case.params, case.x, case.options["h0"]).o
        p = np.exp(o - o.max(axis=-1, keepdims=True))
        p /= p.sum(axis=-1, keepdims=True)
        w = np.array(case.options.get("weights", np.ones((30, 2))))
        w = w * case.options.get("mask", True)
        if "lengths" in case.options:
            w = w * (np.arange(30)[:, None] < case.options["lengths"])
        H = (np.eye(4) * p[..., None] - p[..., None] * p[..., None, :]) * (w / w.sum())[..., None, None]
        expected = np.einsum("tbkp,tbkl,tblr->pr", J, H, J)
        assert relative_error(found.matrix, expected) <= FORMS
        assert found.loss == objective.flat(theta)[0]


def test_gauss_newton_in_windows() -> None:
    # Long enough for several windows of one sequence, and short enough for several sequences in one.
    for sizes in ((4000, 2, 2, 8, 2), (30, 70, 1, 6, 1)):
        case = build(np.random.default_rng(19), np.float64, sizes)
        objective, theta = with_start(case)
        J = objective.jac(theta)
        assert relative_error(objective.gauss_newton(theta).matrix, J.T @ J) <= FORMS


@pytest.mark.parametrize(("dtype", "steps"), [(np.float64, 4000), (np.float32, 700)])
def test_what_a_start_did_long_ago_is_forgotten(dtype: Any, steps: int) -> None:
    # 0.8^t is subnormal from t = 3175 on in float64 and from 392 on in float32, and would stay so.
    params = Params(*(np.array([[value]], dtype) for value in (1, 0.8, 1)))
    objective = Objective(np.ones((steps, 1), dtype), np.zeros((steps, 1), dtype), like=params, wrt=["h0"])
    J = objective.jac(objective.pack(params))[:, -1]
    exact = np.sqrt(2 / steps) * dtype(0.8) ** np.arange(1.0, steps + 1)
    large = exact > np.finfo(dtype).tiny / np.finfo(dtype).eps
    rounding = np.arange(1, steps + 1) * np.finfo(dtype).eps
    assert (np.abs(J - exact)[large] <= (rounding * exact)[large]).all()
    assert (J[steps // 8 * 7 :] == 0).all()


def test_bits_do_not_depend_on_threads() -> None:
    case = build(np.random.default_rng(20), np.float64, (500, 3, 2, 12, 2), steps=("weights",))
    answers = set()
    for threads in (1, 2, 3, 8):
        objective, theta = with_start(case, num_threads=threads)
        tangent = rnnbptt.jvp(case.params, case.x, direction(case), num_threads=threads)
        parts = [objective.residuals(theta), objective.jac(theta), objective.gauss_newton(theta).matrix]
        parts += [objective.hessp(theta, theta), tangent]
        answers.add(b"".join(part.tobytes() for part in parts))
    assert len(answers) == 1


def test_objectives_may_be_shared_between_threads() -> None:
    case = build(np.random.default_rng(21), np.float64, (200, 2, 2, 6, 2))
    objective, theta = with_start(case)
    fresh, _ = with_start(case)
    expected = [fresh.jac(theta), fresh.hessp(theta, theta), fresh.gauss_newton(theta).matrix]
    wrong: list[str] = []

    def work() -> None:
        for _ in range(20):
            found = [
                objective.jac(theta),
                objective.hessp(theta, theta),
                objective.gauss_newton(theta).matrix,
            ]
            wrong.extend("x" for a, b in zip(found, expected, strict=True) if a.tobytes() != b.tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are for main")
def test_ctrl_c_ends_a_long_jacobian() -> None:
    params = Params.random(2, 60, 1, rng=22)
    objective = Objective(np.ones((20_000, 2)), np.ones((20_000, 1)), like=params, num_threads=2)
    taken = answer_to_ctrl_c(lambda: objective.gauss_newton(params.ravel()), 0.3)
    assert taken < ANSWER_TO_CTRL_C


# --- with SciPy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lm", "trf"])
def test_least_squares_finds_network_and_initial_state(method: str) -> None:
    rng = np.random.default_rng(23)
    true = Params.random(2, 3, 2, spectral_radius=0.9, rng=rng)
    x, h0 = rng.standard_normal((120, 2)), 3 * rng.standard_normal(3)
    y = rnnbptt.forward(true, x, h0).o
    start = Params.random(2, 3, 2, spectral_radius=0.5, rng=1)
    names = [*(name for name, _ in start.items()), "h0"]
    objective = Objective(x, y, like=start, wrt=names)
    result = least_squares(objective.residuals, objective.pack(start), jac=objective.jac, method=method)
    assert result.cost == pytest.approx(objective.flat(result.x)[0], rel=1e-12, abs=1e-20)
    assert result.cost < 1e-16
    found, found_h0 = objective.unpack(result.x)
    np.testing.assert_allclose(rnnbptt.forward(found, x, found_h0).o, y, atol=1e-6)
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(found.W_hh)),
        np.sort_complex(np.linalg.eigvals(true.W_hh)),
        atol=1e-5,
    )


@pytest.mark.parametrize("method", ["trust-ncg", "trust-krylov", "Newton-CG"])
def test_minimize_with_hessian_products(method: str) -> None:
    rng = np.random.default_rng(24)
    x = rng.standard_normal((150, 1))
    y = rnnbptt.forward(Params.random(1, 2, 1, spectral_radius=0.8, rng=rng), x).o
    start = Params.random(1, 2, 1, spectral_radius=0.5, rng=2)
    objective = Objective(x, y, like=start)
    result = minimize(objective.flat, start.ravel(), jac=True, hessp=objective.hessp, method=method)
    assert result.fun < 1e-10
    assert np.abs(objective.flat(result.x)[1]).max() < 1e-4


# --- bad input ----------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    case = build(np.random.default_rng(25), np.float64, (6, 2, 2, 3, 2), biases=False, direct=False, h0=False)
    params, x, y = case.params, case.x, case.y
    objective = Objective(x, y, like=params)
    theta: Any = params.ravel()
    other = Params.random(2, 4, 2, rng=0)
    biased = Params.random(2, 3, 2, biases=True, rng=0)
    labels = np.zeros((6, 2), int)

    def own(o: Array, y: Any) -> tuple[float, Array]:
        return 0.0, o

    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: rnnbptt.jvp(theta, x, params), TypeError, "params must be rnnbptt.Params, not ndarray"),
        (
            lambda: rnnbptt.jvp(params, x, theta),
            TypeError,
            "d_params must be rnnbptt.Params or Gradients, not",
        ),
        (
            lambda: rnnbptt.jvp(params, x, other),
            ValueError,
            r"d_params.W_hx must have shape \(3, 2\), not \(4, 2",
        ),
        (lambda: rnnbptt.jvp(params, x, biased), ValueError, "d_params must have no b_h, as params has none"),
        (
            lambda: rnnbptt.jvp(params, x, params, d_h0=np.ones(3)),
            ValueError,
            r"d_h0 must have shape \(2, 3\)",
        ),
        (lambda: rnnbptt.jvp(params, x, params, d_x=x[1:]), ValueError, r"d_x must have shape \(6, 2, 2\)"),
        (lambda: rnnbptt.jvp(params, x, Gradients(x=x), d_x=x), ValueError, "d_x must be None where"),
        (lambda: rnnbptt.jvp(params, x, params, num_threads=0), ValueError, "num_threads must be at least 1"),
        (lambda: rnnbptt.hvp(params, x, y, theta), TypeError, "v must be rnnbptt.Params or Gradients"),
        (lambda: rnnbptt.hvp(params, x, y, Gradients(x=x)), ValueError, "v must have no direction of x"),
        (lambda: rnnbptt.hvp(params, x, y, params, wrt="x"), ValueError, "wrt must name some of"),
        (lambda: rnnbptt.hvp(params, x, y, params, loss=own), ValueError, "loss must be one of the built-in"),
        (
            lambda: rnnbptt.hvp(params, x, y, Gradients(h0=np.ones(3))),
            ValueError,
            r"h0 must have shape \(2, 3\)",
        ),
        (lambda: rnnbptt.output_jacobian(params, x, wrt="x"), ValueError, "wrt must name some of"),
        (lambda: rnnbptt.output_jacobian(params, x, wrt=[]), ValueError, "wrt must name something"),
        (lambda: rnnbptt.output_jacobian(params, x[..., 1:]), ValueError, "x must have shape"),
        (lambda: Objective(x, y).jac(theta), ValueError, "like must be given"),
        (lambda: Objective(x, y).pack(params), ValueError, "like must be given"),
        (lambda: objective.residuals(theta[1:]), ValueError, r"theta must have shape \(21,\), not \(20,\)"),
        (lambda: objective.jac(theta + 0j), TypeError, "theta must be an array of real numbers"),
        (lambda: objective.gauss_newton("a"), TypeError, "theta must be an array of real numbers"),
        (lambda: objective.hessp(theta, theta[1:]), ValueError, r"v must have shape \(21,\), not \(20,\)"),
        (
            lambda: Objective(x, labels, loss="cross_entropy", like=params).residuals(theta),
            ValueError,
            "loss must be 'mse' or 'squared_error' for residuals, not 'cross_entropy'",
        ),
        (
            lambda: Objective(x, y, loss=own, like=params).jac(theta),
            ValueError,
            "loss must be 'mse' or 'squared_error' for jac, not a function",
        ),
        (
            lambda: Objective(x, y, loss=own, like=params).gauss_newton(theta),
            ValueError,
            "loss must be one of the built-in losses for gauss_newton",
        ),
        (
            lambda: Objective(x, y, loss=own, like=params).hessp(theta, theta),
            ValueError,
            "loss must be one of the built-in losses for hessp",
        ),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=message):
            call()


def test_too_large_is_a_memory_error_that_names_the_bytes() -> None:
    params = Params.random(1, 200, 1, rng=26)
    x = np.broadcast_to(0.5, (2**24, 1))
    with pytest.raises(MemoryError, match=r"\d+ bytes for J"):
        rnnbptt.output_jacobian(params, x)
    with pytest.raises(MemoryError, match=r"\d+ bytes for J"):
        Objective(x, x, like=params).jac(params.ravel())
    wide = Params(np.zeros((2500, 1)), np.zeros((2500, 2500)), np.zeros((1, 2500)))
    with pytest.raises(MemoryError, match=r"\d+ bytes for matrix"):
        Objective(x[:5], x[:5], like=wide).gauss_newton(wide.ravel())


def test_not_finite_in_not_finite_out() -> None:
    case = build(np.random.default_rng(27), np.float64, (6, 1, 2, 3, 2))
    objective, theta = with_start(case)
    broken = theta.copy()
    broken[7] = np.nan
    assert np.isnan(objective.jac(broken)).any()
    assert np.isnan(objective.gauss_newton(broken).matrix).any()
    assert np.isnan(objective.hessp(broken, theta)).any()
    assert np.isnan(objective.hessp(theta, broken)).any()


# --- beside automatic differentiation -----------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed: nox -s peers")
@pytest.mark.usefixtures("jax_float64")
@pytest.mark.parametrize("loss", ["mse", "squared_error", "cross_entropy"])
def test_jax_agrees(loss: LossName) -> None:
    import jax

    jnp = jax.numpy
    case = build(np.random.default_rng(28), np.float64, (40, 3, 2, 5, 4), loss=loss, steps=("weights",))
    w = np.asarray(case.options["weights"])
    h0 = case.options["h0"]
    v = direction(case)
    point = dict(case.params.items()) | {"h0": h0}
    along = dict(v.items())

    def outputs(p: dict[str, Any]) -> Any:
        def step(state: Any, u: Any) -> tuple[Any, Any]:
            state = state @ p["W_hh"].T + u @ p["W_hx"].T + p["b_h"]
            return state, state @ p["W_qh"].T + u @ p["W_qx"].T + p["b_q"]

        return jax.lax.scan(step, p["h0"], case.x)[1]

    def of_outputs(o: Any) -> Any:
        if loss == "cross_entropy":
            steps = -jnp.take_along_axis(jax.nn.log_softmax(o), case.y[..., None], axis=-1)[..., 0]
        else:
            steps = jnp.sum((o - case.y) ** 2, axis=-1) * (0.5 if loss == "squared_error" else 1 / 4)
        return jnp.sum(w * steps) / w.sum()

    @jax.jit  # type: ignore[untyped-decorator]
    def answers(p: dict[str, Any], t: dict[str, Any]) -> Any:
        o, tangent = jax.jvp(outputs, (p,), (t,))
        product = jax.jvp(jax.grad(lambda at: of_outputs(outputs(at))), (p,), (t,))[1]
        # The Gauss-Newton matrix by a product: J^T (d2L/do2) J v.
        pushed = jax.jvp(jax.grad(of_outputs), (o,), (tangent,))[1]
        return tangent, product, jax.vjp(outputs, p)[1](pushed)[0]

    tangent, product, pulled = answers(point, along)
    assert relative_error(rnnbptt.jvp(case.params, case.x, v, h0=h0), np.asarray(tangent)) <= 1e-10
    found = rnnbptt.hvp(case.params, case.x, case.y, v, wrt=list(point), **case.options)
    for name, part in found.items():
        assert relative_error(part, np.asarray(product[name])) <= 1e-10, name
    objective, theta = with_start(case)
    flat = np.concatenate([along[name].ravel() for name in point])
    expected = np.concatenate([np.asarray(pulled[name]).ravel() for name in point])
    assert relative_error(objective.gauss_newton(theta).matrix @ flat, expected) <= 1e-10
