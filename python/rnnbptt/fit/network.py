"""A fitted network: its predictions, forecasts and scores, and its form as a state-space system."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from .. import _validate
from ..engine.floating_point import quiet_class
from ..reports.spectrum import spectral_report
from . import arguments, simulation
from .experiments import checked_columns
from .hankel import hankel_singular_values
from .rows import Rows
from .state_estimate import initial_states, left_out
from .state_space import StateSpace, to_state_space

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..reports.spectrum import SpectralReport
    from .experiments import Real

#: What sequences begin in that `predict` is given no state of, and what `score` lets them begin in.
PREDICT_FROM = ("training_start", "training_end", "zero")
SCORE_FROM = ("targets", "predict")


@quiet_class
class FittedNetwork(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What a `LinearRNNRegressor` does once it is fitted, from the attributes that fitting leaves."""

    predict_from: str
    score_from: str
    _labels: tuple[Any, ...] = ()

    def predict(
        self,
        X: ArrayLike | None,
        lengths: ArrayLike | None = None,
        *,
        h0: ArrayLike | None = None,
        experiments: ArrayLike | None = None,
    ) -> Real:
        """Predict the outputs of sequences, without a look at targets.

        Parameters
        ----------
        X : array_like, shape (n, d)
            Inputs, one row for each step. Of a network without inputs (n, 0), or None for as many steps as
            it was fitted to.
        lengths : array_like of int, shape (B,), optional
            Rows of each sequence; one sequence when absent.
        h0 : array_like, shape (h,) or (B, h), optional
            State before the first step, of all sequences or of each, such as `estimate_state` returns. When
            absent, what the parameter `predict_from` says.
        experiments : array_like, shape (n,), optional
            The sequence that every row belongs to, in the place of `lengths`. Where the network was fitted
            with labels, each begins in the state of its own, and a new one in the mean.

        Returns
        -------
        ndarray, shape (n,) or (n, q)
            See `forecast` for what follows the training data, or other data with targets.
        """
        check_is_fitted(self)
        inputs = arguments.inputs(self, X)
        return self._predict(inputs, Rows.of(lengths, experiments, len(inputs)), h0)

    def _predict(self, inputs: Real, rows: Rows, h0: ArrayLike | None = None) -> Real:
        """Predict from what `predict_from` says, or from h0."""
        count = len(rows.lengths)
        if h0 is not None:
            return self._run(inputs, rows, arguments.states(h0, count, self.params_.shape[1]))
        origin = _validate.choice("predict_from", self.predict_from, PREDICT_FROM)
        if origin == "zero":
            states = np.zeros(self.params_.shape[1])
        else:
            states = self.h0_ if origin == "training_start" else self.final_state_
        known = self._labels if rows.labels else ()
        if known and origin != "zero":
            each = np.atleast_2d(states)
            own = dict(zip(known, each, strict=True))
            begin = np.stack([own.get(label, each.mean(axis=0)) for label in rows.labels])
        else:
            begin = simulation.initial_states(states, count)
        return self._run(inputs, rows, begin)

    def estimate_state(
        self,
        X: ArrayLike | None,
        y: ArrayLike,
        lengths: ArrayLike | None = None,
        *,
        experiments: ArrayLike | None = None,
    ) -> Real:
        """Estimate the state in which sequences begin from their targets, by least squares.

        Parameters
        ----------
        X, y, lengths, experiments
            As for `fit`; they need not be the training data.

        Returns
        -------
        ndarray, shape (h,) or (B, h)
            The state before the first step, for which the outputs come closest to the known targets; the
            shortest where these do not tell. One row for each sequence where there are several.
        """
        check_is_fitted(self)
        inputs, columns = self._data(X, y)
        rows = Rows.of(lengths, experiments, len(inputs))
        states = initial_states(self.params_, rows.sorted(inputs), rows.sorted(columns), rows.lengths)
        return states[0] if len(states) == 1 else states

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
        inputs = arguments.inputs(self, X)
        h = self.params_.shape[1]
        start = np.zeros(h) if h0 is None else _validate.array("h0", h0, np.dtype(np.float64), (h,))
        return self._run(inputs, Rows(np.array([len(inputs)])), start[np.newaxis])

    def forecast(
        self, steps: int, X_future: ArrayLike | None = None, *, past: tuple[Any, ...] | None = None
    ) -> Real:
        """Go on from the end of the training data, or of other data.

        Parameters
        ----------
        steps : int
            Steps to forecast, of every experiment.
        X_future : array_like, shape (steps, d) or (B * steps, d), optional
            Inputs of these steps, one experiment after the other; when absent, each experiment's inputs
            stay what they were in its last step.
        past : (X, y) or (X, y, lengths), optional
            Data that the forecast follows, in the place of the training data: the state at their end is
            that of a run from `estimate_state`. Nothing is fitted anew.

        Returns
        -------
        ndarray, shape (steps,), (steps, q), (B * steps,) or (B * steps, q)
            Outputs, one experiment after the other.
        """
        check_is_fitted(self)
        count = _validate.size("steps", steps)
        states, last = np.atleast_2d(self.final_state_), self._last_inputs
        if past is not None:
            if not isinstance(past, tuple | list) or len(past) not in (2, 3):
                raise TypeError(f"past must be (X, y) or (X, y, lengths), not {_validate.describe(past)}")
            X, y, *lengths = past
            with arguments.named("past"):
                rows, columns = self._data(X, y)
                ends = Rows.of(lengths[0] if lengths else None, None, len(rows)).lengths
            began = initial_states(self.params_, rows, columns, ends)
            states = simulation.final_states(self.params_, rows, ends, began)
            last = rows[np.cumsum(ends) - 1]
        counts = np.full(len(states), count)
        if X_future is None:
            d = last.shape[1]
            inputs = _validate.allocate("X_future", (len(states) * count, d), np.dtype(np.float64))
            inputs.reshape(len(states), count, d)[...] = last[:, np.newaxis]
        else:
            inputs = arguments.inputs(self, X_future, "X_future")
            if len(inputs) != counts.sum():
                raise ValueError(f"X_future must have {counts.sum()} rows, not {len(inputs)}")
        return self._run(inputs, Rows(counts), states)

    def score(
        self,
        X: ArrayLike | None,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        experiments: ArrayLike | None = None,
    ) -> float:
        """Return the coefficient of determination R^2 over the targets that are known.

        It looks at the targets for the state in which a sequence begins, which held-out data do not share
        with the training data: every target is predicted from a state that is estimated from all others of
        its sequence, those before and after it, so that none helps to predict itself. With
        ``score_from="predict"`` it is the R^2 of `predict`.

        Parameters
        ----------
        X, y, lengths, experiments
            As for `fit`.
        sample_weight : array_like, shape (n,), optional
            Weight of every row.

        Returns
        -------
        float
            Mean over the columns of ``y``; at most 1.
        """
        from sklearn.metrics import r2_score

        check_is_fitted(self)
        inputs, columns = self._data(X, y)
        targets = checked_columns(columns)
        which = Rows.of(lengths, experiments, len(inputs))
        if self._labels and not which.labels and lengths is None:
            warnings.warn(
                "the rows are taken for one sequence: give score the experiments they belong to, as fit was "
                "(scikit-learn passes them on after set_score_request(experiments=True))",
                UserWarning,
                stacklevel=3,
            )
        if _validate.choice("score_from", self.score_from, SCORE_FROM) == "predict":
            predicted = self._predict(inputs, which).reshape(targets.shape)
        else:
            among = left_out(self.params_, which.sorted(inputs), which.sorted(targets), which.lengths)
            predicted = which.as_given(among)
        rows, float64 = (len(targets),), np.dtype(np.float64)
        ones = np.ones(rows) if sample_weight is None else sample_weight
        weights = _validate.array("sample_weight", ones, float64, rows)
        if not (np.isfinite(weights).all() and weights.any()):
            raise ValueError("sample_weight must be finite, and not zero for every row")
        scores = []
        for truth, guess in zip(targets.T, predicted.T, strict=True):
            known = ~np.isnan(truth)
            scores.append(r2_score(truth[known], guess[known], sample_weight=weights[known]))
        return float(np.mean(scores))

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

    def spectral_report(self) -> SpectralReport:
        """Report on the eigenvalues of ``W_hh`` and its powers: see `rnnbptt.spectral_report`."""
        check_is_fitted(self)
        return spectral_report(self.params_.W_hh)

    @property
    def hankel_singular_values_(self) -> Real:
        """Hankel singular values of the network, (h,), largest first.

        They are those of `to_state_space`, in the units of the data, and say what each state of a balanced
        form carries from past inputs to future outputs: states whose values are small beside the others can
        be left out (balanced truncation). Modes on or beyond the unit circle, which pass on more and more,
        have infinite ones. Biases do not count.
        """
        check_is_fitted(self)
        params = self.params_
        return hankel_singular_values(params.W_hh, params.W_hx, params.W_qh @ params.W_hh)

    def _data(self, X: ArrayLike | None, y: ArrayLike) -> tuple[Real, Real]:
        """Return inputs (n, d) and targets (n, q), which may be NaN."""
        targets = arguments.targets(self, y)
        inputs = arguments.inputs(self, X, rows=len(targets))
        arguments.same_rows(inputs, targets)
        q = self.params_.shape[2]
        if targets.size != len(inputs) * q:
            expected = (len(inputs),) if self._one_target else (len(inputs), q)
            raise ValueError(f"y must have shape {expected}, not {targets.shape}")
        return inputs, targets.reshape(len(inputs), q)

    def _run(self, inputs: Real, rows: Rows, h0: Real) -> Real:
        """Return the outputs for rows of inputs, in the shape that y had."""
        found = simulation.outputs(self.params_, rows.sorted(inputs), rows.lengths, h0)
        outputs = rows.as_given(found)
        return outputs[:, 0] if self._one_target else outputs
