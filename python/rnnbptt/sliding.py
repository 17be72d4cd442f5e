"""Gradients that look back exactly tau states, from two full gradients.

With ``g_t = sum_{i>=0} (W_hh^T)^i e_{t+i}`` the state gradients of a sequence, its window of tau terms is

    g_t - (W_hh^T)^tau g_{t+tau},

and g_{t+tau} at step t is the state gradient of the same network at the same states, where d_o comes tau steps
earlier. Both are gradients as the engine takes them, of T and of T - tau steps.

The difference cancels where powers of W_hh grow: what is taken away is then larger than what is left. So time is
cut into blocks of c steps over which powers do not grow, all blocks side by side as one batch:

    within a block that ends before step b, as far as the window of its last step goes,
        G_t = g_t + (W_hh^T)^(b-t) M_b,                 M_b = sum_{i<tau} (W_hh^T)^i e_{b+i},

a gradient with W_hh^T M_b entering at the block's last state; and from G_t it is once more (W_hh^T)^tau times the
block's gradient for d_o of tau steps later that is taken away, now of lags tau .. tau + c - 1 only. The M_b are
sums of windows twice as long again and again, without a difference. One block (c >= T, M = 0) is the formula above.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _core, _validate
from .dataset import Backflow, Dataset
from .params import Gradients, Params
from .trajectories import states

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from ._validate import FloatArray, IntArray

#: Norm up to which a power of W_hh counts as forgetting: what lies behind it weighs less than what lies before.
FORGETS = 0.5
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
    d_o = _validate.allocate("d_o", (T, B, params.shape[2]), params.dtype)
    with np.errstate(all="ignore"):  # not finite in, not finite out, without a warning
        power, block = _power_and_block(params.W_hh, tau, T, threads)
        beyond = _Beyond(params, power, dataset.wrt)
        if block < T:
            loss, _ = _wanting_nothing(dataset).gradients(problem, params, threads, d_o)
            gradients = _in_blocks(dataset, params, threads, d_o, tau, block, beyond)
        else:
            loss, gradients = dataset.gradients(problem, params, threads, d_o)
            lengths = None if dataset.lengths is None else np.maximum(dataset.lengths - tau, 0)
            part = _Part(dataset.inputs[: T - tau], dataset.start, lengths, dataset.memory_limit, threads)
            for name, excess in beyond.of(part, d_o[tau:]).items():
                array = getattr(gradients, name)
                if name == "x":
                    array = _validate.time_major(array, dataset.batched, dataset.batch_first)[: T - tau]
                np.subtract(array, excess, out=array, casting="same_kind")
    if gradients.h0 is not None:
        # The window of state 0 holds the losses of tau - 1 steps: nothing needs to be taken away.
        lengths = None if dataset.lengths is None else np.minimum(dataset.lengths, tau - 1)
        part = _Part(dataset.inputs[: tau - 1], dataset.start, lengths, dataset.memory_limit, threads)
        gradients.h0[...] = (
            part.pull(params, d_o[: tau - 1], ("h0",)).h0.reshape(gradients.h0.shape) if tau > 1 else 0
        )
    return loss, gradients


def _in_blocks(
    dataset: Dataset,
    params: Params,
    threads: int,
    d_o: FloatArray,
    tau: int,
    block: int,
    beyond: _Beyond,
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
    part = _Part(lanes(x), starts.reshape(C * B, h), None, dataset.memory_limit, threads)
    entering = np.zeros((C, B, h), params.dtype)
    entering[:-1] = _windows(part, params, lanes(d_o), C, tau)[1:]
    found = dict(part.pull(params, lanes(d_o), dataset.wrt, entering.reshape(C * B, h)).items())
    for name, excess in beyond.of(part, lanes(d_o, tau)).items():
        found[name] = (found[name] - excess).astype(params.dtype, copy=False)
    if "h0" in found:
        found["h0"] = np.zeros((B, h) if dataset.batched else h, params.dtype)
    if "x" in found:
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


class _Beyond(NamedTuple):
    """What full gradients hold beyond the window: ``(W_hh^T)^tau`` times those for d_o of tau steps later."""

    params: Params
    power: NDArray[np.float64]
    """W_hh^tau."""
    wrt: frozenset[str]

    def of(self, part: _Part, later: FloatArray) -> dict[str, NDArray[Any]]:
        """Return it for every gradient in `wrt` that looks back; `later` is d_o of tau steps later."""
        params, power = self.params, self.power
        excess: dict[str, NDArray[Any]] = {}
        wanted = self.wrt.intersection(("W_hx", "W_hh", "b_h"))
        if len(later) == 0:
            return excess
        if wanted:
            excess |= {name: power.T @ g for name, g in part.pull(params, later, wanted).items()}
        if "x" in self.wrt:
            # d_x = W_hx^T (W_hh^T)^tau g: the gradient of a network with W_hh^tau W_hx in the place of W_hx.
            moved = Params((power @ params.W_hx).astype(params.dtype), params.W_hh, params.W_qh)
            d_x = part.pull(moved, later, ("x",)).x
            assert d_x is not None
            excess["x"] = d_x
        return excess


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
    h = len(W)
    mantissa, exponent = np.empty((1, h, h)), np.empty(1, np.int64)
    wide = np.ascontiguousarray(W, np.float64)
    _core.scaled_powers(h, wide, np.array([k], np.int64), mantissa, exponent, threads)
    return np.ldexp(mantissa[0], np.clip(exponent[0], -5000, 5000))


def _power_and_block(W: FloatArray, tau: int, steps: int, threads: int) -> tuple[NDArray[np.float64], int]:
    """Return ``W^tau``, and how many steps a block may have: `steps` or more for all, else a power of two."""
    square = W.astype(np.float64)
    power = np.eye(len(W))
    squares = [square]
    for bit in range(tau.bit_length()):
        if bit:
            square = square @ square
            squares.append(square)
        if tau >> bit & 1:
            power = power @ square
    if np.linalg.norm(power) <= FORGETS:
        return power, steps
    # It is to be right to the last bit, since it acts on all that lies beyond the window.
    power = _power(W, tau, threads)
    beyond = _norm(power)
    # Sums of the norms of W^0 .. W^(n-1), at n = 1, 2, 4, ...: what lags up to n amount to.
    norms, amounts = [_norm(squares[0])], [1.0]
    for k in range(1, steps.bit_length() + 1):
        if k == len(squares):
            squares.append(squares[-1] @ squares[-1])
        norms.append(_norm(squares[k]))
        amounts.append(amounts[-1] + 2 ** (k - 1) * max(norms[-2:]))
        if norms[-1] <= FORGETS or not np.isfinite(amounts[-1]):
            break
    kept = amounts[min(tau.bit_length(), len(amounts)) - 1]
    if norms[-1] <= FORGETS and beyond * 2 * amounts[-1] <= CANCELS * kept:
        return power, steps
    fitting = [k for k, amount in enumerate(amounts) if beyond * amount <= CANCELS * kept]
    return power, 2 ** max(fitting, default=0)


def _norm(A: NDArray[np.float64]) -> float:
    """Estimate the spectral norm, from below and within some tenths."""
    v = np.random.default_rng(0).standard_normal((len(A), 4))
    for _ in range(3):
        v = A.T @ (A @ (v / np.linalg.norm(v, axis=0)))
    return float(np.sqrt(np.linalg.norm(v, axis=0).max()))


def _wanting_nothing(dataset: Dataset) -> Dataset:
    """Return the same data with no gradient wanted."""
    result = copy.copy(dataset)
    result.wrt, result.result_shapes = frozenset(), [None] * len(dataset.result_shapes)
    return result
