"""A recurrence of numbers so uneven that every one has an exponent of its own: states, outputs, gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import entries
from .scaled import Real, Scaled

if TYPE_CHECKING:
    from ...engine.params import Params


#: Products up to which the factors C of all lags are summed up directly.
_DIRECTLY = 2**30


class LagFactors(NamedTuple):
    """What `LagTerms` holds, and by the same names: rows under one exponent, and `rest` an exponent each."""

    P: Scaled
    C: Scaled
    R: Scaled
    rest: Scaled


class UnevenRecurrence:
    """States and outputs of a model, and gradients of its states, step by step.

    Attributes
    ----------
    hidden : Scaled, (T + 1, B, h)
        h_0 .. h_T.
    outputs : Scaled, (T, B, q)
        Without b_q and W_qx.
    """

    def __init__(self, params: Params, columns: Real, inputs: Real, start: Real, threads: int) -> None:
        self._W, self._C = entries.entries(params.W_hh), entries.entries(params.W_qh)
        self._columns, self._inputs = entries.entries(columns), entries.entries(inputs)
        self._threads = threads
        entering = entries.product(self._inputs, entries.transposed(self._columns), threads)
        self.hidden = entries.scan(self._W, entering, entries.entries(start))
        later = entries.part(self.hidden, slice(1, None))
        self.outputs = entries.product(later, entries.transposed(self._C), threads)

    def state_gradients(self, d_o: Scaled) -> Scaled:
        """Return g_t for t = 1..T, (T, B, h), from dL/do."""
        e = entries.product(d_o, self._C, self._threads)
        end = entries.entries(np.zeros(self.hidden.mantissa.shape[1:]))
        g = entries.scan(entries.transposed(self._W), e, end, reverse=True)
        return entries.part(g, slice(None, -1))

    def lag_factors(self, d_o: Scaled, lags: int) -> LagFactors:
        """Return the factors of what each lag below `lags` adds to a gradient, and what all others add."""
        W, threads, h = self._W, self._threads, len(self._W.mantissa)
        T = len(d_o.mantissa)
        nothing = entries.entries(np.zeros((lags - 1, *self._C.mantissa.shape)))
        P = entries.scan(entries.transposed(W), nothing, self._C)
        R = entries.correlate(d_o, self._inputs, lags, threads)
        before = entries.part(self.hidden, slice(T))
        if T * lags * self._C.mantissa.size <= _DIRECTLY:
            C = entries.correlate(d_o, before, lags, threads)
        else:
            C = self._by_recurrence(d_o, R, before)
        rest = entries.entries(np.zeros((h, h + self._inputs.mantissa.shape[2])))
        if lags < T:
            g = entries.part(self.state_gradients(d_o), slice(lags, None))
            states = [entries.part(self.hidden, slice(T - lags)), entries.part(self._inputs, slice(T - lags))]
            sums = entries.correlate(g, entries.joined(states, 2), 1, threads)
            moved = entries.power(entries.transposed(W), lags, threads)
            rest = entries.product(moved, entries.part(sums, 0), threads)
        return LagFactors(entries.rows(P), entries.rows(C), entries.rows(R), rest)

    def _by_recurrence(self, d_o: Scaled, R: Scaled, before: Scaled) -> Scaled:
        """Return C from R, by ``C_k = R_{k+1} W_hx^T + dL/do_{k+1} h_0^T + C_{k+1} W_hh^T``."""
        lags, threads = len(R.mantissa), self._threads
        v = entries.product(entries.part(R, slice(1, None)), entries.transposed(self._columns), threads)
        first = entries.part(before, slice(1))
        by_start = [
            entries.correlate(entries.part(d_o, slice(k, k + 1)), first, 1, threads) for k in range(lags - 1)
        ]
        if by_start:
            v = entries.total(v, entries.joined(by_start, 0))
        there = entries.part(before, slice(len(before.mantissa) - lags + 1))
        last = entries.correlate(entries.part(d_o, slice(lags - 1, None)), there, 1, threads)
        return entries.scan(self._W, v, entries.part(last, 0), reverse=True)
