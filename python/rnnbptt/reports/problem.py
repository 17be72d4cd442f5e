"""A problem as reports on gradients need it: checked, in float64, run, and differentiated by its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from ..engine.params import Params
from ..engine.trajectories import outputs
from ..gradients.objective import LOSSES, answer_of
from .cached import cached
from .wide_range.chunked_recurrence import Chunk, ChunkedRecurrence, chunk_of
from .wide_range.scaled import Real, Scaled, add, normalised, raw_if_tame, vanishing

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ..gradients.objective import Loss

#: Lags that are looked at where the caller does not say.
DEFAULT_LAGS = 1000


@dataclass(frozen=True)
class Data:
    """A checked problem in float64, time-major: (T, B, ...)."""

    params: Params
    inputs: Real
    """x, and a last input of one where there is a b_h: (T, B, d or d + 1)."""
    start: Real
    d_o: Scaled
    used: int
    """Steps with a weight in the loss."""
    batched: bool
    batch_first: bool
    plain: bool
    """Whether the engine, without exponents, gave the outputs."""
    recurrence: Recurrence

    @property
    def raw(self) -> bool:
        """Whether all states are ordinary numbers."""
        return self.plain or self.recurrence.forward.raw


@dataclass(frozen=True)
class Recurrence:
    """The recurrence of the states, made where it is asked for."""

    params: Params
    inputs: Real
    start: Real
    threads: int

    @property
    def columns(self) -> Real:
        """Weights of the inputs: W_hx, and b_h beside it."""
        W_hx, b_h = self.params.W_hx, self.params.b_h
        return W_hx if b_h is None else np.concatenate([W_hx, b_h[:, np.newaxis]], axis=1)

    @cached
    def chunk(self) -> Chunk:
        """Steps taken as one, and powers of W_hh up to theirs."""
        return chunk_of(self.params.W_hh, len(self.inputs), self.threads)

    @cached
    def forward(self) -> ChunkedRecurrence:
        """States and outputs far beyond the range of float64."""
        W_hh, W_qh, inputs = self.params.W_hh, self.params.W_qh, raw_if_tame(self.inputs)
        length, power = self.chunk.length, self.chunk.power
        return ChunkedRecurrence(W_hh, self.columns, W_qh, inputs, self.start, self.threads, length, power)


def pose(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: Loss,
    h0: ArrayLike | None,
    weights: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    batch_first: bool,
    threads: int,
) -> Data:
    """Check a problem as `Objective` does, run it, and differentiate the loss by the outputs."""
    if callable(loss):
        for name, value in (("weights", weights), ("mask", mask)):
            if value is not None:
                raise ValueError(f"{name} must be None when loss is a function: weigh the steps inside it")
    else:
        _validate.choice("loss", loss, LOSSES)
    dataset = Dataset(
        checked(params), x, h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    targets = None if callable(loss) else dataset.targets(loss, y)
    T, B, h = dataset.steps, dataset.batch, params.shape[1]
    running = _validate.used_steps(None, dataset.lengths, T)
    used = _validate.used_steps(dataset.weights, dataset.lengths, T)
    kept = np.ones((T, B), bool) if used is None else used
    inputs = np.asarray(dataset.inputs, np.float64)
    if running is not None:
        inputs = np.where(running[..., np.newaxis], inputs, 0)
    start = np.zeros((B, h)) if dataset.start is None else dataset.start.astype(np.float64)
    if targets is not None and targets.ndim == 3:
        targets = np.asarray(targets, np.float64)
        if used is not None:
            targets = np.where(used[..., np.newaxis], targets, 0)
        _finite("y", targets)
    wide = Params(**{name: array.astype(np.float64) for name, array in params.items()})
    for name, array in [*wide.items(), ("x", inputs), ("h0", start)]:
        _finite(name, array)
    x = inputs
    if wide.b_h is not None:
        inputs = np.concatenate([inputs, np.ones((T, B, 1))], axis=2)
    recurrence = Recurrence(wide, inputs, start, threads)
    o = raw_if_tame(outputs(wide, Dataset(wide, x, start), threads))
    plain = o.raw and not _vanishing(o.mantissa, running)
    if not plain:
        o = _outputs(recurrence.forward, wide, x)
    if callable(loss):
        d_o = _callers_derivative(loss, o, y, dataset)
    else:
        assert targets is not None
        if used is None and dataset.weights is None:
            share: Real = np.broadcast_to(1 / (T * B), (T, B))
        else:
            given = np.float64(1) if dataset.weights is None else dataset.weights.astype(np.float64)
            weight: Real = np.where(kept, given, 0.0)
            share = weight / weight.sum()
        d_o = _derivative(loss, o, targets, share)
    return Data(
        wide, inputs, start, d_o, int(kept.sum()), dataset.batched, dataset.batch_first, plain, recurrence
    )


def _vanishing(o: Real, running: NDArray[np.bool_] | None) -> bool:
    """Whether outputs of zero follow others within sequences."""
    if running is None or not vanishing(o):
        return vanishing(o)
    nonzero: NDArray[np.bool_] = np.any(o, axis=-1)
    return bool((nonzero[:-1] & ~nonzero[1:] & running[1:]).any())


def _outputs(recurrence: ChunkedRecurrence, params: Params, x: Real) -> Scaled:
    """Return outputs far beyond the range of float64."""
    o = recurrence.outputs()
    o = raw_if_tame(o.mantissa) if o.raw else normalised(*o)
    direct = None if params.W_qx is None else x @ params.W_qx.T
    if params.b_q is not None:
        direct = np.broadcast_to(params.b_q, o.mantissa.shape) if direct is None else direct + params.b_q
    return o if direct is None else add(o, raw_if_tame(direct))


def chosen_lags(lags: int | None, data: Data) -> int:
    """Return the number of lags to tell apart."""
    T = len(data.inputs)
    if lags is None:
        return min(T, DEFAULT_LAGS)
    number = _validate.integer("lags", lags, 1)
    if number > T:
        raise ValueError(f"lags must be at most T = {T}, not {number}")
    return number


def _finite(name: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        where = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(array)))
        raise ValueError(f"{name} must be finite, not {array[where]} (an entry of the {name} that counts)")


def _derivative(loss: str, o: Scaled, targets: NDArray[Any], share: Real) -> Scaled:
    """Return dL/do of a built-in loss; every step has its share of the mean."""
    if loss == "cross_entropy":
        k, label = np.arange(o.mantissa.shape[-1]), targets[..., np.newaxis]
        mantissa = o.mantissa - o.mantissa.max(axis=-1, keepdims=True)
        shifted = Scaled(mantissa, o.exponent).at(np.zeros_like(o.exponent))
        odds = np.exp(shifted)
        p = np.where(k == label, 0, odds / odds.sum(axis=-1, keepdims=True))
        # p - 1 at the label is minus the sum of the others: no digits are lost.
        dl = np.where(k == label, -p.sum(axis=-1, keepdims=True), p)
        return raw_if_tame(share[..., np.newaxis] * dl)
    residual = add(o, raw_if_tame(-targets))
    factor = 2 / targets.shape[-1] if loss == "mse" else 1.0
    d_o = residual.mantissa * (share[..., np.newaxis] * factor)
    return raw_if_tame(d_o) if residual.raw else normalised(d_o, residual.exponent)


def _callers_derivative(loss: Any, o: Scaled, y: Any, dataset: Dataset) -> Scaled:
    outputs = o.at(np.zeros_like(o.exponent))
    if not np.isfinite(outputs).all():
        raise ValueError("loss must be the name of a loss where outputs exceed the range of float64")
    running = _validate.used_steps(None, dataset.lengths, dataset.steps)
    if running is not None:
        outputs = np.where(running[..., np.newaxis], outputs, 0)
    shown = (
        outputs[:, 0] if not dataset.batched else outputs.swapaxes(0, 1) if dataset.batch_first else outputs
    )
    _, answer = answer_of(loss, shown, y)
    float64 = np.dtype(np.float64)
    d_o = _validate.like_sequence("d_o", answer, float64, outputs.shape, dataset.batched, dataset.batch_first)
    if running is not None:
        d_o = np.where(running[..., np.newaxis], d_o, 0)
    _finite("d_o", d_o)
    return raw_if_tame(np.asarray(d_o, np.float64))
