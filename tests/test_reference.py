"""The reference against itself, against numerical differentiation, and against arithmetic by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from problems import LOSSES, OTHER_FORMS, Array, Case, assert_same, draw
from rnnbptt import reference
from rnnbptt.engine.losses import LossName
from rnnbptt.engine.params import Gradients, Params
from rnnbptt.reference import closed_form
from rnnbptt.reference.gradients import Method
from rnnbptt.reference.model import Model
from rnnbptt.reference.numerical import NumericalMethod
from speed import thinned
from tolerances import COMPLEX_STEP, FINITE_DIFFERENCES, FORMS, GAUGE, relative_error

DOCS = Path(__file__).resolve().parent.parent / "docs"
SEEDS = thinned(range(60), 5)
WITNESSES: tuple[tuple[NumericalMethod, float], ...] = (
    ("complex_step", COMPLEX_STEP),
    ("finite_difference", FINITE_DIFFERENCES),
)

# --- the three forms, and the two witnesses -----------------------------------------------------------------


@pytest.mark.parametrize("method", OTHER_FORMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_forms_agree(seed: int, method: Method) -> None:
    case = draw(seed)
    loss, expected = case.solve(wrt=case.wrt)
    other_loss, actual = case.solve(wrt=case.wrt, method=method)
    assert other_loss == loss
    assert_same(actual, expected, FORMS)


@pytest.mark.parametrize("method", OTHER_FORMS)
@pytest.mark.parametrize("radius", [0.5, 0.95, 1.0])
def test_forms_agree_on_a_longer_problem(radius: float, method: Method) -> None:
    rng = np.random.default_rng(7)
    params = Params.random(3, 8, 2, spectral_radius=radius, biases=True, direct=True, rng=rng)
    case = Case(params, rng.standard_normal((150, 2, 3)), rng.standard_normal((150, 2, 2)), {})
    assert_same(case.solve(wrt=case.wrt, method=method)[1], case.solve(wrt=case.wrt)[1], FORMS)


@pytest.mark.parametrize("seed", SEEDS)
def test_closed_form_of_states_and_of_their_gradients(seed: int) -> None:
    params, x, y, _ = draw(seed, loss="mse")
    h0 = np.random.default_rng(seed).standard_normal((x.shape[1], params.shape[1]))
    hidden = reference.forward(params, x, h0).hidden
    assert relative_error(closed_form.states(Model.of(params), x, h0), hidden) <= FORMS
    expected = reference.state_gradients(params, y)
    for method in OTHER_FORMS:
        assert relative_error(reference.state_gradients(params, y, method=method), expected) <= FORMS


@pytest.mark.parametrize(("method", "tolerance"), WITNESSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_directional_derivative_of_each_gradient(
    seed: int, method: NumericalMethod, tolerance: float
) -> None:
    case = draw(seed, steps=12)
    _, gradients = case.solve(wrt=case.wrt)
    rng = np.random.default_rng(seed)
    for name, gradient in gradients.items():
        size = float(np.linalg.norm(gradient))
        # Half along the gradient, so that the slope is never a cancellation; half anywhere.
        v = rng.standard_normal(gradient.shape)
        v *= np.copysign(1, np.sum(v * gradient)) / np.linalg.norm(v)
        v += gradient / max(size, 1e-300)
        direction = Gradients(**{name: v})
        slope = reference.directional_derivative(
            case.params, case.x, case.y, direction, **case.options, method=method
        )
        assert abs(slope - np.sum(v * gradient)) <= tolerance * max(size, 1e-3), name


@pytest.mark.parametrize("loss", LOSSES)
def test_numerical_gradient_entry_by_entry(loss: LossName) -> None:
    case = draw(11, loss=loss, steps=10)
    _, expected = case.solve(wrt=case.wrt)
    for method, tolerance in WITNESSES:
        actual = reference.numerical_gradient(
            case.params, case.x, case.y, **case.options, wrt=case.wrt, method=method
        )
        assert_same(actual, expected, tolerance)


@pytest.mark.parametrize("seed", SEEDS)
def test_gauge_identity(seed: int) -> None:
    # The loss does not change under h -> P h, so its derivative along every such direction is zero.
    case = draw(seed)
    _, g = case.solve(wrt=case.wrt)
    p = case.params
    assert g.W_hx is not None
    assert g.W_hh is not None
    assert g.W_qh is not None
    assert g.h0 is not None
    terms: list[Array] = [p.W_hh.T @ g.W_hh, -g.W_hh @ p.W_hh.T, -g.W_hx @ p.W_hx.T, p.W_qh.T @ g.W_qh]
    if p.b_h is not None and g.b_h is not None:
        terms.append(-np.outer(g.b_h, p.b_h))
    if "h0" in case.options:
        terms.append(-g.h0.T @ case.options["h0"])
    scale = sum(np.linalg.norm(term) for term in terms)
    assert np.linalg.norm(sum(terms)) <= GAUGE * scale


def test_documentation_example_runs() -> None:
    text = (DOCS / "total-derivative.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    exec(compile(blocks[0], "total-derivative.md", "exec"), {})


# --- by hand ------------------------------------------------------------------------------------------------


def test_one_step_by_hand() -> None:
    # h_1 = 2*3 + 5*1 = 11, o_1 = 7*11 = 77, L = 1/2 (77 - 70)^2, d_o = 7, g_1 = 49.
    params = Params([[2.0]], [[5.0]], [[7.0]])
    for method in ("recursion", *OTHER_FORMS):
        loss, g = reference.loss_and_grad(
            params,
            [[3.0]],
            [[70.0]],
            loss="squared_error",
            h0=[1.0],
            wrt=("W_hx", "W_hh", "W_qh", "h0", "x"),
            method=method,
        )
        assert loss == 24.5
        assert {name: float(value.item()) for name, value in g.items()} == {
            "W_hx": 49 * 3,
            "W_hh": 49 * 1,
            "W_qh": 7 * 11,
            "h0": 5 * 49,
            "x": 2 * 49,
        }


def test_two_steps_by_hand() -> None:
    # h = 2, 3*2 + 1 = 2, 7; o = h; y = 0, 5: d_o = (2, 2)/2 = (1, 1); g_2 = 1, g_1 = 1 + 3*1 = 4.
    params = Params([[1.0]], [[3.0]], [[1.0]], b_h=[0.0], b_q=[0.0], W_qx=[[0.0]])
    for method in ("recursion", *OTHER_FORMS):
        loss, g = reference.loss_and_grad(
            params, [[2.0], [1.0]], [[0.0], [5.0]], loss="squared_error", method=method
        )
        assert loss == (4 / 2 + 4 / 2) / 2
        assert {name: float(value.item()) for name, value in g.items()} == {
            "W_hx": 4 * 2 + 1 * 1,
            "W_hh": 1 * 2,
            "W_qh": 1 * 2 + 1 * 7,
            "b_h": 4 + 1,
            "b_q": 1 + 1,
            "W_qx": 1 * 2 + 1 * 1,
        }
        assert reference.state_gradients(params, [[1.0], [1.0]], method=method).tolist() == [[4.0], [1.0]]


def test_the_disputed_example_by_hand() -> None:
    # L = h_3 = w^2: one factor total and one immediate gives 2w, as docs/total-derivative.md works out.
    w = 0.75
    params = Params([[1.0]], [[w]], [[1.0]])
    for method in ("recursion", *OTHER_FORMS):
        g = reference.vjp(params, [[1.0], [0.0], [0.0]], [[0.0], [0.0], [1.0]], method=method)
        assert g.W_hh is not None
        assert g.W_hh.item() == 2 * w


def test_losses_are_what_they_say() -> None:
    o, y, label = np.array([[1.0, 2.0, 4.0]]), np.array([[0.0, 2.0, 1.0]]), np.array([2])
    params = Params(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((3, 1)), b_q=o[0])
    x = np.zeros((1, 1))
    assert reference.loss_and_grad(params, x, y, loss="squared_error")[0] == 5.0
    assert reference.loss_and_grad(params, x, y, loss="mse")[0] == pytest.approx(10 / 3, rel=1e-15)
    value, g = reference.loss_and_grad(params, x, label, loss="cross_entropy")
    p = np.exp(o[0]) / np.exp(o[0]).sum()
    assert value == pytest.approx(-np.log(p[2]), rel=1e-14)
    assert g.b_q is not None
    np.testing.assert_allclose(g.b_q, p - [0, 0, 1], rtol=1e-14)


def test_confident_cross_entropy_keeps_its_digits() -> None:
    params = Params(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((2, 1)), b_q=[50.0, 0.0])
    value, g = reference.loss_and_grad(params, np.zeros((1, 1)), [0], loss="cross_entropy")
    assert g.b_q is not None
    assert value == pytest.approx(np.exp(-50), rel=1e-14)
    np.testing.assert_allclose(g.b_q, [-np.exp(-50), np.exp(-50)], rtol=1e-14)
