"""PyTorch's own threads, which work for the engine during calls that come from PyTorch."""

from __future__ import annotations

import ctypes
import importlib.util
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import rnnbptt

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed: nox -s peers", allow_module_level=True)

import torch

from rnnbptt import _core
from rnnbptt.torch import LinearRNN, operator

SECONDS = 60
needs_openmp = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "GOMP_parallel"), reason="PyTorch has another kind of threads"
)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every call borrow a team of two, and leave the process as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(operator, "_WORTH_A_TEAM", 0)
    yield
    torch.set_num_threads(before)


def network(seed: int = 0, num_threads: int = 2) -> tuple[LinearRNN, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    params = rnnbptt.Params.random(3, 24, 2, biases=True, rng=seed)
    model = LinearRNN.from_params(params, num_threads=num_threads)
    return model, torch.randn(300, 8, 3, dtype=torch.float64, generator=generator)


def step(model: LinearRNN, x: torch.Tensor) -> bytes:
    """Return the bits of outputs and gradients."""
    model.zero_grad()
    o = model(x)
    o.square().mean().backward()
    arrays = [o.detach().numpy(), *(p.grad.numpy() for p in model.parameters())]
    return b"".join(a.tobytes() for a in arrays)


def own_threads(monkeypatch: pytest.MonkeyPatch, model: LinearRNN, x: torch.Tensor) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(operator, "_WORTH_A_TEAM", float("inf"))
        return step(model, x)


@pytest.mark.parametrize("team", [1, 2, 3, 7])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_the_same_bits_whoever_works(team: int, num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(num_threads=num_threads)
    expected = own_threads(monkeypatch, model, x)
    torch.set_num_threads(team)
    for _ in range(3):
        assert step(model, x) == expected
    assert _core.set_openmp_team(0) == 0  # given back


def test_small_calls_borrow_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "_WORTH_A_TEAM", 1_000_000)
    asked: list[int] = []

    def watched(threads: int) -> int:
        asked.append(threads)
        return 0

    monkeypatch.setattr(_core, "set_openmp_team", watched)
    model, x = network()
    step(model, x[:10, :1])
    assert asked == []
    step(model, x)
    assert asked == [2, 0, 2, 0]


def test_python_threads_borrow_teams_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [network(seed) for seed in range(4)]
    expected = [own_threads(monkeypatch, *model) for model in models]

    def work(number: int) -> None:
        model, x = models[number]
        for _ in range(30):
            torch.ones(200_000).sum()  # a loop of PyTorch on this thread's team
            assert step(model, x) == expected[number]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4), timeout=SECONDS))


def test_an_exception_ends_the_call_and_gives_the_team_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Alarm(Exception):
        pass

    def handler(*_: Any) -> None:
        raise Alarm

    model, x = network()
    expected = own_threads(monkeypatch, model, x)
    long = torch.zeros(1, 1, 3, dtype=torch.float64).expand(2**22, 8, 3)  # the outputs alone are half a GB
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with torch.no_grad(), pytest.raises(Alarm):
            model(long)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert _core.set_openmp_team(0) == 0
    assert step(model, x) == expected


@needs_openmp
def test_inside_a_parallel_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the caller is a member of a team already, there is nobody to borrow."""
    model, x = network()
    expected = own_threads(monkeypatch, model, x)
    found: list[bool] = []

    def member(_: int | None) -> None:
        if threading.current_thread() is threading.main_thread():
            found.extend(step(model, x) == expected for _ in range(3))

    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(member)
    ctypes.CDLL(None).GOMP_parallel(function, None, 2, 0)
    assert found == [True] * 3


@needs_openmp
def test_who_works_and_what_a_fork_leaves() -> None:
    """In a process of its own, where the engine has started no threads yet."""
    program = """
        import os, signal
        import numpy as np, torch
        signal.alarm(50)
        torch.set_num_threads(2)
        torch.ones(200_000).sum()  # from here on there is a team

        def in_child(function):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    signal.alarm(20)
                    function()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

        def run():
            from rnnbptt.torch import LinearRNN
            torch.manual_seed(0)
            model = LinearRNN(16, 64, 8, num_threads=2)
            # PyTorch's own loops do not survive a fork: large tensors come from NumPy.
            x, d_o = (torch.from_numpy(np.ones((1000, 8, n), np.float32)) for n in (16, 8))
            o = model(x)
            o.backward(d_o)
            return o.detach().numpy().tobytes() + model.W_hh.grad.numpy().tobytes()

        def again():
            assert run() == expected

        def ticks():
            # What this thread and all others have computed so far, and how many others there are.
            def of(task):
                with open(f"/proc/self/task/{task}/stat") as file:
                    return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
            tasks = {int(name): of(name) for name in os.listdir("/proc/self/task")}
            mine = tasks.pop(os.getpid())
            return np.array([mine, sum(tasks.values())]), len(tasks)

        in_child(run)  # loads the engine after the fork
        from rnnbptt.torch import LinearRNN
        model = LinearRNN(256, 256, 1, num_threads=2)
        x = torch.zeros(256).expand(1000, 128, 256)
        before, threads_before = ticks()
        with torch.no_grad():
            model(x)  # takes longer by far than idle threads spin
        after, threads_after = ticks()
        print(threads_after - threads_before, *(after - before))
        expected = run()
        in_child(again)
        again()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    started, caller, others = map(float, done.stdout.split())
    assert started == 0, "the engine has started threads beside those that it borrowed"
    assert others > 0.3 * caller
