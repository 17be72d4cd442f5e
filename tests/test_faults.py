"""Memory, threads and files that fail in the middle of a call; ``nox -s faults`` tries every place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from faults.injection import built, missing, preloaded
from rnnbptt import Params
from speed import slow

SECONDS = 120

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("faults"))


def run(
    library: Path, *command: str, folder: Path | None = None, file: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a program of this Python's with the library preloaded."""
    environment = preloaded(library)
    here = str(Path(__file__).parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=folder,
        stdout=file,
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        check=False,
    )


# --- memory and threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls",
    [
        ("linear_scan", "vjp"),
        pytest.param(("loss_and_grad", "Objective.hessp", "jvp", "Sliding", "matrix_powers"), marks=slow),
    ],
    ids=" and ".join,
)
def test_allocations_and_threads_that_fail_one_after_another(library: Path, calls: tuple[str, ...]) -> None:
    done = run(library, "-m", "faults.run", "--here", "--every", "3", *calls)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith(": 0 wrong")
    assert done.stdout.count("allocations") == len(calls)


def test_as_many_threads_as_are_to_be_had(library: Path) -> None:
    code = """
import os, numpy as np, rnnbptt
from faults.injection import failing
params = rnnbptt.Params.random(2, 12, 2, rng=0)
x = np.random.default_rng(0).standard_normal((20_000, 3, 2))
expected = rnnbptt.loss_and_grad(params, x, x, num_threads=1)[1].ravel().tobytes()
started = lambda: len(os.listdir("/proc/self/task"))
before = started()
for fails in (1, 2, 2, 0):  # of those that are still missing
    with failing("thread", fails, onwards=True):
        assert rnnbptt.loss_and_grad(params, x, x, num_threads=4)[1].ravel().tobytes() == expected
    print(started() - before)
"""
    done = run(library, "-W", "error", "-c", code)
    assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr


# --- files --------------------------------------------------------------------------------------------------

REPORT = """
import sys
from faults.injection import failing
from rnnbptt.__main__ import main
kind, which = sys.argv[1], int(sys.argv[2])
with failing(kind, which) as writes:
    try:
        code = main(sys.argv[3:])
        sys.stdout.flush()
    except SystemExit as end:
        code = end.code
print(code, writes.seen, file=sys.stderr)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "W.npy", Params.random(1, 5, 1, rng=0).W_hh)
    return tmp_path


@pytest.mark.parametrize("output", ["--html=page.html", pytest.param("--plot=picture.png", marks=slow)])
def test_a_write_to_a_file_that_fails(library: Path, folder: Path, output: str) -> None:
    def reported(which: int) -> tuple[list[str], int, int]:
        done = run(library, "-c", REPORT, "file write", str(which), "report", "W.npy", output, folder=folder)
        *said, last = done.stderr.splitlines()
        code, seen = last.split()
        return said, int(code), int(seen)

    said, code, writes = reported(0)
    assert (said, code) == ([], 0)
    assert writes > 0
    for which in sorted({1, writes}):
        said, code, _ = reported(which)
        assert code in (1, 2)
        assert len(said) == 1, said
        assert "cannot write" in said[0]
        assert "No space left on device" in said[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("options", [(), pytest.param(("--json",), marks=slow)])
def test_standard_output_that_is_full(library: Path, folder: Path, options: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(library, "-m", "rnnbptt", "report", "W.npy", *options, folder=folder, file=full.fileno())
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1, done.stderr
    assert "No space left on device" in done.stderr
