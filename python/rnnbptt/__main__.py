"""The command line of rnnbptt: ``rnnbptt COMMAND``, or ``python -m rnnbptt COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from . import __version__
from .commands.demo import command as demo
from .commands.report import command as report
from .commands.shown import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

# A command is a module with NAME, SUMMARY, add_arguments(parser) and run(arguments) -> exit code. It imports
# what an extra brings inside run, so that the others work without that extra.
COMMANDS = (demo, report)

INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the commands do; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(shown(message, 2000).split())}\n")


def argument_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = Parser(prog="rnnbptt", description="Exact gradients of linear RNNs.")
    parser.add_argument("--version", action="version", version=f"rnnbptt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
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
    parser = argument_parser()
    given = sys.argv[1:] if argv is None else list(argv)
    if not given:  # not done, and so not 0: but help is what is wanted
        parser.print_help()
        parser.exit(2)
    arguments = parser.parse_args(given)
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
