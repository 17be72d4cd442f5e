"""The linear RNN in PyTorch: values, derivatives of every order, transforms, modules, bad input."""

from __future__ import annotations

import copy
import doctest
import importlib.util
import io
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import rnnbptt
from tolerances import FORMS, gradient_bound, relative_error

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed: nox -s peers", allow_module_level=True)

import torch

import rnnbptt.torch
from rnnbptt.torch import LinearRNN, linear_rnn, operator

# PyTorch deprecates parts of itself that it still uses.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")

Array = NDArray[Any]
NAMES = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx", "h0", "x")
T, B, D, H, Q = 5, 2, 2, 3, 2


def draw(
    shape: tuple[int, int, int, int, int] = (T, B, D, H, Q), dtype: Any = np.float64, *, optional: bool = True
) -> tuple[rnnbptt.Params, Array, Array]:
    steps, batch, d, h, q = shape
    rng = np.random.default_rng(sum(shape))
    params = rnnbptt.Params.random(d, h, q, biases=optional, direct=optional, rng=rng, dtype=dtype)
    x = rng.standard_normal((steps, batch, d)).astype(dtype)
    return params, x, rng.standard_normal((batch, h)).astype(dtype)


def leaves(params: rnnbptt.Params, x: Array, h0: Array | None, *, grad: bool = True) -> dict[str, Any]:
    arrays = {**dict(params.items()), "x": x} | ({} if h0 is None else {"h0": h0})
    return {name: torch.tensor(array, requires_grad=grad) for name, array in arrays.items()}


def loop(*tensors: Any) -> tuple[Any, Any]:
    """Run the network as PyTorch's users write it."""
    x, W_hx, W_hh, W_qh, b_h, b_q, W_qx, h0 = tensors
    state, outputs = h0, []
    for step in x.unbind(0):
        state = state @ W_hh.T + step @ W_hx.T + b_h
        outputs.append(state @ W_qh.T + step @ W_qx.T + b_q)
    return torch.stack(outputs), state


def both(*tensors: Any, **options: Any) -> Any:
    return linear_rnn(*tensors, return_state=True, **options)


def tensors() -> list[Any]:
    params, x, h0 = draw()
    return [torch.tensor(array) for array in (x, *(a for _, a in params.items()), h0)]


def scalar(function: Any) -> Any:
    return lambda *args: sum(r.sin().sum() for r in function(*args))


def assert_close(actual: Any, expected: Any) -> None:
    flat = torch.utils._pytree.tree_leaves
    pairs = list(zip(flat(actual), flat(expected), strict=True))
    assert pairs
    for a, b in pairs:
        assert relative_error(a.detach(), b.detach()) <= FORMS


# --- values and gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1), (60, 3, 2, 5, 4), (700, 1, 2, 16, 2), (3000, 40, 1, 9, 1)]
)
def test_outputs_last_state_and_gradients_beside_the_oracle(shape: Any, dtype: Any) -> None:
    params, x, h0 = draw(shape, dtype)
    given = leaves(params, x, h0)
    y = np.random.default_rng(1).standard_normal((*x.shape[:2], shape[4])).astype(dtype)
    o, h_T = linear_rnn(**given, return_state=True)
    expected = rnnbptt.reference.forward(params, x, h0)
    tolerance = 8 * gradient_bound(dtype, shape[3], shape[0], 0.95)
    assert relative_error(o.detach(), expected.o) <= tolerance
    assert relative_error(h_T.detach(), expected.hidden[-1]) <= tolerance
    torch.nn.functional.mse_loss(o, torch.tensor(y)).backward()
    wrt = [name for name in NAMES if name in given]
    _, gradients = rnnbptt.reference.oracle(params, x, y, h0=h0, wrt=wrt)
    for name, gradient in gradients.items():
        assert given[name].grad.dtype == given[name].dtype
        # dL/do is rounded by the loss, which the bound of a gradient does not count.
        assert relative_error(given[name].grad, gradient) <= tolerance, name


def test_without_optional_terms_or_state_or_batch() -> None:
    params, x, _ = draw(optional=False)
    given = leaves(params, x[:, 0], None)
    o, h_T = linear_rnn(**given, return_state=True)
    assert o.shape == (T, Q)
    assert h_T.shape == (H,)
    (o.sum() + 3 * h_T.sum()).backward()
    expected = rnnbptt.vjp(
        params, x[:, 0], np.ones((T, Q)), d_hT=np.full(H, 3.0), wrt=["W_hx", "W_hh", "W_qh", "x"]
    )
    for name, gradient in expected.items():
        assert relative_error(given[name].grad, gradient) <= FORMS, name


def test_batch_first_is_the_same_without_a_copy() -> None:
    params, x, h0 = draw()
    first, second = leaves(params, x, h0), leaves(params, x.swapaxes(0, 1), h0)
    o, h_T = linear_rnn(**first, return_state=True)
    p, s = linear_rnn(**second, batch_first=True, return_state=True)
    assert torch.equal(o, p.movedim(0, 1))
    assert torch.equal(h_T, s)
    (o.sin().sum() + h_T.sum()).backward()
    (p.sin().sum() + s.sum()).backward()
    for name in first:
        a, b = first[name].grad, second[name].grad
        assert relative_error(a, b.movedim(0, 1) if name == "x" else b) <= FORMS, name


def test_memory_is_shared_with_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    original = rnnbptt.bridge.run

    def watched(point: Any, *rest: Any) -> Any:
        seen.append(point)
        return original(point, *rest)

    monkeypatch.setattr(rnnbptt.bridge, "run", watched)
    given = leaves(*draw())
    linear_rnn(**given)
    for name, array in zip(NAMES, seen[0], strict=True):
        assert array.__array_interface__["data"][0] == given[name].data_ptr(), name


def test_only_the_last_state_and_only_the_outputs() -> None:
    args = tensors()
    for pick in (0, 1):
        ours, theirs = ([t.clone().requires_grad_() for t in args] for _ in range(2))
        both(*ours)[pick].sin().sum().backward()
        loop(*theirs)[pick].sin().sum().backward()
        for a, b in zip(ours, theirs, strict=True):
            # The last state does not see W_qh, b_q and W_qx.
            assert relative_error(a.grad, torch.zeros_like(b) if b.grad is None else b.grad) <= FORMS


@pytest.mark.parametrize("wanted", [("x",), ("h0",), ("b_q",), ("W_hh", "x"), ()])
def test_only_what_requires_grad_is_computed(
    wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    original = rnnbptt.bridge.pull

    def watched(point: Any, cotangents: Any, wrt: Any, *rest: Any) -> Any:
        asked.append(tuple(wrt))
        return original(point, cotangents, wrt, *rest)

    monkeypatch.setattr(rnnbptt.bridge, "pull", watched)
    given = leaves(*draw(), grad=False)
    for name in wanted:
        given[name].requires_grad_()
    o = linear_rnn(**given)
    assert o.requires_grad == bool(wanted)
    if wanted:
        o.sum().backward()
        assert asked == [wanted]
        assert {name for name in given if given[name].grad is not None} == set(wanted)
    with torch.no_grad():
        assert not linear_rnn(**given).requires_grad


def test_any_layout_gives_the_bits_of_the_contiguous_copy() -> None:
    params, x, h0 = draw()
    given = leaves(params, x, h0, grad=False)
    o = linear_rnn(**given)
    wide = torch.zeros(2 * T, B, 3 * D, dtype=torch.float64)
    wide[::2, :, ::3] = given["x"]
    layouts = dict(given, x=wide[::2, :, ::3], W_hh=given["W_hh"].T.contiguous().T)
    layouts["x"].requires_grad_()
    p = linear_rnn(**layouts)
    assert torch.equal(o, p)
    p.sum().backward()  # its gradient has strides of zero
    assert layouts["x"].grad is not None
    alike = dict(given, x=given["x"][:1].expand(T, B, D))
    assert torch.equal(linear_rnn(**alike), linear_rnn(**(alike | {"x": alike["x"].contiguous()})))


# --- derivatives of every order -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_gradcheck_and_gradgradcheck_in_both_modes(batch_first: bool) -> None:
    args = [t.requires_grad_() for t in tensors()]
    if batch_first:
        args[0] = args[0].detach().movedim(0, 1).requires_grad_()

    def function(*tensors: Any) -> Any:
        return both(*tensors, batch_first=batch_first)

    assert torch.autograd.gradcheck(function, args, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, args, check_fwd_over_rev=True, fast_mode=True)


def test_third_derivatives() -> None:
    def third(function: Any) -> Any:
        args = [t.requires_grad_() for t in tensors()]
        (first,) = torch.autograd.grad(scalar(function)(*args), args[2], create_graph=True)
        (second,) = torch.autograd.grad(first.sin().sum(), args[1], create_graph=True)
        return torch.autograd.grad(second.sin().sum(), args)

    assert_close(third(both), third(loop))


def test_transforms_of_torch_func() -> None:
    func = torch.func
    args = tensors()
    every = tuple(range(8))
    assert_close(func.jacrev(both, every)(*args), func.jacrev(loop, every)(*args))
    assert_close(func.jacfwd(both, (0, 2))(*args), func.jacfwd(loop, (0, 2))(*args))
    assert_close(func.hessian(scalar(both), (0, 2))(*args), func.hessian(scalar(loop), (0, 2))(*args))


def test_vmap() -> None:
    vmap, grad = torch.func.vmap, torch.func.grad
    args = tensors()
    more_x = torch.stack([args[0], 2 * args[0], -args[0]], 1)
    over_x = (1, *(None,) * 7)
    assert_close(vmap(both, over_x)(more_x, *args[1:]), vmap(loop, over_x)(more_x, *args[1:]))
    several = [torch.stack([t, 2 * t]) for t in args[1:]]
    over_weights = (None, *(0,) * 7)
    assert_close(vmap(both, over_weights)(args[0], *several), vmap(loop, over_weights)(args[0], *several))
    ours, theirs = (grad(scalar(f), (0, 2)) for f in (both, loop))
    assert_close(vmap(ours, over_x)(more_x, *args[1:]), vmap(theirs, over_x)(more_x, *args[1:]))


def test_vmap_over_inputs_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[Any] = []
    original = rnnbptt.bridge.run

    def watched(point: Any, *rest: Any) -> Any:
        shapes.append(point[7].shape)
        return original(point, *rest)

    monkeypatch.setattr(rnnbptt.bridge, "run", watched)
    args = tensors()
    torch.func.vmap(both, (0, *(None,) * 7))(torch.stack([args[0]] * 4), *args[1:])
    assert shapes == [(T, 4 * B, D)]


def test_legacy_batched_gradients_are_refused_in_plain_words() -> None:
    args = [t.requires_grad_() for t in tensors()]
    o, _ = both(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((NotImplementedError, RuntimeError), match=r"torch\.func\.vmap"):
            torch.autograd.grad(o, args, torch.ones(3, *o.shape, dtype=o.dtype), is_grads_batched=True)


# --- operators ----------------------------------------------------------------------------------------------


def test_opcheck() -> None:
    x, *rest = (t.requires_grad_() for t in tensors())
    point = (*rest, x)
    passed = torch.library.opcheck(operator._run_operator, (*point, False, 0))
    assert set(passed.values()) == {"SUCCESS"}
    o, h_T = (torch.randn_like(r, requires_grad=True) for r in operator.run(*point, False, 0))
    passed = torch.library.opcheck(operator._pull_operator, (*point, o, h_T, [True] * 8, False, 0))
    assert set(passed.values()) == {"SUCCESS"}


@pytest.mark.parametrize("batch_first", [False, True])
def test_compiles_as_one_graph(batch_first: bool) -> None:
    torch.manual_seed(0)
    model = LinearRNN(D, H, Q, dtype=torch.float64, batch_first=batch_first)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(4, 6, D, dtype=torch.float64)
    expected = model(x)
    expected.sin().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    found = compiled(x)
    found.sin().sum().backward()
    assert torch.equal(found, expected)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))


# --- the module ---------------------------------------------------------------------------------------------


def test_module_trains_as_a_loop_does() -> None:
    params, x, _ = draw((200, 4, 3, 8, 2))
    ours = LinearRNN.from_params(params)
    theirs = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in params.items()}
    inputs, zero = torch.tensor(x), torch.zeros(4, 8, dtype=torch.float64)
    targets = torch.randn(200, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses: list[tuple[float, float]] = []
    optimizers = [torch.optim.SGD(ps, 1e-2) for ps in (ours.parameters(), theirs.values())]
    for _ in range(30):
        found = torch.nn.functional.mse_loss(ours(inputs), targets)
        expected = torch.nn.functional.mse_loss(loop(inputs, *theirs.values(), zero)[0], targets)
        for optimizer, loss in zip(optimizers, (found, expected), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append((found.item(), expected.item()))
    curve = np.array(losses)
    assert curve[-1, 0] < curve[0, 0]
    np.testing.assert_allclose(curve[:, 0], curve[:, 1], rtol=1e-9)


def test_module_keeps_its_state() -> None:
    torch.manual_seed(3)
    model = LinearRNN(4, 6, 2, direct=True, batch_first=True, kind="orthogonal", spectral_radius=0.9)
    assert sorted(model.state_dict()) == sorted(NAMES[:6])
    assert model.W_hh.dtype == torch.float32
    assert np.abs(np.linalg.eigvals(model.W_hh.detach().numpy())).max() == pytest.approx(0.9, rel=1e-5)
    x = torch.randn(3, 10, 4)
    expected = model(x)
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    other = LinearRNN(4, 6, 2, direct=True, batch_first=True)
    assert not torch.equal(other(x), expected)
    other.load_state_dict(torch.load(stream))
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(x), expected)
    torch.manual_seed(3)
    model.reset_parameters()
    assert torch.equal(model(x), expected)
    assert "d=4, h=6, q=2" in repr(model)
    assert torch.equal(model.double()(x.double()).float().round(decimals=4), expected.round(decimals=4))


def test_module_to_and_from_params() -> None:
    params, x, h0 = draw()
    model = LinearRNN.from_params(params)
    back = model.to_params()
    for (name, a), (_, b) in zip(params.items(), back.items(), strict=True):
        assert a.tobytes() == b.tobytes(), name
        assert not np.shares_memory(a, b)
        assert not np.shares_memory(a, getattr(model, name).detach().numpy())
    plain = LinearRNN(2, 3, 1, bias=False)
    assert [name for name, _ in plain.named_parameters()] == ["W_hx", "W_hh", "W_qh"]
    assert plain.to_params().b_h is None
    o, h_T = model(torch.tensor(x), torch.tensor(h0), return_state=True)
    assert relative_error(o.detach(), rnnbptt.forward(params, x, h0).o) <= FORMS
    assert h_T.shape == (B, H)


class Sequences(torch.utils.data.Dataset):  # type: ignore[misc]
    """Outputs of a module, computed where the data are loaded."""

    def __init__(self) -> None:
        self.model = LinearRNN.from_params(draw((300, 8, 2, 40, 2))[0])

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        x = torch.full((300, 8, 2), float(index), dtype=torch.float64)
        with torch.no_grad():
            return self.model(x)


def test_workers_of_a_data_loader() -> None:
    data = Sequences()
    expected = torch.stack([data[i] for i in range(4)])  # the engine has had its threads in this process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking where there are threads
        loader = torch.utils.data.DataLoader(
            data, batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=60
        )
        assert torch.equal(next(iter(loader)), expected)


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_tensors_of_other_kinds_are_refused_by_name(name: str) -> None:
    given = leaves(*draw(), grad=False)
    tensor = given[name]
    for bad, words in (
        (tensor.numpy(), r"torch\.Tensor"),
        (tensor.to("meta"), "device"),
        (tensor.half(), "float16"),
        (tensor.to(torch.complex128), "complex128"),
        (tensor.to_sparse(), "sparse"),
    ):
        with pytest.raises(TypeError, match=rf"^{name} must .*{words}"):
            linear_rnn(**(given | {name: bad}))
    with pytest.raises(TypeError, match="must have the dtype of W_hh"):
        linear_rnn(**(given | {name: tensor.float()}))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit_are_refused_by_name(name: str) -> None:
    given = leaves(*draw(), grad=False)
    with pytest.raises(ValueError, match=r"must (have shape|be a square matrix)") as caught:
        linear_rnn(**(given | {name: given[name][..., :-1]}))
    # A narrower W_hx, W_hh or W_qh may leave another one the odd one out.
    assert str(caught.value).split()[0] in (name, "x", "W_qx", "b_q")
    for bad in (given["x"][:0], given["x"][:, :0], given["x"][None]):
        with pytest.raises(ValueError, match=r"^x must have"):
            linear_rnn(**(given | {"x": bad}))


def test_options_are_checked() -> None:
    given = leaves(*draw(), grad=False)
    for name, bad in (("batch_first", 1), ("return_state", None), ("num_threads", 1.5)):
        with pytest.raises(TypeError, match=f"^{name} must"):
            linear_rnn(**given, **{name: bad})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"^dtype must"):
        LinearRNN(1, 2, 3, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"^h must"):
        LinearRNN(1, 0, 3)
    with pytest.raises(TypeError, match=r"^params must be rnnbptt\.Params"):
        LinearRNN.from_params({})  # type: ignore[arg-type]


def test_examples_in_docstrings() -> None:
    results = doctest.testmod(rnnbptt.torch.module)
    assert results.attempted > 0
    assert results.failed == 0
