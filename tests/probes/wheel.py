"""Check a wheel's size, and which systems it runs on: ``python -m probes.wheel WHEEL``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

#: Bytes that a wheel may have.
MOST = 1_000_000
#: The newest C library that a wheel may need, as in manylinux_2_34.
NEWEST = (2, 34)


def main() -> int:
    path = Path(sys.argv[1])
    size = path.stat().st_size
    shown = subprocess.run(
        ["auditwheel", "show", str(path)], capture_output=True, text=True, check=True
    ).stdout
    tag = re.search(r'tag:\s+"?manylinux_(\d+)_(\d+)', shown.replace("\n", " "))
    print(f"{path.name}: {size:,} bytes, {tag[0] if tag else shown}")
    if tag is None or (int(tag[1]), int(tag[2])) > NEWEST:
        print(f"it needs a newer C library than {'.'.join(map(str, NEWEST))}, or none is told")
        return 1
    if size >= MOST:
        print(f"a wheel must have fewer than {MOST:,} bytes")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
