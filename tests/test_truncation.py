"""Truncated gradients: the engine against the reference, the reference against sums written out."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, Array, Case, Scalar, assert_identical, assert_same, build, draw, nudged
from rnnbptt import Chunked, Gradients, Objective, Params, Randomized, Sliding, reference
from rnnbptt.engine import losses
from rnnbptt.engine.dataset import Dataset
from rnnbptt.engine.losses import LossName
from rnnbptt.engine.truncation import Truncation
from rnnbptt.gradients.problem import Problem
from tolerances import FORMS, gradient_bound, relative_error, sequential_bound

NUDGES = 8
SPECTRA = (("gaussian", 0.5), ("gaussian", 0.95), ("orthogonal", 1.0), ("gaussian", 1.1))


def same(truncate: Truncation) -> Truncation:
    """Return a truncation that draws what `truncate`, not yet used, is going to draw."""
    return Randomized(truncate.tau, rng=7) if isinstance(truncate, Randomized) else truncate


def assert_exact(case: Case, truncate: Truncation, radius: float, **more: Any) -> None:
    """Compare the engine with the oracle."""
    _, actual = case.engine(truncate=same(truncate), **more)
    assert_right(actual, case, truncate, radius)


def assert_right(actual: Gradients, case: Case, truncate: Truncation, radius: float) -> None:
    """Compare gradients with the oracle's, by the tolerances of full gradients."""

    def oracle(case: Case) -> Gradients:
        arguments = case.params, case.x, case.y
        return reference.oracle(*arguments, wrt=case.wrt, truncate=same(truncate), **case.options)[1]

    expected = oracle(case)
    _, sequential = case.solve(wrt=case.wrt, truncate=same(truncate))
    dtype = case.params.dtype
    bound = gradient_bound(dtype, case.params.shape[1], len(case.x), radius)
    assert [name for name, _ in actual.items()] == [name for name, _ in expected.items()]
    for (name, a), (_, b), (_, s) in zip(actual.items(), expected.items(), sequential.items(), strict=True):
        assert a.dtype == dtype
        error = relative_error(a, b)
        if np.finfo(np.longdouble).eps == np.finfo(dtype).eps:
            assert error <= FORMS, name  # the oracle rounds as much
            continue
        assert error <= sequential_bound(dtype, relative_error(s, b)), name
        if error > bound:  # allowed where the gradient moves further when its data are rounded once
            moves = (relative_error(getattr(oracle(nudged(case, seed)), name), b) for seed in range(NUDGES))
            assert any(move > bound for move in moves), (name, error / bound)


# --- the reference against sums written out -----------------------------------------------------------------


def by_definition(truncate: Truncation, W: Array, e: Array) -> Array:
    """Return g_0 .. g_T of one sequence, term by term; e_0 = 0."""
    T, h = e.shape
    asked = np.concatenate([np.zeros((1, h)), e])
    cuts = truncate.cuts(T, 1)[:, 0] if isinstance(truncate, Randomized) else None
    g = np.zeros((T + 1, h))
    for t in range(T + 1):
        for i in range(T + 1 - t):
            weight = 1.0
            if isinstance(truncate, Sliding):
                weight = float(i < truncate.tau)
            elif isinstance(truncate, Chunked):
                weight = float((max(t, 1) - 1) // truncate.tau == (max(t + i, 1) - 1) // truncate.tau)
            else:
                assert cuts is not None
                for s in range(t, t + i):  # the way from state s + 1 back to state s
                    weight *= 0.0 if cuts[s] else truncate.factor
            g[t] += weight * np.linalg.matrix_power(W.T, i) @ asked[t + i]
    return g


@pytest.mark.parametrize("make", [Sliding, Chunked, lambda tau: Randomized(tau + 1, rng=7)])
@pytest.mark.parametrize("tau", [1, 2, 3, 9, 10, 11, 12, 100])
def test_reference_keeps_the_terms_it_says(make: Any, tau: int) -> None:
    rng = np.random.default_rng(0)
    p = Params.random(2, 4, 3, biases=True, direct=True, rng=rng)
    assert p.W_qx is not None
    x, d_o, h0 = rng.standard_normal((11, 2)), rng.standard_normal((11, 3)), rng.standard_normal(4)
    wrt = [name for name, _ in p.items()] + ["h0", "x"]
    actual = reference.vjp(p, x, d_o, h0, wrt=wrt, truncate=make(tau))
    g = by_definition(make(tau), p.W_hh, d_o @ p.W_qh)
    hidden = np.concatenate([h0[np.newaxis], reference.forward(p, x, h0).hidden])
    full = reference.vjp(p, x, d_o, h0)
    expected = full._replace(
        W_hh=np.sum([np.outer(g[t], hidden[t - 1]) for t in range(1, 12)], axis=0),
        W_hx=np.sum([np.outer(g[t], x[t - 1]) for t in range(1, 12)], axis=0),
        b_h=g[1:].sum(axis=0),
        h0=g[0],
        x=g[1:] @ p.W_hx + d_o @ p.W_qx,
    )
    assert actual.h0 is not None
    if not np.any(g[0]):
        assert not actual.h0.any()
    assert_same(actual, expected, FORMS)


# --- the engine against the reference -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("kind", "radius"), SPECTRA)
@pytest.mark.parametrize("tau", [1, 2, 7, 64, 199, 200, 201, 205])
def test_sliding(tau: int, kind: Any, radius: float, dtype: Scalar) -> None:
    case = build(np.random.default_rng(tau), dtype, (200, 2, 2, 8, 2), radius=radius, kind=kind)
    assert_exact(case, Sliding(tau), radius)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("kind", "radius"), SPECTRA)
@pytest.mark.parametrize("tau", [1, 2, 7, 8, 64, 199, 200, 201])
def test_chunked(tau: int, kind: Any, radius: float, dtype: Scalar) -> None:
    case = build(np.random.default_rng(tau), dtype, (200, 2, 2, 8, 2), radius=radius, kind=kind)
    assert_exact(case, Chunked(tau), radius)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("kind", "radius"), SPECTRA)
@pytest.mark.parametrize("tau", [1.2, 2, 7.5, 40, math.inf])
def test_randomized(tau: float, kind: Any, radius: float, dtype: Scalar) -> None:
    case = build(np.random.default_rng(1), dtype, (200, 2, 2, 8, 2), radius=radius, kind=kind)
    assert_exact(case, Randomized(tau, rng=7), radius)


TRUNCATIONS: tuple[Truncation, ...] = (Sliding(3), Sliding(16), Chunked(3), Chunked(8), Randomized(5, rng=7))


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
@pytest.mark.parametrize("seed", range(12))
def test_random_problems(seed: int, truncate: Truncation) -> None:
    # Losses, weights, lengths, masks, biases, direct terms, and radii up to 1.05.
    case = draw(seed, steps=60)
    assert_exact(case, truncate, 1.05)


@pytest.mark.parametrize("radius", [0.9, 1.3])
@pytest.mark.parametrize("tau", [1, 4, 20])
def test_sequences_of_different_lengths(tau: int, radius: float) -> None:
    rng = np.random.default_rng(2)
    case = build(rng, np.float64, (90, 6, 2, 6, 3), radius=radius)
    lengths = np.array([90, 1, 17, 0, 32, 60])
    case.options["lengths"] = lengths
    case.x[np.arange(90)[:, np.newaxis] >= lengths] = np.nan  # not read
    for truncate in (Sliding(tau), Chunked(tau), Randomized(tau + 1, rng=7)):
        assert_exact(case, truncate, radius)


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_windows_that_save_memory(truncate: Truncation) -> None:
    case = build(np.random.default_rng(3), np.float64, (3000, 1, 2, 4, 2))
    assert_exact(case, truncate, 0.9, memory_limit=60_000)


@pytest.mark.parametrize(("lift", "L"), [(1, 1), (2, 2), (3, 3), (4, 4), (8, 8), (10, 8), (64, 24)])
@pytest.mark.parametrize("window", [0, 1, 3])
def test_blocks_are_cut_on_every_schedule(lift: int, L: int, window: int) -> None:
    case = build(np.random.default_rng(4), np.float64, (100, 3, 2, 5, 2), steps=("lengths",))
    _, expected = reference.oracle(
        case.params, case.x, case.y, wrt=case.wrt, truncate=Chunked(24), **case.options
    )
    dataset = Dataset(case.params, case.x, case.options["h0"], lengths=case.options["lengths"], wrt=case.wrt)
    schedule = {"lift": lift, "window": window, "splits": 2, "piece": 2}
    problem = Problem(dataset, losses.LOSSES["mse"], case.y, Chunked(24), schedule=schedule)
    _, actual = problem.loss_and_gradients(case.params, 2)
    assert problem.posed.used_schedule()["L"] == L
    assert_same(actual, expected, gradient_bound(np.float64, 5, 100, 0.9))


@pytest.mark.parametrize("lift", [1, 2, 3, 4, 8, 0])
@pytest.mark.parametrize(("window", "keep"), [(0, -1), (1, 1), (3, 1), (3, 0)])
@pytest.mark.parametrize(
    ("tau", "radius"),
    [
        (3, 0.5),  # whole sequences
        (6, 1.0),  # blocks longer than a window
        (12, 1.0),  # as long
        (13, 1.4),  # shorter: a window is whole blocks and a rest
        (64, 1.4),  # whole blocks alone
    ],
)
def test_windows_slide_on_every_schedule(tau: int, radius: float, lift: int, window: int, keep: int) -> None:
    rng = np.random.default_rng(19)
    kind: Any = "orthogonal" if radius == 1 else "gaussian"
    case = build(rng, np.float64, (100, 2, 2, 5, 2), radius=radius, kind=kind)
    case.options["lengths"] = np.array([100, 90])
    dataset = Dataset(case.params, case.x, case.options["h0"], lengths=case.options["lengths"], wrt=case.wrt)
    schedule = {"lift": lift, "window": window, "keep_all_states": keep, "splits": 2, "piece": 2}
    problem = Problem(dataset, losses.LOSSES["mse"], case.y, Sliding(tau), schedule=schedule)
    assert_right(problem.loss_and_gradients(case.params, 2)[1], case, Sliding(tau), radius)


def test_nothing_is_taken_away_by_a_power_below_every_rounding() -> None:
    case = build(np.random.default_rng(20), np.float64, (500, 1, 2, 6, 2), radius=0.5)
    _, full = case.engine()
    _, actual = case.engine(truncate=Sliding(400))
    assert full.h0 is not None
    assert actual.h0 is not None
    assert relative_error(actual.h0, full.h0) <= FORMS
    assert_identical(actual._replace(h0=None), full._replace(h0=None))


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("h", [1, 4])
@pytest.mark.parametrize("tau", [1, 7, 40, 41, 64, 84])
def test_the_smallest_powers_are_taken_away(tau: int, h: int, dtype: Scalar) -> None:
    # One of two inputs is 2^90 in the last step before the window of the only loss, and zero in it. All is
    # made of powers of two, of which the difference of two gradients is exact, and W_hh^84 is not negligible.
    shift = np.roll(np.eye(h), 1, axis=0)
    p = Params(np.ones((h, 2), dtype), (shift / 2).astype(dtype), np.ones((1, h), dtype))
    g = np.exp2(np.arange(1 - tau, 1.0))  # each of h components, in the steps of the window
    for before in (1, tau + 9):
        T = before + tau
        x, d_o = np.zeros((T, 2), dtype), np.zeros((T, 1), dtype)
        x[before - 1, 0] = 2.0**90
        x[before:, 1] = 1
        d_o[-1] = 1
        actual = rnnbptt.vjp(p, x, d_o, wrt=["W_hx", "x"], truncate=Sliding(tau))
        assert actual.W_hx is not None
        assert actual.x is not None
        assert not actual.W_hx[:, 0].any()
        np.testing.assert_allclose(actual.W_hx[:, 1], g.sum(), rtol=4 * float(np.finfo(dtype).eps))
        assert not actual.x[:before].any()
        np.testing.assert_array_equal(actual.x[before:], np.repeat(h * g[:, np.newaxis], 2, axis=1))


def test_powers_of_an_orthogonal_matrix_of_some_size() -> None:
    case = build(np.random.default_rng(21), np.float64, (300, 1, 2, 40, 2), radius=1, kind="orthogonal")
    for tau in (2, 75, 250):
        assert_exact(case, Sliding(tau), 1.0)


def test_strongly_nonnormal_powers() -> None:
    # Powers grow to some 1e5 before they decay: the difference of two full gradients would be off by as much.
    rng = np.random.default_rng(5)
    W_hh = 0.6 * np.eye(10) + np.diag(np.full(9, 2.0), 1)
    params = Params(rng.standard_normal((10, 2)), W_hh, rng.standard_normal((2, 10)))
    case = Case(params, rng.standard_normal((120, 2, 2)), rng.standard_normal((120, 2, 2)), {})
    for tau in (1, 3, 10, 50):
        assert_exact(case, Sliding(tau), 0.6)


def test_long_window_of_exploding_states() -> None:
    case = build(np.random.default_rng(6), np.float64, (500, 1, 2, 6, 2), radius=1.2)
    for tau in (1, 30, 400):
        assert_exact(case, Sliding(tau), 1.2)


# --- what holds of all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_windows_beyond_the_ends_are_the_full_gradient(loss: LossName) -> None:
    case = draw(5, loss=loss)
    value, full = case.engine()
    T = len(case.x)
    for truncate in (Sliding(T + 1), Sliding(10**9), Chunked(T), Chunked(10**9), Randomized(math.inf)):
        again, actual = case.engine(truncate=truncate)
        assert again == value
        assert_same(actual, full, FORMS)
    _, most = case.engine(truncate=Sliding(T))
    assert_same(most._replace(h0=None), full._replace(h0=None), FORMS)


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_output_gradients_and_loss_stay_what_they_are(truncate: Truncation) -> None:
    case = build(np.random.default_rng(8), np.float64, (40, 2, 3, 5, 2))
    loss, full = case.engine()
    truncated_loss, truncated = case.engine(truncate=truncate)
    assert truncated_loss == pytest.approx(loss, rel=1e-14)
    for name in ("W_qh", "b_q", "W_qx"):
        assert relative_error(getattr(truncated, name), getattr(full, name)) <= FORMS
    assert relative_error(truncated.W_hh, full.W_hh) > 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_callable_loss_and_vjp(truncate: Truncation) -> None:
    case = build(np.random.default_rng(9), np.float64, (30, 2, 3, 5, 2))
    p, x, y, h0 = case.params, case.x, case.y, case.options["h0"]
    seen = []

    def mean_square(o: Array, y: Array) -> tuple[float, Array]:
        seen.append(2 * (o - y) / o.size)
        return float(np.mean((o - y) ** 2)), seen[-1]

    value, named = case.engine(truncate=same(truncate))
    options = {"h0": h0, "wrt": case.wrt}
    called_value, called = rnnbptt.loss_and_grad(
        p, x, y, loss=mean_square, truncate=same(truncate), **options
    )
    assert called_value == pytest.approx(value, rel=1e-14)
    assert_same(called, named, FORMS)
    assert_same(rnnbptt.vjp(p, x, seen[0], truncate=same(truncate), **options), named, FORMS)
    turned = rnnbptt.vjp(
        p,
        x.swapaxes(0, 1),
        seen[0].swapaxes(0, 1),
        truncate=same(truncate),
        batch_first=True,
        **options,
    )
    assert turned.x is not None
    assert_same(turned._replace(x=turned.x.swapaxes(0, 1)), named, FORMS)


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_objective_and_flat(truncate: Truncation) -> None:
    case = build(np.random.default_rng(10), np.float64, (30, 2, 3, 5, 2), h0=False)
    options = {"loss": "mse", "like": case.params}
    objective = Objective(case.x, case.y, truncate=same(truncate), **options)  # type: ignore[arg-type]
    loss, gradient = objective.flat(case.params.ravel())
    expected_loss, expected = reference.loss_and_grad(case.params, case.x, case.y, truncate=same(truncate))
    assert loss == pytest.approx(expected_loss, rel=1e-14)
    assert relative_error(gradient, expected.ravel()) <= FORMS
    again = objective(case.params)[1].ravel()
    if isinstance(truncate, Randomized):
        assert relative_error(again, gradient) > 1e-3  # drawn anew
    else:
        np.testing.assert_array_equal(again, gradient)


@pytest.mark.parametrize("truncate", [Sliding(5), Chunked(5), Randomized(5, rng=2)], ids=repr)
def test_flat_with_a_fitted_initial_state(truncate: Truncation) -> None:
    rng = np.random.default_rng(3)
    params = Params.random(2, 4, 2, biases=True, rng=rng)
    x, y, h0 = rng.standard_normal((30, 2)), rng.standard_normal((30, 2)), rng.standard_normal(4)
    wrt = [name for name, _ in params.items()] + ["h0"]

    def fresh() -> Truncation:
        return Randomized(5, rng=2) if isinstance(truncate, Randomized) else truncate

    objective = Objective(x, y, like=params, wrt=wrt, truncate=fresh())
    loss, gradient = objective.flat(objective.pack(params, h0))
    expected_loss, expected = rnnbptt.loss_and_grad(params, x, y, h0=h0, wrt=wrt, truncate=fresh())
    assert loss == pytest.approx(expected_loss, rel=FORMS)
    assert expected.h0 is not None
    assert relative_error(gradient, np.concatenate([expected.ravel(), expected.h0])) <= FORMS


def test_second_derivatives_are_of_whole_gradients() -> None:
    params = Params.random(1, 3, 1, rng=0)
    x, theta = np.ones((6, 1)), params.ravel()
    objective = Objective(x, x, like=params, truncate=Chunked(2))
    for method in (objective.residuals, objective.jac, objective.gauss_newton):
        with pytest.raises(ValueError, match="truncate must be None"):
            method(theta)
    with pytest.raises(ValueError, match="truncate must be None"):
        objective.hessp(theta, theta)


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_without_batch_axis(truncate: Truncation) -> None:
    case = build(np.random.default_rng(11), np.float64, (30, 1, 3, 5, 2))
    h0 = case.options["h0"]
    _, batched = case.engine(truncate=same(truncate))
    _, alone = rnnbptt.loss_and_grad(
        case.params, case.x[:, 0], case.y[:, 0], h0=h0[0], wrt=case.wrt, truncate=same(truncate)
    )
    assert alone.x is not None
    assert alone.h0 is not None
    assert_same(alone._replace(x=alone.x[:, np.newaxis], h0=alone.h0[np.newaxis]), batched, 0.0)


@pytest.mark.parametrize("truncate", [*TRUNCATIONS, Sliding(1)], ids=repr)
@pytest.mark.parametrize("radius", [0.9, 1.1])
def test_any_number_of_threads_gives_the_same_bits(truncate: Truncation, radius: float) -> None:
    case = build(np.random.default_rng(12), np.float64, (2000, 2, 3, 12, 2), radius=radius)
    _, one = case.engine(truncate=same(truncate), num_threads=1)
    for threads in (2, 5):
        assert_identical(case.engine(truncate=same(truncate), num_threads=threads)[1], one)


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_not_finite_in_not_finite_out(truncate: Truncation) -> None:
    case = build(np.random.default_rng(13), np.float64, (40, 2, 3, 5, 2))
    case.x[20] = np.inf
    loss, g = case.engine(truncate=truncate)
    assert not np.isfinite(loss)
    assert g.W_hh is not None
    assert not np.isfinite(g.W_hh).all()


@pytest.mark.parametrize("radius", [0.9, 1.0, 1.3])
@pytest.mark.parametrize("tau", [1, 2, 7, 16, 39, 40])
def test_what_is_not_finite_spoils_no_window_before_it(tau: int, radius: float) -> None:
    rng = np.random.default_rng(14)
    for direct in (False, True):
        case = build(rng, np.float64, (40, 2, 3, 5, 2), radius=radius, direct=direct)
        d_o = rng.standard_normal((40, 2, 2))
        d_o[30, 1] = np.nan, 1
        arguments = case.params, case.x, d_o
        actual = rnnbptt.vjp(*arguments, wrt="x", truncate=Sliding(tau)).x
        expected = reference.vjp(*arguments, wrt="x", truncate=Sliding(tau)).x
        assert actual is not None
        assert expected is not None
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(actual), finite)
        assert relative_error(actual[finite], expected[finite]) <= FORMS


@pytest.mark.parametrize("truncate", TRUNCATIONS, ids=repr)
def test_arguments_are_not_written_to(truncate: Truncation) -> None:
    case = build(np.random.default_rng(14), np.float64, (40, 2, 3, 5, 2), steps=("weights", "lengths"))
    given = [case.x, case.y, *(a for _, a in case.params.items())]
    given += [a for a in case.options.values() if isinstance(a, np.ndarray)]
    before = [a.copy() for a in given]
    case.engine(truncate=truncate)
    d_o = case.y.copy()
    rnnbptt.vjp(case.params, case.x, d_o, truncate=truncate)
    np.testing.assert_array_equal(d_o, case.y)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)


# --- randomized ---------------------------------------------------------------------------------------------


def test_randomized_is_unbiased() -> None:
    # The same short problem as 20,000 sequences with cuts of their own: one call draws 20,000 estimates.
    N, T = 20_000, 6
    rng = np.random.default_rng(15)
    params = Params.random(2, 3, 2, biases=True, rng=rng)
    x, d_o, h0 = rng.standard_normal((T, 2)), rng.standard_normal((T, 2)), rng.standard_normal(3)
    full = rnnbptt.vjp(params, x, d_o, h0, wrt=("W_hh", "W_hx", "b_h", "h0", "x"))

    def repeated(a: Array) -> Array:
        return np.broadcast_to(a[..., np.newaxis, :], (*a.shape[:-1], N, a.shape[-1]))

    truncate = Randomized(3, rng=0)
    estimates = rnnbptt.vjp(
        params, repeated(x), repeated(d_o), repeated(h0), wrt=("h0", "x", "W_hh"), truncate=truncate
    )
    assert estimates.h0 is not None
    assert estimates.x is not None
    assert full.h0 is not None
    assert full.x is not None
    # g_t itself, from a network whose inputs are as many as its states: d_x = g.
    direct = Params(np.eye(3), params.W_hh, params.W_qh)
    zeros = np.zeros((T, N, 3))
    g = rnnbptt.vjp(direct, zeros, repeated(d_o), wrt="x", truncate=Randomized(3, rng=1)).x
    assert g is not None
    hidden = np.concatenate([h0[np.newaxis], rnnbptt.forward(params, x, h0).hidden[:-1]])
    for name, samples, expected in (
        ("h0", estimates.h0, full.h0),
        ("x", estimates.x.swapaxes(0, 1), full.x),
        ("W_hh", np.einsum("tnh,tj->nhj", g, hidden), full.W_hh),
        ("W_hx", np.einsum("tnh,td->nhd", g, x), full.W_hx),
        ("b_h", g.sum(axis=0), full.b_h),
    ):
        mean, error = samples.mean(axis=0), samples.std(axis=0, ddof=1) / math.sqrt(N)
        assert np.all(np.abs(mean - expected) <= 4 * error + 1e-12), name
        # In the last step nothing is cut; everywhere else estimates differ.
        assert np.count_nonzero(error) >= 0.8 * error.size
    # The sum over a batch is the sum of its estimates.
    assert estimates.W_hh is not None
    assert full.W_hh is not None
    assert relative_error(estimates.W_hh / N, full.W_hh) < 0.1


def test_randomized_draws_from_its_own_stream() -> None:
    case = build(np.random.default_rng(16), np.float64, (20, 2, 2, 4, 2))
    generator = np.random.default_rng(7)
    first, second = Randomized(4, rng=generator), Randomized(4, rng=7)
    for _ in range(3):
        assert_identical(case.engine(truncate=first)[1], case.engine(truncate=second)[1])
    assert case.engine(truncate=Randomized(4))[1].W_hh is not None
    assert Randomized(4, rng=1).probability == Randomized(probability=0.25, rng=1).probability
    assert Randomized(4, rng=1).cuts(1000, 3).mean() == pytest.approx(0.25, abs=0.03)


def test_one_randomized_object_serves_many_threads() -> None:
    case = build(np.random.default_rng(17), np.float64, (50, 2, 2, 4, 2))
    objective = Objective(case.x, case.y, truncate=Randomized(4, rng=7), h0=case.options["h0"])
    found: list[bytes] = []

    def work() -> None:
        for _ in range(10):
            gradient = objective(case.params)[1].W_hh
            assert gradient is not None
            found.append(gradient.tobytes())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = Objective(case.x, case.y, truncate=Randomized(4, rng=7), h0=case.options["h0"])
    expected = []
    for _ in range(40):
        gradient = alone(case.params)[1].W_hh
        assert gradient is not None
        expected.append(gradient.tobytes())
    assert sorted(found) == sorted(expected)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Sliding, Chunked])
def test_bad_windows(make: Any) -> None:
    with pytest.raises(ValueError, match="tau must be at least 1, not 0"):
        make(0)
    for value in (2.0, True, "3", None):
        with pytest.raises(TypeError, match="tau must be an integer"):
            make(value)
    assert make(np.int64(3)) == make(3)
    assert type(make(np.int64(3)).tau) is int
    with pytest.raises(AttributeError):
        make(3).tau = 4


def test_bad_randomized() -> None:
    for tau_and_probability in ((None, None), (3, 0.1)):
        with pytest.raises(ValueError, match="one of tau and probability"):
            Randomized(tau_and_probability[0], probability=tau_and_probability[1])
    for tau in (1, 0.5, -1, math.nan):
        with pytest.raises(ValueError, match="tau must be above 1"):
            Randomized(tau)
    for probability in (1, -0.1, math.nan):
        with pytest.raises(ValueError, match="probability must be"):
            Randomized(probability=probability)
    for value in ("3", True, 1j):
        with pytest.raises(TypeError, match="tau must be a real number"):
            Randomized(value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng must be a Generator, an integer or None"):
        Randomized(3, rng="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rng must be at least 0"):
        Randomized(3, rng=-1)


def test_bad_truncate() -> None:
    case = build(np.random.default_rng(18), np.float64, (5, 2, 2, 3, 2))
    p, x, y = case.params, case.x, case.y
    for value in (3, "sliding", Sliding):
        for call in (
            lambda v: rnnbptt.loss_and_grad(p, x, y, truncate=v),
            lambda v: rnnbptt.vjp(p, x, y, truncate=v),
            lambda v: Objective(x, y, truncate=v),
            lambda v: reference.loss_and_grad(p, x, y, truncate=v),
            lambda v: reference.vjp(p, x, y, truncate=v),
        ):
            with pytest.raises(TypeError, match="truncate must be Sliding"):
                call(value)
    for module in (rnnbptt, reference):
        with pytest.raises(ValueError, match="d_hT must be None when"):
            module.vjp(p, x, y, d_hT=np.zeros((2, 3)), truncate=Sliding(2))
    with pytest.raises(ValueError, match="method must be 'recursion'"):
        reference.loss_and_grad(p, x, y, method="closed_form", truncate=Sliding(2))
