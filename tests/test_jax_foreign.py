"""Compiled programs of JAX enter the engine without Python: same bits, checked layouts, and a way back."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt

if importlib.util.find_spec("jax") is None:
    pytest.skip("jax is not installed: nox -s peers", allow_module_level=True)

import jax
import jax.numpy as jnp

from rnnbptt import _core, bridge
from rnnbptt.jax import foreign, linear_rnn
from rnnbptt.jax.primitives import pull, run

pytestmark = pytest.mark.usefixtures("jax_float64")

Array = NDArray[Any]
BINDINGS = Path(__file__).resolve().parent.parent / "cpp"
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
SHAPES = [(1, 1, 1, 1, 1), (30, 3, 2, 5, 4), (640, 1, 2, 16, 3)]


def draw(shape: tuple[int, int, int, int, int], dtype: Any) -> tuple[list[Array], list[Array]]:
    """Return a point with all terms, and cotangents."""
    T, B, d, h, q = shape
    rng = np.random.default_rng(sum(shape))
    params = rnnbptt.Params.random(d, h, q, biases=True, direct=True, rng=rng, dtype=dtype)
    drawn = [rng.standard_normal(s).astype(dtype) for s in ((B, h), (T, B, d), (T, B, q), (B, h))]
    return [*(array for _, array in params.items()), *drawn[:2]], drawn[2:]


def same_bits(actual: Any, expected: Any) -> bool:
    pairs = zip(actual, expected, strict=True)
    return all(np.array_equal(np.asarray(a), b, equal_nan=True) and a.dtype == b.dtype for a, b in pairs)


# --- results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_compiled_program_has_the_bits_of_the_engine(
    shape: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, cotangents = draw(shape, dtype)
    expected = bridge.run(point, False, None)
    every = tuple(range(8))
    nothing = np.zeros_like(cotangents[1])
    cases = [
        (every, (cotangents[0], cotangents[1])),
        (every, (cotangents[0], nothing)),
        ((1, 7), (cotangents[0], nothing)),
        ((0, 4, 6), (cotangents[0], cotangents[1])),
    ]
    gradients = [
        bridge.pull(point, (o, h if h.any() else None), [bridge.NAMES[i] for i in wrt], False, None)
        for wrt, (o, h) in cases
    ]

    def refuse(*_: object) -> None:
        raise AssertionError("called back to Python")

    monkeypatch.setattr(bridge, "run", refuse)
    monkeypatch.setattr(bridge, "pull", refuse)
    assert same_bits(jax.jit(lambda *p: run(*p, present=every))(*point), expected)
    for (wrt, given), found in zip(cases, gradients, strict=True):
        program = jax.jit(lambda *args, wrt=wrt: pull(*args, present=every, wrt=wrt))
        assert same_bits(program(*point, *given), found)


def test_terms_that_are_absent() -> None:
    point, cotangents = draw(SHAPES[1], np.float64)
    present = (0, 1, 2, 4, 6, 7)
    sparse = [array if i in present else None for i, array in enumerate(point)]
    given = [array for array in sparse if array is not None]
    found = jax.jit(lambda *p: run(*p, present=present))(*given)
    assert same_bits(found, bridge.run(sparse, False, None))
    found = jax.jit(lambda *a: pull(*a, present=present, wrt=present))(*given, *cotangents)
    names = [bridge.NAMES[i] for i in present]
    assert same_bits(found, bridge.pull(sparse, cotangents, names, False, None))


def test_subnormal_numbers_stay_subnormal() -> None:
    # XLA flushes them to zero in what it computes itself.
    point, _ = draw(SHAPES[2], np.float64)
    tiny = 2.0**-1060
    point[7], point[6], point[3], point[4] = point[7] * tiny, point[6] * tiny, point[3] * 0, point[4] * 0
    every = tuple(range(8))
    o, h_T = jax.jit(lambda *p: run(*p, present=every))(*point)
    expected = bridge.run(point, False, None)
    assert expected[0].any()
    assert same_bits((o, h_T), expected)


def test_programs_in_many_threads_at_once() -> None:
    point, cotangents = draw((2000, 1, 2, 16, 3), np.float64)
    every = tuple(range(8))
    program = jax.jit(lambda *args: pull(*args, present=every, wrt=every))
    expected = [np.asarray(r) for r in program(*point, *cotangents)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: program(*point, *cotangents), range(40)))
    assert all(same_bits(result, expected) for result in results)


# --- the interface ------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_an_error_of_the_program() -> None:
    point, cotangents = draw(SHAPES[1], np.float64)
    assert foreign.available()
    T, B, d, h, q = SHAPES[1]

    def program(args: Any, name: str = "run", q: int = q, dtype: Any = np.float64, **sets: int) -> Any:
        results = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((T, B, q), (B, h))]
        call: Any = jax.ffi.ffi_call(f"rnnbptt_{name}", results)
        return jax.block_until_ready(call(*args, **{key: np.int64(value) for key, value in sets.items()}))

    program(point, present=255)  # fits
    wrong_W_hx = [point[0].T, *point[1:]]
    attempts: list[tuple[str, Any]] = [
        ("present", lambda: program(point)),
        ("W_hx", lambda: program(wrong_W_hx, present=255)),
        ("W_hh", lambda: program([point[0], point[1][0], *point[2:]], present=255)),
        ("x", lambda: program(point[:7], present=255)),
        ("x", lambda: program(point[:7], present=127)),
        ("x", lambda: program([*point[:7], point[7].astype(np.float32)], present=255)),
        ("W_hx", lambda: program([np.ones((h, d), int), *point[1:]], present=255)),
        ("o", lambda: program(point, q=q + 1, present=255)),
        ("o", lambda: program(point, dtype=np.float32, present=255)),
        ("wrt", lambda: program([*point, *cotangents], "pull", present=255)),
        ("d_o", lambda: program(point, "pull", present=255, wrt=2)),
        ("W_hh", lambda: program([*point, *cotangents], "pull", present=255, wrt=2)),
    ]
    for message, attempt in attempts:
        with pytest.raises(RuntimeError, match=f"{message} does not fit the problem"):
            attempt()


def test_where_xla_takes_no_such_functions_programs_call_back(monkeypatch: pytest.MonkeyPatch) -> None:
    point, _ = draw(SHAPES[1], np.float64)
    params, x, h0 = rnnbptt.Params(*point[:6]), point[7], point[6]

    def program(params: Any, x: Any, h0: Any) -> Any:
        return jnp.sum(linear_rnn(params, x, h0) ** 2)

    expected = jax.jit(jax.value_and_grad(program))(params, x, h0)
    called: list[str] = []
    original = bridge.pull

    def watched(*args: Any) -> Any:
        called.append("pull")
        return original(*args)

    monkeypatch.setattr(_core, "xla_handlers", {"unknown": object()})
    monkeypatch.setattr(bridge, "pull", watched)
    foreign.available.cache_clear()
    try:
        found = jax.jit(lambda *args: jax.value_and_grad(program)(*args))(params, x, h0)
        assert not foreign.available()
    finally:
        foreign.available.cache_clear()
    assert called == ["pull"]
    assert same_bits(jax.tree.leaves(found), [np.asarray(r) for r in jax.tree.leaves(expected)])


def test_functions_are_registered_when_first_compiled() -> None:
    # Not on import: a version that XLA refuses would keep its backend from starting. And without x64.
    code = """
import jax, numpy as np, rnnbptt, rnnbptt.jax
from jaxlib import xla_client
assert "rnnbptt" not in str(xla_client._custom_callback)
assert not rnnbptt.jax.foreign.available.cache_info().currsize
params = rnnbptt.Params.random(2, 3, 2, rng=0, dtype=np.float32)
x = np.ones((4, 2), np.float32)
o = jax.jit(rnnbptt.jax.linear_rnn)(params, x)
assert rnnbptt.jax.foreign.available()
assert np.array_equal(o, rnnbptt.forward(params, x).o)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not BINDINGS.is_dir(), reason="the C++ sources are not beside the tests")
@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
def test_layouts_are_those_of_the_installed_header(tmp_path: Path) -> None:
    structures = {
        "Extension": ("Extension_Base", {"struct_size": "struct_size", "type": "type", "next": "next"}),
        "Version": ("Api_Version", {"major": "major_version", "minor": "minor_version"}),
        "Metadata": ("Metadata", {"api_version": "api_version", "traits": "traits"}),
        "MetadataExtension": ("Metadata_Extension", {"base": "extension_base", "metadata": "metadata"}),
        "ErrorArguments": ("Error_Create_Args", {"message": "message", "code": "errc"}),
        "Api": ("Api", {"version": "api_version", "create_error": "XLA_FFI_Error_Create"}),
        "Buffer": ("Buffer", {"dtype": "dtype", "data": "data", "rank": "rank", "dims": "dims"}),
        "Items": ("Args", {"struct_size": "struct_size", "size": "size", "types": "types", "items": "args"}),
        "Name": ("ByteSpan", {"data": "ptr", "size": "len"}),
        "Number": ("Scalar", {"dtype": "dtype", "value": "value"}),
        "Attributes": (
            "Attrs",
            {"struct_size": "struct_size", "types": "types", "names": "names", "values": "attrs"},
        ),
        "CallFrame": (
            "CallFrame",
            {
                "struct_size": "struct_size",
                "extension": "extension_start",
                "api": "api",
                "stage": "stage",
                "arguments": "args",
                "results": "rets",
                "attributes": "attrs",
            },
        ),
    }
    lines = ['#include "xla/ffi/api/c_api.h"', '#include "bindings/xla_ffi.hpp"']
    lines += ["namespace ours = rnnbptt::bindings::xla;"]
    for ours, (theirs, members) in structures.items():
        for mine, its in members.items():
            pair = f"ours::{ours}, {mine}", f"XLA_FFI_{theirs}, {its}"
            lines.append(f"static_assert(offsetof({pair[0]}) == offsetof({pair[1]}));")
            sizes = (f"sizeof({'::'.join(p.rsplit(', ', 1))})" for p in pair)
            lines.append("static_assert({} == {});".format(*sizes))
    lines.append("static_assert(offsetof(XLA_FFI_Rets, rets) == offsetof(XLA_FFI_Args, args));")
    for pair in (("Items", "Args"), ("Items", "Rets"), ("Attributes", "Attrs"), ("Version", "Api_Version")):
        lines.append("static_assert(sizeof(ours::{}) == XLA_FFI_{}_STRUCT_SIZE);".format(*pair))
    for ours, theirs in (
        ("api_major", "API_MAJOR"),
        ("metadata_type", "Extension_Metadata"),
        ("buffer_type", "ArgType_BUFFER"),
        ("buffer_type", "RetType_BUFFER"),
        ("scalar_type", "AttrType_SCALAR"),
        ("execute_stage", "ExecutionStage_EXECUTE"),
        ("DataType::s64", "DataType_S64"),
        ("DataType::f32", "DataType_F32"),
        ("DataType::f64", "DataType_F64"),
        ("Code::invalid_argument", "Error_Code_INVALID_ARGUMENT"),
        ("Code::resource_exhausted", "Error_Code_RESOURCE_EXHAUSTED"),
        ("Code::internal", "Error_Code_INTERNAL"),
    ):
        lines.append(f"static_assert(int(ours::{ours}) == int(XLA_FFI_{theirs}));")
    unit = tmp_path / "layouts.cpp"
    unit.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert COMPILER is not None
    done = subprocess.run(
        [COMPILER, "-std=c++20", "-fsyntax-only", f"-I{jax.ffi.include_dir()}", f"-I{BINDINGS}", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
