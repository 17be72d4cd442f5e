"""Train a linear RNN to forecast next year's sunspots, report what it learned, and draw one picture."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..._extras import need
from ..output_files import cannot_write, replacing, unwritable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

NAME = "demo"
SUMMARY = "train a linear RNN on three centuries of sunspots"

REQUIRED = ("scipy", "matplotlib", "rich")
MAX_HIDDEN = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("rnnbptt-demo.png"),
        metavar="PATH",
        help="where to write the picture: .png, .pdf or .svg (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the random starts (default: %(default)s)"
    )
    parser.add_argument(
        "--hidden", type=int, default=6, metavar="H", help="size of the hidden state (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return an exit code."""
    refusal = _refusal(arguments)
    if refusal is not None:
        print(f"rnnbptt demo: error: {refusal}", file=sys.stderr)
        return 2
    # Only now: these modules import what the extra brings.
    with single_threaded_blas():
        from . import story

    draw = story.tell(arguments.seed, arguments.hidden)
    try:
        with replacing(arguments.output) as new:
            draw(new)
    except OSError as error:
        print(f"rnnbptt demo: error: {cannot_write(arguments.output, error)}", file=sys.stderr)
        return 1
    print(f"\nPicture: {arguments.output}")
    return 0


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Let libraries loaded within use one thread for their linear algebra.

    L-BFGS asks for products of matrices of ten rows. Where CPUs are few or busy, handing these to threads
    that wait for one another takes ten times as long as all the gradients.
    """
    name = "OPENBLAS_NUM_THREADS"  # read once, when SciPy's copy is loaded
    before = os.environ.get(name)
    os.environ[name] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def _refusal(arguments: argparse.Namespace) -> str | None:
    """Say why the demo cannot run, before any work is done; ``None`` if it can."""
    if arguments.seed < 0:
        return f"--seed must be at least 0, not {arguments.seed}"
    if not 1 <= arguments.hidden <= MAX_HIDDEN:
        return f"--hidden must lie between 1 and {MAX_HIDDEN}, not {arguments.hidden}"
    if (refusal := unwritable(arguments.output)) is not None:
        return refusal
    try:
        with single_threaded_blas():
            need("the demo", "demo", *REQUIRED)
    except ImportError as error:
        return f"{error}, or '.[demo]' in a clone"
    return None
