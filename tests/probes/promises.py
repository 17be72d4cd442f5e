"""Measure what a busy machine would not let a test assert: ``python -m probes.promises [NAME ...]``.

Each prints what it measured, and what is promised; the program fails where a promise is not kept. The suite
has the same tests with room for what else a machine does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import rnnbptt
from rnnbptt import Objective, Params

from .everything import CALLS

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _child(code: str) -> str:
    """Run a program that finds the tests' modules; return what it prints."""
    paths = os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def ctrl_c() -> tuple[str, bool]:
    """Interrupt 100 calls; each must raise within 100 ms."""
    code = """
import numpy as np, rnnbptt
from response import answer_to_ctrl_c
params = rnnbptt.Params.random(1, 8, 1, rng=0)
x = np.broadcast_to(np.array(0.5), (2**36, 1))
big = rnnbptt.Params.random(1, 1000, 1, rng=0, kind="identity").W_hh
calls = [
    lambda: rnnbptt.loss_and_grad(params, x, x, num_threads=1),
    lambda: rnnbptt.loss_and_grad(params, x, x, num_threads=2),
    lambda: rnnbptt.vjp(params, x, x, num_threads=2),
    lambda: rnnbptt.matrix_powers(big, 300, num_threads=2),
]
small = np.ones((20, 1))
expected = rnnbptt.loss_and_grad(params, small, small)[1].ravel().tobytes()
for number in range(100):
    print(answer_to_ctrl_c(calls[number % len(calls)], 0.02 + 0.002 * (number % 50)))
    assert rnnbptt.loss_and_grad(params, small, small)[1].ravel().tobytes() == expected
"""
    delays = [float(line) for line in _child(code).split()]
    said = f"{len(delays)} of 100 answered, after {1000 * max(delays):.0f} ms at most (100)"
    return said, len(delays) == 100 and max(delays) <= 0.1


def free_interpreter() -> tuple[str, bool]:
    """Have a thread count during calls on one other; it must keep half of its own rate."""
    from test_concurrency import counting_rate

    rng = np.random.default_rng(0)
    params = Params.random(2, 40, 2, rng=0)
    x, y = rng.standard_normal((2, 100_000, 2, 2))
    objective = Objective(x, y, like=params, num_threads=1)
    share = max(counting_rate(lambda: objective(params)) / counting_rate(None) for _ in range(5))
    enough = len(os.sched_getaffinity(0)) > 1
    return f"{share:.2f} of its own rate (0.5){'' if enough else '; needs two processors'}", share >= 0.5


def threads() -> tuple[str, bool]:
    """Make 1,000 calls on each of 2, 4, 8, 16 and 32 threads; all must be equal to the bit."""
    from fuzz.checking import content

    quick = [name for name in CALLS if "report" not in name and name not in ("gradient_flow", "closed form")]
    expected = {name: content(CALLS[name]()) for name in quick}
    different = 0
    for count in (2, 4, 8, 16, 32):

        def work(number: int) -> int:
            name = quick[number % len(quick)]
            return int(content(CALLS[name]()) != expected[name])

        with ThreadPoolExecutor(count) as pool:
            different += sum(pool.map(work, range(1000 * count), timeout=3600))
    return f"{different} of 62,000 calls of {len(quick)} kinds differ (0)", different == 0


def forks() -> tuple[str, bool]:
    """Fork 100 times; each child must compute the same within 5 s."""
    code = """
import os, time, numpy as np, rnnbptt
params = rnnbptt.Params.random(2, 12, 2, rng=0)
x, y = np.random.default_rng(0).standard_normal((2, 2000, 3, 2))
call = lambda: rnnbptt.loss_and_grad(params, x, y, num_threads=4)[1].ravel().tobytes()
expected = call()
for _ in range(100):
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os._exit(call() != expected)
    assert os.waitpid(pid, 0)[1] == 0
    print(time.monotonic() - start)
"""
    seconds = [float(line) for line in _child(code).split()]
    said = f"{len(seconds)} of 100 children, {max(seconds):.2f} s at most (5)"
    return said, len(seconds) == 100 and max(seconds) < 5


def exits() -> tuple[str, bool]:
    """End 200 processes in the middle of calls; each must be gone within 2 s of its last statement."""
    code = """
import os, sys, threading, time, numpy as np, rnnbptt
params = rnnbptt.Params.random(1, 8, 1, rng=0)
x = np.broadcast_to(np.array(0.5), (2**36 if {number} % 2 else 2000, 1))
def call():
    while True:
        rnnbptt.loss_and_grad(params, x, x, num_threads=2)
for _ in range(2):
    threading.Thread(target=call, daemon=True).start()
time.sleep(0.05)
print(time.time(), flush=True)
{end}
"""
    slowest = 0.0
    for number in range(200):
        last = float(_child(code.format(number=number, end=("", "sys.exit(0)", "os._exit(0)")[number % 3])))
        slowest = max(slowest, time.time() - last)
    return f"200 processes, {slowest:.2f} s at most (2)", slowest < 2


def same_bits() -> tuple[str, bool]:
    """Make every call with 1, 2, 3, 4 and 8 threads, and 100 times; all must be equal to the bit."""
    from fuzz.checking import content

    rng = np.random.default_rng(1)
    different = 0
    for T, B, h in ((3000, 1, 8), (700, 3, 12), (200, 16, 40), (60, 2, 130)):
        params = Params.random(2, h, 2, biases=True, rng=h)
        x, y = rng.standard_normal((2, T, B, 2))

        def call(count: int, params: Params = params, x: Any = x, y: Any = y) -> Any:
            return content(rnnbptt.loss_and_grad(params, x, y, wrt=["W_hh", "W_hx", "x"], num_threads=count))

        expected = call(1)
        different += sum(call(count) != expected for count in (1, 2, 3, 4, 8) * 20)
    return f"{different} of 400 calls differ (0)", different == 0


PROMISES: dict[str, Callable[[], tuple[str, bool]]] = {
    f.__name__: f for f in (ctrl_c, free_interpreter, threads, forks, exits, same_bits)
}


def main() -> int:
    broken = []
    for name in sys.argv[1:] or PROMISES:
        said, kept = PROMISES[name]()
        print(f"{name}: {said}", flush=True)
        broken += [] if kept else [name]
    print("all kept" if not broken else f"not kept: {', '.join(broken)}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
