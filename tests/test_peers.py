"""Gradients beside those of automatic differentiation elsewhere; ``nox -s peers`` installs the others."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from tolerances import FORMS, relative_error

Array = NDArray[Any]
SHAPES = [(1, 1, 1, 1, 1), (50, 3, 2, 5, 4), (400, 1, 3, 24, 2)]


def absent(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed: nox -s peers"
    )


def draw(shape: tuple[int, ...]) -> tuple[rnnbptt.Params, Array, Array, Array]:
    T, B, d, h, q = shape
    rng = np.random.default_rng(sum(shape))
    params = rnnbptt.Params.random(d, h, q, biases=True, direct=True, rng=rng)
    x, y = rng.standard_normal((T, B, d)), rng.standard_normal((T, B, q))
    return params, x, y, rng.standard_normal((B, h))


def check(loss: float, found: dict[str, Array], shape: tuple[int, ...]) -> None:
    params, x, y, h0 = draw(shape)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    expected, gradients = rnnbptt.loss_and_grad(params, x, y, h0=h0, wrt=wrt)
    assert relative_error(loss, expected) <= FORMS
    for name, gradient in gradients.items():
        assert relative_error(gradient, found[name]) <= FORMS, name


@absent("torch")
@pytest.mark.parametrize("shape", SHAPES)
def test_torch_autograd_agrees(shape: tuple[int, ...]) -> None:
    import torch

    params, x, y, h0 = draw(shape)
    leaves = {
        name: torch.tensor(array, requires_grad=True)
        for name, array in [*params.items(), ("h0", h0), ("x", x)]
    }
    state, outputs = leaves["h0"], []
    for step in leaves["x"]:
        state = state @ leaves["W_hh"].T + step @ leaves["W_hx"].T + leaves["b_h"]
        outputs.append(state @ leaves["W_qh"].T + step @ leaves["W_qx"].T + leaves["b_q"])
    loss = torch.nn.functional.mse_loss(torch.stack(outputs), torch.tensor(y))
    loss.backward()
    check(float(loss.detach()), {name: leaf.grad.numpy() for name, leaf in leaves.items()}, shape)


@absent("jax")
@pytest.mark.usefixtures("jax_float64")
@pytest.mark.parametrize("shape", SHAPES)
def test_jax_grad_agrees(shape: tuple[int, ...]) -> None:
    import jax

    params, x, y, h0 = draw(shape)
    leaves = {name: jax.numpy.asarray(array) for name, array in [*params.items(), ("h0", h0), ("x", x)]}

    def loss(p: dict[str, Any]) -> Any:
        def step(state: Any, u: Any) -> tuple[Any, Any]:
            state = state @ p["W_hh"].T + u @ p["W_hx"].T + p["b_h"]
            return state, state @ p["W_qh"].T + u @ p["W_qx"].T + p["b_q"]

        _, o = jax.lax.scan(step, p["h0"], p["x"])
        return jax.numpy.mean((o - y) ** 2)

    value, gradients = jax.jit(jax.value_and_grad(loss))(leaves)
    check(float(value), {name: np.asarray(array) for name, array in gradients.items()}, shape)
