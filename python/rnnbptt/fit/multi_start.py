"""Several descents from starts of their own, side by side, of which the best is kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from threadpoolctl import threadpool_limits

from .._extras import need
from .descent import Fitted, descend
from .normal_equations import check_memory
from .problem import Problem, largest_eigenvalue
from .starts import draw

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..engine.params import Params
    from .experiments import Experiments
    from .settings import Settings

#: Weights below which threads of BLAS cost more than they save, many times over on a busy machine.
BLAS_THREADS_FROM = 500


class StartSummary(NamedTuple):
    """How the descent from one start went.

    Attributes
    ----------
    kind : str
        Kind of the start: "random" stands in for "subspace" where the data do not suffice for it, "given" are
        parameters of the caller's.
    loss : float
        Loss it ended with, penalties included.
    validation_loss : float or None
        Mean squared error of the held-out targets, with early stopping.
    n_iter : int
    n_evaluations : int
        Evaluations of the loss.
    spectral_radius : float
        Of the ``W_hh`` it ended with.
    converged : bool
        Whether it ended because there was nothing left to gain, not at `max_iter` or by early stopping.
    """

    kind: str
    loss: float
    validation_loss: float | None
    n_iter: int
    n_evaluations: int
    spectral_radius: float
    converged: bool


def search(data: Experiments, settings: Settings, source: np.random.RandomState) -> list[Fitted]:
    """Descend from every start; return what each led to, in the order they were drawn.

    Parameters
    ----------
    data : Experiments
    settings : Settings
    source : numpy.random.RandomState
        Of the random starts.
    """
    if settings.solver == "lm":
        check_memory(*_parameters(data, settings))
    kinds = settings.starts
    seeds = source.randint(np.iinfo(np.int32).max, size=len(kinds))
    n_jobs = settings.n_jobs
    if n_jobs is not None and n_jobs > 1:
        # joblib would start as many processes as it is asked for.
        n_jobs = min(n_jobs, len(kinds), effective_n_jobs(-1))
    num_threads = None if effective_n_jobs(n_jobs) == 1 else 1
    jobs = (
        delayed(_one_start)(settings, data, kind, int(seed), num_threads)
        for kind, seed in zip(kinds, seeds, strict=True)
    )
    results = Parallel(n_jobs=n_jobs, return_as="generator")(jobs)
    return list(_with_progress(results, len(kinds)) if settings.verbose else results)


def best_of(results: list[Fitted]) -> int:
    """Return the index of the result with the best score."""
    scores = [result.score for result in results]
    best = int(np.argmin(scores))
    if not math.isfinite(scores[best]):
        raise ValueError("X and y must be of a size whose squares are finite: no start has a finite loss")
    return best


def summary_of(result: Fitted) -> StartSummary:
    """Return what `LinearRNNRegressor.starts_` tells about a start."""
    descent = result.descent
    return StartSummary(
        result.kind,
        descent.loss,
        result.validation_loss,
        descent.n_iter,
        descent.n_evaluations,
        largest_eigenvalue(result.params.W_hh),
        descent.converged,
    )


def _parameters(data: Experiments, settings: Settings) -> tuple[tuple[int, int], tuple[int], tuple[int, int]]:
    """Return how many numbers are fitted: of every output, of the states, of every experiment."""
    (B, d), q, h = data.x.shape[1:], data.y.shape[2], settings.n_hidden
    outputs = h + settings.biases + settings.direct * d
    return (q, outputs), (h * (d + h + settings.biases),), (B, settings.fit_h0 * h)


def _one_start(
    settings: Settings, data: Experiments, kind: str | Params, seed: int, num_threads: int | None
) -> Fitted:
    """Draw a start and descend from it."""
    size = settings.n_hidden * (data.x.shape[2] + settings.n_hidden + data.y.shape[2])
    with threadpool_limits(1 if size < BLAS_THREADS_FROM else num_threads, user_api="blas"):
        start = draw(
            kind,
            data,
            settings.n_hidden,
            biases=settings.biases,
            direct=settings.direct,
            fit_h0=settings.fit_h0,
            max_spectral_radius=settings.bound,
            rng=np.random.default_rng(seed),
        )
        problem = Problem(
            start.params,
            data,
            ridge=settings.ridge,
            max_spectral_radius=settings.max_spectral_radius,
            fit_h0=settings.fit_h0,
            num_threads=num_threads,
        )
        return descend(
            problem,
            start,
            solver=settings.solver,
            max_iter=settings.max_iter,
            tol=settings.tol,
            patience=settings.n_iter_no_change if settings.early_stopping else None,
            stable=settings.stable,
        )


def _with_progress(results: Iterable[Fitted], total: int) -> Iterable[Fitted]:
    need("verbose", "fit", "tqdm.auto")
    from tqdm.auto import tqdm

    bar: Iterable[Fitted] = tqdm(results, total=total, desc="starts", unit="start")
    return bar
