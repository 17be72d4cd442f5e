"""Pages with code: it runs, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnbptt.__main__ import main
from speed import slow

ROOT = Path(__file__).resolve().parent.parent
DOCS, README = ROOT / "docs", ROOT / "README.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
MACHINES = re.compile(r"kernels \w+, [\d.]+ MiB")  # what differs from one machine to the next


PAGES = [("fitting.md", 4), ("fitting-with-scipy.md", 4), ("how-it-is-fast.md", 5), ("missing-values.md", 4)]


@pytest.mark.parametrize(("page", "least"), PAGES)
def test_page_runs_and_prints_what_it_says(page: str, least: int) -> None:
    if page == "fitting.md":
        pytest.importorskip("sklearn")
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks].count("python") >= least
    shared: dict[str, Any] = {}  # later blocks go on where earlier ones ended
    printed = ""
    for number, (kind, text) in enumerate(blocks, 1):
        if kind == "python":
            assert printed == "", f"block {number - 1} prints what the page does not show"
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(text, f"{page}, block {number}", "exec"), shared)
            printed = output.getvalue()
        else:
            assert MACHINES.sub("", printed) == MACHINES.sub("", text), f"block {number}"
            printed = ""
    assert printed == ""


def test_pytorch_and_jax_runs_and_prints_what_it_says() -> None:
    for name in ("torch", "jax"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: nox -s peers")
    # A process of its own: the page sets JAX to float64.
    blocks = BLOCK.findall((DOCS / "pytorch-and-jax.md").read_text(encoding="utf-8"))
    code = "".join(text for kind, text in blocks if kind == "python")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(text for kind, text in blocks if kind == "text")


def test_links_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), README, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} points to {target}"


# --- the README ---------------------------------------------------------------------------------------------


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


def ran(block: str, *needs: str) -> dict[str, Any]:
    for name in needs:
        pytest.importorskip(name)
    names: dict[str, Any] = {}
    exec(compile(block, README.name, "exec"), names)
    return names


def test_readme_has_one_example_for_each_use() -> None:
    assert len(readme_blocks("python")) == 5


def test_readme_gradients_have_the_shapes_of_parameters() -> None:
    names = ran(readme_blocks("python")[0])
    for name, array in names["params"].items():
        assert getattr(names["gradients"], name).shape == array.shape


def test_readme_fit_forecasts_down_to_the_noise() -> None:
    names = ran(readme_blocks("python")[1], "sklearn")
    assert np.std(names["forecast"] - names["y"][800:]) < 0.11
    assert names["A"].shape == (3, 3)


def test_readme_optimiser_finds_the_system() -> None:
    names = ran(readme_blocks("python")[2], "scipy")
    assert names["result"].fun < 1e-8
    fitted, truth = (np.sort_complex(np.linalg.eigvals(names[name].W_hh)) for name in ("fitted", "truth"))
    np.testing.assert_allclose(fitted, truth, atol=1e-3)


def test_readme_module_of_pytorch_has_gradients() -> None:
    names = ran(readme_blocks("python")[3], "torch")
    assert all(parameter.grad.abs().max() > 0 for parameter in names["model"].parameters())


@slow
def test_readme_studies_gradients_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ran(readme_blocks("python")[4], "matplotlib")
    assert 1 < names["tau"] < 1000
    assert main(readme_blocks("sh")[2].split()[1:]) == 0
    assert "memory horizon" in capsys.readouterr().out
    assert Path("report.html").stat().st_size > 10_000


def test_readme_study_runs_where_no_lag_window_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = readme_blocks("python")[4]
    for before, after in (("spectral_radius=0.9", "spectral_radius=1.01"), ("((1000, ", "((1500, ")):
        assert before in block
        block = block.replace(before, after)
    names = ran(block)
    assert names["tau"] is None
    full = names["rnnbptt"].loss_and_grad(names["params"], names["x"], names["y"])[1]
    np.testing.assert_array_equal(names["gradients"].W_hh, full.W_hh)


def test_readme_installs_what_it_runs() -> None:
    demo, tests = readme_blocks("sh")[:2]
    for block, extra, last in ((demo, "demo", "rnnbptt demo"), (tests, "test", "pytest")):
        lines = block.splitlines()
        assert lines[:2] == ["python3 -m venv .venv", ". .venv/bin/activate"]
        assert lines[2:] == [f"pip install '.[{extra}]'", last]
