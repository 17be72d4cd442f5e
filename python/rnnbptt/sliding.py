"""Gradients that look back exactly tau states, from full gradients.

With ``g_t = sum_{i>=0} (W_hh^T)^i e_{t+i}`` the state gradients of a sequence, its window of tau terms is

    g_t - (W_hh^T)^tau g_{t+tau},

and g_{t+tau} at step t is the state gradient of the same network at the same states, had d_o come tau steps
earlier. The engine takes both in one call, with one forward pass.

The difference cancels where powers of W_hh grow, or never decay: what is taken away is then larger than what
is left. So time is cut into blocks of c steps, c small enough, all blocks side by side as one batch. For t in
a block that ends before step b,

    G_t = sum_{i=0}^{b-1-t} (W_hh^T)^i e_{t+i} + (W_hh^T)^(b-t) M_b,      M_b = sum_{i<tau} (W_hh^T)^i e_{b+i}

is a gradient where W_hh^T M_b enters at the last state of the block. It looks back tau to tau + c - 1 states;
what is taken away is (W_hh^T)^tau times the gradient of the block alone for d_o of tau steps later. The M_b
are joined from sums over 1, 2, 4, ... blocks, without any difference.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core, _validate, scaled
from .dataset import Backflow, Dataset
from .params import PARAMETERS, Gradients, Params
from .trajectories import states

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from ._validate import FloatArray, IntArray

#: Norm up to which a power of W_hh forgets: what lies behind it weighs less than what lies before.
FORGETS = 0.5
#: The gradients of weights that depend on ``g_t``.
WEIGHTS = ("W_hx", "W_hh", "b_h")
#: How much larger than a window may be what is taken away: so many roundings the difference may cost.
CANCELS = 32.0


def sliding(
    dataset: Dataset, problem: _core.Problem, params: Params, threads: int, tau: int
) -> tuple[float, Gradients]:
    """Compute the loss, and the gradients that look back `tau` states.

    Parameters
    ----------
    dataset, problem
        The data, and what the extension made of them without truncation.
    params : Params
    threads : int
    tau : int
        States in a window, at least 1.
    """
    T, B = dataset.steps, dataset.batch
    if tau > T:
        return dataset.gradients(problem, params, threads)
    later = np.zeros((T + tau, B, params.shape[2]), params.dtype)
    d_o = later[:T]
    with np.errstate(all="ignore"):  # not finite in, not finite out, without a warning
        power, block = _power_and_block(params.W_hh, tau, T, threads)
        if block < T:
            loss, _ = _wanting_nothing(dataset).gradients(problem, params, threads, d_o)
            gradients = _in_blocks(dataset, params, threads, d_o, tau, power, block)
        else:
            loss, gradients = _whole(dataset, problem, params, threads, later, tau, power)
        if gradients.x is not None and not np.isfinite(gradients.x).all():
            # A difference is not finite where either of its terms is not; its windows may be.
            d_x = _validate.time_major(gradients.x, dataset.batched, dataset.batch_first)
            d_x[...] = _windows_of_x(params, d_o, tau)
    if gradients.h0 is not None:
        # The window of state 0 holds the losses of tau - 1 steps: nothing needs to be taken away.
        gradients.h0[...] = 0
        if tau > 1:
            lengths = None if dataset.lengths is None else np.minimum(dataset.lengths, tau - 1)
            part = _Part(dataset.inputs[: tau - 1], dataset.start, lengths, dataset.memory_limit, threads)
            d_h0 = part.pull(params, d_o[: tau - 1], ("h0",)).h0
            assert d_h0 is not None
            gradients.h0[...] = d_h0.reshape(gradients.h0.shape)
    return loss, gradients


def _whole(
    dataset: Dataset,
    problem: _core.Problem,
    params: Params,
    threads: int,
    later: FloatArray,
    tau: int,
    power: NDArray[np.float64],
) -> tuple[float, Gradients]:
    """Take the difference for whole sequences; `later` is for d_o and tau steps of zeros behind it."""
    T = dataset.steps
    wanted = [name if name in dataset.wrt.intersection(WEIGHTS) else "" for name in PARAMETERS]
    beyond = tuple(np.empty_like(getattr(params, name)) if name else None for name in wanted)
    if any(wanted):
        loss, gradients = dataset.gradients(problem, params, threads, later, beyond)
    else:
        loss, gradients = dataset.gradients(problem, params, threads, later[:T])
    for name, g in zip(wanted, beyond, strict=True):
        if g is not None:
            _subtract(getattr(gradients, name), _back(power, g, threads))
    if gradients.x is not None and tau < T:
        lengths = None if dataset.lengths is None else np.maximum(dataset.lengths - tau, 0)
        part = _Part(dataset.inputs[: T - tau], dataset.start, lengths, dataset.memory_limit, threads)
        d_x = _validate.time_major(gradients.x, dataset.batched, dataset.batch_first)
        _subtract(d_x[: T - tau], _beyond_x(part, params, later[tau:T], power))
    return loss, gradients


def _beyond_x(part: _Part, params: Params, later: FloatArray, power: NDArray[np.float64]) -> FloatArray:
    """Return ``W_hx^T (W_hh^T)^tau g``, the gradient of a network with W_hh^tau W_hx in the place of W_hx."""
    moved = Params((power @ params.W_hx).astype(params.dtype), params.W_hh, params.W_qh)
    d_x = part.pull(moved, later, ("x",)).x
    assert d_x is not None
    return d_x


def _windows_of_x(params: Params, d_o: FloatArray, tau: int) -> NDArray[np.float64]:
    """Return the gradients of inputs from windows summed up without a difference: (T, B, d)."""
    e = d_o.astype(np.float64) @ params.W_qh
    steps = len(e)
    # Sums over n losses, n = 1, 2, 4, ...: those that tau is made of are joined.
    g, joined, n = np.zeros_like(e), 0, 1
    power, passed = params.W_hh.astype(np.float64), np.eye(len(params.W_hh))  # W_hh^n, W_hh^joined
    while True:
        if tau & n:
            g[: steps - joined] += e[joined:] @ passed
            passed, joined = passed @ power, joined + n
        if joined == tau:
            break
        e[: steps - n] += e[n:] @ power
        power, n = power @ power, 2 * n
    d_x: NDArray[np.float64] = g @ params.W_hx
    return d_x if params.W_qx is None else d_x + d_o @ params.W_qx


def _subtract(array: FloatArray, excess: NDArray[Any]) -> None:
    np.subtract(array, excess, out=array, casting="same_kind")


def _in_blocks(
    dataset: Dataset,
    params: Params,
    threads: int,
    d_o: FloatArray,
    tau: int,
    power: NDArray[np.float64],
    block: int,
) -> Gradients:
    """Take the difference within blocks of time, side by side as lanes: (block, C B, .)."""
    T, B = dataset.steps, dataset.batch
    d, h, _ = params.shape
    C = -(-T // block)

    def lanes(array: FloatArray, skipped: int = 0) -> FloatArray:
        padded = np.zeros((C * block, B, array.shape[2]), array.dtype)
        padded[: T - skipped] = array[skipped:]
        return padded.reshape(C, block, B, -1).swapaxes(0, 1).reshape(block, C * B, -1)

    x = dataset.inputs
    starts = np.zeros((C, B, h), params.dtype)
    if dataset.start is not None:
        starts[0] = dataset.start
    starts[1:] = states(params, dataset, threads)[block - 1 : T - 1 : block]
    if dataset.lengths is not None:
        # Steps behind the end of a sequence are not read; what would become of its state must not matter.
        x = np.where(np.arange(T)[:, np.newaxis, np.newaxis] < dataset.lengths[:, np.newaxis], x, 0)
        starts[np.arange(0, T, block)[:, np.newaxis] >= dataset.lengths] = 0
    part = _Part(lanes(x), starts.reshape(C * B, h), None, 0.0, threads)  # all states are held anyway
    entering = np.zeros((C, B, h), params.dtype)
    entering[:-1] = _windows(part, params, lanes(d_o), C, tau)[1:]
    found = dict(part.pull(params, lanes(d_o), dataset.wrt, entering.reshape(C * B, h)).items())
    later = lanes(d_o, tau)
    wanted = dataset.wrt.intersection(WEIGHTS)
    for name, g in part.pull(params, later, wanted).items() if wanted else ():
        _subtract(found[name], _back(power, g, threads))
    if "h0" in found:
        found["h0"] = np.zeros((B, h) if dataset.batched else h, params.dtype)
    if "x" in found:
        _subtract(found["x"], _beyond_x(part, params, later, power))
        d_x = dataset.result("d_x", d)
        steps = found["x"].reshape(block, C, B, d).swapaxes(0, 1).reshape(C * block, B, d)
        _validate.time_major(d_x, dataset.batched, dataset.batch_first)[...] = steps[:T]
        found["x"] = d_x
    return Gradients(**found)


class _Part(NamedTuple):
    """Sequences whose gradients are to be taken for some d_o."""

    inputs: FloatArray
    start: FloatArray | None
    lengths: IntArray | None
    memory_limit: float
    threads: int

    def pull(
        self, params: Params, d_o: FloatArray, wrt: Collection[str], d_hT: FloatArray | None = None
    ) -> Gradients:
        """Return the gradients that `wrt` names; `d_o` may have fewer steps than the inputs."""
        part = Dataset(params, self.inputs[: len(d_o)], self.start, wrt=wrt)
        part.lengths, part.memory_limit = self.lengths, self.memory_limit
        problem = part.pose("given", d_o, Backflow(d_hT=d_hT))
        return part.gradients(problem, params, self.threads)[1]


def _windows(part: _Part, params: Params, d_o: FloatArray, C: int, tau: int) -> NDArray[np.float64]:
    """Return ``sum_{i=1}^{tau} (W_hh^T)^i e_{b-1+i}`` for the first step b of every block: (C, B, h)."""
    block, sequences, _ = d_o.shape
    B, h = sequences // C, params.shape[1]
    still = _Part(np.broadcast_to(np.zeros((), params.dtype), part.inputs.shape), None, None, *part[3:])

    def in_block(steps: int) -> NDArray[np.float64]:
        d_h0 = still.pull(params, d_o[:steps], ("h0",)).h0
        assert d_h0 is not None
        return d_h0.reshape(C, B, h).astype(np.float64)

    blocks, rest = min(tau // block, C), tau % block
    # Sums over n blocks, n = 1, 2, 4, ...: those that the number of blocks is made of are joined.
    result, joined = np.zeros((C, B, h)), 0
    total, n = in_block(block) if blocks else result, 1
    while n <= blocks:
        if blocks & n:
            result[: C - joined] += total[joined:] @ _power(params.W_hh, block * joined, part.threads)
            joined += n
        total[: C - n] += total[n:] @ _power(params.W_hh, block * n, part.threads)
        n *= 2
    if rest and joined < C:
        result[: C - joined] += in_block(rest)[joined:] @ _power(params.W_hh, block * joined, part.threads)
    return result


def _power(W: FloatArray, k: int, threads: int) -> NDArray[np.float64]:
    """Return ``W^k`` right to the last bit; entries out of range become inf or 0."""
    power = scaled.power(np.ascontiguousarray(W, np.float64), [k], threads)
    exponent = np.clip(power.exponent[0], -5000, 5000)
    entries: NDArray[np.float64] = np.ldexp(power.mantissa[0], exponent)
    return entries


def _power_and_block(W: FloatArray, tau: int, steps: int, threads: int) -> tuple[NDArray[np.float64], int]:
    """Return ``W^tau``, and how many steps a block may have: `steps` for all, or a power of two."""
    squares = [np.ascontiguousarray(W, np.float64)]
    factors = []
    for bit in range(tau.bit_length()):
        if bit:
            squares.append(scaled.product(squares[-1], squares[-1], threads))
        if tau >> bit & 1:
            factors.append(squares[-1])
    power = factors[0]
    for factor in factors[1:]:
        power = scaled.product(power, factor, threads)
    if np.linalg.norm(power) <= FORGETS:
        return power, steps
    beyond = _norm(power)
    # Sums of the norms of W^0 .. W^(n-1), at n = 1, 2, 4, ...: what n losses amount to at most.
    norms, amounts = [_norm(squares[0])], [1.0]
    for k in range(1, steps.bit_length() + 1):
        if k == len(squares):
            squares.append(scaled.product(squares[-1], squares[-1], threads))
        norms.append(_norm(squares[k]))
        amounts.append(amounts[-1] + 2 ** (k - 1) * max(norms[-2:]))
        if norms[-1] <= FORGETS or not np.isfinite(amounts[-1]):
            break
    kept = amounts[min(tau.bit_length(), len(amounts)) - 1]
    # Where powers forget, all later ones together amount to no more than those so far.
    ratio = beyond * 2 * amounts[-1] / kept if norms[-1] <= FORGETS else np.inf
    if ratio > CANCELS:
        fitting = (k for k, amount in enumerate(amounts) if beyond * amount <= CANCELS * kept)
        return _power(W, tau, threads), 2 ** max(fitting, default=0)
    # Squaring doubles relative errors: a high power that counts for much is wanted right to the last bit.
    return power if tau * ratio <= 8 * CANCELS else _power(W, tau, threads), steps


def _back(power: NDArray[np.float64], g: FloatArray, threads: int) -> NDArray[np.float64]:
    """Return ``(W_hh^tau)^T g`` for a gradient of h rows."""
    columns = g.reshape(len(g), -1).astype(np.float64)
    return scaled.product(power.T, columns, threads).reshape(g.shape)


def _norm(A: NDArray[np.float64]) -> float:
    """Estimate the spectral norm by the power method, from below and within some tenths."""
    v = np.random.default_rng(0).standard_normal((len(A), 4))
    for _ in range(2):
        v = A.T @ (A @ (v / np.linalg.norm(v, axis=0)))
    return float(np.sqrt(np.linalg.norm(v, axis=0).max()))


def _wanting_nothing(dataset: Dataset) -> Dataset:
    """Return the same data with no gradient wanted."""
    result = copy.copy(dataset)
    result.wrt, result._wanted = frozenset(), (None,) * len(PARAMETERS)
    return result
