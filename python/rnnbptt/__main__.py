"""The command line of rnnbptt: ``rnnbptt COMMAND``, or ``python -m rnnbptt COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from . import __version__
from .commands.demo import command as demo
from .commands.report import command as report

if TYPE_CHECKING:
    from collections.abc import Sequence

# A command is a module with NAME, SUMMARY, add_arguments(parser) and run(arguments) -> exit code. It imports
# what an extra brings inside run, so that the others work without that extra.
COMMANDS = (demo, report)

INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended


def argument_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(prog="rnnbptt", description="Exact gradients of linear RNNs.")
    parser.add_argument("--version", action="version", version=f"rnnbptt {__version__}")
    commands = parser.add_subparsers(required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.NAME, help=command.SUMMARY, description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; those of the process when absent.

    Returns
    -------
    int
        Exit code: 0 done, 1 failed, 2 not understood or not possible here, 130 interrupted.
    """
    arguments = argument_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\nrnnbptt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        # A reader that has gone (rnnbptt ... | head) needs no message; a full disk does. Either way the
        # interpreter's own flush at exit must not fail once more.
        if not isinstance(error, BrokenPipeError):
            print(f"rnnbptt: error: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
