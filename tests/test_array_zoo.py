"""Arrays of every layout give the same bits as their contiguous copies, and are never written to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import SCALARS, Array, Scalar, assert_identical
from rnnbptt import Gradients, Params
from speed import thinned

T, B, d, h, q = 70, 3, 4, 5, 2


class Subclass(np.ndarray[Any, Any]):
    """An array of another class."""


def read_only(a: Array) -> Array:
    result = a.copy()
    result.flags.writeable = False
    return result


def strided(a: Array) -> Array:
    wide = np.full([2 * n for n in a.shape], 99, a.dtype)
    wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
    return wide[tuple(slice(None, None, 2) for _ in a.shape)]


def part_of_a_larger_one(a: Array) -> Array:
    wide = np.full([n + 3 for n in a.shape], 99, a.dtype)
    inside = tuple(slice(1, n + 1) for n in a.shape)
    wide[inside] = a
    return wide[inside]


def negative_strides(a: Array) -> Array:
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return a[flip].copy()[flip]


def first_axis_backwards(a: Array) -> Array:
    return a[::-1].copy()[::-1]


def broadcast(a: Array) -> Array:
    return np.broadcast_to(a[:1], a.shape)


def broadcast_scalar(a: Array) -> Array:
    return np.broadcast_to(a[(0,) * a.ndim], a.shape)


def broadcast_last(a: Array) -> Array:
    return np.broadcast_to(a[..., :1], a.shape)


def fortran(a: Array) -> Array:
    return np.asfortranarray(a)


def axes_swapped(a: Array) -> Array:
    return a.swapaxes(0, -1).copy().swapaxes(0, -1)


def misaligned(a: Array) -> Array:
    raw = np.empty(a.nbytes + 1, np.uint8)[1:]
    result = raw.view(a.dtype).reshape(a.shape) if a.itemsize == 1 else np.ndarray(a.shape, a.dtype, raw.data)
    result[...] = a
    return result


def inside_a_record(a: Array) -> Array:
    """Strides that are not whole numbers of scalars."""
    record = np.zeros(a.shape, np.dtype([("flag", np.int8), ("value", a.dtype)]))
    record["value"] = a
    return record["value"]


def big_endian(a: Array) -> Array:
    return a.astype(a.dtype.newbyteorder(">"))


def byte_order_spelled_out(a: Array) -> Array:
    """What files are read as: the same dtype by value, another by its letter."""
    spelled = np.frombuffer(a.tobytes(), a.dtype.newbyteorder("<" if sys.byteorder == "little" else ">"))
    return spelled.reshape(a.shape)


def subclass(a: Array) -> Array:
    return a.copy().view(Subclass)


ZOO: dict[str, Callable[[Array], Array]] = {
    f.__name__: f
    for f in (
        read_only,
        strided,
        part_of_a_larger_one,
        negative_strides,
        first_axis_backwards,
        broadcast,
        broadcast_scalar,
        broadcast_last,
        fortran,
        axes_swapped,
        misaligned,
        inside_a_record,
        big_endian,
        byte_order_spelled_out,
        subclass,
    )
}


def arguments(dtype: Scalar, batch: tuple[int, ...] = (B,)) -> dict[str, Array]:
    rng = np.random.default_rng(4)

    def normal(*shape: int) -> Array:
        return (rng.standard_normal(shape) / 2).astype(dtype)

    return {
        "W_hx": normal(h, d),
        "W_hh": normal(h, h),
        "W_qh": normal(q, h),
        "b_h": normal(h),
        "b_q": normal(q),
        "W_qx": normal(q, d),
        "x": normal(T, *batch, d),
        "y": normal(T, *batch, q),
        "labels": rng.integers(0, q, (T, *batch)),
        "h0": normal(*batch, h),
        "weights": rng.uniform(0.1, 1, (T, *batch)).astype(dtype),
        "mask": rng.uniform(size=(T, *batch)) < 0.9,
        "lengths": np.array(rng.integers(1, T + 1, batch)),
        "v": normal(T, *batch, h),
    }


PER_STEP = ("x", "y", "labels", "weights", "mask")


def contiguous(a: Array) -> Array:
    return np.array(a, dtype=a.dtype.newbyteorder("="), order="C", subok=False)


Results = list[Array | float | Gradients]


def everything(a: dict[str, Array], batch_first: bool = False) -> Results:
    """Call every function on these arguments; those in PER_STEP are laid out as `batch_first` says."""
    params = Params(*(a[name] for name in ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx")))
    theta = params.ravel()
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    x, y, labels, weights, mask = (a[name] for name in PER_STEP)
    d_o = y.swapaxes(0, 1) if batch_first else y
    layout: dict[str, Any] = {"batch_first": batch_first}
    steps: dict[str, Any] = {"weights": weights, "mask": mask, "lengths": a["lengths"]} | layout
    results: Results = []
    results += rnnbptt.loss_and_grad(params, x, y, h0=a["h0"], wrt=wrt, **layout)
    results += rnnbptt.loss_and_grad(params, x, y, h0=a["h0"], wrt=wrt, **steps)
    results += rnnbptt.loss_and_grad(params, x, labels, loss="cross_entropy", wrt=wrt, **steps)
    results += rnnbptt.loss_and_grad(params, x, labels, loss="cross_entropy", **layout)
    results += rnnbptt.Objective(x, y, like=params, **steps).flat(theta)
    results += [rnnbptt.vjp(params, x, y, a["h0"], wrt=wrt, lengths=a["lengths"], **layout)]
    results += rnnbptt.forward(params, x, a["h0"], **layout)
    results += [
        rnnbptt.linear_scan(a["W_hh"], a["v"], a["h0"]),
        rnnbptt.linear_scan(a["W_hh"], a["v"], a["h0"], reverse=True, transpose=True),
        rnnbptt.matrix_powers(a["W_hh"], 5),
    ]
    results += [rnnbptt.state_gradients(params, d_o, method=m) for m in ("recursion", "closed_form", "scan")]
    return results


def assert_results_identical(actual: Results, expected: Results) -> None:
    for number, (r, e) in enumerate(zip(actual, expected, strict=True)):
        if isinstance(e, Gradients):
            assert isinstance(r, Gradients)
            assert_identical(r, e)
            assert {type(array) for _, array in r.items()} == {np.ndarray}
        elif isinstance(e, np.ndarray):
            assert type(r) is np.ndarray
            assert r.tobytes() == e.tobytes(), number
        else:
            assert r == e, number


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("variety", "argument"), thinned(product(ZOO, arguments(np.float64)), 5))
def test_every_layout_of_every_argument(variety: str, argument: str, dtype: Scalar) -> None:
    given = arguments(dtype)
    odd = ZOO[variety](given[argument])
    assert odd.shape == given[argument].shape
    before = odd.tobytes()
    actual = everything(given | {argument: odd})
    assert odd.tobytes() == before
    assert_results_identical(actual, everything(given | {argument: contiguous(odd)}))


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("variety", "argument"), thinned(product(ZOO, PER_STEP), 3))
def test_every_layout_of_every_argument_batch_first(variety: str, argument: str, dtype: Scalar) -> None:
    given = arguments(dtype)
    given |= {name: given[name].swapaxes(0, 1).copy() for name in PER_STEP}
    odd = ZOO[variety](given[argument])
    before = odd.tobytes()
    actual = everything(given | {argument: odd}, True)
    assert odd.tobytes() == before
    assert_results_identical(actual, everything(given | {argument: contiguous(odd)}, True))


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize(("variety", "argument"), thinned(product(ZOO, [*PER_STEP, "h0", "v"]), 3))
def test_every_layout_of_every_argument_without_a_batch(variety: str, argument: str, dtype: Scalar) -> None:
    given = arguments(dtype, ())
    odd = ZOO[variety](given[argument])
    before = odd.tobytes()
    actual = everything(given | {argument: odd})
    assert odd.tobytes() == before
    assert_results_identical(actual, everything(given | {argument: contiguous(odd)}))


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("variety", ZOO)
def test_every_layout_of_all_arguments_at_once(variety: str, dtype: Scalar) -> None:
    given = arguments(dtype)
    odd = {name: ZOO[variety](a) for name, a in given.items()}
    plain = {name: contiguous(a) for name, a in odd.items()}
    assert_results_identical(everything(odd), everything(plain))


@pytest.mark.parametrize("dtype", SCALARS)
def test_memory_maps(dtype: Scalar, tmp_path: Path) -> None:
    given = arguments(dtype)
    mapped: dict[str, Array] = {}
    for name, a in given.items():
        np.save(tmp_path / f"{name}.npy", a)
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    assert_results_identical(everything(mapped), everything(given))


@pytest.mark.parametrize("variety", ZOO)
def test_every_layout_of_theta(variety: str) -> None:
    params = Params.random(d, h, q, biases=True, rng=1)
    given = arguments(np.float64)
    objective = rnnbptt.Objective(given["x"], given["y"], like=params)
    odd = ZOO[variety](params.ravel())
    plain = contiguous(odd)
    loss, gradient = objective.flat(odd)
    expected_loss, expected = objective.flat(plain)
    assert loss == expected_loss
    assert gradient.tobytes() == expected.tobytes()
    assert [a.tobytes() for _, a in params.unravel(odd).items()] == [
        a.tobytes() for _, a in params.unravel(plain).items()
    ]


@pytest.mark.parametrize("dtype", SCALARS)
def test_lists_and_integers_are_arrays_too(dtype: Scalar) -> None:
    params = Params.random(2, 3, 1, rng=2, dtype=dtype)
    x = np.arange(10).reshape(5, 2).astype(np.int16)
    expected = rnnbptt.forward(params, x.astype(dtype))
    for same in (x, x.astype(np.uint8), x.astype(np.float16)):
        assert rnnbptt.forward(params, same).o.tobytes() == expected.o.tobytes()
    if dtype is np.float64:
        assert rnnbptt.forward(params, x.tolist()).o.tobytes() == expected.o.tobytes()
        assert rnnbptt.forward(params, x.astype(np.float32)).o.tobytes() == expected.o.tobytes()
    assert Params([[1]], [[2]], [[3]]).dtype == np.float64


# --- inputs and results -------------------------------------------------------------------------------------


def test_inputs_are_never_written_to() -> None:
    given = arguments(np.float64)
    before = {name: a.tobytes() for name, a in given.items()}
    everything(given)
    assert {name: a.tobytes() for name, a in given.items()} == before


def test_results_share_no_memory_with_inputs() -> None:
    given = arguments(np.float64)
    results: list[Array] = []
    for result in everything(given):
        if isinstance(result, Gradients):
            results += [a for _, a in result.items()]
        elif isinstance(result, np.ndarray):
            results.append(result)
    for array in results:
        assert array.flags.owndata or array.base is not None
        assert array.flags.writeable
        assert not any(np.shares_memory(array, a) for a in given.values())


# --- out= ---------------------------------------------------------------------------------------------------

Producer = Callable[..., Any]


def producers(dtype: Scalar) -> dict[str, tuple[Producer, tuple[int, ...]]]:
    given = arguments(dtype)
    params = Params(given["W_hx"], given["W_hh"], given["W_qh"])
    W, v = given["W_hh"], given["v"]

    def states(out: Any) -> Any:
        pair = None if out is None else (out, np.empty((T, B, q), dtype))
        return rnnbptt.forward(params, given["x"], out=pair).hidden

    def outputs(out: Any) -> Any:
        pair = None if out is None else (np.empty((T, B, h), dtype), out)
        return rnnbptt.forward(params, given["x"], out=pair).o

    return {
        "hidden": (states, (T, B, h)),
        "o": (outputs, (T, B, q)),
        "linear_scan": (lambda out: rnnbptt.linear_scan(W, v, out=out), (T, B, h)),
        "state_gradients": (lambda out: rnnbptt.state_gradients(params, given["y"], out=out), (T, B, h)),
        "closed_form": (
            lambda out: rnnbptt.state_gradients(params, given["y"], method="closed_form", out=out),
            (T, B, h),
        ),
        "matrix_powers": (lambda out: rnnbptt.matrix_powers(W, 4, out=out), (5, h, h)),
    }


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("name", list(producers(np.float64)))
def test_out(name: str, dtype: Scalar) -> None:
    produce, shape = producers(dtype)[name]
    expected = produce(None)
    assert expected.shape == shape
    out = np.full(shape, np.nan, dtype)
    assert produce(out) is out
    assert out.tobytes() == expected.tobytes()
    other = np.float32 if dtype is np.float64 else np.float64
    with pytest.raises(TypeError, match=r"(out|hidden|o) must have dtype"):
        produce(np.empty(shape, other))
    with pytest.raises(TypeError, match=r"(out|hidden|o) must have dtype"):
        produce(np.empty(shape, np.dtype(dtype).newbyteorder(">")))
    with pytest.raises(TypeError, match=r"(out|hidden|o) must be a NumPy array"):
        produce([[1.0]])
    with pytest.raises(ValueError, match=r"(out|hidden|o) must have shape"):
        produce(np.empty((*shape[:-1], shape[-1] + 1), dtype))
    with pytest.raises(ValueError, match=r"(out|hidden|o) must be C-contiguous"):
        produce(np.empty(shape, dtype, order="F"))
    with pytest.raises(ValueError, match=r"(out|hidden|o) must be C-contiguous and aligned"):
        produce(misaligned(np.zeros(shape, dtype)))
    with pytest.raises(ValueError, match=r"(out|hidden|o) must be writeable"):
        produce(read_only(np.zeros(shape, dtype)))


def test_out_must_not_overlap_an_input() -> None:
    given = arguments(np.float64)
    params = Params(given["W_hx"], given["W_hh"], given["W_qh"])
    square = Params(np.eye(h), given["W_hh"], np.eye(h))
    memory = np.zeros((T + 1, B, h))
    memory[:-1] = given["v"]
    with pytest.raises(ValueError, match="out must not overlap an input"):
        rnnbptt.linear_scan(given["W_hh"], memory[:-1], out=memory[1:])
    with pytest.raises(ValueError, match="out must not overlap an input"):
        rnnbptt.linear_scan(given["W_hh"], memory[:-1], memory[0], out=memory[:-1])
    for method in ("recursion", "closed_form"):
        with pytest.raises(ValueError, match="out must not overlap an input"):
            rnnbptt.state_gradients(square, memory[:-1], method=method, out=memory[1:])
    with pytest.raises(ValueError, match="hidden must not overlap an input"):
        rnnbptt.forward(square, memory[:-1], out=(memory[1:], np.empty((T, B, h))))
    with pytest.raises(ValueError, match="o must not overlap an input"):
        rnnbptt.forward(square, given["v"], out=(memory[1:], memory[:-1]))
    powers = np.empty((2, h, h))
    powers[1] = given["W_hh"]
    with pytest.raises(ValueError, match="out must not overlap an input"):
        rnnbptt.matrix_powers(powers[1], 1, out=powers)
    with pytest.raises(TypeError, match="out must be a pair of arrays"):
        rnnbptt.forward(params, given["x"], out=np.empty(3))  # type: ignore[arg-type]  # that is the test
