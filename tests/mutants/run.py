"""Plants the bugs of `rules.toml` one at a time, and reports which of them the tests see: ``nox -s mutants``.

    python -m mutants.run [--list] [--fast-only] [--jobs N] [ID ...]

It works in scratch copies of the source tree, which are built once; each bug is one more incremental build.
The fast tests come first, then the slow ones where all of those passed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from .rules import Rule, read_rules

ROOT = Path(__file__).resolve().parents[2]

#: Shares of the bugs that the tests have to see: all tests, and the fast ones alone.
LEAST_CAUGHT, LEAST_CAUGHT_FAST = 0.95, 0.90
#: Seconds that one test may take before it counts as failed.
PATIENCE = 300

#: Exit codes of pytest for "all passed" and for "none selected".
_PASSED, _NONE = 0, 5


class BuildError(Exception):
    """What the compiler said."""


@dataclass(frozen=True)
class Outcome:
    """What became of one bug.

    Attributes
    ----------
    rule : Rule
    caught : {"fast", "slow", ""}
        The part of the tests that saw it.
    by : str
        The test that did, or what went wrong with the rule.
    seconds : float
    error : bool
        Whether it could not be tried at all.
    """

    rule: Rule
    caught: str
    by: str
    seconds: float
    error: bool = False

    @property
    def verdict(self) -> str:
        if self.error:
            return "ERROR"
        return self.caught or ("survives" if self.rule.survives else "SURVIVES")


class Copy:
    """A copy of the source tree, its build and its tests."""

    def __init__(self, place: Path) -> None:
        self._tree = place / "tree"
        self._build = self._tree / "build" / "mutants"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, self._tree / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def configure(self) -> None:
        """Set up an optimised build that puts the extension beside the package's sources."""
        project = tomllib.loads((self._tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        pybind11 = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
        ).stdout.strip()
        self._called(
            "cmake",
            *("-S", str(self._tree), "-B", str(self._build), "-G", "Ninja"),
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={self._tree / 'python' / 'rnnbptt'}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DSKBUILD_PROJECT_VERSION={project['version']}",
            f"-Dpybind11_DIR={pybind11}",
        )

    def build(self) -> None:
        """Build what has changed."""
        self._called("cmake", "--build", str(self._build))

    def imported_from(self) -> str:
        """Return where the tests import the package from."""
        code = "import rnnbptt; print(rnnbptt.__file__)"
        return self._python("-c", code, timeout=PATIENCE)[1].strip()

    def holds(self, path: str) -> bool:
        return Path(path).is_relative_to(self._tree)

    def test(self, marks: str, path: str = "tests") -> str | None:
        """Run tests; return the first that fails twice: on a busy machine some fail once."""
        without: list[str] = []
        while (failed := self._first_failure(marks, path, without)) is not None:
            if "::" not in failed or self._first_failure(marks, failed, []) is not None:
                return failed
            without.append(failed)
        return None

    def _first_failure(self, marks: str, path: str, without: Sequence[str]) -> str | None:
        code, text = self._python(
            *("-m", "pytest", "-x", "-q", "-m", marks, "-p", "no:cacheprovider"),
            *("-o", f"faulthandler_timeout={PATIENCE}", "-o", "faulthandler_exit_on_timeout=true"),
            "--ignore=tests/test_mutants.py",  # which sees any change of the sources
            *(f"--deselect={test}" for test in without),
            path,
            timeout=20 * PATIENCE,
        )
        if code in (_PASSED, _NONE):
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", text, re.MULTILINE)
        if failed:
            return failed[1]
        crash = re.search(r"Fatal Python error: (.*)|^(Timeout.*)", text, re.MULTILINE)
        inside = re.search(r'tests/(\w+\.py)", line \d+ in (test_\w+)', text)
        what = next(filter(None, crash.groups())) if crash else f"pytest ended with code {code}"
        return f"{what}, in {inside[2]} of {inside[1]}" if inside else what

    def plant(self, rule: Rule) -> str:
        """Put a bug in; return the source without it."""
        path = self._tree / rule.file
        source = path.read_text(encoding="utf-8")
        path.write_text(rule.planted(source), encoding="utf-8")
        return source

    def restore(self, rule: Rule, source: str) -> None:
        (self._tree / rule.file).write_text(source, encoding="utf-8")

    def _python(self, *arguments: str, timeout: float) -> tuple[int, str]:
        path = os.pathsep.join([str(self._tree / "python"), str(self._tree / "tests")])
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RNNBPTT_")}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self._tree,
            env=kept | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=timeout)
            return process.returncode, text
        except subprocess.TimeoutExpired:
            return 1, f"Timeout after {timeout:.0f} s"
        finally:
            # With what the tests have left behind, such as children that wait for one another.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _called(self, *command: str) -> None:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if "error" in line.lower()]
            raise BuildError(errors[0] if errors else done.stdout[-2000:])


def tried(copy: Copy, rule: Rule, fast_only: bool) -> Outcome:
    """Plant one bug, see what the tests say, and take it out again."""
    start = time.monotonic()

    def outcome(caught: str, by: str, error: bool = False) -> Outcome:
        return Outcome(rule, caught, by, time.monotonic() - start, error)

    try:
        source = copy.plant(rule)
    except ValueError as wrong:
        return outcome("", str(wrong), error=True)
    try:
        copy.build()
        for part, marks in (("fast", "not slow"), ("slow", "slow"))[: 1 if fast_only else 2]:
            for path in (rule.tests, "tests"):
                failed = copy.test(marks, path)
                if failed is not None:
                    return outcome(part, failed)
        return outcome("", "")
    except BuildError as wrong:
        return outcome("", f"does not build: {wrong}", error=True)
    finally:
        copy.restore(rule, source)


def baseline(copy: Copy, fast_only: bool) -> str | None:
    """Return what is wrong with the tree without any bug."""
    copy.configure()
    copy.build()
    found = copy.imported_from()
    if not copy.holds(found):
        return f"the tests would import {found}: an editable install is in the way"
    for marks in ("not slow", "slow")[: 1 if fast_only else 2]:
        start = time.monotonic()
        failed = copy.test(marks)
        if failed is not None:
            return f"without any bug the tests fail: {failed}"
        print(f"without any bug, {marks}: passed in {time.monotonic() - start:.0f} s", flush=True)
    return None


def run_all(rules: Sequence[Rule], jobs: int, fast_only: bool) -> list[Outcome] | str:
    """Try every bug, in so many copies side by side; a string says what is wrong with the tree itself."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        copies = [Copy(Path(scratch) / str(number)) for number in range(jobs)]
        if (wrong := baseline(copies[0], fast_only)) is not None:
            return wrong
        free: queue.Queue[Copy] = queue.Queue()
        for copy in copies:
            if copy is not copies[0]:
                copy.configure()
                copy.build()
            free.put(copy)

        def one(rule: Rule) -> Outcome:
            copy = free.get()
            try:
                return tried(copy, rule, fast_only)
            finally:
                free.put(copy)

        outcomes = []
        with ThreadPoolExecutor(jobs) as pool:
            for done in as_completed([pool.submit(one, rule) for rule in rules]):
                outcome = done.result()
                outcomes.append(outcome)
                print(_line(outcome), flush=True)
    places = {rule.id: place for place, rule in enumerate(rules)}
    return sorted(outcomes, key=lambda outcome: places[outcome.rule.id])


def _line(outcome: Outcome) -> str:
    said = outcome.by or outcome.rule.survives or f"no test sees that {outcome.rule.breaks}"
    return f"{outcome.verdict:8} {outcome.seconds:5.0f} s  {outcome.rule.id:30} {said}"


def report(outcomes: Sequence[Outcome], fast_only: bool) -> bool:
    """Print table and summary; return whether enough was caught and every survivor is explained."""
    print("\n".join(["", *map(_line, outcomes), ""]))
    errors = sum(outcome.error for outcome in outcomes)
    total = len(outcomes) - errors
    fast = sum(outcome.caught == "fast" for outcome in outcomes)
    caught = sum(bool(outcome.caught) for outcome in outcomes)
    unexplained = sum(outcome.verdict == "SURVIVES" for outcome in outcomes)
    known = total - caught - unexplained
    share = max(total, 1)
    print(f"{total} bugs: {fast} caught by the fast tests ({fast / share:.0%})", end="")
    print("" if fast_only else f", {caught} by all ({caught / share:.0%})", end="")
    print(f"; {unexplained} survive, and {known} more for a reason; {errors} rules in error")
    wasted = [o.rule.id for o in outcomes if o.caught and o.rule.survives]
    if wasted:
        print(f"caught, though explained as survivors: {', '.join(wasted)}")
    enough = fast >= LEAST_CAUGHT_FAST * total and (fast_only or caught >= LEAST_CAUGHT * total)
    return enough and not errors and (fast_only or unexplained == 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument("ids", nargs="*", metavar="ID", help="bugs to plant; all when absent")
    parser.add_argument("--list", action="store_true", help="list the bugs and do nothing")
    parser.add_argument("--fast-only", action="store_true", help="leave out the slow tests")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="copies that work side by side")
    arguments = parser.parse_args()
    rules = read_rules()
    if unknown := set(arguments.ids) - {rule.id for rule in rules}:
        parser.error(f"no such bugs: {', '.join(sorted(unknown))}")
    if arguments.ids:
        rules = [rule for rule in rules if rule.id in arguments.ids]
    if arguments.list:
        for rule in rules:
            print(f"{rule.id:30} {rule.file}: {rule.breaks}")
        return 0
    start = time.monotonic()
    outcomes = run_all(rules, max(1, arguments.jobs), arguments.fast_only)
    if isinstance(outcomes, str):
        print(outcomes, file=sys.stderr)
        return 2
    good = report(outcomes, arguments.fast_only)
    print(f"{time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
