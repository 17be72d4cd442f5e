"""Files that a command is to write: whether it can, asked before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Suffixes of pictures.
FORMATS = (".png", ".pdf", ".svg")


def unwritable(path: Path, option: str = "--output", formats: tuple[str, ...] = FORMATS) -> str | None:
    """Say why no file of one of `formats` can be written to `path`; ``None`` if one can."""
    if path.suffix.lower() not in formats:
        return f"{option} must end in {', '.join(formats)}, not {path.name!r}"
    # Permissions, read-only file systems and missing directories: the only sure answer is to try.
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        return f"cannot write {path}: {error.strerror}"
    return None
