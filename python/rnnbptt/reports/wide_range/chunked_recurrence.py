"""A linear recurrence over a long time, in chunks, while its states are ordinary numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ... import _core
from ...engine.trajectories import step_by_step
from .scaled import TAME, Real, Scaled, power, product, raw_if_tame, scan, tame, unscaled

#: Steps of a chunk at most.
_LONGEST = 32
#: Random vectors on which squares are checked, and the relative error that is allowed.
_WITNESSES = 8
_ACCURATE = 2.0**-44


class Chunk(NamedTuple):
    """Steps of a chunk, L, and the powers ``W^1, W^2, W^4, ..., W^L``, each under one exponent."""

    length: int
    powers: Scaled

    @property
    def power(self) -> Scaled:
        """W^L."""
        return Scaled(self.powers.mantissa[-1], self.powers.exponent[-1])


class ChunkedRecurrence:
    r"""States ``s_t = W s_{t-1} + U u_t`` of a batch, from the start ``s_0``, as ordinary numbers.

    The states at the ends of chunks of L steps come first, by

    .. math:: s_{(c+1)L} = W^L s_{cL} + \sum_{j<L} W^{L-1-j} U u_{cL+j+1} .

    They show whether states leave the range of float64: L is short enough for a chunk never to do so. L and
    the power are given: see `chunk_of`.
    """

    def __init__(
        self, W: Real, U: Real, inputs: Real, start: Real, threads: int, length: int, power: Scaled
    ) -> None:
        self._W, self._U, self._threads = W, U, threads
        T, B, m = inputs.shape
        h = len(W)
        self.steps, self.length = T, length
        L, chunks, whole = length, -(-T // length), T // length
        # (chunks, B, L, m): every chunk of every sequence.
        self._inputs = np.zeros((chunks, B, L, m))
        turned = self._inputs.swapaxes(1, 2)
        turned[:whole] = inputs[: whole * L].reshape(whole, L, B, m)
        if chunks > whole:
            turned[whole, : T - whole * L] = inputs[whole * L :]
        # What each input of a chunk adds to the state at its end: (W^(L-1-j) U)^T, j = 0 .. L-1.
        to_end = np.empty((L, m, h))
        to_end[-1] = U.T
        transposed = np.ascontiguousarray(W.T)
        for j in range(L - 1, 0, -1):
            product(to_end[j], transposed, threads, out=to_end[j - 1])
        entering = product(self._inputs.reshape(-1, L * m), to_end.reshape(L * m, h), threads)
        v = raw_if_tame(entering.reshape(chunks, B, h))
        self._starts = scan(power, v, raw_if_tame(start), threads)

    @property
    def raw(self) -> bool:
        """Whether all states are ordinary numbers."""
        return self._starts.raw

    def log2_norms(self) -> Real:
        """Return the base-2 logarithms of the norms of all states, (T, B), where these are raw."""
        chunks, B, L, m = self._inputs.shape
        logs = np.empty((chunks, B, L))
        _core.log2_state_norms(
            (chunks * B, L, len(self._W), m),
            self._W,
            self._U,
            self._inputs.reshape(-1, L, m),
            np.ascontiguousarray(self._starts.mantissa[:-1]),
            logs,
            self._threads,
        )
        return logs.swapaxes(1, 2).reshape(chunks * L, B)[: self.steps]


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
