"""Weights from a file: which tensors it holds, and what each is taken for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import _validate
from ...engine.params import Params
from ..shown import shown
from ..tensor_files.opened import SUFFIXES, opened
from ..tensor_files.stored import Limits, read, shape_text
from .conversions import of_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ..tensor_files.stored import Stored

_OWN = tuple(field.name for field in fields(Params))
#: Names that linear layers after a recurrent one go by, where several could be meant.
_READOUTS = ("decoder", "fc", "fc_out", "head", "linear", "lin", "out", "output", "proj", "readout")
#: Layers before or beside it, whose weights can have the same shape.
_NO_READOUT = re.compile(r"emb|encod|norm|input", re.IGNORECASE)
#: `torch.nn.RNN` counts layers, `torch.nn.RNNCell` does not.
_RECURRENT = re.compile(r"(?P<prefix>.*?)weight_hh(?P<layer>_l\d+)?(?P<reverse>_reverse)?", re.DOTALL)
#: Rows of W_hh up to which a report takes minutes: its cost grows with their third power.
MOST_ROWS = 1024
NOT_USED = "not used"


class Tensor(NamedTuple):
    """A tensor of a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
    dtype : str
        As it is in the file.
    taken_for : str
        The parameter of `Params` it gives, or `NOT_USED`.
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
                f"{shown(self.file)} has no {' and no '.join(missing)}: reports on data need all weights"
            )
        wide = np.result_type(*self.parameters.values(), *([] if dtype is None else [dtype]))
        return Params(**{name: value.astype(wide, copy=False) for name, value in self.parameters.items()})


def read_weights(path: Path, limits: Limits | None = None) -> Weights:
    """Read a `.npy`, `.npz` or `.safetensors` file: of its tensors, those that are parameters.

    Parameters
    ----------
    path : Path
    limits : Limits, optional
        What the file may ask for.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError, TypeError
        If it is not such a file, or its tensors do not fit; the message names the file or the parameter.
    """
    limits = limits or Limits()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        message = f"WEIGHTS must end in {', '.join(SUFFIXES)}, not {shown(path.name)!r}"
        raise ValueError(message + of_weights(path))
    with opened(path, limits) as found:
        taken, notes = _recognise(path, found)
        _check_shapes(_shapes(found, taken), limits)
        used = [(parameter, found[name]) for name, parameter in taken.items()]
        arrays = dict(zip(taken, read(used, limits, path.name), strict=True))
    parameters: dict[str, NDArray[Any]] = {}
    for name, parameter in taken.items():
        value = _widened(arrays.pop(name))
        if parameter in parameters:  # the two biases of PyTorch
            value = parameters[parameter] + value
        parameters[parameter] = value
    tensors = tuple(
        Tensor(name, value.shape, value.dtype, taken.get(name, NOT_USED)) for name, value in found.items()
    )
    weights = Weights(path.name, tensors, parameters, notes)
    _validate.square("W_hh", parameters["W_hh"])
    if {"W_hx", "W_qh"} <= parameters.keys():
        weights.params()  # shapes that do not fit one another are an error whatever is asked
    return weights


def _shapes(found: Mapping[str, Stored], taken: dict[str, str]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of parameters; the two biases of PyTorch must have one."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in taken.items():
        shape = found[name].shape
        if shapes.setdefault(parameter, shape) != shape:
            names = " and ".join(shown(key) for key in taken if taken[key] == parameter)
            both = f"{shape_text(shapes[parameter])} and {shape_text(shape)}"
            raise ValueError(f"{names} must have one shape, not {both}")
    return shapes


def _check_shapes(shapes: dict[str, tuple[int, ...]], limits: Limits) -> None:
    """Refuse parameters that do not fit one another, or are too large, before any is read."""
    square = shapes["W_hh"]
    if len(square) != 2 or square[0] != square[1] or square[0] == 0:
        raise ValueError(
            f"W_hh must be a square matrix of size at least 1, not of shape {shape_text(square)}"
        )
    h = square[0]
    if limits.array_bytes is not None and h > MOST_ROWS:
        raise ValueError(
            f"W_hh has {h:,} rows; beyond {MOST_ROWS:,} a report can take hours: --any-size computes it"
        )
    d, q = ((shapes.get(name) or (0,))[axis] for name, axis in (("W_hx", -1), ("W_qh", 0)))
    # Letters where any number will do.
    expected: dict[str, tuple[int | str, ...]] = {
        "W_hx": (h, "d"),
        "W_qh": ("q", h),
        "b_h": (h,),
        "b_q": (q or "q",),
        "W_qx": (q or "q", d or "d"),
    }
    for name, shape in shapes.items():
        wanted = expected.get(name, shape)
        fits = len(shape) == len(wanted) and all(
            n > 0 if isinstance(want, str) else n == want for n, want in zip(shape, wanted, strict=True)
        )
        if not fits:
            text = ", ".join(map(str, wanted)) + "," * (len(wanted) == 1)
            raise ValueError(f"{name} must have shape ({text}), not {shape_text(shape)}")


def _recognise(path: Path, found: Mapping[str, Stored]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return which tensors are which parameters, and remarks."""
    if not found:
        raise ValueError(f"{shown(path.name)} holds no tensors")
    if "W_hh" in found:
        return {name: name for name in found if name in _OWN}, ("names of rnnbptt.Params",)
    if len(found) == 1 and not _RECURRENT.fullmatch(next(iter(found))):
        return {next(iter(found)): "W_hh"}, ("a single matrix",)
    layers = [match for name in found if (match := _RECURRENT.fullmatch(name))]
    if len(layers) > 1:
        names = _listed([match.string for match in layers])
        raise ValueError(
            f"{shown(path.name)} has {len(layers)} recurrent matrices ({names}); a report is on one"
        )
    if layers:
        return _recognise_torch(path, found, layers[0])
    some = _listed([f"{shown(name)} {shape_text(value.shape)}" for name, value in found.items()])
    raise ValueError(
        f"{shown(path.name)} must hold W_hh, a weight_hh_l0 of PyTorch or a single matrix, not {some}"
    )


def _listed(names: list[str], most: int = 8) -> str:
    """Return names in one line."""
    return ", ".join(map(shown, names[:most])) + (" and more" if len(names) > most else "")


def _recognise_torch(
    path: Path, found: Mapping[str, Stored], layer: re.Match[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    recurrent, prefix, number = layer.string, layer["prefix"], layer["layer"] or ""
    shape = found[recurrent].shape
    if len(shape) == 2 and shape[0] in (3 * shape[1], 4 * shape[1]):
        cell = "a GRU" if shape[0] == 3 * shape[1] else "an LSTM"
        raise ValueError(
            f"{shown(recurrent)} of shape {shape} holds the gates of {cell}; a report is on one square matrix"
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
        names = " or ".join(shown(f"{name}weight") for name in readouts[:4])
        notes.append(f"W_qh could be {names}{' or others' if len(readouts) > 4 else ''}: none is taken.")
    return taken, tuple(notes)


def _widened(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float32) if value.dtype == np.float16 else value
