"""Corrupt files, as weights and as data, against `rnnbptt report`: ``python -m fuzz.files --count 10000``.

Each must be answered or refused: exit code 0 or 2, then with one line on stderr that names something, without
a warning, a control character or a pickle loaded, within a second, and within 100 MB beyond what the file
declares, which is little here.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fuzz import corruptions
from rnnbptt.__main__ import main

SECONDS, BYTES = 1.0, 100_000_000


class Answer(NamedTuple):
    code: int | str
    out: str
    err: str
    seconds: float
    peak: int


def asked(arguments: list[str], traced: bool = True) -> Answer:
    """Run the command in this process; a warning or an exception is its code."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str
    if traced:
        tracemalloc.start()
    # Time of the processor: others may keep the machine busy.
    start = time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error")
            code = main(["report", *arguments])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        code = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1] if traced else 0
    if traced:
        tracemalloc.stop()
    return Answer(code, out.getvalue(), err.getvalue(), seconds, peak)


def wrong(answer: Answer) -> str | None:
    """Say what is wrong with an answer."""
    if answer.code not in (0, 2):
        return f"ended with {answer.code}"
    if answer.code == 2:
        if answer.out or answer.err.count("\n") != 1 or not answer.err.endswith("\n"):
            return f"was refused by {answer.err!r} and {answer.out!r}"
        message = answer.err.removeprefix("rnnbptt report: error: ").strip()
        if len(message) < 8 or "None" in message or answer.err == message:
            return f"was refused by {answer.err!r}, which says nothing"
    elif answer.err:
        return f"was answered, with {answer.err!r}"
    if any(not (c.isprintable() or c == "\n") for c in answer.out + answer.err):
        return "was answered with control characters"
    if answer.seconds > SECONDS:
        return f"took {answer.seconds:.2f} s"
    return f"took {answer.peak:,} bytes" if answer.peak > BYTES else None


def trial(seed: int, folder: Path, traced: bool = True) -> tuple[corruptions.File, Answer]:
    """Write one file, and ask for a report on it: as weights or, now and then, as data."""
    rng = np.random.default_rng(seed)
    as_data = rng.random() < 0.25
    file = corruptions.data(rng) if as_data else corruptions.corrupt(rng)
    path = folder / f"corrupt{file.suffix}"
    path.write_bytes(file.content)
    arguments = [str(path)]
    if as_data:
        weights = folder / "model.npz"
        weights.write_bytes(corruptions.model().content)
        loss = str(rng.choice(["mse", "squared_error", "cross_entropy"]))
        arguments = [str(weights), "--data", str(path), "--loss", loss]
    return file, asked(arguments, traced)


def run(count: int, seed: int, traced: bool = True) -> list[str]:
    """Return what went wrong in `count` trials."""
    failures = []
    with tempfile.TemporaryDirectory() as name:
        for number in range(seed, seed + count):
            file, answer = trial(number, Path(name), traced)
            said = "was unpickled" if corruptions.loaded else wrong(answer)
            if said is not None:
                failures.append(f"seed {number}, {file.suffix}, {file.story}: {said}")
    return failures


def _most_resident() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def program() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first file; others follow")
    arguments = parser.parse_args()
    start, before = time.monotonic(), _most_resident()
    # Untraced: what decompressors and the extension take counts, and bookkeeping does not.
    failures = run(arguments.count, arguments.seed, traced=False)
    grown = _most_resident() - before
    if grown > BYTES:
        failures.append(f"memory grew by {grown:,} bytes")
    print("\n".join(failures[:50]))
    took = time.monotonic() - start
    print(f"{arguments.count} files in {took:.0f} s, {len(failures)} failures, {grown:,} bytes more at most")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(program())
