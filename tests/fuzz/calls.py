"""Calls of every public function with arguments of all kinds: ``python -m fuzz.calls --count 100000``.

    python -m fuzz.calls [--count N] [--seed S] [--only FUNCTION] [--keep]
    python -m fuzz.calls --replay 'forward(params=P(2, 3, 1), x=normal(5, 3))'

A call must answer or be refused (TypeError, ValueError, OverflowError, MemoryError) by a message that names
one of its arguments, in reasonable time; without a warning or a FloatingPointError, though NumPy is told to
raise them; it writes to no input; what it accepts gives the bits of the same numbers in C order; and what is
marked ``wrong(...)`` it does not accept. Each kind of fault is shown once, by the simplest call that has it;
``--keep`` adds these to the corpus, which the test suite replays.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import rnnbptt

from .checking import Fault, fault_of, parsed
from .functions import Call
from .grammar import draw, drawn, simpler

CORPUS = Path(__file__).parent / "corpus" / "calls.txt"
#: Bytes that all calls together may have, so that one that asks for all of them is refused.
MEMORY = 12 << 30


def corpus() -> list[str]:
    """Return the calls that once went wrong."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def shrunk(call: Call, fault: Fault) -> Fault:
    """Return the same fault of the simplest call that has it."""
    for candidate in simpler(call):
        other = fault_of(candidate)
        if other is not None and other.kind == fault.kind:
            return shrunk(candidate, other)
    return fault


def fuzzed(count: int, seed: int, only: str | None = None) -> tuple[Counter[str], dict[str, Fault]]:
    """Make `count` calls; return how often each kind of fault was seen, and its simplest call."""
    rng = np.random.default_rng(seed)
    threads = rnnbptt.get_num_threads()
    counts: Counter[str] = Counter()
    faults: dict[str, Fault] = {}
    try:
        for _ in range(count):
            call = drawn(rng, only) if only else draw(rng)
            fault = fault_of(call)
            if fault is None:
                continue
            if fault.kind not in faults:
                faults[fault.kind] = shrunk(call, fault)
            counts[fault.kind] += 1
    finally:
        rnnbptt.set_num_threads(threads)
    return counts, faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz.calls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="FUNCTION")
    parser.add_argument("--keep", action="store_true", help="add what is found to the corpus")
    parser.add_argument("--replay", metavar="CALL")
    given = parser.parse_args()
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # which takes more than that for itself
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if given.replay:
        fault = fault_of(parsed(given.replay))
        print(fault or "no fault")
        return int(fault is not None)
    start = time.perf_counter()
    counts, faults = fuzzed(given.count, given.seed, given.only)
    for kind, number in counts.most_common():
        print(f"{number:6} {kind}\n       {faults[kind].call}\n       {faults[kind].said[:300]}")
    seconds = time.perf_counter() - start
    print(f"{given.count} calls in {seconds:.0f} s: {sum(counts.values())} faults of {len(counts)} kinds")
    if given.keep:
        known = set(corpus())
        with CORPUS.open("a", encoding="utf-8") as file:
            file.writelines(f"{fault.call}\n" for fault in faults.values() if fault.call not in known)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
