"""The spectral report: right about the long run, about the way there, and in words."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from rnnbptt.reports.spectrum import SpectralReport, spectral_report

Array = NDArray[Any]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "spectral-report.md"


class Case(NamedTuple):
    W: Array
    growth: str
    radius: float
    #: What the verdict must say, and must not.
    says: str
    never: str


def jordan(eigenvalue: float, size: int) -> Array:
    return eigenvalue * np.eye(size) + np.eye(size, k=1)


def rotated(W: Array, seed: int = 0) -> Array:
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal(W.shape))[0]
    rotated: Array = Q @ W @ Q.T
    return rotated


def disguised(W: Array, seed: int = 0) -> Array:
    """Return a dense integer matrix similar to the integer matrix W, exactly."""
    rng, m = np.random.default_rng(seed), len(W)
    P = (np.tril(rng.integers(-1, 2, (m, m)), -1) + np.eye(m)) @ (
        np.triu(rng.integers(-1, 2, (m, m)), 1) + np.eye(m)
    )
    result: Array = P @ W @ np.round(np.linalg.inv(P))
    return result


def symmetric(radius: float) -> Array:
    return rnnbptt.Params.random(1, 6, 1, kind="symmetric", spectral_radius=radius, rng=1).W_hh


def orthogonal(dtype: Any = np.float64) -> Array:
    return rnnbptt.Params.random(1, 6, 1, kind="orthogonal", spectral_radius=1, rng=1, dtype=dtype).W_hh


def detour() -> Array:
    """Return a strongly non-normal matrix: radius 1/2, norms of powers beyond 10^3."""
    W: Array = 0.5 * np.eye(6) + 8 * np.triu(np.random.default_rng(0).standard_normal((6, 6)), 1)
    return W


def oblique_rotation() -> Array:
    """Return a rotation seen in a skewed basis: bounded, but not by 1."""
    P = np.array([[1.0, 1.0], [0.0, 1e-3]])
    return np.asarray(P @ np.array([[0.6, -0.8], [0.8, 0.6]]) @ np.linalg.inv(P))


VANISH, EXPLODE, STAY, GROW = (
    "Gradients vanish in",
    "Gradients explode",
    "neither vanish",
    "not exponentially",
)
NORMAL = "all there is to it, for W_hh is normal"
CASES = {
    "symmetric below 1": Case(symmetric(0.9), "decaying", 0.9, f"{VANISH}.*{NORMAL}", "not normal"),
    "symmetric at 1": Case(symmetric(1), "bounded", 1, f"{STAY}.*{NORMAL}", "orthogonal"),
    "symmetric above 1": Case(symmetric(1.1), "growing", 1.1, f"{EXPLODE}.*{NORMAL}", "not normal"),
    "slow": Case(
        symmetric(1 - 1e-9), "decaying", 1 - 1e-9, f"{VANISH}.*radius 1-1e-09 is below 1", "not normal"
    ),
    "normal, complex": Case(0.8 * orthogonal(), "decaying", 0.8, f"{VANISH}.*{NORMAL}", "not normal"),
    "orthogonal": Case(orthogonal(), "bounded", 1, "orthogonal to rounding and keeps", "not normal"),
    "orthogonal, float32": Case(orthogonal(np.float32), "bounded", 1, "keeps the length", "not normal"),
    "identity": Case(np.eye(4), "bounded", 1, "keeps the length", "not normal"),
    "projection": Case(np.diag([1.0, 0.0]), "bounded", 1, "Components along", "orthogonal"),
    "Gaussian": Case(rnnbptt.Params.random(1, 8, 1, rng=0).W_hh, "decaying", 0.95, VANISH, EXPLODE),
    "float32": Case(
        rnnbptt.Params.random(1, 20, 1, spectral_radius=1.2, rng=0, dtype=np.float32).W_hh,
        "growing",
        1.2,
        EXPLODE,
        NORMAL,
    ),
    "Jordan block at 0.9": Case(jordan(0.9, 5), "decaying", 0.9, f"{VANISH}.*first grow", "all there is"),
    "large Jordan block at 0.9": Case(jordan(0.9, 20), "decaying", 0.9, f"{VANISH}.*first grow", EXPLODE),
    "large Jordan block at 1.1": Case(jordan(1.1, 20), "growing", 1.1, EXPLODE, "Rounding decides"),
    "non-normal": Case(detour(), "decaying", 0.5, f"{VANISH}.*first grow 2863.*9 steps", "all there is"),
    "non-normal, dense": Case(rotated(detour()), "decaying", 0.5, f"{VANISH}.*first grow", "all there is"),
    "nilpotent": Case(np.eye(4, k=1), "nilpotent", 0, "nilpotent, and nothing reaches back 4 steps", VANISH),
    "nilpotent, dense": Case(
        disguised(np.eye(5, k=1)), "nilpotent", 0, "nothing reaches back 5.*first grow", VANISH
    ),
    "zero": Case(np.zeros((3, 3)), "nilpotent", 0, "nothing reaches back 1 step or", "grow"),
    "1 x 1 below 1": Case(np.array([[-0.5]]), "decaying", 0.5, f"{VANISH}.*1.44 steps", "not normal"),
    "1 x 1 at 1": Case(np.array([[-1.0]]), "bounded", 1, "keeps the length", "not normal"),
    "1 x 1 above 1": Case(np.array([[2.0]]), "growing", 2, f"{EXPLODE}.*1 lies outside", "not normal"),
    "defective at 1": Case(jordan(1, 3), "polynomial", 1, rf"{GROW}.*k\^2\.", EXPLODE),
    "defective at 1, dense": Case(disguised(jordan(1, 5)), "polynomial", 1, rf"{GROW}.*k\^4\.", EXPLODE),
    "defective pair at 1": Case(
        disguised(np.diag([1.0, 1, 0, 0]) + np.diag([1.0, 0, 0], 1), 3),
        "polynomial",
        1,
        rf"{GROW}.*k\^1\.",
        EXPLODE,
    ),
    "large Jordan block at 1": Case(jordan(1, 20), "polynomial", 1, rf"{GROW}.*k\^19\.", EXPLODE),
    "oblique rotation": Case(oblique_rotation(), "bounded", 1, "stay, those.*first grow 1999", EXPLODE),
    "beyond telling": Case(rotated(jordan(0.9, 20)), "undecided", 0.9, "Rounding decides", VANISH),
    "blocks": Case(
        np.block([[jordan(0.9, 3), np.ones((3, 2))], [np.zeros((2, 3)), np.array([[1.0, 2], [3, 4]])]]),
        "growing",
        5.372281323,
        EXPLODE,
        VANISH,
    ),
    "huge": Case(1e300 * symmetric(1), "growing", 1e300, EXPLODE, "nan"),
    "largest": Case(np.full((2, 2), np.finfo(np.float64).max / 4), "growing", 8.99e307, EXPLODE, "nan"),
    "tiny": Case(1e-300 * symmetric(1), "decaying", 1e-300, VANISH, "nan"),
    "smallest": Case(5e-324 * np.eye(2), "decaying", 5e-324, VANISH, "nan"),
}


@pytest.fixture(scope="module")
def reports() -> dict[str, SpectralReport]:
    return {name: spectral_report(case.W) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str, reports: dict[str, SpectralReport]) -> None:
    case, report = CASES[name], reports[name]
    assert report.growth == case.growth
    assert re.search(case.says, report.verdict), report.verdict
    assert not re.search(case.never, report.verdict), report.verdict
    low, high = report.spectral_radius_bounds
    assert low <= case.radius * (1 + 1e-3)
    assert high >= case.radius * (1 - 1e-3)
    if case.growth != "undecided":  # eigenvalues of defective matrices are known to few digits
        dense = name in ("non-normal, dense",)
        assert report.spectral_radius == pytest.approx(case.radius, rel=0.05 if dense else 1e-3, abs=0)


@pytest.mark.parametrize("name", CASES)
def test_table_fits_eighty_columns(name: str, reports: dict[str, SpectralReport]) -> None:
    text = str(reports[name])
    assert max(map(len, text.splitlines())) <= 80, text
    assert "nan" not in text


@pytest.mark.parametrize("name", CASES)
def test_dict_is_strict_json(name: str, reports: dict[str, SpectralReport]) -> None:
    report = reports[name]
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["growth"] == report.growth
    assert float(values["transient_growth"]) == report.transient_growth
    assert [complex(*pair) for pair in values["eigenvalues"]] == report.eigenvalues.tolist()
    assert [float(v) for v in values["log2_norms"]] == report.log2_norms.tolist()


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.growth in ("decaying", "nilpotent")])
def test_largest_norm_is_that_of_every_power(name: str, reports: dict[str, SpectralReport]) -> None:
    W, report = CASES[name].W, reports[name]
    norms = rnnbptt.power_norms(W, range(400))
    assert report.log2_transient_growth == pytest.approx(norms.max(), abs=1e-9)
    assert report.transient_lag is not None
    assert norms[report.transient_lag] == pytest.approx(norms.max(), abs=1e-9)
    assert report.contraction_lag is not None
    assert np.all(norms[report.contraction_lag :] <= 1e-9)
    # The Kreiss matrix theorem, K <= max ||W^k|| <= e h K, with a K that is close to the truth.
    assert 1 <= report.kreiss_lower_bound <= report.transient_growth * (1 + 1e-9)
    assert report.transient_growth <= math.e * len(W) * report.kreiss_lower_bound * 1.01


def test_a_late_peak_is_found_exactly() -> None:
    W = jordan(0.99, 3)  # largest near k = 200, where powers are no longer all looked at
    norms = rnnbptt.power_norms(W, range(1000))
    assert spectral_report(W).transient_lag == np.argmax(norms)


@pytest.mark.parametrize("seed", range(4))
def test_searches_reach_what_a_fine_grid_reaches(seed: int) -> None:
    W = rnnbptt.Params.random(1, 5, 1, spectral_radius=0.9, rng=seed).W_hh + 2 * np.eye(5, k=2)
    W = 0.9 * W / np.abs(np.linalg.eigvals(W)).max()
    report = spectral_report(W)

    def smallest(z: Array) -> Array:
        shifted = z[..., None, None] * np.eye(5) - W
        return np.asarray(np.linalg.svd(shifted, compute_uv=False)[..., -1])

    turn = np.exp(1j * np.linspace(0, np.pi, 500))
    assert report.stability_distance <= smallest(turn).min() * (1 + 1e-3)
    assert report.stability_distance >= smallest(turn).min() * (1 - 1e-2)
    excess = np.geomspace(1e-3, 10, 60)[:, None]
    assert report.kreiss_lower_bound >= (excess / smallest((1 + excess) * turn)).max() * (1 - 1e-2)


def test_defective_matrix_at_one_is_not_judged_by_its_eigenvalues() -> None:
    W = disguised(jordan(1, 5))
    assert np.abs(np.linalg.eigvals(W)).max() > 1 + 1e-5  # the eigenvalue rule would say: explodes
    report = spectral_report(W)
    assert report.spectral_radius == 1
    assert report.growth_degree == pytest.approx(4, abs=0.2)
    assert report.transient_lag is None
    assert report.transient_growth == report.kreiss_lower_bound == math.inf


def test_growth_rate_comes_from_powers_not_from_eigenvalues() -> None:
    for eigenvalue in (0.9, 1.1):
        report = spectral_report(jordan(eigenvalue, 8))
        assert report.growth_rate == pytest.approx(eigenvalue, rel=1e-6)
        assert report.spectral_radius_bounds == (eigenvalue, eigenvalue)


def test_decay_times_and_periods() -> None:
    c, s = math.cos(2 * math.pi / 11), math.sin(2 * math.pi / 11)
    W = np.zeros((6, 6))
    W[:2, :2] = 0.5 * np.array([[c, -s], [s, c]])
    W[2:, 2:] = np.diag([2.0, -1.0, 0.25, 0.0])
    report = spectral_report(W)
    np.testing.assert_allclose(np.abs(report.eigenvalues), [2, 1, 0.5, 0.5, 0.25, 0], atol=1e-15)
    half = 1 / math.log(2)
    np.testing.assert_allclose(report.decay_times, [-half, math.inf, half, half, half / 2, 0])
    np.testing.assert_allclose(report.periods, [math.inf, 2, 11, 11, math.inf, math.inf])
    np.testing.assert_allclose(report.unit_circle_distances, [-1, 0, 0.5, 0.5, 0.75, 1], atol=1e-15)
    assert report.eigenvalues[2] == np.conj(report.eigenvalues[3])


def test_normality() -> None:
    a = 3.0
    report = spectral_report([[0.5, a], [0.0, -0.5]])
    assert report.departure_from_normality == pytest.approx(a)
    vectors = np.array([[1, -a / math.hypot(1, a)], [0, 1 / math.hypot(1, a)]])
    assert report.eigenvector_condition == pytest.approx(np.linalg.cond(vectors))
    for W in (symmetric(3), orthogonal(), np.eye(3)):
        report = spectral_report(W)
        assert report.departure_from_normality == 0
        assert report.eigenvector_condition == 1


def test_singular_value_rule_is_stated_as_what_it_is() -> None:
    assert "sufficient for vanishing" in spectral_report([[0.5]]).singular_value_verdict
    assert "necessary for exploding, not sufficient" in spectral_report(detour()).singular_value_verdict
    assert spectral_report(orthogonal()).singular_value_verdict.startswith("= 1")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_matrix_that_is_not_finite(bad: float) -> None:
    W = np.eye(3)
    W[1, 2] = bad
    with pytest.raises(ValueError, match=rf"W_hh must be finite, not {bad} at \[1, 2\]"):
        spectral_report(W)


@pytest.mark.parametrize(
    ("W", "error", "message"),
    [
        ([[1.0, 2.0]], ValueError, "W_hh must be a square matrix"),
        ([[1j]], TypeError, "W_hh must be an array of real numbers"),
        (np.zeros((0, 0)), ValueError, "W_hh must be a square matrix of size at least 1"),
    ],
)
def test_bad_arguments_are_named(W: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        spectral_report(W)


def test_input_is_not_written_and_threads_change_nothing() -> None:
    W = rnnbptt.Params.random(1, 40, 1, rng=3).W_hh
    copy = W.copy()
    one, two = (spectral_report(W, num_threads=n).to_dict() for n in (1, 2))
    np.testing.assert_array_equal(W, copy)
    assert one == two


@pytest.mark.parametrize("name", CASES)
def test_picture(name: str, reports: dict[str, SpectralReport]) -> None:
    figure = reports[name].plot()
    figure.canvas.draw()
    eigenvalues, norms = figure.axes
    for axes in (eigenvalues, norms):
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert axes.get_legend() is not None
    assert sum(len(c.get_offsets()) for c in eigenvalues.collections) == len(CASES[name].W)


def test_picture_in_given_axes() -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots(2, 2)
    assert spectral_report(detour()).plot(axes[1]) is figure
    assert not axes[0, 0].has_data()
    assert axes[1, 1].has_data()
    with pytest.raises(ValueError, match="axes must be 2"):
        spectral_report(detour()).plot(axes[1, :1])


def test_picture_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'rnnbptt\[plot\]'"):
        spectral_report(detour()).plot()


def test_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["python", "text", "python", "text"]
    shared: dict[str, Any] = {}
    for (_, code), (_, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        exec(compile(code, PAGE.name, "exec"), shared)
        assert capsys.readouterr().out == expected
