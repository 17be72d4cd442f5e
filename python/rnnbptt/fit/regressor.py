"""A linear RNN with scikit-learn's interface."""

from __future__ import annotations

import math
import sys
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from .. import _validate
from ..engine.trajectories import forward
from ..reports.spectrum import spectral_report
from . import starts as kinds_of_starts
from .descent import Fitted, descend
from .experiments import Experiments, Units, concatenated, experiment_lengths, padded
from .problem import Problem, largest_eigenvalue
from .state_space import StateSpace, from_state_space, to_state_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from ..reports.spectrum import SpectralReport
    from .experiments import Real

SOLVERS = ("lm", "lbfgs")

#: Weights below which threads of BLAS cost more than they save, many times over on a busy machine.
BLAS_THREADS_FROM = 500


class StartSummary(NamedTuple):
    """How the descent from one start went.

    Attributes
    ----------
    kind : str
        Kind of the start: "random" stands in for "subspace" where the data do not suffice for it.
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


class LinearRNNRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    r"""Linear RNN, or linear state-space model, fitted to one or several sequences.

    .. math::

        h_t = W_{hh} h_{t-1} + W_{hx} x_t + b_h, \qquad o_t = W_{qh} h_t + W_{qx} x_t + b_q

    The rows of ``X`` are the steps of a sequence, in order; a NaN in ``y`` is a missing target. The loss is
    the mean squared error over the targets that are known, of the whole simulation from the initial state on:
    predictions never see targets.

    Parameters
    ----------
    n_hidden : int
        h, the size of the state.
    solver : {"lm", "lbfgs"}
        Levenberg and Marquardt's method with the exact Jacobian, or L-BFGS with the exact gradient. The
        former needs far fewer steps and finds better minima; the latter is for networks of thousands of
        parameters, whose Gauss-Newton matrix is too large.
    n_starts : int
        Starts of the descent, of which the best is kept.
    starts : str or sequence of {"subspace", "random", "orthogonal"}
        Kinds of starts, taken in turn: a network identified from block Hankel matrices of the data (once,
        as there is only one), small random weights with a short memory, or an orthogonal ``W_hh``, scaled
        to a spectral radius of 0.9.
    direct : bool
        Whether to fit the direct term ``W_qx``.
    biases : bool
        Whether to fit ``b_h`` and ``b_q``.
    fit_h0 : bool
        Whether to fit the initial state of every experiment; zero otherwise.
    standardize : bool
        Whether to fit in units of the columns' standard deviations, about their means (about zero without
        biases). Each target then counts alike. What was fitted is given in the units of the data, except
        for losses.
    ridge : float
        Weight of the squared norm of all weights and biases, in the units of the fit.
    max_spectral_radius : float, optional
        Bound on the spectral radius of ``W_hh``: one below 1 makes the network stable. Eigenvalues beyond
        are penalised by their squared distance; if any is left beyond at the end, it is moved onto the bound.
    early_stopping : bool
        Whether to keep the last part of every experiment from the loss, to keep the network with the least
        error on it, and to choose among starts by it.
    validation_fraction : float
        The part kept from the loss by `early_stopping`.
    n_iter_no_change : int
        Steps without a lesser error on that part after which `early_stopping` stops.
    max_iter : int
        Most steps of each start.
    tol : float
        A descent ends when ten steps together lower the loss by less than this part of it.
    random_state : int, numpy.random.RandomState or None
        Source of the random starts.
    n_jobs : int, optional
        Starts that run side by side, as in joblib. No result depends on it.
    verbose : int
        Whether to show a progress bar, which needs tqdm.

    Attributes
    ----------
    params_ : Params
        The network, in the units of the data.
    h0_ : ndarray, shape (h,) or (B, h)
        Initial state; one row for each experiment where there are several.
    final_state_ : ndarray, shape (h,) or (B, h)
        State after the last training step, from which `forecast` goes on.
    loss_ : float
        The loss of the network, penalties included, in the units of the fit.
    n_iter_ : int
        Steps of the best start.
    n_evaluations_ : int
        Evaluations of the loss, over all starts.
    starts_ : list of StartSummary
        One for each start, in the order they were drawn.
    best_start_ : int
        Index of the start that was kept.
    n_features_in_ : int
        d.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, where they all have one.

    See Also
    --------
    rnnbptt.Objective : loss, gradient and Jacobian, for an optimiser of your own.

    Notes
    -----
    scikit-learn's `check_estimator` passes, except for ``check_methods_sample_order_invariance`` and
    ``check_methods_subset_invariance``: they ask that the prediction for a row does not depend on the rows
    before it, which is what a model of sequences is for.

    Examples
    --------
    >>> import numpy as np
    >>> from rnnbptt.fit import LinearRNNRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((300, 1))
    >>> y = np.zeros(300)
    >>> for t in range(1, 300):
    ...     y[t] = 0.9 * y[t - 1] + X[t, 0]
    >>> model = LinearRNNRegressor(n_hidden=1, random_state=0).fit(X, y)
    >>> print(model.params_.W_hh.round(6))
    [[0.9]]
    """

    def __init__(
        self,
        n_hidden: int = 4,
        *,
        solver: str = "lm",
        n_starts: int = 4,
        starts: str | Sequence[str] = ("subspace", "random", "orthogonal"),
        direct: bool = True,
        biases: bool = True,
        fit_h0: bool = True,
        standardize: bool = True,
        ridge: float = 0.0,
        max_spectral_radius: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        max_iter: int = 400,
        tol: float = 1e-7,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_hidden = n_hidden
        self.solver = solver
        self.n_starts = n_starts
        self.starts = starts
        self.direct = direct
        self.biases = biases
        self.fit_h0 = fit_h0
        self.standardize = standardize
        self.ridge = ridge
        self.max_spectral_radius = max_spectral_radius
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    # --- fitting --------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, lengths: ArrayLike | None = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array_like, shape (n, d)
            Inputs, one row for each step; several experiments one after the other.
        y : array_like, shape (n,) or (n, q)
            Targets. NaN where there is none: such targets are left out of the loss exactly.
        lengths : array_like of int, shape (B,), optional
            Rows of each experiment, which add up to n; one experiment when absent.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument does not fit; the message names it.
        """
        kinds = self._checked_parameters()
        if y is None:
            validate_data(self, X, y)  # says that y is required
        inputs: Real = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        targets = self._targets(y)
        check_consistent_length(inputs, targets)
        counts = experiment_lengths(lengths, len(inputs))
        columns = targets.reshape(len(targets), -1)
        empty = np.isnan(columns).all(axis=0)
        if empty.any():
            raise ValueError(f"y has no known target in column {int(np.argmax(empty))}")
        d, q = inputs.shape[1], columns.shape[1]
        units = Units.of(inputs, columns, centre=self.biases) if self.standardize else Units.none(d, q)
        data = Experiments.of(units.inputs(inputs), units.targets(columns), counts)
        if self.early_stopping:
            data = data.holding_out(self.validation_fraction)

        seeds = check_random_state(self.random_state).randint(np.iinfo(np.int32).max, size=len(kinds))
        alone = effective_n_jobs(self.n_jobs) == 1
        jobs = (
            delayed(_one_start)(self.get_params(), data, kind, int(seed), None if alone else 1)
            for kind, seed in zip(kinds, seeds, strict=True)
        )
        results = Parallel(n_jobs=self.n_jobs, return_as="generator")(jobs)
        fitted: list[Fitted] = list(self._with_progress(results, len(kinds)))

        self.starts_ = [_summary(result) for result in fitted]
        self.best_start_ = int(np.argmin([result.score for result in fitted]))
        best = fitted[self.best_start_]
        if not math.isfinite(best.score):
            raise ValueError("X and y must be of a size whose squares are finite: no start has a finite loss")
        self.loss_ = best.descent.loss
        self.n_iter_ = max(1, best.descent.n_iter)
        self.n_evaluations_ = sum(result.descent.n_evaluations for result in fitted)
        self.params_ = units.undo(best.params)
        self._one_target = targets.ndim == 1
        hidden = forward(self.params_, padded(inputs, counts), best.h0).hidden
        last = np.stack([hidden[length - 1, b] for b, length in enumerate(counts)])
        single = len(counts) == 1
        self.h0_ = best.h0[0] if single else best.h0
        self.final_state_ = last[0] if single else last
        self._last_inputs = inputs[np.cumsum(counts) - 1]
        return self

    def _checked_parameters(self) -> list[str]:
        """Check every parameter; return the kinds of the starts."""
        for name in ("n_hidden", "n_starts", "n_iter_no_change", "max_iter"):
            _validate.size(name, getattr(self, name))
        for name in ("direct", "biases", "fit_h0", "standardize", "early_stopping"):
            _validate.boolean(name, getattr(self, name))
        for name in ("ridge", "tol", "validation_fraction"):
            _validate.nonnegative(name, getattr(self, name))
        _validate.choice("solver", self.solver, SOLVERS)
        if self.max_spectral_radius is not None:
            _validate.nonnegative("max_spectral_radius", self.max_spectral_radius)
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie between 0 and 1, not {self.validation_fraction}")
        if self.n_jobs is not None:
            _validate.integer("n_jobs", self.n_jobs, -sys.maxsize)
        try:
            given = [self.starts] if isinstance(self.starts, str) else list(self.starts)
        except TypeError:
            came = _validate.describe(self.starts)
            raise TypeError(f"starts must be a kind of start or a sequence of them, not {came}") from None
        for kind in given:
            _validate.choice("starts", kind, kinds_of_starts.KINDS)
        if not given:
            raise ValueError("starts must name at least one kind of start")
        # There is one subspace start only; the others differ each time.
        repeated = [kind for kind in given if kind != "subspace"]
        return [*given, *islice(cycle(repeated), self.n_starts)][: self.n_starts]

    def _targets(self, y: ArrayLike) -> Real:
        result: Real = check_array(
            y,
            ensure_2d=False,
            dtype=np.float64,
            ensure_all_finite="allow-nan",
            input_name="y",
            estimator=self,
        )
        if result.ndim not in (1, 2):
            raise ValueError(f"y must have shape (n,) or (n, q), not {result.shape}")
        return result

    def _with_progress(self, results: Any, total: int) -> Any:
        if not self.verbose:
            return results
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise ImportError(
                "verbose needs tqdm, which is not installed: pip install 'rnnbptt[fit]'"
            ) from error
        return tqdm(results, total=total, desc="starts", unit="start")

    # --- using a fitted network -----------------------------------------------------------------------------

    def predict(self, X: ArrayLike, lengths: ArrayLike | None = None) -> Real:
        """Predict the outputs of sequences that begin as the training data did.

        Parameters
        ----------
        X : array_like, shape (n, d)
            Inputs, one row for each step.
        lengths : array_like of int, shape (B,), optional
            Rows of each sequence; one sequence when absent.

        Returns
        -------
        ndarray, shape (n,) or (n, q)
            Sequences begin in the fitted initial states `h0_`, row by row, where there are as many as there
            were experiments, and in the mean of these states otherwise. See `simulate` for a state of your
            own, and `forecast` for what follows the training data.
        """
        check_is_fitted(self)
        inputs: Real = validate_data(self, X, dtype=np.float64, reset=False)
        counts = experiment_lengths(lengths, len(inputs))
        fitted = np.atleast_2d(self.h0_)
        if len(fitted) != len(counts):
            fitted = np.broadcast_to(fitted.mean(axis=0), (len(counts), fitted.shape[1]))
        return self._as_targets(concatenated(self._run(padded(inputs, counts), fitted), counts))

    def simulate(self, X: ArrayLike, h0: ArrayLike | None = None) -> Real:
        """Run the network on one sequence from a given state.

        Parameters
        ----------
        X : array_like, shape (n, d)
            Inputs, one row for each step.
        h0 : array_like, shape (h,), optional
            Initial state; zero when absent.

        Returns
        -------
        ndarray, shape (n,) or (n, q)
        """
        check_is_fitted(self)
        inputs: Real = validate_data(self, X, dtype=np.float64, reset=False)
        h = self.params_.shape[1]
        start = np.zeros(h) if h0 is None else _validate.array("h0", h0, np.dtype(np.float64), (h,))
        return self._as_targets(self._run(inputs[:, np.newaxis], start[np.newaxis])[:, 0])

    def forecast(self, steps: int, X_future: ArrayLike | None = None) -> Real:
        """Go on from the end of the training data.

        Parameters
        ----------
        steps : int
            Steps to forecast, of every experiment.
        X_future : array_like, shape (steps, d) or (B * steps, d), optional
            Inputs of these steps, one experiment after the other; when absent, each experiment's inputs
            stay what they were in its last step.

        Returns
        -------
        ndarray, shape (steps,), (steps, q), (B * steps,) or (B * steps, q)
            Outputs, one experiment after the other.
        """
        check_is_fitted(self)
        count = _validate.size("steps", steps)
        states = np.atleast_2d(self.final_state_)
        counts = np.full(len(states), count)
        if X_future is None:
            inputs = np.repeat(self._last_inputs, count, axis=0)
        else:
            inputs = validate_data(self, X_future, dtype=np.float64, reset=False)
            if len(inputs) != counts.sum():
                raise ValueError(f"X_future must have {counts.sum()} rows, not {len(inputs)}")
        return self._as_targets(concatenated(self._run(padded(inputs, counts), states), counts))

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> float:
        """Return the coefficient of determination R^2 of `predict`, over the targets that are known.

        Parameters
        ----------
        X, y, lengths
            As for `fit`.
        sample_weight : array_like, shape (n,), optional
            Weight of every row.

        Returns
        -------
        float
            Mean over the columns of ``y``; at most 1.
        """
        from sklearn.metrics import r2_score

        predicted = self.predict(X, lengths)
        targets = self._targets(y)
        check_consistent_length(predicted, targets)
        if targets.shape != predicted.shape:
            targets = targets.reshape(predicted.shape)
        weights = np.ones(len(targets)) if sample_weight is None else np.asarray(sample_weight)
        scores = []
        for truth, guess in zip(np.atleast_2d(targets.T), np.atleast_2d(predicted.T), strict=True):
            known = ~np.isnan(truth)
            scores.append(r2_score(truth[known], guess[known], sample_weight=weights[known]))
        return float(np.mean(scores))

    def _run(self, inputs: Real, h0: Real) -> Real:
        return forward(self.params_, inputs, h0).o

    def _as_targets(self, outputs: Real) -> Real:
        return outputs[:, 0] if self._one_target else outputs

    # --- what was fitted ------------------------------------------------------------------------------------

    def to_state_space(self) -> StateSpace:
        r"""Write the network as ``s_{k+1} = A s_k + B u_k, y_k = C s_k + D u_k``.

        The network updates its state before it is read, the state-space form reads it before the update:
        :math:`A = W_{hh}`, :math:`B = W_{hx}`, :math:`C = W_{qh} W_{hh}`,
        :math:`D = W_{qx} + W_{qh} W_{hx}`.

        Returns
        -------
        StateSpace
            ``(A, B, C, D, x0)``. With biases, B and D have one more column, that of a last input which is
            always one.
        """
        check_is_fitted(self)
        return to_state_space(self.params_, self.h0_)

    @classmethod
    def from_state_space(
        cls,
        A: ArrayLike,
        B: ArrayLike,
        C: ArrayLike,
        D: ArrayLike | None = None,
        x0: ArrayLike | None = None,
        *,
        constant_input: bool = False,
    ) -> Self:
        """Build a regressor, as if fitted, that computes what a state-space system does.

        Parameters
        ----------
        A : array_like, shape (h, h)
        B : array_like, shape (h, d)
        C : array_like, shape (q, h)
        D : array_like, shape (q, d), optional
            Zero when absent.
        x0 : array_like, shape (h,), optional
            Initial state; zero when absent.
        constant_input : bool
            Whether the last input is always one, as `to_state_space` has it of networks with biases: it
            becomes the biases.

        Returns
        -------
        LinearRNNRegressor
            ``W_qh A = C`` where that has a solution. Otherwise (A has lost what C reads, as a pure delay
            does) q more hidden units keep ``C s_k`` for one step.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        """
        params, h0 = from_state_space(A, B, C, D, x0, _validate.boolean("constant_input", constant_input))
        d, h, q = params.shape
        result = cls(n_hidden=h, biases=constant_input)
        result.params_, result.h0_, result.final_state_ = params, h0, h0
        result.n_features_in_ = d
        result._one_target = q == 1
        result._last_inputs = np.zeros((len(np.atleast_2d(h0)), d))
        return result

    def spectral_report(self) -> SpectralReport:
        """Report on the eigenvalues of ``W_hh`` and its powers: see `rnnbptt.spectral_report`."""
        check_is_fitted(self)
        return spectral_report(self.params_.W_hh)

    # --- scikit-learn ---------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _one_start(
    settings: dict[str, Any], data: Experiments, kind: str, seed: int, num_threads: int | None
) -> Fitted:
    """Draw a start and descend from it."""
    size = settings["n_hidden"] * (data.x.shape[2] + settings["n_hidden"] + data.y.shape[2])
    with threadpool_limits(1 if size < BLAS_THREADS_FROM else num_threads, user_api="blas"):
        start = kinds_of_starts.draw(
            kind,
            data,
            settings["n_hidden"],
            biases=settings["biases"],
            direct=settings["direct"],
            fit_h0=settings["fit_h0"],
            max_spectral_radius=settings["max_spectral_radius"],
            rng=np.random.default_rng(seed),
        )
        problem = Problem(
            start.params,
            data,
            ridge=settings["ridge"],
            max_spectral_radius=settings["max_spectral_radius"],
            fit_h0=settings["fit_h0"],
            num_threads=num_threads,
        )
        return descend(
            problem,
            start.kind,
            problem.pack(start.params, start.h0),
            solver=settings["solver"],
            max_iter=settings["max_iter"],
            tol=settings["tol"],
            patience=settings["n_iter_no_change"] if settings["early_stopping"] else None,
        )


def _summary(result: Fitted) -> StartSummary:
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
