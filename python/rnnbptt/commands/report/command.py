"""Tell what weights in a file do to gradients: in the long run, on the way there, and on data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._extras import need
from ...engine.losses import LOSSES
from ...reports.flow import gradient_flow
from ...reports.spectrum import spectral_report
from ...reports.truncation import truncation_report
from ..output_files import FORMATS, unwritable
from .data import read_data
from .sections import Section, found_text
from .weights import read_weights

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
        help=".npz with x and y, and h0, lengths, weights or mask if wanted: adds the flow of gradients and "
        "what truncation loses",
    )
    parser.add_argument(
        "--loss", choices=tuple(LOSSES), default="mse", help="loss on the data (default: %(default)s)"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--plot", type=Path, metavar="PATH", help="draw a picture: .png, .pdf or .svg")
    output.add_argument("--html", type=Path, metavar="PATH", help="write one self-contained page")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return an exit code."""
    try:
        _check_output(arguments)
        weights = read_weights(arguments.weights)
        data = None if arguments.data is None else read_data(arguments.data)
        sections = _sections(weights, data, arguments.loss)
    except (ValueError, TypeError, ImportError, MemoryError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot read {error.filename}: {error.strerror}")
    # Files first: they are wanted even where the text goes to a reader that stops early.
    path: Path | None = arguments.plot or arguments.html
    if path is not None:
        # Only now: these modules import what the extra brings.
        from . import page, pictures

        try:
            if arguments.plot:
                pictures.save(sections, path)
            else:
                path.write_text(page.page(weights, data, sections), encoding="utf-8")
        except OSError as error:
            print(f"rnnbptt report: error: cannot write {path}: {error.strerror}", file=sys.stderr)
            return 1
    if arguments.json:
        print(json.dumps(_as_dict(weights, data, sections), indent=2, allow_nan=False))
        return 0
    print(_as_text(weights, data, sections))
    if path is not None:
        print(f"\n{'Picture' if arguments.plot else 'Page'}: {path}")
    return 0


def _refuse(message: str) -> int:
    print(f"rnnbptt report: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _check_output(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be written before any work is done."""
    for option, path, formats in (("--plot", arguments.plot, FORMATS), ("--html", arguments.html, PAGES)):
        if path is None:
            continue
        need(option, "report", "matplotlib.figure")
        refusal = unwritable(path, option, formats)
        if refusal is not None:
            raise ValueError(refusal)


def _sections(weights: Weights, data: Data | None, loss: Any) -> list[Section]:
    """Compute all reports there are data for."""
    params = None if data is None else weights.params(data.dtype)
    found = [Section("spectrum", "Spectrum", 2, spectral_report(weights.parameters["W_hh"]))]
    if data is None or params is None:
        return found
    given: dict[str, Any] = {**data.arrays, "loss": loss}
    flow, truncation = gradient_flow(params, **given), truncation_report(params, **given)
    return [
        *found,
        Section("flow", "Gradient flow", 3, flow),
        Section("truncation", "Truncation", 1, truncation),
    ]


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
            "arrays": [
                {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
                for name, value in data.arrays.items()
            ],
        }
    result["reports"] = {section.key: section.report.to_dict() for section in sections}
    return result
