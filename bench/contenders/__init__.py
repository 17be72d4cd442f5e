"""Everything that computes the gradient and is timed: rnnbptt and its peers, each at its best.

A contender is a module with `version()` and `variants(shape, threads)`. A variant prepares a problem
(buffers, data on its device, compilation) and returns a call that computes the loss and the three gradients
from scratch. A worker process tries every variant of a contender and keeps the fastest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, cast

from bench.problems import Problem, Shape


class Result(NamedTuple):
    """Loss and gradients, as whatever array type the contender uses."""

    loss: Any
    W_hx: Any
    W_hh: Any
    W_qh: Any


Call = Callable[[], Result]
Prepare = Callable[[Problem], Call]


class Module(Protocol):
    def version(self) -> str: ...
    def variants(self, shape: Shape, threads: int) -> dict[str, Prepare]: ...


class Role(Enum):
    OURS = "ours"
    PEER = "peer"  # the fastest of these is the bar
    REWRITTEN = "rewritten"  # the framework with backpropagation written by hand: shown, outside the bar


@dataclass(frozen=True)
class Contender:
    name: str
    module: str
    label: str
    role: Role

    def load(self) -> Module:
        return cast(Module, importlib.import_module(f"bench.contenders.{self.module}"))


OURS = Contender("rnnbptt", "objective", "rnnbptt", Role.OURS)
CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        OURS,
        Contender("numpy", "numpy_loop", "NumPy", Role.PEER),
        Contender("jax", "jax_scan", "JAX", Role.PEER),
        Contender("torch", "torch_loop", "PyTorch", Role.PEER),
        Contender("jax_adjoint", "jax_adjoint", "JAX, own adjoint", Role.REWRITTEN),
    )
}
