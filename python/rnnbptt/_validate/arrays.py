"""Checks of arrays whose shape is known, and of the six parameters against one another."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .scalars import SCALAR_TYPES, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, DTypeLike

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
Shape = tuple[int, ...]

_NUMERIC_KINDS = "biuf"
#: Largest array that is read. Broadcasting can make larger ones, which no one could wait for.
MAX_BYTES = 2**42


def numeric(name: str, value: object, expected: str = "an array of real numbers") -> NDArray[Any]:
    """Return `value` as an array of booleans, integers or real floats; everything else is a TypeError."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: pass mask= or weights= instead")
    try:
        result = np.asarray(value)
    except MemoryError:
        raise MemoryError(f"{name} cannot be copied into an array: {describe(value)}") from None
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers: {error}") from None
    except Exception as error:  # whatever a library says of arrays of its own that NumPy cannot read
        raise TypeError(f"{name} must be an array of numbers that NumPy can read: {error}") from error
    if result.dtype.kind not in _NUMERIC_KINDS:
        came = f"of dtype {result.dtype}" if result.ndim else describe(value)
        raise TypeError(f"{name} must be {expected}, not {came}")
    # Not result.nbytes, which wraps around for broadcast arrays.
    count = math.prod(result.shape) * result.itemsize
    if count > MAX_BYTES:
        raise MemoryError(
            f"{name} of shape {result.shape} stands for {count} bytes; at most {MAX_BYTES} are read"
        )
    return result


def cast(name: str, value: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Cast to `dtype` if NumPy calls that safe; leave an array that is fit for native code as it is."""
    if not np.can_cast(value.dtype, dtype, "safe"):
        raise TypeError(f"{name} has dtype {value.dtype}, which cannot be cast safely to {dtype}")
    if value.dtype == dtype and value.dtype.isnative and value.flags.aligned:
        # A dtype may spell its byte order out, as those of files do: the same numbers, not the same dtype.
        return value if value.dtype.byteorder in "=|" else value.view(dtype)
    return copied(name, value, dtype)


def copied(name: str, value: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
    """Return a C-contiguous copy, or raise a MemoryError that names the argument and the bytes."""
    with memory_for(f"a copy of {name}"):
        return value.astype(dtype, order="C")


@contextmanager
def memory_for(what: str) -> Iterator[None]:
    """Let NumPy's errors of memory say what it was for, and how many bytes; also as a decorator."""
    try:
        yield
    except MemoryError as error:
        shape, dtype = getattr(error, "shape", None), getattr(error, "dtype", None)
        if shape is None or dtype is None:
            raise  # it says so already
        count = math.prod(shape) * dtype.itemsize
        raise MemoryError(f"cannot allocate {count} bytes for {what} (an array of shape {shape})") from None


def contiguous(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """Return an array as it is if it is C-contiguous, and a copy otherwise."""
    return value if value.flags.c_contiguous else copied(name, value, value.dtype)


def check_shape(name: str, value: NDArray[Any], shape: Shape) -> None:
    """Refuse an array of another shape."""
    if value.shape != shape:
        hint = ""
        if not name.isidentifier():
            pass
        elif (*value.shape, 1) == shape:
            hint = f": pass {name}[{':, ' * value.ndim}None]"
        elif value.shape == (*shape, 1):
            hint = f": pass {name}[..., 0]"
        raise ValueError(f"{name} must have shape {shape}, not {value.shape}{hint}")


def array(name: str, value: ArrayLike, dtype: np.dtype[Any], shape: Shape) -> FloatArray:
    """Return `value` as an aligned C-contiguous array of `dtype` and `shape`."""
    numbers = numeric(name, value)
    check_shape(name, numbers, shape)
    return contiguous(name, cast(name, numbers, dtype))


def number(name: str, value: ArrayLike) -> float:
    """Return `value`, a number or an array of no dimensions, as a float."""
    numbers = numeric(name, value, "a real number")
    if numbers.ndim:
        raise ValueError(f"{name} must be a number, not an array of shape {numbers.shape}")
    return float(numbers)


def integers(name: str, value: ArrayLike, low: int, high: int) -> IntArray:
    """Return `value` as an int64 array of numbers within ``[low, high]``."""
    numbers = numeric(name, value)
    if numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, not {numbers.dtype}")
    if numbers.size and (numbers.min() < low or numbers.max() > high):
        worst = numbers.min() if numbers.min() < low else numbers.max()
        raise ValueError(f"{name} must lie between {low} and {high}, not {worst}")
    return contiguous(name, cast_integers(name, numbers))


def cast_integers(name: str, value: NDArray[Any]) -> IntArray:
    """Return integers, known to fit, as int64."""
    return value if value.dtype == np.int64 and value.flags.aligned else copied(name, value, np.int64)


def floats(name: str, value: ArrayLike) -> FloatArray:
    """Return `value` as an array of the float32 or float64 it holds; integers become float64."""
    numbers = numeric(name, value)
    return cast(name, numbers, _own_dtype(name, numbers))


def square(name: str, value: ArrayLike) -> FloatArray:
    """Return `value` as a C-contiguous square matrix of float32 or float64; integers become float64."""
    if hasattr(value, "W_hh"):
        raise TypeError(f"{name} must be a square matrix, not {type(value).__name__}: pass params.W_hh")
    numbers = numeric(name, value)
    if numbers.ndim != 2 or numbers.shape[0] != numbers.shape[1] or numbers.shape[0] == 0:
        raise ValueError(f"{name} must be a square matrix of size at least 1, not of shape {numbers.shape}")
    return contiguous(name, cast(name, numbers, _own_dtype(name, numbers)))


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
    numbers = {"W_hx": numeric("W_hx", W_hx), "W_qh": numeric("W_qh", W_qh)}
    for name, matrix in numbers.items():
        expected = f"({h}, d)" if name == "W_hx" else f"(q, {h})"
        axis = 0 if name == "W_hx" else 1
        if matrix.ndim != 2 or matrix.shape[axis] != h or (name == "W_qh" and 0 in matrix.shape):
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
