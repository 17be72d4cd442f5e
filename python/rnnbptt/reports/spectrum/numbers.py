"""Numbers of spectral reports: their types, what rounding explains, and how they read as text."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import showing

Real = NDArray[np.float64]
Growth = Literal["nilpotent", "decaying", "bounded", "polynomial", "growing", "undecided"]


def rounding(h: int, dtype: str) -> float:
    """Return the relative size of differences that rounding of an (h, h) matrix explains."""
    return 4 * h * float(np.finfo(dtype).eps)


def exp2(exponent: float) -> float:
    """Return 2^exponent; inf and 0 beyond float64."""
    if exponent >= 1024:
        return math.inf
    return float(2.0**exponent) if exponent > -1080 else 0.0


number = showing.side_of_1


def power_of_two(exponent: float) -> str:
    """Return 2^exponent as a decimal number, with the digits of `number` where float64 reaches."""
    if exponent == math.inf or abs(exponent) < 1000:
        return number(exp2(exponent))
    return showing.power_of_two(exponent)


def steps(count: float) -> str:
    text = number(count) if count == int(count) else showing.number(count, 3)
    return f"{text} step{'' if text == '1' else 's'}"
