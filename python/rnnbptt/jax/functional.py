"""A linear RNN as a function of JAX arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from .. import _validate, bridge
from ..engine.params import PARAMETERS, Params
from . import primitives


@overload
def linear_rnn(
    params: Any,
    x: Any,
    h0: Any = ...,
    *,
    batch_first: bool = ...,
    return_state: Literal[False] = ...,
) -> jax.Array: ...
@overload
def linear_rnn(
    params: Any, x: Any, h0: Any = ..., *, batch_first: bool = ..., return_state: Literal[True]
) -> tuple[jax.Array, jax.Array]: ...
@overload
def linear_rnn(
    params: Any, x: Any, h0: Any = ..., *, batch_first: bool = ..., return_state: bool
) -> jax.Array | tuple[jax.Array, jax.Array]: ...
def linear_rnn(
    params: Any,
    x: Any,
    h0: Any = None,
    *,
    batch_first: bool = False,
    return_state: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Run the network: ``h_t = W_hx x_t + W_hh h_{t-1} + b_h``, ``o_t = W_qh h_t + W_qx x_t + b_q``.

    Works under `jax.jit`, `jax.grad`, `jax.jvp`, their compositions to any order, and `jax.vmap`: over `x`
    and `h0` it adds sequences to the batch, over parameters it calls once per network. Inside jit XLA calls
    the engine by itself, at some microseconds per call; only a version of XLA whose interface for foreign
    functions is not the known one goes back through Python, at some 0.06 ms. Ctrl-C is heard between calls.

    Parameters
    ----------
    params : rnnbptt.Params, or a mapping, or an object with fields
        ``W_hx`` (h, d), ``W_hh`` (h, h), ``W_qh`` (q, h), and where there are any ``b_h`` (h,), ``b_q`` (q,)
        and ``W_qx`` (q, d). The dtype of ``W_hh``, float32 or float64, must be that of every array; float64
        needs ``jax.config.update("jax_enable_x64", True)``, without which JAX makes float32 of it.
    x : array, shape (T, B, d) or (T, d)
        Inputs.
    h0 : array, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...), on the way in and on the way out.
    return_state : bool
        Whether to return the last state as well.

    Returns
    -------
    o : jax.Array, shape (T, B, q) or (T, q)
        Outputs.
    h_T : jax.Array, shape (B, h) or (h,)
        Last state, if `return_state`.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names the array.
    """
    batch_first = _validate.boolean("batch_first", batch_first)
    return_state = _validate.boolean("return_state", return_state)
    point = [
        _array(name, value) for name, value in zip(bridge.NAMES, (*_weights(params), h0, x), strict=True)
    ]
    dtype = point[1].dtype
    for name, array in zip(bridge.NAMES, point, strict=True):
        if array is not None and array.dtype != dtype:
            raise TypeError(f"{name} must have the dtype of W_hh, {dtype}, not {array.dtype}")
    bridge.checked_shapes(point, batch_first)
    *weights, state, inputs = point
    batched = inputs.ndim == 3
    if not batched:
        inputs, state = inputs[:, None], None if state is None else state[None]
    elif batch_first:
        inputs = jnp.swapaxes(inputs, 0, 1)
    if state is None:
        state = jnp.zeros((inputs.shape[1], weights[1].shape[0]), dtype)
    arrays = [*weights, state, inputs]
    present = tuple(i for i, array in enumerate(arrays) if array is not None)
    o, h_T = primitives.run(*(arrays[i] for i in present), present=present)
    if not batched:
        o, h_T = o[:, 0], h_T[0]
    elif batch_first:
        o = jnp.swapaxes(o, 0, 1)
    return (o, h_T) if return_state else o


def _weights(params: Any) -> list[Any]:
    """Return the six parameters of whatever holds them by name; ``None`` for what is absent."""
    if isinstance(params, Mapping):
        unknown = set(params) - set(PARAMETERS)
        if unknown:
            raise ValueError(
                f"params must hold some of {', '.join(PARAMETERS)}, not {sorted(map(str, unknown))}"
            )
        found = [params.get(name) for name in PARAMETERS]
    else:
        found = [getattr(params, name, None) for name in PARAMETERS]
    for name, value in zip(PARAMETERS[:3], found[:3], strict=True):
        if value is None:
            raise TypeError(f"params must hold {name}, and a {type(params).__name__} without it came")
    return found


def _array(name: str, value: Any) -> Any:
    """Return a JAX array of float32 or float64."""
    if value is None and name != "x":
        return None
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name} must be an array, not {type(value).__name__}")
    array = jnp.asarray(value)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, not {array.dtype}")
    return array


# --- rnnbptt.Params as a tree of JAX ------------------------------------------------------------------------


def _flatten(params: Params) -> tuple[tuple[Any, ...], None]:
    return tuple(getattr(params, name) for name in PARAMETERS), None


def _unflatten(_: None, leaves: Any) -> Params:
    """Return parameters that are checked, of NumPy arrays, where there are numbers; else a bare holder."""
    known = (np.ndarray, jax.Array)
    if all(a is None or (isinstance(a, known) and not isinstance(a, jax.core.Tracer)) for a in leaves):
        try:
            return Params(*leaves)
        except (TypeError, ValueError):
            pass  # stacked by vmap, or of another dtype
    holder = object.__new__(Params)
    for name, leaf in zip(PARAMETERS, leaves, strict=True):
        object.__setattr__(holder, name, leaf)
    object.__setattr__(holder, "_kind", ("not checked",))
    return holder


jax.tree_util.register_pytree_node(Params, _flatten, _unflatten)
