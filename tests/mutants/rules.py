"""The bugs that are planted: `rules.toml`, read and put into sources."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

LIST = Path(__file__).with_name("rules.toml")


@dataclass(frozen=True)
class Rule:
    """One bug.

    Attributes
    ----------
    id : str
    file : str
        Path in the source tree.
    old, new : str
        What stands in the file exactly once, and what is put in its place.
    breaks : str
        What goes wrong.
    tests : str
        The test file that is to see it, which is run before the others.
    survives : str or None
        Why no test needs to see it.
    """

    id: str
    file: str
    old: str
    new: str
    breaks: str
    tests: str
    survives: str | None = None

    @property
    def native(self) -> bool:
        """Whether the extension has to be built again."""
        return self.file.startswith("cpp/")

    def planted(self, source: str) -> str:
        """Return the source with the bug in it; a ValueError says where `old` does not stand once."""
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self.id}: {self.old!r} stands {count} times in {self.file}, not once")
        return source.replace(self.old, self.new)


def read_rules(path: Path = LIST) -> list[Rule]:
    """Read the list of bugs."""
    with path.open("rb") as file:
        return [Rule(**entry) for entry in tomllib.load(file)["rule"]]
