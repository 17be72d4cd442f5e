"""`rnnbptt report` on files from strangers: no traceback, no pickle, no memory for what is not used."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fuzz import corruptions, files
from rnnbptt.commands.report.weights import read_weights
from rnnbptt.commands.shown import shown
from rnnbptt.commands.tensor_files.safetensors import eight_bit_floats
from speed import slow, thinned

W = np.array([[0.5, 0.25], [0.0, 0.5]])


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*arguments: str, most: int = 4_000_000) -> str:
    """Ask for a report that must be refused in one line and little memory; return the line."""
    answer = files.asked([*arguments])
    assert answer.code == 2, answer
    assert files.wrong(answer) is None
    assert answer.peak < most
    return answer.err


def answered(*arguments: str, most: int = 30_000_000) -> str:
    answer = files.asked([*arguments])
    assert answer.code == 0, answer
    assert files.wrong(answer) is None
    assert answer.peak < most
    return answer.out


@pytest.mark.parametrize("seed", thinned(range(0, 1000, 100), 10))
def test_corrupt_files_are_answered_or_refused(seed: int) -> None:
    assert files.run(100, seed) == []


def test_the_fuzzer_sees_what_it_looks_for() -> None:
    fine = files.Answer(2, "", "rnnbptt report: error: W.npy is not an array\n", 0.1, 1000)
    assert files.wrong(fine) is None
    for change in (
        {"code": 1},
        {"code": "TokenError: EOF"},
        {"out": "something"},
        {"err": ""},
        {"err": "rnnbptt report: error: \n"},
        {"err": "rnnbptt report: error: cannot read None: None\n"},
        {"err": "two\nlines, the second of which is longer\n"},
        {"err": "rnnbptt report: error: \x1b[31m is not an array\n"},
        {"seconds": 1.5},
        {"peak": 200_000_000},
        {"code": 0},
    ):
        assert files.wrong(fine._replace(**change)) is not None


def test_pickles_of_the_fuzzer_would_leave_a_trace() -> None:
    array = np.array([[corruptions.Pickled()]], dtype=object)
    np.load(io.BytesIO(corruptions.npy(array)), allow_pickle=True)
    assert corruptions.loaded.pop() == "a pickle"
    Path("pickle.npy").write_bytes(corruptions.npy(array))
    assert "pickle.npy holds pickled objects, which are never loaded" in refused("pickle.npy")
    assert corruptions.loaded == []


def test_whole_files_of_the_fuzzer_are_answered() -> None:
    for seed in range(40):
        file = corruptions.whole(np.random.default_rng(seed))
        Path(f"whole{file.suffix}").write_bytes(file.content)
        answered(f"whole{file.suffix}")


# --- sizes --------------------------------------------------------------------------------------------------


def sparse(name: str, start: bytes, size: int) -> None:
    """Write a file that has its start, then zeros, and takes no room on the disk."""
    with open(name, "wb") as file:
        file.write(start)
        file.truncate(size)


def header_of(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_a_matrix_that_would_take_hours_is_refused_before_it_is_read() -> None:
    start = header_of((16384, 16384))
    sparse("large.npy", start, len(start) + 16384**2 * 4)
    assert "W_hh has 16,384 rows; beyond 1,024 a report can take hours: --any-size" in refused("large.npy")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_arrays_that_are_used_are_limited_before_they_are_read(suffix: str) -> None:
    shape = (2, 1 << 26)
    size = shape[0] * shape[1] * 4
    if suffix == "npz":
        with zipfile.ZipFile("large.npz", "w") as archive:
            archive.writestr("W_hh.npy", corruptions.npy(W))
            archive.writestr("W_hx.npy", header_of(shape))
        content = bytearray(Path("large.npz").read_bytes())
        # Both sizes in the directory, which says what a member has.
        at = content.rindex(b"W_hx.npy") - 46 + 20
        content[at : at + 8] = struct.pack("<II", *[len(header_of(shape)) + size] * 2)
        Path("large.npz").write_bytes(bytes(content))
    else:
        header = {
            "W_hh": {"dtype": "F64", "shape": [2, 2], "data_offsets": [0, 32]},
            "W_hx": {"dtype": "F32", "shape": list(shape), "data_offsets": [32, 32 + size]},
        }
        text = corruptions.safetensors(header, W.tobytes())
        sparse("large.safetensors", text, len(text) + size)
    said = refused(f"large.{suffix}")
    if suffix == "npz":
        assert "W_hx in large.npz lies outside the file" in said
    else:
        assert "declares arrays that take 536,870,944 bytes, more than 268,435,456" in said
        assert "--any-size lifts the limit" in said


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_only_arrays_that_are_used_are_read(save: Any) -> None:
    zeros = np.zeros(1 << 25, np.uint8)
    save("unused.npz", W_hh=W, unused0=zeros, unused1=zeros, unused2=zeros)
    assert "unused2  (33554432,)  uint8    not used" in answered("unused.npz")


@pytest.mark.parametrize("method", list(corruptions.METHODS))
def test_a_member_that_expands_beyond_what_it_declares_is_not_expanded(method: str) -> None:
    content = corruptions.npy(W) + bytes(1 << 24)
    with zipfile.ZipFile("bomb.npz", "w", corruptions.METHODS[method]) as archive:
        archive.writestr("W_hh.npy", content)
    assert (
        "W_hh in bomb.npz is not an array in .npy format: it declares 32 bytes of data, and has"
        in refused("bomb.npz", most=12_000_000)
    )
    # The size in the directory is that of the array: only the data know of more.
    changed = bytearray(Path("bomb.npz").read_bytes())
    at = changed.rindex(b"PK\x01\x02") + 24
    changed[at : at + 4] = struct.pack("<I", len(corruptions.npy(W)))
    Path("bomb.npz").write_bytes(bytes(changed))
    assert "does not have the checksum" in refused("bomb.npz", most=12_000_000)


def test_a_decoder_that_asks_for_memory_does_not_get_it() -> None:
    with zipfile.ZipFile("lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("W_hh.npy", corruptions.npy(W))
        start = archive.infolist()[0].header_offset + 30 + len("W_hh.npy")
    content = bytearray(Path("lzma.npz").read_bytes())
    content[start + 5 : start + 9] = b"\xff\xff\xff\xff"
    Path("lzma.npz").write_bytes(bytes(content))
    assert "needs 4,294,967,295 bytes to be decompressed" in refused("lzma.npz")


def test_tables_of_contents_are_limited() -> None:
    with zipfile.ZipFile("many.npz", "w") as archive:
        for i in range(30_000):
            archive.writestr(f"{i:030}.npy", b"")
    assert "many.npz has a directory of" in refused("many.npz", most=20_000_000)
    text = b"{" + b",".join(b'"%d":{}' % i for i in range(300_000)) + b"}"
    Path("many.safetensors").write_bytes(corruptions.safetensors(text, b""))
    assert "has a header of" in refused("many.safetensors")


def test_a_pipe_is_not_waited_for() -> None:
    os.mkfifo("pipe.npy")
    assert "pipe.npy is not a regular file" in refused("pipe.npy")


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("W_hh", (), "W_hh must be a square matrix of size at least 1, not of shape ()"),
        ("W_hx", (), "W_hx must have shape (3, d), not ()"),
        ("W_hx", (3, 0), "W_hx must have shape (3, d), not (3, 0)"),
        ("W_qh", (3,), "W_qh must have shape (q, 3), not (3,)"),
        ("b_h", (2,), "b_h must have shape (3,), not (2,)"),
        ("b_q", (1,), "b_q must have shape (2,), not (1,)"),
        ("W_qx", (1, 2), "W_qx must have shape (2, 1), not (1, 2)"),
    ],
)
def test_shapes_are_checked_before_anything_is_read(name: str, shape: tuple[int, ...], said: str) -> None:
    shapes = {"W_hx": (3, 1), "W_hh": (3, 3), "W_qh": (2, 3), "b_h": (3,), "b_q": (2,), "W_qx": (2, 1)}
    arrays: dict[str, Any] = {key: np.ones(value) for key, value in (shapes | {name: shape}).items()}
    np.savez("shapes.npz", **arrays)
    assert said in refused("shapes.npz")


# --- names --------------------------------------------------------------------------------------------------


def test_names_that_are_given_twice_are_refused() -> None:
    for names in (("W_hh.npy", "W_hh.npy"), ("W_hh.npy", "W_hh")):
        members = [(name, corruptions.npy(W)) for name in names]
        Path("twice.npz").write_bytes(corruptions.npz(members, zipfile.ZIP_STORED))
        assert "twice.npz holds W_hh twice" in refused("twice.npz")
    entry = b'{"dtype":"F64","shape":[2,2],"data_offsets":[0,32]}'
    text = b'{"W_hh":' + entry + b',"W_hh":' + entry + b"}"
    Path("twice.safetensors").write_bytes(corruptions.safetensors(text, W.tobytes()))
    assert "twice.safetensors holds W_hh twice" in refused("twice.safetensors")


def test_control_characters_of_names_are_escaped_everywhere() -> None:
    def save(arrays: dict[str, Any]) -> None:
        members = [(f"{name}.npy", corruptions.npy(array)) for name, array in arrays.items()]
        Path("odd.npz").write_bytes(corruptions.npz(members, zipfile.ZIP_STORED))

    name = "a\x1b[2J\u202e\nb"
    save({"W_hh": W, name: np.ones(3), "x" * 1000: np.ones(3)})
    out = answered("odd.npz")
    assert (
        files.asked(["odd.npz", "--html", "page.html"], traced=False).out
        == f"{out.rstrip()}\n\nPage: page.html\n"
    )
    assert r"a\x1b[2J\u202e\nb" in out
    assert "x" * 77 + "..." in out
    assert "\x1b" not in Path("page.html").read_text(encoding="utf-8")
    assert "\x1b" not in answered("odd.npz", "--json")
    save({name: np.ones(3), "other": np.ones(2)})
    assert r"a\x1b[2J\u202e\nb (3,)" in refused("odd.npz")
    assert "\x1b" not in refused("\x1b[2J.npy")
    assert shown("naïve Δt") == "naïve Δt"


@pytest.mark.parametrize(
    ("offsets", "said"),
    [
        ([[0, 32], [16, 48]], "the bytes of other overlap others"),
        ([[0, 32], [40, 72]], "the bytes of other follow a gap"),
        ([[0, 32], [32, 64]], "it declares 64 bytes of tensors, and has 72"),
        ([[0, 32], [72, 40]], "the bytes of other are not as many as its shape needs"),
        ([[0, 32], [32, 40]], "the bytes of other are not as many as its shape needs"),
        ([[0, 32], [True, 33]], "dtype, shape or data_offsets of other are malformed"),
        ([[0, 32], [-32, 0]], "dtype, shape or data_offsets of other are malformed"),
    ],
)
def test_bytes_of_tensors_follow_one_another(offsets: list[list[int]], said: str) -> None:
    names = ("W_hh", "other")
    header = {
        name: {"dtype": "F64", "shape": [2, 2], "data_offsets": o}
        for name, o in zip(names, offsets, strict=True)
    }
    Path("gap.safetensors").write_bytes(corruptions.safetensors(header, bytes(72)))
    assert f"gap.safetensors is not a .safetensors file: {said}" in refused("gap.safetensors")


# --- dtypes -------------------------------------------------------------------------------------------------


def saved_codes(dtype: str, codes: NDArray[Any]) -> NDArray[Any]:
    """Return W_hh of a .safetensors file that holds it as bytes."""
    h = int(len(codes) ** 0.5)
    entry = {"dtype": dtype, "shape": [h, h], "data_offsets": [0, codes.nbytes]}
    Path("codes.safetensors").write_bytes(corruptions.safetensors({"W_hh": entry}, codes.tobytes()))
    weights = read_weights(Path("codes.safetensors"))
    assert weights.tensors[0].dtype == {"BF16": "bfloat16"}.get(dtype, dtype.lower().replace("f8", "float8"))
    return weights.parameters["W_hh"].ravel()


def test_bfloat16_is_widened_exactly() -> None:
    codes = np.arange(1 << 16, dtype="<u2")
    codes = np.where(codes >> 7 & 255 == 255, 0, codes).astype("<u2")  # infinities and nan are no weights
    found = saved_codes("BF16", codes)
    assert found.dtype == np.float32
    sign, e, m = np.where(codes >> 15, -1.0, 1.0), (codes >> 7 & 255).astype(int), (codes & 127).astype(int)
    value = sign * np.ldexp(np.where(e > 0, 128 + m, m).astype(float), np.maximum(e, 1) - 127 - 7)
    np.testing.assert_array_equal(found, value)


def test_floats_of_eight_bits_are_widened_exactly() -> None:
    codes = np.arange(256, dtype=np.uint8)
    finite = np.isfinite(eight_bit_floats("F8_E5M2"))
    half = (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)  # the upper byte of a half
    np.testing.assert_array_equal(eight_bit_floats("F8_E5M2"), half)
    np.testing.assert_array_equal(saved_codes("F8_E5M2", codes * finite), np.where(finite, half, 0))
    e4m3 = eight_bit_floats("F8_E4M3")  # of the paper: no infinities, one nan per sign
    assert np.flatnonzero(np.isnan(e4m3)).tolist() == [0x7F, 0xFF]
    assert e4m3[[0, 1, 7, 8, 0x38, 0x7E, 0xFE]].tolist() == [0, 2**-9, 7 * 2**-9, 2**-6, 1, 448, -448]
    np.testing.assert_array_equal(saved_codes("F8_E4M3", codes[:100]), e4m3[:100])
    assert eight_bit_floats("F8_E8M0")[[0, 127, 254]].tolist() == [2.0**-127, 1, 2.0**127]


def test_floats_of_eight_bits_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8)
    for name in ("e4m3", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0"):
        kind = getattr(torch, f"float8_{ {'e4m3': 'e4m3fn', 'e8m0': 'e8m0fnu'}.get(name, name) }")
        np.testing.assert_array_equal(
            eight_bit_floats(f"F8_{name.upper()}"), codes.view(kind).float().numpy(), err_msg=name
        )


def test_dtypes_without_a_meaning_here_are_named() -> None:
    entry = {"dtype": "F4\x07", "shape": [2, 2], "data_offsets": [0, 2]}
    Path("odd.safetensors").write_bytes(corruptions.safetensors({"W_hh": entry}, bytes(2)))
    assert r"W_hh must be an array of real numbers, not of dtype F4\x07" in refused("odd.safetensors")
    np.savez("odd.npz", W_hh=W, step=np.array("seven"), when=np.array("2026-11-25", "M8[D]"))
    assert "not used" in answered("odd.npz")


@slow
def test_fortran_order_and_byte_order() -> None:
    rng = np.random.default_rng(0)
    for dtype in ("<f4", ">f4", "<f8", ">f8", ">i2", "?"):
        matrix = (4 * rng.standard_normal((3, 3))).astype(dtype)
        for array in (matrix, np.asfortranarray(matrix)):
            np.save("W.npy", array)
            np.testing.assert_array_equal(read_weights(Path("W.npy")).parameters["W_hh"], matrix)
