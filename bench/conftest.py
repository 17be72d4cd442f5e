"""The environment of `pytest bench`, set before anything imports NumPy, which reads it only once."""

import os

from bench.processes import THREAD_COUNTS, unslow

unslow()
os.environ.update(dict.fromkeys(THREAD_COUNTS, "1"))
