"""Weights, lengths and mask as one: what of a data set counts in the loss, and how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .arrays import check_shape, numeric
from .sequences import caller_shape, like_sequence

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from .arrays import IntArray, Shape

#: The sum of scaled weights is below two to this, so that its inverse is an ordinary number.
_SUM_EXPONENT = 1000


class StepWeights(NamedTuple):
    """What counts in a loss, time-major.

    Only ratios of weights matter. They are kept in float64 and scaled by a power of two, which is exact, so
    that their sum is near the upper end of the range: also ratios beyond that range then stay apart from 0.
    """

    weights: NDArray[np.float64] | None = None
    """(T, B), or (T, B, q) for those of single outputs; None for ones. 0 behind the ends of sequences."""
    lengths: IntArray | None = None
    """(B,): steps of each sequence that matter, from 0 to T; None for T."""
    exponent: int = 0
    """What was given is `weights` times two to this."""

    @property
    def by_output(self) -> bool:
        """Whether single outputs have weights of their own."""
        return self.weights is not None and self.weights.ndim == 3

    def used(self, steps: int) -> NDArray[np.bool_] | None:
        """Return which (T, B) steps take part in the loss; ``None`` for all."""
        if self.weights is None:
            return self.running(steps)
        weights = self.weights.max(axis=2) if self.by_output else self.weights
        return weights > 0

    def running(self, steps: int) -> NDArray[np.bool_] | None:
        """Return which (T, B) steps lie before the ends of their sequences; ``None`` for all."""
        return None if self.lengths is None else np.arange(steps)[:, np.newaxis] < self.lengths

    def sum(self, steps: int, batch: int) -> float:
        """Return what the weighted sum of losses is divided by, for `weights` as they are kept here.

        Weights of single outputs add up to theirs of a step by ``sum w / q``.
        """
        if self.weights is None:
            return float(steps) * batch if self.lengths is None else float(self.lengths.sum())
        return float(self.weights.sum()) / (self.weights.shape[2] if self.by_output else 1)

    def true_sum(self, steps: int, batch: int) -> tuple[float, int]:
        """Return the same for the weights as they were given, as mantissa in [1/2, 1) and exponent."""
        mantissa, exponent = math.frexp(self.sum(steps, batch))
        return mantissa, exponent + self.exponent if mantissa else 0

    def without(self, missing: NDArray[np.bool_], steps: int) -> StepWeights:
        """Return the same with weights of 0 where outputs, or steps, are missing: (T, B, q) or (T, B)."""
        if not missing.any():
            return self
        return _ending(_keeping(self.weights, ~missing), self.lengths, steps, self.exponent)


def step_weights(
    weights: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    dtype: np.dtype[Any],
    shape: Shape,
    batched: bool,
    batch_first: bool,
) -> StepWeights:
    """Check what counts in the loss of outputs of `shape`, (T, B, q).

    `mask` is a shorthand for weights of 0 and 1, `lengths` for a mask that ends; they multiply. Weights and
    mask are those of steps or, with one more axis, of single outputs. Steps after a sequence's last positive
    weight influence neither loss nor gradients, so the lengths returned leave them out.
    """
    steps, batch, _ = shape
    given = kept = None
    if weights is not None:
        given = _of_steps_or_outputs("weights", weights, dtype, shape, batched, batch_first)
    if mask is not None:
        numbers = numeric("mask", mask)
        if numbers.dtype.kind != "b":
            raise TypeError(f"mask must be an array of booleans, not of {numbers.dtype}")
        kept = _of_steps_or_outputs("mask", numbers, np.dtype(bool), shape, batched, batch_first)
    counts: IntArray | None = None
    if lengths is not None:
        numbers = numeric("lengths", lengths)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"lengths must be integers, not of dtype {numbers.dtype}")
        if not batched and numbers.ndim:
            raise ValueError(
                f"lengths must be one number where x has no batch axis, not an array of shape {numbers.shape}"
            )
        check_shape("lengths", numbers, (batch,) if batched else ())
        if numbers.min() < 0 or numbers.max() > steps:
            worst = numbers.min() if numbers.min() < 0 else numbers.max()
            raise ValueError(f"lengths must lie between 0 and T = {steps}, not {worst}")
        counts = np.ascontiguousarray(numbers.astype(np.int64).reshape(batch))
    if given is None and kept is None:
        return StepWeights(None, counts)
    by_output = any(part is not None and part.ndim == 3 for part in (given, kept))
    largest = shape if by_output else shape[:2]
    try:
        if given is not None:
            if not (np.all(given >= 0) and np.all(np.isfinite(given))):
                raise ValueError("weights must be finite and at least 0")
            given = given.astype(np.float64)
        return _ending(_keeping(given, kept), counts, steps)
    except MemoryError:
        size = 8 * math.prod(largest)
        raise MemoryError(f"cannot allocate {size} bytes for weights of shape {largest}") from None


def _of_steps_or_outputs(
    name: str, value: ArrayLike, dtype: np.dtype[Any], shape: Shape, batched: bool, batch_first: bool
) -> NDArray[Any]:
    """Return an array with one entry for each step or each output as (T, B) or (T, B, q)."""
    numbers = numeric(name, value)
    by_step = shape[:2]
    of_outputs = numbers.ndim == len(caller_shape(shape, batched, batch_first))
    return like_sequence(name, numbers, dtype, shape if of_outputs else by_step, batched, batch_first)


def _keeping(weights: NDArray[np.float64] | None, kept: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    """Return weights, or ones, with zeros where not `kept`; of outputs if either is. One is given."""
    if weights is None:
        assert kept is not None
        return kept.astype(np.float64)
    if kept is None:
        return weights
    if weights.ndim < kept.ndim:
        weights = weights[..., np.newaxis]
    elif weights.ndim > kept.ndim:
        kept = kept[..., np.newaxis]
    return np.where(kept, weights, 0.0)


def _ending(
    weights: NDArray[np.float64], lengths: IntArray | None, steps: int, exponent: int = 0
) -> StepWeights:
    """Return weights, which are times two to `exponent`, scaled, up to the last that is positive."""
    running = StepWeights(None, lengths).running(steps)
    if running is not None:
        weights = np.where(running[..., np.newaxis] if weights.ndim == 3 else running, weights, 0.0)
    weights = np.ascontiguousarray(weights)  # one order of sums, whatever the caller's layout
    shift = 0
    largest = float(weights.max())
    if largest > 0:
        shift = _SUM_EXPONENT - weights.size.bit_length() - math.frexp(largest)[1]
        with np.errstate(all="ignore"):
            scaled = np.ldexp(weights, shift)
        # What leaves the range all the same has no weight beside the largest, and counts: a NaN is seen.
        weights = np.where(weights > 0, np.maximum(scaled, np.finfo(np.float64).smallest_subnormal), 0.0)
    found = StepWeights(weights, lengths, exponent - shift)
    used = found.used(steps)
    assert used is not None
    # The last step with a positive weight, plus one; 0 for a sequence with none.
    last = np.where(used.any(axis=0), steps - np.argmax(used[::-1], axis=0), 0)
    return found._replace(lengths=np.ascontiguousarray(last, dtype=np.int64))
