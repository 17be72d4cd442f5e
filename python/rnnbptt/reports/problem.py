"""A problem as reports on gradients need it: checked, in float64, run, and differentiated by its outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from ..engine.losses import CallersLoss, Loss, SumOfSquares, answer_of, checked_loss
from ..engine.params import Params
from ..engine.trajectories import outputs
from .cached import cached
from .wide_range import entries
from .wide_range.chunked_recurrence import Chunk, ChunkedRecurrence, chunk_of
from .wide_range.scaled import TAME, ZERO, Real, Scaled, normalised, raw_if_tame, vanishing
from .wide_range.uneven import UnevenRecurrence

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from ..engine.losses import LossLike

#: Lags that are looked at where the caller does not say.
DEFAULT_LAGS = 1000


@dataclass(frozen=True)
class Problem:
    """A checked problem in float64, time-major: (T, B, ...); its recurrence forwards and backwards."""

    params: Params
    inputs: Real
    """x, and a last input of one where there is a b_h: (T, B, d or d + 1)."""
    start: Real
    d_o: Scaled
    used: int
    """Steps with a weight in the loss."""
    missing: int
    """Targets that are NaN and would count otherwise."""
    batched: bool
    batch_first: bool
    recurrence: Recurrence
    uneven: UnevenRecurrence | None
    """Where numbers are not all of ordinary size; then each of `d_o` has an exponent."""

    @property
    def raw(self) -> bool:
        """Whether states, their gradients and dL/do are ordinary numbers."""
        return self.uneven is None

    @cached
    def _adjoint(self) -> ChunkedRecurrence:
        """``g_t = dL/dh_t`` in reversed time: its step r is ``g_{T+1-r}``."""
        return self.recurrence.adjoint(self.d_o.mantissa)

    def log2_state_gradients(self) -> Real:
        """Return ``log2 ||g_t||`` as (T, B)."""
        if self.uneven is not None:
            return entries.rows(self.uneven.state_gradients(self.d_o)).log2_norms()
        return self._adjoint.log2_norms()[::-1]


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
        """The states."""
        length, power = self.chunk.length, self.chunk.power
        return ChunkedRecurrence(
            self.params.W_hh, self.columns, self.inputs, self.start, self.threads, length, power
        )

    def adjoint(self, d_o: Real) -> ChunkedRecurrence:
        """Return ``g_t = W_qh^T d_o_t + W_hh^T g_{t+1}`` in reversed time: its step r is ``g_{T+1-r}``."""
        W, W_qh, power = self.params.W_hh, self.params.W_qh, self.chunk.power
        return ChunkedRecurrence(
            np.ascontiguousarray(W.T),
            np.ascontiguousarray(W_qh.T),
            d_o[::-1],
            np.zeros_like(self.start),
            self.threads,
            self.chunk.length,
            Scaled(np.ascontiguousarray(power.mantissa.T), power.exponent),
        )


def pose(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: LossLike,
    h0: ArrayLike | None,
    weights: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    batch_first: bool,
    threads: int,
) -> Problem:
    """Check a problem as `Objective` does, run it, and differentiate the loss by the outputs.

    A target that is NaN is missing: it is left out.
    """
    step_loss = checked_loss(loss, weights, mask)
    dataset = Dataset(
        checked(params), x, h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    targets = dataset.targets(step_loss, y) if isinstance(step_loss, Loss) else None
    T, B, h = dataset.steps, dataset.batch, params.shape[1]
    missing = 0
    if targets is not None and targets.ndim == 3:
        unknown = np.isnan(targets) & dataset.counted(targets.shape)
        missing = int(np.count_nonzero(unknown))
        dataset = dataset.leaving_out(unknown if isinstance(step_loss, SumOfSquares) else unknown.any(axis=2))
        targets = np.where(
            dataset.counted(targets.shape), _validate.cast("y", targets, np.dtype(np.float64)), 0
        )
        _finite("y", targets)
    running, used = dataset.running, dataset.used
    inputs = _validate.cast("x", dataset.inputs, np.dtype(np.float64))
    if running is not None:
        inputs = np.where(running[..., np.newaxis], inputs, 0)
    start = np.zeros((B, h)) if dataset.start is None else dataset.start.astype(np.float64)
    if running is not None:  # a sequence of no steps reads no initial state
        start = np.where(running[0][:, np.newaxis], start, 0)
    wide = Params(**{name: _validate.copied(name, array, np.float64) for name, array in params.items()})
    if params.shape[0] == 0:  # a recurrence has an input, if only one of zeros
        inputs, W_qx = np.zeros((T, B, 1)), None if wide.W_qx is None else np.zeros((params.shape[2], 1))
        wide = Params(np.zeros((h, 1)), wide.W_hh, wide.W_qh, wide.b_h, wide.b_q, W_qx)
    for name, array in [*wide.items(), ("x", inputs), ("h0", start)]:
        _finite(name, array)
    x = inputs
    if wide.b_h is not None:
        inputs = np.concatenate([inputs, np.ones((T, B, 1))], axis=2)
    recurrence = Recurrence(wide, inputs, start, threads)
    uneven = None

    def derivative(o: Scaled, even: bool) -> Scaled:
        if not isinstance(step_loss, Loss):
            d_o = _callers_derivative(step_loss, o.at(np.zeros_like(o.exponent)), y, dataset)
            return raw_if_tame(d_o) if even else entries.entries(d_o)
        assert targets is not None
        shares = dataset.shares()
        return (_derivative if even else _uneven_derivative)(step_loss, o, targets, shares)

    plain = _ordinary(recurrence, wide, x, targets, running, threads, derivative)
    if plain is None:
        uneven = UnevenRecurrence(wide, recurrence.columns, inputs, start, threads)
        d_o = derivative(_outputs(uneven, wide, x, threads), False)
    else:
        d_o = plain
    counted = T * B if used is None else int(used.sum())
    return Problem(
        wide,
        inputs,
        start,
        d_o,
        counted,
        missing,
        dataset.batched,
        dataset.batch_first,
        recurrence,
        uneven,
    )


def _ordinary(
    recurrence: Recurrence,
    params: Params,
    x: Real,
    targets: NDArray[Any] | None,
    running: NDArray[np.bool_] | None,
    threads: int,
    derivative: Callable[[Scaled, bool], Scaled],
) -> Scaled | None:
    """Return dL/do if all numbers, from what is given to gradients of states, are of ordinary size."""
    given = [array for _, array in params.items()] + [x, recurrence.start]
    if targets is not None and targets.dtype.kind == "f":
        given.append(targets)
    if not all(entries.moderate(array, TAME) for array in given):
        return None
    o = raw_if_tame(outputs(params, Dataset(params, x, recurrence.start), threads))
    if not o.raw or _vanishing(o.mantissa, running) or not recurrence.forward.raw:
        return None
    d_o = derivative(o, True)
    return d_o if d_o.raw and recurrence.adjoint(d_o.mantissa).raw else None


def _vanishing(o: Real, running: NDArray[np.bool_] | None) -> bool:
    """Whether outputs of zero follow others within sequences."""
    if running is None or not vanishing(o):
        return vanishing(o)
    nonzero: NDArray[np.bool_] = np.any(o, axis=-1)
    return bool((nonzero[:-1] & ~nonzero[1:] & running[1:]).any())


def _outputs(recurrence: UnevenRecurrence, params: Params, x: Real, threads: int) -> Scaled:
    o = recurrence.outputs
    if params.W_qx is not None:
        o = entries.total(o, entries.product(entries.entries(x), entries.entries(params.W_qx.T), threads))
    if params.b_q is not None:
        o = entries.total(o, entries.entries(np.broadcast_to(params.b_q, o.mantissa.shape)))
    return o


def chosen_lags(lags: int | None, problem: Problem) -> int:
    """Return the number of lags to tell apart."""
    T = len(problem.inputs)
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


def _derivative(loss: Loss, o: Scaled, targets: NDArray[Any], share: Real) -> Scaled:
    """Return dL/do of a loss that has a name; steps or outputs have shares of the mean, (T, B, 1 or q)."""
    if isinstance(loss, SumOfSquares):
        return raw_if_tame((o.mantissa - targets) * (share * loss.factor(targets.shape[-1])))
    result = raw_if_tame(share * loss.derivative(o.mantissa, targets))
    if loss.slope_at_zero is None:
        return result
    near = normalised((o.mantissa - targets) * (share * loss.slope_at_zero))
    tiny = (near.exponent < -TAME) & (near.exponent > ZERO)
    if not tiny.any():
        return result
    result = normalised(*result)
    mantissa = np.where(tiny[..., np.newaxis], near.mantissa, result.mantissa)
    return Scaled(mantissa, np.where(tiny, near.exponent, result.exponent))


def _uneven_derivative(loss: Loss, o: Scaled, targets: NDArray[Any], share: Real) -> Scaled:
    """Return the same where outputs have an exponent each."""
    if isinstance(loss, SumOfSquares):  # linear in the residual, which may lie far beyond float64
        residual = entries.total(o, entries.entries(-targets))
        return entries.times(residual, share * loss.factor(targets.shape[-1]))
    # Relative to the largest output, the others end in the range of float64 or at zero.
    shifted = entries.total(o, entries.negative(entries.largest(o))) if loss.shift_invariant else o
    dl = loss.derivative(shifted.at(np.zeros_like(shifted.exponent)), targets)
    result = entries.times(entries.entries(dl), share)
    if loss.slope_at_zero is None:
        return result
    residual = entries.total(o, entries.entries(-targets))
    near = entries.times(residual, share * loss.slope_at_zero)
    tiny = (residual.exponent < -TAME) & (residual.exponent > ZERO)
    return Scaled(*(np.where(tiny, *some) for some in zip(near, result, strict=True)))


def _callers_derivative(loss: CallersLoss, outputs: Real, y: Any, dataset: Dataset) -> Real:
    if not np.isfinite(outputs).all():
        raise ValueError("loss must be the name of a loss where outputs exceed the range of float64")
    running = dataset.running
    if running is not None:
        outputs = np.where(running[..., np.newaxis], outputs, 0)
    shown = (
        outputs[:, 0] if not dataset.batched else outputs.swapaxes(0, 1) if dataset.batch_first else outputs
    )
    d_o = dataset.time_major(answer_of(loss, shown, y)[1])
    if running is not None:
        d_o = np.where(running[..., np.newaxis], d_o, 0)
    _finite("d_o", d_o)
    return np.asarray(d_o, np.float64)
