"""Every allocation and thread of every call fails in turn: ``python -m faults.run [--every N] [CALL ...]``.

Each try is in a process of its own, forked before anything was computed, so that no memory or thread of an
earlier call is at hand. What must come of it: MemoryError that says of what, or the right answer with fewer
threads; inputs are as they were, and the next call is right to the bit. Reports allocate thousands of times:
of a call, no more than a few hundred are tried, evenly spread. (Writes: tests/test_faults.py.)
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.checking import content
from probes.everything import CALLS, INPUTS

from .injection import built, count_arrays, failing, missing, preloaded

#: Of each kind, how many of a call are tried.
MOST = 400


def _bits() -> list[Any]:
    return [content(part) for part in INPUTS]


def _in_a_fork(work: Callable[[], Any]) -> Any:
    """Return the result of work in a child, or text that says how it ended."""
    with tempfile.TemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            try:
                result = work()
            except BaseException:
                result = "".join(traceback.format_exc())
            file.write(pickle.dumps(result))
            file.flush()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        if status != 0:
            return f"the process ended with {os.waitstatus_to_exitcode(status)}"
        file.seek(0)
        return pickle.loads(file.read())


def _tried(name: str, kind: str, which: int, onwards: bool, expected: Any) -> tuple[int, str]:
    """Make a call in which something fails; return how many there were, and what is wrong."""
    inputs = _bits()
    call = CALLS[name]
    wrong = ""
    with failing(kind, which, onwards=onwards) as fault:
        try:
            result = call()
        except MemoryError as error:
            text = str(error)
            if kind == "thread":
                wrong = f"MemoryError: {text}"
            elif not any(
                word in text for word in ("bytes", "Unable to allocate", "bad_alloc", "cannot be copied")
            ):
                wrong = f"MemoryError that does not say of what: {text!r}"
            result = None
        except BaseException as error:
            wrong, result = f"{type(error).__name__}: {error}", None
    if result is not None and content(result) != expected:
        wrong = wrong or "another result"
    if fault.seen < which and result is None:
        wrong = wrong or "fails though nothing did"
    if _bits() != inputs:
        wrong = wrong or "an input is written to"
    if content(call()) != expected:
        wrong = wrong or "the next call gives another result"
    return fault.seen, wrong


def all_in_turn(name: str, kind: str, every: int) -> tuple[int, int, list[str]]:
    """Have each of a kind fail in a call; return how many there are and were tried, and what is wrong."""
    expected = _in_a_fork(lambda: content(CALLS[name]()))
    wrong: list[str] = []
    total = _in_a_fork(lambda: _tried(name, kind, 0, False, expected))
    if isinstance(total, str):
        return 0, 0, [f"{name}: {total}"]
    tried = range(1, total[0] + 1, max(every, -(-total[0] // MOST)))
    for which in tried:
        for onwards in (False, True):
            came = _in_a_fork(lambda: _tried(name, kind, which, onwards, expected))  # noqa: B023
            said = came if isinstance(came, str) else came[1]
            if said:
                wrong.append(f"{name}: {kind} {which}{' and all after it' if onwards else ''}: {said}")
    return total[0], len(tried), wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="faults.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("calls", nargs="*", metavar="CALL", help=", ".join(CALLS))
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try one in N")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    lacking = missing()
    if lacking is not None:
        print(lacking)
        return 2
    if not given.here:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "faults.run", "--here", *sys.argv[1:]]
            environment = preloaded(built(Path(folder)))
            return os.waitstatus_to_exitcode(os.spawnvpe(os.P_WAIT, command[0], command, environment) << 8)
    count_arrays()
    tries, wrong = 0, []
    for name in given.calls or CALLS:
        said = []
        for kind in ("allocation", "thread"):
            count, tried, found = all_in_turn(name, kind, given.every)
            said.append(f"{count} {kind}s{'' if tried == count else f' ({tried} tried)'}")
            tries += tried
            wrong += found
        print(f"{name}: {', '.join(said)}", flush=True)
    print(*wrong, sep="\n")
    print(f"{tries} faults in {len(given.calls or CALLS)} calls: {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
