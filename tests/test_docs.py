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

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
MACHINES = re.compile(r"kernels \w+, [\d.]+ MiB")  # what differs from one machine to the next


PAGES = [("fitting.md", 4), ("fitting-with-scipy.md", 4), ("how-it-is-fast.md", 5)]


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
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} points to {target}"
