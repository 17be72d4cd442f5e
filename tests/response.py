"""How long this process takes to answer, apart from what other processes take of the processors."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ANSWER_TO_CTRL_C = 0.5
"""Seconds that a KeyboardInterrupt may take, on the clock or of CPU time. Calls look for it every 20 ms."""

TASKS = Path("/proc/self/task")


class Moment(NamedTuple):
    """What the clocks of this process say."""

    seconds: float
    cpu: float
    """Of all threads."""
    waits: dict[str, float]
    """How long each thread has been ready to run and has had no processor, where the system tells."""


def now() -> Moment:
    """Read the clocks."""
    waits = {}
    if TASKS.is_dir():
        for task in TASKS.iterdir():
            try:
                waits[task.name] = 1e-9 * int((task / "schedstat").read_text().split()[1])
            except OSError:  # the thread is gone, or this kernel keeps no such account
                continue
    return Moment(time.perf_counter(), time.process_time(), waits)


def answered_in(since: Moment) -> float:
    """Return the seconds from a moment to now, without those that the machine owes to other processes.

    That is the time on the clock less all that threads have waited for a processor: on an idle machine, the
    time on the clock. Nor can it be less than the CPU time that all threads have taken, which no other
    process makes longer; it stands alone where the system does not tell of waiting.
    """
    here = now()
    cpu = here.cpu - since.cpu
    if not here.waits:
        return cpu
    waited = sum(wait - since.waits.get(thread, 0.0) for thread, wait in here.waits.items())
    return max(cpu, here.seconds - since.seconds - waited)


def answer_to_ctrl_c(call: Callable[[], Any], delay: float) -> float:
    """Interrupt a call after `delay` seconds; return how long it took to raise."""
    sent: list[Moment] = []
    answered = threading.Event()

    def interrupt() -> None:
        sent.append(now())
        os.kill(os.getpid(), signal.SIGINT)
        answered.wait()  # what this thread waited for a processor is known as long as it runs

    timer = threading.Timer(delay, interrupt)
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        return answered_in(sent[0])
    finally:
        answered.set()
        timer.cancel()
        timer.join()
    raise AssertionError("a call was over before it could be interrupted")
