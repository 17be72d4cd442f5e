"""Checks that need more than the test extra: ``nox --list`` names them; a workflow runs them every week."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "venv"

_TYPE_CHECKERS = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "types")
ROOT = Path(__file__).parent.resolve()
#: Modules of the tests that sessions run by themselves: fuzzers, faults, probes, mutants.
BESIDE = {"PYTHONPATH": str(ROOT / "tests")}
ISAS = ("v2", "v3", "v4")
#: Tests that may share their process with themselves. Others fork, send signals, limit memory, change folders
#: or what modules hold, capture what is printed, or start programs of their own; joblib and threadpoolctl,
#: which fits use, set things for the whole process.
SHARED = (
    *("accuracy", "array_zoo", "bad_input", "bridge", "clipping", "floating_point", "flow", "identities"),
    *("lag_sums", "last_state", "losses", "non_finite", "objective", "powers", "random_params", "reference"),
    *("reference_arguments", "schedules", "second_order", "spectrum", "step_weights", "truncation"),
    "truncation_report",
)


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
    session.run("python", "-m", "mutants.run", *session.posargs, env=BESIDE)


# --- many calls, many threads, faults -----------------------------------------------------------------------


@nox.session
def fuzz(session: nox.Session) -> None:
    """Make 100,000 odd calls, read 10,000 corrupt files, and draw 1,000 examples of every property."""
    session.install(".[test]")
    session.run("python", "-m", "fuzz.calls", "--count", "100000", *session.posargs, env=BESIDE)
    session.run("python", "-m", "fuzz.files", "--count", "10000", *session.posargs, env=BESIDE)
    session.run("pytest", "-m", "hypothesis", "--hypothesis-profile=thorough")


@nox.session
def parallel(session: nox.Session) -> None:
    """Run every test that may share its process with itself eight times at once, ten times over."""
    session.install(".[test]", "pytest-run-parallel==0.10.0")
    safe = [*(f"tests/test_{subject}.py" for subject in SHARED), "-m", "not slow", "-k", "not ctrl_c"]
    watchdog = ("-o", "faulthandler_timeout=600", "-o", "faulthandler_exit_on_timeout=true")
    # Eight times as many examples of a property are drawn as it says.
    many = ("--parallel-threads=8", "--iterations=10", "--hypothesis-profile=brief")
    session.run("pytest", *watchdog, *many, *(session.posargs or safe))


@nox.session
def faults(session: nox.Session) -> None:
    """Have every allocation, thread and write of every call fail in turn."""
    _needs(session, "cc", "gcc")
    session.install(".[test]")
    session.run("python", "-m", "faults.run", *session.posargs, env=BESIDE)


@nox.session
def promises(session: nox.Session) -> None:
    """Measure what a busy machine would not let a test assert; see docs/reliability.md."""
    session.install(".[test]")
    session.run("python", "-m", "probes.promises", *session.posargs, env=BESIDE)


# --- instruments --------------------------------------------------------------------------------------------


def _needs(session: nox.Session, program: str, package: str) -> None:
    """End a session, by a word on what to install, where a program is missing."""
    if shutil.which(program) is None:
        session.error(f"{program} is not installed: apt-get install {package}")


def _runtime_library(session: nox.Session, name: str) -> str:
    """Return the path of one of the compiler's run-time libraries."""
    _needs(session, "g++", "g++")
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not Path(path).is_absolute():  # the compiler says the name back
        session.error(f"{name} is not installed: apt-get install g++, in your compiler's version")
    return path


def _without_randomisation() -> list[str]:
    """Return what a command is to begin with: sanitizers need room where the system may put a program."""
    command = ["setarch", "-R"]
    try:
        allowed = subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    return command if allowed else []


def _instrumented(session: nox.Session, sanitizer: str) -> dict[str, str]:
    """Install an instrumented build; return the environment that it runs in."""
    libraries = ["libtsan.so"] if sanitizer == "thread" else ["libasan.so", "libubsan.so"]
    # Without the C++ library before it, the first exception ends AddressSanitizer.
    preloaded = [_runtime_library(session, name) for name in (*libraries, "libstdc++.so.6")]
    session.install(
        "-C",
        f"cmake.define.RNNBPTT_SANITIZE={sanitizer}",
        "-C",
        "cmake.build-type=RelWithDebInfo",
        "-C",
        f"build-dir={Path(session.create_tmp()).resolve() / 'build'}",
        ".[test]",
    )
    return {
        **BESIDE,
        "PYTHONMALLOC": "malloc",
        "LD_PRELOAD": ":".join(preloaded),
        "ASAN_OPTIONS": "detect_leaks=0:strict_init_order=1:allocator_may_return_null=1:halt_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TSAN_OPTIONS": "halt_on_error=0:exitcode=66:report_signal_unsafe=0",
    }


def _skip_unsupported(session: nox.Session, isa: str) -> None:
    code = "import rnnbptt; print(*rnnbptt.build_info()['supported_isas'])"
    # Asked without the sanitizers, which are not wanted for it but harmless.
    supported = str(session.run("python", "-c", code, silent=True, env={"LD_PRELOAD": ""})).split()
    if isa not in supported:
        session.skip(f"this machine lacks {isa}; it has {', '.join(supported)}")


@nox.session
@nox.parametrize("isa", ISAS, ids=ISAS)
def sanitize(session: nox.Session, isa: str) -> None:
    """Run the whole suite, and 100,000 calls of the fuzzer, under AddressSanitizer and UBSan."""
    environment = _instrumented(session, "address,undefined") | {"RNNBPTT_ISA": isa}
    python = [*_without_randomisation(), "python"]
    # The sanitizer takes address space of its own, which limits on memory do not leave it.
    # And an instrumented call takes its time: how soon it answers Ctrl-C is measured without.
    selection = session.posargs or ["tests", "--ignore=tests/test_memory.py", "-k", "not ctrl_c"]
    session.run(*python, "-m", "pytest", "-s", *selection, env=environment, external=True)
    session.run(*python, "-m", "fuzz.calls", "--count", "100000", env=environment, external=True)


@nox.session
def races(session: nox.Session) -> None:
    """Run the tests of threads under ThreadSanitizer."""
    environment = _instrumented(session, "thread")
    # It does not follow forks, nor daemon threads that the interpreter unwinds at exit.
    threads = "(threads or windows or concurrency) and not fork and not exit and not ctrl_c and not workers"
    selection = ["tests/test_concurrency.py", "tests/test_schedules.py", "-k", threads]
    python = [*_without_randomisation(), "python"]
    session.run(*python, "-m", "pytest", "-s", *selection, *session.posargs, env=environment, external=True)


@nox.session
def leaks(session: nox.Session) -> None:
    """Make 10,000 calls and more, every kind of error among them, under LeakSanitizer."""
    environment = _instrumented(session, "address")
    log = Path(session.create_tmp()).resolve() / "leaks"
    environment["ASAN_OPTIONS"] = (
        # Frames of other libraries keep no pointers to walk along.
        f"detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=20:allocator_may_return_null=1:exitcode=0:log_path={log}"
    )
    for old in log.parent.glob("leaks.*"):
        old.unlink()
    python = [*_without_randomisation(), "python"]
    session.run(*python, "-m", "probes.leaks", *session.posargs, env=environment, external=True)
    found = sorted(map(str, log.parent.glob("leaks.*")))
    session.run("python", "-m", "probes.blame", *found, env=BESIDE)


@nox.session
def valgrind(session: nox.Session) -> None:
    """Make every call once under valgrind's memcheck; reports without the extension are not counted."""
    _needs(session, "valgrind", "valgrind")
    session.install("-C", "cmake.build-type=RelWithDebInfo", ".[test]")
    log = Path(session.create_tmp()).resolve() / "valgrind.log"
    session.run(
        *(
            "valgrind",
            f"--log-file={log}",
            "--leak-check=full",
            "--show-leak-kinds=definite",
            "--num-callers=40",
        ),
        *("python", "-m", "probes.smoke", "v3"),  # valgrind knows nothing beyond
        env=BESIDE | {"PYTHONMALLOC": "malloc"},
        external=True,
    )
    session.run("python", "-m", "probes.blame", str(log), env=BESIDE)


@nox.session
def emulate(session: nox.Session) -> None:
    """Make every call once on processors of 2010 and 2013, and import on one of 2006, which is refused."""
    _needs(session, "qemu-x86_64", "qemu-user")
    session.install(".[test]")
    python = str(Path(session.bin) / "python")
    for processor, isa in (("Westmere", "v2"), ("Haswell", "v3")):
        emulated = ["qemu-x86_64", "-cpu", processor, python]
        session.run(*emulated, "-m", "probes.smoke", isa, env=BESIDE, external=True)
    code = "import rnnbptt"
    refused = session.run(
        *("qemu-x86_64", "-cpu", "Conroe", python, "-c", code), silent=True, success_codes=[1], external=True
    )
    session.log(str(refused).strip().splitlines()[-1])
    if "ImportError: this processor lacks SSE4.2, which rnnbptt needs" not in str(refused):
        session.error("a processor below x86-64-v2 gets no ImportError that says so")


# --- compilers and packages ---------------------------------------------------------------------------------


@nox.session
@nox.parametrize("version", (14, 16), ids=("14", "16"))
def clang(session: nox.Session, version: int) -> None:
    """Build with clang, warnings as errors, and run the quick tests."""
    compiler = f"clang++-{version}"
    _needs(session, compiler, f"clang-{version}")
    session.install(
        *("-C", "cmake.define.RNNBPTT_WERROR=ON", "-C", f"cmake.define.CMAKE_CXX_COMPILER={compiler}"),
        ".[test]",
    )
    session.run("python", "-c", "import rnnbptt; print(rnnbptt.build_info()['compiler'])")
    session.run("pytest", *(session.posargs or ["-m", "not slow"]))


def _built(session: nox.Session, *kinds: str) -> list[Path]:
    """Build distributions; return their paths."""
    session.install("build")
    folder = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", *kinds, "--outdir", str(folder), ".")
    return sorted(folder.iterdir())


@nox.session
def sdist(session: nox.Session) -> None:
    """Run the test suite on the source distribution, in a folder that has nothing else."""
    (archive,) = _built(session, "--sdist")
    folder = archive.parent / archive.name.removesuffix(".tar.gz")
    shutil.unpack_archive(archive, archive.parent, filter="data")
    session.install(f"{archive}[test]")
    session.chdir(folder)
    session.run("pytest", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Check what is published: platform, contents, description, and a size below a megabyte."""
    distributions = _built(session)
    (built,) = (path for path in distributions if path.suffix == ".whl")
    session.install("auditwheel", "check-wheel-contents", "twine")
    session.run("python", "-m", "probes.wheel", str(built), env=BESIDE)
    session.run("check-wheel-contents", str(built))
    session.run("twine", "check", "--strict", *map(str, distributions))
