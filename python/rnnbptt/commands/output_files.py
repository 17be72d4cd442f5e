"""Files that a command writes: whether it can, asked before any work is done; all of one, or nothing."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .shown import shown, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Suffixes of pictures.
FORMATS = (".png", ".pdf", ".svg")


def unwritable(path: Path, option: str = "--output", formats: tuple[str, ...] = FORMATS) -> str | None:
    """Say why no file of one of `formats` can be written to `path`; ``None`` if one can."""
    if path.suffix.lower() not in formats:
        return f"{option} must end in {', '.join(formats)}, not {shown(path.name)!r}"
    # Permissions, read-only file systems and missing directories: the only sure answer is to try.
    try:
        if _is_special(path):  # opening a pipe would wait for a reader
            return None
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        return cannot_write(path, error)
    return None


def cannot_write(path: Path, error: OSError) -> str:
    """Say why a file was not written, whatever file the error names."""
    return f"cannot write {shown_path(path)}: {error.strerror or error}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a new file beside `path`, with its suffix, and rename it when it has been written.

    An error or an interrupt leaves what was there before. What is no regular file, such as a device or a
    pipe, is written directly; behind a link, what it leads to.
    """
    if _is_special(path):
        yield path  # under the name that was given, whose suffix says what to write
        return
    path = Path(os.path.realpath(path))
    new = path.with_name(f".{path.stem[:100]}-{secrets.token_hex(4)}{path.suffix}")
    try:
        with new.open("xb"):
            pass
        if path.exists():
            new.chmod(stat.S_IMODE(path.stat().st_mode))
        yield new
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
