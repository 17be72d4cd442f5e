"""Pictures and tables of reports show what can be read: of every kind of problem, long or short."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from rnnbptt.reports.showing import ROUNDING, number, power_of_two, ratio, shown, side_of_1
from speed import thinned

Array = NDArray[Any]
Q = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))[0]


class Case(NamedTuple):
    """A matrix, a number of steps and of outputs, and whether only the last loss counts."""

    W: Array
    T: int = 1000
    q: int = 1
    last: bool = False


def scaled(radius: float) -> Array:
    return rnnbptt.Params.random(1, 6, 1, spectral_radius=radius, rng=0).W_hh


CASES = {
    "vanishing": Case(scaled(0.5)),
    "vanishing fast": Case(scaled(0.05)),
    "vanishing, last loss": Case(scaled(0.5), last=True),
    "slow": Case(scaled(0.999), T=20_000),
    "exploding": Case(scaled(1.2)),
    "exploding, last loss": Case(scaled(1.2), last=True),
    "radius 1": Case(Q),
    "radius 1.00033": Case(1.00033 * Q),
    "detour": Case(0.9 * np.eye(4) + 2 * np.eye(4, k=1)),
    "nilpotent": Case(np.eye(5, k=1)),
    "rank one": Case(np.outer(np.arange(1.0, 5), np.ones(4)) / 12),
    "five steps": Case(scaled(0.8), T=5),
    "one step": Case(scaled(0.8), T=1),
    "many outputs": Case(scaled(0.9), T=200, q=20),
    "no gradient": Case(np.zeros((2, 2)), T=5),
}
NAMES = thinned(CASES, 2)


@cache
def reports(name: str) -> tuple[Any, Any, Any]:
    case = CASES[name]
    rng = np.random.default_rng(0)
    h = len(case.W)
    params = rnnbptt.Params(rng.standard_normal((h, 2)), case.W, rng.standard_normal((case.q, h)))
    x = rng.standard_normal((case.T, 2))
    y: Array = rng.standard_normal((case.T, case.q))
    if name == "no gradient":
        y = rnnbptt.forward(params, x).o
    mask = np.arange(case.T) == case.T - 1 if case.last else None
    return (
        rnnbptt.spectral_report(case.W),
        rnnbptt.gradient_flow(params, x, y, mask=mask),
        rnnbptt.truncation_report(params, x, y, mask=mask, draws=2),
    )


def legend(axes: Any) -> str:
    return " ".join(text.get_text() for text in axes.get_legend().get_texts())


@pytest.mark.parametrize("name", NAMES)
def test_what_truncation_loses_is_drawn_where_it_can_be_read(name: str) -> None:
    report = reports(name)[2]
    axes = report.plot().axes[0]
    if not axes.lines:
        assert "nothing is lost" in axes.texts[0].get_text() or "gradient is zero" in axes.texts[0].get_text()
        return
    low, high = axes.get_ylim()
    assert low >= ROUNDING
    assert high <= 1e4
    assert high / low <= 1e19
    drawn = np.concatenate([line.get_ydata() for line in axes.lines])
    assert low <= max(drawn.min(), ROUNDING)  # and follows the data
    assert low >= min(drawn.min() / 2, 1e-2)
    assert all(float(label.get_text()) % 1 == 0 for label in axes.get_xticklabels())


@pytest.mark.parametrize("name", NAMES)
def test_axes_of_lags_follow_the_data(name: str) -> None:
    figure = reports(name)[1].plot()
    figure.canvas.draw()
    axes = figure.axes[1]
    low, high = axes.get_ylim()
    curves = [line for line in axes.lines if not line.get_label().startswith("below")]
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in curves])
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size:
        assert low <= drawn.min()
        assert drawn.max() <= high
        assert high - low <= max(1.2 * np.ptp(drawn), 1.0 + 1e-9)
        curve = np.asarray(axes.lines[0].get_ydata(), float)
        assert np.nanmin(curve) > -52 or np.nanmax(curve) - np.nanmin(curve) < 70  # what is rounding of lag 0
    for axes in figure.axes:
        assert all(tick % 1 == 0 for tick in axes.get_xticks())


def test_a_radius_is_written_with_the_side_of_1_on_which_it_lies() -> None:
    spectrum, flow, _ = reports("radius 1.00033")
    for axes in (spectrum.plot().axes[1], flow.plot().axes[1]):
        assert "= 1.0003" in legend(axes)
    for radius, text in ((1.00033, "1.0003"), (1 + 3e-7, "1+3e-07"), (1 - 2e-9, "1-2e-09"), (1.0, "1")):
        assert side_of_1(radius) == text
        label = legend(rnnbptt.spectral_report(radius * Q).plot().axes[1])
        assert f"= {text}: " in label


@pytest.mark.parametrize("name", NAMES)
def test_curves_of_norms_are_dense_where_they_start(name: str) -> None:
    report = reports(name)[0]
    lags = report.lags
    assert lags[:9].tolist() == list(range(min(9, len(lags))))
    assert np.all(np.diff(lags) > 0)
    later = lags[lags >= 8]
    assert np.all(later[1:] <= 1.5 * later[:-1] + 1)
    assert len(lags) < 80
    if report.transient_lag is not None and 0 < report.transient_lag <= 8:
        assert report.log2_norms.max() == pytest.approx(report.log2_transient_growth, abs=1e-9)


# --- print --------------------------------------------------------------------------------------------------


def test_numbers_have_one_form() -> None:
    for value, text in (
        (0.0, "0"), (1.0, "1"), (0.001, "0.001"), (12345.6, "12346"), (1e5, "1.00e+05"),
        (-2.5e-7, "-2.50e-07"), (1.234e-12, "1.23e-12"), (9.999e-4, "1.00e-03"),
        (5e-324, "4.94e-324"), (np.inf, "inf"),
    ):  # fmt: skip
        assert number(value) == text
        assert len(text) <= 12
    for exponent, text in ((-20_000.0, "2.51e-6021"), (4.0, "16"), (-40.0, "9.09e-13"), (-np.inf, "0")):
        assert power_of_two(exponent) == text
    for exponent in np.linspace(-1022, 1023, 400):  # in range and beyond it alike
        beyond = power_of_two(float(exponent) + 4000)
        assert re.fullmatch(r"\d\.\d\de[+-]\d+", beyond)
        assert power_of_two(float(exponent)) == number(2.0**exponent)
    assert ratio(-60.0) == "<1e-15"
    assert ratio(-np.inf) == "0"
    assert ratio(-10.0) == "9.77e-04"


@pytest.mark.parametrize("name", NAMES)
def test_tables_say_what_is_below_rounding(name: str) -> None:
    for report in reports(name):
        text = str(report)
        assert all(len(line) <= 80 for line in text.splitlines())
        for found in re.findall(r"\d(e[+-]\d+)", text):
            assert re.fullmatch(r"e[+-]\d\d+", found)
        assert "nan" not in text
    spectrum, flow, truncation = map(str, reports(name))
    for found in re.findall(r"[\d.]+e-\d+", truncation.replace("<1e-15", "")):
        assert float(found) >= ROUNDING
    rows = [
        line.split() for line in flow.splitlines() if re.match(r" +\d+ ", line) and "rounding" not in line
    ]
    for row in rows:
        if len(row) >= 3 and not row[2].startswith("<"):
            assert row[2] == "0" or row[2] == "-" or float(row[2]) >= ROUNDING
    assert len(rows) >= min(CASES[name].T, 2)
    assert not re.search(r"e-1[6-9]|e-[2-9]\d|e\+1[6-9]", spectrum)


def test_rows_are_dense_where_something_is_to_be_seen() -> None:
    flow = str(reports("vanishing")[1])
    lags = [int(line.split()[0]) for line in flow.splitlines() if re.match(r" +\d+ ", line)]
    assert lags[:4] == [0, 1, 2, 3]
    assert sum(lag < 60 for lag in lags) >= 10  # 0.5^50 is rounding
    assert "below rounding: less than 1e-15 of lag 0" in flow
    assert "nothing arrives" in str(reports("nilpotent")[1])
    assert shown(5) == [0, 1, 2, 3, 4]


def test_one_block_of_all_steps_loses_nothing() -> None:
    for name in ("vanishing", "radius 1.00033", "five steps"):
        report = reports(name)[2]
        assert report.grid[-1] == CASES[name].T
        assert (report.chunked_bias[-1], report.chunked_cosine[-1]) == (0, 1)
        assert (report.chunked_bias[:-1] > 0).all()
