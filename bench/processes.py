"""Worker processes with the environment that lets each contender be at its best."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Some environments set these for reproducibility or old processors; they slow OpenBLAS.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_COUNTS = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RNNBPTT_NUM_THREADS",
)


def unslow() -> None:
    """Remove the slowing variables from this environment, before NumPy is imported, which reads it."""
    for name in SLOWING:
        os.environ.pop(name, None)


def environment(threads: int) -> dict[str, str]:
    """The parent's environment with thread counts set and slowing variables removed."""
    kept = {name: value for name, value in os.environ.items() if name not in SLOWING}
    return {**kept, **dict.fromkeys(THREAD_COUNTS, str(threads))}


def cpus(threads: int) -> list[int]:
    """The first CPUs this process may use, or none where the system has no affinity."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[:threads]


class WorkerError(RuntimeError):
    """A worker died; its message is on standard error."""


class Worker:
    """A contender's process; `ask` sends one request and waits for its answer."""

    def __init__(self, contender: str, threads: int) -> None:
        self.contender = contender
        self.threads = threads
        command = [sys.executable, "-m", "bench.worker", contender, f"--threads={threads}"]
        if pinned := cpus(threads):
            command.append("--cpus=" + ",".join(map(str, pinned)))
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent.parent,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, do: str, **details: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **details}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            answer = ""
        else:
            answer = self._process.stdout.readline()
        if not answer:
            raise WorkerError(f"the {self.contender} worker died while asked to {do}")
        return json.loads(answer)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
