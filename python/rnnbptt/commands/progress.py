"""What a command is busy with, on a terminal: one line, which is gone when it is done."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds before the line is shown, and between its changes.
_PATIENCE, _EVERY = 1.0, 0.5
_CELLS = 20


@contextmanager
def working(name: str, step: int, steps: int) -> Iterator[None]:
    """Show a bar of steps and the seconds that this one has taken, while the body runs for more than one.

    Parameters
    ----------
    name : str
        What is being done.
    step, steps : int
        How many steps are done, of how many.
    """
    if not sys.stderr.isatty():
        yield
        return
    done, start = threading.Event(), time.monotonic()
    full = _CELLS * step // steps
    bar = f"[{'#' * full}{'.' * (_CELLS - full)}] {step + 1} of {steps}: {name}"

    def show() -> None:
        if done.wait(_PATIENCE):
            return
        while True:
            sys.stderr.write(f"\r{bar}, {time.monotonic() - start:.0f} s ")
            sys.stderr.flush()
            if done.wait(_EVERY):
                break
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
