"""Seeded problems for the tests of the reference, with and without each optional part."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnbptt import reference
from rnnbptt.params import Gradients, Kind, Params
from rnnbptt.reference.gradients import Method
from rnnbptt.reference.losses import LossName
from tolerances import relative_error

Array = NDArray[Any]
LOSSES: tuple[LossName, ...] = ("mse", "squared_error", "cross_entropy")
KINDS: tuple[Kind, ...] = ("gaussian", "orthogonal", "symmetric", "identity")
OTHER_FORMS: tuple[Method, ...] = ("closed_form", "forward_mode")


class Case(NamedTuple):
    """A problem and the keyword arguments that complete it."""

    params: Params
    x: Array
    y: Array
    options: dict[str, Any]

    @property
    def wrt(self) -> list[str]:
        return [name for name, _ in self.params.items()] + ["h0", "x"]

    def solve(self, **more: Any) -> tuple[float, Gradients]:
        return reference.loss_and_grad(self.params, self.x, self.y, **(self.options | more))


def draw(seed: int, *, loss: LossName | None = None, steps: int = 24) -> Case:
    """Draw a problem; the seed decides which optional parts it has."""
    rng = np.random.default_rng(seed)
    d, h, q = (int(n) for n in rng.integers(1, 6, size=3))
    T, B = int(rng.integers(1, steps + 1)), int(rng.integers(1, 4))
    loss = loss or LOSSES[seed % 3]
    params = Params.random(
        d,
        h,
        q,
        spectral_radius=float(rng.uniform(0.3, 1.05)),
        kind=KINDS[seed % 4],
        biases=bool(rng.integers(2)),
        direct=bool(rng.integers(2)),
        rng=rng,
    )
    x = rng.standard_normal((T, B, d))
    y = rng.integers(0, q, (T, B)) if loss == "cross_entropy" else rng.standard_normal((T, B, q))
    options: dict[str, Any] = {"loss": loss}
    if rng.integers(2):
        options["h0"] = rng.standard_normal((B, h))
    if rng.integers(2):
        # The first step always counts, so that something is left whatever the other options leave out.
        options["weights"] = rng.uniform(0, 2, (T, B)) * (rng.uniform(size=(T, B)) < 0.7)
        options["weights"][0] = 1
    if rng.integers(2):
        options["lengths"] = rng.integers(1, T + 1, B)
    if rng.integers(2):
        options["mask"] = rng.uniform(size=(T, B)) < 0.7
        options["mask"][0] = True
    return Case(params, x, y, options)


def assert_same(actual: Gradients, expected: Gradients, tolerance: float) -> None:
    """Compare every gradient, normwise."""
    assert [name for name, _ in actual.items()] == [name for name, _ in expected.items()]
    for (name, a), (_, b) in zip(actual.items(), expected.items(), strict=True):
        assert relative_error(a, b) <= tolerance, name
