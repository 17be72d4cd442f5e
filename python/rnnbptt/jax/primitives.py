"""The linear RNN as primitives of JAX, differentiable to any order, in either mode, under jit and vmap.

At a point p (see `rnnbptt.bridge`) with outputs and last state f(p), a direction u and cotangents c:

    run(p)        = f(p)
    push(p, u)    = f'(p) u                     linear in u; its transpose is pull
    pull(p, c)    = f'(p)^T c                   linear in c; its transpose is push
    bend(p, c, u) = d/du pull(p, c)             linear in u, and its own transpose: a Hessian

JAX transposes what is linear and differentiates what is not. With p.u the doubled point, whose outputs are
[o; o'],

    push(p, u) = second half of run(p.u)        bend(p, c, u) = pull(p.u, [0; c]), folded

so that the derivatives of all four are these four again. Each primitive has as static parameters which of
the eight arrays of a point are there (`present`) and which it is about (`wrt`, `along`): tuples of indices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .. import bridge
from ..bridge import NAMES
from . import foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Index = tuple[int, ...]
    Arrays = Sequence[Any]

_STATE, _INPUTS = NAMES.index("h0"), NAMES.index("x")


# --- points as flat sequences of the arrays that are present ------------------------------------------------


def _full(present: Index, arrays: Arrays) -> list[Any]:
    """Spread arrays over the eight places of a point; ``None`` elsewhere."""
    point: list[Any] = [None] * len(NAMES)
    for i, array in zip(present, arrays, strict=True):
        point[i] = array
    return point


def _doubled(present: Index, arrays: Arrays, wrt: Index, direction: Arrays) -> list[Any]:
    """Return the arrays of the doubled point that are present."""
    point = bridge.doubled(_full(present, arrays), _full(wrt, direction), jnp.concatenate, jnp.zeros_like)
    return [point[i] for i in present]


def _second_half(array: Any) -> Any:
    return array[..., array.shape[-1] // 2 :]


def _folded(wrt: Index, gradients: Arrays) -> list[Any]:
    return [bridge.halved(NAMES[i], g) for i, g in zip(wrt, gradients, strict=True)]


def _joined(first: Arrays, second: Arrays) -> list[Any]:
    """Cotangents of [o; o'] and its last state."""
    return [jnp.concatenate(pair, -1) for pair in zip(first, second, strict=True)]


def _zeros_before(cotangents: Arrays) -> list[Any]:
    return _joined([jnp.zeros_like(c) for c in cotangents], cotangents)


def _split(args: Arrays, *counts: int) -> list[list[Any]]:
    parts, start = [], 0
    for count in counts:
        parts.append(list(args[start : start + count]))
        start += count
    return [*parts, list(args[start:])]


# --- the four primitives ------------------------------------------------------------------------------------

run_p, push_p, pull_p, bend_p = (Primitive(f"linear_rnn_{name}") for name in ("run", "push", "pull", "bend"))


def run(*point: Any, present: Index) -> list[Any]:
    """Return outputs (T, B, q) and last state (B, h)."""
    return run_p.bind(*point, present=present)  # type: ignore[no-any-return]


def push(*args: Any, present: Index, wrt: Index) -> list[Any]:
    """Return o' and h'_T where the point, ``args[:len(present)]``, moves in the direction of the rest."""
    return push_p.bind(*args, present=present, wrt=wrt)  # type: ignore[no-any-return]


def pull(*args: Any, present: Index, wrt: Index) -> list[Any]:
    """Return gradients by `wrt`, given the point, and derivatives by outputs and last state."""
    return pull_p.bind(*args, present=present, wrt=wrt) if wrt else []


def bend(*args: Any, present: Index, along: Index, wrt: Index) -> list[Any]:
    """Return how `pull` by `wrt` changes: point, two cotangents, a direction of the point by `along`."""
    return bend_p.bind(*args, present=present, along=along, wrt=wrt) if wrt else []


def _push_by_run(*args: Any, present: Index, wrt: Index) -> list[Any]:
    point, direction = _split(args, len(present))
    return [_second_half(r) for r in run(*_doubled(present, point, wrt, direction), present=present)]


def _bend_by_pull(*args: Any, present: Index, along: Index, wrt: Index) -> list[Any]:
    point, cotangents, direction = _split(args, len(present), 2)
    doubled = _doubled(present, point, along, direction)
    return _folded(wrt, pull(*doubled, *_zeros_before(cotangents), present=present, wrt=wrt))


# --- values: NumPy arrays in, NumPy arrays out --------------------------------------------------------------


def _run_numpy(*point: Any, present: Index) -> tuple[Any, ...]:
    return bridge.run(_full(present, point), False, None)


def _pull_numpy(*args: Any, present: Index, wrt: Index) -> tuple[Any, ...]:
    point, (d_o, d_hT) = _split(args, len(present))
    # Without d_hT the schedule has more choice.
    d_hT = d_hT if d_hT.any() else None
    return tuple(bridge.pull(_full(present, point), (d_o, d_hT), [NAMES[i] for i in wrt], False, None))


def _run_shapes(*point: Any, present: Index) -> list[Any]:
    W_hh, W_qh, x = (point[present.index(NAMES.index(name))] for name in ("W_hh", "W_qh", "x"))
    T, B = x.shape[:2]
    return [x.update(shape=(T, B, W_qh.shape[0])), x.update(shape=(B, W_hh.shape[0]))]


def _pull_shapes(*args: Any, present: Index, wrt: Index) -> list[Any]:
    return [args[present.index(i)].update() for i in wrt]


def _register_native(
    primitive: Primitive, name: str, numpy_function: Callable[..., Any], shapes: Callable[..., Any]
) -> None:
    """Have a primitive computed by the engine: at once outside jit, as a function of XLA's inside.

    Where this XLA does not know such functions, by a call back to Python.
    """

    def eager(*args: Any, **parameters: Any) -> list[Any]:
        return [jnp.asarray(r) for r in numpy_function(*map(np.asarray, args), **parameters)]

    def lowering(ctx: Any, *args: Any, **parameters: Any) -> Any:
        if foreign.available():
            return foreign.lowering(name, **parameters)(ctx, *args)

        def callback(*arrays: Any) -> Any:
            return numpy_function(*map(np.asarray, arrays), **parameters)

        # Not jax.pure_callback, which makes JAX arrays of its arguments: waiting for those inside a callback
        # may wait for the very thread it runs on. These are NumPy arrays.
        results, _, _ = mlir.emit_python_callback(
            ctx, callback, None, args, ctx.avals_in, ctx.avals_out, has_side_effect=False, returns_token=False
        )
        return results

    primitive.multiple_results = True
    primitive.def_impl(eager)
    primitive.def_abstract_eval(shapes)
    mlir.register_lowering(primitive, lowering, platform="cpu")


def _register_composite(
    primitive: Primitive, function: Callable[..., Any], shapes: Callable[..., Any]
) -> None:
    primitive.multiple_results = True
    primitive.def_impl(function)
    primitive.def_abstract_eval(shapes)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=True))


_register_native(run_p, "run", _run_numpy, _run_shapes)
_register_native(pull_p, "pull", _pull_numpy, _pull_shapes)
_register_composite(
    push_p, _push_by_run, lambda *args, present, wrt: _run_shapes(*args[: len(present)], present=present)
)
_register_composite(
    bend_p, _bend_by_pull, lambda *args, present, along, wrt: _pull_shapes(*args, present=present, wrt=wrt)
)


# --- derivatives --------------------------------------------------------------------------------------------


def _moving(places: Index, tangents: Arrays) -> tuple[Index, list[Any]]:
    """Return the places whose tangent is not zero, and those tangents."""
    pairs = [(i, t) for i, t in zip(places, tangents, strict=True) if type(t) is not ad.Zero]
    return tuple(i for i, _ in pairs), [t for _, t in pairs]


def _sum(parts: list[list[Any]], avals: Arrays) -> list[Any]:
    if not parts:
        return [ad.Zero(jax.typeof(a).to_tangent_aval()) for a in avals]
    return [sum(terms[1:], terms[0]) for terms in zip(*parts, strict=True)]


def _instantiated(tangents: Arrays) -> list[Any]:
    return [ad.instantiate_zeros(t) for t in tangents]


def _any(tangents: Arrays) -> bool:
    return any(type(t) is not ad.Zero for t in tangents)


def _second_derivative(
    present: Index, point: Arrays, wrt: Index, u: Arrays, along: Index, r: Arrays
) -> list[Any]:
    """Return f''(p)[u, r]: how the second half of run(p.u) moves where p.u moves by r.0, the double of r."""
    doubled, shifted = _doubled(present, point, wrt, u), _doubled(along, r, (), ())
    return [_second_half(r) for r in push(*doubled, *shifted, present=present, wrt=along)]


def _run_jvp(primals: Arrays, tangents: Arrays, *, present: Index) -> tuple[Any, Any]:
    out = run(*primals, present=present)
    wrt, moved = _moving(present, tangents)
    parts = [push(*primals, *moved, present=present, wrt=wrt)] if wrt else []
    return out, _sum(parts, out)


def _push_jvp(primals: Arrays, tangents: Arrays, *, present: Index, wrt: Index) -> tuple[Any, Any]:
    n = len(present)
    point, direction = _split(primals, n)
    out = push(*primals, present=present, wrt=wrt)
    parts = []
    if _any(tangents[n:]):
        parts.append(push(*point, *_instantiated(tangents[n:]), present=present, wrt=wrt))
    along, moved = _moving(present, tangents[:n])
    if along:
        parts.append(_second_derivative(present, point, wrt, direction, along, moved))
    return out, _sum(parts, out)


def _pull_jvp(primals: Arrays, tangents: Arrays, *, present: Index, wrt: Index) -> tuple[Any, Any]:
    n = len(present)
    point, cotangents = _split(primals, n)
    out = pull(*primals, present=present, wrt=wrt)
    parts = []
    if _any(tangents[n:]):
        parts.append(pull(*point, *_instantiated(tangents[n:]), present=present, wrt=wrt))
    along, moved = _moving(present, tangents[:n])
    if along:
        parts.append(bend(*point, *cotangents, *moved, present=present, along=along, wrt=wrt))
    return out, _sum(parts, out)


def _bend_jvp(
    primals: Arrays, tangents: Arrays, *, present: Index, along: Index, wrt: Index
) -> tuple[Any, Any]:
    # bend(p, c, u) = pull(p.u, [0; c]), folded: linear in c and u, moved by r as pull is at p.u by r.0.
    n = len(present)
    point, cotangents, direction = _split(primals, n, 2)
    d_point, d_cotangents, d_direction = _split(tangents, n, 2)
    out = bend(*primals, present=present, along=along, wrt=wrt)
    static = {"present": present, "along": along, "wrt": wrt}
    parts = []
    if _any(d_direction):
        parts.append(bend(*point, *cotangents, *_instantiated(d_direction), **static))
    doubled = _doubled(present, point, along, direction)
    if _any(d_cotangents):
        change = pull(*doubled, *_zeros_before(_instantiated(d_cotangents)), present=present, wrt=wrt)
        parts.append(_folded(wrt, change))
    moving, moved = _moving(present, d_point)
    if moving:
        shifted = _doubled(moving, moved, (), ())
        change = bend(*doubled, *_zeros_before(cotangents), *shifted, present=present, along=moving, wrt=wrt)
        parts.append(_folded(wrt, change))
    return out, _sum(parts, out)


def _asked(places: Index, linear: Arrays) -> Index:
    """Return the places whose argument is one to transpose by; the others are zeros."""
    return tuple(i for i, a in zip(places, linear, strict=True) if ad.is_undefined_primal(a))


def _answered(places: Index, asked: Index, values: Arrays) -> list[Any]:
    found = dict(zip(asked, values, strict=True))
    return [found.get(i) for i in places]


def _push_transpose(cts: Arrays, *args: Any, present: Index, wrt: Index) -> list[Any]:
    point, direction = _split(args, len(present))
    asked = _asked(wrt, direction)
    gradients = pull(*point, *_instantiated(cts), present=present, wrt=asked)
    return [None] * len(present) + _answered(wrt, asked, gradients)


def _pull_transpose(cts: Arrays, *args: Any, present: Index, wrt: Index) -> list[Any]:
    point, cotangents = _split(args, len(present))
    results = push(*point, *_instantiated(cts), present=present, wrt=wrt)
    return [None] * len(present) + [
        r if ad.is_undefined_primal(c) else None for r, c in zip(results, cotangents, strict=True)
    ]


def _bend_transpose(cts: Arrays, *args: Any, present: Index, along: Index, wrt: Index) -> list[Any]:
    point, cotangents, direction = _split(args, len(present), 2)
    w = _instantiated(cts)
    results: list[Any] = [None] * len(args)
    if any(ad.is_undefined_primal(u) for u in direction):
        asked = _asked(along, direction)
        gradients = bend(*point, *cotangents, *w, present=present, along=wrt, wrt=asked)
        results[len(present) + 2 :] = _answered(along, asked, gradients)
    else:  # linear in the cotangents: <w, bend(p, c, u)> = <c, second derivative of f along u and w>
        second = _second_derivative(present, point, along, direction, wrt, w)
        results[len(present) : len(present) + 2] = second
    return results


ad.primitive_jvps |= {run_p: _run_jvp, push_p: _push_jvp, pull_p: _pull_jvp, bend_p: _bend_jvp}
ad.primitive_transposes |= {push_p: _push_transpose, pull_p: _pull_transpose, bend_p: _bend_transpose}


# --- vmap: more sequences where the weights are shared, one call after the other where they are not ---------


def _size(args: Arrays, dims: Arrays) -> int:
    sizes = (a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    return int(next(sizes))


def _merged(array: Any, dim: Any, n: int, axis: int) -> Any:
    """Join the axis that is mapped over with the axis of the batch."""
    if dim is None:
        moved = jnp.broadcast_to(jnp.expand_dims(array, axis), (*array.shape[:axis], n, *array.shape[axis:]))
    else:
        moved = jnp.moveaxis(array, dim, axis)
    shape = moved.shape
    return moved.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


def _unmerged(array: Any, n: int, axis: int) -> Any:
    return array.reshape(*array.shape[:axis], n, array.shape[axis] // n, *array.shape[axis + 1 :])


def _axis(place: int) -> int:
    """Axis of the batch in h0 (B, h) and in x (T, B, d)."""
    return 1 if place == _INPUTS else 0


def _batching(function: Callable[..., Any], layout: Callable[..., tuple[list[int], list[int]]]) -> Any:
    """Return the rule of a primitive, given places of arguments and results: 6 for states, 7 for sequences.

    Below 6 are weights. Cotangents of outputs and last state have the layouts of x and h0.
    """

    def rule(args: Arrays, dims: Arrays, **parameters: Any) -> tuple[list[Any], list[int]]:
        n = _size(args, dims)
        places, results = layout(**parameters)
        shared = all(p >= _STATE or d is None for p, d in zip(places, dims, strict=True))
        if shared and all(p >= _STATE for p in results):
            merged = [
                a if p < _STATE else _merged(a, d, n, _axis(p))
                for a, d, p in zip(args, dims, places, strict=True)
            ]
            out = function(*merged, **parameters)
            axes = [_axis(p) for p in results]
            return [_unmerged(r, n, axis) for r, axis in zip(out, axes, strict=True)], axes
        mapped = [d is not None for d in dims]
        moved = [jnp.moveaxis(a, d, 0) for a, d, m in zip(args, dims, mapped, strict=True) if m]

        def one(of_this: list[Any]) -> list[Any]:
            remaining = iter(of_this)
            chosen = [next(remaining) if m else a for a, m in zip(args, mapped, strict=True)]
            return list(function(*chosen, **parameters))

        out = jax.lax.map(one, moved)
        return out, [0] * len(out)

    return rule


_OUTPUTS = [_INPUTS, _STATE]
for _primitive, _rule in (
    (run_p, _batching(run, lambda present: (list(present), _OUTPUTS))),
    (push_p, _batching(push, lambda present, wrt: ([*present, *wrt], _OUTPUTS))),
    (pull_p, _batching(pull, lambda present, wrt: ([*present, *_OUTPUTS], list(wrt)))),
    (bend_p, _batching(bend, lambda present, along, wrt: ([*present, *_OUTPUTS, *along], list(wrt)))),
):
    batching.primitive_batchers[_primitive] = _rule
