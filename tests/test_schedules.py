"""Every schedule gives the same gradients; the number of threads does not change a bit of them."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, Array, Case, Scalar, assert_identical, build
from rnnbptt import _core
from rnnbptt.engine import losses
from rnnbptt.engine.dataset import Backflow, Dataset
from rnnbptt.engine.params import Gradients, Params
from rnnbptt.engine.trajectories import step_by_step
from rnnbptt.gradients.problem import Problem
from speed import thinned
from tolerances import gradient_bound, relative_error, sequential_bound

LIFTS = (1, 2, 3, 4, 8, 13, 16, 22, 32, 63, 64)
WINDOWS = (0, 1, 2, 5)
SPLITS = (0, 1, 3)
PIECES = (-1, 0, 1, 2, 17)
THREADS = (1, 2, 3, 4, 8)
T = 150


def gaussian(rng: np.random.Generator, h: int, radius: float) -> Array:
    W = rng.standard_normal((h, h))
    result: Array = W * (radius / np.abs(np.linalg.eigvals(W)).max())
    return result


def orthogonal(rng: np.random.Generator, h: int, radius: float) -> Array:
    return radius * np.linalg.qr(rng.standard_normal((h, h)))[0]


def identity(rng: np.random.Generator, h: int, radius: float) -> Array:
    return radius * np.eye(h)


def non_normal(rng: np.random.Generator, h: int, radius: float) -> Array:
    """Eigenvalues small, powers large for a while: a triangle with a heavy upper part."""
    W: Array = np.triu(rng.standard_normal((h, h)), 1)
    np.fill_diagonal(W, radius * rng.choice([-1.0, 1.0], h))
    return W


def defective(rng: np.random.Generator, h: int, radius: float) -> Array:
    """One Jordan block: a single eigenvector."""
    return radius * np.eye(h) + np.eye(h, k=1)


MATRICES = {
    "gaussian 0.9": (gaussian, 0.9),
    "gaussian 1.05": (gaussian, 1.05),
    "orthogonal 1": (orthogonal, 1.0),
    "identity 1": (identity, 1.0),
    "identity 1.05": (identity, 1.05),
    "non-normal 0.5": (non_normal, 0.5),
    "non-normal 0.9": (non_normal, 0.9),
    "defective 0.5": (defective, 0.5),
    "defective 0.95": (defective, 0.95),
    "zero": (identity, 0.0),
}


@cache
def posed(matrix: str, double: bool, ragged: bool) -> tuple[Case, Gradients, Gradients]:
    """Return a problem, its exact gradients, and those of the recursion step by step."""
    family, radius = MATRICES[matrix]
    dtype: Scalar = np.float64 if double else np.float32
    rng = np.random.default_rng(len(matrix))
    d, h, q = 2, 6, 3
    sizes = (T, 5, d, h, q) if ragged else (T, 1, d, h, q)
    case = build(rng, dtype, sizes, steps=STEP_OPTIONS if ragged else ())
    own = dict(case.params.items())
    W_hh = family(rng, h, radius)
    case = case._replace(params=Params(**(own | {"W_hh": W_hh.astype(dtype)})))
    return case, case.oracle()[1], case.sequential()[1]


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("ragged", [False, True], ids=["single", "ragged"])
@pytest.mark.parametrize(("matrix", "lift"), thinned(product(MATRICES, LIFTS), 5))
def test_every_schedule(matrix: str, lift: int, ragged: bool, dtype: Scalar) -> None:
    case, exact, sequential = posed(matrix, dtype is np.float64, ragged)
    bound = gradient_bound(dtype, case.params.shape[1], T, MATRICES[matrix][1])
    worse = []
    for number, (window, splits, piece) in enumerate(product(WINDOWS, SPLITS, PIECES)):
        schedule = {
            "lift": lift,
            "window": window,
            "splits": splits,
            "piece": piece,
            "keep_all_states": number % 2,
        }
        _, actual = case.scheduled(**schedule)
        for name, gradient in actual.items():
            expected = getattr(exact, name)
            own = relative_error(getattr(sequential, name), expected)
            error = relative_error(gradient, expected)
            # Where the recursion step by step keeps the bound, so must every schedule.
            if not error <= sequential_bound(dtype, own) or (own <= bound and not error <= bound):
                worse.append((schedule, name, error, bound, own))
    assert worse == []


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_schedule_with_every_loss_and_term(loss: Any, dtype: Scalar) -> None:
    rng = np.random.default_rng(5)
    for biases, direct, h0 in product((False, True), repeat=3):
        case = build(
            rng, dtype, (37, 4, 3, 5, 2), loss=loss, biases=biases, direct=direct, h0=h0, steps=STEP_OPTIONS
        )
        exact_loss, exact = case.oracle()
        bound = gradient_bound(dtype, 5, 37, 0.9)
        for lift, (window, keep), piece in product(
            (1, 2, 3, 4, 8, 16, 32, 64), ((0, 1), (1, 0), (1, 1), (3, 0), (3, 1)), (0, 4)
        ):
            value, actual = case.scheduled(lift=lift, window=window, piece=piece, keep_all_states=keep)
            assert abs(value - exact_loss) <= bound * max(1.0, abs(exact_loss))
            for name, gradient in actual.items():
                assert relative_error(gradient, getattr(exact, name)) <= bound, (name, lift, window, piece)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("wrt", ["W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "h0", "x"])
def test_a_gradient_alone_is_the_one_among_all(wrt: str, dtype: Scalar) -> None:
    case = build(np.random.default_rng(6), dtype, (70, 3, 2, 5, 2), steps=("lengths",))
    for lift, window in product((1, 2, 7, 8), (0, 4)):
        loss, all_of_them = case.scheduled(lift=lift, window=window, piece=0)
        alone = case._replace(options=case.options)
        dataset = Dataset(
            alone.params, alone.x, alone.options["h0"], lengths=alone.options["lengths"], wrt=(wrt,)
        )
        schedule = {"lift": lift, "window": window, "piece": 0}
        problem = Problem(dataset, losses.LOSSES["mse"], alone.y, schedule=schedule)
        for _, array in all_of_them.items():
            np.full_like(array, np.nan)  # what new arrays may find in their memory
        value, actual = problem.loss_and_gradients(alone.params, 1)
        assert value == loss
        assert [name for name, _ in actual.items()] == [wrt]
        expected = getattr(all_of_them, wrt)
        assert relative_error(getattr(actual, wrt), expected) <= gradient_bound(dtype, 5, 70, 0.9)


# --- threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(
    "sizes", [(3000, 1, 3, 20, 2), (1000, 9, 2, 33, 3), (40, 200, 5, 17, 4), (1, 1, 1, 1, 1)]
)
def test_no_bit_depends_on_the_number_of_threads(
    sizes: tuple[int, int, int, int, int], dtype: Scalar
) -> None:
    case = build(np.random.default_rng(7), dtype, sizes, steps=("weights", "lengths"))
    expected_loss, expected = case.engine(num_threads=1)
    expected_states = rnnbptt.forward(case.params, case.x, case.options["h0"], num_threads=1)
    expected_scan = rnnbptt.linear_scan(case.params.W_hh, expected_states.hidden, num_threads=1)
    for threads in THREADS[1:]:
        loss, actual = case.engine(num_threads=threads)
        assert loss == expected_loss
        assert_identical(actual, expected)
        states = rnnbptt.forward(case.params, case.x, case.options["h0"], num_threads=threads)
        for a, e in zip(states, expected_states, strict=True):
            assert a.tobytes() == e.tobytes()
        scan = rnnbptt.linear_scan(case.params.W_hh, expected_states.hidden, num_threads=threads)
        assert scan.tobytes() == expected_scan.tobytes()


@pytest.mark.parametrize("dtype", SCALARS)
def test_no_bit_depends_on_the_number_of_threads_on_any_schedule(dtype: Scalar) -> None:
    case = build(np.random.default_rng(8), dtype, (400, 3, 2, 11, 2), steps=("lengths",))
    windows = ((0, 1), (2, 0), (2, 1), (9, 1))
    for lift, (window, keep), splits, piece in product(LIFTS, windows, (1, 4), (0, 5)):
        schedule = {"lift": lift, "window": window, "splits": splits, "piece": piece, "keep_all_states": keep}
        loss, expected = case.scheduled(1, **schedule)
        for threads in THREADS[1:]:
            value, actual = case.scheduled(threads, **schedule)
            assert value == loss
            assert_identical(actual, expected)


def test_threads_gather_inputs_beside_each_other() -> None:
    # Rows of some fifty and of twenty-five inputs, between one panel of a kernel and two: a sanitizer of
    # threads sees it when a product reads on into rows that another thread is writing.
    for dtype, sizes in ((np.float32, (3000, 2, 11, 5, 3)), (np.float64, (3000, 2, 5, 5, 3))):
        case = build(np.random.default_rng(10), dtype, sizes)
        for window, keep in ((0, 1), (40, 0), (40, 1)):
            schedule = {"lift": 5, "window": window, "splits": 4, "keep_all_states": keep}
            assert_identical(case.scheduled(4, **schedule)[1], case.scheduled(1, **schedule)[1])


def test_no_bit_changes_from_call_to_call() -> None:
    case = build(np.random.default_rng(9), np.float64, (500, 2, 3, 16, 2))
    objective = rnnbptt.Objective(case.x, case.y, like=case.params, num_threads=2, **case.options)
    loss, expected = objective(case.params)
    for _ in range(100):
        value, actual = objective(case.params)
        assert value == loss
        assert_identical(actual, expected)


def test_explain_takes_data_in_every_layout() -> None:
    params = Params.random(2, 16, 3, rng=0)
    x = np.zeros((400, 3, 2))
    told = rnnbptt.explain(params, x)
    assert rnnbptt.explain(params, x.swapaxes(0, 1), batch_first=True) == told
    assert rnnbptt.explain(params, x.tolist()) == told
    assert rnnbptt.explain(params, x[:, 0]).steps_per_chunk > 1


def test_lifts_and_pieces_keep_the_digits_of_the_recursion_over_a_long_time() -> None:
    # An error of W_hh^L does the same at every chunk: 20,000 steps later it would be a hundred roundings.
    params = Params.random(2, 16, 2, spectral_radius=1, kind="orthogonal", rng=0)
    x, y = np.random.default_rng(0).standard_normal((2, 20_000, 1, 2))

    def gradients(**schedule: int) -> Gradients:
        problem = Problem(Dataset(params, x), losses.LOSSES["mse"], y, schedule=schedule)
        return problem.loss_and_gradients(params, 1)[1]

    expected = gradients(lift=1, piece=0)
    for schedule in ({"lift": 64}, {"lift": 16}, {"lift": 1, "piece": 65}):
        for name, gradient in gradients(**schedule).items():
            assert relative_error(gradient, getattr(expected, name)) < 8e-14, (schedule, name)
    W = Params.random(1, 20, 1, spectral_radius=1, kind="orthogonal", rng=0).W_hh
    v = np.random.default_rng(0).standard_normal((20_000, 1, 20))
    in_pieces, by_steps = rnnbptt.linear_scan(W, v), step_by_step(W, v, np.zeros((1, 20)), 1)
    assert 0 < relative_error(in_pieces, by_steps) < 5e-14


@pytest.mark.parametrize("radius", [1.5, 3.0, 6.0, 10.0])
def test_no_lift_magnifies_roundings(radius: float) -> None:
    params = Params.random(2, 16, 3, spectral_radius=radius, kind="orthogonal", rng=0)
    told = rnnbptt.explain(params, np.zeros((10_000, 2)))
    assert rnnbptt.power_norms(params.W_hh, told.steps_per_chunk) < np.log2(1e4)


def test_a_scan_whose_powers_grow_too_large_goes_step_by_step() -> None:
    W = Params.random(1, 12, 1, spectral_radius=1.5, kind="orthogonal", rng=0).W_hh
    v, s0 = np.random.default_rng(1).standard_normal((600, 1, 12)), np.zeros((1, 12))
    states = np.empty_like(v)
    _core.linear_scan64(v.shape, W, v, s0, False, False, states, 33, 1)
    assert states.tobytes() == step_by_step(W, v, s0, 1).tobytes()


@pytest.mark.parametrize("T", [400, 403])
def test_explain_counts_every_chunk(T: int) -> None:
    told = rnnbptt.explain(Params.random(2, 16, 3, rng=0), np.zeros((T, 2)))
    assert told.steps_per_chunk > 1
    assert (told.chunks - 1) * told.steps_per_chunk < T <= told.chunks * told.steps_per_chunk


def test_what_is_prescribed_is_taken() -> None:
    params = Params.random(2, 16, 3, rng=0)
    x, y = np.zeros((4000, 1, 2)), np.zeros((4000, 1, 3))
    dataset = Dataset(params, x)
    for prescribed in (
        {"lift": 4, "window": 40, "splits": 3, "piece": 17, "keep_all_states": 1},
        {"lift": 1, "window": 4000, "splits": 1, "piece": 17, "keep_all_states": 0},
        {"lift": 1, "window": 4000, "splits": 1, "piece": 0, "keep_all_states": 1},
    ):
        problem = Problem(dataset, losses.LOSSES["mse"], y, schedule=prescribed)
        problem.loss_and_gradients(params, 1)
        taken = problem.posed.used_schedule()
        lift = prescribed.pop("lift")
        assert taken["L"] == lift
        assert {name: taken[name] for name in prescribed} == prescribed


def test_a_call_keeps_to_its_limit_of_memory_or_says_so() -> None:
    params = Params.random(2, 16, 3, rng=0)
    x = np.zeros((4000, 8, 2))
    refused = 0
    for bits in range(10, 26):
        try:
            told = rnnbptt.explain(params, x, memory_limit=2**bits)
        except MemoryError:
            refused += 1
        else:
            assert told.workspace_bytes <= 2**bits
    assert 0 < refused < 16


@pytest.mark.parametrize("lift", [1, 2, 7, 16])
def test_states_on_any_schedule_and_number_of_threads(lift: int) -> None:
    params = Params.random(3, 16, 2, biases=True, direct=True, rng=0)
    x = np.random.default_rng(1).standard_normal((3001, 2, 3))
    exact = rnnbptt.reference.forward(params, x)
    dataset = Dataset(params, x)
    posed = dataset.pose(None, None, Backflow(), "states", lift=lift, splits=4)
    for threads in (1, 2, 2):
        o, hidden = dataset.result("o", 2), dataset.result("hidden", 16)
        posed.outputs(params._arrays, o, hidden, None, threads)
        np.testing.assert_allclose(hidden, exact.hidden, rtol=0, atol=1e-12)
        np.testing.assert_allclose(o, exact.o, rtol=0, atol=1e-12)
