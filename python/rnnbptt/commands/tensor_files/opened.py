"""A file of tensors, opened: what it declares, whatever its format."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from ..shown import shown
from . import npy, npz, safetensors
from .stored import BadFile, Limits, Stored, Take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES = (".npy", ".npz", ".safetensors")


@contextmanager
def opened(path: Path, limits: Limits) -> Iterator[dict[str, Stored]]:
    """Open a .npy, .npz or .safetensors file: give what it declares, by name.

    The array of a .npy file goes by the file's own name. Tensors are read, by `stored.read`, while the file
    is open.

    Raises
    ------
    OSError
        If it cannot be read; the error has its name.
    ValueError
        If it is no such file; the message names it.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for a writer
        raise ValueError(f"{shown(path.name)} is not a regular file")
    with path.open("rb") as file:
        try:
            yield _declared(path, file, os.fstat(file.fileno()).st_size, limits)
        except BadFile as error:
            place = "" if error.member is None else f"{shown(error.member)} in "
            raise ValueError(f"{place}{shown(path.name)} {error}") from None
        except OSError as error:
            if error.filename is None:
                error.filename = str(path)
            raise


def _declared(path: Path, file: IO[bytes], size: int, limits: Limits) -> dict[str, Stored]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {path.stem: npy.stored(path.stem, _taken(file), size)}
    formats = {".npz": npz.stored, ".safetensors": safetensors.stored}
    return formats[suffix](file, size, limits)


def _taken(file: IO[bytes]) -> Take:
    def take(count: int) -> bytes:
        data = file.read(count)
        if len(data) < count:
            raise BadFile(f"ends {count - len(data):,} bytes early")
        return data

    return take
