"""A tensor that a file declares, and how its bytes are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..shown import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Returns exactly so many bytes, the next ones, or raises `BadFile`.
Take = Callable[[int], bytes]

#: Bytes that are copied at a time.
PIECE = 1 << 20


class BadFile(ValueError):
    """A file that is not what its name says; the message is half a sentence: "is not ...".

    Attributes
    ----------
    member : str or None
        The array of the file that the sentence is on.
    """

    def __init__(self, why: str, member: str | None = None) -> None:
        super().__init__(why)
        self.member = member


@dataclass(frozen=True)
class Limits:
    """What a file may ask for.

    Attributes
    ----------
    array_bytes : int or None
        Bytes of all tensors that are read together; ``None`` for no limit.
    header_bytes : int
        Bytes of a table of contents. Python objects made of it take some twenty times as much.
    """

    array_bytes: int | None = 1 << 28
    header_bytes: int = 1 << 20


#: What safetensors' own reader takes.
NO_LIMITS = Limits(array_bytes=None, header_bytes=100_000_000)


@dataclass(frozen=True)
class Stored:
    """A tensor of a file, not read yet.

    Attributes
    ----------
    name : str
        As it is in the file.
    shape : tuple of int
    dtype : str
        What people call it; ``"object"`` for what is pickled.
    size : int
        Bytes it takes in memory, read.
    load : callable or None
        Reads it, and checks what can only be checked then. ``None`` where it holds no real numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size: int
    load: Callable[[], NDArray[Any]] | None = field(repr=False)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def read(tensors: list[tuple[str, Stored]], limits: Limits, file: str) -> list[NDArray[Any]]:
    """Read some tensors of one file, each with what the caller calls it.

    Raises
    ------
    ValueError
        If they are larger than `limits` allow, pickled, or their bytes are not what the file declares.
    TypeError
        If one does not hold real numbers.
    """
    for name, tensor in tensors:
        if tensor.dtype == "object":
            raise ValueError(f"{_place(tensor, file)} holds pickled objects, which are never loaded")
        if tensor.load is None:
            raise TypeError(f"{name} must be an array of real numbers, not of dtype {shown(tensor.dtype)}")
    total = sum(tensor.size for _, tensor in tensors)
    if limits.array_bytes is not None and total > limits.array_bytes:
        _, largest = max(tensors, key=lambda named: named[1].size)
        raise ValueError(
            f"{shown(file)} declares arrays that take {total:,} bytes, more than {limits.array_bytes:,} "
            f"({shown(largest.name)} is of shape {shape_text(largest.shape)}): --any-size lifts the limit"
        )
    found = []
    for _, tensor in tensors:
        assert tensor.load is not None
        try:
            found.append(tensor.load())
        except BadFile as error:
            raise ValueError(f"{_place(tensor, file)} {error}") from None
    return found


def _place(tensor: Stored, file: str) -> str:
    """Return which array of which file; that of a .npy file is all there is."""
    return shown(file) if file.lower().endswith(".npy") else f"{shown(tensor.name)} in {shown(file)}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as it is written, however many digits or axes a file gives it."""
    return shown(str(shape)) if all(n < 1 << 64 for n in shape) else f"({len(shape)} axes beyond 2^64)"


def bytes_of(shape: tuple[int, ...], itemsize: int) -> int:
    """Return how many bytes a tensor has; Python's integers do not overflow."""
    return prod(shape) * itemsize


def filled(take: Take, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool = False) -> NDArray[Any]:
    """Return an array of the next bytes: memory is allocated once, and touched as the bytes come."""
    array = np.empty(shape[::-1] if fortran else shape, dtype)
    view = array.reshape(-1).view(np.uint8)
    for start in range(0, view.size, PIECE):
        count = min(PIECE, view.size - start)
        view[start : start + count] = np.frombuffer(take(count), np.uint8)
    if dtype.kind == "b":
        view[...] = view != 0
    return array.T if fortran else array
