"""The truncation report: its curves are those of gradients truncated one length at a time."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import Case, build, draw
from rnnbptt.reports.truncation import TruncationReport, truncation_report
from rnnbptt.reports.wide_range.scaled import Real

CURVE = 1e-10
"""What a bias or a cosine may differ from that of a gradient truncated by itself."""


def report_of(case: Case, **more: Any) -> TruncationReport:
    return truncation_report(case.params, case.x, case.y, **(case.options | more))


def looking_back(case: Case, truncate: Any = None) -> Real:
    """Return the engine's gradients by what looks back, as one vector."""
    g = case.engine(truncate=truncate)[1]
    assert g.W_hh is not None
    assert g.W_hx is not None
    return np.concatenate([a.ravel() for a in (g.W_hh, g.W_hx, g.b_h) if a is not None])


def error(one: Real, full: Real) -> float:
    return float(np.linalg.norm(one - full) / np.linalg.norm(full))


def cosine(one: Real, full: Real) -> float:
    return float(one @ full / np.linalg.norm(one) / np.linalg.norm(full))


@pytest.mark.parametrize("radius", [0.5, 0.95, 1.1])
@pytest.mark.parametrize("lags", [25, 60])
def test_curves_are_those_of_gradients_truncated_one_by_one(radius: float, lags: int) -> None:
    case = build(np.random.default_rng(1), np.float64, (60, 2, 2, 5, 2), radius=radius, steps=("lengths",))
    report = report_of(case, lags=lags, draws=0)
    assert report.taus.tolist() == list(range(1, lags + 1))
    full = looking_back(case)
    for tau, bias, cos in zip(report.taus.tolist(), report.bias, report.cosine, strict=True):
        one = looking_back(case, rnnbptt.Sliding(tau))
        assert bias == pytest.approx(error(one, full), abs=CURVE)
        assert cos == pytest.approx(cosine(one, full), abs=CURVE)
    for i, tau in enumerate(report.grid.tolist()):
        one = looking_back(case, rnnbptt.Chunked(tau))
        assert report.chunked_bias[i] == pytest.approx(error(one, full), abs=CURVE)
        assert report.chunked_cosine[i] == pytest.approx(cosine(one, full), abs=CURVE)
    assert report.log2_gradient_norm == pytest.approx(math.log2(np.linalg.norm(full)), abs=1e-10)


@pytest.mark.parametrize("seed", range(9))
def test_any_problem(seed: int) -> None:
    case = draw(seed, steps=30)
    full = looking_back(case)
    if not full.any():
        pytest.skip("a gradient of zero has no bias")
    report = report_of(case, draws=0)
    for tau in {1, len(case.x) // 2, len(case.x)} - {0}:
        one = looking_back(case, rnnbptt.Sliding(tau))
        assert report.bias[tau - 1] == pytest.approx(error(one, full), abs=CURVE)


def test_each_parameter_by_itself() -> None:
    case = build(np.random.default_rng(2), np.float64, (40, 1, 2, 5, 2), radius=0.9)
    report = report_of(case, draws=0)
    assert report.parameters == ("W_hh", "W_hx", "b_h")
    full = case.engine()[1]._asdict()
    for tau in (1, 5, 20):
        one = case.engine(truncate=rnnbptt.Sliding(tau))[1]._asdict()
        for name, logs in report.log2_bias_by_parameter.items():
            assert 2 ** logs[tau - 1] == pytest.approx(
                error(one[name].ravel(), full[name].ravel()), abs=CURVE
            )


def test_small_biases_have_digits_too() -> None:
    # h = 1, a pulse, a loss at the end: the lags contribute the same, and tau of T - 1 are kept.
    T = 50
    x, mask = np.zeros((T, 1)), np.arange(T) == T - 1
    x[0] = 1
    params = rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])
    report = truncation_report(params, x, np.zeros((T, 1)), mask=mask)
    tau = np.arange(1, T)
    np.testing.assert_allclose(2 ** report.log2_bias_by_parameter["W_hh"][:-1], 1 - tau / (T - 1), atol=1e-14)
    assert report.log2_bias[-1] == -math.inf
    # Constant inputs: tails fall like rho^tau, far below rounding of the sum.
    x, y = np.ones((2000, 1)), np.zeros((2000, 1))
    report = truncation_report(params, x, y)
    np.testing.assert_allclose(np.diff(report.log2_bias[100:900]), -1, atol=0.01)
    assert report.log2_bias[-1] < -900


def test_numbers_with_exponents(monkeypatch: pytest.MonkeyPatch) -> None:
    case = build(np.random.default_rng(3), np.float64, (200, 2, 2, 6, 2), radius=1.02)
    plain = report_of(case, lags=50, draws=0)
    monkeypatch.setattr("rnnbptt.reports.wide_range.scaled.tame", lambda rows: False)
    scaled = report_of(case, lags=50, draws=0)
    np.testing.assert_allclose(scaled.log2_bias, plain.log2_bias, atol=1e-9)
    np.testing.assert_allclose(scaled.cosine, plain.cosine, atol=1e-10)
    assert np.isnan(scaled.chunked_bias).all()


def test_far_beyond_float64() -> None:
    T = 2500
    rng = np.random.default_rng(0)
    params = rnnbptt.Params.random(2, 5, 2, spectral_radius=2, rng=3)
    report = truncation_report(params, rng.standard_normal((T, 2)), rng.standard_normal((T, 2)), lags=T)
    assert np.isfinite(report.log2_bias[:-2]).all()
    assert report.log2_gradient_norm > 1.9 * T
    # Every lag below T adds about as much, along one direction: (T - tau) / T is left out.
    np.testing.assert_allclose(report.bias, 1 - report.taus / T, atol=1e-2)


def test_deviation_of_random_cuts() -> None:
    # h = 1, two steps, x = (1, 0): dL/dW_hh has the lag 0 alone, dL/dW_hx lags 0 and 1.
    params = rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])
    x, y = np.array([[1.0], [0.0]]), np.zeros((2, 1))
    report = truncation_report(params, x, y, loss="squared_error", draws=64)
    assert report.grid.tolist() == [1, 2]
    assert report.draws == 64
    # d_o = (1, 1/2) / 2; only w d_o_2 in d_W_hx = d_o_1 + w d_o_2 is at risk, times 0 or 2: off by itself
    full = np.array([0.25, 0.5 + 0.125])
    assert math.isnan(report.randomized_deviation[0])
    assert report.randomized_deviation[1] == pytest.approx(0.125 / np.linalg.norm(full), rel=1e-12)
    again = truncation_report(params, x, y, loss="squared_error", draws=64)
    np.testing.assert_array_equal(again.randomized_deviation, report.randomized_deviation)


def test_choose() -> None:
    case = build(np.random.default_rng(1), np.float64, (64, 2, 2, 5, 2), radius=0.8)
    report = report_of(case)
    for tol in (0.5, 0.1, 1e-3):
        tau = report.choose(tol)
        assert tau is not None
        assert np.all(report.bias[tau - 1 :] < tol)
        assert tau == 1 or report.bias[tau - 2] >= tol
    assert report.choose(1e-3, "chunked") == 64
    blocks = report.choose(0.3, "chunked")
    assert blocks in report.grid
    assert report.choose(1e-9, "randomized") is None
    assert report_of(case, lags=4).choose(1e-3) is None
    with pytest.raises(ValueError, match="method must be one of"):
        report.choose(0.1, "exact")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tol must be finite"):
        report.choose(-1.0)


@pytest.fixture(scope="module")
def reports() -> dict[str, TruncationReport]:
    case = build(np.random.default_rng(9), np.float64, (120, 3, 2, 6, 2), radius=0.9)
    params = rnnbptt.Params.random(1, 3, 1, spectral_radius=2, rng=1)
    ones, one = np.ones((3000, 1)), rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])
    return {
        "usual": report_of(case, lags=50),
        "no draws": report_of(case, draws=0),
        "explodes": truncation_report(params, ones, ones),
        "one step": truncation_report(one, ones[:1], ones[:1]),
        "zero": truncation_report(one, 0 * ones[:5], 0 * ones[:5]),
    }


def test_table_fits_eighty_columns(reports: dict[str, TruncationReport]) -> None:
    for name, report in reports.items():
        text = str(report)
        assert max(map(len, text.splitlines())) <= 80, text
        assert "nan" not in text or name in ("zero", "one step")


def test_dict_is_strict_json(reports: dict[str, TruncationReport]) -> None:
    for report in reports.values():
        values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        np.testing.assert_array_equal([float(v) for v in values["log2_bias"]], report.log2_bias)
        assert set(values["log2_bias_by_parameter"]) == set(report.parameters)


def test_picture(reports: dict[str, TruncationReport]) -> None:
    from matplotlib.figure import Figure

    for report in reports.values():
        figure = report.plot()
        figure.canvas.draw()
        assert figure.axes[0].get_xlabel()
        assert figure.axes[0].get_ylabel()
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert reports["usual"].plot(axes[1]) is figure
    assert not axes[0].has_data()
    assert len(axes[1].lines) == 3


def test_picture_without_matplotlib_names_the_extra(
    reports: dict[str, TruncationReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'rnnbptt\[plot\]'"):
        reports["usual"].plot()


@pytest.mark.parametrize(
    ("options", "error_type", "message"),
    [
        ({"lags": 6}, ValueError, "lags must be at most T = 5"),
        ({"draws": -1}, ValueError, "draws must be at least 0"),
        ({"draws": 1.5}, TypeError, "draws must be an integer"),
        ({"rng": "dice"}, TypeError, "rng must be"),
        ({"x": np.full((5, 1), np.nan)}, ValueError, "x must be finite"),
        ({"params": None}, TypeError, "params must be rnnbptt.Params"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], error_type: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"params": rnnbptt.Params([[1.0]], [[0.5]], [[1.0]])}
    arguments |= {"x": np.ones((5, 1)), "y": np.ones((5, 1))}
    with pytest.raises(error_type, match=message):
        truncation_report(**(arguments | options))
