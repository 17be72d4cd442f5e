"""The environment of `pytest bench`, set before anything imports NumPy, which reads it only once."""

import os

from bench.processes import SLOWING, THREAD_COUNTS

for _name in SLOWING:
    os.environ.pop(_name, None)
os.environ.update(dict.fromkeys(THREAD_COUNTS, "1"))
