"""A linear recurrence over a long time, in chunks: its states may leave the range of float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import _core
from .params import Params
from .scaled import TAME, Real, Scaled, normalised, power, product, raw_if_tame, scan
from .trajectories import forward

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Steps of a chunk at most.
_LONGEST = 32
#: Scalars of the states of a window.
_WINDOW = 2**17
#: Multiplications of a product up to which the usual BLAS takes one thread.
_SMALL = 2**18


class Window(NamedTuple):
    """States and outputs of the steps from `first` on: (n, B, h) and (n, B, q)."""

    first: int
    hidden: Scaled
    o: Scaled


class Chunk(NamedTuple):
    """Steps of a chunk, L, and the power ``W^L``."""

    length: int
    power: Scaled

    @property
    def transposed(self) -> Chunk:
        """The same for ``W^T``."""
        return Chunk(self.length, Scaled(self.power.mantissa.T, self.power.exponent))


class ChunkedRecurrence:
    r"""States ``s_t = W s_{t-1} + U u_t`` and outputs ``C s_t`` of a batch, from the start ``s_0``.

    The states at the ends of chunks of L steps come first, by

    .. math:: s_{(c+1)L} = W^L s_{cL} + \sum_{j<L} W^{L-1-j} U u_{cL+j+1},

    as ordinary numbers, or with exponents where those are needed. The states between are computed when asked
    for, all chunks of a window side by side. L is short enough for a chunk never to leave the range.

    L and the power are those of the `chunk`.
    """

    def __init__(
        self,
        W: Real,
        U: Real,
        C: Real,
        inputs: Scaled,
        start: Real,
        threads: int,
        chunk: Chunk,
    ) -> None:
        self._params = Params(U, W, C)
        self._threads = threads or None
        T, B, m = inputs.mantissa.shape
        h = len(W)
        self.steps, self.input_weights = T, U
        L = self.length = chunk.length
        self._power = chunk.power
        chunks = -(-T // L)
        padding = chunks * L - T
        mantissa = np.pad(inputs.mantissa, ((0, padding), (0, 0), (0, 0)))
        exponent = np.pad(inputs.exponent, ((0, padding), (0, 0)), mode="edge")
        # (chunks, B, L, m): every chunk of every sequence under the exponent of its largest input.
        rows = Scaled(
            mantissa.reshape(chunks, L, B, m).swapaxes(1, 2), exponent.reshape(chunks, L, B).swapaxes(1, 2)
        )
        self._top = rows.exponent.max(axis=2)
        self._inputs = np.ascontiguousarray(rows.at(self._top[..., np.newaxis]))
        # W^(L-1-j) U, j = 0 .. L-1, one below the other
        blocks = np.empty((L, m, h))
        blocks[-1] = U.T
        for j in range(L - 1, 0, -1):
            blocks[j - 1] = blocks[j] @ W.T
        self._blocks = blocks
        entering = _product(self._inputs.reshape(-1, L * m), blocks.reshape(L * m, h)).reshape(chunks, B, h)
        first = raw_if_tame(start)
        ends = scan(self._power, Scaled(entering, self._top), first, threads)
        if not ends.raw:  # then zeros are not to decide on exponents
            first = normalised(*first)
            self._inputs, self._top = normalised(self._inputs, self._top)
        self._starts = Scaled(
            np.concatenate([first.mantissa[np.newaxis], ends.mantissa[:-1]]),
            np.concatenate([first.exponent[np.newaxis], ends.exponent[:-1]]),
        )

    @property
    def raw(self) -> bool:
        """Whether all states are ordinary numbers."""
        return self._starts.raw and not self._top.any()

    def outputs(self) -> Scaled:
        """Return the outputs of all steps, (T, B, q): without the states between, where that is less work."""
        C, W, L = self._params.W_qh, self._params.W_hh, self.length
        chunks, B, _, m = self._inputs.shape
        q, h = C.shape
        if L * m * q > 2 * h * h:
            return _joined([window.o for window in self.windows()])
        # From the state before the chunk, and from the inputs in it.
        seen = np.empty((L, q, h))
        seen[0] = C @ W
        for j in range(1, L):
            seen[j] = seen[j - 1] @ W
        response = (self._blocks @ C.T)[::-1]  # (C W^k U)^T, k = 0 .. L-1
        within = np.zeros((L, m, L, q))
        for i in range(L):
            within[i, :, i:] = response[: L - i].swapaxes(0, 1)
        top = np.maximum(self._starts.exponent, self._top)
        o = _product(self._starts.at(top).reshape(-1, h), seen.reshape(L * q, h).T)
        u = Scaled(self._inputs.reshape(chunks, B, L * m), self._top).at(top)
        o += _product(u.reshape(-1, L * m), within.reshape(L * m, L * q))
        by_step = o.reshape(chunks, B, L, q).swapaxes(1, 2).reshape(chunks * L, B, q)
        return Scaled(by_step[: self.steps], np.repeat(top, L, axis=0)[: self.steps])

    def propagated(self, rows: Scaled, steps: int) -> Scaled:
        """Return ``W^steps rows`` for a matrix under one exponent."""
        single = normalised(self._params.W_hh, axes=2)
        chunks, rest = divmod(steps, self.length)
        for factor in [self._power] * chunks + [single] * rest:
            moved = product(factor.mantissa, rows.mantissa, self._threads or 0)
            rows = normalised(moved, rows.exponent + factor.exponent, axes=2)
        return rows

    def log2_norms(self) -> Real:
        """Return the base-2 logarithms of the norms of all states, (T, B)."""
        top = np.maximum(self._starts.exponent, self._top)
        chunks, B, L, m = self._inputs.shape
        u = Scaled(self._inputs.reshape(chunks, B, L * m), self._top).at(top)
        logs = np.empty((chunks, B, L))
        _core.log2_state_norms(
            (chunks * B, L, len(self._params.W_hh), m),
            self._params.W_hh,
            self.input_weights,
            u.reshape(-1, L, m),
            np.ascontiguousarray(self._starts.at(top)),
            logs,
            self._threads or 0,
        )
        logs += top[..., np.newaxis]
        return logs.swapaxes(1, 2).reshape(chunks * L, B)[: self.steps]

    def window(self, first: int, stop: int) -> Window:
        """Return states and outputs of the steps ``first < t <= stop``."""
        L = self.length
        low, high = first // L, -(-stop // L)
        top = np.maximum(self._starts.exponent[low:high], self._top[low:high])
        shift = (self._top[low:high] - top)[..., np.newaxis]
        u = self._inputs[low:high]
        if shift.any():  # an input smaller than the state
            u = Scaled(u, np.broadcast_to(shift, u.shape[:3])).at(np.zeros_like(shift))
        chunks, B, _, m = u.shape
        h0 = Scaled(self._starts.mantissa[low:high], self._starts.exponent[low:high]).at(top)
        run = forward(
            self._params,
            u.reshape(chunks * B, L, m),
            h0.reshape(chunks * B, -1),
            batch_first=True,
            num_threads=self._threads,
        )
        kept = slice(first - low * L, stop - low * L)
        exponent = np.repeat(top, L, axis=0)[kept]

        def in_time(rows: Real) -> Scaled:
            by_step = rows.reshape(chunks, B, L, -1).swapaxes(1, 2).reshape(chunks * L, B, -1)
            return Scaled(by_step[kept], exponent)

        return Window(first, in_time(run.hidden), in_time(run.o))

    def windows(self) -> Iterator[Window]:
        """Go through all steps, some at a time."""
        size = self.window_length
        for first in range(0, self.steps, size):
            yield self.window(first, min(first + size, self.steps))

    @property
    def window_length(self) -> int:
        """Steps that are computed at a time, a multiple of a chunk's."""
        _, B, _, _ = self._inputs.shape
        h = self._params.shape[1]
        return self.length * max(1, _WINDOW // int(self.length * B * h))


def _product(rows: Real, matrix: Real) -> Real:
    """Return ``rows @ matrix``, of a small matrix by blocks for which the BLAS starts no threads.

    Those would wait, busily, in the way of the engine's.
    """
    size = _SMALL // matrix.size
    if size < 16:
        return rows @ matrix
    whole = len(rows) // size * size
    blocks = rows[:whole].reshape(-1, size, rows.shape[1]) @ matrix
    return np.concatenate([blocks.reshape(whole, matrix.shape[1]), rows[whole:] @ matrix])


def _joined(parts: list[Scaled]) -> Scaled:
    mantissas, exponents = ([part[i] for part in parts] for i in (0, 1))
    return Scaled(np.concatenate(mantissas), np.concatenate(exponents))


def chunk_of(W: Real, T: int, threads: int) -> Chunk:
    """Return the largest power of two, up to T and `_LONGEST`, over which powers of W stay tame; with W^L."""
    sizes = [2**n for n in range(_LONGEST.bit_length()) if 2**n <= T]
    powers = power(W, sizes, threads)
    i, growth = 0, 0.0
    for n, log2 in enumerate(powers.log2_norms().tolist()):
        # Powers below W^(2 size) are products of the powers W^1, W^2, W^4, ... seen so far.
        if not (growth < TAME and -TAME < log2 < TAME):
            break
        i = n
        growth += max(0.0, log2)
    return Chunk(sizes[i], Scaled(powers.mantissa[i], powers.exponent[i]))
