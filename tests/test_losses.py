"""The table of losses: its formulas, who reads it, and what an argument `loss` may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, build
from rnnbptt import Params, reference
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from rnnbptt.reference.losses import STEP_LOSSES
from tolerances import relative_error

PARAMS = Params([[1.0]], [[0.5]], [[1.0]])
X, Y = np.ones((5, 1)), np.zeros((5, 1))

#: Everything that takes a loss.
TAKERS: dict[str, Callable[[Any], Any]] = {
    "Objective": lambda loss: rnnbptt.Objective(X, Y, loss=loss),
    "loss_and_grad": lambda loss: rnnbptt.loss_and_grad(PARAMS, X, Y, loss=loss),
    "hvp": lambda loss: rnnbptt.hvp(PARAMS, X, Y, PARAMS, loss=loss),
    "gradient_flow": lambda loss: rnnbptt.gradient_flow(PARAMS, X, Y, loss=loss),
    "truncation_report": lambda loss: rnnbptt.truncation_report(PARAMS, X, Y, loss=loss),
    "reference.loss_and_grad": lambda loss: reference.loss_and_grad(PARAMS, X, Y, loss=loss),
    "reference.hvp": lambda loss: reference.hvp(PARAMS, X, Y, PARAMS, loss=loss),
}
NAMES = ", ".join(map(repr, losses.LOSSES))
REFUSED = [
    ("mae", ValueError, f"loss must be one of {NAMES}, not 'mae'"),
    ("given", ValueError, f"loss must be one of {NAMES}, not 'given'"),
    (3, TypeError, "loss must be a string, not int 3"),
    (("mae", 1.0), ValueError, f"loss must be one of {NAMES}, not 'mae'"),
    (("mse", 1.0), ValueError, "loss 'mse' takes no parameter: float 1.0 was given"),
    (("mse",), ValueError, "loss must be a name, (name, parameter) or a function, not tuple ('mse',)"),
    ((1.0, "mse"), TypeError, "loss must be a string, not float 1.0"),
]


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(("loss", "error", "message"), REFUSED)
def test_what_is_no_loss_is_refused(taker: str, loss: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        TAKERS[taker](loss)
    assert str(caught.value) == message


def test_every_list_of_losses_has_the_same_names() -> None:
    assert tuple(losses.LOSSES) == get_args(LossName)
    assert set(losses.LOSSES) == set(STEP_LOSSES)
    assert all(name == loss.name for name, loss in losses.LOSSES.items())


def test_the_extension_refuses_a_name_it_does_not_know() -> None:
    class Unknown(losses.SquaredError):
        name = "unknown"

    dataset = rnnbptt.engine.dataset.Dataset(PARAMS, X)
    with pytest.raises(ValueError, match="no loss is called 'unknown'"):
        dataset.pose(Unknown(), dataset.outputs_like("y", Y))


@pytest.mark.parametrize("loss", LOSSES)
def test_table_engine_and_reference_agree(loss: LossName) -> None:
    for seed in range(5):
        case = build(np.random.default_rng(seed), np.float64, (30, 3, 2, 5, 4), loss=loss, steps=("weights",))
        o = rnnbptt.forward(case.params, case.x, case.options["h0"]).o
        share = case.options["weights"] / case.options["weights"].sum()
        known = losses.LOSSES[loss]
        value, gradients = case.engine()
        assert value == pytest.approx(np.sum(share * known.value(o, case.y)), rel=1e-12)
        assert value == pytest.approx(case.solve()[0], rel=1e-12)
        d_o = share[..., np.newaxis] * known.derivative(o, case.y)
        assert gradients.b_q is not None
        assert relative_error(gradients.b_q, d_o.sum(axis=(0, 1))) <= 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_derivatives_of_the_table_are_those_of_its_values(loss: LossName) -> None:
    known = losses.LOSSES[loss]
    rng = np.random.default_rng(1)
    o = rng.standard_normal((40, 5))
    y = rng.integers(0, 5, 40) if known.labels else rng.standard_normal((40, 5))
    step = 1e-6
    for i in range(5):
        moved = step * np.eye(5)[i]
        slope = (known.value(o + moved, y) - known.value(o - moved, y)) / (2 * step)
        np.testing.assert_allclose(known.derivative(o, y)[:, i], slope, rtol=0, atol=1e-8)


def test_losses_that_a_shift_does_not_change_stand_large_outputs() -> None:
    rng = np.random.default_rng(3)
    o, y = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    for known in losses.LOSSES.values():
        if known.shift_invariant:
            np.testing.assert_allclose(known.value(o + 1000, y), known.value(o, y), rtol=1e-9)
            np.testing.assert_allclose(known.derivative(o + 1000, y), known.derivative(o, y), rtol=1e-9)


@pytest.mark.parametrize("lead", [1.0, 20.0, 40.0, 300.0])
def test_confident_answers_have_digits(lead: float) -> None:
    # One step with the outputs (lead, 0) and the label 0: l = log(1 + e^-lead).
    params = Params([[1.0]], [[0.0]], [[lead], [0.0]])
    loss, gradients = rnnbptt.loss_and_grad(params, [[1.0]], [0], loss="cross_entropy")
    rest = math.exp(-lead)
    assert loss == pytest.approx(math.log1p(rest), rel=1e-12, abs=0)
    assert gradients.W_qh is not None
    np.testing.assert_allclose(gradients.W_qh[:, 0], [-rest / (1 + rest), rest / (1 + rest)], rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_reports_know_every_loss(loss: LossName) -> None:
    case = build(
        np.random.default_rng(2), np.float64, (40, 2, 2, 4, 3), loss=loss, steps=("weights", "lengths")
    )
    flow = rnnbptt.gradient_flow(case.params, case.x, case.y, **case.options)
    norm = float(np.linalg.norm(np.asarray(case.engine()[1].W_hh)))
    assert flow.log2_gradient_norm == pytest.approx(np.log2(norm), abs=1e-9)
    # The same states, 2^600 times as large, reach the loss beyond the range of squares.
    large = Params(**dict(case.params.items()) | {"W_qh": case.params.W_qh * 2.0**600})
    assert np.isfinite(rnnbptt.gradient_flow(large, case.x, case.y, **case.options).log2_gradient_norm)


def test_a_loss_square_near_zero_keeps_gradients_below_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bent(losses.Loss):
        name = "squared_error"  # what the extension computes: here residuals are below one
        slope_at_zero = 1.0

        def value(self, o: Any, y: Any) -> Any:
            return np.sum(np.minimum((o - y) ** 2 / 2, 9), axis=-1)

        def derivative(self, o: Any, y: Any) -> Any:
            return np.clip(o - y, -4, 4)

    x, y, weights = np.zeros((3000, 1)), np.zeros((3000, 1)), np.zeros(3000)
    x[0], weights[2900] = 1, 1

    def flow() -> Any:
        return rnnbptt.gradient_flow(PARAMS, x, y, weights=weights, loss="squared_error", lags=3000)

    right = flow()
    assert right.log2_gradient_norm < -5000
    monkeypatch.setitem(losses.LOSSES, "squared_error", Bent())
    np.testing.assert_allclose(flow().log2_state_gradients, right.log2_state_gradients, rtol=0, atol=1e-9)
    assert flow().log2_gradient_norm == pytest.approx(right.log2_gradient_norm, abs=1e-9)


def test_a_parameter_of_a_loss_is_the_callers_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scaled(losses.SquaredError):
        name = "scaled"

    monkeypatch.setitem(losses.LOSSES, "scaled", Scaled(parameter=1.0))
    known = losses.checked_loss(("scaled", 2))
    assert isinstance(known, Scaled)
    assert known.parameter == 2.0
    assert losses.LOSSES["scaled"].parameter == 1.0
    for wrong in ("2", None, True):
        with pytest.raises(TypeError, match="loss must be a real number"):
            losses.checked_loss(("scaled", wrong))  # type: ignore[arg-type]  # that is the point
    for out_of_range in (0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"loss=.* must be finite and above 0"):
            losses.checked_loss(("scaled", out_of_range))
