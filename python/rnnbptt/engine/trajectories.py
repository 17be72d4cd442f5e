"""Linear recurrences run forwards and backwards in time: states, outputs, state gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core, _validate
from .dataset import Backflow, Dataset, checked
from .params import Trajectory

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .._validate import FloatArray
    from .params import Params

_LINEAR_SCAN = {np.dtype(np.float32): _core.linear_scan32, np.dtype(np.float64): _core.linear_scan64}

STATE_METHODS = ("recursion", "closed_form", "scan")


def forward(
    params: Params,
    x: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    batch_first: bool = False,
    num_threads: int | None = None,
    out: tuple[FloatArray, FloatArray] | None = None,
) -> Trajectory:
    """Run the network: ``h_t = W_hx x_t + W_hh h_{t-1} + b_h``, ``o_t = W_qh h_t + W_qx x_t + b_q``.

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the results.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...), on the way in and on the way out.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent. No bit of the result depends on it.
    out : Trajectory or pair of ndarray, optional
        C-contiguous arrays ``(hidden, o)`` to write to, of the shapes and dtype of the result.

    Returns
    -------
    Trajectory
        Hidden states h_1 .. h_T and outputs o_1 .. o_T, without a batch axis if `x` has none.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    MemoryError
        If a result cannot be allocated; the message names the bytes.
    """
    dataset = Dataset(checked(params), x, h0, batch_first=batch_first)
    threads = _validate.num_threads(num_threads)
    if not (out is None or (isinstance(out, tuple) and len(out) == 2)):
        raise TypeError(f"out must be a pair of arrays (hidden, o), not {_validate.describe(out)}")
    out_hidden, out_o = (None, None) if out is None else out
    _, h, q = params.shape
    inputs = [dataset.inputs, dataset.start, *params._arrays]
    prefix = "" if out is None else "out."
    hidden = dataset.result(f"{prefix}hidden", h, out_hidden, inputs)
    o = dataset.result(f"{prefix}o", q, out_o, [*inputs, hidden])
    posed = dataset.pose(None, None, Backflow(), "states")
    posed.outputs(params._arrays, dataset.time_major(o), dataset.time_major(hidden), None, threads)
    return Trajectory(hidden, o)


def outputs(params: Params, dataset: Dataset, threads: int) -> FloatArray:
    """Return the outputs for a data set, in the caller's layout; zero beyond the ends of sequences."""
    o = dataset.result("o", params.shape[2])
    posed = dataset.pose(None, None, Backflow(), "outputs")
    posed.outputs(params._arrays, dataset.time_major(o), None, None, threads)
    return o


def outputs_and_last_state(params: Params, dataset: Dataset, threads: int) -> tuple[FloatArray, FloatArray]:
    """Return the outputs in the caller's layout, and the last state (B, h), without forming the states."""
    o = dataset.result("o", params.shape[2])
    last = _validate.allocate("h_T", (dataset.batch, params.shape[1]), params.dtype)
    posed = dataset.pose(None, None, Backflow(), "outputs")
    posed.outputs(params._arrays, dataset.time_major(o), None, last, threads)
    return o, last


def linear_scan(
    W: ArrayLike,
    v: ArrayLike,
    s0: ArrayLike | None = None,
    *,
    reverse: bool = False,
    transpose: bool = False,
    num_threads: int | None = None,
    out: NDArray[Any] | None = None,
) -> FloatArray:
    r"""Run the linear recurrence ``s_t = W s_{t-1} + v_t``.

    Parameters
    ----------
    W : array_like, shape (h, h)
        Matrix of the recurrence; its dtype is the dtype of the result.
    v : array_like, shape (T, B, h) or (T, h)
        What enters at each step.
    s0 : array_like, shape (B, h) or (h,), optional
        The state before the first step taken; zero when absent.
    reverse : bool
        Run from t = T down to 1: ``s_t = W s_{t+1} + v_t``, where `s0` stands for ``s_{T+1}``.
    transpose : bool
        Use ``W^T`` in place of ``W``.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.
    out : ndarray, optional
        C-contiguous array of the shape and dtype of the result to write to.

    Returns
    -------
    ndarray, shape of `v`
        The states s_1 .. s_T.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    MemoryError
        If the result cannot be allocated; the message names the bytes.

    Notes
    -----
    The scan with ``reverse=True, transpose=True`` is the adjoint of the scan with neither.
    """
    return _scan(W, v, s0, reverse, transpose, num_threads, out)


def step_by_step(W: FloatArray, v: FloatArray, s0: FloatArray, threads: int) -> FloatArray:
    """Run `linear_scan` without powers of W."""
    return _scan(W, v, s0, False, False, threads or None, None, piece=0)


def _scan(
    W: ArrayLike,
    v: ArrayLike,
    s0: ArrayLike | None,
    reverse: bool,
    transpose: bool,
    num_threads: int | None,
    out: NDArray[Any] | None,
    piece: int = -1,
) -> FloatArray:
    """Run `linear_scan`, with `piece` at 0 one step after the other, at -1 as the schedule has it."""
    matrix = _validate.square("W", W)
    h = matrix.shape[0]
    entering, batched = _validate.sequence("v", v, matrix.dtype, h, batch_first=False)
    T, B = entering.shape[:2]
    start = _validate.initial_state(s0, matrix.dtype, B, h, batched, name="s0")
    reverse = _validate.boolean("reverse", reverse)
    transpose = _validate.boolean("transpose", transpose)
    threads = _validate.num_threads(num_threads)
    shape = (T, B, h) if batched else (T, h)
    inputs = [array for array in (matrix, entering, start) if array is not None]
    states = _validate.out("out", out, matrix.dtype, shape, inputs)
    time_major = _validate.time_major(states, batched, batch_first=False)
    _LINEAR_SCAN[matrix.dtype](
        (T, B, h), matrix, entering, start, reverse, transpose, time_major, piece, threads
    )
    return states


def state_gradients(
    params: Params,
    d_o: ArrayLike,
    *,
    method: str = "recursion",
    num_threads: int | None = None,
    out: NDArray[Any] | None = None,
) -> FloatArray:
    r"""Return ``g_t = dL/dh_t``, the total derivative of the loss by the hidden state, for every step.

    .. math::

        g_t = W_{qh}^T \frac{\partial L}{\partial o_t} + W_{hh}^T g_{t+1}
            = \sum_{i=t}^{T} (W_{hh}^T)^{T-i} \, W_{qh}^T \frac{\partial L}{\partial o_{T+t-i}}

    Parameters
    ----------
    params : Params
        Weights; only ``W_hh`` and ``W_qh`` matter.
    d_o : array_like, shape (T, B, q) or (T, q)
        Derivative of the loss by the outputs.
    method : {"recursion", "closed_form", "scan"}
        The recursion step by step; the sum over explicit powers of ``W_hh^T``, at a cost that grows with
        T squared; or the recursion as the engine schedules it, in time-parallel pieces where that pays.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.
    out : ndarray, optional
        C-contiguous array of the shape and dtype of the result to write to.

    Returns
    -------
    ndarray, shape (T, B, h) or (T, h)

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    checked(params)
    _validate.choice("method", method, STATE_METHODS)
    d_o, batched = _validate.sequence("d_o", d_o, params.dtype, params.shape[2], batch_first=False)
    entering = _validate.allocate("d_o W_qh", (*d_o.shape[:2], params.shape[1]), params.dtype)
    with np.errstate(all="ignore"):  # not finite in, not finite out, without a warning
        np.matmul(d_o, params.W_qh, out=entering)
    if not batched:
        entering = entering[:, 0]
    if out is not None:
        out = _validate.out("out", out, params.dtype, entering.shape, [d_o, params.W_qh, params.W_hh])
    if method == "closed_form":
        _validate.num_threads(num_threads)
        return _closed_form(params.W_hh, entering, out)
    piece = 0 if method == "recursion" else -1
    return _scan(params.W_hh, entering, None, True, True, num_threads, out, piece)


def _closed_form(W_hh: FloatArray, e: FloatArray, out: NDArray[Any] | None) -> FloatArray:
    """Sum ``g_t = sum_k (W_hh^T)^k e_{t+k}`` with one power after the other."""
    result = _validate.out("out", out, e.dtype, e.shape, [W_hh, e])
    result[...] = e
    steps = e.shape[0]
    term = e  # row t holds the transpose of (W_hh^T)^k e_{t+k}
    with np.errstate(all="ignore"):
        for k in range(1, steps):
            term = term[1:] @ W_hh
            result[: steps - k] += term
    return result
