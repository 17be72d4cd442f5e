"""Arrays in .npy format: NEP 1, read without evaluating its header as Python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from .stored import BadFile, Stored, Take, bytes_of, filled

if TYPE_CHECKING:
    from collections.abc import Callable

_MAGIC = b"\x93NUMPY"
#: NumPy's own limit. A structured dtype may need more, and is no matrix.
_LONGEST_HEADER = 10_000
#: NumPy's own limit on the number of axes.
_MOST_AXES = 64

_PAIR = re.compile(
    r"""\s*(?:(?P<key>['"](?:descr|fortran_order|shape)['"])\s*:\s*"""
    r"""(?P<value>'[^'\\]*'|"[^"\\]*"|True|False|\((?:\s*\d+L?\s*,)*\s*(?:\d+L?\s*)?\))|(?P<rest>.*))\s*""",
    re.DOTALL,
)
_DESCR = re.compile(r"(?P<order>[<>|=]?)(?P<kind>[a-zA-Z?])(?P<size>\d{0,9})(?P<unit>\[\w{1,9}\])?")
_REAL = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16)}
_ODD = {
    "O": "object",
    "c": "complex",
    "S": "bytes",
    "U": "str",
    "V": "void",
    "M": "datetime",
    "m": "timedelta",
}


def stored(name: str, take: Take, whole: int, done: Callable[[], None] = lambda: None) -> Stored:
    """Read a header, and return what it declares.

    Parameters
    ----------
    name : str
    take : callable
        Gives the bytes from the start of the header on; kept for the data.
    whole : int
        Bytes there are, header included.
    done : callable, optional
        Called when all bytes have been taken.

    Raises
    ------
    BadFile
        If this is no array in .npy format, or not of the size that it declares.
    """
    text, length = _header(take)
    descr, fortran, shape = _fields(text)
    label, dtype = _dtype(descr)
    if label != "object" and bytes_of(shape, 1 if dtype is None else dtype.itemsize) > whole:
        raise _bad(f"it declares {'x'.join(map(str, shape))[:40]} numbers, and has {whole:,} bytes")
    if dtype is None:
        return Stored(name, shape, label, 0, None)
    real, size = dtype, bytes_of(shape, dtype.itemsize)
    if length + size != whole:
        raise _bad(f"it declares {size:,} bytes of data, and has {whole - length:,}")

    def load() -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
        array = filled(take, shape, real, fortran)
        done()
        return array

    return Stored(name, shape, label, size, load)


def _bad(why: str) -> BadFile:
    return BadFile(f"is not an array in .npy format: {why}")


def _header(take: Take) -> tuple[str, int]:
    """Return the header's text, and how many bytes come before the data."""

    def taken(count: int) -> bytes:
        try:
            return take(count)
        except BadFile as error:
            raise _bad(f"it {error}") from None

    start = taken(8)
    if start[:6] != _MAGIC:
        raise _bad("it does not start like one")
    if start[6:] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise _bad(f"its version {start[6]}.{start[7]} is unknown")
    digits = 2 if start[6] == 1 else 4
    length = int.from_bytes(taken(digits), "little")
    if length > _LONGEST_HEADER:
        raise _bad(f"its header has {length:,} bytes, more than {_LONGEST_HEADER:,}")
    # Only names of fields, which no matrix has, could need UTF-8.
    return taken(length).decode("latin1"), 8 + digits + length


def _fields(text: str) -> tuple[str, bool, tuple[int, ...]]:
    """Return descr, fortran_order and shape."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}")):
        raise _bad("its header is no dict")
    found: dict[str, str] = {}
    position, end = 1, len(text) - 1
    while position < end:
        pair = _PAIR.match(text, position, end)
        assert pair is not None  # it takes anything
        if pair["rest"]:
            structured = re.match(r"""\s*['"]descr['"]\s*:\s*\[""", pair["rest"])
            raise _bad("it has fields" if structured else "its header is malformed")
        if pair["key"]:
            key = pair["key"][1:-1]
            if key in found:
                raise _bad(f"its header gives {key} twice")
            found[key] = pair["value"]
        position = pair.end()
        if position < end:
            if text[position] != "," or not pair["key"]:
                raise _bad("its header is malformed")
            position += 1
    if found.keys() != {"descr", "fortran_order", "shape"}:
        raise _bad(f"its header has {', '.join(found) or 'nothing'}, not descr, fortran_order and shape")
    descr, order, shape = found["descr"], found["fortran_order"], found["shape"]
    if not (descr[0] in "'\"" and order in ("True", "False") and shape[0] == "("):
        raise _bad("its header is malformed")
    sizes = [digits.strip().rstrip("L") for digits in shape[1:-1].split(",") if digits.strip()]
    if len(sizes) > _MOST_AXES or any(len(digits) > 40 for digits in sizes):
        raise _bad("its shape is beyond NumPy's")
    return descr[1:-1], order == "True", tuple(int(digits) for digits in sizes)


def _dtype(descr: str) -> tuple[str, np.dtype[np.generic] | None]:
    """Return what a dtype is called, and the dtype if it is of real numbers."""
    match = _DESCR.fullmatch(descr)
    if match is None:
        raise _bad("its dtype is unknown")
    kind, size = match["kind"], int(match["size"] or 0)
    if kind in _ODD and not (kind == "O" and size not in (0, 8)):
        bits = 32 * size if kind == "U" else 8 * size
        return f"{_ODD[kind]}{bits}" if bits and kind != "O" else _ODD[kind], None
    if kind == "?" and not size:
        kind, size = "b", 1
    if size not in _REAL.get(kind, ()) or match["unit"]:
        raise _bad("its dtype is unknown")
    try:
        dtype = np.dtype(f"{match['order']}{kind}{size}")
    except TypeError:  # a long double of some other machine
        return f"float{8 * size}", None
    return dtype.newbyteorder("=").name, dtype
