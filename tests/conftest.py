"""Settings of the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# pytest --hypothesis-profile=thorough
for name, examples in (("rnnbptt", 100), ("thorough", 1000), ("brief", 10)):
    settings.register_profile(name, deadline=None, derandomize=True, max_examples=examples)
settings.load_profile("rnnbptt")

# In the background of a shell without job control, `sh -c "pytest &"`, Ctrl-C is ignored; its tests need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def jax_float64() -> Iterator[None]:
    """Have JAX compute in float64, which it does not by itself; only for tests that have it."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
