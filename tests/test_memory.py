"""Sizes beyond memory are a MemoryError that names the bytes, and harm nothing."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt import Params

LIMIT = 3 << 30
SECONDS = 60

small = Params.random(1, 4, 1, rng=0)
wide = Params.random(2, 4, 3, biases=True, rng=0)
large = Params.random(1, 64, 1, rng=0)


def broadcast(value: Any, *shape: int) -> Any:
    return np.broadcast_to(np.asarray(value), shape)


T = 2**40
x, x_wide = broadcast(0.5, T, 1), broadcast(0.5, T, 2)
half = broadcast(0.5, 2**35, 1)  # as long as may be read, and still too long to be kept
labels = broadcast(0, 2**35)
classes, labels8 = Params.random(1, 4, 3, rng=0), broadcast(np.int8(0), 2**35)
narrow, half4 = Params.random(1, 4, 1, rng=0, dtype=np.float32), broadcast(np.float32(0.5), 2**33, 1)
ordinary = np.ones((20, 1))
v = broadcast(0.5, T, 4)
x_longest = broadcast(0.5, 2**59, 1)

CALLS: dict[str, Callable[[], Any]] = {
    "forward": lambda: rnnbptt.forward(small, x),
    "forward, bytes overflow": lambda: rnnbptt.forward(large, broadcast(0.5, 2**58, 1)),
    "forward, float32 in": lambda: rnnbptt.forward(small, broadcast(np.float32(0.5), T, 1)),
    "forward, big-endian in": lambda: rnnbptt.forward(small, broadcast(np.array(0.5, ">f8"), T, 1)),
    "forward, features broadcast": lambda: rnnbptt.forward(wide, x_wide),
    "forward, half as long": lambda: rnnbptt.forward(small, half),
    "forward, wide batch": lambda: rnnbptt.forward(small, broadcast(0.5, 2, 2**35, 1)),
    "linear_scan": lambda: rnnbptt.linear_scan(small.W_hh, v),
    "linear_scan, half as long": lambda: rnnbptt.linear_scan(small.W_hh, broadcast(0.5, 2**34, 4)),
    "state_gradients": lambda: rnnbptt.state_gradients(small, x),
    "state_gradients, half as long": lambda: rnnbptt.state_gradients(small, half),
    "closed form": lambda: rnnbptt.state_gradients(small, half, method="closed_form"),
    "matrix_powers": lambda: rnnbptt.matrix_powers(small.W_hh, T),
    "matrix_powers, bytes overflow": lambda: rnnbptt.matrix_powers(small.W_hh, 2**62),
    "loss_and_grad": lambda: rnnbptt.loss_and_grad(small, x, x),
    "loss_and_grad, bytes overflow": lambda: rnnbptt.loss_and_grad(small, x_longest, x_longest),
    "loss_and_grad by x": lambda: rnnbptt.loss_and_grad(small, half, half, wrt="x"),
    "loss_and_grad, weights": lambda: rnnbptt.loss_and_grad(small, half, half, weights=broadcast(1.0, 2**35)),
    "loss_and_grad, mask": lambda: rnnbptt.loss_and_grad(small, half, half, mask=broadcast(True, 2**35)),
    "loss_and_grad, callable": lambda: rnnbptt.loss_and_grad(small, half, None, loss=lambda o, y: (0.0, o)),
    "loss_and_grad, wide batch": lambda: rnnbptt.loss_and_grad(
        small, broadcast(0.5, 2, 2**28, 1), broadcast(0.5, 2, 2**28, 1)
    ),
    "vjp": lambda: rnnbptt.vjp(small, x, x),
    "vjp by x": lambda: rnnbptt.vjp(small, half, half, wrt="x"),
    "Objective": lambda: rnnbptt.Objective(x, x, like=small),
    "random": lambda: Params.random(1, 2**20, 1),
    "random, bytes overflow": lambda: Params.random(2**40, 2**40, 1),
    "unravel": lambda: small.unravel(x[:, 0]),
    "weights cast": lambda: rnnbptt.loss_and_grad(small, half, half, weights=broadcast(np.float32(1), 2**35)),
    "mask cast": lambda: rnnbptt.loss_and_grad(small, half, half, mask=broadcast(True, 2**35)),
    "labels": lambda: rnnbptt.loss_and_grad(classes, half[: 2**29], labels[: 2**29], loss="cross_entropy"),
    "labels, int8": lambda: rnnbptt.loss_and_grad(
        classes, half[: 2**29], labels8[: 2**29], loss="cross_entropy"
    ),
    "h0 broadcast": lambda: rnnbptt.forward(small, broadcast(0.5, 1, 2**28, 1), broadcast(0.5, 2**28, 4)),
    "report, x cast": lambda: rnnbptt.gradient_flow(narrow, half4, half4),
    "memory_limit": lambda: rnnbptt.loss_and_grad(large, ordinary, ordinary, memory_limit=1),
    "memory_limit, Objective": lambda: rnnbptt.Objective(ordinary, ordinary, memory_limit=1)(large),
}  # fmt: skip

NAMED = {
    "forward, float32 in": "x",
    "forward, big-endian in": "x",
    "forward, features broadcast": "x",
    "weights cast": "copy of weights",
    "mask cast": "weights",
    "labels": "copy of y",
    "labels, int8": "copy of y",
    "h0 broadcast": "copy of h0",
    "report, x cast": "x, y",
    "memory_limit": "memory_limit must be at least",
    "memory_limit, Objective": "memory_limit must be at least",
}  #: What the message must name, beside the bytes.


def fail_and_go_on() -> None:
    """Make every call fail for lack of memory, and go on each time as if nothing had happened."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 20, 1))
    expected = rnnbptt.loss_and_grad(small, a, b)
    before = small.ravel().tobytes(), a.tobytes(), b.tobytes()
    for name, call in CALLS.items():
        print(name, flush=True)
        with pytest.raises(MemoryError, match=r"\b\d+ bytes") as caught:
            call()
        assert re.search(rf"\b({NAMED.get(name, '.*')})\b", str(caught.value)), caught.value
        loss, gradients = rnnbptt.loss_and_grad(small, a, b)
        assert loss == expected[0]
        assert gradients.ravel().tobytes() == expected[1].ravel().tobytes()
        assert (small.ravel().tobytes(), a.tobytes(), b.tobytes()) == before


def test_too_large() -> None:
    # In a process of its own, where memory that is really touched is limited.
    here = Path(__file__)
    code = f"""
import sys
sys.path.insert(0, {str(here.parent)!r})
import test_memory
test_memory.fail_and_go_on()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == list(CALLS)


def test_long_sequences_need_little_memory() -> None:
    # States of all steps would take 1.3 GB; what is kept between windows is a fraction.
    code = """
import resource, numpy as np, rnnbptt
params = rnnbptt.Params.random(1, 8, 1, rng=0)
x = np.broadcast_to(np.array(0.5), (20_000_000, 1))
rnnbptt.loss_and_grad(params, x[:1000], x[:1000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rnnbptt.loss_and_grad(params, x, x)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
assert grown < 600e6, grown
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=SECONDS, check=True)
