"""The demo, piece by piece and as a whole."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt.__main__ import main
from rnnbptt.commands.demo import command, forecasts, spectrum, sunspots
from rnnbptt.commands.output_files import FORMATS, unwritable
from speed import slow

if TYPE_CHECKING:
    from rnnbptt.commands.demo.sunspots import Sunspots


@pytest.fixture(scope="module")
def data() -> Sunspots:
    return sunspots.load()


@pytest.fixture
def demo_extra() -> None:
    for name in command.REQUIRED:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the demo needs {name}: pip install 'rnnbptt[demo]'")
    with command.single_threaded_blas():
        from rnnbptt.commands.demo import story  # noqa: F401


# --- the data -----------------------------------------------------------------------------------------------


def test_the_series_is_309_consecutive_years(data: Sunspots) -> None:
    assert data.year.tolist() == list(range(1700, 2009))
    assert data.number.shape == (309,)
    assert np.isfinite(data.number).all()
    assert data.number.min() == 0  # 1711, 1712 and 1810, in the Maunder and Dalton minima
    assert (
        dict(zip(data.year.tolist(), data.number.tolist(), strict=True))[1957] == data.number.max() == 190.2
    )
    assert data.number.sum() == pytest.approx(15373.4)


def test_targets_are_next_years_numbers(data: Sunspots) -> None:
    np.testing.assert_array_equal(data.x[1:], data.y[:-1])
    np.testing.assert_allclose(data.in_sunspots(data.y[:, 0]), data.number[1:], rtol=1e-12, atol=1e-12)
    assert data.steps_before(1702) == 1


def test_the_scale_knows_nothing_of_the_held_out_years(data: Sunspots) -> None:
    altered = sunspots.Sunspots(data.year, np.where(data.year < sunspots.HELD_OUT_FROM, data.number, 1e6))
    assert altered.scale == data.scale


def test_weights_leave_out_the_first_years(data: Sunspots) -> None:
    weights = data.weights(sunspots.VALIDATION_FROM)
    assert len(weights) == data.steps_before(sunspots.VALIDATION_FROM)
    assert weights.sum() == len(weights) - sunspots.WARM_UP
    assert not weights[: sunspots.WARM_UP].any()


# --- the baselines ------------------------------------------------------------------------------------------


def test_autoregression_recovers_its_own_recurrence() -> None:
    year = np.arange(1700, 2009)
    number = np.empty(309)
    number[:2] = 3.0, 5.0
    for t in range(2, 309):
        number[t] = 1.0 + 1.6 * number[t - 1] - 0.99 * number[t - 2]
    series = sunspots.Sunspots(year, number)
    forecast = forecasts.autoregression(series, 2)
    assert np.isnan(forecast[:1]).all()
    np.testing.assert_allclose(forecast[1:], number[2:], rtol=1e-9, atol=1e-9)


def test_autoregression_is_not_fitted_to_the_held_out_years(data: Sunspots) -> None:
    altered = sunspots.Sunspots(data.year, np.where(data.year < sunspots.HELD_OUT_FROM, data.number, -50.0))
    known = data.target_year < sunspots.HELD_OUT_FROM
    for order in (1, 9):
        np.testing.assert_array_equal(
            forecasts.autoregression(altered, order)[known], forecasts.autoregression(data, order)[known]
        )


def test_persistence_repeats_the_year_before(data: Sunspots) -> None:
    assert data.error(forecasts.persistence(data), 1957, 1957) == pytest.approx(190.2 - 141.7)


def test_a_network_that_passes_its_input_on_is_persistence(data: Sunspots) -> None:
    params = rnnbptt.Params([[1.0]], [[0.0]], [[1.0]])
    np.testing.assert_allclose(
        forecasts.network(params, data), forecasts.persistence(data), rtol=1e-12, atol=1e-12
    )


# --- eigenvalues and gradient flow --------------------------------------------------------------------------


def rotation(period: float, modulus: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    angle = 2 * np.pi / period
    return modulus * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def test_modes_of_a_known_matrix() -> None:
    matrix = np.zeros((4, 4))
    matrix[:2, :2] = rotation(11, 0.95)
    matrix[2, 2], matrix[3, 3] = 0.5, -0.25
    slow, real, negative = spectrum.modes(matrix)
    assert slow.period == pytest.approx(11)
    assert slow.decay_time == pytest.approx(-1 / np.log(0.95))
    assert real.period == np.inf
    assert negative.period == pytest.approx(2)
    assert spectrum.cycle([slow, real, negative]) is slow
    assert spectrum.cycle(spectrum.modes(rotation(8, 0.9))) is None
    assert spectrum.cycle([real]) is None
    assert spectrum.cycle(spectrum.modes(rotation(11, 0.05))) is None
    assert spectrum.Mode(1.01 + 0j).decay_time == np.inf
    assert spectrum.Mode(0j).decay_time == 0


def test_feedback_is_what_a_network_does_with_its_own_forecasts() -> None:
    params = rnnbptt.Params.random(1, 3, 1, rng=0)
    hidden, o = rnnbptt.forward(params, [[1.0]])
    following = rnnbptt.forward(params, o, hidden[0]).hidden[0]
    np.testing.assert_allclose(following, spectrum.feedback(params) @ hidden[0], rtol=1e-12)


def test_gradient_flow_is_a_matrix_power() -> None:
    params = rnnbptt.Params.random(1, 4, 1, rng=0)
    flow = spectrum.gradient_flow(params, 30)
    powers = [np.linalg.matrix_power(params.W_hh.T, k) @ params.W_qh[0] for k in range(31)]
    np.testing.assert_allclose(flow, np.linalg.norm(powers, axis=1) / np.linalg.norm(powers[0]), rtol=1e-12)


def test_memory_horizon() -> None:
    flow = 0.5 ** np.arange(10)
    assert spectrum.memory_horizon(flow) == 7  # 2^-7 < 1 % <= 2^-6
    assert spectrum.memory_horizon(np.ones(10)) is None


# --- training -----------------------------------------------------------------------------------------------


def test_the_penalised_gradient_is_that_of_the_penalised_loss(demo_extra: None, data: Sunspots) -> None:
    from rnnbptt.commands.demo import training

    start = training.random_start(hidden=3, seed=0, number=0)
    descent = training.Descent(data, start, sunspots.VALIDATION_FROM)
    theta = start.ravel()
    direction = np.random.default_rng(0).standard_normal(theta.size)
    step = 1e-6
    above, below = (descent.penalised(theta + s * direction)[0] for s in (step, -step))
    assert (above - below) / (2 * step) == pytest.approx(descent.penalised(theta)[1] @ direction, rel=1e-7)


def test_only_stable_networks_are_kept(demo_extra: None, data: Sunspots) -> None:
    from rnnbptt.commands.demo import training

    # This judge likes networks the better, the less stable they are.
    def reckless(params: rnnbptt.Params) -> float:
        return -spectrum.spectral_radius(params.W_hh)

    for number in range(3):
        start = training.random_start(6, 0, number)
        descent = training.Descent(data, start, sunspots.VALIDATION_FROM, reckless).run(60, lambda: None)
        assert spectrum.spectral_radius(descent.best.W_hh) < 1
    assert spectrum.spectral_radius(np.full((2, 2), np.nan)) == np.inf


# --- the command line ---------------------------------------------------------------------------------------


def test_the_demo_runs_through(
    demo_extra: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    report, noise = capsys.readouterr()
    assert noise == ""  # no progress bar where there is no terminal
    assert max(map(len, report.splitlines())) <= 80
    assert report.isascii()
    picture = tmp_path / "rnnbptt-demo.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [picture]
    assert picture.stat().st_size < 200_000

    rows = dict(re.findall(r"^  (linear RNN|persistence|AR\(\d+\)).* ([\d.]+)$", report, re.M))
    errors = {name: float(value) for name, value in rows.items()}
    assert errors["linear RNN"] < 0.7 * errors["persistence"]
    verdict = re.search(r"In short, it forecasts (.*)\.", " ".join(report.split()))
    assert verdict is not None
    for name in errors.keys() - {"linear RNN", "persistence"}:
        assert name in verdict[1]
    assert "It found the eleven-year cycle" in report
    differences = [float(value) for value in re.findall(r"\d\.\de-\d+$", report, re.M)]
    assert len(differences) == 3
    assert max(differences) < 1e-13


@slow
def test_a_seed_settles_the_network_and_the_picture(demo_extra: None, tmp_path: Path, data: Sunspots) -> None:
    from rnnbptt.commands.demo import picture, training

    done: list[int] = []
    networks = [training.train(data, 4, seed, done.append).params for seed in (1, 1, 2)]
    first, again, other = (params.ravel() for params in networks)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert max(done) == training.TOTAL_ITERATIONS
    for suffix in FORMATS:
        paths = [tmp_path / f"{number}{suffix}" for number in (1, 2)]
        for path, params in zip(paths, networks[:2], strict=True):
            picture.draw(path, params, data, spectrum.gradient_flow(params, 60))
        assert paths[0].read_bytes() == paths[1].read_bytes()


@slow
@pytest.mark.parametrize("hidden", ["1", "10"])
def test_other_sizes_are_reported_as_plainly(
    demo_extra: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    hidden: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--hidden", hidden, "--seed", "3", "-o", "p.svg"]) == 0
    report = capsys.readouterr().out
    assert "the eleven-year cycle" in report
    assert max(map(len, report.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "missing/picture.png"], "cannot write missing/picture.png: No such file or directory"),
        (["--output", "picture.txt"], "--output must end in .png, .pdf, .svg, not 'picture.txt'"),
        (["--output", "directory.png"], "cannot write directory.png: Is a directory"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
        (["--hidden", "0"], "--hidden must lie between 1 and 32, not 0"),
    ],
)
def test_the_demo_refuses_before_it_works(
    demo_extra: None,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory.png").mkdir()
    assert main(["demo", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error == f"rnnbptt demo: error: {message}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["directory.png"]


def test_a_path_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"before")
    assert unwritable(old) is None
    assert unwritable(tmp_path / "new.png") is None
    assert old.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [old]


def test_a_missing_extra_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert main(["demo"]) == 2
    error = capsys.readouterr().err
    assert "the demo needs scipy, which is not installed" in error
    assert "pip install 'rnnbptt[demo]'" in error


@slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_blamed_on_the_right_file(demo_extra: None, tmp_path: Path) -> None:
    full = tmp_path / "full.png"
    full.symlink_to("/dev/full")
    demo = [sys.executable, "-m", "rnnbptt", "demo", "--hidden", "2", "-o"]
    answer = subprocess.run([*demo, str(full)], capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr == f"rnnbptt demo: error: cannot write {full}: No space left on device\n"
    with open("/dev/full", "w") as stdout:
        answer = subprocess.run(
            [*demo, str(tmp_path / "p.png")], stdout=stdout, stderr=subprocess.PIPE, text=True
        )
    assert answer.returncode == 1
    assert answer.stderr == "rnnbptt: error: [Errno 28] No space left on device\n"


def test_an_interrupt_is_quiet(
    demo_extra: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnbptt.commands.demo import training

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert main(["demo", "-o", str(tmp_path / "p.png")]) == 130
    assert capsys.readouterr().err == "\nrnnbptt: interrupted\n"


def test_the_command_line_says_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in (([], 2), (["nonsense"], 2), (["--help"], 0), (["demo", "--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code
        out, error = capsys.readouterr()
        assert "demo" in out + error


def test_the_module_runs_as_a_program() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "rnnbptt", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout == f"rnnbptt {rnnbptt.__version__}\n"
