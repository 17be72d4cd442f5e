"""Seeded problems for the tests, with and without each optional part."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

import rnnbptt
from rnnbptt import reference
from rnnbptt.engine.dataset import Dataset
from rnnbptt.engine.losses import LOSSES as NAMED_LOSSES
from rnnbptt.engine.losses import LossName, SumOfSquares, checked_loss
from rnnbptt.engine.params import Gradients, Kind, Params
from rnnbptt.gradients.curvature import Curvature
from rnnbptt.gradients.layout import Layout
from rnnbptt.gradients.problem import Problem
from rnnbptt.reference.gradients import Method
from tolerances import relative_error

Array = NDArray[Any]
Scalar = type[np.float32] | type[np.float64]
SCALARS: tuple[Scalar, ...] = (np.float32, np.float64)
#: Every loss that has a name, and those that are sums of squares, which take weights of outputs.
LOSSES = cast("tuple[LossName, ...]", tuple(NAMED_LOSSES))
SQUARES = tuple(name for name in LOSSES if isinstance(NAMED_LOSSES[name], SumOfSquares))
KINDS: tuple[Kind, ...] = ("gaussian", "orthogonal", "symmetric", "identity")
OTHER_FORMS: tuple[Method, ...] = ("closed_form", "forward_mode")
STEP_OPTIONS = ("weights", "lengths", "mask")


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
        """Answer by the reference, with the gradients `more` asks for."""
        return reference.loss_and_grad(self.params, self.x, self.y, **(self.options | more))

    def engine(self, **more: Any) -> tuple[float, Gradients]:
        """Answer by the engine: every gradient there is, unless `more` says otherwise."""
        return rnnbptt.loss_and_grad(self.params, self.x, self.y, **({"wrt": self.wrt} | self.options | more))

    def wide(self) -> Case:
        """The same numbers in float64."""

        def widened(value: Any) -> Any:
            real = isinstance(value, np.ndarray) and value.dtype.kind == "f"
            return value.astype(np.float64) if real else value

        params = Params(**{name: widened(array) for name, array in self.params.items()})
        options = {name: widened(value) for name, value in self.options.items()}
        return Case(params, widened(self.x), widened(self.y), options)

    def oracle(self) -> tuple[float, Gradients]:
        """Every gradient in extended precision."""
        return reference.oracle(self.params, self.x, self.y, wrt=self.wrt, **self.options)

    def sequential(self) -> tuple[float, Gradients]:
        """Every gradient by the reference's recursion, in the problem's own precision."""
        return self.solve(wrt=self.wrt)

    def posed(self, **schedule: int) -> Problem:
        """Pose the problem of all gradients to the engine, on a prescribed schedule."""
        options = dict(self.options)
        loss = options.pop("loss", "mse")
        dataset = Dataset(self.params, self.x, wrt=self.wrt, **options)
        known = None if loss == "given" else checked_loss(loss)
        return Problem(dataset, known, self.y, schedule=schedule)

    def scheduled(self, threads: int = 1, **schedule: int) -> tuple[float, Gradients]:
        """Answer by the engine on a prescribed schedule."""
        return self.posed(**schedule).loss_and_gradients(self.params, threads)

    def hessian_product(self, seed: int, threads: int = 1, **schedule: int) -> tuple[Array, Gradients]:
        """Multiply the Hessian by a random direction, on a prescribed schedule; return the direction too.

        The product is a vector: the parameters' part, then that of h0.
        """
        options = dict(self.options)
        loss = options.pop("loss", "mse")
        dataset = Dataset(self.params, self.x, wrt=self.wrt[:-1], **options)
        problem = Problem(dataset, checked_loss(loss), self.y, schedule=schedule)
        curvature = Curvature(problem, Layout(self.params, dataset))
        rng = np.random.default_rng(seed)
        start = dataset.start
        if start is None:
            start = np.zeros((dataset.batch, dataset.shape[1]), dataset.dtype)
        parts = dict(self.params.items()) | {"h0": start}
        v = {name: rng.standard_normal(part.shape).astype(part.dtype) for name, part in parts.items()}
        theta, along = (np.concatenate([part.ravel() for part in vector.values()]) for vector in (parts, v))
        result = curvature.hessian_product(theta, along, threads)
        assert result is not None
        return result, Gradients(**v)


def draw(seed: int, *, loss: LossName | None = None, steps: int = 24) -> Case:
    """Draw a problem; the seed decides which optional parts it has."""
    rng = np.random.default_rng(seed)
    d, h, q = (int(n) for n in rng.integers(1, 6, size=3))
    T, B = int(rng.integers(1, steps + 1)), int(rng.integers(1, 4))
    loss = loss or LOSSES[seed % len(LOSSES)]
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
    y = rng.integers(0, q, (T, B)) if NAMED_LOSSES[loss].labels else rng.standard_normal((T, B, q))
    options: dict[str, Any] = {"loss": loss}
    if rng.integers(2):
        options["h0"] = rng.standard_normal((B, h))
    chosen = [name for name in STEP_OPTIONS if rng.integers(2)]
    options |= step_options(rng, chosen, T, B, np.float64)
    return Case(params, x, y, options)


def step_options(
    rng: np.random.Generator, chosen: list[str], T: int, B: int, dtype: Scalar
) -> dict[str, Any]:
    """Draw weights, lengths and mask; a first step always counts, so that something is left.

    Sequences but the first may be of length 0.
    """
    options: dict[str, Any] = {}
    if "weights" in chosen:
        options["weights"] = (rng.uniform(0, 2, (T, B)) * (rng.uniform(size=(T, B)) < 0.7)).astype(dtype)
        options["weights"][0] = 1
    if "lengths" in chosen:
        options["lengths"] = rng.integers(0, T + 1, B)
        options["lengths"][0] = max(1, options["lengths"][0])
    if "mask" in chosen:
        options["mask"] = rng.uniform(size=(T, B)) < 0.7
        options["mask"][0] = True
    return options


def weighing_outputs(case: Case, seed: int) -> Case:
    """Give every output a weight of its own; targets of those of weight 0 are NaN."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.1, 2, case.y.shape) * (rng.uniform(size=case.y.shape) < 0.6)
    w[0] = 1
    w = w.astype(case.params.dtype)
    return case._replace(
        y=np.where(w > 0, case.y, np.nan).astype(case.y.dtype), options=case.options | {"weights": w}
    )


def build(
    rng: np.random.Generator,
    dtype: Scalar,
    sizes: tuple[int, int, int, int, int],
    *,
    loss: LossName = "mse",
    radius: float = 0.9,
    kind: Kind = "gaussian",
    biases: bool = True,
    direct: bool = True,
    h0: bool = True,
    steps: tuple[str, ...] = (),
) -> Case:
    """Draw a problem of sizes (T, B, d, h, q) with exactly the parts that are asked for."""
    T, B, d, h, q = sizes
    params = Params.random(
        d, h, q, spectral_radius=radius, kind=kind, biases=biases, direct=direct, rng=rng, dtype=dtype
    )
    x = rng.standard_normal((T, B, d)).astype(dtype)
    labels: Array = rng.integers(0, q, (T, B))  # drawn for every loss, so that all go on from the same draws
    y = labels if NAMED_LOSSES[loss].labels else rng.standard_normal((T, B, q)).astype(dtype)
    options: dict[str, Any] = {"loss": loss}
    if h0:
        options["h0"] = rng.standard_normal((B, h)).astype(dtype)
    return Case(params, x, y, options | step_options(rng, list(steps), T, B, dtype))


def draw_any(seed: int) -> tuple[float, Case]:
    """Draw a problem of either dtype, T up to 2000, h up to 70, radius 0.5 to 1.05; return the radius too."""
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1000, 2001)) if rng.integers(4) == 0 else int(np.exp(rng.uniform(0, np.log(2001))))
    B, h = int(rng.integers(1, 4)), int(rng.integers(1, 71))
    d, q = (int(n) for n in rng.integers(1, 9, 2))
    radius = float(rng.uniform(0.5, 1.05))
    case = build(
        rng,
        SCALARS[seed % 2],
        (T, B, d, h, q),
        loss=LOSSES[rng.integers(len(LOSSES))],
        radius=radius,
        kind=KINDS[rng.integers(4)],
        biases=bool(rng.integers(2)),
        direct=bool(rng.integers(2)),
        h0=bool(rng.integers(2)),
        steps=tuple(name for name in STEP_OPTIONS if rng.integers(3) == 0),
    )
    return radius, case


def nudged(case: Case, seed: int) -> Case:
    """Move every given number by one rounding, up or down: no arithmetic of this dtype can tell which."""
    rng = np.random.default_rng(seed)
    dtype = case.params.dtype
    eps = np.finfo(dtype).eps

    def moved(array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype != dtype:
            return array
        return (array * (1 + eps * rng.choice([-1.0, 1.0], array.shape))).astype(dtype)

    params = Params(**{name: moved(array) for name, array in case.params.items()})
    options = {name: moved(value) for name, value in case.options.items()}
    return Case(params, moved(case.x), moved(case.y), options)


def assert_same(actual: Gradients, expected: Gradients, tolerance: float) -> None:
    """Compare every gradient, normwise."""
    assert [name for name, _ in actual.items()] == [name for name, _ in expected.items()]
    for (name, a), (_, b) in zip(actual.items(), expected.items(), strict=True):
        assert relative_error(a, b) <= tolerance, name


def assert_identical(actual: Gradients, expected: Gradients) -> None:
    """Compare every gradient, bit by bit."""
    assert [name for name, _ in actual.items()] == [name for name, _ in expected.items()]
    for (name, a), (_, b) in zip(actual.items(), expected.items(), strict=True):
        assert a.dtype == b.dtype, name
        assert a.shape == b.shape, name
        assert a.tobytes() == b.tobytes(), name
