"""What a `LinearRNNRegressor` was constructed with, checked."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from .. import _validate
from .starts import KINDS

SOLVERS = ("lm", "lbfgs")
#: All starts are kept until the last has ended.
MOST_STARTS = 10_000


@dataclass(frozen=True)
class Settings:
    """The parameters of `LinearRNNRegressor`, where they are described, except for `starts`.

    Attributes
    ----------
    starts : tuple of str
        The kind of every start: as many as `n_starts`.
    """

    n_hidden: int
    solver: str
    starts: tuple[str, ...]
    direct: bool
    biases: bool
    fit_h0: bool
    standardize: bool
    ridge: float
    max_spectral_radius: float | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    max_iter: int
    tol: float
    n_jobs: int | None
    verbose: int

    @classmethod
    def of(cls, regressor: Any) -> Settings:
        """Check every parameter of a regressor."""
        values: dict[str, Any] = {}
        for name in ("n_hidden", "n_starts", "n_iter_no_change", "max_iter"):
            values[name] = _validate.size(name, getattr(regressor, name))
        if values["n_starts"] > MOST_STARTS:
            raise ValueError(
                f"n_starts must be at most {MOST_STARTS}, not {values['n_starts']}: all are kept"
            )
        for name in ("direct", "biases", "fit_h0", "standardize", "early_stopping"):
            values[name] = _validate.boolean(name, getattr(regressor, name))
        for name in ("ridge", "tol", "validation_fraction"):
            values[name] = _validate.nonnegative(name, getattr(regressor, name))
        values["solver"] = _validate.choice("solver", regressor.solver, SOLVERS)
        radius = regressor.max_spectral_radius
        if radius is not None:
            radius = _validate.nonnegative("max_spectral_radius", radius)
        fraction = regressor.validation_fraction
        if not 0 < fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, not {fraction}")
        n_jobs = regressor.n_jobs
        if n_jobs is not None:
            n_jobs = _validate.integer("n_jobs", n_jobs, -sys.maxsize)
        verbose = regressor.verbose
        if not isinstance(verbose, bool):
            verbose = _validate.integer("verbose", verbose, 0)
        starts = _kinds_of_starts(regressor.starts, values.pop("n_starts"))
        return cls(
            **values,
            starts=starts,
            max_spectral_radius=radius,
            n_jobs=n_jobs,
            verbose=int(verbose),
        )


def _kinds_of_starts(starts: Any, count: int) -> tuple[str, ...]:
    """Return the kinds of `count` starts: those given, in turn."""
    try:
        given = [starts] if isinstance(starts, str) else list(starts)
    except TypeError:
        came = _validate.describe(starts)
        raise TypeError(f"starts must be a kind of start or a sequence of them, not {came}") from None
    for kind in given:
        _validate.choice("starts", kind, KINDS)
    if not given:
        raise ValueError("starts must name at least one kind of start")
    # There is one subspace start only; the others differ each time.
    repeated = [kind for kind in given if kind != "subspace"]
    return tuple([*given, *islice(cycle(repeated), count)][:count])
