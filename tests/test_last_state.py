"""Gradients that enter at the last state: `vjp(..., d_hT=)`, on every schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import SCALARS, Array, Scalar, assert_same
from rnnbptt import Gradients, Params, reference
from rnnbptt.engine.dataset import Dataset
from rnnbptt.gradients.problem import Problem
from tolerances import FORMS, gradient_bound, relative_error


class Question:
    """A problem (T, B, d, h, q) with random d_o and d_hT."""

    def __init__(
        self, sizes: tuple[int, int, int, int, int], *, radius: float = 0.9, dtype: Scalar = np.float64
    ) -> None:
        rng = np.random.default_rng(sum(sizes))
        self.T, self.B, d, h, q = sizes

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        self.params = Params.random(
            d, h, q, spectral_radius=radius, biases=True, direct=True, rng=rng, dtype=dtype
        )
        self.radius, self.dtype, self.lengths = radius, dtype, None
        self.x, self.d_o, self.h0 = normal(self.T, self.B, d), normal(self.T, self.B, q), normal(self.B, h)
        self.d_hT = 3 * normal(self.B, h)
        self.wrt = [name for name, _ in self.params.items()] + ["h0", "x"]

    def oracle(self, lengths: Array | None = None) -> Gradients:
        """Answer in extended precision by h more outputs that copy the state and count in the last step."""
        p = self.params
        h = p.shape[1]
        d_o = np.concatenate([self.d_o, np.zeros((self.T, self.B, h), self.dtype)], axis=-1)
        last = np.full(self.B, self.T) if lengths is None else lengths
        d_o[last - 1, np.arange(self.B), -h:] = self.d_hT
        assert p.b_q is not None
        assert p.W_qx is not None
        q = p.shape[2]
        copies = Params(
            p.W_hx,
            p.W_hh,
            np.concatenate([p.W_qh, np.eye(h, dtype=self.dtype)]),
            p.b_h,
            np.concatenate([p.b_q, np.zeros(h, self.dtype)]),
            np.concatenate([p.W_qx, np.zeros((h, p.shape[0]), self.dtype)]),
        )
        options: dict[str, Any] = {"h0": self.h0, "wrt": self.wrt, "lengths": lengths}
        g = reference.oracle(copies, self.x, None, loss=lambda o, _: (0.0, d_o.astype(o.dtype)), **options)[1]
        assert g.W_qh is not None
        assert g.b_q is not None
        assert g.W_qx is not None
        return g._replace(W_qh=g.W_qh[:q], b_q=g.b_q[:q], W_qx=g.W_qx[:q])

    def engine(self, lengths: Array | None = None, /, **schedule: int) -> tuple[Gradients, dict[str, Any]]:
        dataset = Dataset(self.params, self.x, self.h0, lengths=lengths, wrt=self.wrt)
        problem = Problem(dataset, None, self.d_o, d_hT=self.d_hT, schedule=schedule)
        return problem.loss_and_gradients(self.params, 2)[1], problem.posed.used_schedule()

    @property
    def bound(self) -> float:
        return gradient_bound(self.dtype, self.params.shape[1], self.T, self.radius)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("lift", [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
def test_every_lift(lift: int, dtype: Scalar) -> None:
    question = Question((192, 3, 2, 6, 2), dtype=dtype)
    expected = question.oracle()
    for schedule in ({}, {"window": 1}, {"window": 3, "splits": 4}, {"piece": 2, "splits": 2}):
        actual, taken = question.engine(lift=lift, **schedule)
        assert taken["L"] == lift
        assert_same(actual, expected, question.bound)


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize(("lift", "L"), [(1, 1), (3, 3), (5, 4), (12, 12), (64, 12)])
def test_sequences_of_different_lengths(lift: int, L: int, window: int) -> None:
    question = Question((48, 4, 2, 5, 3))
    lengths = np.array([12, 48, 24, 36])  # multiples of 12, and of nothing larger
    actual, taken = question.engine(lengths, lift=lift, window=window)
    assert taken["L"] == L
    assert_same(actual, question.oracle(lengths), question.bound)


def test_only_chunks_that_end_with_the_sequence() -> None:
    for T, most in ((3000, 60), (3001, 1), (3003, 39), (4096, 64)):
        question = Question((T, 1, 2, 32, 2))
        actual, taken = question.engine()
        assert T % taken["L"] == 0
        assert min(most, 8) <= taken["L"] <= most
        assert_same(actual, question.oracle(), question.bound)


def test_spectral_radius_above_one() -> None:
    question = Question((256, 2, 2, 8, 2), radius=1.1)
    assert_same(question.engine()[0], question.oracle(), question.bound)


@pytest.mark.parametrize("method", ["recursion", "closed_form", "forward_mode"])
def test_reference(method: Any) -> None:
    question = Question((20, 3, 2, 4, 2))
    for lengths in (None, np.array([20, 1, 7])):
        actual = reference.vjp(
            question.params,
            question.x,
            question.d_o,
            question.h0,
            d_hT=question.d_hT,
            lengths=lengths,
            wrt=question.wrt,
            method=method,
        )
        assert_same(actual, question.oracle(lengths), FORMS)


def test_windows_of_a_sequence_add_up() -> None:
    question = Question((96, 2, 3, 7, 2))
    p, x, d_o = question.params, question.x, question.d_o
    whole = rnnbptt.vjp(p, x, d_o, question.h0, wrt=question.wrt)
    carried = None
    parts: list[Gradients] = []
    for start in (64, 32, 0):
        h0 = rnnbptt.forward(p, x[:start], question.h0).hidden[-1] if start else question.h0
        window = slice(start, start + 32)
        part = rnnbptt.vjp(p, x[window], d_o[window], h0, d_hT=carried, wrt=question.wrt)
        carried = part.h0
        parts.insert(0, part)
    for name, _ in p.items():
        assert relative_error(sum(getattr(g, name) for g in parts), getattr(whole, name)) <= FORMS
    assert whole.h0 is not None
    assert carried is not None
    assert relative_error(carried, whole.h0) <= FORMS
    assert whole.x is not None
    d_x = np.concatenate([g.x for g in parts if g.x is not None])
    assert relative_error(d_x, whole.x) <= FORMS


def test_adjoint_identity() -> None:
    # <d_o, J v> + <d_hT, J_T v> = <J^T (d_o, d_hT), v> for the map from inputs and initial state.
    question = Question((40, 2, 3, 5, 2))
    rng = np.random.default_rng(1)
    dx, dh0 = rng.standard_normal(question.x.shape), rng.standard_normal(question.h0.shape)
    moved = rnnbptt.forward(question.params, question.x + dx, question.h0 + dh0)
    here = rnnbptt.forward(question.params, question.x, question.h0)
    g, _ = question.engine()
    assert g.x is not None
    assert g.h0 is not None
    forward = np.sum(question.d_o * (moved.o - here.o))
    forward += np.sum(question.d_hT * (moved.hidden[-1] - here.hidden[-1]))
    assert np.sum(g.x * dx) + np.sum(g.h0 * dh0) == pytest.approx(forward, rel=1e-11)


def test_without_batch_axis_and_batch_first() -> None:
    question = Question((16, 2, 3, 5, 2))
    p, x, d_o, d_hT = question.params, question.x, question.d_o, question.d_hT
    expected = rnnbptt.vjp(p, x, d_o, d_hT=d_hT)
    turned = rnnbptt.vjp(p, x.swapaxes(0, 1), d_o.swapaxes(0, 1), d_hT=d_hT, batch_first=True)
    assert_same(turned, expected, 0.0)
    alone = [rnnbptt.vjp(p, x[:, b], d_o[:, b], d_hT=d_hT[b]) for b in range(2)]
    total = Gradients(**{name: getattr(alone[0], name) + a for name, a in alone[1].items()})
    assert_same(total, expected, FORMS)


def test_bad_last_state() -> None:
    question = Question((6, 2, 3, 5, 2))
    for module in (rnnbptt, reference):
        with pytest.raises(ValueError, match=r"d_hT must have shape \(2, 5\), not \(5,\)"):
            module.vjp(question.params, question.x, question.d_o, d_hT=question.d_hT[0])
        with pytest.raises(TypeError, match="d_hT"):
            module.vjp(question.params, question.x, question.d_o, d_hT=question.d_hT + 1j)
