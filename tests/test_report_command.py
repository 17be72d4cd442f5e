"""`rnnbptt report`: reads what people have, says what it found, refuses in one line what it cannot use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from rnnbptt.__main__ import main
from rnnbptt.commands.report.weights import read_weights
from speed import thinned

Array = NDArray[Any]
T, B, d, h, q = 40, 3, 2, 4, 2
PARAMS = rnnbptt.Params.random(d, h, q, rng=0)
SINGLE = rnnbptt.Params.random(d, h, q, rng=0, dtype=np.float32)


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Said:
        capsys.readouterr()
        code = main(["report", *arguments])
        return Said(code, *capsys.readouterr())

    return run


def save_data(path: str = "data.npz", **changes: Any) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.standard_normal((T, B, d)), "y": rng.standard_normal((T, B, q)), **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def save_params(path: str = "model.npz", params: rnnbptt.Params = PARAMS) -> None:
    np.savez(path, W_hx=params.W_hx, W_hh=params.W_hh, W_qh=params.W_qh)


def torch_names(prefix: str = "rnn.", readout: str = "fc.") -> dict[str, Array]:
    rng = np.random.default_rng(1)
    return {
        f"{prefix}weight_ih_l0": SINGLE.W_hx,
        f"{prefix}weight_hh_l0": SINGLE.W_hh,
        f"{prefix}bias_ih_l0": rng.standard_normal(h).astype(np.float32),
        f"{prefix}bias_hh_l0": rng.standard_normal(h).astype(np.float32),
        f"{readout}weight": SINGLE.W_qh,
        f"{readout}bias": np.ones(q, np.float32),
    }


def save_safetensors(path: str, tensors: dict[str, Array]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, path)


# --- what is read -------------------------------------------------------------------------------------------


def test_npy_is_the_recurrent_matrix(report: Any) -> None:
    np.save("W.npy", PARAMS.W_hh)
    said = report("W.npy")
    assert (said.code, said.err) == (0, "")
    assert "W.npy: a single matrix\n  W  (4, 4)  float64  W_hh" in said.out
    assert said.out.rstrip().endswith(str(rnnbptt.spectral_report(PARAMS.W_hh)))


@pytest.mark.parametrize("stored", [{"anything": PARAMS.W_hh}, {"W_hh": PARAMS.W_hh, "step": np.array(3)}])
def test_npz_of_one_matrix(report: Any, stored: dict[str, Any]) -> None:
    np.savez("W.npz", **stored)
    said = report("W.npz", "--json")
    found = json.loads(said.out)
    taken = {tensor["name"]: tensor["taken_for"] for tensor in found["weights"]["tensors"]}
    assert taken == {name: "not used" if name == "step" else "W_hh" for name in stored}
    assert found["reports"]["spectrum"] == rnnbptt.spectral_report(PARAMS.W_hh).to_dict()


def test_integers_and_halves_are_widened(report: Any) -> None:
    np.save("i.npy", np.eye(2, dtype=np.int64))
    np.save("f.npy", np.eye(2, dtype=np.float16) / 2)
    np.save("b.npy", np.eye(2, dtype=">f4") / 2)
    for name, dtype in (("i", "float64"), ("f", "float32"), ("b", "float32")):
        said = report(f"{name}.npy", "--json")
        assert json.loads(said.out)["reports"]["spectrum"]["dtype"] == dtype, said


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "rnn.", "model.encoder_rnn."])
def test_names_of_torch(report: Any, suffix: str, prefix: str) -> None:
    tensors: dict[str, Any] = {**torch_names(prefix), "embedding.weight": np.ones((7, h), np.float32)}
    np.savez("model.npz", **tensors) if suffix == "npz" else save_safetensors("model.safetensors", tensors)
    weights = read_weights(Path(f"model.{suffix}"))
    assert {tensor.name: tensor.taken_for for tensor in weights.tensors} == {
        f"{prefix}weight_ih_l0": "W_hx",
        f"{prefix}weight_hh_l0": "W_hh",
        f"{prefix}bias_ih_l0": "b_h",
        f"{prefix}bias_hh_l0": "b_h",
        "fc.weight": "W_qh",
        "fc.bias": "b_q",
        "embedding.weight": "not used",
    }
    params = weights.params()
    np.testing.assert_array_equal(params.W_hh, SINGLE.W_hh)
    np.testing.assert_array_equal(params.W_qh, SINGLE.W_qh)
    assert params.b_h is not None
    np.testing.assert_array_equal(params.b_h, tensors[f"{prefix}bias_ih_l0"] + tensors[f"{prefix}bias_hh_l0"])


def test_a_model_of_torch_itself(report: Any) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    model = torch.nn.ModuleDict({"rnn": torch.nn.RNN(d, h), "decoder": torch.nn.Linear(h, q)})
    save_file(model.state_dict(), "model.safetensors")
    save_data(x=np.ones((T, d), np.float32), y=np.ones((T, q), np.float32))
    found = json.loads(report("model.safetensors", "--data", "data.npz", "--json").out)
    expected = rnnbptt.spectral_report(model["rnn"].weight_hh_l0.detach().numpy()).to_dict()
    assert found["reports"]["spectrum"] == expected
    assert found["reports"]["flow"]["dtype"] == "float32"


def test_readout_that_is_not_clear_is_not_guessed(report: Any) -> None:
    tensors: dict[str, Any] = torch_names(readout="fc.")
    tensors |= {"head.weight": SINGLE.W_qh, "other.weight": SINGLE.W_qh}
    np.savez("model.npz", **tensors)
    said = report("model.npz")
    assert "W_qh could be fc.weight or head.weight: none is taken." in said.out
    save_data()
    said = report("model.npz", "--data", "data.npz")
    assert said.code == 2
    assert "model.npz has no W_qh" in said.err


# --- what comes out -----------------------------------------------------------------------------------------


def test_data_add_two_reports(report: Any) -> None:
    save_params()
    save_data(h0=np.ones((B, h)), lengths=np.array([T, 5, 9]))
    said = report("model.npz", "--data", "data.npz", "--loss", "squared_error")
    with np.load("data.npz") as data:
        given: dict[str, Any] = {**data, "loss": "squared_error"}
    reports = rnnbptt.gradient_flow(PARAMS, **given), rnnbptt.truncation_report(PARAMS, **given)
    for expected in (rnnbptt.spectral_report(PARAMS.W_hh), *reports):
        assert str(expected) in said.out
    found = json.loads(report("model.npz", "--data", "data.npz", "--loss", "squared_error", "--json").out)
    assert list(found["reports"]) == ["spectrum", "flow", "truncation"]
    assert found["reports"]["flow"] == json.loads(json.dumps(reports[0].to_dict()))
    assert [array["name"] for array in found["data"]["arrays"]] == ["x", "y", "h0", "lengths"]


def test_float32_weights_take_float64_data(report: Any) -> None:
    save_params(params=SINGLE)
    save_data()
    said = report("model.npz", "--data", "data.npz")
    assert said.code == 0, said.err
    assert "Weights are widened to the float64 of the data." in said.out


def test_labels(report: Any) -> None:
    save_params()
    save_data(y=np.ones((T, B), np.int64))
    assert report("model.npz", "--data", "data.npz", "--loss", "cross_entropy").code == 0
    said = report("model.npz", "--data", "data.npz")
    assert (said.code, said.out) == (2, "")
    assert "y must have shape (40, 3, 2)" in said.err


def test_json_is_strict_and_alone_on_stdout(report: Any) -> None:
    np.save("W.npy", np.eye(3, k=1))  # its report holds infinities
    said = report("W.npy", "--json", "--plot", "W.png")

    def refuse(token: str) -> None:
        raise AssertionError(token)

    found = json.loads(said.out, parse_constant=refuse)
    assert found["reports"]["spectrum"]["nilpotency_index"] == 3
    assert Path("W.png").exists()


@pytest.mark.parametrize(
    ("suffix", "magic"), thinned([("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")], 3)
)
def test_picture_in_the_format_of_its_suffix(report: Any, suffix: str, magic: bytes) -> None:
    np.save("W.npy", PARAMS.W_hh)
    said = report("W.npy", "--plot", f"W.{suffix}")
    assert said.out.endswith(f"\nPicture: W.{suffix}\n")
    first = Path(f"W.{suffix}").read_bytes()
    assert first.startswith(magic)
    report("W.npy", "--plot", f"W.{suffix}")
    assert Path(f"W.{suffix}").read_bytes() == first


def test_page_is_well_formed_and_needs_nothing_else(report: Any) -> None:
    name = "a<b>&'c'.npz"
    save_params(name)
    save_data()
    assert report(name, "--data", "data.npz", "--html", "page.html").code == 0
    text = Path("page.html").read_text(encoding="utf-8")
    root = ElementTree.fromstring(
        text.removeprefix("<!DOCTYPE html>")
    )  # every element closed, every & escaped
    assert root.findtext(".//h1") == f"Gradients through {name}"
    assert [heading.text for heading in root.iter("h2")] == ["Spectrum", "Gradient flow", "Truncation"]
    assert str(rnnbptt.spectral_report(PARAMS.W_hh)).startswith(root.findall(".//pre")[1].text or "-")
    pictures = [e.get("src") or e.get("srcset") or "" for e in root.iter() if e.tag in ("img", "source")]
    assert len(pictures) == 6
    assert all(picture.startswith("data:image/svg+xml;base64,") for picture in pictures)
    assert all(len(image.get("alt") or "") > 40 for image in root.iter("img"))
    assert not list(root.iter("script"))
    assert not list(root.iter("link"))
    without_pictures = re.sub(r"base64,[^\"]*", "", text)
    assert "http" not in without_pictures
    assert "url(" not in without_pictures
    assert '<meta name="viewport"' in text
    assert "prefers-color-scheme: dark" in text


def test_as_a_program(tmp_path: Path) -> None:
    np.save(tmp_path / "W.npy", PARAMS.W_hh)
    for arguments, code, stream in ((["W.npy"], 0, "stderr"), (["no.npy"], 2, "stdout")):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "rnnbptt", "report", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code
        assert getattr(done, stream) == ""
    assert done.stderr == "rnnbptt report: error: cannot read no.npy: No such file or directory\n"


# --- refusals -----------------------------------------------------------------------------------------------


class Unpickled:
    """Leaves a trace when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("trace").touch, ()


def bad_files() -> dict[str, str]:
    """Write files that hold no weights; return what is said about each."""
    np.save("vector.npy", np.ones(3))
    np.save("oblong.npy", np.ones((2, 3)))
    np.save("nan.npy", np.array([[np.nan]]))
    np.save("complex.npy", np.array([[1j]]))
    np.save("empty.npy", np.ones((0, 0)))
    np.save("pickled.npy", np.array([[Unpickled()]], dtype=object), allow_pickle=True)
    np.savez("pickled.npz", W_hh=np.array([[Unpickled()]], dtype=object))
    Path("text.npy").write_text("hello")
    Path("text.npz").write_text("hello")
    Path("text.safetensors").write_text("hello, hello, hello")
    Path("weights.pt").write_bytes(b"")
    Path("short.npy").write_bytes(Path("oblong.npy").read_bytes()[:-8])
    Path("directory.npy").mkdir()
    with zipfile.ZipFile("strange.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    np.savez("none.npz")
    np.savez("two.npz", a=np.eye(2), b=np.eye(3))
    np.savez("shapes.npz", W_hx=np.ones((3, 1)), W_hh=np.eye(2), W_qh=np.ones((1, 2)))
    np.savez("layers.npz", weight_hh_l0=np.eye(2), weight_hh_l1=np.eye(2))
    np.savez("lstm.npz", weight_hh_l0=np.ones((8, 2)))
    np.savez("biases.npz", weight_hh_l0=np.eye(2), bias_ih_l0=np.ones(2), bias_hh_l0=np.ones(3))
    save_safetensors("oblong.safetensors", {"W_hh": np.ones((2, 3))})
    return {
        "missing.npy": "cannot read missing.npy: No such file",
        "missing.npz": "cannot read missing.npz: No such file",
        "missing.safetensors": "cannot read missing.safetensors: No such file",
        "directory.npy": "cannot read directory.npy: Is a directory",
        "weights.pt": "WEIGHTS must end in .npy, .npz, .safetensors, not 'weights.pt'",
        "vector.npy": "W_hh must be a square matrix of size at least 1, not of shape (3,)",
        "oblong.npy": "W_hh must be a square matrix of size at least 1, not of shape (2, 3)",
        "oblong.safetensors": "W_hh must be a square matrix of size at least 1, not of shape (2, 3)",
        "empty.npy": "W_hh must be a square matrix of size at least 1",
        "nan.npy": "W_hh must be finite, not nan at [0, 0]",
        "complex.npy": "W_hh must be an array of real numbers, not of dtype complex128",
        "pickled.npy": "pickled.npy holds pickled objects, which are never loaded",
        "pickled.npz": "W_hh in pickled.npz holds pickled objects, which are never loaded",
        "text.npy": "text.npy is not an array in .npy format",
        "short.npy": "short.npy is not an array in .npy format",
        "text.npz": "text.npz is not a .npz file",
        "strange.npz": "readme.txt in strange.npz is not an array",
        "text.safetensors": "text.safetensors is not a .safetensors file",
        "none.npz": "none.npz holds no tensors",
        "two.npz": "must hold W_hh, a weight_hh_l0 of PyTorch or a single matrix, not a (2, 2), b (3, 3)",
        "shapes.npz": "W_hx must have shape (2, d), not (3, 1)",
        "layers.npz": "layers.npz has 2 recurrent matrices (weight_hh_l0, weight_hh_l1)",
        "lstm.npz": "weight_hh_l0 of shape (8, 2) holds the gates of an LSTM",
        "biases.npz": "bias_ih_l0 and bias_hh_l0 must have one shape, not (2,) and (3,)",
    }


def test_files_without_weights_are_refused_in_one_line(report: Any) -> None:
    for name, message in bad_files().items():
        said = report(name)
        assert (said.code, said.out) == (2, ""), name
        assert message in said.err
        assert said.err.startswith("rnnbptt report: error: ")
        assert said.err.count("\n") == 1
    assert not Path("trace").exists()  # nothing was unpickled


def test_data_that_do_not_fit_are_refused_in_one_line(report: Any) -> None:
    save_params()
    np.save("x.npy", np.ones((T, d)))
    np.save("W.npy", PARAMS.W_hh)
    Path("data.csv").write_text("1,2")
    rng = np.random.default_rng(0)
    bad: dict[str, dict[str, Any]] = {
        "no_y": {"y": None},
        "shapes": {"x": rng.standard_normal((T, B, d + 1))},
        "lengths": {"lengths": np.array([1, 2, T + 1])},
        "nan": {"x": np.full((T, B, d), np.nan)},
        "pickled": {"x": np.array([[Unpickled()]], dtype=object)},
        "fine": {},
    }
    for name, changes in bad.items():
        save_data(f"{name}.npz", **changes)
    for weights, data, message in (
        ("model.npz", "x.npy", "x.npy holds one array, and y is needed beside x"),
        ("model.npz", "data.csv", "--data must end in .npz, not 'data.csv'"),
        ("model.npz", "missing.npz", "cannot read missing.npz: No such file"),
        ("model.npz", "no_y.npz", "no_y.npz has no y, but x"),
        ("model.npz", "shapes.npz", "x must have shape"),
        ("model.npz", "lengths.npz", "lengths must lie between 0 and T = 40, not 41"),
        ("model.npz", "nan.npz", "finite"),
        ("model.npz", "pickled.npz", "x in pickled.npz holds pickled objects"),
        ("W.npy", "fine.npz", "W.npy has no W_hx and no W_qh"),
    ):
        said = report(weights, "--data", data)
        assert (said.code, said.out) == (2, ""), data
        assert message in said.err
        assert said.err.count("\n") == 1
    assert not Path("trace").exists()


def test_output_is_refused_before_any_work(report: Any) -> None:
    for arguments, message in (
        (["--plot", "W.gif"], "--plot must end in .png, .pdf, .svg, not 'W.gif'"),
        (["--html", "W.png"], "--html must end in .html, .htm, not 'W.png'"),
        (["--plot", "no/W.png"], "cannot write no/W.png: No such file or directory"),
    ):
        said = report("missing.npy", *arguments)
        assert (said.code, said.out) == (2, "")
        assert message in said.err


def test_extras_that_are_missing_are_named(report: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("W.npy", PARAMS.W_hh)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        said = report("W.npy", "--plot", "W.png")
    assert (said.code, said.out) == (2, "")
    assert "needs matplotlib, which is not installed: pip install 'rnnbptt[report]'" in said.err
