"""Every check of an argument, and every allocation of a result: once, here, before any work is done.

What leaves this module is trusted by the extension: aligned, native byte order, the right dtype and shape.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, DTypeLike

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Shape = tuple[int, ...]

SCALAR_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
_NUMERIC_KINDS = "biuf"
MAX_THREADS = 1024
#: Largest array that is read. Broadcasting can make larger ones, which no one could wait for.
MAX_BYTES = 2**42


# --- scalars ------------------------------------------------------------------------------------------------


def integer(name: str, value: object, low: int, high: int = sys.maxsize) -> int:
    """Return `value` as a Python int within ``[low, high]``; booleans and floats are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # the point is to ask whether it is one
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {describe(value)}") from None
    if number < low:
        raise ValueError(f"{name} must be at least {low}, not {number}")
    if number > high:
        raise OverflowError(f"{name} must be at most {high}, not {number}")
    return number


def size(name: str, value: object) -> int:
    """Return `value` as a size of at least one."""
    return integer(name, value, 1)


def num_threads(value: object) -> int:
    """Return a thread count; 0 stands for the process-wide setting."""
    return 0 if value is None else integer("num_threads", value, 1, MAX_THREADS)


def memory_limit(value: object) -> float:
    """Return a number of bytes; 0 stands for the default."""
    return 0.0 if value is None else float(integer("memory_limit", value, 1))


def real(name: str, value: object) -> float:
    """Return `value` as a float."""
    if isinstance(value, (bool, str, bytes)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a real number, not {describe(value)}")
    try:
        return float(value)
    except OverflowError:
        raise OverflowError(f"{name} must be at most {sys.float_info.max}, not {value}") from None


def nonnegative(name: str, value: object) -> float:
    """Return `value` as a finite float of at least zero."""
    number = real(name, value)
    if not (0.0 <= number < math.inf):
        raise ValueError(f"{name} must be finite and at least 0, not {number}")
    return number


def generator(name: str, value: object) -> np.random.Generator:
    """Return a source of randomness: the caller's own, or one from a seed, or from the system's entropy."""
    if value is None or isinstance(value, np.random.Generator):
        return np.random.default_rng(value)
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a Generator, an integer or None, not {describe(value)}")
    return np.random.default_rng(integer(name, value, 0))


def boolean(name: str, value: object) -> bool:
    """Return `value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, not {describe(value)}")
    return bool(value)


def scalar_type(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return the dtype `value` stands for, which must be float32 or float64."""
    try:
        dtype = np.dtype(value)
    except TypeError:
        raise TypeError(f"{name} must be float32 or float64, not {value!r}") from None
    if dtype not in SCALAR_TYPES:
        raise TypeError(f"{name} must be float32 or float64, not {dtype}")
    return dtype


def choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value`, which must be one of `choices`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {describe(value)}")
    if value not in choices:
        allowed = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name} must be one of {allowed}, not {value!r}")
    return value


# --- arrays -------------------------------------------------------------------------------------------------


def describe(value: object) -> str:
    """Return a short description of a value that was not expected."""
    text = repr(value)
    kind = type(value).__name__
    return f"{kind} {text}" if len(text) <= 40 else kind


def _numeric(name: str, value: object) -> NDArray[Any]:
    """Return `value` as an array of booleans, integers or real floats; everything else is a TypeError."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: pass mask= or weights= instead")
    try:
        result = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name} must be an array of numbers: {error}") from None
    if result.dtype.kind not in _NUMERIC_KINDS:
        raise TypeError(f"{name} must be an array of real numbers, not of dtype {result.dtype}")
    # Not result.nbytes, which wraps around for broadcast arrays.
    count = math.prod(result.shape) * result.itemsize
    if count > MAX_BYTES:
        raise MemoryError(
            f"{name} of shape {result.shape} stands for {count} bytes; at most {MAX_BYTES} are read"
        )
    return result


def _cast(name: str, value: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast to `dtype` if NumPy calls that safe; leave an array that is fit for native code as it is."""
    if not np.can_cast(value.dtype, dtype, "safe"):
        raise TypeError(f"{name} has dtype {value.dtype}, which cannot be cast safely to {dtype}")
    if value.dtype == dtype and value.dtype.isnative and value.flags.aligned:
        # A dtype may spell its byte order out, as those of files do: the same numbers, not the same dtype.
        return value if value.dtype.byteorder in "=|" else value.view(dtype)
    return value.astype(dtype)


def _check_shape(name: str, value: NDArray[Any], shape: Shape) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, not {value.shape}")


def array(name: str, value: ArrayLike, dtype: np.dtype[Any], shape: Shape) -> FloatArray:
    """Return `value` as an aligned C-contiguous array of `dtype` and `shape`."""
    numbers = _numeric(name, value)
    _check_shape(name, numbers, shape)
    return np.ascontiguousarray(_cast(name, numbers, dtype))


def number(name: str, value: ArrayLike) -> float:
    """Return `value`, a number or an array of no dimensions, as a float."""
    numbers = _numeric(name, value)
    _check_shape(name, numbers, ())
    return float(numbers)


def integers(name: str, value: ArrayLike, low: int, high: int) -> IntArray:
    """Return `value` as an int64 array of numbers within ``[low, high]``."""
    numbers = _numeric(name, value)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, not {numbers.dtype}")
    if numbers.size and (numbers.min() < low or numbers.max() > high):
        worst = numbers.min() if numbers.min() < low else numbers.max()
        raise ValueError(f"{name} must lie between {low} and {high}, not {worst}")
    return np.ascontiguousarray(numbers, dtype=np.int64).reshape(numbers.shape)


def square(name: str, value: ArrayLike) -> FloatArray:
    """Return `value` as a C-contiguous square matrix of float32 or float64; integers become float64."""
    numbers = _numeric(name, value)
    if numbers.ndim != 2 or numbers.shape[0] != numbers.shape[1] or numbers.shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix of size at least 1, not of shape {numbers.shape}")
    return np.ascontiguousarray(_cast(name, numbers, _own_dtype(name, numbers)))


def _own_dtype(name: str, numbers: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype an array decides by itself: its own float32 or float64, float64 for integers."""
    if numbers.dtype.kind != "f":
        return SCALAR_TYPES[1]
    dtype = numbers.dtype.newbyteorder("=")
    if dtype not in SCALAR_TYPES:
        raise TypeError(f"{name} must be float32 or float64, not {numbers.dtype}")
    return dtype


def parameters(
    W_hx: ArrayLike,
    W_hh: ArrayLike,
    W_qh: ArrayLike,
    b_h: ArrayLike | None,
    b_q: ArrayLike | None,
    W_qx: ArrayLike | None,
) -> dict[str, FloatArray | None]:
    """Check the six parameters against one another."""
    recurrent = square("W_hh", W_hh)
    h = recurrent.shape[0]
    numbers = {"W_hx": _numeric("W_hx", W_hx), "W_qh": _numeric("W_qh", W_qh)}
    for name, matrix in numbers.items():
        expected = f"({h}, d)" if name == "W_hx" else f"(q, {h})"
        axis = 0 if name == "W_hx" else 1
        if matrix.ndim != 2 or matrix.shape[axis] != h or 0 in matrix.shape:
            raise ValueError(f"{name} must have shape {expected}, not {matrix.shape}")
    d, q = numbers["W_hx"].shape[1], numbers["W_qh"].shape[0]

    def optional(name: str, value: ArrayLike | None, shape: Shape) -> FloatArray | None:
        return None if value is None else array(name, value, recurrent.dtype, shape)

    return {
        "W_hx": array("W_hx", numbers["W_hx"], recurrent.dtype, (h, d)),
        "W_hh": recurrent,
        "W_qh": array("W_qh", numbers["W_qh"], recurrent.dtype, (q, h)),
        "b_h": optional("b_h", b_h, (h,)),
        "b_q": optional("b_q", b_q, (q,)),
        "W_qx": optional("W_qx", W_qx, (q, d)),
    }


def sequence(
    name: str, value: ArrayLike, dtype: np.dtype[Any], features: int, batch_first: bool
) -> tuple[FloatArray, bool]:
    """Return a time-major (T, B, features) view of `value`, and whether it came with a batch axis."""
    numbers = _numeric(name, value)
    leading = "(B, T" if batch_first else "(T, B"
    if numbers.ndim not in (2, 3) or numbers.shape[-1] != features:
        raise ValueError(
            f"{name} must have shape (T, {features}) or {leading}, {features}), not {numbers.shape}"
        )
    batched = numbers.ndim == 3
    if 0 in numbers.shape:
        raise ValueError(f"{name} must have at least one step and one sequence, not shape {numbers.shape}")
    return _readable(time_major(_cast(name, numbers, dtype), batched, batch_first)), batched


def like_sequence(
    name: str, value: ArrayLike, dtype: np.dtype[Any], shape: Shape, batched: bool, batch_first: bool
) -> FloatArray:
    """Return a time-major view of `value`, whose shape is settled by another sequence.

    `shape` is time-major and complete: (T, B, features), or (T, B) for labels and weights.
    """
    numbers = _numeric(name, value)
    _check_shape(name, numbers, caller_shape(shape, batched, batch_first))
    return _readable(time_major(_cast(name, numbers, dtype), batched, batch_first))


def caller_shape(shape: Shape, batched: bool, batch_first: bool) -> Shape:
    """Return the shape a caller knows an array of time-major `shape` (T, B, ...) by."""
    steps, batch, *rest = shape
    if not batched:
        return (steps, *rest)
    return (batch, steps, *rest) if batch_first else (steps, batch, *rest)


def time_major(value: NDArray[Any], batched: bool, batch_first: bool) -> NDArray[Any]:
    """Return a view of a caller's array as (T, B, ...)."""
    if not batched:
        return value[:, np.newaxis]
    return value.swapaxes(0, 1) if batch_first else value


def _readable(value: NDArray[Any]) -> NDArray[Any]:
    """Return a (T, B, features) array whose strides are whole scalars and whose features are contiguous."""
    item = value.itemsize
    whole = all(stride % item == 0 for stride in value.strides)
    joined = value.ndim < 3 or value.shape[2] == 1 or value.strides[2] == item
    return value if whole and joined else np.ascontiguousarray(value)


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
) -> IntArray:
    """Return class labels as a time-major (T, B) int64 array of values below q.

    Where `used` is False anything may stand, such as the -1 or -100 that marks padding; it becomes 0.
    """
    numbers = _numeric("y", value)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"y must hold integer class labels for loss='cross_entropy', not {numbers.dtype}")
    _check_shape("y", numbers, caller_shape(shape, batched, batch_first))
    steps = time_major(numbers, batched, batch_first)
    if used is not None:
        steps = np.where(used, steps, 0)
    # Compared before the cast: a uint64 beyond int64 must not wrap into range.
    low, high = steps.min(), steps.max()
    if low < 0 or high >= q:
        raise ValueError(f"y must hold class labels from 0 to {q - 1}, not {low if low < 0 else high}")
    return steps.astype(np.int64)


def step_weights(
    weights: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    dtype: np.dtype[Any],
    shape: tuple[int, int],
    batched: bool,
    batch_first: bool,
) -> tuple[FloatArray | None, IntArray | None]:
    """Return the loss weights as (T, B), and the number of steps of each sequence that matter, as (B,).

    `mask` is a shorthand for weights of 0 and 1, `lengths` for a mask that ends; they multiply. ``None``
    stands for all ones and for the full length. Steps after a sequence's last positive weight influence
    neither loss nor gradients, so the lengths returned leave them out.
    """
    steps, batch = shape
    combined: NDArray[Any] | None = None
    if weights is not None:
        combined = like_sequence("weights", weights, dtype, shape, batched, batch_first)
        if not (np.all(combined >= 0) and np.all(np.isfinite(combined))):
            raise ValueError("weights must be finite and at least 0")
    if mask is not None:
        numbers = _numeric("mask", mask)
        if numbers.dtype.kind != "b":
            raise TypeError(f"mask must be an array of booleans, not of {numbers.dtype}")
        kept = like_sequence("mask", numbers, np.dtype(bool), shape, batched, batch_first)
        combined = kept.astype(dtype) if combined is None else np.where(kept, combined, 0).astype(dtype)
    counts: IntArray | None = None
    if lengths is not None:
        numbers = _numeric("lengths", lengths)
        if numbers.dtype.kind not in "iu":
            raise TypeError(f"lengths must be integers, not of dtype {numbers.dtype}")
        _check_shape("lengths", numbers, (batch,) if batched else ())
        if numbers.min() < 1 or numbers.max() > steps:
            worst = numbers.min() if numbers.min() < 1 else numbers.max()
            raise ValueError(f"lengths must lie between 1 and T = {steps}, not {worst}")
        counts = np.ascontiguousarray(numbers.astype(np.int64).reshape(batch))
    if combined is not None:
        used = used_steps(combined, counts, steps)
        assert used is not None
        if not used.any():
            raise ValueError("weights, lengths and mask leave no step with a positive weight")
        # The last step with a positive weight, plus one; 0 for a sequence with none.
        last = np.where(used.any(axis=0), steps - np.argmax(used[::-1], axis=0), 0)
        counts = np.ascontiguousarray(last, dtype=np.int64)
    return combined, counts


def used_steps(weights: FloatArray | None, lengths: IntArray | None, steps: int) -> NDArray[np.bool_] | None:
    """Return which (T, B) steps take part in the loss; ``None`` for all."""
    running = None if lengths is None else np.arange(steps)[:, np.newaxis] < lengths
    if weights is None:
        return running
    return weights > 0 if running is None else (weights > 0) & running


def names(name: str, value: object, allowed: Collection[str]) -> frozenset[str]:
    """Return a collection of names, each of which must be in `allowed`."""
    if isinstance(value, str):
        value = (value,)
    try:
        chosen: frozenset[Any] = frozenset(value)  # type: ignore[call-overload]  # that is the question
    except TypeError:
        raise TypeError(f"{name} must be a collection of names, not {describe(value)}") from None
    for entry in chosen:
        if not isinstance(entry, str):
            raise TypeError(f"{name} must hold names, not {describe(entry)}")
        if entry not in allowed:
            options = ", ".join(repr(a) for a in allowed)
            raise ValueError(f"{name} must name some of {options}, not {entry!r}")
    return chosen


# --- results ------------------------------------------------------------------------------------------------


def allocate(name: str, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an uninitialised array, or raise a MemoryError that names the bytes it would take."""
    count = math.prod(shape) * dtype.itemsize
    if count > sys.maxsize:
        raise MemoryError(f"cannot allocate {count} bytes for {name} of shape {shape}")
    try:
        return np.empty(shape, dtype)
    except MemoryError:
        raise MemoryError(f"cannot allocate {count} bytes for {name} of shape {shape}") from None


def out(
    name: str, value: object, dtype: np.dtype[Any], shape: Shape, inputs: Collection[NDArray[Any]]
) -> NDArray[Any]:
    """Return the caller's array for a result, or a new one when there is none."""
    if value is None:
        return allocate(name, shape, dtype)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, not {describe(value)}")
    if value.dtype != dtype or not value.dtype.isnative:
        raise TypeError(f"{name} must have dtype {dtype}, not {value.dtype}")
    _check_shape(name, value, shape)
    if not (value.flags.c_contiguous and value.flags.aligned):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if not value.flags.writeable:
        raise ValueError(f"{name} must be writeable")
    if any(np.may_share_memory(value, other) for other in inputs):
        raise ValueError(f"{name} must not overlap an input")
    return value if value.dtype.byteorder in "=|" else value.view(dtype)
