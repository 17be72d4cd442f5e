"""What a `LinearRNNRegressor` was constructed with, checked."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from .. import _validate
from ..engine.params import Params
from .network import PREDICT_FROM, SCORE_FROM
from .starts import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable

SOLVERS = ("lm", "lbfgs")
#: All starts are kept until the last has ended.
MOST_STARTS = 10_000


@dataclass(frozen=True)
class Settings:
    """The parameters of `LinearRNNRegressor`, where they are described, except for `starts`.

    Attributes
    ----------
    starts : tuple of str or Params
        The kind of every start, or the parameters it starts from: as many as `n_starts`.
    """

    n_hidden: int
    solver: str
    starts: tuple[str | Params, ...]
    direct: bool
    biases: bool
    fit_h0: bool
    standardize: bool
    ridge: float
    max_spectral_radius: float | None
    stable: bool
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    max_iter: int
    tol: float
    n_jobs: int | None
    verbose: int

    @property
    def bound(self) -> float | None:
        """Largest modulus of an eigenvalue that is allowed."""
        return 1.0 if self.stable and self.max_spectral_radius is None else self.max_spectral_radius

    @property
    def terms(self) -> dict[str, bool]:
        """Which optional parameters are fitted."""
        return {"biases": self.biases, "direct": self.direct}

    def starting_from(self, convert: Callable[[Params], Params]) -> Settings:
        """Return the same settings with other parameters to start from."""
        starts = tuple(convert(start) if isinstance(start, Params) else start for start in self.starts)
        return replace(self, starts=starts)

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
        for name in ("direct", "biases", "fit_h0", "standardize", "early_stopping", "stable"):
            values[name] = _validate.boolean(name, getattr(regressor, name))
        for name in ("ridge", "tol", "validation_fraction"):
            values[name] = _validate.nonnegative(name, getattr(regressor, name))
        _validate.choice("predict_from", regressor.predict_from, PREDICT_FROM)
        _validate.choice("score_from", regressor.score_from, SCORE_FROM)
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


def _kinds_of_starts(starts: Any, count: int) -> tuple[str | Params, ...]:
    """Return the kinds of `count` starts: those given, in turn."""
    try:
        given = [starts] if isinstance(starts, str | Params) else list(starts)
    except TypeError:
        came = _validate.describe(starts)
        expected = "a kind of start, Params or a sequence of them"
        raise TypeError(f"starts must be {expected}, not {came}") from None
    for kind in given:
        if not isinstance(kind, Params):
            _validate.choice("starts", kind, KINDS)
    if not given:
        raise ValueError("starts must name at least one kind of start")
    # There is one subspace start only, and one from given parameters; the others differ each time.
    repeated = [kind for kind in given if isinstance(kind, str) and kind != "subspace"]
    return tuple([*given, *islice(cycle(repeated), max(0, count - len(given)))][:count])
