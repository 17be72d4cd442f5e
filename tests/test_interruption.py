"""Long work ends soon after Ctrl-C, LAPACK's too; what would take hours, or no memory holds, is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from response import ANSWER_TO_CTRL_C, answer_to_ctrl_c
from rnnbptt import Objective, Params
from speed import slow

rng = np.random.default_rng(0)
params = Params.random(2, 32, 2, rng=0)
x = rng.standard_normal((300_000, 2))
tall = rng.standard_normal((200_000, 4))
broad = rng.standard_normal((20_000, 6))
exploding = Params.random(1, 8, 1, rng=0, spectral_radius=1.5)
small = Params.random(1, 4, 1, rng=0)
ones = np.ones((50, 1))


def regressor(**settings: Any) -> Any:
    fit = pytest.importorskip("rnnbptt.fit", exc_type=ImportError)
    return fit.LinearRNNRegressor(**settings)


def singular_values() -> Any:
    W = Params.random(1, 400, 1, rng=0).W_hh
    return lambda: rnnbptt.power_norms(W, np.arange(2000))


def spectrum() -> Any:
    W = Params.random(1, 300, 1, rng=0).W_hh
    return lambda: rnnbptt.spectral_report(W)


def again_and_again(call: Callable[[], Any]) -> None:
    """Call until interrupted: a fast machine may be done before the signal."""
    while True:
        call()


#: What makes a call that lasts for about as long as the delays below, or longer.
LONG: dict[str, Callable[[], Callable[[], Any]]] = {
    "power_norms": singular_values,
    "spectral_report": spectrum,
    "gradient_flow": lambda: lambda: rnnbptt.gradient_flow(exploding, tall[:, :1], tall[:, :1], lags=50_000),
    "truncation_report": lambda: lambda: rnnbptt.truncation_report(params, x, x, lags=20_000),
    "draws": lambda: lambda: rnnbptt.truncation_report(params, x[:2000], x[:2000], draws=10_000),
    "subspace": lambda: lambda: regressor(n_hidden=20, n_starts=1).fit(broad, broad),
    "long experiment": lambda: lambda: regressor(n_hidden=20, solver="lbfgs").fit(tall, tall),
}


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals are for main")
@pytest.mark.parametrize("delay", [0.1, pytest.param(0.3, marks=slow), pytest.param(0.8, marks=slow)])
@pytest.mark.parametrize("name", LONG)
def test_ctrl_c(name: str, delay: float) -> None:
    call = LONG[name]()
    if name in ("subspace", "long experiment"):
        regressor()  # imported before the clock starts, or not installed
    # On a busy machine threads of BLAS wait for one another many times as long as they work.
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    with limits(1, user_api="blas"):
        assert answer_to_ctrl_c(lambda: again_and_again(call), delay) < ANSWER_TO_CTRL_C
    assert np.isfinite(rnnbptt.loss_and_grad(small, ones, ones)[0])


def test_norms_are_those_of_single_matrices() -> None:
    W = Params.random(1, 40, 1, rng=1).W_hh
    ks = np.arange(200)  # more than are decomposed at a time
    one_by_one = [float(rnnbptt.power_norms(W, k)) for k in ks]
    np.testing.assert_allclose(rnnbptt.power_norms(W, ks), one_by_one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("targets", [(), (3,)])
@pytest.mark.parametrize("rank", [5, 3])
def test_least_squares_in_blocks(
    monkeypatch: pytest.MonkeyPatch, targets: tuple[int, ...], rank: int
) -> None:
    blocks = pytest.importorskip("rnnbptt.fit.blocks", exc_type=ImportError)
    A = rng.standard_normal((100, rank)) @ rng.standard_normal((rank, 5))
    b = rng.standard_normal((100, *targets))
    expected = np.linalg.lstsq(A, b, rcond=None)[0]
    for at_once in (2**26, 1, 1000):
        monkeypatch.setattr(blocks, "_AT_ONCE", at_once)
        np.testing.assert_allclose(blocks.least_squares(A, b), expected, rtol=1e-10, atol=1e-12)
        singular = np.linalg.svd(blocks.triangle(A), compute_uv=False)
        np.testing.assert_allclose(singular, np.linalg.svd(A, compute_uv=False), rtol=1e-10, atol=1e-12)


# --- what is refused ----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "draws": (
        lambda: rnnbptt.truncation_report(small, ones, ones, draws=2**32),
        ValueError,
        r"draws must be at most \d+ for this problem, not 4294967296: about \d+\.\d hours of work",
    ),
    "n": (lambda: rnnbptt.matrix_powers(small.W_hh, 2**40), MemoryError, r"cannot allocate \d+ bytes"),
    "n of the reference": (
        lambda: rnnbptt.reference.matrix_powers(small.W_hh, 2**62),
        MemoryError,
        r"cannot allocate \d+ bytes for powers",
    ),
    "n_starts": (
        lambda: regressor(n_starts=2**40).fit(ones, ones[:, 0]),
        ValueError,
        r"n_starts must be at most 10000, not 1099511627776",
    ),
    "n_hidden": (
        lambda: regressor(n_hidden=20_000).fit(ones, ones[:, 0]),
        MemoryError,
        r"cannot allocate \d+ bytes for the Gauss-Newton matrix of solver='lm'",
    ),
    "steps": (
        lambda: regressor(n_hidden=1, n_starts=1).fit(x[:50], x[:50, 0]).forecast(2**62),
        MemoryError,
        r"cannot allocate \d+ bytes for X_future",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_counts_that_ask_for_too_much_are_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_draws_that_take_less_than_an_hour_are_not_refused() -> None:
    assert rnnbptt.truncation_report(small, ones, ones, draws=300).draws == 300
    assert rnnbptt.truncation_report(small, ones, ones, lags=1, draws=2**32).draws == 2**32  # none is needed


def test_as_many_jobs_as_there_is_work_for() -> None:
    model = regressor(n_hidden=1, n_starts=1, n_jobs=2**30).fit(x[:50], x[:50, 0])
    assert len(model.starts_) == 1


# --- memory of problems that live ---------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the system does not tell")
def test_200_objectives_share_their_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    data = rng.standard_normal((20_000, 2))
    like = Params.random(2, 16, 2, rng=0)
    theta = like.ravel()

    def used() -> Objective:
        objective = Objective(data, data, like=like)
        objective.flat(theta)
        objective.hessp(theta, theta)
        return objective

    living = [used()]
    before = resident()
    living += [used() for _ in range(200)]
    assert resident() - before < 30e6
    assert len(living) == 201
