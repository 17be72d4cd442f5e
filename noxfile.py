"""Checks that need more than the test extra: ``nox -s peers``, ``types``, ``sanitize`` or ``mutants``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

_TYPE_CHECKERS = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "types")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite on the package as installed."""
    session.install(".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Compare gradients with those of PyTorch and JAX, and run the bridges to them."""
    # This release has a CPU build among the ordinary wheels; others bring gigabytes of CUDA.
    session.install(".[test]", *_TYPE_CHECKERS, "torch==2.13.0", "jax", "jaxlib")
    subjects = (
        *("peers", "bridge", "torch", "torch_threads", "jax", "jax_foreign", "docs", "second_order"),
        *("torch_contexts", "types"),
    )
    session.run("pytest", *(f"tests/test_{subject}.py" for subject in subjects), *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Check the code of the README and of the documentation as type checkers see it."""
    session.install(".[test]", *_TYPE_CHECKERS)
    session.run("pytest", "tests/test_types.py", *session.posargs)


@nox.session
def fits(session: nox.Session) -> None:
    """Run the examples on measured data, and compare a fit with jax-sysid's."""
    session.install(".[test,bench]", "statsmodels", "jax-sysid")
    # Packages whose data alone are used, without what they need for the rest.
    session.install("--no-deps", "simbapy", "aeon")
    session.run("pytest", "tests/test_examples.py", "tests/test_regressor.py", *session.posargs)
    session.run("python", "-m", "bench.fits")


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant small bugs one at a time, and report which of them the tests see; see tests/mutants/run.py."""
    session.install(".[test]")
    session.install("pybind11", "cmake", "ninja")
    session.run("python", "-m", "mutants.run", *session.posargs, env={"PYTHONPATH": "tests"})


def _runtime_library(name: str) -> str:
    """Return the path of one of the compiler's run-time libraries."""
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@nox.session
@nox.parametrize("sanitizer", ["address,undefined", "thread"])
def sanitize(session: nox.Session, sanitizer: str) -> None:
    """Run the tests on an instrumented build: all of them, or those of threads."""
    session.install(".[test]")
    session.install("scikit-build-core", "pybind11", "cmake", "ninja")
    target = Path(session.create_tmp()).resolve()
    session.install(
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target / "package"),
        "-C",
        f"cmake.define.RNNBPTT_SANITIZE={sanitizer}",
        "-C",
        "cmake.build-type=RelWithDebInfo",
        "-C",
        f"build-dir={target / 'build'}",
        ".",
    )
    environment = {"PYTHONMALLOC": "malloc", "PYTHONPATH": str(target / "package")}
    if sanitizer == "thread":
        environment["LD_PRELOAD"] = ":".join(map(_runtime_library, ["libtsan.so", "libstdc++.so.6"]))
        environment["TSAN_OPTIONS"] = "halt_on_error=0:exitcode=66:report_signal_unsafe=0"
        # It does not follow forks, nor daemon threads that the interpreter unwinds at exit.
        races = "threads or windows or (concurrency and not fork and not exit and not ctrl_c)"
        selection = ["tests/test_concurrency.py", "tests/test_schedules.py", "-k", races]
    else:
        libraries = ["libasan.so", "libubsan.so", "libstdc++.so.6"]
        environment["LD_PRELOAD"] = ":".join(map(_runtime_library, libraries))
        environment["ASAN_OPTIONS"] = (
            "detect_leaks=0:strict_init_order=1:allocator_may_return_null=1:halt_on_error=1"
        )
        environment["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
        # The sanitizer takes address space of its own, which limits on memory do not leave it.
        # And an instrumented call takes its time: how soon it answers Ctrl-C is measured without.
        selection = ["tests", "--ignore=tests/test_memory.py", "-k", "not ctrl_c"]
    session.run("python", "-m", "pytest", "-s", *selection, *session.posargs, env=environment)
