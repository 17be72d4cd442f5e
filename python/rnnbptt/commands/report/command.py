"""Tell what weights in a file do to gradients: in the long run, on the way there, and on data."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._extras import need
from ...engine.losses import LOSSES, Loss, checked_loss
from ...reports.flow import gradient_flow
from ...reports.spectrum import spectral_report
from ...reports.truncation import truncation_report
from ..output_files import FORMATS, cannot_write, replacing, unwritable
from ..progress import working
from ..shown import shown, shown_path
from ..tensor_files.stored import NO_LIMITS, Limits
from .data import NAMES, read_data
from .sections import Section, found_text
from .weights import MOST_ROWS, read_weights

if TYPE_CHECKING:
    import argparse

    from .data import Data
    from .weights import Weights

NAME = "report"
SUMMARY = "tell what the weights in a file do to gradients"

PAGES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "weights",
        type=Path,
        metavar="WEIGHTS",
        help=".npy (one square matrix), .npz (names of rnnbptt.Params, or one matrix) or .safetensors "
        "(the same, or names of a PyTorch RNN)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help=f".npz with x and y, and {', '.join(NAMES[2:-1])} or {NAMES[-1]} if wanted: adds the flow of "
        "gradients and what truncation loses; a y that is NaN is missing",
    )
    taking = [name for name, known in LOSSES.items() if known.parameter is not None]
    parser.add_argument(
        "--loss",
        default="mse",
        metavar="LOSS",
        help=f"loss on the data: {', '.join(LOSSES)} (default: %(default)s)"
        + (f"; NAME:NUMBER gives {', '.join(taking)} its number" if taking else ""),
    )
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw a picture: .png, .pdf or .svg")
    parser.add_argument("--html", type=Path, metavar="PATH", help="write one self-contained page")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--any-size",
        action="store_true",
        help=f"read and compute whatever the size (default: up to {Limits().array_bytes or 0:,} bytes of "
        f"arrays, W_hh of up to {MOST_ROWS:,} rows)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return an exit code."""
    outputs = {"Picture": arguments.plot, "Page": arguments.html}
    try:
        _check_output(arguments)
        loss = _loss(arguments.loss)
        limits = NO_LIMITS if arguments.any_size else Limits()
        weights = read_weights(arguments.weights, limits)
        data = None if arguments.data is None else read_data(arguments.data, limits)
        fitted = None if data is None else data.fitting(weights.params(), labels=_of_labels(loss))
        sections = _sections(weights, fitted, loss)
    except MemoryError as error:
        return _refuse(str(error) or "there is not enough memory")
    except (ValueError, TypeError, ImportError, ArithmeticError) as error:
        return _refuse(str(error) or type(error).__name__)
    except OSError as error:
        return _refuse(f"cannot read {shown_path(error.filename)}: {error.strerror or error}")
    # Files first: they are wanted even where the text goes to a reader that stops early.
    refusal = _write(arguments, weights, data, sections)
    if refusal is not None:
        return _refuse(refusal)
    if arguments.json:
        print(json.dumps(_as_dict(weights, data, sections), indent=2, allow_nan=False))
        return 0
    lines = [f"{kind}: {shown_path(path)}" for kind, path in outputs.items() if path is not None]
    _print("\n\n".join([_as_text(weights, data, sections), *(["\n".join(lines)] if lines else [])]))
    return 0


def _refuse(message: str) -> int:
    print(f"rnnbptt report: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _print(text: str) -> None:
    """Print with escapes where the terminal's encoding lacks a character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _loss(text: str) -> Any:
    """Return what callers of the library give: a name, or a name and its number."""
    name, colon, number = text.partition(":")
    try:
        loss: Any = (name, float(number)) if colon else name
        checked_loss(loss)
    except ValueError as error:
        raise ValueError(f"--loss: {error}") from None
    return loss


def _of_labels(loss: Any) -> bool:
    known = checked_loss(loss)
    return isinstance(known, Loss) and known.labels


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be written before any work is done."""
    for option, path, formats in (("--plot", arguments.plot, FORMATS), ("--html", arguments.html, PAGES)):
        if path is None:
            continue
        need(option, "report", "matplotlib.figure")
        refusal = unwritable(path, option, formats)
        if refusal is not None:
            raise ValueError(refusal)


def _write(
    arguments: argparse.Namespace, weights: Weights, data: Data | None, sections: list[Section]
) -> str | None:
    """Write the files that are asked for, or none; return why it could not be done."""
    writers = [(path, kind) for kind in ("plot", "html") if (path := getattr(arguments, kind)) is not None]
    if not writers:
        return None
    # Only now: these modules import what the extra brings.
    from . import page, pictures

    path = writers[0][0]
    try:
        with ExitStack() as files:
            for path, kind in writers:
                new = files.enter_context(replacing(path))
                with working(f"drawing {shown(path.name)}", 0, 1):
                    if kind == "plot":
                        pictures.save(sections, new)
                    else:
                        new.write_text(page.page(weights, data, sections), encoding="utf-8")
    except OSError as error:
        return cannot_write(path, error)
    return None


def _sections(weights: Weights, data: Data | None, loss: Any) -> list[Section]:
    """Compute all reports there are data for."""
    steps = 1 if data is None else 3
    params = None if data is None else weights.params(data.dtype)
    with working("spectrum of W_hh", 0, steps):
        found = [Section("spectrum", "Spectrum", 2, spectral_report(weights.parameters["W_hh"]))]
    if data is None or params is None:
        return found
    given: dict[str, Any] = {**data.arrays, "loss": loss}
    with working("gradient flow", 1, steps):
        found.append(Section("flow", "Gradient flow", 3, gradient_flow(params, **given)))
    with working("truncation", 2, steps):
        found.append(Section("truncation", "Truncation", 1, truncation_report(params, **given)))
    return found


def _as_text(weights: Weights, data: Data | None, sections: list[Section]) -> str:
    return "\n\n".join([found_text(weights, data), *(str(section.report) for section in sections)])


def _as_dict(weights: Weights, data: Data | None, sections: list[Section]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "weights": {
            "file": weights.file,
            "notes": list(weights.notes),
            "tensors": [{**tensor._asdict(), "shape": list(tensor.shape)} for tensor in weights.tensors],
        },
    }
    if data is not None:
        result["data"] = {
            "file": data.file,
            "notes": list(data.notes),
            "arrays": [
                {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
                for name, value in data.arrays.items()
            ],
        }
    result["reports"] = {section.key: section.report.to_dict() for section in sections}
    return result
