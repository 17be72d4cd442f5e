"""Data from a file: what the reports on a model's own gradients need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .weights import read_npy, read_npz

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class Data(NamedTuple):
    """Inputs and targets.

    Attributes
    ----------
    file : str
    x, y : ndarray
    h0, lengths, weights, mask : ndarray or None
        ``None`` where the file has none.
    """

    file: str
    x: NDArray[Any]
    y: NDArray[Any]
    h0: NDArray[Any] | None = None
    lengths: NDArray[Any] | None = None
    weights: NDArray[Any] | None = None
    mask: NDArray[Any] | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What the file holds, by name."""
        return {name: value for name, value in self._asdict().items() if isinstance(value, np.ndarray)}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds all of it."""
        floats = [value for value in self.arrays.values() if value.dtype.kind == "f"]
        return np.result_type(np.float32, *floats)


def read_data(path: Path) -> Data:
    """Read an `.npz` file with x, y and what else a loss may take.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not such a file; the message names it.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        read_npy(path)
        raise ValueError(
            f"--data {path.name} holds one array, and y is needed beside x: numpy.savez('data.npz', x=x, y=y)"
        )
    if suffix != ".npz":
        raise ValueError(f"--data must end in .npz, not {path.name!r}")
    found = read_npz(path)
    missing = [name for name in ("x", "y") if name not in found]
    if missing:
        raise ValueError(
            f"--data {path.name} has no {' and no '.join(missing)}, but {', '.join(found) or 'nothing'}"
        )
    strange = [name for name in found if name not in Data._fields[1:]]
    if strange:
        raise ValueError(
            f"--data {path.name} may hold {', '.join(Data._fields[1:])}, not {', '.join(strange)}"
        )
    return Data(path.name, **found)
