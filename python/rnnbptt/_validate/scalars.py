"""Checks of single values: numbers, switches, names, dtypes, sources of randomness."""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import DTypeLike

SCALAR_TYPES = (np.dtype(np.float32), np.dtype(np.float64))
MAX_THREADS = 1024
#: Seconds of work that a count may ask for.
MAX_SECONDS = 3600


def describe(value: object) -> str:
    """Return a short description of a value that was not expected."""
    kind = type(value).__name__
    if value is None or isinstance(value, (bool, np.bool_)):
        return str(value)
    if isinstance(value, int):
        return f"{kind} {written(value)}"
    try:  # what follows is somebody else's code, which may fail
        shape = getattr(value, "shape", None)
        if isinstance(shape, tuple) and shape:
            return f"{kind} of shape {tuple(shape)}"
        text = repr(value)
    except Exception:
        return kind
    return f"{kind} {text}" if len(text) <= 40 else kind


def quoted(text: str) -> str:
    """Return a text in quotes, cut where it is long."""
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."


def written(number: int) -> str:
    """Return an integer as text; of one with too many digits to be read, how many bits it has."""
    # Python refuses to write out more than some thousands of digits.
    return str(number) if number.bit_length() <= 256 else f"a number of {number.bit_length()} bits"


def integer(name: str, value: object, low: int, high: int = sys.maxsize) -> int:
    """Return `value` as a Python int within ``[low, high]``; booleans and floats are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {describe(value)}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # the point is to ask whether it is one
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {describe(value)}") from None
    if number < low:
        raise ValueError(f"{name} must be at least {low}, not {written(number)}")
    if number > high:
        raise OverflowError(f"{name} must be at most {high}, not {written(number)}")
    return number


def size(name: str, value: object) -> int:
    """Return `value` as a size of at least one."""
    return integer(name, value, 1)


def affordable(name: str, count: int, seconds: float) -> None:
    """Refuse a count of what takes so many seconds each, roughly, and more than an hour together."""
    most = max(1, int(MAX_SECONDS / seconds)) if seconds > 0 else sys.maxsize
    if count > most:
        hours = f"about {count * seconds / 3600:,.1f} hours of work, where one is allowed"
        raise ValueError(f"{name} must be at most {most} for this problem, not {count}: {hours}")


def num_threads(value: object) -> int:
    """Return a thread count; 0 stands for the process-wide setting."""
    return 0 if value is None else integer("num_threads", value, 1, MAX_THREADS)


def memory_limit(value: object) -> float:
    """Return a number of bytes; 0 stands for the default."""
    return 0.0 if value is None else float(integer("memory_limit", value, 1))


def real(name: str, value: object) -> float:
    """Return `value` as a float."""
    # To NumPy a span of time is an integer.
    if isinstance(value, (bool, np.timedelta64)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise TypeError(f"{name} must be a real number, not {describe(value)}")
    try:
        return float(value)
    except OverflowError:
        came = written(value) if isinstance(value, int) else describe(value)
        raise OverflowError(f"{name} must be at most {sys.float_info.max}, not {came}") from None


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


def _dtype(
    name: str, value: DTypeLike, expected: str, fits: Callable[[np.dtype[Any]], bool]
) -> np.dtype[Any]:
    try:
        dtype = np.dtype(value)
    except Exception:  # of many types, some of the text of a dtype
        raise TypeError(f"{name} must be {expected}, not {describe(value)}") from None
    if not fits(dtype):
        raise TypeError(f"{name} must be {expected}, not {dtype}")
    return dtype


def scalar_type(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return the dtype `value` stands for, which must be float32 or float64."""
    return _dtype(name, value, "float32 or float64", lambda dtype: dtype in SCALAR_TYPES)


def real_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of real floats that `value` stands for."""
    return _dtype(name, value, "a dtype of real numbers", lambda dtype: dtype.kind == "f")


def complex_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return the dtype of complex numbers, of float64 at least, that `value` stands for."""
    least = np.dtype(np.complex128).itemsize
    expected = "complex128 or clongdouble"
    return _dtype(name, value, expected, lambda dtype: dtype.kind == "c" and dtype.itemsize >= least)


def choice(name: str, value: object, choices: Collection[str]) -> str:
    """Return `value`, which must be one of `choices`."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {describe(value)}")
    if value not in choices:
        allowed = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{name} must be one of {allowed}, not {quoted(value)}")
    return value


def names(name: str, value: object, allowed: Collection[str]) -> frozenset[str]:
    """Return a collection of names, each of which must be in `allowed`."""
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=describe)  # the first one that is wrong does not depend on hashes
    try:
        entries = iter(value)  # type: ignore[call-overload]  # that is the question
    except TypeError:
        raise TypeError(f"{name} must be a collection of names, not {describe(value)}") from None
    chosen = []
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"{name} must hold names, not {describe(entry)}")
        if entry not in allowed:
            options = ", ".join(repr(a) for a in allowed)
            raise ValueError(f"{name} must name some of {options}, not {quoted(entry)}")
        chosen.append(str(entry))
    return frozenset(chosen)
