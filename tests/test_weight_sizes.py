"""Weights of any size: only their ratios count, and an objective knows their sum beyond float64."""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import LOSSES, SCALARS, Array, Case, Scalar, assert_identical, assert_same, build
from rnnbptt import Chunked, Objective, Randomized, Sliding, reference
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from tolerances import FORMS, gradient_bound, relative_error

SIZES = (20, 3, 2, 5, 3)


def sizes_of(dtype: Scalar) -> list[float]:
    """The smallest and the largest numbers there are, and some between."""
    info = np.finfo(dtype)
    top, tiny, least = float(info.max), float(info.smallest_normal), float(info.smallest_subnormal)
    return [least, 3 * least, tiny / 8, 1e-30, 1.0, 3e37, top / 4, top]


def case_of(dtype: Scalar, loss: LossName, by_output: bool = False) -> Case:
    case = build(np.random.default_rng(1), dtype, SIZES, loss=loss, steps=("lengths",))
    shape = case.y.shape if by_output else SIZES[:2]
    return case._replace(options=case.options | {"weights": np.ones(shape, dtype)})


def weighed(case: Case, weights: Array) -> Case:
    return case._replace(options=case.options | {"weights": weights})


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("loss", LOSSES)
def test_equal_weights_of_every_size_are_none_at_all(loss: LossName, dtype: Scalar) -> None:
    for by_output in (False, True) if isinstance(losses.LOSSES[loss], losses.SumOfSquares) else (False,):
        case = case_of(dtype, loss, by_output)
        plain = {name: value for name, value in case.options.items() if name != "weights"}
        bare = Case(case.params, case.x, case.y, plain)
        bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
        for size in sizes_of(dtype):
            other = weighed(case, np.full_like(case.options["weights"], size))
            for solve in ("engine", "sequential", "oracle"):
                value, g = getattr(other, solve)()
                loss_, expected = getattr(bare, solve)()
                assert value == pytest.approx(loss_, rel=bound)
                assert_same(g, expected, bound)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_power_of_two_changes_no_bit_of_anything(loss: LossName) -> None:
    case = build(np.random.default_rng(2), np.float64, SIZES, loss=loss, steps=("weights", "mask", "lengths"))

    def everything(weights: Array) -> list[Array]:
        options: dict[str, Any] = case.options | {"weights": weights}
        params, x, y = case.params, case.x, case.y
        theta = params.ravel()
        results: list[Any] = []
        truncations = (None, Sliding(3), Chunked(4), Randomized(3, rng=0))
        for module in (rnnbptt, reference):
            for truncate in copy.deepcopy(truncations):
                value, g = module.loss_and_grad(params, x, y, wrt=case.wrt, truncate=truncate, **options)
                results += [np.array(value), *(array for _, array in g.items())]
            results += [array for _, array in module.hvp(params, x, y, params, **options).items()]
        objective = Objective(x, y, like=params, **options)
        results += [objective.hessp(theta, theta), *objective.gauss_newton(theta)]
        if isinstance(losses.LOSSES[loss], losses.SumOfSquares):
            results += [objective.residuals(theta), objective.jac(theta)]
        flow = rnnbptt.gradient_flow(params, x, y, **options)
        costs = rnnbptt.truncation_report(params, x, y, **options)
        results += [flow.log2_state_gradients, flow.shares, costs.bias, costs.chunked_bias]
        return [np.asarray(result) for result in results]

    weights = case.options["weights"]
    expected = everything(weights)
    for exponent in (-1020, -100, 100, 1020):
        with np.errstate(all="raise"):
            actual = everything(np.ldexp(weights, exponent))
        for a, e in zip(actual, expected, strict=True):
            assert a.tobytes() == e.tobytes()


@pytest.mark.parametrize("dtype", SCALARS)
def test_sizes_of_all_kinds_beside_each_other(dtype: Scalar) -> None:
    case = case_of(dtype, "mse")
    rng = np.random.default_rng(3)
    bound = gradient_bound(dtype, SIZES[3], SIZES[0], 0.9)
    all_sizes = sizes_of(dtype)
    for _ in range(20):
        chosen = rng.choice(all_sizes, size=int(rng.integers(1, len(all_sizes) + 1)))
        w = rng.choice(chosen, SIZES[:2]).astype(dtype)
        other = weighed(case, w)
        # By hand: shares in long double, whose exponents reach far beyond both ends.
        running = np.arange(SIZES[0])[:, np.newaxis] < case.options["lengths"]
        wide = np.where(running, w.astype(np.longdouble), 0)
        share = wide / wide.sum()
        o = rnnbptt.reference.forward(other.wide().params, other.wide().x, other.wide().options["h0"]).o
        exact = np.sum(share * np.mean((o - case.y) ** 2, axis=2))
        d_o = (share[..., np.newaxis] * 2 / SIZES[4] * (o - case.y)).astype(np.float64)
        expected = reference.vjp(
            other.wide().params,
            other.wide().x,
            d_o,
            other.wide().options["h0"],
            lengths=case.options["lengths"],
            wrt=case.wrt,
        )
        value, g = other.engine()
        assert value == pytest.approx(float(exact), rel=bound)
        for name, gradient in g.items():
            assert relative_error(gradient, getattr(expected, name)) <= bound


@pytest.mark.parametrize("by_output", [False, True])
def test_a_weight_that_vanishes_beside_another_still_counts(by_output: bool) -> None:
    case = case_of(np.float64, "mse", by_output)
    w = case.options["weights"] * 1.7e308
    w[3, 0] = 5e-324
    y = case.y.copy()
    assert np.isfinite(weighed(case, w).engine()[0])
    y[3, 0] = np.nan
    assert np.isnan(weighed(case, w)._replace(y=y).engine()[0])
    assert np.isnan(weighed(case, w)._replace(y=y).sequential()[0])
    w[3, 0] = 0
    assert np.isfinite(weighed(case, w)._replace(y=y).engine()[0])


def exact_sum(w: Array) -> Fraction:
    return sum((Fraction(float(value)) for value in w.ravel()), Fraction(0))


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("by_output", [False, True])
def test_the_sum_of_weights_has_a_mantissa_and_an_exponent(by_output: bool, dtype: Scalar) -> None:
    case = case_of(dtype, "mse", by_output)
    rng = np.random.default_rng(4)
    running = np.arange(SIZES[0])[:, np.newaxis] < case.options["lengths"]
    shape = case.options["weights"].shape
    for size in sizes_of(dtype):
        w = (rng.integers(0, 2, shape) * size).astype(dtype)
        objective = Objective(case.x, case.y, like=case.params, **(case.options | {"weights": w}))
        mantissa, exponent = objective.weight_sum
        assert 0.5 <= mantissa < 1
        used = w * (running[..., np.newaxis] if by_output else running)
        expected = exact_sum(used) / (shape[2] if by_output else 1)
        assert abs(Fraction(mantissa) * Fraction(2) ** exponent / expected - 1) < 1e-14


def test_the_sum_where_there_are_no_weights() -> None:
    case = build(np.random.default_rng(5), np.float64, SIZES)
    for options, expected in (
        ({}, 60),
        ({"lengths": [20, 0, 3]}, 23),
        ({"mask": np.eye(20, 3, dtype=bool)}, 3),
        ({"lengths": [0, 0, 0]}, 0),
        ({"weights": np.zeros((20, 3))}, 0),
    ):
        objective = Objective(case.x, case.y, like=case.params, **options)
        assert objective.weight_sum == math.frexp(expected)
    objective = Objective(case.x, case.y)
    with pytest.raises(ValueError, match="like must be given"):
        _ = objective.weight_sum
    objective(case.params)
    assert objective.weight_sum == math.frexp(60)


@pytest.mark.parametrize("size", [1.0, 1e-310, 1e308])
def test_parts_of_a_data_set_add_up(size: float) -> None:
    case = build(np.random.default_rng(6), np.float64, (20, 6, 2, 5, 3), h0=False, steps=("lengths",))
    w = np.random.default_rng(7).uniform(0, 1.7, (20, 6)) * size
    parts = [slice(0, 2), slice(2, 3), slice(3, 6)]
    options: dict[str, Any] = {"lengths": case.options["lengths"], "weights": w}

    def objective(part: slice) -> Objective:
        own = {name: value[part] if name == "lengths" else value[:, part] for name, value in options.items()}
        return Objective(case.x[:, part], case.y[:, part], like=case.params, **own)

    whole = objective(slice(None))
    theta = case.params.ravel()
    total, sums = np.zeros(1 + theta.size), [objective(part).weight_sum for part in parts]
    top = max(exponent for _, exponent in sums)
    shares = np.array([math.ldexp(mantissa, exponent - top) for mantissa, exponent in sums])
    for part, share in zip(parts, shares / shares.sum(), strict=True):
        loss, gradient = objective(part).flat(theta)
        total += share * np.concatenate([[loss], gradient])
    loss, gradient = whole.flat(theta)
    assert relative_error(total, np.concatenate([[loss], gradient])) <= FORMS


def test_weights_are_not_written_to() -> None:
    case = case_of(np.float64, "mse")
    w = np.full(SIZES[:2], 1e308)
    before = w.copy()
    w.setflags(write=False)
    first = weighed(case, w).engine()[1]
    assert w.tobytes() == before.tobytes()
    assert_identical(weighed(case, np.broadcast_to(np.float64(1e308), SIZES[:2])).engine()[1], first)
