"""JAX with backpropagation through time written by hand, as a custom derivative of the scan.

Automatic differentiation accumulates d_W_hh step by step. Here the reverse scan only carries the adjoint, and
d_W_hh is one product over all steps afterwards. It is what an expert would write, not what `grad` gives.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp

from bench.contenders import Prepare
from bench.contenders.jax_scan import SMALL, States, as_product, as_sum, compiled, hoisted, scan, version
from bench.problems import Shape

__all__ = ["variants", "version"]


def variants(shape: Shape, threads: int) -> dict[str, Prepare]:
    found = {f"unroll {n}": compiled(hoisted(_with_adjoint(n))) for n in (1, 8) if n <= shape.T}
    if shape.h <= SMALL and shape.B == 1:
        found |= {f"fused {n}": compiled(hoisted(_with_adjoint(n, fused=True))) for n in (1, 4)}
    return found


def _with_adjoint(unroll: int, *, fused: bool = False) -> States:
    product = as_sum if fused else as_product
    recurrence = scan(unroll, product=product)
    adjoint = scan(unroll, product=product, reverse=True)

    def forward(W: Any, v: Any) -> Any:
        hidden = recurrence(W, v)
        return hidden, (W, hidden)

    def backward(saved: Any, d_hidden: Any) -> Any:
        W, hidden = saved
        g = adjoint(W.T, d_hidden)
        h = len(W)
        return jnp.matmul(g[1:].reshape(-1, h).T, hidden[:-1].reshape(-1, h)), g

    states = jax.custom_vjp(recurrence)
    states.defvjp(forward, backward)
    return cast(States, states)
