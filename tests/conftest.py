"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("rnnbptt", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("rnnbptt")
