"""The measurement: every contender on one shape, asserted equal first, then timed in turns."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import ceil, log2
from pathlib import Path
from typing import Any, Self

import numpy as np

from bench.contenders import CONTENDERS, OURS, Role, numpy_loop
from bench.problems import DTYPES, Shape, build
from bench.processes import Worker, WorkerError


@dataclass(frozen=True)
class Settings:
    threads: int = 2
    repeats: int = 7
    burst: float = 0.1  # seconds of calls behind each repeat
    tuning: float = 0.15  # seconds behind the choice of each variant
    pause: float = 0.04  # lets the threads of the previous contender fall asleep
    patience: float = 5.0  # seconds a call may take before its contender sits out
    seed: int = 0
    fewer_threads: bool = True  # peers may also run on one thread where that is faster for them


@dataclass
class Timing:
    """Seconds of one contender on one shape, or the reason there are none."""

    median: float | None = None
    best: float | None = None
    variant: str = ""
    threads: int = 0
    error: float | None = None  # largest normwise relative error of loss and gradients
    skipped: str = ""
    wrong: str = ""  # why the result was refused
    tried: dict[str, float] = field(default_factory=dict)


@dataclass
class Measurement:
    shape: Shape
    timings: dict[str, Timing]

    def seconds(self, contender: str) -> float | None:
        timing = self.timings.get(contender)
        return timing.median if timing else None

    def fastest(self, *roles: Role) -> str | None:
        """Name of the fastest contender of these roles that was timed."""
        timed = {
            name: timing.median
            for name, timing in self.timings.items()
            if timing.median is not None and CONTENDERS[name].role in roles
        }
        return min(timed, key=lambda name: timed[name]) if timed else None

    def ratio(self, *roles: Role) -> float | None:
        """Time of the fastest contender of these roles over ours."""
        fastest, ours = self.fastest(*roles), self.seconds(OURS.name)
        if fastest is None or ours is None:
            return None
        return (self.seconds(fastest) or 0.0) / ours

    def rate(self, contender: str) -> float | None:
        """GF/s by the flops of the exact gradient."""
        seconds = self.seconds(contender)
        return None if seconds is None else self.shape.flops / seconds / 1e9

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": str(self.shape),
            "timings": {name: asdict(timing) for name, timing in self.timings.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        timings = {name: Timing(**timing) for name, timing in data["timings"].items()}
        return cls(Shape.parse(data["shape"]), timings)


class Bench:
    """Worker processes for a set of contenders; a context manager that ends them."""

    def __init__(self, contenders: Iterable[str], settings: Settings) -> None:
        self.settings = settings
        self.limits: dict[str, dict[str, float]] = {dtype: {} for dtype in DTYPES}
        self.versions: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._workers: dict[str, list[Worker]] = {}
        self._limits = Worker("numpy", settings.threads)
        for name in contenders:
            counts = {settings.threads}
            if settings.fewer_threads and name != OURS.name:
                counts.add(1)
            workers = [Worker(name, count) for count in sorted(counts)]
            try:
                self.versions[name] = workers[0].ask("about")
                self._workers[name] = workers
            except WorkerError:
                self.missing[name] = f"{CONTENDERS[name].label} could not be imported"
                for worker in workers:
                    worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._limits.close()
        for workers in self._workers.values():
            for worker in workers:
                worker.close()

    def limit(self, dtype: str) -> float:
        """The machine's best rate seen so far in this run, in GF/s."""
        return max(self.limits[dtype].values(), default=0.0)

    def measure_limit(self, dtype: str) -> None:
        """Other loads come and go, so the limit is taken beside every shape and the best kept."""
        self._raise_limit(dtype, "NumPy 2048-square product", self._limits.ask("matmul", dtype=dtype))
        for worker in self._workers.get(OURS.name, []):
            self._raise_limit(dtype, "own panel product", worker.ask("panel", dtype=dtype))

    def _raise_limit(self, dtype: str, source: str, rate: float | None) -> None:
        if rate is not None:
            self.limits[dtype][source] = max(rate, self.limits[dtype].get(source, 0.0))

    def measure(self, shape: Shape, *, without: frozenset[str] = frozenset()) -> Measurement:
        """Tune, check and time every contender on one shape."""
        workers = {name: found for name, found in self._workers.items() if name not in without}
        timings: dict[str, Timing] = {}
        chosen: dict[str, Worker] = {}
        expected = expected_result(shape, self.settings.seed)
        for name, candidates in workers.items():
            timings[name], worker = self._tune(shape, name, candidates, expected)
            if worker is not None:
                chosen[name] = worker
        self.measure_limit(shape.dtype)
        samples: dict[str, list[float]] = {name: [] for name in chosen}
        for turn in range(self.settings.repeats if chosen else 0):
            # Turns start with another contender each, so that no one always follows the same neighbour.
            order = list(chosen)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                time.sleep(self.settings.pause)
                samples[name].append(chosen[name].ask("time", seconds=self.settings.burst))
        for name, worker in chosen.items():
            timings[name].median = statistics.median(samples[name])
            timings[name].best = min(samples[name])
            worker.ask("drop")
        return Measurement(shape, timings)

    def _tune(
        self, shape: Shape, name: str, candidates: list[Worker], expected: dict[str, Any]
    ) -> tuple[Timing, Worker | None]:
        """The fastest variant at the fastest number of threads, its gradients checked."""
        tried: dict[str, float] = {}
        best: tuple[float, Worker, str, float] | None = None
        skipped = ""
        for worker in candidates:
            time.sleep(self.settings.pause)
            with tempfile.TemporaryDirectory() as folder:
                gradients = Path(folder, "gradients.npz")
                answer = worker.ask(
                    "tune",
                    shape=str(shape),
                    seed=self.settings.seed,
                    seconds=self.settings.tuning,
                    patience=self.settings.patience,
                    gradients=str(gradients),
                )
                if "skipped" in answer:
                    skipped = answer["skipped"]
                    continue
                try:
                    error = check(shape, name, gradients, expected)
                except AssertionError as reason:
                    # A wrong answer has no time; the run goes on and fails at its end.
                    return Timing(wrong=str(reason)), None
            tried |= {f"{variant}, {worker.threads}t": s for variant, s in answer["tried"].items()}
            if best is None or answer["seconds"] < best[0]:
                if best is not None:
                    best[1].ask("drop")
                best = (answer["seconds"], worker, answer["variant"], error)
            else:
                worker.ask("drop")
        if best is None:
            return Timing(skipped=skipped), None
        _, worker, variant, error = best
        return Timing(variant=variant, threads=worker.threads, error=error, tried=tried), worker


def expected_result(shape: Shape, seed: int) -> dict[str, Any]:
    """Loss and gradients by the NumPy loop in float64, from the same (possibly float32) problem."""
    return numpy_loop.split(build(shape, seed).astype("f64"))()._asdict()


def check(shape: Shape, name: str, gradients: Path, expected: dict[str, Any]) -> float:
    """Assert a contender's saved result and return its largest normwise relative error.

    Ours has the project's own bound, twice over because the expected values are rounded too; peers, which may
    add up one step at a time, have a hundred times that.
    """
    eps = float(np.finfo(DTYPES[shape.dtype]).eps)
    bound = 8 * ceil(log2(max(shape.h * shape.T, 2))) * eps * (2 if name == OURS.name else 100)
    worst = 0.0
    with np.load(gradients) as found:
        for field_name, value in expected.items():
            computed = found[field_name]
            if field_name != "loss" and computed.dtype != DTYPES[shape.dtype]:
                raise AssertionError(f"{name} answers {computed.dtype} at {shape}")
            error = float(np.linalg.norm(computed - value) / (np.linalg.norm(value) or 1.0))
            if not error <= bound:
                raise AssertionError(
                    f"{name} at {shape}: {field_name} is off by {error:.1e}, allowed {bound:.1e}"
                )
            worst = max(worst, error)
    return worst
