"""A linear RNN with scikit-learn's interface."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from .. import _validate
from ..engine.floating_point import quiet_class
from . import arguments, multi_start, simulation
from .experiments import Experiments, Units, checked_columns
from .multi_start import StartSummary
from .network import FittedNetwork
from .rows import Rows
from .settings import Settings
from .starts import given
from .state_space import from_state_space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from ..engine.params import Params

#: Older pickles name both here.
__all__ = ["LinearRNNRegressor", "StartSummary"]


@quiet_class
class LinearRNNRegressor(FittedNetwork):
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
        Starts of the descent, up to 10,000, of which the best is kept.
    starts : str, Params or sequence of {"subspace", "random", "orthogonal"} and Params
        Kinds of starts, taken in turn: a network identified from block Hankel matrices of the data (once,
        as there is only one), small random weights with a short memory, or an orthogonal ``W_hh``, scaled
        to a spectral radius of 0.9. Or parameters to go on from (once), in the units of the data, such as
        ``params_`` of another fit.
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
        are penalised by their squared distance; if any is left beyond at the end, it is moved within the
        bound and the descent goes on as with `stable`. Unstable networks are fitted without it.
    stable : bool
        Whether to descend over matrices ``W_hh`` that cannot leave the disc of radius `max_spectral_radius`,
        1 where there is none: ``rho U sin(S) V^T`` for a free matrix ``U S V^T``.
    predict_from : {"training_start", "training_end", "zero"}
        The state in which `predict` begins where it is given none: that in which the training data began
        (each sequence in its own where there are as many, and in the mean of all otherwise), that in which
        they ended, for data that follow them, or zero.
    score_from : {"targets", "predict"}
        Whether `score` estimates the state in which its data begin from their targets, which suits data that
        were held out, or scores `predict`.
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
        Starts that run side by side, as in joblib, at most one per processor. No result depends on it.
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

    __module__ = "rnnbptt"

    def __init__(
        self,
        n_hidden: int = 4,
        *,
        solver: str = "lm",
        n_starts: int = 4,
        starts: str | Params | Sequence[str | Params] = ("subspace", "random", "orthogonal"),
        direct: bool = True,
        biases: bool = True,
        fit_h0: bool = True,
        standardize: bool = True,
        ridge: float = 0.0,
        max_spectral_radius: float | None = None,
        stable: bool = False,
        predict_from: str = "training_start",
        score_from: str = "targets",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        max_iter: int = 400,
        tol: float = 1e-6,
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
        self.stable = stable
        self.predict_from = predict_from
        self.score_from = score_from
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike | None,
        y: ArrayLike,
        lengths: ArrayLike | None = None,
        experiments: ArrayLike | None = None,
    ) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array_like, shape (n, d)
            Inputs, one row for each step; several experiments one after the other. None for a network
            without inputs (d = 0).
        y : array_like, shape (n,) or (n, q)
            Targets. NaN where there is none: such targets are left out of the loss exactly.
        lengths : array_like of int, shape (B,), optional
            Rows of each experiment, which add up to n; one experiment when absent.
        experiments : array_like, shape (n,), optional
            The experiment that every row belongs to, a number or a string, in the place of `lengths`. Rows of
            one may lie among those of others, in their own order. Splitters cut labels rightly.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If a parameter or an argument does not fit; the message names it.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the start that is kept ended at `max_iter`, before there was nothing left to gain.
        """
        settings = Settings.of(self)
        source = arguments.random_source(self.random_state)
        inputs = arguments.training_inputs(self, X, y)
        targets = arguments.targets(self, y)
        arguments.same_rows(inputs, targets)
        rows = Rows.of(lengths, experiments, len(inputs))
        counts = rows.lengths
        inputs, targets = rows.sorted(inputs), rows.sorted(targets)
        if rows.order is None:
            arguments.warn_of_order(X, y, counts)
        columns = checked_columns(targets)
        units = Units.of(inputs, columns, standardize=settings.standardize, centre=settings.biases)
        shape = (inputs.shape[1], settings.n_hidden, columns.shape[1])
        settings = settings.starting_from(lambda params: units.into(given(params, shape, **settings.terms)))
        data = Experiments.of(units.inputs(inputs), units.targets(columns), counts)
        if settings.early_stopping:
            data = data.holding_out(settings.validation_fraction)

        results = multi_start.search(data, settings, source)
        self.starts_ = [multi_start.summary_of(result) for result in results]
        self.best_start_ = multi_start.best_of(results)
        best = results[self.best_start_]
        if not (best.descent.converged or best.stopped):
            warnings.warn(
                f"the start that was kept had not converged after {best.descent.n_iter} steps: raise "
                f"max_iter (it is {settings.max_iter}), or go on with starts=model.params_",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.loss_ = best.descent.loss
        self.n_iter_ = max(1, best.descent.n_iter)
        self.n_evaluations_ = sum(result.descent.n_evaluations for result in results)
        self.params_ = units.undo(best.params)
        self._one_target = targets.ndim == 1
        self._rows, self._labels = len(inputs), rows.labels
        last = simulation.final_states(self.params_, inputs, counts, best.h0)
        single = len(counts) == 1
        self.h0_ = best.h0[0] if single else best.h0
        self.final_state_ = last[0] if single else last
        self._last_inputs = inputs[np.cumsum(counts) - 1]
        return self

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
        result._rows = 0
        result._last_inputs = np.zeros((len(np.atleast_2d(h0)), d))
        return result

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
