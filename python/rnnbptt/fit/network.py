"""A fitted network: its predictions, forecasts and scores, and its form as a state-space system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from .. import _validate
from ..engine.floating_point import quiet_class
from ..reports.spectrum import spectral_report
from . import arguments, simulation
from .experiments import checked_columns, experiment_lengths
from .hankel import hankel_singular_values
from .state_space import StateSpace, to_state_space

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ..reports.spectrum import SpectralReport
    from .experiments import Real


@quiet_class
class FittedNetwork(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What a `LinearRNNRegressor` does once it is fitted, from the attributes that fitting leaves."""

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
        inputs = arguments.inputs(self, X)
        counts = experiment_lengths(lengths, len(inputs))
        return self._run(inputs, counts, simulation.initial_states(self.h0_, len(counts)))

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
        return self._run(inputs, np.array([len(inputs)]), start[np.newaxis])

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
            d = self._last_inputs.shape[1]
            inputs = _validate.allocate("X_future", (len(states) * count, d), np.dtype(np.float64))
            inputs.reshape(len(states), count, d)[...] = self._last_inputs[:, np.newaxis]
        else:
            inputs = arguments.inputs(self, X_future, "X_future")
            if len(inputs) != counts.sum():
                raise ValueError(f"X_future must have {counts.sum()} rows, not {len(inputs)}")
        return self._run(inputs, counts, states)

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
        targets = arguments.targets(self, y)
        arguments.same_rows(predicted, targets)
        if targets.size != predicted.size:
            raise ValueError(f"y must have shape {predicted.shape}, not {targets.shape}")
        targets = checked_columns(targets).reshape(predicted.shape)
        rows, float64 = (len(targets),), np.dtype(np.float64)
        ones = np.ones(rows) if sample_weight is None else sample_weight
        weights = _validate.array("sample_weight", ones, float64, rows)
        if not (np.isfinite(weights).all() and weights.any()):
            raise ValueError("sample_weight must be finite, and not zero for every row")
        scores = []
        for truth, guess in zip(np.atleast_2d(targets.T), np.atleast_2d(predicted.T), strict=True):
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

    def _run(self, inputs: Real, counts: NDArray[np.int64], h0: Real) -> Real:
        """Return the outputs for rows of inputs, in the shape that y had."""
        outputs = simulation.outputs(self.params_, inputs, counts, h0)
        return outputs[:, 0] if self._one_target else outputs
