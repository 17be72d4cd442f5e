"""What the extension runs on: threads and instruction set."""

from __future__ import annotations

from typing import Any

from .. import _core, _validate


def get_num_threads() -> int:
    """Return the number of threads of a call that names none.

    At first these are the CPUs this process may use, or ``RNNBPTT_NUM_THREADS`` where that is set.
    """
    return _core.get_num_threads()


def set_num_threads(num_threads: int) -> None:
    """Set the number of threads of every later call that names none.

    Parameters
    ----------
    num_threads : int
        At least 1. No bit of any result depends on it.
    """
    _core.set_num_threads(_validate.integer("num_threads", num_threads, 1, _validate.MAX_THREADS))


def build_info() -> dict[str, Any]:
    """Return how the extension was built, and what it runs on.

    Returns
    -------
    dict
        ``version``, ``compiler``, ``flags``, ``isa`` (instruction set in use, which ``RNNBPTT_ISA`` can
        force), ``supported_isas`` (those this machine can run), ``num_threads``.
    """
    return {"version": _core.__version__, **_core.build(), "num_threads": get_num_threads()}
