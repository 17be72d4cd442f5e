"""The README's code as type checkers see it: mypy as it comes, basedpyright in its standard mode."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rnnbptt
from test_docs import readme_blocks

#: Packages that some blocks import; where one is missing, those blocks are left out.
FOREIGN = ("torch", "sklearn", "scipy")


def blocks() -> dict[str, str]:
    """Return the README's blocks by the names of their files."""
    return {f"block_{i}": block for i, block in enumerate(readme_blocks("python"))}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a file for every block whose imports are there."""
    for package in ("mypy", "basedpyright", "scipy-stubs"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{package} is not installed: nox -s types")
    folder = tmp_path_factory.mktemp("blocks")
    missing = [name for name in FOREIGN if importlib.util.find_spec(name) is None]
    for name, code in blocks().items():
        needs_fit = "LinearRNNRegressor" in code and "sklearn" in missing
        if not needs_fit and not any(f"import {m}" in code or f"from {m}" in code for m in missing):
            (folder / f"{name}.py").write_text(code, encoding="utf-8")
    assert len(list(folder.iterdir())) > 1
    return folder


def test_mypy_has_nothing_to_say(checked: Path) -> None:
    # As a user has it: without this project's settings, and silent about what is wrong in packages.
    environment = os.environ | {"MYPYPATH": str(Path(rnnbptt.__file__).parent.parent)}
    wrong = []
    for file in sorted(checked.glob("*.py")):
        command = [sys.executable, "-m", "mypy", "--config-file=", file.name]
        done = subprocess.run(
            command, cwd=checked, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        wrong += [line for line in done.stdout.splitlines() if line.startswith(file.name)]
    assert "\n".join(wrong) == ""


def test_basedpyright_has_nothing_to_say(checked: Path) -> None:
    settings: dict[str, Any] = {
        "typeCheckingMode": "standard",
        "extraPaths": [str(Path(rnnbptt.__file__).parent.parent)],
    }
    (checked / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=checked, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] >= len(list(checked.glob("*.py")))
    wrong = [f"{d['file']}:{d['range']['start']['line']}: {d['message']}" for d in said["generalDiagnostics"]]
    assert "\n".join(wrong) == ""


def test_editors_are_told_every_public_name() -> None:
    # What a checker reads is `__all__` as it is written; what runs leaves out what cannot be had.
    written = Path(rnnbptt.__file__).read_text(encoding="utf-8")
    assert {"LinearRNNRegressor", *rnnbptt.__all__} == set(rnnbptt._NAMES)
    assert all(f'    "{name}",\n' in written for name in rnnbptt._NAMES)
