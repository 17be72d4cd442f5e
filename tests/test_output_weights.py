"""Weights of single outputs, (T, B, q): the squared losses with targets that are missing one by one."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import (
    LOSSES,
    SCALARS,
    SQUARES,
    STEP_OPTIONS,
    Array,
    Case,
    Scalar,
    assert_identical,
    assert_same,
    build,
    weighing_outputs,
)
from rnnbptt import Chunked, Gradients, Objective, Params, Randomized, Sliding, reference
from rnnbptt.engine.losses import LossName
from tolerances import FORMS, gradient_bound, relative_error

SIZES = (37, 4, 3, 5, 4)
LAYOUTS = ("time first", "batch first", "one sequence")
WAYS = (("engine", rnnbptt.loss_and_grad), ("reference", reference.loss_and_grad))


def drawn(dtype: Scalar = np.float64, loss: LossName = "mse", seed: int = 0, **more: Any) -> Case:
    rng = np.random.default_rng(seed)
    return weighing_outputs(build(rng, dtype, more.pop("sizes", SIZES), loss=loss, **more), seed)


def exactly(case: Case) -> tuple[float, dict[str, Array]]:
    """Loss and gradients, in long double, as the sum over outputs of problems with one output each."""
    lengths = case.options.get("lengths", np.full(case.x.shape[1], len(case.x)))
    running = np.arange(len(case.x))[:, np.newaxis] < lengths
    kept = running & case.options.get("mask", True)
    w = np.where(kept[..., np.newaxis], case.options["weights"], 0).astype(np.longdouble)
    q = w.shape[2]
    loss = np.longdouble(0)
    total: dict[str, Array] = {}
    for j in range(q):
        own = dict(case.params.items())
        own |= {name: own[name][j : j + 1] for name in ("W_qh", "b_q", "W_qx") if name in own}
        single = {
            "h0": case.options["h0"],
            "lengths": lengths,
            "weights": w[..., j].astype(case.params.dtype),
        }
        y = np.where(w[..., j] > 0, case.y[..., j], 0)[..., np.newaxis]
        if not single["weights"].any():
            continue
        value, g = reference.oracle(Params(**own), case.x, y, loss="squared_error", wrt=case.wrt, **single)
        # l_j is c/2 (o_j - y_j)^2; the mean over the single problem divides by its own sum of weights.
        c = 2 / np.longdouble(q) if case.options["loss"] == "mse" else np.longdouble(1)
        share = c * w[..., j].sum() / (w.sum() / q)
        loss += share * value
        for name, gradient in g.items():
            if name in ("W_qh", "b_q", "W_qx"):
                whole = total.setdefault(name, np.zeros(getattr(case.params, name).shape, np.longdouble))
                whole[j] = share * gradient[0]
            else:
                total[name] = total.get(name, 0) + share * gradient
    return float(loss), total


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", SQUARES)
@pytest.mark.parametrize("steps", [(), ("lengths",), ("mask",), ("lengths", "mask")])
def test_every_gradient_is_the_sum_over_single_outputs(
    steps: tuple[str, ...], loss: LossName, dtype: Scalar
) -> None:
    case = drawn(dtype, loss, steps=steps)
    expected_loss, expected = exactly(case)
    bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
    for who, solve in WAYS:
        value, g = solve(case.params, case.x, case.y, wrt=case.wrt, **case.options)
        assert value == pytest.approx(expected_loss, rel=bound), who
        for name, gradient in g.items():
            assert gradient.dtype == dtype
            assert relative_error(gradient, expected[name]) <= bound, (who, name)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", SQUARES)
def test_every_schedule(loss: LossName, dtype: Scalar) -> None:
    for biases, steps in product((False, True), ((), ("lengths", "mask"))):
        case = drawn(dtype, loss, biases=biases, direct=biases, steps=steps)
        exact_loss, exact = case.oracle()
        bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
        windows = ((0, 1), (1, 0), (1, 1), (3, 0), (3, 1))
        for lift, (window, keep), piece in product((1, 2, 3, 8, 16, 64), windows, (0, 4)):
            schedule = {"lift": lift, "window": window, "piece": piece, "keep_all_states": keep}
            value, actual = case.scheduled(**schedule)
            assert abs(value - exact_loss) <= bound * max(1.0, abs(exact_loss))
            assert_same(actual, exact, bound)
        for lift in (1, 3, 8):
            product_, v = case.hessian_product(1, lift=lift)
            wide = case.wide()
            expected = reference.hvp(wide.params, wide.x, wide.y, v, wrt=case.wrt[:-1], **wide.options)
            flat = np.concatenate([part.ravel() for _, part in expected.items()])
            assert relative_error(product_, flat) <= bound


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("truncate", [Sliding(1), Sliding(7), Chunked(5), Randomized(4, rng=7)], ids=repr)
def test_every_truncation(truncate: Any, dtype: Scalar) -> None:
    case = drawn(dtype, steps=("lengths",))
    again = Randomized(4, rng=7) if isinstance(truncate, Randomized) else truncate
    _, exact = reference.oracle(case.params, case.x, case.y, wrt=case.wrt, truncate=again, **case.options)
    again = Randomized(4, rng=7) if isinstance(truncate, Randomized) else truncate
    _, actual = case.engine(truncate=again)
    assert_same(actual, exact, gradient_bound(dtype, SIZES[3], SIZES[0], 0.9))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shorthand", ["weights", "mask"])
def test_every_layout(shorthand: str, layout: str) -> None:
    case = drawn()
    kept = case.options["weights"] > 0
    given: dict[str, Any] = {"mask": kept} if shorthand == "mask" else {"weights": case.options["weights"]}
    if shorthand == "mask":
        given["weights"] = np.linspace(0.5, 2, SIZES[0] * SIZES[1]).reshape(SIZES[:2])
    multiplied = np.where(kept, given["weights"].reshape(*given["weights"].shape[:2], -1), 0)
    x, y, h0 = case.x, case.y, case.options["h0"]

    def laid_out(array: Array) -> Array:
        if layout == "one sequence":
            return array[:, 2]
        return array.swapaxes(0, 1) if layout == "batch first" else array

    options: dict[str, Any] = {"batch_first": layout == "batch first"}
    options["h0"] = h0[2] if layout == "one sequence" else h0
    some = slice(2, 3) if layout == "one sequence" else slice(None)
    loss, expected = reference.loss_and_grad(
        case.params, x[:, some], y[:, some], h0=h0[some], weights=multiplied[:, some], wrt=("W_hh", "b_q")
    )
    value, actual = rnnbptt.loss_and_grad(
        case.params,
        laid_out(x),
        laid_out(y),
        wrt=("W_hh", "b_q"),
        **(options | {name: laid_out(array) for name, array in given.items()}),
    )
    assert value == pytest.approx(loss, rel=FORMS)
    assert_same(actual, expected, FORMS)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", SQUARES)
def test_weights_alike_for_all_outputs_are_those_of_steps(loss: LossName, dtype: Scalar) -> None:
    case = build(np.random.default_rng(3), dtype, SIZES, loss=loss, steps=STEP_OPTIONS)
    by_output = np.repeat(case.options["weights"][..., np.newaxis], SIZES[4], axis=2)
    value, actual = case.engine(weights=by_output)
    expected_loss, expected = case.engine()
    bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
    assert value == pytest.approx(expected_loss, rel=bound)
    assert_same(actual, expected, bound)
    objectives = [
        Objective(case.x, case.y, like=case.params, **(case.options | {"weights": w}))
        for w in (by_output, case.options["weights"])
    ]
    assert objectives[0].weight_sum == pytest.approx(objectives[1].weight_sum, rel=1e-15)


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", SQUARES)
def test_residuals_and_second_derivatives(loss: LossName, dtype: Scalar) -> None:
    case = drawn(dtype, loss, steps=("lengths",))
    objective = Objective(case.x, case.y, like=case.params, wrt=case.wrt[:-1], **case.options)
    theta = objective.pack(case.params)
    r, J = objective.residuals(theta), objective.jac(theta)
    value, gradient, matrix = objective.gauss_newton(theta)
    bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
    assert 0.5 * float(np.dot(r.astype(np.float64), r)) == pytest.approx(value, rel=bound)
    assert value == objective.flat(theta)[0]
    assert relative_error(J.T @ r, gradient) <= bound
    assert relative_error(J.T @ J, matrix) <= bound
    running = np.arange(SIZES[0])[:, np.newaxis, np.newaxis] < case.options["lengths"][:, np.newaxis]
    out = ~((case.options["weights"] > 0) & running).ravel()
    assert not r[out].any()
    assert not J[out].any()


def test_nothing_of_an_output_that_is_left_out_is_read() -> None:
    # Its row of W_qh is not finite: nor are its outputs, and what they enter by is zero, not 0 times inf.
    case = drawn()
    weights = case.options["weights"].copy()
    weights[..., 1] = 0
    y = np.where(weights > 0, case.y, np.nan)
    W_qh = case.params.W_qh.copy()
    W_qh[1] = np.inf
    dirty = Params(**(dict(case.params.items()) | {"W_qh": W_qh}))
    clean_objective, objective = (
        Objective(case.x, y, like=p, h0=case.options["h0"], weights=weights) for p in (case.params, dirty)
    )
    for name in ("residuals", "jac"):
        actual = getattr(objective, name)(dirty.ravel())
        assert actual.tobytes() == getattr(clean_objective, name)(case.params.ravel()).tobytes()
    assert objective.flat(dirty.ravel())[0] == clean_objective.flat(case.params.ravel())[0]


@pytest.mark.parametrize("loss", SQUARES)
def test_targets_of_weight_zero_are_left_out_exactly(loss: LossName) -> None:
    case = drawn(loss=loss)
    other = case._replace(y=np.where(np.isnan(case.y), 1e300, case.y))
    assert case.engine()[0] == other.engine()[0]
    assert_identical(case.engine()[1], other.engine()[1])
    counted = case.y.copy()
    counted[0, 0, 0] = np.nan
    value, g = case._replace(y=counted).engine()
    assert np.isnan(value)
    assert np.isnan(g.W_hh).any()  # type: ignore[arg-type]  # it is there


@pytest.mark.parametrize("dtype", SCALARS)
def test_no_bit_depends_on_threads_or_layout(dtype: Scalar) -> None:
    case = drawn(dtype, sizes=(700, 9, 3, 17, 3), steps=("lengths",))
    loss, expected = case.engine(num_threads=1)
    w = case.options["weights"]
    turned = case.options | {"weights": np.asfortranarray(w)}
    masked = turned | {"mask": np.asfortranarray(w > 0)}
    for other, threads in (
        (case, 2),
        (case, 4),
        (case._replace(options=turned), 2),
        (case._replace(options=masked), 2),
    ):
        value, actual = other.engine(num_threads=threads)
        assert value == loss
        assert_identical(actual, expected)


@pytest.mark.parametrize("steps", [(), ("weights", "lengths", "mask")])
def test_reports_leave_nan_targets_out(steps: tuple[str, ...]) -> None:
    case = build(np.random.default_rng(4), np.float64, SIZES, steps=steps)
    missing = np.random.default_rng(5).uniform(size=case.y.shape) < 0.3
    missing[-3:] = True
    y = np.where(missing, np.nan, case.y)
    given = case.options.get("weights", np.ones(SIZES[:2]))
    weighed = case.options | {"weights": np.where(missing, 0, given[..., np.newaxis])}
    known = np.ones(SIZES[:2], bool) if not steps else np.greater(given, 0) & case.options["mask"]
    if steps:
        known = known & (np.arange(SIZES[0])[:, np.newaxis] < case.options["lengths"])
    count = int((missing & known[..., np.newaxis]).sum())
    _, g = rnnbptt.loss_and_grad(case.params, case.x, case.y, **weighed)
    flow = rnnbptt.gradient_flow(case.params, case.x, y, **case.options)
    same = rnnbptt.gradient_flow(case.params, case.x, case.y, **weighed)
    assert flow.log2_gradient_norm == pytest.approx(np.log2(np.linalg.norm(np.asarray(g.W_hh))), abs=1e-11)
    np.testing.assert_array_equal(flow.shares, same.shares)
    np.testing.assert_array_equal(flow.log2_lag_norms, same.log2_lag_norms)
    assert (flow.missing, same.missing) == (count, 0)
    costs = rnnbptt.truncation_report(case.params, case.x, y, **case.options)
    np.testing.assert_array_equal(
        costs.bias, rnnbptt.truncation_report(case.params, case.x, case.y, **weighed).bias
    )
    assert costs.missing == count
    for report in (flow, costs):
        assert f"{count} targets are NaN: missing, and left out." in " ".join(str(report).split())
        assert report.to_dict()["missing"] == count
    assert "NaN" not in str(same)


@pytest.mark.parametrize("loss", [name for name in LOSSES if name not in SQUARES])
def test_other_losses_say_which_ones_take_them(loss: LossName) -> None:
    case = build(np.random.default_rng(6), np.float64, SIZES, loss=loss)
    ones = np.ones((*SIZES[:2], SIZES[4]))
    for options in ({"weights": ones}, {"mask": ones > 0}):
        for call in (
            rnnbptt.loss_and_grad,
            reference.loss_and_grad,
            rnnbptt.gradient_flow,
            rnnbptt.truncation_report,
            lambda params, x, y, **o: Objective(x, y, like=params, **o),
            lambda params, x, y, **o: rnnbptt.hvp(params, x, y, Gradients(W_hh=params.W_hh), **o),
        ):
            with pytest.raises(ValueError, match=r"one entry for each step.*outputs are for 'mse'"):
                call(case.params, case.x, case.y, loss=loss, **options)
