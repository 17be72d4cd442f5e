"""Weights from a file: which tensors it holds, and what each is taken for."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import _validate
from ..._extras import need
from ...engine.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

SUFFIXES = (".npy", ".npz", ".safetensors")

_OWN = tuple(field.name for field in fields(Params))
#: Names that linear layers after a recurrent one go by, where several could be meant.
_READOUTS = ("decoder", "fc", "fc_out", "head", "linear", "lin", "out", "output", "proj", "readout")
#: Layers before or beside it, whose weights can have the same shape.
_NO_READOUT = re.compile(r"emb|encod|norm|input", re.IGNORECASE)
#: `torch.nn.RNN` counts layers, `torch.nn.RNNCell` does not.
_RECURRENT = re.compile(r"(?P<prefix>.*?)weight_hh(?P<layer>_l\d+)?(?P<reverse>_reverse)?")


class Tensor(NamedTuple):
    """A tensor of a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : str
        As it is in the file.
    taken_for : str
        The parameter of `Params` it gives, or ``"not used"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    taken_for: str


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Attributes
    ----------
    file : str
    tensors : tuple of Tensor
    parameters : dict of str to ndarray
        By their names in `Params`; ``W_hh`` is among them.
    notes : tuple of str
        Which names it goes by, and what else to know about how the tensors were taken.
    """

    file: str
    tensors: tuple[Tensor, ...]
    parameters: dict[str, NDArray[Any]]
    notes: tuple[str, ...]

    def params(self, dtype: np.dtype[Any] | None = None) -> Params:
        """Return all parameters, at least as wide as `dtype`; a ValueError names those that are missing."""
        missing = [name for name in ("W_hx", "W_hh", "W_qh") if name not in self.parameters]
        if missing:
            raise ValueError(
                f"{self.file} has no {' and no '.join(missing)}: reports on data need all weights"
            )
        wide = np.result_type(*self.parameters.values(), *([] if dtype is None else [dtype]))
        return Params(**{name: value.astype(wide) for name, value in self.parameters.items()})


def read_weights(path: Path) -> Weights:
    """Read a `.npy`, `.npz` or `.safetensors` file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError, TypeError
        If it is not such a file, or its tensors do not fit; the message names the file or the parameter.
    ImportError
        If the package that reads it is missing; the message names the extra.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"WEIGHTS must end in {', '.join(SUFFIXES)}, not {path.name!r}")
    if suffix == ".npy":
        found = {path.stem: read_npy(path)}
    else:
        found = read_npz(path) if suffix == ".npz" else _read_safetensors(path)
    taken, notes = _recognise(path, found)
    parameters: dict[str, NDArray[Any]] = {}
    for name, parameter in taken.items():
        value = _widened(found[name])
        if parameter in parameters:  # the two biases of PyTorch
            value = _sum(parameters[parameter], value, [key for key in taken if taken[key] == parameter])
        parameters[parameter] = value
    tensors = tuple(
        Tensor(name, value.shape, _dtype(value), taken.get(name, "not used")) for name, value in found.items()
    )
    weights = Weights(path.name, tensors, parameters, notes)
    _validate.square("W_hh", parameters["W_hh"])
    if {"W_hx", "W_qh"} <= parameters.keys():
        weights.params()  # shapes that do not fit one another are an error whatever is asked
    return weights


def _recognise(path: Path, found: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which tensors are which parameters, and remarks."""
    if not found:
        raise ValueError(f"{path.name} holds no tensors")
    if "W_hh" in found:
        return {name: name for name in found if name in _OWN}, ("names of rnnbptt.Params",)
    if len(found) == 1 and not _RECURRENT.fullmatch(next(iter(found))):
        return {next(iter(found)): "W_hh"}, ("a single matrix",)
    layers = [match for name in found if (match := _RECURRENT.fullmatch(name))]
    if len(layers) > 1:
        names = ", ".join(match.string for match in layers)
        raise ValueError(f"{path.name} has {len(layers)} recurrent matrices ({names}); a report is on one")
    if layers:
        return _recognise_torch(path, found, layers[0])
    some = ", ".join(f"{name} {value.shape}" for name, value in list(found.items())[:8])
    raise ValueError(
        f"{path.name} must hold W_hh, a weight_hh_l0 of PyTorch or a single matrix, not {some}"
        + (" and more" if len(found) > 8 else "")
    )


def _recognise_torch(
    path: Path, found: Mapping[str, NDArray[Any]], layer: re.Match[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    recurrent, prefix, number = layer.string, layer["prefix"], layer["layer"] or ""
    shape = found[recurrent].shape
    if len(shape) == 2 and shape[0] in (3 * shape[1], 4 * shape[1]):
        cell = "a GRU" if shape[0] == 3 * shape[1] else "an LSTM"
        raise ValueError(
            f"{recurrent} of shape {shape} holds the gates of {cell}; a report is on one square matrix"
        )
    taken = {recurrent: "W_hh"}
    for kind, parameter in (("weight_ih", "W_hx"), ("bias_ih", "b_h"), ("bias_hh", "b_h")):
        if f"{prefix}{kind}{number}" in found:
            taken[f"{prefix}{kind}{number}"] = parameter
    notes = [
        "names of PyTorch",
        "A nonlinearity of the cell is left out: the report is on the linear network with these weights, "
        "which is close to that network for small states.",
    ]
    h = shape[-1] if shape else 0
    readouts = [
        name.removesuffix("weight")
        for name, value in found.items()
        if re.fullmatch(r"(.*\.)?weight", name) and value.ndim == 2 and value.shape[1] == h
        if not _NO_READOUT.search(name)
    ]
    if len(readouts) > 1:
        readouts = [name for name in readouts if name.rstrip(".").split(".")[-1] in _READOUTS] or readouts
    if len(readouts) == 1:
        taken[f"{readouts[0]}weight"] = "W_qh"
        if f"{readouts[0]}bias" in found:
            taken[f"{readouts[0]}bias"] = "b_q"
    elif readouts:
        notes.append(f"W_qh could be {' or '.join(f'{name}weight' for name in readouts)}: none is taken.")
    return taken, tuple(notes)


# --- files --------------------------------------------------------------------------------------------------


def read_npy(path: Path) -> NDArray[Any]:
    """Read one array, and never an object."""
    with path.open("rb") as file:
        return _array(path.name, file)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an archive, and never an object."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                name = entry.removesuffix(".npy")
                with archive.open(entry) as file:
                    found[name] = _array(f"{name} in {path.name}", file)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path.name} is not a .npz file: {error}") from None
    return found


def _array(name: str, file: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, zlib.error) as error:
        if "pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(f"{name} holds pickled objects, which are never loaded") from None
        raise ValueError(f"{name} is not an array in .npy format: {error}") from None
    return array


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    need("reading .safetensors", "report", "safetensors")
    import safetensors

    path.open("rb").close()  # an OSError that says why
    found = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - it is no dict
                kind = file.get_slice(name).get_dtype()
                if kind not in (
                    "F16",
                    "F32",
                    "F64",
                    "I8",
                    "I16",
                    "I32",
                    "I64",
                    "U8",
                    "U16",
                    "U32",
                    "U64",
                    "BOOL",
                ):
                    raise TypeError(f"{name} in {path.name} has dtype {kind}, which NumPy does not know")
                found[name] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path.name} is not a .safetensors file: {error}") from None
    return found


def _sum(one: NDArray[Any], other: NDArray[Any], names: list[str]) -> NDArray[Any]:
    if one.shape != other.shape:
        raise ValueError(f"{' and '.join(names)} must have one shape, not {one.shape} and {other.shape}")
    total: NDArray[Any] = one + other
    return total


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value


def _dtype(value: NDArray[Any]) -> str:
    return value.dtype.newbyteorder("=").name
