"""The words that fuzzed calls are written in: each call is one line of text, which makes it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import rnnbptt
from rnnbptt import Chunked, Gradients, Params, Randomized, Sliding
from rnnbptt.fit import LinearRNNRegressor

Array = np.ndarray[Any, Any]

# --- arrays ------------------------------------------------------------------------------------------------


def normal(*shape: int, dtype: Any = "f8", seed: int = 0) -> Array:
    """Return a standard normal array; the same for the same words."""
    return np.random.default_rng((seed, len(shape))).standard_normal(shape).astype(dtype)


def whole(*shape: int, dtype: Any = "i8", below: int = 3) -> Array:
    """Return whole numbers from 0."""
    return np.random.default_rng(len(shape)).integers(0, below, shape).astype(dtype)


def shares(*shape: int, dtype: Any = "f8") -> Array:
    """Return weights, a few of them zero, the first of them not."""
    result: Array = np.maximum(np.random.default_rng(1).uniform(-0.2, 2, shape), 0)
    result[(0,) * len(shape)] = 1
    return result.astype(dtype)


def flags(*shape: int) -> Array:
    """Return a mask, the first of it true."""
    result: Array = np.random.default_rng(2).uniform(size=shape) < 0.7
    result[(0,) * len(shape)] = True
    return result


def empty(*shape: int, dtype: Any = "f8") -> Array:
    """Return memory for a result."""
    return np.full(shape, -99, dtype)


def spiked(array: Any, value: float) -> Array:
    """Return a copy with `value` in its middle."""
    result: Array = np.array(array, order="C")
    result.reshape(-1)[result.size // 2] = value
    return result


# --- layouts: the same numbers, laid out in another way -----------------------------------------------------


class Subclass(np.ndarray[Any, Any]):
    """An array of another class."""


def read_only(a: Array) -> Array:
    result = a.copy()
    result.flags.writeable = False
    return result


def strided(a: Array) -> Array:
    wide = np.zeros([2 * n for n in a.shape], a.dtype)
    wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
    return wide[tuple(slice(None, None, 2) for _ in a.shape)]


def backwards(a: Array) -> Array:
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return a[flip].copy()[flip]


def repeated(a: Array) -> Array:
    return np.broadcast_to(a[(0,) * a.ndim], a.shape)


def fortran(a: Array) -> Array:
    return np.asfortranarray(a)


def misaligned(a: Array) -> Array:
    result: Array = np.ndarray(a.shape, a.dtype, np.zeros(a.nbytes + 1, np.uint8)[1:].data)
    result[...] = a
    return result


def in_a_record(a: Array) -> Array:
    record = np.zeros(a.shape, np.dtype([("flag", np.int8), ("value", a.dtype)]))
    record["value"] = a
    return record["value"]


def big_endian(a: Array) -> Array:
    return a.astype(a.dtype.newbyteorder(">"))


def subclass(a: Array) -> Array:
    return a.copy().view(Subclass)


_files = tempfile.TemporaryDirectory(prefix="rnnbptt-fuzz-")


def mapped(a: Array) -> Array:
    path = Path(_files.name) / "array.npy"
    np.save(path, a)
    result: Array = np.load(path, mmap_mode="r")
    path.unlink()
    return result


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    f.__name__: f
    for f in (
        *(read_only, strided, backwards, repeated, fortran, misaligned, in_a_record, big_endian),
        *(subclass, mapped),
    )
}


def plain(layout: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Return what gives the numbers of a layout as an ordinary array."""

    def result(a: Array) -> Array:
        laid = layout(a)
        return np.array(laid, laid.dtype.newbyteorder("="), order="C", subok=False)

    return result


# --- everything else ---------------------------------------------------------------------------------------


def wrong(value: Any) -> Any:
    """Mark a value that must be refused where it stands; it is passed on as it is."""
    return value


def P(d: int, h: int, q: int, terms: int = 0, dtype: Any = "f8", seed: int = 0) -> Params:
    """Return parameters, with all optional terms where `terms` is 1."""
    return Params.random(d, h, q, biases=bool(terms), direct=bool(terms), dtype=np.dtype(dtype), rng=seed)


def G(d: int, h: int, q: int, terms: int = 0, dtype: Any = "f8") -> Gradients:
    """Return such gradients."""
    return Gradients(**dict(P(d, h, q, terms, dtype, 1).items()))


def half_square(o: Array, y: Any) -> tuple[Any, Array]:
    """A caller's own loss; targets are not looked at."""
    return np.sum(o * o) / 2, o  # outputs may be complex


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


#: A problem that methods are called on.
params = P(2, 3, 2, 1)
_x, _y = normal(7, 2, 2), normal(7, 2, 2, seed=1)

WORDS: dict[str, Any] = {
    f.__name__: f for f in (normal, whole, shares, flags, empty, spiked, wrong, P, G, half_square, rng)
} | {
    "np": np,
    "nan": np.nan,
    "inf": np.inf,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "Params": Params,
    "Gradients": Gradients,
    "Sliding": Sliding,
    "Chunked": Chunked,
    "Randomized": Randomized,
}

_OBJECTS: dict[str, Callable[[], Any]] = {
    "params": lambda: params,
    "objective": lambda: rnnbptt.Objective(_x, _y, like=params, wrt=[name for name, _ in params.items()]),
    "flow": lambda: rnnbptt.gradient_flow(params, _x, _y),
    "truncated": lambda: rnnbptt.truncation_report(params, _x, _y, draws=4),
    "coin": lambda: Randomized(3, rng=0),
    "fitted": lambda: LinearRNNRegressor(2, n_starts=1, random_state=0).fit(_x[:, 0], _y[:, 0]),
}
OBJECTS = frozenset(_OBJECTS)


@cache
def made(name: str) -> Any:
    """Return one of the objects whose methods are called."""
    return _OBJECTS[name]()
