"""The module of PyTorch where tensors are not plain, and tensors given to the functions of NumPy arrays."""

from __future__ import annotations

import copy
import importlib.util
import multiprocessing
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rnnbptt

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed: nox -s peers", allow_module_level=True)

import torch
from torch._subclasses import FakeTensorMode

import rnnbptt.torch
from rnnbptt.torch import LinearRNN, linear_rnn

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")

PARAMS = rnnbptt.Params.random(2, 4, 1, biases=True, rng=0)


# --- half precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
def test_autocast_widens_half_precision(half: Any, weights: Any) -> None:
    model = LinearRNN.from_params(PARAMS).to(weights)
    x = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)).to(half).requires_grad_()
    h0 = torch.ones(3, 4, dtype=half)
    expected, _ = model(x.detach().to(weights), h0.to(weights), return_state=True)
    with torch.autocast("cpu", dtype=half):
        o, h_T = model(x, h0, return_state=True)
    assert o.dtype == h_T.dtype == weights
    assert torch.equal(o, expected)
    o.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == half
    assert model.W_hh.grad is not None
    assert model.W_hh.grad.dtype == weights


def test_autocast_of_a_whole_model_trains() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), LinearRNN(2, 4, 1))
    with torch.autocast("cpu"):
        loss = model(torch.randn(6, 3, 2)).square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_weights_of_half_precision_are_widened_under_autocast_alone() -> None:
    model = LinearRNN(2, 4, 1).bfloat16()
    with torch.autocast("cpu"):
        assert model(torch.ones(5, 3, 2)).dtype == torch.float32
    with pytest.raises(TypeError, match=r"W_hh must be torch\.float32 or torch\.float64, not torch\.bf"):
        model(torch.ones(5, 3, 2))


# --- copies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda: LinearRNN(2, 4, 1), lambda: LinearRNN.from_params(PARAMS)])
def test_modules_and_functions_pickle(build: Callable[[], Any]) -> None:
    model = build()
    x = torch.ones(5, 3, 2, dtype=model.W_hh.dtype)
    model(x).sum().backward()
    expected = model(x)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(model, protocol))
        assert torch.equal(again(x), expected)
        assert repr(again) == repr(model)
        assert pickle.loads(pickle.dumps(linear_rnn, protocol)) is linear_rnn
    assert torch.equal(copy.copy(model)(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    still = copy.deepcopy(model).requires_grad_(False)  # what has a gradient does not come back
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert torch.equal(pool.apply(still, (x,)), expected)


# --- shapes without numbers ---------------------------------------------------------------------------------


def test_on_the_meta_device_it_builds_as_other_modules_do() -> None:
    with torch.device("meta"):
        model = LinearRNN(2, 4, 1, direct=True)
        linear = torch.nn.Linear(2, 4)
    assert all(p.is_meta == linear.weight.is_meta for p in model.parameters())
    assert [n for n, _ in model.named_parameters()] == ["W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx"]
    model.reset_parameters()
    o, h_T = model(torch.ones(5, 3, 2, device="meta"), return_state=True)
    assert (o.shape, h_T.shape, o.is_meta) == ((5, 3, 1), (3, 4), True)
    ready = model.to_empty(device="cpu")
    torch.manual_seed(3)
    ready.reset_parameters()
    torch.manual_seed(3)
    same = LinearRNN(2, 4, 1, direct=True)
    assert torch.equal(ready(torch.ones(5, 3, 2)), same(torch.ones(5, 3, 2)))


def test_with_fake_tensors_it_builds_and_runs() -> None:
    with FakeTensorMode():
        model = LinearRNN(2, 4, 1)
        model.reset_parameters()
        o = model(torch.ones(5, 3, 2))
        o.sum().backward()
    assert o.shape == (5, 3, 1)
    assert model.W_hh.grad is not None
    assert model.W_hh.grad.shape == (4, 4)


def test_arguments_are_checked_where_there_are_no_numbers() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="kind must be one of"):
        LinearRNN(2, 4, 1, kind="odd")  # type: ignore[arg-type]


# --- messages -----------------------------------------------------------------------------------------------

module, wide = LinearRNN(2, 4, 1), LinearRNN(2, 4, 1).double()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of a prototype
    nested = torch.nested.nested_tensor([torch.ones(5, 2), torch.ones(3, 2)])
asked = torch.ones(5, 2, requires_grad=True)
REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: module(torch.ones(5, 2).double()), r"x must have the dtype of W_hh.*\.double\(\)"),
    (lambda: wide(torch.ones(5, 2)), r"x must have the dtype of W_hh.*x\.double\(\)"),
    (lambda: module(nested), "x must be a dense tensor, not a nested one"),
    (lambda: module(torch.ones(5, 3, 2, device="meta")), "x must be on the CPU, not on device 'meta'"),
    (lambda: linear_rnn([[1.0]], *module.parameters()), "x must be a torch.Tensor, not list"),
    (lambda: LinearRNN(2, 4, 1, dtype=10**5000), "dtype must be torch.float32 or torch.float64, not int"),
    (lambda: rnnbptt.forward(PARAMS, asked), "x must be an array of numbers .* requires grad"),
    (lambda: rnnbptt.spectral_report(torch.eye(3, requires_grad=True)), "W_hh must be .* requires grad"),
    (lambda: rnnbptt.Params(asked[:4], PARAMS.W_hh, PARAMS.W_qh), "W_hx must be .* requires grad"),
    (lambda: rnnbptt.forward(PARAMS, asked.detach().bfloat16()), "x must be .*BFloat16"),
    (lambda: rnnbptt.forward(PARAMS, asked.to("meta")), "x must be .*meta"),
    (lambda: rnnbptt.forward(PARAMS, nested), "x must be"),
    (lambda: rnnbptt.spectral_report(module), r"W_hh must be a square matrix, not LinearRNN"),
]


@pytest.mark.parametrize("call", [call for call, _ in REFUSED], ids=[words for _, words in REFUSED])
def test_tensors_that_do_not_fit_are_named(call: Callable[[], Any]) -> None:
    words = next(words for other, words in REFUSED if other is call)
    with pytest.raises(TypeError, match=words):
        call()


def test_tensors_that_fit_are_arrays() -> None:
    x = torch.ones(5, 2, dtype=torch.float64)
    assert np.array_equal(rnnbptt.forward(PARAMS, x).o, rnnbptt.forward(PARAMS, x.numpy()).o)
