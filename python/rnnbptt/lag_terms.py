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

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _validate
from .chunked_recurrence import Chunk, ChunkedRecurrence, chunk_of
from .correlation import correlate
from .dataset import Dataset, checked
from .objective import LOSSES, vjp
from .params import Params
from .scaled import TAME, ZERO, Real, Scaled, add, contract, normalised, product, raw_if_tame, scan
from .trajectories import outputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from .objective import Loss
    from .params import Gradients

#: Lags that are looked at where the caller does not say.
DEFAULT_LAGS = 1000
#: Scalars of the contributions of some lags.
_AT_ONCE = 2**18
#: Lags whose contributions are summed under one exponent.
_SUMMED = 64
#: Squared lengths below this share of what they could be have lost digits as a sum of products.
_CANCELLED = 2.0**-13


@dataclass(frozen=True)
class Data:
    """A checked problem in float64, time-major: (T, B, ...)."""

    params: Params
    inputs: Real
    """x, and a last input of one where there is a b_h: (T, B, d or d + 1)."""
    start: Real
    d_o: Scaled
    used: int
    """Steps with a weight in the loss."""
    batched: bool
    batch_first: bool
    plain: bool
    """Whether the engine, without exponents, gave the outputs."""
    recurrence: Recurrence

    @property
    def raw(self) -> bool:
        """Whether all states are ordinary numbers."""
        return self.plain or self.recurrence.forward.raw


@dataclass(frozen=True)
class Recurrence:
    """The recurrence of the states, made where it is asked for."""

    params: Params
    inputs: Real
    start: Real
    threads: int

    @property
    def columns(self) -> Real:
        """Weights of the inputs: W_hx, and b_h beside it."""
        W_hx, b_h = self.params.W_hx, self.params.b_h
        return W_hx if b_h is None else np.concatenate([W_hx, b_h[:, np.newaxis]], axis=1)

    @cached_property
    def chunk(self) -> Chunk:
        """Steps taken as one, and their power of W_hh."""
        return chunk_of(self.params.W_hh, len(self.inputs), self.threads)

    @cached_property
    def forward(self) -> ChunkedRecurrence:
        """States and outputs far beyond the range of float64."""
        W_hh, W_qh, inputs = self.params.W_hh, self.params.W_qh, raw_if_tame(self.inputs)
        return ChunkedRecurrence(W_hh, self.columns, W_qh, inputs, self.start, self.threads, self.chunk)


class Contributions(NamedTuple):
    """What lags ``first, first + 1, ...`` add to ``[d_W_hh | d_W_hx | d_b_h]``: (n, h, h + d or d + 1)."""

    first: int
    terms: Scaled


def pose(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: Loss,
    h0: ArrayLike | None,
    weights: ArrayLike | None,
    lengths: ArrayLike | None,
    mask: ArrayLike | None,
    batch_first: bool,
    threads: int,
) -> Data:
    """Check a problem as `Objective` does, run it, and differentiate the loss by the outputs."""
    if callable(loss):
        for name, value in (("weights", weights), ("mask", mask)):
            if value is not None:
                raise ValueError(f"{name} must be None when loss is a function: weigh the steps inside it")
    else:
        _validate.choice("loss", loss, LOSSES)
    dataset = Dataset(
        checked(params), x, h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    targets = None if callable(loss) else dataset.targets(loss, y)
    T, B, h = dataset.steps, dataset.batch, params.shape[1]
    running = _validate.used_steps(None, dataset.lengths, T)
    used = _validate.used_steps(dataset.weights, dataset.lengths, T)
    kept = np.ones((T, B), bool) if used is None else used
    inputs = np.asarray(dataset.inputs, np.float64)
    if running is not None:
        inputs = np.where(running[..., np.newaxis], inputs, 0)
    start = np.zeros((B, h)) if dataset.start is None else dataset.start.astype(np.float64)
    if targets is not None and targets.ndim == 3:
        targets = np.where(kept[..., np.newaxis], targets, 0).astype(np.float64)
        _finite("y", targets)
    wide = Params(**{name: array.astype(np.float64) for name, array in params.items()})
    for name, array in [*wide.items(), ("x", inputs), ("h0", start)]:
        _finite(name, array)
    x = inputs
    if wide.b_h is not None:
        inputs = np.concatenate([inputs, np.ones((T, B, 1))], axis=2)
    recurrence = Recurrence(wide, inputs, start, threads)
    o = raw_if_tame(outputs(wide, Dataset(wide, x, start), threads))
    plain = o.raw and not _vanishing(o.mantissa, running)
    if not plain:
        o = _outputs(recurrence.forward, wide, x)
    if callable(loss):
        d_o = _callers_derivative(loss, o, y, dataset)
    else:
        assert targets is not None
        weight = kept.astype(np.float64) if dataset.weights is None else np.where(kept, dataset.weights, 0.0)
        d_o = _derivative(loss, o, targets, weight / weight.sum())
    return Data(
        wide, inputs, start, d_o, int(kept.sum()), dataset.batched, dataset.batch_first, plain, recurrence
    )


def _vanishing(o: Real, running: NDArray[np.bool_] | None) -> bool:
    """Whether outputs of zero follow others: those may have fallen below the range of float64."""
    nonzero = (o != 0).any(axis=-1)
    ended = nonzero[:-1] & ~nonzero[1:]
    return bool((ended if running is None else ended & running[1:]).any())


def _outputs(recurrence: ChunkedRecurrence, params: Params, x: Real) -> Scaled:
    """Return outputs far beyond the range of float64."""
    o = recurrence.outputs()
    o = raw_if_tame(o.mantissa) if o.raw else normalised(*o)
    direct = None if params.W_qx is None else x @ params.W_qx.T
    if params.b_q is not None:
        direct = np.broadcast_to(params.b_q, o.mantissa.shape) if direct is None else direct + params.b_q
    return o if direct is None else add(o, raw_if_tame(direct))


def chosen_lags(lags: int | None, data: Data) -> int:
    """Return the number of lags to tell apart."""
    T = len(data.inputs)
    if lags is None:
        return min(T, DEFAULT_LAGS)
    number = _validate.integer("lags", lags, 1)
    if number > T:
        raise ValueError(f"lags must be at most T = {T}, not {number}")
    return number


def _finite(name: str, array: NDArray[Any]) -> None:
    if not np.isfinite(array).all():
        where = tuple(int(i[0]) for i in np.nonzero(~np.isfinite(array)))
        raise ValueError(f"{name} must be finite, not {array[where]} (an entry of the {name} that counts)")


def _derivative(loss: str, o: Scaled, targets: NDArray[Any], share: Real) -> Scaled:
    """Return dL/do of a built-in loss; every step has its share of the mean."""
    if loss == "cross_entropy":
        k, label = np.arange(o.mantissa.shape[-1]), targets[..., np.newaxis]
        mantissa = o.mantissa - o.mantissa.max(axis=-1, keepdims=True)
        shifted = Scaled(mantissa, o.exponent).at(np.zeros_like(o.exponent))
        odds = np.exp(shifted)
        p = np.where(k == label, 0, odds / odds.sum(axis=-1, keepdims=True))
        # p - 1 at the label is minus the sum of the others: no digits are lost.
        dl = np.where(k == label, -p.sum(axis=-1, keepdims=True), p)
        return raw_if_tame(share[..., np.newaxis] * dl)
    residual = add(o, raw_if_tame(-targets))
    factor = share * (2 / targets.shape[-1] if loss == "mse" else 1)
    d_o = residual.mantissa * factor[..., np.newaxis]
    return raw_if_tame(d_o) if residual.raw else normalised(d_o, residual.exponent)


def _callers_derivative(loss: Any, o: Scaled, y: Any, dataset: Dataset) -> Scaled:
    outputs = o.at(np.zeros_like(o.exponent))
    if not np.isfinite(outputs).all():
        raise ValueError("loss must be the name of a loss where outputs exceed the range of float64")
    running = _validate.used_steps(None, dataset.lengths, dataset.steps)
    if running is not None:
        outputs = np.where(running[..., np.newaxis], outputs, 0)
    shown = (
        outputs[:, 0] if not dataset.batched else outputs.swapaxes(0, 1) if dataset.batch_first else outputs
    )
    answer = loss(shown, y)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise TypeError(f"loss must return a pair (L, d_o), not {type(answer).__name__}")
    float64 = np.dtype(np.float64)
    d_o = _validate.like_sequence(
        "d_o", answer[1], float64, outputs.shape, dataset.batched, dataset.batch_first
    )
    if running is not None:
        d_o = np.where(running[..., np.newaxis], d_o, 0)
    _finite("d_o", d_o)
    return raw_if_tame(np.asarray(d_o, np.float64))


class LagTerms:
    """The factors of the contributions of every lag below K, and what lags from K on add together.

    Attributes
    ----------
    adjoint : ChunkedRecurrence
        g_t = dL/dh_t in reversed time: its step r is ``g_{T+1-r}``.
    P : Scaled, (K, q, h)
        ``W_qh W_hh^k``.
    Z : Scaled, (K, q, h + d or d + 1)
        ``[C_k | R_k]``.
    rest : Scaled, (h, h + d or d + 1)
        What lags from K on add to ``[d_W_hh | d_W_hx | d_b_h]``.
    """

    def __init__(self, data: Data, lags: int, threads: int) -> None:
        self.data, self.lags, self._threads = data, lags, threads
        W, W_qh = data.params.W_hh, data.params.W_qh
        h, q, B = len(W), len(W_qh), len(data.start)
        transposed = np.ascontiguousarray(W.T)
        self.adjoint = ChunkedRecurrence(
            transposed,
            np.ascontiguousarray(W_qh.T),
            np.zeros((1, h)),
            Scaled(data.d_o.mantissa[::-1], data.d_o.exponent[::-1]),
            np.zeros((B, h)),
            threads,
            data.recurrence.chunk.transposed,
        )
        first = raw_if_tame(W_qh)
        still = raw_if_tame(np.zeros((lags - 1, q, h)))
        self.P = _chain(first, scan(normalised(transposed, axes=2), still, first, threads))
        R = correlate(data.d_o, data.inputs, lags + 1, threads)
        columns = data.recurrence.columns
        inputs = normalised(self._times(R.mantissa[1:lags], columns.T), R.exponent[1:lags])
        entering = add(inputs, self._from_start(slice(lags - 1)))
        rest, last = self._beyond()
        back = slice(None, None, -1)
        v = Scaled(entering.mantissa[back], entering.exponent[back])
        C = _chain(last, scan(normalised(W, axes=2), v, last, threads))
        C = Scaled(C.mantissa[back], C.exponent[back])
        top = np.maximum(C.exponent, R.exponent[:lags])
        R = Scaled(R.mantissa[:lags], R.exponent[:lags])
        self.Z = normalised(np.concatenate([C.at(top), R.at(top)], axis=2), top)
        self.rest = self.adjoint.propagated(rest, lags)

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
        sums = product(left.T, Z.reshape(-1, Z.shape[2]), self._threads)
        terms = normalised(sums, top, axes=2)
        return add(Scaled(self.rest.mantissa[:, :width], self.rest.exponent), terms)

    def log2_norms(self, width: int) -> Real:
        r"""Return base-2 logarithms of the norms of the contributions' first `width` columns.

        By the small matrices of :math:`\|P^\top Z\|_F^2 = \langle P P^\top, Z Z^\top \rangle`, and where
        that sum cancels, from the contributions themselves.
        """
        P, Z, top = self._aligned(width)
        left, right = P @ P.swapaxes(1, 2), Z @ Z.swapaxes(1, 2)
        squares, largest = _inner(left, right), np.sqrt(_inner(left, left) * _inner(right, right))
        logs: Real = np.log2(squares) / 2 + top
        for k in np.flatnonzero(~(squares > _CANCELLED * largest)):
            logs[k] = Scaled(P[k].T @ Z[k], top[k]).log2_norms()
        return logs

    def inner_products(self, G: Real) -> Scaled:
        """Return what the contributions' first columns have in common with G, (h, width)."""
        P, Z, top = self._aligned(G.shape[1])
        return Scaled(_inner(self._times(P, G), Z), top)

    def _times(self, rows: Real, matrix: Real) -> Real:
        """Return ``rows @ matrix`` as one product: (n, q, i) times (i, j)."""
        joined = product(rows.reshape(-1, len(matrix)), matrix, self._threads)
        return joined.reshape(*rows.shape[:2], matrix.shape[1])

    def _aligned(self, width: int | None) -> tuple[Real, Real, NDArray[np.int64]]:
        """Return P, Z and exponents (K,) such that contributions are ``P_k^T Z_k`` times two to these."""
        left, top = self._left
        return left, self.Z.mantissa[..., :width], top

    @cached_property
    def _left(self) -> Scaled:
        exponent = self.P.exponent + self.Z.exponent
        top = exponent.max(axis=1)
        return Scaled(Scaled(self.P.mantissa, exponent).at(top[:, np.newaxis]), top)

    def sums_up_to(self) -> Iterator[Contributions]:
        """Go through the sums of the contributions of lags 0 .. k, for every k below K."""
        so_far = normalised(np.zeros_like(self.rest.mantissa), axes=2)
        for first, terms in self.contributions(_SUMMED):
            for start, some in _alike(terms):
                top = np.maximum(so_far.exponent, some.exponent.max())
                sums = np.cumsum(some.at(np.full_like(some.exponent, top)), axis=0) + so_far.at(top)
                so_far = normalised(sums[-1], top, axes=2)
                yield Contributions(first + start, Scaled(sums, np.full_like(some.exponent, top)))

    def sums_from(self) -> Iterator[Contributions]:
        """Go through the sums of the contributions of all lags from k on, for every k below K, backwards."""
        so_far = self.rest
        for first, terms in self.contributions(_SUMMED, backwards=True):
            for start, some in reversed(_alike(terms)):
                top = np.maximum(so_far.exponent, some.exponent.max())
                backwards = some.at(np.full_like(some.exponent, top))[::-1]
                sums = np.cumsum(backwards, axis=0)[::-1] + so_far.at(top)
                so_far = normalised(sums[0], top, axes=2)
                yield Contributions(first + start, Scaled(sums, np.full_like(some.exponent, top)))

    def log2_state_gradients(self) -> Real:
        """Return ``log2 ||g_t||`` as (T, B)."""
        return self.adjoint.log2_norms()[::-1]

    def _from_start(self, lags: slice) -> Scaled:
        """Return ``dL/do_{k+1} h_0^T``, summed over the batch, for lags k: (lags, q, h)."""
        some = Scaled(self.data.d_o.mantissa[lags], self.data.d_o.exponent[lags])
        top = some.exponent.max(axis=1)
        products = some.at(top[:, np.newaxis]).swapaxes(1, 2) @ self.data.start
        return normalised(products, np.repeat(top[:, np.newaxis], products.shape[1], axis=1))

    def _beyond(self) -> tuple[Scaled, Scaled]:
        """Return ``sum_s g_{s+K} [h_{s-1} | x_s | 1]^T``, and ``C_{K-1}`` as rows (q, h)."""
        data, K = self.data, self.lags
        T = len(data.inputs)
        q, h = data.params.W_qh.shape
        last = self._from_start(slice(K - 1, K))
        last = Scaled(last.mantissa[0], last.exponent[0])
        rest = normalised(np.zeros((h, h + data.inputs.shape[2])), axes=2)
        if K == T:
            return rest, last
        if data.raw and self.adjoint.raw:
            params = Params(data.params.W_hx, data.params.W_hh, data.params.W_qh, data.params.b_h)
            d = params.shape[0]
            x, d_o = data.inputs[: T - K, :, :d], data.d_o.mantissa[K:]
            gradients = vjp(params, x, d_o, data.start, num_threads=self._threads or None)
            assert gradients.W_qh is not None
            return normalised(side_by_side(gradients), axes=2), add(last, normalised(gradients.W_qh))
        before = raw_if_tame(data.start[np.newaxis])
        forward = data.recurrence.forward
        for first in range(0, T - K, forward.window_length):
            stop = min(first + forward.window_length, T - K)
            hidden = forward.window(first, stop).hidden
            top = np.concatenate([before.exponent, hidden.exponent])
            rows = Scaled(np.concatenate([before.mantissa, hidden.mantissa]), top)
            before = Scaled(rows.mantissa[-1:], top[-1:])
            # Step r of the adjoint is g_{T+1-r}: backwards, from g_{stop+K} to g_{first+1+K}.
            g = self.adjoint.window(T - stop - K, T - first - K).hidden
            g = Scaled(g.mantissa[::-1], g.exponent[::-1])
            inputs = raw_if_tame(data.inputs[first:stop])
            by_state = contract(g, Scaled(rows.mantissa[:-1], top[:-1]))
            by_input = contract(g, inputs)
            both = np.maximum(by_state.exponent, by_input.exponent)
            joined = np.concatenate([by_state.at(both), by_input.at(both)], axis=1)
            rest = add(rest, normalised(joined, both))
            later = slice(first + K, stop + K)
            e = Scaled(data.d_o.mantissa[later], data.d_o.exponent[later])
            product = contract(e, Scaled(rows.mantissa[1:], top[1:]))
            last = add(last, normalised(product.mantissa, np.full(q, product.exponent)))
        return rest, last


def side_by_side(gradients: Gradients) -> Real:
    """Return ``[d_W_hh | d_W_hx | d_b_h]``, or without the last."""
    assert gradients.W_hh is not None
    assert gradients.W_hx is not None
    bias = [] if gradients.b_h is None else [gradients.b_h[:, np.newaxis]]
    return np.concatenate([gradients.W_hh, gradients.W_hx, *bias], axis=1)


def _inner(a: Real, b: Real) -> Real:
    """Return the inner products of matrices, (n, i, j) and (n, i, j)."""
    products: Real = np.einsum("nij,nij->n", a, b)
    return products


def _alike(terms: Scaled) -> list[tuple[int, Scaled]]:
    """Return the terms together if their exponents are close enough to be summed under one, else singly."""
    exponents = terms.exponent[terms.exponent > ZERO // 2]
    if exponents.size and np.ptp(exponents) > 2 * TAME:
        return [
            (i, Scaled(terms.mantissa[i : i + 1], terms.exponent[i : i + 1]))
            for i in range(len(terms.exponent))
        ]
    return [(0, terms)]


def _chain(first: Scaled, more: Scaled) -> Scaled:
    """Return normal rows: `first`, then those of `more`."""
    head, tail = normalised(*first), normalised(*more)
    return Scaled(
        np.concatenate([head.mantissa[np.newaxis], tail.mantissa]),
        np.concatenate([head.exponent[np.newaxis], tail.exponent]),
    )
