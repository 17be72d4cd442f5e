"""A problem as the reference solves it, checked once: a model, its data, and a loss.

Everything is checked in the parameters' own dtype, as `rnnbptt` does, and only then cast: the oracle takes
derivatives at the numbers as they were rounded to that dtype.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.losses import CallersLoss, Loss, LossLike, check_weights, checked_loss, pair_of
from ..engine.params import checked
from .losses import weighted_mean
from .model import Model, as_given, initial_state, outputs, states

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..engine.params import Params

Array = NDArray[Any]


class Problem(NamedTuple):
    """A checked problem. Arrays are time-major and batched: (T, B, ...)."""

    model: Model
    x: Array
    y: Any
    h0: Array
    w: Array
    """Weight of every step in the loss, (T, B), or of every output, (T, B, q): zero for what does not count.

    Times any power of two: only ratios matter.
    """
    running: NDArray[np.bool_] | None
    """Which steps are run at all, (T, B, 1); ``None`` when all are."""
    loss: Loss | CallersLoss
    batched: bool
    batch_first: bool

    def cast(self, dtype: np.dtype[Any]) -> Self:
        """Return the same problem, number for number, in another dtype."""
        numbers = isinstance(self.loss, Loss) and not self.loss.labels
        y = self.y.astype(dtype) if numbers else self.y
        return self._replace(
            model=self.model.cast(dtype),
            x=self.x.astype(dtype),
            y=y,
            h0=self.h0.astype(dtype),
            # No derivative is taken by weights of steps, and they are compared with zero: they stay real.
            w=self.w.astype(np.promote_types(dtype, self.w.dtype) if dtype.kind == "f" else self.w.dtype),
        )

    def run(self) -> tuple[Array, Array]:
        """Run equations (1) and (2); states and outputs of steps that are not run are zero."""
        hidden = kept(states(self.model, self.x, self.h0), self.running)
        return hidden, kept(outputs(self.model, self.x, hidden), self.running)

    def value(self, o: Array) -> Any:
        """Evaluate the loss (3)."""
        return self._loss(o)[0]

    def evaluate(self, o: Array) -> tuple[Any, Array]:
        """Evaluate the loss (3) and its derivative by the outputs (4)."""
        L, given = self._loss(o)
        if isinstance(self.loss, Loss):
            return L, given
        layout = o.dtype, o.shape, self.batched, self.batch_first
        return L, kept(_validate.like_sequence("d_o returned by loss", given, *layout), self.running)

    def _loss(self, o: Array) -> tuple[Any, Any]:
        if isinstance(self.loss, Loss):
            return weighted_mean(self.loss, o, self.y, self.w)
        return pair_of(self.loss, as_given(o, self.batched, self.batch_first), self.y)


def kept(array: Array, running: NDArray[np.bool_] | None) -> Array:
    """Return `array` with zeros at the steps that are not run, whatever stood there."""
    return array if running is None else np.where(running, array, 0)


def steps_run(counting: _validate.StepWeights, steps: int) -> NDArray[np.bool_] | None:
    """Return which steps are run, as (T, B, 1)."""
    running = counting.running(steps)
    return None if running is None else running[..., np.newaxis]


def start_of(h0: Array, counting: _validate.StepWeights) -> Array:
    """Return the initial states (B, h) that are read: a sequence of no steps reads none."""
    return h0 if counting.lengths is None else np.where(counting.lengths[:, np.newaxis] > 0, h0, 0)


def pose(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
) -> Problem:
    """Check the arguments of `rnnbptt.reference.loss_and_grad` and gather them into a `Problem`."""
    d, _, q = checked(params).shape
    dtype = params.dtype
    batch_first = _validate.boolean("batch_first", batch_first)
    inputs, batched = _validate.sequence("x", x, dtype, d, batch_first)
    T, B = inputs.shape[:2]
    step_loss = checked_loss(loss, weights, mask)
    start = initial_state(params, h0, B, batched)
    counting = _validate.step_weights(weights, lengths, mask, dtype, (T, B, q), batched, batch_first)
    if not isinstance(step_loss, Loss):
        target = y
    else:
        check_weights(step_loss, counting)
        if step_loss.labels:
            target = _validate.labels(
                y, q, (T, B), batched, batch_first, counting.used(T), loss=step_loss.name
            )
        else:
            target = _validate.like_sequence("y", y, dtype, (T, B, q), batched, batch_first)
    running = steps_run(counting, T)
    if counting.weights is not None:
        w = counting.weights
    else:
        w = np.ones((T, B)) if running is None else running[..., 0].astype(np.float64)
    arrays = Model.of(params), kept(inputs, running), target, start_of(start, counting), w, running
    return Problem(*arrays, step_loss, batched, batch_first)
