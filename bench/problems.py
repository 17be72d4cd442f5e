"""What is measured: the grid of named shapes, a sweep per size, and the seeded problem behind each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES: dict[str, np.dtype[Any]] = {"f64": np.dtype(np.float64), "f32": np.dtype(np.float32)}
SPECTRAL_RADIUS = 0.9


@dataclass(frozen=True)
class Shape:
    """Sizes and dtype of one gradient: T steps, B sequences, d inputs, h hidden, q outputs."""

    T: int
    B: int
    d: int
    h: int
    q: int
    dtype: str = "f64"

    def __post_init__(self) -> None:
        if min(self.T, self.B, self.d, self.h, self.q) < 1:
            raise ValueError(f"every size of a shape must be at least 1, not {self}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")

    def __str__(self) -> str:
        return f"{self.T},{self.B},{self.d},{self.h},{self.q},{self.dtype}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `T,B,d,h,q` or `T,B,d,h,q,dtype`."""
        fields = [field.strip() for field in text.split(",")]
        if len(fields) not in (5, 6):
            raise ValueError(f"a shape is T,B,d,h,q or T,B,d,h,q,f32, not {text!r}")
        T, B, d, h, q = (int(field) for field in fields[:5])
        return cls(T, B, d, h, q, *fields[5:])

    @property
    def flops(self) -> int:
        """Multiply-adds of the exact gradient, counted as two: forward, adjoint and weight gradients.

        Inputs cost two products (W_hx x_t and g_t x_t^T); hidden and outputs three (forward, adjoint,
        gradient).
        """
        return 2 * self.T * self.B * (2 * self.h * self.d + 3 * self.h * self.h + 3 * self.h * self.q)


class Problem(NamedTuple):
    """Parameters and data of one shape, C-contiguous and time-major."""

    W_hx: Array
    W_hh: Array
    W_qh: Array
    x: Array
    y: Array

    def astype(self, dtype: str) -> Problem:
        return Problem(*(np.ascontiguousarray(array, DTYPES[dtype]) for array in self))


def build(shape: Shape, seed: int = 0) -> Problem:
    """Draw the problem of a shape; float32 problems are the rounded float64 ones."""
    T, B, d, h, q = shape.T, shape.B, shape.d, shape.h, shape.q
    rng = np.random.default_rng([seed, T, B, d, h, q])
    W_hh = rng.standard_normal((h, h))
    W_hh *= SPECTRAL_RADIUS / np.abs(np.linalg.eigvals(W_hh)).max()
    W_hx = rng.standard_normal((h, d)) / np.sqrt(d)
    W_qh = rng.standard_normal((q, h)) / np.sqrt(h)
    x = rng.standard_normal((T, B, d))
    y = rng.standard_normal((T, B, q))
    return Problem(W_hx, W_hh, W_qh, x, y).astype(shape.dtype)


# The named shapes, each with the ratio to the fastest peer that is promised (two threads for everyone).
GRID: dict[Shape, float] = {
    Shape(100, 1, 1, 4, 1): 8.0,
    Shape(1000, 1, 2, 4, 1): 6.0,
    Shape(1000, 1, 4, 16, 2): 7.0,
    Shape(1000, 1, 8, 64, 8): 5.0,
    Shape(10_000, 1, 4, 256, 4): 6.0,
    Shape(100_000, 1, 2, 8, 2): 15.0,
    Shape(100_000, 1, 2, 32, 2): 18.0,
    Shape(1000, 32, 8, 32, 4): 5.0,
    Shape(100, 32, 128, 128, 128): 2.0,
    Shape(1000, 16, 64, 512, 64): 2.0,
    Shape(1000, 1, 8, 64, 8, "f32"): 4.0,
    Shape(10_000, 1, 4, 256, 4, "f32"): 5.0,
    Shape(35, 32, 28, 256, 28, "f32"): 1.8,
    Shape(100, 32, 128, 128, 128, "f32"): 2.0,
}


@dataclass(frozen=True)
class Sweep:
    """One size varied, the others held."""

    name: str
    size: str
    shapes: tuple[Shape, ...]

    def thinned(self) -> Sweep:
        """Every other point, for a quick look."""
        return replace(self, shapes=self.shapes[::2])

    def value(self, shape: Shape) -> int:
        return int(getattr(shape, self.size))


def _resized(base: Shape, size: str, value: int) -> Shape:
    changes: dict[str, Any] = {size: value}
    return replace(base, **changes)


def _sweep(name: str, size: str, base: Shape, values: tuple[int, ...]) -> Sweep:
    return Sweep(name, size, tuple(_resized(base, size, value) for value in values))


_WIDTHS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_FEATURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

SWEEPS: tuple[Sweep, ...] = (
    _sweep(
        "T",
        "T",
        Shape(1, 1, 2, 32, 2),
        (10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    ),
    _sweep("h", "h", Shape(10_000, 1, 4, 1, 4), _WIDTHS),
    _sweep("h, float32", "h", Shape(10_000, 1, 4, 1, 4, "f32"), _WIDTHS[::2]),
    _sweep("h, batch of 32", "h", Shape(1000, 32, 4, 1, 4), (4, 8, 16, 32, 64, 128, 256)),
    _sweep("B", "B", Shape(200, 1, 8, 32, 4), (1, 2, 3, 4, 7, 8, 16, 32, 64, 128, 256)),
    _sweep("d", "d", Shape(1000, 1, 1, 64, 8), _FEATURES),
    _sweep("q", "q", Shape(1000, 1, 8, 64, 1), _FEATURES),
)
