"""Nothing is left of ten thousand calls; ``nox -s leaks`` makes them under LeakSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.blame import OURS, reports
from speed import slow


@slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell of memory")
def test_memory_and_references() -> None:
    here = str(Path(__file__).parent)
    paths = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "probes.leaks", "10000"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_reports_of_instruments_are_told_apart() -> None:
    leak = """
=================================================================
==7==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 40 byte(s) in 1 object(s) allocated from:
    #0 0x7f in operator new(unsigned long) (/lib/libasan.so.8+0xb9)
    #1 0x7f in forget() (/venv/rnnbptt/_core.cpython-311-x86_64-linux-gnu.so+0x4)

Indirect leak of 9 byte(s) in 1 object(s) allocated from:
    #0 0x7f in malloc (/lib/libasan.so.8+0xb9)
    #1 0x7f in PyMem_RawMalloc Objects/obmalloc.c:1
"""
    memcheck = """
==9== Conditional jump or move depends on uninitialised value(s)
==9==    at 0x4A: sum (/venv/rnnbptt/_core.cpython-311-x86_64-linux-gnu.so)
==9==
==9== Invalid read of size 8
==9==    at 0x4A: unicode_hash (unicodeobject.c:11)
==9==
==9== ERROR SUMMARY: 2 errors from 2 contexts (suppressed: 0 from 0)
"""
    for text in (leak, memcheck):
        found = reports(text)
        assert [bool(OURS.search(report)) for report in found] == [True, False]
