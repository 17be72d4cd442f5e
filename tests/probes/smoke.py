"""Make every call once, and compare it with the reference: ``python -m probes.smoke [ISA]``.

For emulators and valgrind, in which the test suite would take hours. With the name of an instruction set, the
program fails unless that is the one in use.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, build
from tolerances import gradient_bound, relative_error

from .everything import CALLS


def right(dtype: Any, number: int, sizes: tuple[int, int, int, int, int]) -> None:
    """Compare all gradients of a problem with the oracle's."""
    T, _, _, h, _ = sizes
    rng = np.random.default_rng(number)
    case = build(rng, dtype, sizes, loss=LOSSES[number % len(LOSSES)], steps=STEP_OPTIONS[: number % 4])
    _, exact = case.oracle()
    for _, actual in (case.engine(), case.engine(num_threads=2), case.scheduled(lift=5, window=3, piece=4)):
        for name, gradient in actual.items():
            error = relative_error(gradient, getattr(exact, name))
            assert error <= 8 * gradient_bound(dtype, h, T, 0.9), (name, sizes, error)


def main() -> int:
    isa = str(rnnbptt.build_info()["isa"])
    print(f"instruction set: {isa}")
    if sys.argv[1:] not in ([], [isa]):
        print(f"that should have been {sys.argv[1]}")
        return 1
    for dtype in SCALARS:
        for number, size in enumerate((1, 3, 4, 8, 9, 16, 25)):
            right(dtype, number, (40, 2, 3, size, 2))
            right(dtype, number, (7, size, size, 5, size))
    for name, call in CALLS.items():
        print(name, flush=True)
        call()
    return 0


if __name__ == "__main__":
    sys.exit(main())
