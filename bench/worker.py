"""One contender in a process of its own: reads requests from standard input, answers on standard output.

Thread pools of different libraries disturb each other in one process (two OpenMP runtimes, spinning
workers), so each contender is alone in its process. The parent sets the environment before this process
starts, because NumPy reads it on import; see `bench.processes`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from time import perf_counter
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.worker")
    parser.add_argument("contender")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")])
    arguments = parser.parse_args()
    if arguments.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, arguments.cpus)

    # Answers go to the real standard output; whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    try:
        worker = Worker(arguments.contender, arguments.threads)
    except ImportError as error:
        sys.exit(f"{arguments.contender}: {error}")
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """Each public method answers one kind of request."""

    def __init__(self, contender: str, threads: int) -> None:
        from bench.contenders import CONTENDERS

        self._module = CONTENDERS[contender].load()
        self._threads = threads
        self._call: Any = None
        self._seconds = 0.0  # of one call, as tuned

    def about(self) -> str:
        return self._module.version()

    def tune(self, shape: str, seed: int, seconds: float, patience: float, gradients: str) -> dict[str, Any]:
        """Try every variant, keep the fastest, save its gradients; `skipped` says why there is none."""
        import numpy as np

        from bench.problems import Shape, build

        self.drop()
        parsed = Shape.parse(shape)
        problem = build(parsed, seed)
        tried: dict[str, float] = {}
        for name, prepare in self._module.variants(parsed, self._threads).items():
            call = prepare(problem)
            result = call()  # compiles where the contender compiles
            first = _burst(call, 0.0)
            if first > patience:
                return {"skipped": f"{first:.1f} s a call"}
            tried[name] = min(first, _burst(call, seconds))
            if tried[name] == min(tried.values()):
                self._call = call
                saved: dict[str, Any] = {name: np.asarray(value) for name, value in result._asdict().items()}
                np.savez(gradients, **saved)
        if not tried:
            return {"skipped": "too long for it"}
        best = min(tried, key=lambda name: tried[name])
        self._seconds = tried[best]
        return {"variant": best, "seconds": tried[best], "tried": tried}

    def time(self, seconds: float) -> float:
        """Median seconds of one call, over a burst of about `seconds`."""
        # Other contenders ran since: caches, clock rate and sleeping threads come back. Long calls need no
        # help.
        if self._seconds < 0.2:
            self._call()
        return _burst(self._call, seconds)

    def drop(self) -> None:
        """Free the problem."""
        self._call = None
        gc.collect()

    def matmul(self, dtype: str) -> float:
        """GF/s of NumPy's 2048-square product."""
        from bench.contenders.numpy_loop import matmul_rate
        from bench.problems import DTYPES

        return matmul_rate(DTYPES[dtype])

    def panel(self, dtype: str) -> float | None:
        """GF/s of the project's own panel product, where the build exposes it."""
        from bench.contenders.objective import panel_rate

        return panel_rate(dtype, self._threads)


def _burst(call: Any, seconds: float) -> float:
    """Median seconds of one call, called at least once and until `seconds` have passed."""
    times: list[float] = []
    start = now = perf_counter()
    while not times or now - start < seconds:
        before = now
        call()
        now = perf_counter()
        times.append(now - before)
    times.sort()
    return times[len(times) // 2]


if __name__ == "__main__":
    main()
