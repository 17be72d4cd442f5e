"""A linear RNN as a function of tensors."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch

from .. import _validate, bridge
from . import operator

_SCALARS = (torch.float32, torch.float64)
_HALVES = (torch.float16, torch.bfloat16)


@overload
def linear_rnn(
    x: torch.Tensor,
    W_hx: torch.Tensor,
    W_hh: torch.Tensor,
    W_qh: torch.Tensor,
    b_h: torch.Tensor | None = ...,
    b_q: torch.Tensor | None = ...,
    W_qx: torch.Tensor | None = ...,
    h0: torch.Tensor | None = ...,
    *,
    batch_first: bool = ...,
    return_state: Literal[False] = ...,
    num_threads: int | None = ...,
) -> torch.Tensor: ...
@overload
def linear_rnn(
    x: torch.Tensor,
    W_hx: torch.Tensor,
    W_hh: torch.Tensor,
    W_qh: torch.Tensor,
    b_h: torch.Tensor | None = ...,
    b_q: torch.Tensor | None = ...,
    W_qx: torch.Tensor | None = ...,
    h0: torch.Tensor | None = ...,
    *,
    batch_first: bool = ...,
    return_state: Literal[True],
    num_threads: int | None = ...,
) -> tuple[torch.Tensor, torch.Tensor]: ...
@overload
def linear_rnn(
    x: torch.Tensor,
    W_hx: torch.Tensor,
    W_hh: torch.Tensor,
    W_qh: torch.Tensor,
    b_h: torch.Tensor | None = ...,
    b_q: torch.Tensor | None = ...,
    W_qx: torch.Tensor | None = ...,
    h0: torch.Tensor | None = ...,
    *,
    batch_first: bool = ...,
    return_state: bool,
    num_threads: int | None = ...,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]: ...
def linear_rnn(
    x: torch.Tensor,
    W_hx: torch.Tensor,
    W_hh: torch.Tensor,
    W_qh: torch.Tensor,
    b_h: torch.Tensor | None = None,
    b_q: torch.Tensor | None = None,
    W_qx: torch.Tensor | None = None,
    h0: torch.Tensor | None = None,
    *,
    batch_first: bool = False,
    return_state: bool = False,
    num_threads: int | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Run the network: ``h_t = W_hx x_t + W_hh h_{t-1} + b_h``, ``o_t = W_qh h_t + W_qx x_t + b_q``.

    Differentiable by every tensor, any number of times, in reverse and forward mode; `torch.func.vmap` over
    `x` and `h0` adds sequences to the batch, over weights it calls once per network.

    Parameters
    ----------
    x : Tensor, shape (T, B, d) or (T, d)
        Inputs. Tensors are read where they lie, without a copy if their last axis is contiguous.
    W_hx : Tensor, shape (h, d)
        Input-to-hidden weights.
    W_hh : Tensor, shape (h, h)
        Hidden-to-hidden weights. Their dtype, float32 or float64, must be that of every tensor.
    W_qh : Tensor, shape (q, h)
        Hidden-to-output weights.
    b_h, b_q, W_qx : Tensor, shapes (h,), (q,) and (q, d), optional
        Biases and direct term.
    h0 : Tensor, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    batch_first : bool
        Whether batched tensors are laid out (B, T, ...), on the way in and on the way out.
    return_state : bool
        Whether to return the last state as well.
    num_threads : int, optional
        Threads to use; `rnnbptt.get_num_threads` when absent, whatever `torch.set_num_threads` says.

    Returns
    -------
    o : Tensor, shape (T, B, q) or (T, q)
        Outputs.
    h_T : Tensor, shape (B, h) or (h,)
        Last state, if `return_state`.

    Raises
    ------
    TypeError
        If an argument is not a dense CPU tensor of the dtype of `W_hh`, float32 or float64.
    ValueError
        If a shape does not fit; the message names the tensor.

    Notes
    -----
    Under `torch.autocast` of the CPU, tensors of half precision are widened to the dtype of `W_hh`; results
    have that dtype. If all tensors are on the meta device, so are the results.
    """
    point = (W_hx, W_hh, W_qh, b_h, b_q, W_qx, h0, x)
    if torch.is_autocast_enabled("cpu"):
        # As `torch.amp.custom_fwd` does: half precision is widened, and nothing in here narrows it again.
        with torch.autocast("cpu", enabled=False):
            W_hx, W_hh, W_qh, b_h, b_q, W_qx, h0, x = (_widened(tensor, W_hh) for tensor in point)
            return linear_rnn(
                *(x, W_hx, W_hh, W_qh, b_h, b_q, W_qx, h0),
                batch_first=batch_first,
                return_state=return_state,
                num_threads=num_threads,
            )
    _check_all(point)
    batch_first = _validate.boolean("batch_first", batch_first)
    return_state = _validate.boolean("return_state", return_state)
    bridge.checked_shapes(point, batch_first)
    options = batch_first, _validate.num_threads(num_threads)
    if x.dim() == 3:
        o, h_T = operator.run(*point, *options)
    else:
        axis = 0 if batch_first else 1
        state = None if h0 is None else h0.unsqueeze(0)
        o, h_T = operator.run(*point[:6], state, x.unsqueeze(axis), *options)
        o, h_T = o.squeeze(axis), h_T.squeeze(0)
    return (o, h_T) if return_state else o


def _widened(tensor: Any, W_hh: Any) -> Any:
    """Return a tensor of half precision in the dtype of ``W_hh``, or in float32; others as they are."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _HALVES:
        return tensor
    return tensor.to(W_hh.dtype if getattr(W_hh, "dtype", None) in _SCALARS else torch.float32)


def _check_all(point: tuple[Any, ...]) -> None:
    """Refuse what the engine cannot read; the message names the tensor."""
    W_hh = point[1]
    # Tensors that are all shape and no numbers, as for big models, have outputs of the same kind.
    device = "cpu"
    if isinstance(W_hh, torch.Tensor) and all(t is None or getattr(t, "is_meta", False) for t in point):
        device = "meta"
    _check("W_hh", W_hh, device)
    for name, tensor in zip(bridge.NAMES, point, strict=True):
        if tensor is None and name not in ("W_hx", "W_qh", "x"):
            continue
        _check(name, tensor, device)
        if tensor.dtype != W_hh.dtype:
            cast = "double" if W_hh.dtype == torch.float64 else "float"
            other = "float" if cast == "double" else "double"
            raise TypeError(
                f"{name} must have the dtype of W_hh, {W_hh.dtype}, not {tensor.dtype}: "
                f"pass {name}.{cast}(), or call .{other}() of the module"
            )


def _check(name: str, tensor: Any, device: str) -> None:
    """Refuse what is not a dense CPU tensor of float32 or float64."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {_validate.describe(tensor)}")
    if tensor.is_nested:
        raise TypeError(
            f"{name} must be a dense tensor, not a nested one: pad it, and leave the rest out of the loss"
        )
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, not of layout {tensor.layout}")
    if tensor.device.type != device:
        raise TypeError(f"{name} must be on the CPU, not on device {str(tensor.device)!r}")
    if tensor.dtype not in _SCALARS:
        raise TypeError(f"{name} must be torch.float32 or torch.float64, not {tensor.dtype}")
