"""Files of tensors, whole and corrupt: whatever a seed gives, it gives again."""

from __future__ import annotations

import io
import json
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Corrupt = Callable[[bytes, np.random.Generator], bytes]

METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


class File(NamedTuple):
    """A file: its suffix, its bytes, and what was done to it."""

    suffix: str
    content: bytes
    story: str


# --- whole files --------------------------------------------------------------------------------------------


def arrays(rng: np.random.Generator) -> Arrays:
    """Return parameters of a small model, by one of the ways in which they are named."""
    d, h, q = (int(n) for n in rng.integers(1, 5, 3))
    dtype = rng.choice(["<f4", "<f8", "<f2", ">f8"])
    W = [rng.standard_normal(shape).astype(dtype) for shape in ((h, d), (h, h), (q, h), (h,))]
    names = [
        ("W_hx", "W_hh", "W_qh", "b_h"),
        ("rnn.weight_ih_l0", "rnn.weight_hh_l0", "fc.weight", "rnn.bias_ih_l0"),
    ][int(rng.integers(2))]
    found = dict(zip(names, W, strict=True))
    if rng.random() < 0.3:
        found["step"] = np.array(7)
    return found


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=array.dtype == object)
    return file.getvalue()


#: Pickles of the corpus that were loaded: none may be.
loaded: list[str] = []


def leave_a_trace() -> None:
    loaded.append("a pickle")


class Pickled:
    """Leaves a trace when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return leave_a_trace, ()


def npz(members: list[tuple[str, bytes]], method: int) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that are given twice
        for name, content in members:
            info = zipfile.ZipInfo(name)  # of a fixed date
            info.compress_type = method
            archive.writestr(info, content)
    return file.getvalue()


def safetensors(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensors(found: Arrays) -> tuple[dict[str, Any], bytes]:
    """Return header and data of a .safetensors file."""
    header: dict[str, Any] = {}
    data = b""
    for name, array in found.items():
        kind = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.dtype.itemsize)
        content = array.astype(array.dtype.newbyteorder("<")).tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += content
    return header, data


# --- corruptions of bytes -----------------------------------------------------------------------------------


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _flipped_early(content: bytes, rng: np.random.Generator) -> bytes:
    """Headers are where most goes wrong."""
    cut = min(len(content), 160)
    return _flipped(content[:cut], rng) + content[cut:]


def _flipped_late(content: bytes, rng: np.random.Generator) -> bytes:
    """So is the directory of an archive."""
    cut = max(0, len(content) - 160)
    return content[:cut] + _flipped(content[cut:], rng)


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _extended(content: bytes, rng: np.random.Generator) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 100)))


def _without_a_part(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = sorted(int(n) for n in rng.integers(0, len(content), 2))
    return content[:first] + content[last:]


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    """Numbers that sizes and offsets are made of."""
    values = [
        b"\xff" * 8,
        b"\0" * 8,
        b"\xff\xff\xff\x7f",
        b"\0\0\0\x80",
        struct.pack("<Q", 10**18),
        b"(" * 40,
    ]
    value = values[int(rng.integers(len(values)))]
    at = int(rng.integers(len(content)))
    return content[:at] + value + content[at + len(value) :]


def _noise(content: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(len(content))


BYTES: dict[str, Corrupt] = {
    "bits flipped": _flipped,
    "bits flipped early": _flipped_early,
    "bits flipped late": _flipped_late,
    "truncated": _truncated,
    "extended": _extended,
    "a part cut out": _without_a_part,
    "overwritten": _overwritten,
    "noise": _noise,
}

# --- corruptions of meaning ---------------------------------------------------------------------------------

#: What stands where a number, a name or a list is expected.
_ODD: list[Any] = [
    -1, 0, 1, 2**31, 2**63, 2**64, 10**30, 10**5000,
    1.5, 1e308, True, None, "", "F32", "F8_E4M3", "BF16", "F4",
    "\x1b[2J\x1b]0;title\x07", "a\nb", "\u202e", "\ud800", "x" * 5000, [], [0], [-1, 0], [2**62, 2**62], {},
]  # fmt: skip

_DESCRS = [
    "'<f8'", "'|O'", "'<U9'", "'<c16'", "'|V3'", "'<M8[ns]'", "'<f3'", "''", "'\\x1b[2J'", "[('a', '<f8')]",
    "'<f8,<f8'", "'f'", "'?'", "'<f16'", "'" + "f" * 5000 + "'", "(" * 3000, "None", "__import__('os')",
]  # fmt: skip
_SHAPES = [
    "(2, 2)", "(10**30, 4)", f"({10**30}, 4)", "(-1, 4)", "(0, 0)", "()", "(16384, 16384)", "(4L, 4L)",
    "[2, 2]", f"({'1, ' * 100})", f"({'9' * 4000}, 1)", f"({2**32}, {2**32})", "(True, 2)",
    "(2.0, 2)", "2", "((2, 2),)",
]  # fmt: skip
_NAMES = [
    "W_hh", "W_hh.npy", "a/../../W_hh.npy", "\x1b[31mW_hh", "W\nhh.npy", "\u202ehh_W", "", "é" * 300,
    "x" * 60_000, "weight_hh_l0", "rnn.weight_hh_l1", "weight", "readme.txt", "dir/",
]  # fmt: skip


def _pick(rng: np.random.Generator, values: list[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def odd_npy(rng: np.random.Generator) -> bytes:
    """Return an array whose header is written by hand."""
    header = (
        f"{{'descr': {_pick(rng, _DESCRS)}, "
        f"'fortran_order': {_pick(rng, ['False', 'True', '0', 'None', '[]'])}, "
        f"'shape': {_pick(rng, _SHAPES)}, }}"
    )
    if rng.random() < 0.3:
        at = int(rng.integers(len(header)))
        header = (
            header[:at]
            + _pick(rng, ["'", '"', "(", "{", "\\", "\x00", "\n", "#", "é", "1" * 50])
            + header[at:]
        )
    text = header.encode("latin1", "replace") + b"\n"
    major = int(_pick(rng, [1, 1, 1, 2, 3, 4, 255]))
    length = struct.pack("<H", min(len(text), 65535)) if major == 1 else struct.pack("<I", len(text))
    if rng.random() < 0.1:
        length = b"\xff" * len(length)
    return b"\x93NUMPY" + bytes([major, 0]) + length + text + rng.bytes(int(rng.integers(0, 200)))


def _npz_of_odd_members(rng: np.random.Generator) -> tuple[bytes, str]:
    method = str(rng.choice(list(METHODS)))
    members = [(f"{name}.npy", npy(array)) for name, array in arrays(rng).items()]
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(members)))
        name, content = members[at]
        if rng.random() < 0.5:
            name = str(_pick(rng, _NAMES))
        else:
            draw = rng.random()
            content = odd_npy(rng) if draw < 0.7 else _flipped_early(content, rng)
            if draw > 0.9:
                content = npy(np.array([[Pickled()]], dtype=object))
        members[at : at + int(rng.integers(2))] = [(name or "empty", content)]
    return npz(members, METHODS[method]), f"{method}, odd members"


def _safetensors_of_an_odd_header(rng: np.random.Generator) -> tuple[bytes, str]:
    header, data = tensors(arrays(rng))
    for _ in range(int(rng.integers(1, 3))):
        name = _pick(rng, list(header))
        entry = header[name]
        draw = rng.random()
        if draw < 0.25 or not isinstance(entry, dict) or not entry:
            header[name] = _pick(rng, _ODD)
        elif draw < 0.5:
            entry[_pick(rng, list(entry))] = _pick(rng, _ODD)
        elif draw < 0.7:
            key = _pick(rng, list(entry))
            if isinstance(entry[key], list) and entry[key]:
                entry[key][int(rng.integers(len(entry[key])))] = _pick(rng, _ODD)
        elif draw < 0.85:
            header[str(_pick(rng, _NAMES))] = header.pop(name)
        else:
            entry.pop(_pick(rng, list(entry)))
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    text = json.dumps(header).encode()
    sys.set_int_max_str_digits(limit)
    draw = rng.random()
    if draw < 0.1:
        text = text[:-1] + b"," + text[1:]  # every name twice
    elif draw < 0.2:
        text = b"[" * int(rng.integers(1, 5000)) + text
    elif draw < 0.3:
        text = _pick(rng, [_flipped, _truncated, _overwritten])(text, rng)
    return safetensors(text, data), "odd header"


def odd_array(rng: np.random.Generator) -> NDArray[Any]:
    """Return an array of any shape, dtype and size of its numbers."""
    sizes = [0, 1, 1, 2, 2, 3, 4, 7]
    shape = tuple(int(rng.choice(sizes)) for _ in range(int(rng.integers(0, 4))))
    kind = _pick(rng, ["<f8", "<f8", ">f4", "<f2", "<i8", "|u1", "?", "<c16", "<U3", "<M8[s]", "O"])
    if kind in ("O", "<U3", "<M8[s]"):
        return np.zeros(shape, kind)
    numbers = rng.standard_normal(shape) * float(_pick(rng, [1.0, 1.0, 1e-320, 1e300, 1e160, 0.0]))
    with np.errstate(all="ignore"):
        found = np.asarray(numbers).astype(kind)
    if found.dtype.kind == "f" and found.size and rng.random() < 0.2:
        found.reshape(-1)[0] = _pick(rng, [np.nan, np.inf, -np.inf])
    return found


def _with_odd_arrays(found: Arrays, rng: np.random.Generator) -> Arrays:
    for _ in range(int(rng.integers(1, 3))):
        found[str(_pick(rng, list(found)))] = odd_array(rng)
    return found


def _of_odd_arrays(found: Arrays, rng: np.random.Generator) -> File:
    odd = _with_odd_arrays(found, rng)
    method = _pick(rng, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    return File(".npz", npz([(f"{name}.npy", npy(a)) for name, a in odd.items()], method), "odd arrays")


def data(rng: np.random.Generator) -> File:
    """Return data for `model`, with something wrong, most likely."""
    T, B = int(rng.integers(1, 9)), int(rng.integers(1, 4))
    found: Arrays = {"x": rng.standard_normal((T, B, 1)), "y": rng.standard_normal((T, B, 2))}
    others: Arrays = {
        "h0": rng.standard_normal((B, 3)),
        "lengths": rng.integers(0, T + 1, B),
        "weights": rng.random((T, B)),
        "mask": rng.random((T, B)) < 0.7,
        "fs": np.array(1.0),
    }
    found |= {name: array for name, array in others.items() if rng.random() < 0.3}
    if rng.random() < 0.2:
        found = {name.upper(): array for name, array in found.items()}
    if rng.random() < 0.8:
        return _of_odd_arrays(found, rng)
    content = npz([(f"{name}.npy", npy(array)) for name, array in found.items()], zipfile.ZIP_DEFLATED)
    story = str(rng.choice(list(BYTES)))
    return File(".npz", BYTES[story](content, rng), f"data, then {story}")


def model() -> File:
    """Return parameters that `data` are for."""
    rng = np.random.default_rng(0)
    shapes = {"W_hx": (3, 1), "W_hh": (3, 3), "W_qh": (2, 3)}
    members = [(f"{name}.npy", npy(rng.standard_normal(shape))) for name, shape in shapes.items()]
    return File(".npz", npz(members, zipfile.ZIP_STORED), "whole")


# --- all of it ----------------------------------------------------------------------------------------------


def whole(rng: np.random.Generator) -> File:
    """Return a file with nothing wrong."""
    found = arrays(rng)
    kind = int(rng.integers(3))
    if kind == 0:
        return File(".npy", npy(next(a for name, a in found.items() if "hh" in name)), "whole")
    if kind == 1:
        method = str(rng.choice(list(METHODS)))
        return File(
            ".npz", npz([(f"{n}.npy", npy(a)) for n, a in found.items()], METHODS[method]), f"whole, {method}"
        )
    return File(".safetensors", safetensors(*tensors(found)), "whole")


def corrupt(rng: np.random.Generator) -> File:
    """Return a file with something wrong, most likely: a flipped bit of a number is another number."""
    if rng.random() < 0.5:
        file = whole(rng)
        story = str(rng.choice(list(BYTES)))
        return File(file.suffix, BYTES[story](file.content, rng), f"{file.story}, then {story}")
    kind = int(rng.integers(4))
    if kind == 0:
        return File(".npy", odd_npy(rng), "odd header")
    if kind == 3:
        return _of_odd_arrays(arrays(rng), rng)
    if kind == 1:
        return File(".npz", *_npz_of_odd_members(rng))
    return File(".safetensors", *_safetensors_of_an_odd_header(rng))
