"""The linear RNN as an operator of PyTorch, differentiable to any order, in either mode, under vmap.

Two maps, `run` and `pull`, each in two forms that share their formulas: an autograd function, which costs
less per call and has forward mode, and an operator of `torch.library`, which tracers and compilers do not
look into. Their arguments are the eight arrays of a point (see `rnnbptt.bridge`), with ``x`` of shape
(T, B, d), or (B, T, d).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from .. import _core, bridge
from ..bridge import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Tensors = tuple[torch.Tensor | None, ...]

_POINT = "Tensor W_hx, Tensor W_hh, Tensor W_qh, Tensor? b_h, Tensor? b_q, Tensor? W_qx, Tensor? h0, Tensor x"
_RUN_SCHEMA = f"({_POINT}, bool batch_first, int num_threads) -> (Tensor, Tensor)"
_PULL_SCHEMA = (
    f"({_POINT}, Tensor? d_o, Tensor? d_hT, bool[] wrt, bool batch_first, int num_threads) -> Tensor[]"
)


def run(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and last state of a point: ``(*point, batch_first, num_threads)``."""
    result = _RunFunction.apply(*args) if _plain(args) else _run_operator(*args)
    return result[0], result[1]


def pull(*args: Any) -> Sequence[torch.Tensor]:
    """Return the gradients `wrt` marks: ``(*point, d_o, d_hT, wrt, batch_first, num_threads)``."""
    return tuple(_PullFunction.apply(*args) if _plain(args) else _pull_operator(*args))


def _plain(args: tuple[Any, ...]) -> bool:
    """Whether all tensors hold numbers, which those of tracers and compilers do not."""
    if torch.compiler.is_compiling():
        return False
    return all(type(a) in _PLAIN_TYPES and not a.is_meta for a in args if isinstance(a, torch.Tensor))


_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)


# --- values -------------------------------------------------------------------------------------------------


def _arrays(tensors: Tensors) -> list[Any]:
    """Return the NumPy arrays that share the tensors' memory."""
    try:
        return [None if t is None else t.numpy(force=True) for t in tensors]
    except RuntimeError as error:
        raise NotImplementedError(
            f"linear_rnn needs tensors that hold numbers ({error}): torch.func.vmap, jacrev and jacfwd work, "
            "is_grads_batched=True and vectorize=True do not"
        ) from error


def _with_team(function: Callable[..., Any], point: list[Any], *args: Any) -> Any:
    """Call the engine, a large call with the help of the threads that PyTorch uses for its own loops.

    They go on spinning for milliseconds after each loop, in which the engine's own threads would have to
    share the cores with them.
    """
    W_hx, W_hh, W_qh, x = point[0], point[1], point[2], point[7]
    work = x.shape[0] * x.shape[1] * (W_hx.size + W_hh.size + W_qh.size)
    if work < _WORTH_A_TEAM:
        return function(point, *args)
    before = _core.set_openmp_team(torch.get_num_threads())
    try:
        return function(point, *args)
    finally:
        _core.set_openmp_team(before)


# Multiply-adds of one pass over time. A team that sleeps, as it does beside tensors too small for PyTorch to
# share out, takes some 0.05 ms to wake and to let go: little beside the half millisecond of such a pass.
_WORTH_A_TEAM = 30_000_000


def _run(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    *point, batch_first, threads = args
    o, h_T = _with_team(bridge.run, _arrays(tuple(point)), batch_first, threads or None)
    return torch.from_numpy(o), torch.from_numpy(h_T)


def _pull(*args: Any) -> list[torch.Tensor]:
    *tensors, wrt, batch_first, threads = args
    *point, d_o, d_hT = _arrays(tuple(tensors))
    gradients = _with_team(bridge.pull, point, (d_o, d_hT), _named(wrt), batch_first, threads or None)
    return [torch.from_numpy(gradient) for gradient in gradients]


def _named(wrt: Sequence[bool]) -> list[str]:
    return [name for name, wanted in zip(NAMES, wrt, strict=True) if wanted]


def _fake_run(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    W_hh, W_qh, x, batch_first = args[1], args[2], args[7], args[8]
    batch = x.shape[0 if batch_first else 1]
    return x.new_empty((*x.shape[:2], W_qh.shape[0])), x.new_empty((batch, W_hh.shape[0]))


def _fake_pull(*args: Any) -> list[torch.Tensor]:
    point, wrt = args[:8], args[10]
    return [t.new_empty(t.shape) for t, wanted in zip(point, wrt, strict=True) if wanted]


# --- derivatives --------------------------------------------------------------------------------------------


def _cotangents(grads: tuple[Any, ...]) -> list[torch.Tensor | None]:
    """Return the gradients by the results of `pull`: operators get one list of them, functions each."""
    return list(grads[0] if len(grads) == 1 and isinstance(grads[0], (list, tuple)) else grads)


def _doubled(point: Tensors, direction: Sequence[torch.Tensor | None]) -> list[Any]:
    return bridge.doubled(point, direction, torch.cat, torch.zeros_like)


def _tangents(point: Tensors, direction: Sequence[torch.Tensor | None], *options: Any) -> list[torch.Tensor]:
    """Return how outputs and last state change where the point moves in a direction: o', h'_T."""
    both = run(*_doubled(point, direction), *options)
    return [result[..., result.shape[-1] // 2 :].clone() for result in both]


def _pull_change(
    point: Tensors,
    direction: Sequence[torch.Tensor | None],
    cotangents: Sequence[torch.Tensor | None],
    changes: Sequence[torch.Tensor | None],
    wrt: Sequence[bool],
    *options: Any,
) -> list[torch.Tensor]:
    """Return how `pull` changes where the point moves in a direction, and its cotangents by `changes`.

    <c, o> has the directional derivative <c, o'> + <c', o>: its gradient is that of the doubled network.
    """
    joined: list[torch.Tensor | None] = []
    for value, change in zip(cotangents, changes, strict=True):
        example = value if value is not None else change
        if example is None:
            joined.append(None)
            continue
        zeros = torch.zeros_like(example)
        parts = [zeros if part is None else part for part in (change, value)]
        joined.append(torch.cat(parts, -1))
    gradients = pull(*_doubled(point, direction), *joined, wrt, *options)
    return [bridge.halved(name, g) for name, g in zip(_named(wrt), gradients, strict=True)]


def _direction(wrt: Sequence[bool], values: Sequence[torch.Tensor | None]) -> list[torch.Tensor | None]:
    """Spread values for the arrays that `wrt` marks over all eight."""
    remaining = iter(values)
    return [next(remaining) if wanted else None for wanted in wrt]


class _RunFunction(torch.autograd.Function):  # type: ignore[misc]  # torch is not looked into
    @staticmethod
    def forward(*args: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return _run(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:8])
        ctx.save_for_forward(*inputs[:8])
        ctx.options = inputs[8:]

    @staticmethod
    def backward(ctx: Any, d_o: torch.Tensor | None, d_hT: torch.Tensor | None) -> tuple[Any, ...]:
        wrt = list(ctx.needs_input_grad[:8])
        if (d_o is None and d_hT is None) or not any(wrt):
            return (None,) * 10
        gradients = pull(*ctx.saved_tensors, d_o, d_hT, wrt, *ctx.options)
        return (*_direction(wrt, gradients), None, None)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[torch.Tensor, ...]:
        return tuple(_tangents(ctx.saved_tensors, tangents[:8], *ctx.options))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        if any(dim is not None for dim in in_dims[:6]):
            return _one_by_one(run, info.batch_size, in_dims, args)
        *point, batch_first, threads = args
        batch = 0 if batch_first else 1
        n = info.batch_size
        h0, x = (
            _merged(t, dim, n, axis) for t, dim, axis in zip(point[6:], in_dims[6:8], (0, batch), strict=True)
        )
        o, h_T = run(*point[:6], h0, x, batch_first, threads)
        return (_split(o, n, batch), _split(h_T, n, 0)), (batch, 0)


class _PullFunction(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(*args: Any) -> tuple[torch.Tensor, ...]:
        return tuple(_pull(*args))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:10])
        ctx.save_for_forward(*inputs[:10])
        ctx.wrt, ctx.options = inputs[10], inputs[11:]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        *point, d_o, d_hT = ctx.saved_tensors
        direction = _direction(ctx.wrt, _cotangents(grads))
        if all(u is None for u in direction):
            return (None,) * 13
        needed = list(ctx.needs_input_grad)
        wrt = needed[:8]
        results: list[Any] = [None] * 13
        if any(wrt):
            # <u, pull> = <(d_o, d_hT), (o', h'_T)> by definition; the gradient of the right-hand side.
            changes = _pull_change(point, direction, (d_o, d_hT), (None, None), wrt, *ctx.options)
            results[:8] = _direction(wrt, changes)
        if any(needed[8:10]):
            results[8:10] = _tangents(point, direction, *ctx.options)
        return tuple(r if n else None for r, n in zip(results, needed, strict=True))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[torch.Tensor, ...]:
        *point, d_o, d_hT = ctx.saved_tensors
        changes = _pull_change(point, tangents[:8], (d_o, d_hT), tangents[8:10], ctx.wrt, *ctx.options)
        return tuple(change.clone() for change in changes)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, Any]:
        *tensors, wrt, batch_first, threads = args
        if any(wrt[:6]) or any(dim is not None for dim in in_dims[:6]):
            return _one_by_one(pull, info.batch_size, in_dims, args)
        batch = 0 if batch_first else 1
        n = info.batch_size
        places = zip(tensors[6:], in_dims[6:10], (0, batch, batch, 0), strict=True)
        merged = [_merged(t, dim, n, axis) for t, dim, axis in places]
        gradients = pull(*tensors[:6], *merged, wrt, batch_first, threads)
        axes = tuple(axis for axis, wanted in zip((0, batch), wrt[6:], strict=True) if wanted)
        return tuple(_split(g, n, axis) for g, axis in zip(gradients, axes, strict=True)), axes


for _function in (_RunFunction, _PullFunction):
    # PyTorch reads the signature at every call; computing it takes some 0.02 ms.
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[attr-defined]


# --- vmap: more sequences where the weights are shared, one call after the other where they are not ---------


def _merged(tensor: torch.Tensor | None, dim: int | None, n: int, axis: int) -> torch.Tensor | None:
    """Join the axis that is mapped over with the axis of the batch."""
    if tensor is None:
        return None
    moved = tensor.unsqueeze(axis) if dim is None else tensor.movedim(dim, axis)
    shape = list(moved.shape)
    shape[axis] = n
    return moved.expand(shape).flatten(axis, axis + 1)


def _split(tensor: torch.Tensor, n: int, axis: int) -> torch.Tensor:
    return tensor.unflatten(axis, (n, -1))


def _one_by_one(function: Any, n: int, in_dims: Any, args: tuple[Any, ...]) -> tuple[Any, Any]:
    mapped = [isinstance(dim, int) for dim in in_dims]
    results = [
        function(*(a.select(dim, i) if m else a for a, dim, m in zip(args, in_dims, mapped, strict=True)))
        for i in range(n)
    ]
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


# --- the operators that tracers see -------------------------------------------------------------------------

_run_operator = torch.library.custom_op("rnnbptt::run", _run, mutates_args=(), schema=_RUN_SCHEMA)
_run_operator.register_fake(_fake_run)
_run_operator.register_autograd(_RunFunction.backward, setup_context=_RunFunction.setup_context)
_run_operator.register_vmap(_RunFunction.vmap)

_pull_operator = torch.library.custom_op("rnnbptt::pull", _pull, mutates_args=(), schema=_PULL_SCHEMA)
_pull_operator.register_fake(_fake_pull)
_pull_operator.register_autograd(_PullFunction.backward, setup_context=_PullFunction.setup_context)
_pull_operator.register_vmap(_PullFunction.vmap)
