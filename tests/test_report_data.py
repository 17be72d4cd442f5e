"""`rnnbptt report --data`: as people have them, and what comes out where they asked."""

from __future__ import annotations

import contextlib
import io
import json
import re
import stat
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from fuzz import files
from rnnbptt.__main__ import main
from rnnbptt.commands import output_files, progress
from rnnbptt.commands.report import command
from rnnbptt.engine.losses import LOSSES, MeanSquaredError
from speed import slow

T, h = 40, 3
RNG = np.random.default_rng(0)
PARAMS = rnnbptt.Params.random(1, h, 1, rng=0)
X, Y = RNG.standard_normal((T, 1)), RNG.standard_normal((T, 1))


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("model.npz", W_hx=PARAMS.W_hx, W_hh=PARAMS.W_hh, W_qh=PARAMS.W_qh)


def report(*arguments: str, code: int = 0, **arrays: Any) -> files.Answer:
    """Ask for a report on the model and, if any are given, on data."""
    data = ["--data", "data.npz"] if arrays else []
    np.savez("data.npz", **arrays)
    answer = files.asked(["model.npz", *data, *arguments], traced=False)
    assert answer.code == code, answer
    assert files.wrong(answer._replace(seconds=0)) is None
    return answer


def reports(*arguments: str, **arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the reports, and what is said about the data."""
    found = json.loads(report("--json", *arguments, **arrays).out)
    return found["reports"], found["data"]


# --- what is accepted ---------------------------------------------------------------------------------------


def test_capitals_and_series_without_an_axis_are_the_same_data() -> None:
    expected, _ = reports(x=X, y=Y)
    assert reports(X=X, Y=Y)[0] == expected
    assert reports(X=X, y=Y[:, 0])[0] == expected
    found, said = reports(x=X[:, 0], y=Y[:, 0])
    assert found == expected
    assert [array["shape"] for array in said["arrays"]] == [[T], [T]]
    assert "data.npz holds x twice, as x and as X" in report(x=X, X=X, y=Y, code=2).err


def test_what_is_ambiguous_is_not_guessed() -> None:
    two = rnnbptt.Params.random(2, h, 2, rng=0)
    np.savez("model.npz", W_hx=two.W_hx, W_hh=two.W_hh, W_qh=two.W_qh)
    assert "x must have shape (T, 2)" in report(x=X[:, 0], y=np.ones((T, 2)), code=2).err
    assert "y must have shape" in report(x=np.ones((T, 2)), y=Y[:, 0], code=2).err


def test_other_arrays_are_named_and_not_read() -> None:
    expected, _ = reports(x=X, y=Y)
    found, said = reports(x=X, y=Y, fs=np.array(50.0), names=np.array(["a", "b"]))
    assert found == expected
    assert said["notes"] == ["Not used: fs, names."]
    assert "Not used: fs, names." in report(x=X, y=Y, fs=np.array(50.0), names=np.array(["a"])).out


def test_targets_that_are_nan_are_missing_and_it_is_said() -> None:
    y = Y.copy()
    y[[3, 7]] = np.nan
    mask = np.isfinite(y[:, 0])
    expected = rnnbptt.gradient_flow(PARAMS, X, np.where(np.isnan(y), 0, y), mask=mask)
    found, said = reports(x=X, y=y[:, 0])
    assert found["flow"] == json.loads(json.dumps({**expected.to_dict(), "missing": 2}))
    assert [array["name"] for array in said["arrays"]] == ["x", "y"]
    text = report("--html", "page.html", x=X, y=y).out
    for place in (text, Path("page.html").read_text(encoding="utf-8")):
        assert " ".join(place.split()).count("2 targets are NaN: missing, and left out.") >= 2
    # Single outputs, and none at all.
    two = rnnbptt.Params.random(1, h, 2, rng=0)
    np.savez("model.npz", W_hx=two.W_hx, W_hh=two.W_hh, W_qh=two.W_qh)
    both = np.concatenate([Y, y], axis=1)
    weights = np.isfinite(both).astype(float)
    expected = rnnbptt.gradient_flow(two, X, np.where(np.isnan(both), 0, both), weights=weights)
    found, _ = reports(x=X, y=both)
    assert found["flow"] == json.loads(json.dumps({**expected.to_dict(), "missing": 2}))
    out = report("--html", "page.html", "--plot", "W.png", x=X, y=np.full((T, 2), np.nan)).out
    assert "80 targets are NaN: missing, and left out." in " ".join(out.split())


def test_loss_takes_the_number_of_a_loss_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "loss 'mse' takes no parameter" in report("--loss", "mse:2", x=X, y=Y, code=2).err
    assert "--loss: " in report("--loss", "mae", x=X, y=Y, code=2).err

    class Scaled(MeanSquaredError):
        name = "scaled"

    monkeypatch.setitem(LOSSES, "scaled", Scaled(2.0))
    seen = []
    for name in ("gradient_flow", "truncation_report"):

        def spy(*arguments: Any, loss: Any, name: str = name, **others: Any) -> Any:
            seen.append(loss)
            return getattr(rnnbptt, name)(*arguments, loss="mse", **others)

        monkeypatch.setattr(command, name, spy)
    report("--loss", "scaled:1.5", x=X, y=Y)
    assert seen == [("scaled", 1.5)] * 2
    assert "finite and above 0" in report("--loss", "scaled:-1", x=X, y=Y, code=2).err
    assert "could not convert" in report("--loss", "scaled:a", x=X, y=Y, code=2).err


# --- files of other kinds -----------------------------------------------------------------------------------


def conversion(said: str) -> str:
    """Return the lines of Python in a message."""
    found = re.search(r"(import numpy.*)$", said)
    assert found is not None, said
    return found[1]


def test_csv_is_converted_by_the_lines_in_the_message() -> None:
    np.savetxt("W.csv", PARAMS.W_hh, delimiter=",")
    said = files.asked(["W.csv"]).err
    assert said.startswith(
        "rnnbptt report: error: WEIGHTS must end in .npy, .npz, .safetensors, not 'W.csv'; "
    )
    exec(conversion(said), {})
    np.testing.assert_allclose(np.load("W.npy"), PARAMS.W_hh)
    assert files.asked(["W.npy"]).code == 0
    np.savetxt("series.csv", np.concatenate([X, Y], axis=1), delimiter=",")
    said = files.asked(["model.npz", "--data", "series.csv"]).err
    exec(conversion(said), {})
    assert files.asked(["model.npz", "--data", "series.npz"]).code == 0


def test_a_state_dict_is_converted_by_the_lines_in_the_message() -> None:
    for suffix in (".pt", ".pth", ".bin"):
        said = files.asked([f"model{suffix}"]).err
        assert said.count("\n") == 1
        compile(conversion(said), "message", "exec")
        assert "torch.load('model" in said
        assert "weights_only=True" in said
    torch = pytest.importorskip("torch")
    rnn = torch.nn.RNN(2, 3, bias=False).to(torch.bfloat16)
    torch.save(rnn.state_dict(), "rnn.pt")
    exec(conversion(files.asked(["rnn.pt"]).err), {})
    assert files.asked(["rnn.npz"]).code == 0


# --- output -------------------------------------------------------------------------------------------------


def test_a_bare_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert capsys.readouterr().out.startswith("usage: rnnbptt")


def test_wrong_options_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["report"],
        ["report", "W.npy", "--nonsense\x1b[2J"],
        ["nonsense"],
        ["report", "--plot"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        out, error = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"rnnbptt( report)?: error: [\x20-\x7e]{8,}\n", error)


def test_picture_and_page_together() -> None:
    answer = report("--plot", "flow.png", "--html", "page.html", x=X, y=Y)
    assert answer.out.endswith("\n\nPicture: flow.png\nPage: page.html\n")
    assert Path("flow.png").read_bytes().startswith(b"\x89PNG")
    assert Path("page.html").read_text(encoding="utf-8").endswith("</html>\n")


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing() -> None:
    Path("dir.html").mkdir()
    Path("full.html").symlink_to("/dev/full")
    before = {path.name for path in Path().iterdir()} | {"data.npz"}
    for name, why in (("dir.html", "Is a directory"), ("no/page.html", "No such file or directory")):
        assert f"cannot write {name}: {why}" in report("--html", name, code=2).err
    if Path("/dev/full").exists():
        assert "cannot write full.html: No space left on device" in report("--html", "full.html", code=2).err
    assert {path.name for path in Path().iterdir()} == before


def test_what_was_there_stays_until_all_of_the_new_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Path("page.html")
    old.write_text("old")
    old.chmod(0o640)
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def half(error: BaseException = error) -> None:
            with output_files.replacing(old) as new:
                new.write_text("half")
                raise error

        with pytest.raises(type(error)):
            half()
        assert [path.name for path in Path().glob("*page*")] == ["page.html"]
        assert [path.name for path in Path().glob(".*")] == []
        assert old.read_text() == "old"
    link = Path("link.html")
    link.symlink_to(old)
    with output_files.replacing(link) as new:
        assert new.suffix == ".html"
        new.write_text("new")
    assert link.is_symlink()
    assert (old.read_text(), stat.S_IMODE(old.stat().st_mode)) == ("new", 0o640)


@slow
def test_a_name_that_the_terminal_cannot_show() -> None:
    np.savez("model.npz", W_hh=PARAMS.W_hh, Ünïcode=np.ones(2))
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding="ascii")
    with contextlib.redirect_stdout(out):
        assert main(["report", "model.npz"]) == 0
    out.flush()
    assert rb"\xdcn\xefcode" in written.getvalue()


def test_what_lasts_is_shown_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    monkeypatch.setattr(progress, "_EVERY", 0.01)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.working("truncation", 2, 3):
            time.sleep(0.2)
        said = stream.getvalue()
        if isinstance(stream, Terminal):
            assert said.startswith("\r[#############.......] 3 of 3: truncation, 0 s ")
            assert said.endswith("\r\x1b[K")  # and gone
        else:
            assert said == ""
    with pytest.raises(KeyboardInterrupt), progress.working("truncation", 2, 3):
        raise KeyboardInterrupt
