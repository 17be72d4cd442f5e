r"""The gradient of a linear RNN as a sum over lags: what the loss at a step owes to the state k steps before.

.. math::

    \frac{\partial L}{\partial W_{hh}} = \sum_{k \ge 0} (W_{hh}^\top)^k W_{qh}^\top C_k, \qquad
    C_k = \sum_t \frac{\partial L}{\partial o_{t+k}} h_{t-1}^\top ,

and the same for ``W_hx`` and ``b_h`` with ``R_k = sum_t dL/do_{t+k} x_t^T`` (and a constant input) in place
of ``C_k``. Inserting the recurrence of ``h_{t-1}`` gives ``C_k`` from ``R``, without a correlation of states:

.. math::

    C_k = R_{k+1} W_{hx}^\top + \frac{\partial L}{\partial o_{k+1}} h_0^\top + C_{k+1} W_{hh}^\top .
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import _core
from ..engine.params import Params
from ..gradients.vjp import vjp
from .cached import cached
from .wide_range import entries
from .wide_range.chunked_recurrence import Chunk
from .wide_range.correlation import correlate
from .wide_range.scaled import (
    TAME,
    ZERO,
    Real,
    Scaled,
    add,
    normalised,
    outer_sum,
    product,
    raw_if_tame,
    scan,
    tame,
    unscaled,
    vanishing,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..engine.params import Gradients
    from .problem import Problem

#: Scalars of the contributions of some lags.
_AT_ONCE = 2**18
#: Lags whose contributions are summed under one exponent.
_SUMMED = 64
#: Squared lengths below this share of what they could be have lost digits as a sum of products.
_CANCELLED = 2.0**-13


class Contributions(NamedTuple):
    """What lags ``first, first + 1, ...`` add to ``[d_W_hh | d_W_hx | d_b_h]``: (n, h, h + d or d + 1)."""

    first: int
    terms: Scaled


class LagTerms:
    """The factors of the contributions of every lag below K, and what lags from K on add together.

    Attributes
    ----------
    problem : Problem
        What they are the lags of.
    P : Scaled, (K, q, h)
        ``W_qh W_hh^k``.
    C : Scaled, (K, q, h)
    R : Scaled, (K, q, d or d + 1)
    rest : Scaled, (h, h + d or d + 1)
        What lags from K on add to ``[d_W_hh | d_W_hx | d_b_h]``.
    """

    def __init__(self, problem: Problem, lags: int, threads: int) -> None:
        self.problem, self.lags, self._threads = problem, lags, threads
        self._rest: Scaled | None = None
        if problem.uneven is not None:
            self.P, self.C, self.R, self._rest = problem.uneven.lag_factors(problem.d_o, lags)
            self.rest = entries.rows(self._rest, 2)
            return
        W, W_qh = problem.params.W_hh, problem.params.W_qh
        h, q = len(W), len(W_qh)
        chunk = problem.recurrence.chunk
        P = moved_rows(W_qh, W, chunk, lags + 1, threads)
        self.P = Scaled(P.mantissa[:lags], P.exponent[:lags])
        R = correlate(problem.d_o, problem.inputs, lags + 1, threads)
        self.R = Scaled(R.mantissa[:lags], R.exponent[:lags])
        rows = R.mantissa[1:lags].reshape(-1, R.mantissa.shape[2])
        entering = product(rows, problem.recurrence.columns.T, threads).reshape(lags - 1, q, h)
        v = raw_if_tame(entering) if R.raw else normalised(entering, R.exponent[1:lags])
        if problem.start.any():
            v = add(v, self._from_start(slice(lags - 1)))
        self.rest, last = self._beyond(Scaled(P.mantissa[lags], P.exponent[lags]))
        self.C = scan(normalised(W, axes=2), v, last, threads, reverse=True)

    @cached
    def Z(self) -> Scaled:
        """``[C_k | R_k]``: (K, q, h + d or d + 1)."""
        C, R = self.C, self.R
        if C.raw and R.raw:
            return unscaled(np.concatenate([C.mantissa, R.mantissa], axis=2))
        C, R = normalised(*C), normalised(*R)
        top = np.maximum(C.exponent, R.exponent)
        return normalised(np.concatenate([C.at(top), R.at(top)], axis=2), top)

    def contributions(self, most: int, *, backwards: bool = False) -> Iterator[Contributions]:
        """Go through all lags below K, at most so many at a time."""
        Z = self.Z.mantissa
        size = max(1, _AT_ONCE // (self.P.mantissa.shape[2] * Z.shape[2]))
        size = min(size, most)
        starts = range(0, self.lags, size)
        for first in reversed(starts) if backwards else starts:
            some = slice(first, first + size)
            exponent = self.P.exponent[some] + self.Z.exponent[some]
            top = exponent.max(axis=1)
            left = Scaled(self.P.mantissa[some], exponent).at(top[:, np.newaxis])
            yield Contributions(first, Scaled(left.swapaxes(1, 2) @ Z[some], top))

    def total(self, width: int | None = None) -> Scaled:
        """Return the sum of everything, ``[d_W_hh | d_W_hx | d_b_h]``, under one exponent."""
        P, Z, exponents = self._aligned(width)
        top = exponents.max()
        left = Scaled(P, exponents).at(np.full_like(exponents, top)).reshape(-1, P.shape[2])
        sums = normalised(outer_sum(left, Z.reshape(-1, Z.shape[2]), self._threads), top, axes=2)
        return add(self.rest_of(width), sums)

    def rest_of(self, width: int | None) -> Scaled:
        """Return the first columns of what lags from K on add together."""
        if self._rest is not None:
            return entries.rows(entries.part(self._rest, (slice(None), slice(width))), 2)
        return Scaled(self.rest.mantissa[:, :width], self.rest.exponent)

    def log2_norms(self, width: int) -> Real:
        """Return base-2 logarithms of the norms of the contributions' first `width` columns."""
        P, Z, top = self._aligned(width)
        logs = log2_norms_of_products(P, Z, None, self._threads) + top
        for k in np.flatnonzero(np.isnan(logs)):
            logs[k] = Scaled(P[k].T @ Z[k], top[k]).log2_norms()
        return logs

    def inner_products(self, G: Real) -> Scaled:
        """Return what the contributions' first columns have in common with G, (h, width)."""
        P, Z, top = self._aligned(G.shape[1])
        inner = np.empty(self.lags)
        P, G, Z = (np.ascontiguousarray(array) for array in (P, G, Z))
        _core.inner_products((*P.shape, Z.shape[2]), P, G, Z, inner, self._threads)
        return Scaled(inner, top)

    def _aligned(self, width: int | None) -> tuple[Real, Real, NDArray[np.int64]]:
        """Return P, Z and exponents (K,) such that contributions are ``P_k^T Z_k`` times two to these."""
        Z = self.C if width == self.C.mantissa.shape[2] else self.Z
        if self.P.raw and Z.raw:
            return self.P.mantissa, Z.mantissa[..., :width], np.zeros(self.lags, np.int64)
        Z = normalised(*Z)
        exponent = self.P.exponent + Z.exponent
        top = exponent.max(axis=1)
        return Scaled(self.P.mantissa, exponent).at(top[:, np.newaxis]), Z.mantissa[..., :width], top

    def sums_up_to(self) -> Iterator[Contributions]:
        """Go through the sums of the contributions of lags 0 .. k, for every k below K."""
        so_far = normalised(np.zeros_like(self.rest.mantissa), axes=2)
        for first, terms in self.contributions(_SUMMED):
            for start, some in _alike(terms):
                top = np.maximum(so_far.exponent, some.exponent.max())
                sums = _running_sums(so_far.at(top), some.at(np.full_like(some.exponent, top)))
                so_far = normalised(sums[-1], top, axes=2)
                yield Contributions(first + start, Scaled(sums, np.full_like(some.exponent, top)))

    def sums_from(self) -> Iterator[Contributions]:
        """Go through the sums of the contributions of all lags from k on, for every k below K, backwards."""
        so_far = self.rest
        for first, terms in self.contributions(_SUMMED, backwards=True):
            for start, some in reversed(_alike(terms)):
                top = np.maximum(so_far.exponent, some.exponent.max())
                backwards = some.at(np.full_like(some.exponent, top))[::-1]
                sums = _running_sums(so_far.at(top), backwards)[::-1]
                so_far = normalised(sums[0], top, axes=2)
                yield Contributions(first + start, Scaled(sums, np.full_like(some.exponent, top)))

    def _from_start(self, lags: slice) -> Scaled:
        """Return ``dL/do_{k+1} h_0^T``, summed over the batch, for lags k: (lags, q, h)."""
        some = Scaled(self.problem.d_o.mantissa[lags], self.problem.d_o.exponent[lags])
        top = some.exponent.max(axis=1)
        products = some.at(top[:, np.newaxis]).swapaxes(1, 2) @ self.problem.start
        return normalised(products, np.repeat(top[:, np.newaxis], products.shape[1], axis=1))

    def _beyond(self, outer: Scaled) -> tuple[Scaled, Scaled]:
        """Return what lags from K on add together, and ``C_{K-1}`` as rows (q, h).

        The former is ``(W_hh^T)^K sum_s g_{s+K} [h_{s-1} | x_s | 1]^T``; `outer` is ``W_qh W_hh^K``.
        """
        problem, K = self.problem, self.lags
        T = len(problem.inputs)
        h = len(problem.params.W_hh)
        last = self._from_start(slice(K - 1, K))
        last = Scaled(last.mantissa[0], last.exponent[0])
        rest = normalised(np.zeros((h, h + problem.inputs.shape[2])), axes=2)
        if K == T:
            return rest, last
        # A gradient at the same states, of a model that reads them out by W_qh W_hh^K.
        top = outer.exponent.max()
        W_hx, W_hh, b_h = problem.params.W_hx, problem.params.W_hh, problem.params.b_h
        d = W_hx.shape[1]
        x, d_o = problem.inputs[: T - K, :, :d], problem.d_o.mantissa[K:]
        params = Params(W_hx, W_hh, outer.at(np.full_like(outer.exponent, top)), b_h)
        gradients = vjp(params, x, d_o, problem.start, num_threads=self._threads or None)
        assert gradients.W_qh is not None
        return normalised(side_by_side(gradients), top, axes=2), add(last, normalised(gradients.W_qh))


def side_by_side(gradients: Gradients) -> Real:
    """Return ``[d_W_hh | d_W_hx | d_b_h]``, or without the last."""
    assert gradients.W_hh is not None
    assert gradients.W_hx is not None
    bias = [] if gradients.b_h is None else [gradients.b_h[:, np.newaxis]]
    return np.concatenate([gradients.W_hh, gradients.W_hx, *bias], axis=1)


def _running_sums(so_far: Real, terms: Real) -> Real:
    """Return ``so_far + terms[0] + ... + terms[i]`` for every i: faster than a cumulative sum."""
    sums = np.empty_like(terms)
    for i, term in enumerate(terms):
        so_far = np.add(so_far, term, out=sums[i])
    return sums


def _alike(terms: Scaled) -> list[tuple[int, Scaled]]:
    """Return the terms together if their exponents are close enough to be summed under one, else singly."""
    exponents = terms.exponent[terms.exponent > ZERO // 2]
    if exponents.size and np.ptp(exponents) > 2 * TAME:
        return [
            (i, Scaled(terms.mantissa[i : i + 1], terms.exponent[i : i + 1]))
            for i in range(len(terms.exponent))
        ]
    return [(0, terms)]


def moved_rows(rows: Real, W: Real, chunk: Chunk, count: int, threads: int) -> Scaled:
    """Return ``rows W^k`` for k below `count`: (count, q, h).

    By doubling: rows of lags below n, times W^n, are those of the next n lags, n up to the length of the
    chunk. First as ordinary numbers, then with one exponent per row; one step at a time where rows may have
    fallen below the range on the way.
    """
    if chunk.powers.raw:
        moved = np.empty((count, *rows.shape))
        moved[0] = rows
        for source, target, power in _by_doubling(count, chunk.powers.mantissa):
            product(_flat(moved[source]), power, threads, out=_flat(moved[target]))
        if tame(moved) and not vanishing(moved):
            return unscaled(moved)
        exponents = np.empty(moved.shape[:2], np.int64)
        moved[0], exponents[0] = normalised(rows)
        for source, target, power in _by_doubling(count, chunk.powers.mantissa):
            product(_flat(moved[source]), power, threads, out=_flat(moved[target]))
            moved[target], exponents[target] = normalised(moved[target], exponents[source])
        if tame(moved) and not vanishing(moved):
            return Scaled(moved, exponents)
    still = unscaled(np.zeros((count - 1, *rows.shape)))
    return scan(normalised(np.ascontiguousarray(W.T), axes=2), still, raw_if_tame(rows), threads)


def _by_doubling(count: int, powers: Real) -> Iterator[tuple[slice, slice, Real]]:
    """Go through lags that are known, those that a power of W leads to from there, and that power."""
    n, done = 0, 1
    while done < count:
        if done == 2 ** (n + 1) and n + 1 < len(powers):
            n += 1
        first, more = done - 2**n, min(2**n, count - done)
        yield slice(first, first + more), slice(done, done + more), powers[n]
        done += more


def _flat(rows: Real) -> Real:
    return rows.reshape(-1, rows.shape[-1])


def log2_norms_of_products(P: Real, Z: Real | None, gram: Real | None, threads: int) -> Real:
    r"""Return base-2 logarithms of ``||P_k^T Z_k||_F``, nan where digits are lost.

    By :math:`\|P^\top Z\|_F^2 = \langle P P^\top, Z Z^\top \rangle`, with `gram` for ``Z Z^T`` where one is
    for all k: P is (K, q, h), Z (K, q, w).
    """
    K, q, h = P.shape
    inner, largest = np.empty(K), np.empty(K)
    width = 0 if Z is None else Z.shape[2]
    P = np.ascontiguousarray(P)
    Z = None if Z is None else np.ascontiguousarray(Z)
    _core.gram_products((K, q, h, width), P, Z, gram, inner, largest, threads)
    logs: Real = np.log2(np.where((inner > _CANCELLED * largest) | (largest == 0), inner, np.nan)) / 2
    return logs
