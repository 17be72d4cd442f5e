"""What `pytest -m "not slow"`, the run between edits, leaves out; without it every test runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

slow = pytest.mark.slow


def thinned(values: Iterable[Any], every: int) -> list[Any]:
    """Return the parameters of a test, all but one in `every` of them marked as slow.

    Tuples are values of several arguments. Of `product(A, B)`, an `every` that shares no factor with the
    length of B keeps some pair for each value of either, as far as there are enough of them.
    Of seeds, it must share no factor with the number of losses (3) or of kinds (4): `problems.draw` takes
    these by the remainder of the seed, and a common factor would keep but some of them.
    """
    parameters = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        pytest.param(*value, marks=() if number % every == 0 else slow)
        for number, value in enumerate(parameters)
    ]
