"""What extras bring: missing, too old or broken, it is named with what is wrong, and the rest works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rnnbptt import _extras

ROOT = Path(__file__).resolve().parent.parent
#: What each package stands in the way of; those that others import come first.
USES = {
    "scipy": "rnnbptt.LinearRNNRegressor",
    "joblib": "rnnbptt.LinearRNNRegressor",
    "threadpoolctl": "import rnnbptt.fit",
    "sklearn": "rnnbptt.LinearRNNRegressor",
    "torch": "import rnnbptt.torch",
    "jax": "import rnnbptt.jax",
    "matplotlib": "rnnbptt.spectral_report([[0.5]]).plot()",
}
#: What a package's first file holds, and what is to be said of it.
STATES = {
    "missing": (
        "raise ModuleNotFoundError('no', name=__name__)",
        "{called}, which is not installed: pip install",
    ),
    "old": ("__version__ = '0.0.9'", "{called} {least} or later, not 0.0.9: pip install"),
    "broken": (
        "import nothing_of_this_name",
        "{called}, which is installed but cannot be imported: No module named",
    ),
    "torn": ("raise AttributeError('torn')", "{called}, which is installed but cannot be imported: torn"),
}


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code where packages of `folder` come before others of their names."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("state", STATES)
def test_a_package_that_does_not_serve_is_named_with_what_is_wrong(state: str, tmp_path: Path) -> None:
    content, words = STATES[state]
    lines = ["import sys, rnnbptt\n"]
    for package, use in USES.items():
        # A process for all: each is there in place of the true one for as long as it is asked for.
        folder = tmp_path / package
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(content, encoding="utf-8")
        lines += [
            f"""
sys.path.insert(0, {str(folder)!r})
try:
    {use}
except (ImportError, AttributeError) as error:
    print(error)
sys.path.remove({str(folder)!r})
sys.modules.pop({package!r}, None)
"""
        ]
    done = run("".join(lines), tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == len(USES)
    for package, line in zip(USES, said, strict=True):
        called = {"sklearn": "scikit-learn"}.get(package, package)
        assert words.format(called=called, least=_extras.LEAST[package]) in line


@pytest.mark.parametrize("state", STATES)
def test_everything_else_is_imported_without_the_regressor(state: str, tmp_path: Path) -> None:
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text(STATES[state][0], encoding="utf-8")
    code = """
import inspect, rnnbptt
assert not hasattr(rnnbptt, "LinearRNNRegressor")
assert not hasattr(rnnbptt, "fit")
inspect.getmembers(rnnbptt)
from rnnbptt import *
assert "LinearRNNRegressor" not in rnnbptt.__all__
print(Params, clip_by_global_norm)
try:
    from rnnbptt import LinearRNNRegressor
except ImportError as error:
    print(error)
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pip install 'rnnbptt[fit]'" in done.stdout or "cannot be imported" in done.stdout


def test_with_the_extra_everything_is_imported() -> None:
    pytest.importorskip("sklearn")
    code = """
import rnnbptt
assert "LinearRNNRegressor" in dir(rnnbptt)
from rnnbptt import *
print(LinearRNNRegressor)
"""
    done = run(code, Path())
    assert done.returncode == 0, done.stderr


def test_the_least_versions_are_those_of_the_project() -> None:
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("pyproject.toml is not beside the tests")
    extras = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {}
    for extra in ("demo", "fit", "jax", "plot", "report", "torch"):
        for requirement in extras[extra]:
            name, least = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups()  # type: ignore[union-attr]
            asked[{"scikit-learn": "sklearn"}.get(name, name)] = least
    assert asked == _extras.LEAST


@pytest.mark.parametrize(
    ("found", "least", "old"),
    [
        ("0.4.31", "0.10", True),
        ("0.10.0.dev20260101", "0.10", False),
        ("0.9.2", "0.10", True),
        ("2.13.0+cpu", "2.5", False),
        ("13", "13.0.1", True),
        ("unknown", "1.0", False),
    ],
)
def test_versions_are_compared_by_their_numbers(
    found: str, least: str, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    monkeypatch.setitem(_extras.LEAST, "numpy", least)
    monkeypatch.setattr(np, "__version__", found)
    if old:
        with pytest.raises(ImportError, match=re.escape(f"x needs numpy {least} or later, not {found}")):
            _extras.need("x", "y", "numpy")
    else:
        _extras.need("x", "y", "numpy")
