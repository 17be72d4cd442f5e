"""`Objective`: a data set that is checked once and evaluated many times."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, Array, Case, Scalar, assert_identical, assert_same, build
from rnnbptt import Objective, Params
from rnnbptt.engine.losses import LossName
from speed import slow
from tolerances import FINITE_DIFFERENCES, FORMS, relative_error


def problem(**parts: Any) -> Case:
    return build(np.random.default_rng(0), np.float64, (50, 3, 2, 6, 2), **parts)


def objective_of(case: Case, **more: Any) -> Objective:
    return Objective(case.x, case.y, **(case.options | more))


# --- the same as loss_and_grad ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
def test_objective_is_loss_and_grad(loss: LossName, dtype: Scalar) -> None:
    case = build(np.random.default_rng(1), dtype, (70, 3, 2, 6, 3), loss=loss, steps=STEP_OPTIONS)
    expected_loss, expected = case.engine()
    for like in (None, case.params):
        objective = objective_of(case, wrt=case.wrt, like=like)
        for _ in range(3):
            value, actual = objective(case.params)
            assert value == expected_loss
            assert type(value) is float
            assert_identical(actual, expected)


@pytest.mark.parametrize("dtype", SCALARS)
def test_flat_is_the_gradients_in_a_row(dtype: Scalar) -> None:
    for biases in (False, True):
        for direct in (False, True):
            case = build(np.random.default_rng(2), dtype, (70, 2, 2, 6, 3), biases=biases, direct=direct)
            objective = objective_of(case, like=case.params)
            loss, gradients = objective(case.params)
            value, flat = objective.flat(case.params.ravel())
            assert value == loss
            assert flat.dtype == dtype
            assert flat.shape == (case.params.size,)
            assert flat.tobytes() == gradients.ravel().tobytes()
            parts = [getattr(gradients, name).ravel() for name, _ in case.params.items()]
            assert flat.tobytes() == np.concatenate(parts).tobytes()


def test_flat_holds_zeros_for_what_wrt_leaves_out() -> None:
    case = problem()
    _, whole = objective_of(case, like=case.params)(case.params)
    objective = objective_of(case, like=case.params, wrt=("W_hh", "b_q"))
    _, flat = objective.flat(case.params.ravel())
    for name, part in case.params.unravel(flat).items():
        if name in ("W_hh", "b_q"):
            np.testing.assert_allclose(part, getattr(whole, name), rtol=1e-12)
        else:
            assert not part.any()
    objective = objective_of(case, like=case.params, wrt=("x", "W_qh"))
    _, flat = objective.flat(case.params.ravel())
    assert flat.shape == (case.params.size,)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_flat_takes_the_initial_state_along_where_wrt_names_it(given: bool, batched: bool) -> None:
    case = problem(h0=False)
    h0 = np.random.default_rng(7).standard_normal((3, 6))
    x, y = case.x, case.y
    if not batched:
        x, y, h0 = x[:, 0], y[:, 0], h0[0]
    names = [name for name, _ in case.params.items()]
    options: dict[str, Any] = {"wrt": [*names, "h0"], "like": case.params}
    objective = Objective(x, y, h0=h0 if given else None, **options)
    theta = objective.pack(case.params)
    assert theta.shape == (case.params.size + h0.size,)
    np.testing.assert_array_equal(theta[case.params.size :], h0.ravel() if given else 0)
    theta = objective.pack(case.params, h0)
    params, start = objective.unpack(theta)
    np.testing.assert_array_equal(params.ravel(), case.params.ravel())
    assert start is not None
    np.testing.assert_array_equal(start, h0)
    # Whatever h0 the objective was made with, that of the vector counts.
    loss, gradients = Objective(x, y, h0=h0, wrt=[*names, "h0"])(case.params)
    assert gradients.h0 is not None
    expected = np.concatenate([gradients.ravel(), gradients.h0.ravel()])
    value, flat = objective.flat(theta)
    assert value == loss
    assert flat.tobytes() == expected.tobytes()
    for loss_of in (lambda o, y: (0.5 * float(np.sum((o - y) ** 2)), o - y),):
        value, flat = Objective(x, y, loss=loss_of, **options).flat(theta)
        scale = y.size / 2
        assert value == pytest.approx(loss * scale, rel=1e-12)
        np.testing.assert_allclose(flat, expected * scale, rtol=1e-10, atol=1e-12)
    partial = Objective(x, y, wrt=("h0", "b_q"), like=case.params)
    flat = partial.flat(theta)[1]
    params, start = partial.unpack(flat)
    assert start is not None
    assert params.b_q is not None
    assert gradients.b_q is not None
    assert relative_error(start, gradients.h0) <= FORMS
    assert relative_error(params.b_q, gradients.b_q) <= FORMS
    assert np.count_nonzero(flat) == h0.size + 2
    plain = Objective(x, y, like=case.params)
    np.testing.assert_array_equal(plain.pack(case.params), case.params.ravel())
    assert plain.unpack(case.params.ravel())[1] is None
    with pytest.raises(ValueError, match="h0 must be None unless wrt names it"):
        plain.pack(case.params, h0)
    with pytest.raises(ValueError, match="h0 must have shape"):
        objective.pack(case.params, h0[..., 1:])
    with pytest.raises(ValueError, match="theta must have shape"):
        objective.unpack(theta[1:])
    with pytest.raises(ValueError, match="params must have shapes"):
        objective.pack(Params.random(2, 6, 2, rng=0))
    with pytest.raises(TypeError, match="params must be"):
        objective.pack(theta)  # type: ignore[arg-type]  # that is the point


def test_flat_takes_anything_like_a_vector() -> None:
    case = problem()
    objective = objective_of(case, like=case.params)
    theta = case.params.ravel()
    loss, expected = objective.flat(theta)
    for same in (theta.tolist(), theta[::-1].copy()[::-1], theta.astype(">f8"), theta.view(np.recarray)):
        value, flat = objective.flat(same)
        assert value == loss
        assert flat.tobytes() == expected.tobytes()
    for bad, error in (
        (theta[:-1], ValueError),
        (theta[None], ValueError),
        (theta + 0j, TypeError),
        ("a", TypeError),
    ):
        with pytest.raises(error, match="theta"):
            objective.flat(bad)


def test_params_and_theta_go_back_and_forth() -> None:
    params = problem().params
    again = params.unravel(params.ravel())
    assert [name for name, _ in again.items()] == [name for name, _ in params.items()]
    for (_, a), (_, b) in zip(again.items(), params.items(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- like, wrt, kinds of parameters -------------------------------------------------------------------------


def test_without_like_the_first_call_decides_nothing() -> None:
    case = problem()
    objective = objective_of(case)
    with pytest.raises(ValueError, match="like must be given"):
        objective.flat(case.params.ravel())
    objective(case.params)
    with pytest.raises(ValueError, match="like must be given"):
        objective.flat(case.params.ravel())
    # Other terms, sizes and dtypes may follow on the same data.
    plain = Params(case.params.W_hx, case.params.W_hh, case.params.W_qh)
    _, gradients = objective(plain)
    assert [name for name, _ in gradients.items()] == ["W_hx", "W_hh", "W_qh"]
    del case.options["h0"]
    objective = objective_of(case)
    for h in (3, 6, 9):
        other = Params.random(2, h, 2, rng=h)
        assert_identical(objective(other)[1], rnnbptt.loss_and_grad(other, case.x, case.y)[1])
    integers = Objective(np.ones((9, 2), np.int8), np.zeros((9, 2), np.int8))
    for dtype in SCALARS:
        assert integers(Params.random(2, 3, 2, rng=0, dtype=dtype))[1].ravel().dtype == dtype


def test_with_like_everything_is_checked_at_once_and_flat_keeps_its_shapes() -> None:
    case = problem()
    with pytest.raises(ValueError, match="y must have shape"):
        Objective(case.x, case.y[:-1], like=case.params)
    Objective(case.x, case.y[:-1])
    objective = objective_of(case, like=case.params)
    expected = objective.flat(case.params.ravel())
    plain = Params(case.params.W_hx, case.params.W_hh, case.params.W_qh)
    assert objective(plain)[1].b_h is None
    # A call with other terms does not change what flat means.
    for _ in range(2):
        actual = objective.flat(case.params.ravel())
        assert actual[0] == expected[0]
        assert actual[1].tobytes() == expected[1].tobytes()
    with pytest.raises(ValueError, match="theta must have shape"):
        objective.flat(plain.ravel())


def test_wrt() -> None:
    case = problem()
    for wrt, names in (
        (None, ["W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx"]),
        (("x", "W_hh"), ["W_hh", "x"]),
        ("h0", ["h0"]),
        ([], []),
        ({"b_h", "b_q"}, ["b_h", "b_q"]),
    ):
        _, gradients = objective_of(case, wrt=wrt)(case.params)
        assert [name for name, _ in gradients.items()] == names
    plain = Params(case.params.W_hx, case.params.W_hh, case.params.W_qh)
    with pytest.raises(ValueError, match="wrt must name some of"):
        objective_of(case, wrt=("b_h",))(plain)
    # h0 and x have gradients whether or not they were given.
    _, gradients = objective_of(problem(h0=False), wrt=("h0",))(case.params)
    assert gradients.h0 is not None
    assert gradients.h0.shape == (3, 6)


# --- a loss of the caller's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, [20, 50, 1]])
def test_callable_loss(lengths: list[int] | None, batch_first: bool) -> None:
    case = problem()
    x, y = (a.swapaxes(0, 1) if batch_first else a for a in (case.x, case.y))
    shape = x.shape
    seen: list[Any] = []

    def squares(o: Array, target: Any) -> tuple[float, Array]:
        assert o.shape == (*shape[:2], 2)
        seen.append(target)
        ended = np.arange(50)[:, np.newaxis] >= np.array(lengths or [50] * 3)
        ended = ended.T if batch_first else ended
        assert not o[ended].any()
        residual = np.where(ended[..., np.newaxis], 0, o - y)
        d_o = 2 * residual / residual.size
        d_o[ended] = np.nan  # of steps that are not run nothing is read
        return float(np.sum(residual**2) / residual.size), d_o

    options: dict[str, Any] = {"h0": case.options["h0"], "lengths": lengths, "batch_first": batch_first}
    token = object()
    objective = Objective(x, token, loss=squares, like=case.params, **options)
    loss, actual = objective(case.params)
    assert seen == [token]
    named, expected = rnnbptt.loss_and_grad(case.params, x, y, **options)
    scale = sum(lengths or [150]) / 150
    assert loss == pytest.approx(named * scale, rel=1e-12)
    scaled = type(expected)(*(None if g is None else g * scale for g in expected))
    assert_same(actual, scaled, FORMS)
    value, flat = objective.flat(case.params.ravel())
    assert value == loss
    assert flat.tobytes() == actual.ravel().tobytes()
    assert_same(rnnbptt.loss_and_grad(case.params, x, token, loss=squares, **options)[1], actual, 0.0)


def test_an_exception_in_the_callers_loss_reaches_the_caller() -> None:
    class Mine(Exception):
        pass

    def fails(o: Array, y: Any) -> tuple[float, Array]:
        raise Mine

    case = problem()
    objective = Objective(case.x, case.y, loss=fails)
    for _ in range(2):
        with pytest.raises(Mine):
            objective(case.params)


# --- buffers ------------------------------------------------------------------------------------------------


def test_results_of_one_call_are_not_touched_by_the_next() -> None:
    case = problem()
    objective = objective_of(case, wrt=case.wrt, like=case.params)
    _, first = objective(case.params)
    before = [a.copy() for _, a in first.items()]
    theta = objective.pack(case.params)
    _, second = objective(Params.random(2, 6, 2, biases=True, direct=True, rng=9))
    for (name, a), b, (_, c) in zip(first.items(), before, second.items(), strict=True):
        assert a.tobytes() == b.tobytes(), name
        assert not np.shares_memory(a, c), name
        a[...] = np.nan
    assert not np.shares_memory(objective.flat(theta)[1], objective.flat(theta)[1])
    assert all(np.isfinite(a).all() for _, a in objective(case.params)[1].items())


def test_what_came_before_does_not_matter() -> None:
    # Memory of larger and smaller problems is used again: no bit may be left over.
    cases = [
        problem(),
        build(np.random.default_rng(3), np.float32, (900, 2, 3, 40, 2)),
        problem(loss="cross_entropy"),
    ]
    cases.append(build(np.random.default_rng(4), np.float64, (3, 1, 1, 1, 1)))
    expected = [case.engine() for case in cases]
    rng = np.random.default_rng(5)
    for number in rng.integers(len(cases), size=60):
        loss, actual = cases[number].engine()
        assert loss == expected[number][0]
        assert_identical(actual, expected[number][1])


def test_calls_do_not_let_memory_grow() -> None:
    case = problem()
    objective = objective_of(case, like=case.params)
    theta = case.params.ravel()

    def calls(n: int) -> int:
        for _ in range(n):
            objective.flat(theta)
            objective(case.params)
            case.engine()
            with pytest.raises(ValueError, match="theta"):
                objective.flat(theta[1:])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        calls(20)
        before = calls(20)
        assert calls(200) - before < 20_000
    finally:
        tracemalloc.stop()
    counts = [sys.getrefcount(a) for a in (case.x, case.y, theta, case.params.W_hh)]
    calls(20)
    assert [sys.getrefcount(a) for a in (case.x, case.y, theta, case.params.W_hh)] == counts


@slow
def test_ten_thousand_calls_do_not_let_the_process_grow() -> None:
    code = """
import resource, numpy as np, rnnbptt
params = rnnbptt.Params.random(2, 8, 2, rng=0)
x, y = np.ones((2, 300, 3, 2))
objective = rnnbptt.Objective(x, y, like=params)
theta = params.ravel()
def calls(n):
    for i in range(n):
        objective.flat(theta)
        rnnbptt.forward(params, x)
        rnnbptt.loss_and_grad(params, x, y)
        try:
            objective.flat(theta[1:])
        except ValueError:
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = calls(500)
grown = calls(2500) - before
assert grown < 1024, f"{grown} KiB"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_flat_takes_no_masked_array_for_a_vector() -> None:
    case = problem()
    objective = objective_of(case, like=case.params)
    theta = case.params.ravel()
    with pytest.raises(TypeError, match="theta must not be a masked array"):
        objective.flat(np.ma.array(theta))
    expected = objective.flat(theta)[1]
    assert objective.flat(theta.view(np.memmap))[1].tobytes() == expected.tobytes()


# --- with an optimiser --------------------------------------------------------------------------------------


def test_scipy_finds_the_network_that_made_the_data() -> None:
    rng = np.random.default_rng(6)
    true = Params.random(2, 3, 2, spectral_radius=0.8, rng=rng)
    x = rng.standard_normal((300, 2))
    y = rnnbptt.forward(true, x).o
    start = Params.random(2, 3, 2, spectral_radius=0.5, rng=1)
    objective = Objective(x, y, like=start)
    result = minimize(objective.flat, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    assert result.fun < 1e-4 * objective(start)[0]
    found = start.unravel(result.x)
    assert objective(found)[0] == result.fun


def test_scipy_agrees_about_the_gradient() -> None:
    case = problem(steps=STEP_OPTIONS)
    objective = objective_of(case, like=case.params)
    theta = case.params.ravel()
    error = check_grad(lambda t: objective.flat(t)[0], lambda t: objective.flat(t)[1], theta, epsilon=1e-6)
    # One-sided differences: their own error is of the order of the step.
    assert error < 1e3 * FINITE_DIFFERENCES * max(1.0, float(np.linalg.norm(objective.flat(theta)[1])))


@pytest.mark.parametrize("loss", [*LOSSES, lambda o, y: (float(np.sum(o * y)), y)], ids=str)
def test_an_objective_survives_pickling_and_copying(loss: Any) -> None:
    name: LossName = loss if isinstance(loss, str) else "mse"  # type: ignore[assignment]  # one of LOSSES
    case = build(np.random.default_rng(11), np.float64, (20, 2, 2, 4, 3), loss=name)
    objective = rnnbptt.Objective(case.x, case.y, loss=loss, like=case.params, h0=case.options["h0"])
    theta = case.params.ravel()
    value, gradient = objective.flat(theta)
    copies = [copy.deepcopy(objective)]
    if isinstance(loss, str):
        copies += [pickle.loads(pickle.dumps(objective, protocol)) for protocol in (2, 5)]
    for other in copies:
        again, same = other.flat(theta)
        assert again == value
        assert same.tobytes() == gradient.tobytes()
        assert_identical(other(case.params)[1], objective(case.params)[1])
