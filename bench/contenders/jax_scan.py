"""JAX: `jit(value_and_grad(...))` of a `lax.scan`, compiled, with the data already on the device.

Inputs and outputs are hoisted out of the scan, which is the faster way nearly everywhere; `plain` leaves them
in. The scan is tried with several unroll factors, and for small h with the product as a sum, which XLA fuses
with the addition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bench.contenders import Call, Prepare, Result
from bench.problems import Problem, Shape

jax.config.update("jax_enable_x64", True)

# states(W_hh, v) -> hidden, for v of shape (T, B, h), or (T, h) for a single sequence
States = Callable[[Any, Any], Any]
SMALL = 16


def version() -> str:
    return f"JAX {jax.__version__}"


def variants(shape: Shape, threads: int) -> dict[str, Prepare]:
    found = {f"unroll {n}": compiled(hoisted(scan(n))) for n in (1, 4, 16) if n <= shape.T}
    if shape.h <= SMALL and shape.B == 1:
        found["fused"] = compiled(hoisted(scan(1, product=as_sum)))
    found["plain"] = compiled(plain)
    return found


def as_product(W: Any, s: Any) -> Any:
    return s @ W.T


def as_sum(W: Any, s: Any) -> Any:
    return jnp.sum(W * s, axis=1)


def scan(unroll: int, *, product: Callable[[Any, Any], Any] = as_product, reverse: bool = False) -> States:
    """The recurrence s_t = W s_{t-1} + v_t over all steps."""

    def states(W: Any, v: Any) -> Any:
        def step(s: Any, source: Any) -> Any:
            s = product(W, s) + source
            return s, s

        return lax.scan(step, jnp.zeros_like(v[0]), v, unroll=unroll, reverse=reverse)[1]

    return states


def hoisted(states: States) -> Callable[..., Any]:
    def loss(weights: Any, x: Any, y: Any) -> Any:
        W_hx, W_hh, W_qh = weights
        return jnp.mean((states(W_hh, x @ W_hx.T) @ W_qh.T - y) ** 2)

    return loss


def plain(weights: Any, x: Any, y: Any) -> Any:
    W_hx, W_hh, W_qh = weights

    def step(s: Any, x_t: Any) -> Any:
        s = s @ W_hh.T + x_t @ W_hx.T
        return s, s @ W_qh.T

    start = jnp.zeros((*x.shape[1:-1], len(W_hh)), x.dtype)
    return jnp.mean((lax.scan(step, start, x)[1] - y) ** 2)


def compiled(loss: Callable[..., Any]) -> Prepare:
    gradient = jax.jit(jax.value_and_grad(loss))

    def prepare(problem: Problem) -> Call:
        weights = tuple(jax.device_put(W) for W in (problem.W_hx, problem.W_hh, problem.W_qh))
        # A batch axis of one would make every product a matrix product; XLA is faster with vectors.
        x, y = (jax.device_put(data[:, 0] if data.shape[1] == 1 else data) for data in (problem.x, problem.y))

        def call() -> Result:
            value, gradients = jax.block_until_ready(gradient(weights, x, y))
            return Result(value, *gradients)

        return call

    return prepare
