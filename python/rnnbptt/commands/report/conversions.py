"""Files of kinds that are not read: the two lines of Python that turn each into one that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TORCH = (".pt", ".pth", ".bin", ".ckpt")


def of_weights(path: Path) -> str:
    """Return what to add to the refusal of a file of weights."""
    if path.suffix.lower() in _TORCH:
        return _tensors(path)
    if path.suffix.lower() == ".csv":
        saved = f"numpy.save({_other(path, '.npy')}, numpy.loadtxt({str(path)!r}, delimiter=',', ndmin=2))"
        return f"; this converts a matrix: import numpy; {saved}"
    return ""


def of_data(path: Path) -> str:
    """Return what to add to the refusal of a file of data."""
    if path.suffix.lower() in _TORCH:
        return _tensors(path)
    if path.suffix.lower() == ".csv":
        read = f"import numpy; t = numpy.loadtxt({str(path)!r}, delimiter=',', ndmin=2)"
        saved = f"numpy.savez({_other(path, '.npz')}, x=t[:, :-1], y=t[:, -1:])"
        return f"; this converts columns of inputs and, last, one of targets: {read}; {saved}"
    return ""


def _tensors(path: Path) -> str:
    tensors = f"torch.load({str(path)!r}, map_location='cpu', weights_only=True).items()"
    saved = f"numpy.savez({_other(path, '.npz')}, **{{k: v.float().numpy() for k, v in {tensors}}})"
    return f"; this converts a dict of tensors, such as a state_dict: import numpy, torch; {saved}"


def _other(path: Path, suffix: str) -> str:
    return repr(str(path.with_suffix(suffix)))
