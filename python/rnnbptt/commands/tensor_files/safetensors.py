"""Tensors in .safetensors format: eight bytes of length, a header in JSON, and the bytes of all tensors."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..shown import shown
from .stored import PIECE, BadFile, Limits, Stored, bytes_of, filled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

#: What NumPy knows.
_KNOWN = {
    "BOOL": "?",
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
}
#: Floats of eight bits: exponent bits, bias, and which codes are not finite.
_EIGHT_BITS = {
    "F8_E4M3": (4, 7, "ones"),
    "F8_E5M2": (5, 15, "ieee"),
    "F8_E4M3FNUZ": (4, 8, "negative zero"),
    "F8_E5M2FNUZ": (5, 16, "negative zero"),
    "F8_E8M0": (8, 127, "scale"),
}


def stored(file: IO[bytes], size: int, limits: Limits) -> dict[str, Stored]:
    """Return what a file declares.

    Raises
    ------
    BadFile
        If its header is not one, gives a name twice, or gives tensors other bytes than there are: they must
        follow one another without gaps or overlaps, to the end of the file.
    """
    header, start = _header(file, size, limits)
    found, places = {}, []
    for name, entry in header.items():
        if name != "__metadata__":
            first, last, tensor = _tensor(file, start, name, entry)
            found[name] = tensor
            places.append((first, last, name))
    end = 0
    for first, last, name in sorted(places):
        if first != end:
            raise _bad(f"the bytes of {shown(name)} {'overlap others' if first < end else 'follow a gap'}")
        end = last
    if start + end != size:
        raise _bad(f"it declares {end:,} bytes of tensors, and has {size - start:,}")
    return found


def _bad(why: str) -> BadFile:
    return BadFile(f"is not a .safetensors file: {why}")


def _header(file: IO[bytes], size: int, limits: Limits) -> tuple[dict[str, Any], int]:
    """Return the header, and where it ends."""
    if size < 8:
        raise _bad(f"it has {size} bytes")
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise _bad(f"it declares a header of {length:,} bytes, and has {size - 8:,}")
    if length > limits.header_bytes:
        raise BadFile(f"has a header of {length:,} bytes, more than {limits.header_bytes:,}")
    try:
        header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
    except BadFile:
        raise
    except (ValueError, RecursionError):  # of decoding, too
        raise _bad("its header is not JSON in UTF-8") from None
    if not isinstance(header, dict):
        raise _bad("its header is no object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadFile(f"holds {shown(name)} twice")
        found[name] = value
    return found


def _tensor(file: IO[bytes], start: int, name: str, entry: Any) -> tuple[int, int, Stored]:
    """Return where a tensor's bytes start and end, counted from the end of the header, and the tensor."""
    if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}):
        raise _bad(f"{shown(name)} does not have dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise _bad(f"dtype, shape or data_offsets of {shown(name)} are malformed")
    first, last = offsets
    label, itemsize, load = _loader(dtype, tuple(shape))
    if last < first or (itemsize is not None and last - first != bytes_of(tuple(shape), itemsize)):
        raise _bad(f"the bytes of {shown(name)} are not as many as its shape needs")
    if load is None:
        return first, last, Stored(name, tuple(shape), label, last - first, None)
    loaded = load

    def take_from_here() -> NDArray[Any]:
        file.seek(start + first)

        def take(count: int) -> bytes:
            data = file.read(count)
            if len(data) < count:
                raise BadFile(f"ends {count - len(data):,} bytes early")
            return data

        return loaded(take)

    widened = dtype not in _KNOWN
    size = bytes_of(tuple(shape), 4) if widened else last - first
    return first, last, Stored(name, tuple(shape), label, size, take_from_here)


def _are_sizes(value: Any) -> bool:
    """Whether JSON gave a list of few integers within 64 bits; true and false are none."""
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(type(number) is int and 0 <= number < 1 << 64 for number in value)
    )


def _loader(
    dtype: str, shape: tuple[int, ...]
) -> tuple[str, int | None, Callable[[Any], NDArray[Any]] | None]:
    """Return what a dtype is called, bytes per number if known, and what reads a tensor of it."""
    if dtype in _KNOWN:
        known = np.dtype(_KNOWN[dtype])
        return known.name, known.itemsize, lambda take: filled(take, shape, known)
    if dtype == "BF16":
        return "bfloat16", 2, lambda take: _widened(take, shape, np.dtype("<u2"), _bfloat16)
    if dtype in _EIGHT_BITS:
        table = eight_bit_floats(dtype)
        name = dtype.lower().replace("f8", "float8", 1)
        return name, 1, lambda take: _widened(take, shape, np.dtype("u1"), lambda codes: table[codes])
    return dtype, None, None


def _widened(
    take: Any, shape: tuple[int, ...], codes: np.dtype[Any], widen: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[np.float32]:
    """Return float32 numbers of shorter ones, exactly, a piece at a time."""
    result = np.empty(shape, np.float32)
    flat = result.reshape(-1)
    for start in range(0, flat.size, PIECE):
        count = min(PIECE, flat.size - start)
        flat[start : start + count] = widen(np.frombuffer(take(count * codes.itemsize), codes))
    return result


def _bfloat16(codes: NDArray[Any]) -> NDArray[Any]:
    """The upper half of a float32."""
    widened: NDArray[np.float32] = (codes.astype(np.uint32) << 16).view(np.float32)
    return widened


def eight_bit_floats(dtype: str) -> NDArray[np.float32]:
    """Return the 256 values of a float of eight bits, by their codes.

    ``(-1)^s 2^(e - bias) (1 + m / 2^M)``, and ``(-1)^s 2^(1 - bias) m / 2^M`` where e is 0. F8_E8M0 is a
    power of two, without sign or zero.
    """
    exponent_bits, bias, special = _EIGHT_BITS[dtype]
    codes = np.arange(256)
    if special == "scale":
        values = np.ldexp(1.0, codes - bias)
        values[255] = np.nan
        return np.asarray(values, np.float32)
    M = 7 - exponent_bits
    sign, e, m = np.where(codes & 128, -1.0, 1.0), codes >> M & (1 << exponent_bits) - 1, codes & (1 << M) - 1
    values = sign * np.ldexp(np.where(e > 0, m + 2.0**M, m), np.maximum(e, 1) - bias - M)
    if special == "ones":
        values[codes & 127 == 127] = np.nan
    elif special == "negative zero":
        values[128] = np.nan
    else:
        top = e == (1 << exponent_bits) - 1
        values[top] = np.where(m[top] > 0, np.nan, sign[top] * np.inf)
    return np.asarray(values, np.float32)
