"""Weights, lengths and mask, multiplied out in plain NumPy, which alone says what is right.

The engine and the reference read them through one function: comparing these two tells nothing of it.
"""

from __future__ import annotations

from itertools import chain, combinations
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, Array, Scalar
from rnnbptt import Objective, Params, reference
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from tolerances import FORMS, relative_error

SUBSETS = tuple(chain.from_iterable(combinations(STEP_OPTIONS, n) for n in range(4)))
LAYOUTS = ("time first", "batch first", "one sequence")
WRT = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "h0", "x")
# As many steps as sequences: steps and sequences taken for one another would still be of the right shape.
T = B = 6


class Weighed:
    """A problem with some of weights, lengths and mask, and what each step then weighs: (T, B)."""

    def __init__(self, chosen: tuple[str, ...], dtype: Scalar, layout: str, loss: LossName) -> None:
        rng = np.random.default_rng(len(chosen))
        self.loss: LossName = loss
        self.single = layout == "one sequence"
        batch = 1 if self.single else B
        d, h, q = 2, 4, 3

        def normal(*shape: int) -> Array:
            return rng.standard_normal(shape).astype(dtype)

        W_hh = normal(h, h) / 4
        self.params = Params(normal(h, d), W_hh, normal(q, h), normal(h), normal(q), normal(q, d))
        self.x, self.h0, self.y = normal(T, batch, d), normal(batch, h), normal(T, batch, q)
        if losses.LOSSES[loss].labels:
            self.y = rng.integers(0, q, (T, batch))
        given: dict[str, Array] = {
            "weights": rng.uniform(0.25, 4, (T, batch)).astype(dtype),
            "lengths": np.array([4]) if self.single else np.array([6, 1, 4, 5, 2, 3]),
            "mask": rng.uniform(size=(T, batch)) < 0.6,
        }
        given["mask"][0] = True
        given["weights"][2] = 0
        factors = {
            "weights": given["weights"].astype(np.float64),
            "lengths": np.arange(T)[:, np.newaxis] < given["lengths"],
            "mask": given["mask"],
        }
        self.w = np.ones((T, batch))
        for name in chosen:
            self.w = self.w * factors[name]
        self.batch_first = layout == "batch first"
        self.options: dict[str, Any] = {"h0": self.h0[0] if self.single else self.h0}
        self.options |= {name: self.laid_out(given[name]) for name in chosen if name != "lengths"}
        if "lengths" in chosen:
            self.options["lengths"] = int(given["lengths"][0]) if self.single else given["lengths"]

    def laid_out(self, array: Array) -> Array:
        """Lay a (T, B, ...) array out as the caller does."""
        if self.single:
            return array[:, 0]
        return array.swapaxes(0, 1) if self.batch_first else array

    @property
    def arguments(self) -> tuple[Params, Array, Array]:
        return self.params, self.laid_out(self.x), self.laid_out(self.y)

    @property
    def settings(self) -> dict[str, Any]:
        return {"loss": self.loss, "batch_first": self.batch_first} | self.options

    @property
    def multiplied_out(self) -> dict[str, Any]:
        """The same settings with nothing but weights."""
        w = self.laid_out(self.w.astype(self.params.dtype))
        return {"loss": self.loss, "batch_first": self.batch_first, "h0": self.options["h0"], "weights": w}

    def loss_of(self, o: Array, y: Any) -> tuple[float, Array]:
        """The loss of one step, and its derivative."""
        known = losses.LOSSES[self.loss]
        return float(known.value(o, np.asarray(y))), known.derivative(o, np.asarray(y))

    def by_hand(self, d_o: Array | None = None) -> tuple[float, dict[str, Array]]:
        """The loss and its gradients, in float64, sequence by sequence and step by step.

        `d_o`, (T, B, q), stands for the derivatives of a loss of the caller's own.
        """
        W_hx, W_hh, W_qh, b_h, b_q, W_qx = (a.astype(np.float64) for _, a in self.params.items())
        x, h0 = self.x.astype(np.float64), self.h0.astype(np.float64)
        loss, g = 0.0, {name: np.zeros(array.shape) for name, array in self.params.items()}
        g |= {"h0": np.zeros(h0.shape), "x": np.zeros(x.shape)}
        for b in range(x.shape[1]):
            states, asks = [h0[b]], []
            for t in range(T):
                states.append(W_hx @ x[t, b] + W_hh @ states[-1] + b_h)
                o = W_qh @ states[-1] + W_qx @ x[t, b] + b_q
                value, ask = self.loss_of(o, self.y[t, b])
                share = self.w[t, b] / self.w.sum()
                loss += share * value
                asks.append(share * ask if d_o is None else (self.w[t, b] > 0) * d_o[t, b])
            later = np.zeros(len(W_hh))
            for t in reversed(range(T)):
                e, now, before = asks[t], states[t + 1], states[t]
                later = W_qh.T @ e + W_hh.T @ later
                g["W_qh"] += np.outer(e, now)
                g["W_qx"] += np.outer(e, x[t, b])
                g["b_q"] += e
                g["W_hx"] += np.outer(later, x[t, b])
                g["W_hh"] += np.outer(later, before)
                g["b_h"] += later
                g["x"][t, b] = W_hx.T @ later + W_qx.T @ e
            g["h0"][b] = W_hh.T @ later
        g["x"] = self.laid_out(g["x"])
        if self.single:
            g["h0"] = g["h0"][0]
        return loss, g

    @property
    def tolerance(self) -> float:
        return 100 * float(np.finfo(self.params.dtype).eps)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("chosen", SUBSETS, ids=lambda chosen: "+".join(chosen) or "none")
def test_every_gradient_is_that_of_the_weights_multiplied_out(
    chosen: tuple[str, ...], dtype: Scalar, layout: str, loss: LossName
) -> None:
    weighed = Weighed(chosen, dtype, layout, loss)
    expected_loss, expected = weighed.by_hand()
    _, x, y = weighed.arguments
    objective = Objective(x, y, like=weighed.params, wrt=WRT, **weighed.settings)
    answers = {
        "engine": rnnbptt.loss_and_grad(*weighed.arguments, wrt=WRT, **weighed.settings),
        "objective": objective(weighed.params),
        "reference": reference.loss_and_grad(*weighed.arguments, wrt=WRT, **weighed.settings),
        "oracle": reference.oracle(*weighed.arguments, wrt=WRT, **weighed.settings),
    }
    for who, (value, g) in answers.items():
        assert value == pytest.approx(expected_loss, rel=weighed.tolerance), who
        for name in WRT:
            assert relative_error(getattr(g, name), expected[name]) <= weighed.tolerance, (who, name)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("chosen", [(), ("lengths",)], ids=["none", "lengths"])
def test_vjp_is_that_of_each_sequence_to_its_end(chosen: tuple[str, ...], dtype: Scalar, layout: str) -> None:
    weighed = Weighed(chosen, dtype, layout, "mse")
    _, expected = weighed.by_hand(weighed.y)
    for module in (rnnbptt, reference):
        g = module.vjp(*weighed.arguments, wrt=WRT, batch_first=weighed.batch_first, **weighed.options)
        for name in WRT:
            assert relative_error(getattr(g, name), expected[name]) <= weighed.tolerance, name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chosen", SUBSETS, ids=lambda chosen: "+".join(chosen) or "none")
def test_second_derivatives_and_reports_are_those_of_the_weights_multiplied_out(
    chosen: tuple[str, ...], layout: str
) -> None:
    weighed = Weighed(chosen, np.float64, layout, "mse")
    params, x, y = weighed.arguments
    v = params.ravel()[::-1].copy()
    answers = []
    for settings in (weighed.settings, weighed.multiplied_out):
        objective = Objective(x, y, like=params, **settings)
        flow = rnnbptt.gradient_flow(params, x, y, **settings)
        costs = rnnbptt.truncation_report(params, x, y, **settings)
        answers.append(
            {
                "residuals": objective.residuals(params.ravel()),
                "jac": objective.jac(params.ravel()),
                "hessp": objective.hessp(params.ravel(), v),
                "gauss_newton": objective.gauss_newton(params.ravel()).matrix,
                "shares": flow.shares,
                "bias": costs.bias,
            }
        )
    for name, actual in answers[0].items():
        assert relative_error(actual, answers[1][name]) <= FORMS, name
