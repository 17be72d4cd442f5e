"""The examples run, draw, and do as well as they say; each is skipped where its data are not installed."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name: str, needs: str, picture: Path) -> Any:
    for package in ("sklearn", "scipy", "matplotlib", needs):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if not EXAMPLES.is_dir():
        pytest.skip("the examples are not beside the tests")
    result = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    return result


def test_plant(tmp_path: Path) -> None:
    errors = run("plant", "simba", tmp_path / "picture.png")
    assert errors[3] <= 0.0529
    assert errors[6] <= 0.0146


def test_co2(tmp_path: Path) -> None:
    forecast, _ = run("co2", "statsmodels", tmp_path / "picture.png")
    assert forecast < 1.5  # ppm, over five years


def test_sunspots(tmp_path: Path) -> None:
    network, last_year = run("sunspots", "statsmodels", tmp_path / "picture.png")
    assert network < 0.65 * last_year


def test_japanese_vowels(tmp_path: Path) -> None:
    assert run("japanese_vowels", "aeon", tmp_path / "picture.png") >= 0.95
