"""The engine as functions that XLA calls by itself: compiled programs enter them without Python or GIL."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Callable

_PREFIX = "rnnbptt_"


@functools.cache
def available() -> bool:
    """Make the functions known to XLA, once, and return whether it takes them.

    XLA asks each for the version of the interface it was written for (``cpp/bindings/xla_ffi.hpp``). An
    unknown version, registered earlier, would keep XLA's CPU backend from starting: the backend comes first.
    """
    try:
        jax.devices("cpu")
        for name, function in _core.xla_handlers.items():
            jax.ffi.register_ffi_target(_PREFIX + name, function, platform="cpu")
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    return True


def lowering(name: str, **places: tuple[int, ...]) -> Callable[..., Any]:
    """Return JAX's rule for a call of a function. Sets of places of a point are numbers with those bits."""
    sets = {key: np.int64(sum(1 << place for place in chosen)) for key, chosen in places.items()}
    rule = jax.ffi.ffi_lowering(_PREFIX + name)
    return lambda ctx, *args: rule(ctx, *args, **sets)
