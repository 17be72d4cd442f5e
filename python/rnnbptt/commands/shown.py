"""Text of strangers' on a terminal: names that files hold are shown, and do nothing else."""

from __future__ import annotations


def shown(name: str, longest: int = 80) -> str:
    """Return `name` with everything escaped that is not a printable character, and cut where it is long.

    Control characters move cursors and colour screens; marks of writing direction turn what follows around.
    """
    short = name if len(name) <= longest else f"{name[: longest - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def shown_path(path: object) -> str:
    """Return all of a path that the caller gave, with what is not printable escaped."""
    return shown(str(path), 4096)
