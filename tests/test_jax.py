"""The linear RNN in JAX: values, derivatives of every order, transforms, trees, bad input."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from tolerances import FORMS, gradient_bound, relative_error

if importlib.util.find_spec("jax") is None:
    pytest.skip("jax is not installed: nox -s peers", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax.test_util import check_grads

import rnnbptt.jax
from rnnbptt.jax import linear_rnn

pytestmark = pytest.mark.usefixtures("jax_float64")

Array = NDArray[Any]
NAMES = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "h0", "x")
T, B, D, H, Q = 5, 2, 2, 3, 2
EVERY = (0, 1, 2)


def draw(
    shape: tuple[int, int, int, int, int] = (T, B, D, H, Q), dtype: Any = np.float64
) -> tuple[rnnbptt.Params, Array, Array]:
    steps, batch, d, h, q = shape
    rng = np.random.default_rng(sum(shape))
    params = rnnbptt.Params.random(d, h, q, biases=True, direct=True, rng=rng, dtype=dtype)
    x = rng.standard_normal((steps, batch, d)).astype(dtype)
    return params, x, rng.standard_normal((batch, h)).astype(dtype)


def loop(p: Any, x: Any, h0: Any) -> Any:
    """Run the network as JAX's users write it."""

    def step(state: Any, u: Any) -> Any:
        state = state @ p.W_hh.T + u @ p.W_hx.T + p.b_h
        return state, state @ p.W_qh.T + u @ p.W_qx.T + p.b_q

    state, o = jax.lax.scan(step, h0, x)
    return o, state


def both(p: Any, x: Any, h0: Any) -> Any:
    return linear_rnn(p, x, h0, return_state=True)


def scalar(function: Any) -> Any:
    return lambda *args: sum(jnp.sin(r).sum() for r in function(*args))


def assert_close(actual: Any, expected: Any, tolerance: float = FORMS) -> None:
    pairs = list(zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True))
    assert pairs
    for a, b in pairs:
        assert relative_error(np.asarray(a), np.asarray(b)) <= tolerance


# --- values and gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (60, 3, 2, 5, 4), (700, 1, 2, 16, 2)])
def test_outputs_last_state_and_gradients_beside_the_oracle(shape: Any, dtype: Any) -> None:
    params, x, h0 = draw(shape, dtype)
    y = np.random.default_rng(1).standard_normal((*x.shape[:2], shape[4])).astype(dtype)
    o, h_T = both(params, x, h0)
    assert o.dtype == h_T.dtype == dtype
    expected = rnnbptt.reference.forward(params, x, h0)
    tolerance = 8 * gradient_bound(dtype, shape[3], shape[0], 0.95)
    assert relative_error(np.asarray(o), expected.o) <= tolerance
    assert relative_error(np.asarray(h_T), expected.hidden[-1]) <= tolerance
    loss = jax.jit(jax.grad(lambda *args: jnp.mean((linear_rnn(*args) - y) ** 2), EVERY))
    d_params, d_x, d_h0 = loss(params, x, h0)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    _, gradients = rnnbptt.reference.oracle(params, x, y, h0=h0, wrt=wrt)
    found = {**dict(d_params.items()), "h0": np.asarray(d_h0), "x": np.asarray(d_x)}
    for name, gradient in gradients.items():
        assert found[name].dtype == dtype
        # dL/do is rounded by the loss, which the bound of a gradient does not count.
        assert relative_error(found[name], gradient) <= tolerance, name


def test_without_optional_terms_or_state_or_batch() -> None:
    params = rnnbptt.Params.random(D, H, Q, rng=0)
    x = np.random.default_rng(0).standard_normal((T, D))
    o, h_T = linear_rnn(params, x, return_state=True)
    expected = rnnbptt.forward(params, x)
    assert relative_error(np.asarray(o), expected.o) <= FORMS
    assert relative_error(np.asarray(h_T), expected.hidden[-1]) <= FORMS
    gradient = jax.grad(lambda p: linear_rnn(p, x).sum())(params)
    assert gradient.b_h is None
    assert_close(list(dict(gradient.items()).values()), list(rnnbptt.vjp(params, x, np.ones((T, Q)))))


def test_batch_first() -> None:
    params, x, h0 = draw()
    o = linear_rnn(params, x.swapaxes(0, 1), h0, batch_first=True)
    assert np.array_equal(o.swapaxes(0, 1), linear_rnn(params, x, h0))


@pytest.mark.parametrize("steps", [1_000, 100_000])
def test_long_sequences_under_jit_again_and_again(steps: int) -> None:
    params, _, _ = draw((1, 1, 4, 24, 4))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((steps, 1, 4)))
    step = jax.jit(jax.value_and_grad(lambda p, x: jnp.mean(linear_rnn(p, x) ** 2)))
    results = [step(params, x) for _ in range(5)]
    loss, gradients = rnnbptt.loss_and_grad(params, np.asarray(x), np.zeros((steps, 1, 4)))
    for value, gradient in results:
        assert relative_error(float(value), loss) <= FORMS
        assert_close(gradient, list(gradients))


def test_only_what_is_differentiated_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    original = rnnbptt.bridge.pull

    def watched(point: Any, cotangents: Any, wrt: Any, *rest: Any) -> Any:
        asked.append((tuple(wrt), cotangents[1] is None))
        return original(point, cotangents, wrt, *rest)

    monkeypatch.setattr(rnnbptt.bridge, "pull", watched)
    params, x, h0 = draw()
    jax.grad(lambda x: linear_rnn(params, x, h0).sum())(x)
    jax.grad(lambda b: linear_rnn(dict(params.items()) | {"b_q": b}, x, h0).sum())(params.b_q)
    assert asked == [(("x",), True), (("b_q",), True)]


# --- derivatives of every order -----------------------------------------------------------------------------


def test_jacobians_in_both_modes() -> None:
    args = draw()
    expected = jax.jit(jax.jacrev(loop, EVERY))(*args)
    assert_close(jax.jacrev(both, EVERY)(*args), expected)
    assert_close(jax.jit(jax.jacfwd(both, EVERY))(*args), expected)


def test_hessians_in_all_four_ways() -> None:
    params, x, h0 = draw((3, 1, 1, 2, 1))

    def of(function: Any) -> Any:
        return lambda W_hh, x: scalar(function)(
            rnnbptt.Gradients(**dict(params.items()) | {"W_hh": W_hh}), x, h0
        )

    expected = jax.jit(jax.hessian(of(loop), (0, 1)))(params.W_hh, x)
    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            assert_close(jax.jit(outer(inner(of(both), (0, 1)), (0, 1)))(params.W_hh, x), expected)


def test_numerical_derivatives_in_every_direction() -> None:
    args = draw((3, 1, 1, 2, 1))
    check_grads(both, args, order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-5)


def test_third_derivatives() -> None:
    def third(function: Any) -> Any:
        def first(p: Any, x: Any, h0: Any) -> Any:
            return jnp.sin(jax.grad(scalar(function))(p, x, h0).W_hh).sum()

        def second(p: Any, x: Any, h0: Any) -> Any:
            return jnp.sin(jax.grad(first, 1)(p, x, h0)).sum()

        return jax.jit(jax.grad(second, EVERY))(*draw((3, 1, 1, 2, 1)))

    assert_close(third(both), third(loop))


# --- transforms ---------------------------------------------------------------------------------------------


def test_vmap() -> None:
    params, x, h0 = draw()
    more_x = np.stack([x, 2 * x, -x], 1)
    several = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    for axes, args in (((None, 1, None), (params, more_x, h0)), ((0, None, None), (several, x, h0))):
        assert_close(jax.jit(jax.vmap(both, axes))(*args), jax.jit(jax.vmap(loop, axes))(*args))
    axes = (None, 1, None)
    ours, theirs = (jax.vmap(jax.grad(scalar(f), EVERY), axes) for f in (both, loop))
    assert_close(jax.jit(ours)(params, more_x, h0), jax.jit(theirs)(params, more_x, h0))


def test_vmap_over_inputs_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    original = rnnbptt.bridge.run

    def watched(point: Any, *rest: Any) -> Any:
        shapes.append(point[7].shape)
        return original(point, *rest)

    monkeypatch.setattr(rnnbptt.bridge, "run", watched)
    params, x, h0 = draw()
    jax.vmap(both, (None, 0, None))(params, np.stack([x] * 4), h0)
    assert shapes == [(T, 4 * B, D)]


# --- trees --------------------------------------------------------------------------------------------------


def test_parameters_in_any_holder() -> None:
    params, x, h0 = draw()
    expected = linear_rnn(params, x, h0)
    mapping = {name: jnp.asarray(array) for name, array in params.items()}
    assert np.array_equal(linear_rnn(mapping, x, h0), expected)
    fields = rnnbptt.Gradients(**dict(params.items()))
    assert np.array_equal(linear_rnn(fields, x, h0), expected)
    gradient = jax.grad(lambda p: linear_rnn(p, x, h0).sum())
    assert isinstance(gradient(fields), rnnbptt.Gradients)
    assert set(gradient(mapping)) == set(mapping)


def test_params_are_a_tree_and_stay_checked_where_they_hold_numbers() -> None:
    params, x, h0 = draw()
    gradient = jax.jit(jax.grad(lambda p: linear_rnn(p, x, h0).sum()))(params)
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
    assert isinstance(moved, rnnbptt.Params)
    assert relative_error(rnnbptt.forward(moved, x, h0).o, np.asarray(linear_rnn(moved, x, h0))) <= FORMS
    assert jax.tree.leaves(jax.tree.map(lambda _: True, params)) == [True] * 6
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    assert stacked.W_hh.shape == (2, H, H)


# --- bad input ----------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused_by_name() -> None:
    params, x, h0 = draw()
    weights = dict(params.items())
    for name in NAMES:
        for bad, words in (
            ([1.0], "must be an array"),
            (np.zeros(3, complex), "must be float32 or float64"),
            (np.zeros(3, np.float16), "must be float32 or float64"),
            (np.zeros(3, int), "must be float32 or float64"),
        ):
            given = {**weights, "x": x, "h0": h0, name: bad}
            with pytest.raises(TypeError, match=f"^{name} {words}"):
                linear_rnn({n: given[n] for n in weights}, given["x"], given["h0"])
        given = {**weights, "x": x, "h0": h0, name: np.zeros((1, 7, 9, 1))}
        with pytest.raises(ValueError, match=f"^{name} must"):
            linear_rnn({n: given[n] for n in weights}, given["x"], given["h0"])
    with pytest.raises(TypeError, match=r"^x must have the dtype of W_hh, float64, not float32"):
        jax.jit(linear_rnn)(params, x.astype(np.float32))
    with pytest.raises(ValueError, match=r"^x must have at least one step"):
        linear_rnn(params, x[:0])
    with pytest.raises(TypeError, match=r"^params must hold W_hx"):
        linear_rnn({}, x)
    with pytest.raises(ValueError, match=r"^params must hold some of .*'W_hq'"):
        linear_rnn({**weights, "W_hq": x}, x)
    with pytest.raises(TypeError, match=r"^batch_first must"):
        linear_rnn(params, x, batch_first=1)  # type: ignore[call-overload]


def test_float32_without_x64() -> None:
    code = """
import numpy as np, rnnbptt, rnnbptt.jax
params = rnnbptt.Params.random(2, 3, 2, rng=0)
assert rnnbptt.jax.linear_rnn(params, np.ones((4, 2))).dtype == np.float32
"""
    subprocess.run([sys.executable, "-c", code], check=True)
