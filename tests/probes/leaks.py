"""Make ten thousand calls, good and bad, and see what is left of them: ``python -m probes.leaks [COUNT]``.

Arguments must have as many references as before, and the process no more memory. Under LeakSanitizer, which
says what was lost when the process ends, memory is not measured: it keeps what is freed for a while.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import warnings
from typing import Any

import numpy as np

import rnnbptt
from fuzz.checking import evaluated
from fuzz.functions import RARE, Call, Function, functions
from fuzz.grammar import draw
from fuzz.vocabulary import LAYOUTS

from .everything import CALLS, INPUTS

#: Bytes that the process may grow by, once all kinds of calls have been made.
GROWTH = 1 << 20


def held(values: Any) -> list[int]:
    """Return how many references there are to each value."""
    return [sys.getrefcount(value) for value in values]


def arrays_of(values: Any) -> list[Any]:
    """Return all arrays in values, those of parameters and gradients too."""
    found = []
    for value in values:
        if hasattr(value, "items") and not isinstance(value, dict | type):
            found += [array for _, array in value.items()]
        elif isinstance(value, np.ndarray):
            found.append(value)
    return found


def lost_references(call: Call, function: Function) -> str | None:
    """Make a call; say whether anything keeps its arguments afterwards."""
    if " for " in str(call):  # a generator keeps all it was made among until it is used up
        return None
    try:
        given = evaluated(call, dict(LAYOUTS))
    except Exception:
        return None
    watched = arrays_of(given.values())
    before = held(watched)
    try:
        function.call(**given)
    except Exception as error:
        error.__traceback__ = None
    if held(watched) != before:
        gc.collect()  # what reports refer to may refer to them
        if held(watched) != before:
            return f"{call}: references {before} became {held(watched)}"
    return None


def resident() -> int:
    """Return the bytes of memory that this process has, and cannot give back."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rounds(count: int, seed: int) -> list[str]:
    """Make `count` calls; return those that lost references."""
    rng = np.random.default_rng(seed)
    before = held(arrays_of(INPUTS))
    wrong: list[str] = []
    names = list(CALLS)
    for number in range(count):
        if number % 10 == 0:
            CALLS[names[number // 10 % len(names)]]()
            continue
        call = draw(rng)
        function = functions()[call.function]
        if function.share == RARE:  # fits keep what scikit-learn and joblib keep
            continue
        found = lost_references(call, function)
        if found is not None:
            wrong.append(found)
    gc.collect()
    if held(arrays_of(INPUTS)) != before:
        wrong.append("a call of probes.everything keeps its arguments")
    return wrong


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    threads = rnnbptt.get_num_threads()
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")
    quarter = -(-count // 4)
    # The same calls before those that are measured, so that every cache and pool is as large as it gets.
    wrong = rounds(quarter, 0) + rounds(quarter, 0)
    start = resident()
    for _ in range(4):
        wrong += rounds(quarter, 0)
    grown = resident() - start
    rnnbptt.set_num_threads(threads)
    print(f"{6 * quarter} calls; grown by {grown / 1024:.0f} KiB in the last {4 * quarter}")
    print(f"{len(wrong)} kept their arguments", *wrong[:20], sep="\n")
    instrumented = "libasan" in os.environ.get("LD_PRELOAD", "")
    return int(bool(wrong) or (grown >= GROWTH and not instrumented))


if __name__ == "__main__":
    sys.exit(main())
