"""Say what valgrind or LeakSanitizer lays at this package's door: ``python -m probes.blame LOG ...``.

Interpreters and other extensions have reports of their own, so that an exit code says little. Only those are
shown, and fail, in whose stack the extension is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: The extension, in a frame of a stack.
OURS = re.compile(r"/rnnbptt/_core\.|\(_core\.|rnnbptt::")
#: What begins a report of either, after the process number that valgrind sets before each line.
_BEGINS = re.compile(
    r"^(?:Direct|Indirect) leak of|^Invalid|^Conditional jump|^Use of uninit|^Syscall param|^Mismatched"
    r"|^[\d,]+ (?:\([^)]*\) )?bytes in [\d,]+ blocks are definitely lost"
)
_NUMBER = re.compile(r"^==\d+== ?", re.MULTILINE)


def reports(text: str) -> list[str]:
    """Return the reports that a log holds."""
    blocks = re.split(r"\n\s*\n", _NUMBER.sub("", text))
    return [block.strip() for block in blocks if any(_BEGINS.match(s.strip()) for s in block.splitlines())]


def main() -> int:
    found = [block for log in sys.argv[1:] for block in reports(Path(log).read_text(errors="replace"))]
    ours = [block for block in found if OURS.search(block)]
    print(*ours, sep="\n\n")
    print(f"{len(found)} reports, {len(ours)} with the extension in their stacks")
    return int(bool(ours))


if __name__ == "__main__":
    sys.exit(main())
