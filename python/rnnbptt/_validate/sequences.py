"""Checks of what has one entry for every step of a sequence, as views that are time-major."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import array, cast, check_shape, copied, numeric

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .arrays import FloatArray, IntArray, Shape


def sequence(
    name: str, value: ArrayLike, dtype: np.dtype[Any], features: int, batch_first: bool
) -> tuple[FloatArray, bool]:
    """Return a time-major (T, B, features) view of `value`, and whether it came with a batch axis."""
    numbers = numeric(name, value)
    leading = "(B, T" if batch_first else "(T, B"
    if numbers.ndim not in (2, 3) or numbers.shape[-1] != features:
        hint = f": pass {name}[:, None]" if numbers.ndim == features == 1 else ""
        raise ValueError(
            f"{name} must have shape (T, {features}) or {leading}, {features}), not {numbers.shape}{hint}"
        )
    batched = numbers.ndim == 3
    if 0 in numbers.shape[:-1]:
        raise ValueError(f"{name} must have at least one step and one sequence, not shape {numbers.shape}")
    return _readable(name, time_major(cast(name, numbers, dtype), batched, batch_first)), batched


def like_sequence(
    name: str, value: ArrayLike, dtype: np.dtype[Any], shape: Shape, batched: bool, batch_first: bool
) -> FloatArray:
    """Return a time-major view of `value`, whose shape is settled by another sequence.

    `shape` is time-major and complete: (T, B, features), or (T, B) for labels and weights.
    """
    numbers = numeric(name, value)
    check_shape(name, numbers, caller_shape(shape, batched, batch_first))
    return _readable(name, time_major(cast(name, numbers, dtype), batched, batch_first))


def caller_shape(shape: Shape, batched: bool, batch_first: bool) -> Shape:
    """Return the shape in the caller's layout of an array of time-major `shape` (T, B, ...)."""
    steps, batch, *rest = shape
    if not batched:
        return (steps, *rest)
    return (batch, steps, *rest) if batch_first else (steps, batch, *rest)


def time_major(value: NDArray[Any], batched: bool, batch_first: bool) -> NDArray[Any]:
    """Return a view of a caller's array as (T, B, ...)."""
    if not batched:
        return value[:, np.newaxis]
    return value.swapaxes(0, 1) if batch_first else value


def _readable(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """Return a (T, B, features) array whose strides are whole scalars and whose features are contiguous."""
    item = value.itemsize
    whole = all(stride % item == 0 for stride in value.strides)
    joined = value.ndim < 3 or value.shape[2] == 1 or value.strides[2] == item
    return value if whole and joined else copied(name, value, value.dtype)


def initial_state(
    value: ArrayLike | None, dtype: np.dtype[Any], batch: int, h: int, batched: bool, name: str = "h0"
) -> FloatArray | None:
    """Return the initial state as a contiguous (B, h) array."""
    if value is None:
        return None
    shape = (batch, h) if batched else (h,)
    return array(name, value, dtype, shape).reshape(batch, h)


def labels(
    value: ArrayLike,
    q: int,
    shape: Shape,
    batched: bool,
    batch_first: bool,
    used: NDArray[np.bool_] | None = None,
    *,
    loss: str,
) -> IntArray:
    """Return class labels as a time-major (T, B) int64 array of values below q.

    Where `used` is False anything may stand, such as the -1 or -100 that marks padding; it becomes 0.
    """
    numbers = numeric("y", value)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"y must hold integer class labels for loss={loss!r}, not {numbers.dtype}")
    check_shape("y", numbers, caller_shape(shape, batched, batch_first))
    steps = time_major(numbers, batched, batch_first)
    if used is not None:
        steps = np.where(used, steps, 0)
    # Compared before the cast: a uint64 beyond int64 must not wrap into range.
    low, high = steps.min(), steps.max()
    if low < 0 or high >= q:
        raise ValueError(f"y must hold class labels from 0 to {q - 1}, not {low if low < 0 else high}")
    return copied("y", steps, np.int64)
