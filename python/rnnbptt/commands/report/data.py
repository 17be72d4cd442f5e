"""Data from a file: what the reports on a model's own gradients need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..shown import shown
from ..tensor_files.opened import opened
from ..tensor_files.stored import Limits, read
from .conversions import of_data

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ...engine.params import Params


class Data(NamedTuple):
    """Inputs and targets.

    Attributes
    ----------
    file : str
    x, y : ndarray
    h0, lengths, weights, mask : ndarray or None
        ``None`` where the file has none.
    notes : tuple of str
        What else to know about how the arrays were taken.
    """

    file: str
    x: NDArray[Any]
    y: NDArray[Any]
    h0: NDArray[Any] | None = None
    lengths: NDArray[Any] | None = None
    weights: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the file holds, by name."""
        return {name: value for name, value in self._asdict().items() if isinstance(value, np.ndarray)}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all of it."""
        floats = [value for value in self.arrays.values() if value.dtype.kind == "f"]
        return np.result_type(np.float32, *floats)

    def fitting(self, params: Params, labels: bool) -> Data:
        """Return the data as a model takes them: with one input or output, series may do without its axis.

        Parameters
        ----------
        params : Params
        labels : bool
            Whether targets are class labels.
        """
        d, _, q = params.shape
        x = self.x[:, np.newaxis] if self.x.ndim == 1 and d == 1 else self.x
        y = self.y[:, np.newaxis] if self.y.ndim == 1 and q == 1 and not labels else self.y
        return self._replace(x=x, y=y)


#: Names of the arrays in a file.
NAMES = tuple(name for name in Data._fields if name not in ("file", "notes"))


def read_data(path: Path, limits: Limits | None = None) -> Data:
    """Read a file with x, y and what else a loss may take; capitals are the same names.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not such a file; the message names it.
    TypeError
        If an array does not hold real numbers.
    """
    limits = limits or Limits()
    name, suffix = shown(path.name), path.suffix.lower()
    if suffix == ".npy":
        raise ValueError(
            f"--data {name} holds one array, and y is needed beside x: numpy.savez('data.npz', x=x, y=y)"
        )
    if suffix != ".npz":
        raise ValueError(f"--data must end in .npz, not {name!r}{of_data(path)}")
    with opened(path, limits) as found:
        taken: dict[str, str] = {}
        for stored in found:
            key = stored.lower()
            if key in NAMES and key in taken:
                raise ValueError(f"--data {name} holds {key} twice, as {taken[key]} and as {stored}")
            if key in NAMES:
                taken[key] = stored
        missing = [key for key in ("x", "y") if key not in taken]
        if missing:
            some = ", ".join(shown(stored) for stored in list(found)[:8]) or "nothing"
            raise ValueError(f"--data {name} has no {' and no '.join(missing)}, but {some}")
        arrays = read([(key, found[stored]) for key, stored in taken.items()], limits, path.name)
    unused = [shown(stored) for stored in found if stored.lower() not in NAMES]
    notes = []
    if unused:
        notes.append(f"Not used: {', '.join(unused[:8])}{' and more' if len(unused) > 8 else ''}.")
    return Data(path.name, **dict(zip(taken, arrays, strict=True)), notes=tuple(notes))
