"""The tiers of the source tree, what importing costs, and the public face of the package."""

from __future__ import annotations

import base64
import doctest
import importlib
import importlib.util
import inspect
import os
import pickle
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rnnbptt
from rooms import circles, imports_of, includes_of, upward, upward_includes
from speed import slow, thinned

ROOT = Path(__file__).resolve().parent.parent
CPP = ROOT / "cpp"
PACKAGE = Path(rnnbptt.__file__).parent
PUBLIC = {
    "Chunked",
    "GaussNewton",
    "GradientFlow",
    "Gradients",
    "Objective",
    "Params",
    "Randomized",
    "Schedule",
    "Sliding",
    "SpectralReport",
    "Trajectory",
    "TruncationReport",
    "build_info",
    "clip_by_global_norm",
    "explain",
    "forward",
    "get_num_threads",
    "gradient_flow",
    "hvp",
    "jvp",
    "linear_scan",
    "loss_and_grad",
    "matrix_powers",
    "output_jacobian",
    "power_norms",
    "reference",
    "set_num_threads",
    "spectral_report",
    "state_gradients",
    "truncation_report",
    "vjp",
}
if importlib.util.find_spec("sklearn"):
    PUBLIC.add("LinearRNNRegressor")


def modules(package: ModuleType = rnnbptt) -> list[ModuleType]:
    """Return the package and its modules, except those that other frameworks must be there for."""
    for name in rnnbptt.__all__:
        getattr(rnnbptt, name)  # imported on demand: now among what the package holds
    optional = {"scipy", "matplotlib", "rich", "sklearn", "joblib", "threadpoolctl"}
    result = [package]
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.endswith(("._core", ".__main__")) or found.name in ("rnnbptt.jax", "rnnbptt.torch"):
            continue
        spec = importlib.util.find_spec(found.name)
        if spec is not None and "_moved" in (spec.origin or ""):  # the same classes again
            continue
        try:
            module = importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in optional:  # what only the demo and fits need
                raise
            continue
        result += modules(module) if found.ispkg else [module]
    return result


# --- rooms --------------------------------------------------------------------------------------------------


def test_rooms_look_into_those_below_them_alone() -> None:
    assert upward(imports_of(PACKAGE)) == []


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert circles(imports_of(PACKAGE)) == []


UPWARD = [
    (
        "engine/params.py",
        "from ..gradients.objective import Objective",
        "engine.params -> gradients.objective",
    ),
    ("gradients/objective.py", "from ..reports.flow import LagTerms", "gradients.objective -> reports.flow"),
    ("reports/flow/analysis.py", "import rnnbptt.fit", "reports.flow.analysis -> fit"),
    ("reports/flow/report.py", "from rnnbptt import Params", "reports.flow.report -> the package"),
    ("reference/losses.py", "from ..engine.dataset import Dataset", "reference.losses -> engine.dataset"),
    ("bridge.py", "from . import torch", "bridge -> torch"),
    ("_validate/arrays.py", "from rnnbptt.engine import params", "_validate.arrays -> engine.params"),
    ("fit/starts.py", "from .. import _core", "fit.starts -> _core"),
]
FORMS = {
    "plain": "\n{}\n",
    "lazy": "\ndef planted():\n    {}\n",
    "type-only": "\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("path", "line", "found"), thinned(UPWARD, 4))
def test_an_import_from_a_room_above_is_found(
    path: str, line: str, found: str, form: str, tmp_path: Path
) -> None:
    package = tmp_path / "rnnbptt"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    with (package / path).open("a", encoding="utf-8") as file:
        file.write(FORMS[form].format(line))
    assert upward(imports_of(package)) == [found]


def test_circles_are_found_whatever_their_length() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert circles({n: frozenset(t) for n, t in edges.items()}) == [["a", "b", "c"], ["d", "e"]]


@pytest.mark.skipif(not CPP.is_dir(), reason="the C++ sources are not beside the tests")
def test_folders_of_the_extension_look_into_those_below_them_alone(tmp_path: Path) -> None:
    edges = includes_of(CPP)
    assert len(edges) > 20
    assert upward_includes(edges) == []
    assert circles(edges) == []
    for path, header, found in (
        ("core/algebra/lift.cpp", "core/sweep/sweep.hpp", "core/algebra/lift -> core/sweep/sweep"),
        (
            "core/sweep/sweep.hpp",
            "core/sliding/lag_windows.hpp",
            "core/sweep/sweep -> core/sliding/lag_windows",
        ),
        ("core/schedule.hpp", "core/gradient.hpp", "core/schedule -> core/gradient"),
        ("core/losses.cpp", "core/sweep/rows.hpp", "core/losses -> core/sweep/rows"),
        ("kernels/sizes.cpp", "core/runtime/threads.hpp", "kernels/sizes -> core/runtime/threads"),
    ):
        planted = tmp_path / path.replace("/", "_")
        shutil.copytree(CPP, planted)
        with (planted / path).open("a", encoding="utf-8") as file:
            file.write(f'#include "{header}"\n')
        assert upward_includes(includes_of(planted)) == [found]


def test_modules_stay_short() -> None:
    sources = [*PACKAGE.rglob("*.py"), *CPP.rglob("*.cpp"), *CPP.rglob("*.hpp")]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: count for path, count in lines.items() if count > 400} == {}


# --- tiers --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CPP.is_dir(), reason="the C++ sources are not beside the tests")
def test_includes_point_one_way() -> None:
    # bindings -> core -> kernels; the public headers know nobody.
    forbidden = {
        "kernels": r'^\s*#\s*include\s*[<"](pybind11|Python\.h|numpy|bindings/|core/|rnnbptt/)',
        "core": r'^\s*#\s*include\s*[<"](pybind11|Python\.h|numpy|bindings/)',
        "include": r'^\s*#\s*include\s*[<"](pybind11|Python\.h|numpy|bindings/|core/|kernels/)',
    }
    for tier, pattern in forbidden.items():
        sources = [p for p in (CPP / tier).rglob("*") if p.suffix in (".cpp", ".hpp", ".h", ".cc")]
        assert sources, tier
        for source in sources:
            text = source.read_text(encoding="utf-8")
            assert not re.findall(pattern, text, re.MULTILINE), source
            assert not re.search(r"\bPy[A-Z]\w+\(|\bpy::|\bpybind11\b", text), source


@pytest.mark.skipif(not CPP.is_dir(), reason="the C++ sources are not beside the tests")
def test_bindings_have_no_defaults() -> None:
    for source in (CPP / "bindings").glob("*.cpp"):
        assert not re.search(r"py::arg\([^)]*\)\s*=", source.read_text(encoding="utf-8")), source


@pytest.mark.skipif(not CPP.is_dir(), reason="the C++ sources are not beside the tests")
def test_kernels_use_no_templates_of_the_standard_library() -> None:
    # Their instances would be weak symbols: the linker might keep those of the widest instruction set.
    for source in (CPP / "kernels").glob("*.cpp"):
        unit = source.read_text(encoding="utf-8")
        if source.name != "dispatch.cpp":  # not compiled for an instruction set
            included = set(re.findall(r"#include\s*[<\"](.*)[>\"]", unit))
            assert included <= {"float.h", "stddef.h", "kernels/table.hpp"}, source


def kernel_objects() -> list[Path]:
    return sorted(p for p in (ROOT / "build").glob("**/kernels_*.dir/**/*.o") if p.is_file())


@pytest.mark.skipif(not kernel_objects(), reason="no object files: the package was not built in this tree")
@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not installed")
@pytest.mark.parametrize("path", kernel_objects(), ids=lambda p: str(p.relative_to(ROOT / "build")))
def test_kernel_units_share_no_symbols(path: Path) -> None:
    listing = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout
    if "__asan" in listing or "__tsan" in listing or "__ubsan" in listing:
        pytest.skip("built with a sanitizer")
    weak = [line for line in listing.splitlines() if re.match(r"^[0-9a-f ]*\s[WVwvu] ", line)]
    assert weak == []
    isa = re.search(r"kernels_(\w+)\.dir", str(path))
    assert isa is not None
    exported = [
        line.split(maxsplit=2)[2] for line in listing.splitlines() if re.match(r"^[0-9a-f]+ [A-Z] ", line)
    ]
    assert exported
    assert all(name.startswith(f"rnnbptt::kernels::{isa[1]}::") for name in exported), exported


# --- importing ----------------------------------------------------------------------------------------------


def test_import_brings_numpy_and_nothing_else() -> None:
    code = """
import sys
import numpy
before = set(sys.modules)
import rnnbptt
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    # The finder of an editable install goes by a name of its own.
    names = {name for name in done.stdout.split() if not name.startswith("_rnnbptt")}
    assert names <= {"rnnbptt", "numpy"}


@slow
def test_import_is_quick(tmp_path: Path) -> None:
    code = """
import time
before = time.process_time()
import numpy
between = time.process_time()
import rnnbptt
print(between - before, time.process_time() - between)
"""
    # With bytecode, as installed; the best of several, each being disturbed by what else the machine does.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
        ).stdout.split()
        for _ in range(5)
    ]
    numpy_alone, ours = (min(float(run[i]) for run in runs) for i in (0, 1))
    assert ours < max(0.03, numpy_alone / 2)  # seen: 0.01 s, beside 0.1 s


def test_no_module_hides_a_name_that_is_imported_on_demand() -> None:
    code = """
import importlib, sys
import rnnbptt
for name, module in rnnbptt._ON_DEMAND.items():
    if module != "fit":
        value = getattr(importlib.import_module(f"rnnbptt.{module}"), name)
        assert getattr(rnnbptt, name) is value, name
assert {"LinearRNNRegressor", "reference", *rnnbptt.__all__} <= set(dir(rnnbptt))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_warns_of_nothing_and_says_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import rnnbptt"], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr == ""


# --- names and docstrings -----------------------------------------------------------------------------------


def test_public_names() -> None:
    assert set(rnnbptt.__all__) == PUBLIC
    assert rnnbptt.__all__ == sorted(rnnbptt.__all__)
    for name in rnnbptt.__all__:
        assert getattr(rnnbptt, name) is not None
    for name in rnnbptt.reference.__all__:
        assert getattr(rnnbptt.reference, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", rnnbptt.__version__)


def test_completion_lists_what_is_public_and_nothing_else() -> None:
    # After everything was imported: inner modules are then attributes of the package.
    listed = {name for name in dir(rnnbptt) if not name.startswith("_")}
    assert listed - {"fit", "jax", "torch"} == PUBLIC
    assert "__version__" in dir(rnnbptt)
    assert dir(rnnbptt.reference) == sorted(rnnbptt.reference.__all__)
    if importlib.util.find_spec("sklearn"):
        fit = importlib.import_module("rnnbptt.fit")
        assert dir(fit) == ["LinearRNNRegressor", "StartSummary", "StateSpace"]
    for name, public in (("torch", ["LinearRNN", "linear_rnn"]), ("jax", ["linear_rnn"])):
        if importlib.util.find_spec(name):
            assert dir(importlib.import_module(f"rnnbptt.{name}")) == public


def test_public_classes_say_where_they_are_found() -> None:
    for name in rnnbptt.__all__:
        if isinstance(thing := getattr(rnnbptt, name), type):
            assert thing.__module__ == "rnnbptt", name


#: Params([[1.0]], [[0.5]], [[2.0]]), pickled when its module was rnnbptt.params.
OLD_PARAMS = (
    b"gAJjcm5uYnB0dC5wYXJhbXMKUGFyYW1zCimBXShjbnVtcHkuX2NvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQBjbnVt"
    b"cHkKbmRhcnJheQpxAUsAhWNfY29kZWNzCmVuY29kZQpxAlgBAAAAYlgGAAAAbGF0aW4xcQOGUnEEh1JxBShLAUsBSwGGY251"
    b"bXB5CmR0eXBlClgCAAAAZjiJiIdScQYoSwNYAQAAADxOTk5K/////0r/////SwB0YoloAlgJAAAAAAAAAAAAw7A/aAOGUnRi"
    b"aABoAUsAhWgEh1JxByhLAUsBSwGGaAaJaAJYCQAAAAAAAAAAAMOgP2gDhlJ0YmgAaAFLAIVoBIdScQgoSwFLAUsBhmgGiWgC"
    b"WAgAAAAAAAAAAAAAQGgDhlJ0Yk5OTksBSwFLAYdoBlgEAAAAV19oeFgEAAAAV19oaFgEAAAAV19xaIeHKGgFaAdoCE5OTnRl"
    b"Yi4="
)


def test_older_pickles_find_what_they_name() -> None:
    shims = sorted((PACKAGE / "_moved").glob("*.py"))
    assert len(shims) > 15
    for path in shims:
        module = importlib.import_module(f"rnnbptt.{path.stem}")
        named = path.read_text(encoding="utf-8").splitlines()[0].partition("look for ")[2]
        names = re.sub(r" and |\W+", " ", named).split()
        assert names
        assert [name for name in names if not hasattr(module, name)] == [], path.stem
    params = pickle.loads(base64.b64decode(OLD_PARAMS))
    assert type(params) is rnnbptt.Params
    assert params.ravel().tolist() == [1.0, 0.5, 2.0]
    for name in ("Sliding", "Chunked"):
        again = pickle.loads(f"crnnbptt.truncation\n{name}\n(I7\ntR.".encode())
        assert again == getattr(rnnbptt, name)(7)


def test_signatures_match_the_reference() -> None:
    engine_alone = {"memory_limit", "num_threads", "out"}
    shared_names = ("forward", "loss_and_grad", "vjp", "jvp", "hvp", "state_gradients", "linear_scan")
    for name in (*shared_names, "matrix_powers"):
        ours = inspect.signature(getattr(rnnbptt, name)).parameters
        theirs = inspect.signature(getattr(rnnbptt.reference, name)).parameters
        shared = [p for p in ours if p not in engine_alone]
        assert shared == [p for p in theirs if p not in ("method", "dtype") or p in ours], name
        for p in shared:
            assert ours[p].kind == theirs[p].kind, (name, p)
            assert ours[p].default == theirs[p].default, (name, p)


def test_every_public_name_is_documented() -> None:
    documented: list[object] = [getattr(rnnbptt, name) for name in rnnbptt.__all__]
    documented += [getattr(rnnbptt.reference, name) for name in rnnbptt.reference.__all__]
    documented += [rnnbptt.Objective.__call__, rnnbptt.Objective.flat, rnnbptt.Params.random]
    documented += [getattr(rnnbptt.Objective, name) for name in ("pack", "unpack", "residuals", "jac")]
    documented += [rnnbptt.Objective.gauss_newton, rnnbptt.Objective.hessp]
    documented += [rnnbptt.Params.ravel, rnnbptt.Params.unravel, rnnbptt.Gradients.ravel]
    for thing in documented:
        text = inspect.getdoc(thing)
        assert text, thing
        first = text.splitlines()[0]
        assert first.endswith((".", ":")), first


def test_every_argument_is_documented() -> None:
    for name in rnnbptt.__all__:
        thing = getattr(rnnbptt, name)
        if not callable(thing) or name in ("GaussNewton", "Gradients", "Trajectory"):
            continue
        text = inspect.getdoc(thing) or ""
        for parameter in inspect.signature(thing).parameters:
            assert re.search(rf"^\s*(\w+, )*{parameter}(, \w+)*( :|$)", text, re.MULTILINE), (name, parameter)


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.__name__)
def test_examples_in_docstrings(module: ModuleType) -> None:
    results = doctest.testmod(module)
    assert results.failed == 0


def test_no_example_in_a_docstring_is_passed_over() -> None:
    finder = doctest.DocTestFinder()
    found = sum(len(test.examples) for module in modules() for test in finder.find(module))
    sources = [path for path in PACKAGE.rglob("*.py") if not {"torch", "jax", "_moved"} & set(path.parts)]
    written = sum(
        len(re.findall(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in sources
    )
    assert 50 < written == found


def test_build_info() -> None:
    info = rnnbptt.build_info()
    assert set(info) >= {"version", "compiler", "flags", "isa", "supported_isas", "num_threads"}
    assert info["version"] == rnnbptt.__version__
    assert info["isa"] in info["supported_isas"]
    assert info["num_threads"] >= 1
