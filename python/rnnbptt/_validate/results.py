"""Where results are written: new arrays, or the caller's own."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import check_shape
from .scalars import describe

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from .arrays import Shape


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
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array")
    if value.dtype != dtype or not value.dtype.isnative:
        raise TypeError(f"{name} must have dtype {dtype}, not {value.dtype}")
    check_shape(name, value, shape)
    if not (value.flags.c_contiguous and value.flags.aligned):
        raise ValueError(f"{name} must be C-contiguous and aligned")
    if not value.flags.writeable:
        raise ValueError(f"{name} must be writeable")
    if any(np.may_share_memory(value, other) for other in inputs):
        raise ValueError(f"{name} must not overlap an input")
    return value if value.dtype.byteorder in "=|" else value.view(dtype)
