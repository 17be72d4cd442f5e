"""Calls beside other Python threads, under signals, after a fork, and at the end of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import Case, assert_identical, build
from response import ANSWER_TO_CTRL_C
from rnnbptt import Objective, Params
from speed import slow, thinned

SECONDS = 60
TIMES_IDLE = 10  # how much longer a program may take to exit while its threads compute
LEAST_RATE = 0.3  # of its own rate, what another thread keeps during a call


def child(code: str, *arguments: str, timeout: float = SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def problem(seed: int = 0, T: int = 400, B: int = 3, h: int = 12) -> Case:
    return build(np.random.default_rng(seed), np.float64, (T, B, 2, h, 2), steps=("weights",))


# --- Python threads -----------------------------------------------------------------------------------------


def counting_rate(work: Callable[[], Any] | None) -> float:
    """Increments per second of a thread in pure Python, alone or during calls of `work`."""
    stop = threading.Event()
    count = 0

    def counter() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1

    thread = threading.Thread(target=counter)
    start = time.perf_counter()
    thread.start()
    while time.perf_counter() - start < 0.3:
        if work is None:
            time.sleep(0.01)
        else:
            work()
    stop.set()
    thread.join()
    return count / (time.perf_counter() - start)


@slow
@pytest.mark.skipif(rnnbptt.get_num_threads() < 2, reason="needs two processors")
def test_the_interpreter_is_free_during_a_call() -> None:
    case = problem(T=100_000, B=2, h=40)
    objective = Objective(case.x, case.y, like=case.params, num_threads=1)
    out = rnnbptt.forward(case.params, case.x)
    work: dict[str, Callable[[], Any]] = {
        "Objective": lambda: objective(case.params),
        "forward": lambda: rnnbptt.forward(case.params, case.x, num_threads=1, out=out),
        "matrix_powers": lambda: rnnbptt.matrix_powers(case.params.W_hh, 10_000, num_threads=1),
    }
    for name, call in work.items():
        # The better of a few: other processes may take the second processor away.
        ratio = max(counting_rate(call) / counting_rate(None) for _ in range(3))
        assert ratio >= LEAST_RATE, name


@pytest.mark.parametrize("workers", [2, 8, 32])
def test_threads_that_share_an_objective(workers: int) -> None:
    case = problem()
    options = {name: case.options[name] for name in ("h0", "weights")}
    objective = Objective(case.x, case.y, like=case.params, num_threads=2, wrt=case.wrt, **options)
    points = [Params.random(2, 12, 2, biases=True, direct=True, rng=seed) for seed in range(8)]
    expected = [objective(point) for point in points]

    def evaluate(number: int) -> None:
        loss, gradients = objective(points[number % 8])
        assert loss == expected[number % 8][0]
        assert_identical(gradients, expected[number % 8][1])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(evaluate, range(400), timeout=SECONDS))


def test_threads_that_share_everything_else() -> None:
    case = problem(1)
    objective = Objective(case.x, case.y, like=case.params)
    theta = case.params.ravel()
    calls: list[Callable[[], bytes]] = [
        lambda: rnnbptt.forward(case.params, case.x).o.tobytes(),
        lambda: rnnbptt.vjp(case.params, case.x, case.y).ravel().tobytes(),
        lambda: rnnbptt.linear_scan(case.params.W_hh, np.ones((500, 12))).tobytes(),
        lambda: rnnbptt.matrix_powers(case.params.W_hh, 30).tobytes(),
        lambda: objective.flat(theta)[1].tobytes(),
        lambda: case.engine(num_threads=3)[1].ravel().tobytes(),
    ]
    expected = [call() for call in calls]

    def evaluate(number: int) -> bool:
        return calls[number % len(calls)]() == expected[number % len(calls)]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(evaluate, range(600), timeout=SECONDS))


def test_number_of_threads() -> None:
    before = rnnbptt.get_num_threads()
    try:
        rnnbptt.set_num_threads(3)
        assert rnnbptt.get_num_threads() == 3
        assert rnnbptt.build_info()["num_threads"] == 3
    finally:
        rnnbptt.set_num_threads(before)
    environment = os.environ | {"RNNBPTT_NUM_THREADS": "5"}
    done = subprocess.run(
        [sys.executable, "-c", "import rnnbptt; print(rnnbptt.get_num_threads())"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "5"


@pytest.mark.parametrize("value", ["0", "-1", "1025", "2.5", "many"])
def test_a_number_of_threads_in_the_environment_that_is_none_is_refused(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import rnnbptt"],
        env=os.environ | {"RNNBPTT_NUM_THREADS": value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert f"RNNBPTT_NUM_THREADS must be an integer from 1 to 1024, not '{value}'" in done.stderr


# --- Ctrl-C -------------------------------------------------------------------------------------------------

LONG_CALLS = {
    "loss_and_grad": "rnnbptt.loss_and_grad(params, x, x, num_threads=threads)",
    "Objective": "rnnbptt.Objective(x, x, like=params, num_threads=threads).flat(params.ravel())",
    "vjp": "rnnbptt.vjp(params, x, x, num_threads=threads)",
    "powers": "rnnbptt.matrix_powers(big, 20, num_threads=threads)",
    "scan": "rnnbptt.linear_scan(big, v, num_threads=threads)",
    "forward": "rnnbptt.forward(deep, v, num_threads=threads)",
}


@pytest.mark.parametrize(("name", "threads"), thinned(product(LONG_CALLS, (1, 2)), 7))
def test_ctrl_c(name: str, threads: int) -> None:
    done = child(
        f"""
        import sys
        import numpy as np, rnnbptt
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from response import answer_to_ctrl_c
        threads = {threads}
        params = rnnbptt.Params.random(1, 8, 1, rng=0)
        x = np.broadcast_to(np.array(0.5), (2**36, 1))
        big = rnnbptt.Params.random(1, 2000, 1, rng=0, kind="identity").W_hh
        deep = rnnbptt.Params(np.eye(2000), big, np.ones((1, 2000)))
        v = np.ones((8000, 2000))
        small = np.ones((20, 1))
        expected = rnnbptt.loss_and_grad(params, small, small)
        for delay in (0.05, 0.3, 0.45):
            print(answer_to_ctrl_c(lambda: {LONG_CALLS[name]}, delay))
            again = rnnbptt.loss_and_grad(params, small, small)
            assert again[0] == expected[0]
            assert again[1].ravel().tobytes() == expected[1].ravel().tobytes()
        """
    )
    assert done.returncode == 0, done.stderr
    delays = [float(line) for line in done.stdout.split()]
    assert len(delays) == 3
    assert max(delays) < ANSWER_TO_CTRL_C


def test_a_handler_of_the_callers_own() -> None:
    done = child(
        """
        import signal, numpy as np, rnnbptt
        class Alarm(Exception): pass
        def handler(*_): raise Alarm
        signal.signal(signal.SIGALRM, handler)
        params = rnnbptt.Params.random(1, 8, 1, rng=0)
        x = np.broadcast_to(np.array(0.5), (2**36, 1))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            rnnbptt.loss_and_grad(params, x, x)
        except Alarm:
            print("seen")
        """
    )
    assert done.stdout.strip() == "seen", done.stderr


# --- fork, spawn and exit -----------------------------------------------------------------------------------


def test_children_of_fork() -> None:
    done = child(
        """
        import os, signal, threading, time
        import numpy as np, rnnbptt
        params = rnnbptt.Params.random(2, 12, 2, rng=0)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((2, 2000, 3, 2))
        objective = rnnbptt.Objective(x, y, like=params, num_threads=4)
        expected = objective(params)[1].ravel().tobytes()
        stop = False
        def busy():
            while not stop:
                rnnbptt.loss_and_grad(params, x, y, num_threads=4)
        for beside in (False, True):
            worker = threading.Thread(target=busy)
            if beside:
                worker.start()
            for _ in range(50):
                pid = os.fork()
                if pid == 0:
                    # Not the shared objective while another thread may be inside it: that is the parent's.
                    same = rnnbptt.loss_and_grad(params, x, y, num_threads=4)[1].ravel().tobytes() == expected
                    if not beside:
                        same = same and objective(params)[1].ravel().tobytes() == expected
                    os._exit(0 if same else 1)
                # While the child makes two calls the parent makes many more: whatever else the machine does,
                # one that has not ended by then hangs.
                for _ in range(1000):
                    assert objective(params)[1].ravel().tobytes() == expected
                    done, status = os.waitpid(pid, os.WNOHANG)
                    if done:
                        break
                    time.sleep(0.001)
                if not done:
                    os.kill(pid, signal.SIGKILL)  # or it would outlive the test
                assert done, "a child hangs"
                assert status == 0, status
            if beside:
                stop = True
                worker.join()
        print("ok")
        """
    )
    assert done.stdout.strip() == "ok", done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_workers_are_the_processs_own_and_leave_signals_to_python() -> None:
    done = child(
        """
        import os, signal
        import numpy as np, rnnbptt
        params = rnnbptt.Params.random(2, 12, 2, rng=0)
        x = np.ones((20_000, 3, 2))
        def new_threads():
            before = set(os.listdir("/proc/self/task"))
            rnnbptt.loss_and_grad(params, x, x, num_threads=3)
            return set(os.listdir("/proc/self/task")) - before
        workers = new_threads()
        print(len(workers), flush=True)
        for worker in workers:
            lines = open(f"/proc/self/task/{worker}/status").read().splitlines()
            blocked = int(next(line.split()[1] for line in lines if line.startswith("SigBlk")), 16)
            print(blocked >> (signal.SIGINT - 1) & 1, flush=True)
        pid = os.fork()
        if pid == 0:
            os._exit(len(new_threads()))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert done.stdout.split() == ["2", "1", "1", "2"], done.stderr


@pytest.mark.parametrize("method", thinned(["spawn", "forkserver", "fork"], 3))
def test_multiprocessing(method: str) -> None:
    done = child(
        f"""
        import multiprocessing, rnnbptt
        params = rnnbptt.Params.random(1, 4, 1, rng=0)
        rnnbptt.matrix_powers(params.W_hh, 3, num_threads=2)
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            powers = pool.starmap(rnnbptt.matrix_powers, [(params.W_hh, 100)] * 8)
        assert all((p == rnnbptt.matrix_powers(params.W_hh, 100)).all() for p in powers)
        print("ok")
        """
    )
    assert done.stdout.strip() == "ok", done.stderr


DAEMONS = {
    "one long call": "rnnbptt.loss_and_grad(params, long, long, num_threads=2)",
    "many short calls": "rnnbptt.loss_and_grad(params, short, short, num_threads=1)",
}


def seconds_to_exit(call: str, end: str) -> float:
    """Run a program to its end while four threads of it repeat a call; return the time it took."""
    start = time.monotonic()
    done = child(
        f"""
        import os, sys, threading, time
        import numpy as np, rnnbptt
        params = rnnbptt.Params.random(1, 8, 1, rng=0)
        long = np.broadcast_to(np.array(0.5), (2**36, 1))
        short = np.ones((2000, 1))
        def call():
            while True:
                {call}
        for _ in range(4):
            threading.Thread(target=call, daemon=True).start()
        time.sleep(0.05)
        {end}
        """
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - start


@pytest.mark.parametrize(("calls", "end"), thinned(product(DAEMONS, ("", "sys.exit(0)", "os._exit(0)")), 6))
def test_exit_during_calls_of_a_daemon_thread(calls: str, end: str) -> None:
    # Beside the same program with threads that do nothing, which the machine's other work slows down as well.
    idle = seconds_to_exit("time.sleep(3600)", end)
    for _ in range(5):
        assert seconds_to_exit(DAEMONS[calls], end) < TIMES_IDLE * idle


def test_signals_do_not_reach_calls_of_other_threads() -> None:
    # Only the main thread may handle signals: a call elsewhere runs to its end.
    case = problem(2, T=20_000)
    _, expected = case.engine()
    results: list[rnnbptt.Gradients] = []
    worker = threading.Thread(target=lambda: results.append(case.engine()[1]))
    worker.start()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    worker.join(SECONDS)
    assert_identical(results[0], expected)
