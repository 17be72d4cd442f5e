"""A linear recurrence over a long time, in chunks: its states may leave the range of float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ... import _core
from ...engine.params import Params
from ...engine.trajectories import forward, step_by_step
from .scaled import TAME, Real, Scaled, normalised, power, product, raw_if_tame, scan, tame, unscaled

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Steps of a chunk at most.
_LONGEST = 32
#: Scalars of the states of a window.
_WINDOW = 2**17
#: Random vectors on which squares are checked, and the relative error that is allowed.
_WITNESSES = 8
_ACCURATE = 2.0**-44


class Window(NamedTuple):
    """States and outputs of the steps from `first` on: (n, B, h) and (n, B, q)."""

    first: int
    hidden: Scaled
    o: Scaled


class Chunk(NamedTuple):
    """Steps of a chunk, L, and the powers ``W^1, W^2, W^4, ..., W^L``, each under one exponent."""

    length: int
    powers: Scaled

    @property
    def power(self) -> Scaled:
        """W^L."""
        return Scaled(self.powers.mantissa[-1], self.powers.exponent[-1])


class ChunkedRecurrence:
    r"""States ``s_t = W s_{t-1} + U u_t`` and outputs ``C s_t`` of a batch, from the start ``s_0``.

    The states at the ends of chunks of L steps come first, by

    .. math:: s_{(c+1)L} = W^L s_{cL} + \sum_{j<L} W^{L-1-j} U u_{cL+j+1},

    as ordinary numbers, or with exponents where those are needed. The states between are computed when asked
    for, all chunks of a window side by side. L is short enough for a chunk never to leave the range.

    L and the power are given: see `chunk_of`.
    """

    def __init__(
        self,
        W: Real,
        U: Real,
        C: Real,
        inputs: Scaled,
        start: Real,
        threads: int,
        length: int,
        power: Scaled,
    ) -> None:
        self._params = Params(U, W, C)
        self._threads = threads
        T, B, m = inputs.mantissa.shape
        h = len(W)
        self.steps = T
        L = self.length = length
        self._power = power
        chunks = -(-T // L)
        # (chunks, B, L, m): every chunk of every sequence under the exponent of its largest input.
        rows = np.zeros((chunks, B, L, m))
        whole = T // L
        turned = rows.swapaxes(1, 2)
        turned[:whole] = inputs.mantissa[: whole * L].reshape(whole, L, B, m)
        if chunks > whole:
            turned[whole, : T - whole * L] = inputs.mantissa[whole * L :]
        if inputs.raw:
            self._inputs, self._top = unscaled(rows, 2)
        else:
            exponent = np.pad(inputs.exponent, ((0, chunks * L - T), (0, 0)), mode="edge")
            exponent = exponent.reshape(chunks, L, B).swapaxes(1, 2)
            self._top = exponent.max(axis=2)
            self._inputs = Scaled(rows, exponent).at(self._top[..., np.newaxis])
        # What each input of a chunk adds to the state at its end: (W^(L-1-j) U)^T, j = 0 .. L-1.
        to_end = np.empty((L, m, h))
        to_end[-1] = U.T
        transposed = np.ascontiguousarray(W.T)
        for j in range(L - 1, 0, -1):
            product(to_end[j], transposed, self._threads, out=to_end[j - 1])
        self._to_end = to_end
        entering = product(self._inputs.reshape(-1, L * m), to_end.reshape(L * m, h), threads)
        first = raw_if_tame(start)
        starts = scan(self._power, Scaled(entering.reshape(chunks, B, h), self._top), first, threads)
        if not starts.raw:  # a row of zeros is not to decide on the exponent
            starts = normalised(*starts)
            self._inputs, self._top = normalised(self._inputs, self._top)
        self._starts = Scaled(starts.mantissa[:-1], starts.exponent[:-1])

    @property
    def raw(self) -> bool:
        """Whether all states are ordinary numbers."""
        return self._starts.raw and Scaled(self._inputs, self._top).raw

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
        response = (self._to_end @ C.T)[::-1]  # (C W^k U)^T, k = 0 .. L-1
        within = np.zeros((L, m, L, q))
        for i in range(L):
            within[i, :, i:] = response[: L - i].swapaxes(0, 1)
        top = np.maximum(self._starts.exponent, self._top)
        o = product(self._starts.at(top).reshape(-1, h), seen.reshape(L * q, h).T, self._threads)
        u = Scaled(self._inputs.reshape(chunks, B, L * m), self._top).at(top)
        o += product(u.reshape(-1, L * m), within.reshape(L * m, L * q), self._threads)
        by_step = o.reshape(chunks, B, L, q).swapaxes(1, 2).reshape(chunks * L, B, q)
        return Scaled(by_step[: self.steps], np.repeat(top, L, axis=0)[: self.steps])

    def propagated(self, rows: Scaled, steps: int) -> Scaled:
        """Return ``W^steps rows`` for a matrix under one exponent."""
        single = normalised(self._params.W_hh, axes=2)
        chunks, rest = divmod(steps, self.length)
        for factor in [self._power] * chunks + [single] * rest:
            moved = product(factor.mantissa, rows.mantissa, self._threads)
            exponent = rows.exponent + factor.exponent
            moderate = tame(moved.reshape(1, -1)) and moved.any()
            rows = Scaled(moved, exponent) if moderate else normalised(moved, exponent, axes=2)
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
            self._params.W_hx,
            u.reshape(-1, L, m),
            np.ascontiguousarray(self._starts.at(top)),
            logs,
            self._threads,
        )
        if not self.raw:
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
            num_threads=self._threads or None,
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


def _joined(parts: list[Scaled]) -> Scaled:
    mantissas, exponents = ([part[i] for part in parts] for i in (0, 1))
    return Scaled(np.concatenate(mantissas), np.concatenate(exponents))


def chunk_of(W: Real, T: int, threads: int) -> Chunk:
    """Return the largest power of two, up to T and `_LONGEST`, over which powers of W stay tame; with W^L."""
    sizes = [2**n for n in range(_LONGEST.bit_length()) if 2**n <= T]
    powers = _squares(W, sizes, threads)
    last, growth = 0, 0.0
    for n, log2 in enumerate(powers.log2_norms().tolist()):
        # Powers below W^(2 size) are products of the powers W^1, W^2, W^4, ... seen so far.
        if not (growth < TAME and -TAME < log2 < TAME):
            break
        last = n
        growth += max(0.0, log2)
    kept = slice(last + 1)
    return Chunk(sizes[last], Scaled(powers.mantissa[kept], powers.exponent[kept]))


def _squares(W: Real, sizes: list[int], threads: int) -> Scaled:
    """Return ``W^1, W^2, W^4, ...``, each under one exponent: by squaring where that is accurate."""
    h = len(W)
    squares = np.empty((len(sizes), h, h))
    squares[0] = W
    for n in range(1, len(sizes)):
        product(squares[n - 1], squares[n - 1], threads, out=squares[n])
    # Squaring amplifies rounding errors where powers cancel. A few vectors, moved step by step, show it.
    vectors = np.random.default_rng(0).standard_normal((_WITNESSES, h))
    still = np.zeros((sizes[-1], _WITNESSES, h))
    moved = step_by_step(W, still, vectors, threads)[-1]
    error = np.linalg.norm(product(vectors, np.ascontiguousarray(squares[-1].T), threads) - moved)
    if tame(squares) and error <= _ACCURATE * np.linalg.norm(moved):
        return unscaled(squares, 2)
    return power(W, sizes, threads)
