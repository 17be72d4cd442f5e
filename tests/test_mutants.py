"""The bugs that ``nox -s mutants`` plants still fit the sources."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mutants.rules import Rule, read_rules

ROOT = Path(__file__).resolve().parent.parent
RULES = read_rules()
#: Rooms that have bugs to find.
ROOMS = (
    "cpp/core/algebra",
    "cpp/core/reports",
    "cpp/core/runtime",
    "cpp/core/sliding",
    "cpp/core/sweep",
    "cpp/core",
    "cpp/kernels",
    "cpp/bindings",
    "python/rnnbptt",
    "python/rnnbptt/_validate",
    "python/rnnbptt/commands",
    "python/rnnbptt/engine",
    "python/rnnbptt/fit",
    "python/rnnbptt/gradients",
    "python/rnnbptt/reports",
)

pytestmark = pytest.mark.skipif(
    not ((ROOT / "cpp").is_dir() and (ROOT / "python").is_dir()),
    reason="the sources are not beside the tests",
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_bug_can_be_planted(rule: Rule) -> None:
    source = (ROOT / rule.file).read_text(encoding="utf-8")
    assert rule.planted(source) != source
    assert (ROOT / rule.tests).is_file()


def test_bugs_have_names_of_their_own() -> None:
    assert [name for name, count in Counter(rule.id for rule in RULES).items() if count > 1] == []


def test_bugs_are_many_and_everywhere() -> None:
    assert len(RULES) >= 40
    for room in ROOMS:
        assert any(rule.file.startswith(f"{room}/") for rule in RULES), room
