"""What the reference reads, in which layout and dtype, and the two recurrences it is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from problems import LOSSES, OTHER_FORMS, Array, assert_same, draw
from rnnbptt import reference
from rnnbptt.engine import losses
from rnnbptt.engine.losses import LossName
from rnnbptt.engine.params import Params
from rnnbptt.reference.gradients import Method
from tolerances import COMPLEX_STEP, FORMS, gradient_bound, relative_error

# --- what counts and what is read ---------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_steps_of_no_weight_are_not_read(loss: LossName) -> None:
    rng = np.random.default_rng(3)
    params = Params.random(2, 3, 4, biases=True, direct=True, rng=rng)
    x = rng.standard_normal((6, 2, 2))
    y = rng.integers(0, 4, (6, 2)) if losses.LOSSES[loss].labels else rng.standard_normal((6, 2, 4))
    lengths, mask = np.array([4, 6]), np.ones((6, 2), bool)
    mask[1, 0] = mask[5, 1] = False
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    options: dict[str, Any] = {"loss": loss, "lengths": lengths, "mask": mask, "wrt": wrt}
    clean_loss, clean = reference.loss_and_grad(params, x, y, **options)
    dirty_x, dirty_y = x.copy(), y.copy()
    # After the last step that counts inputs are not read; wherever the weight is zero targets are not.
    dirty_x[4:, 0] = dirty_x[5, 1] = np.nan
    if not losses.LOSSES[loss].labels:
        dirty_y[4:, 0] = dirty_y[1, 0] = dirty_y[5, 1] = np.nan
    dirty_loss, dirty = reference.loss_and_grad(params, dirty_x, dirty_y, **options)
    assert dirty_loss == clean_loss
    assert_same(dirty, clean, 0.0)
    assert clean.x is not None
    assert not clean.x[4:, 0].any()
    assert not clean.x[5, 1].any()
    # The same as one sequence after another, each cut to its length and weighed by its steps that count.
    parts = [
        reference.loss_and_grad(
            params, x[:n, b], y[:n, b], loss=loss, mask=mask[:n, b], wrt=[n for n, _ in params.items()]
        )
        for b, n in enumerate([4, 5])
    ]
    assert clean_loss == pytest.approx((3 * parts[0][0] + 5 * parts[1][0]) / 8, rel=1e-14)
    for name, _ in params.items():
        expected = (3 * getattr(parts[0][1], name) + 5 * getattr(parts[1][1], name)) / 8
        assert relative_error(getattr(clean, name), expected) <= FORMS


def test_steps_after_the_end_cannot_overflow() -> None:
    # Run on, the state would reach 1e600: the sequence that ended must not notice.
    params = Params([[1.0]], [[1e200]], [[1.0]])
    x, y = np.ones((4, 1)), np.zeros((4, 1))
    value, g = reference.loss_and_grad(params, x, y, lengths=1)
    assert value == 1.0
    assert [a.item() for _, a in g.items()] == [2.0, 0.0, 2.0]
    g = reference.vjp(params, x, np.full((4, 1), 2.0), lengths=1)
    assert [a.item() for _, a in g.items()] == [2.0, 0.0, 2.0]


def test_callable_loss_equals_the_named_one() -> None:
    def mean_square(o: Array, y: Array) -> tuple[float, Array]:
        assert o.shape == y.shape
        return float(np.mean((o - y) ** 2)), 2 * (o - y) / o.size

    rng = np.random.default_rng(5)
    params = Params.random(2, 3, 2, rng=rng)
    x, y = rng.standard_normal((2, 7, 3, 2))
    for inputs, targets, batch_first in ((x, y, False), (x, y, True), (x[:, 0], y[:, 0], False)):
        named = reference.loss_and_grad(params, inputs, targets, batch_first=batch_first)
        called = reference.loss_and_grad(params, inputs, targets, loss=mean_square, batch_first=batch_first)
        assert called[0] == pytest.approx(named[0], rel=1e-14)
        assert_same(called[1], named[1], FORMS)
    with pytest.raises(ValueError, match="weights"):
        reference.loss_and_grad(params, x, y, loss=mean_square, weights=np.ones((7, 3)))


def test_callable_loss_with_lengths_and_complex_step() -> None:
    def total(o: Array, y: Any) -> tuple[Any, Array]:
        assert not o[2:, 0].any()
        # What is said about steps that are not run must not matter.
        d_o = np.full(o.shape, 1.0)
        d_o[2:, 0] = np.nan
        return np.sum(o), d_o

    rng = np.random.default_rng(6)
    params = Params.random(2, 3, 2, biases=True, rng=rng)
    x, lengths = rng.standard_normal((5, 2, 2)), [2, 5]
    _, expected = reference.loss_and_grad(params, x, None, loss=total, lengths=lengths)
    actual = reference.numerical_gradient(params, x, None, loss=total, lengths=lengths)
    assert_same(actual, expected, COMPLEX_STEP)
    assert_same(reference.vjp(params, x, np.ones((5, 2, 2)), lengths=lengths), expected, FORMS)


def test_wrt_chooses() -> None:
    case = draw(1)
    _, g = case.solve(wrt=("W_hh", "x"))
    assert [name for name, _ in g.items()] == ["W_hh", "x"]
    _, g = case.solve()
    assert [name for name, _ in g.items()] == [name for name, _ in case.params.items()]
    with pytest.raises(ValueError, match="wrt"):
        case.solve(wrt=("W_xx",))


# --- layouts and dtypes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_layouts(seed: int) -> None:
    params, x, y, options = draw(seed)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    loss, g = reference.loss_and_grad(params, x, y, **options, wrt=wrt)
    turned = {
        name: value.swapaxes(0, 1) if name in ("weights", "mask") else value
        for name, value in options.items()
    }
    assert g.x is not None
    assert g.h0 is not None
    other, t = reference.loss_and_grad(
        params, x.swapaxes(0, 1), y.swapaxes(0, 1), **turned, wrt=wrt, batch_first=True
    )
    assert other == loss
    assert t.x is not None
    assert_same(t._replace(x=t.x.swapaxes(0, 1)), g, FORMS)

    first = {k: v[0] if k in ("h0", "lengths") else v if k == "loss" else v[:, 0] for k, v in options.items()}
    one = {k: v[:1] if k in ("h0", "lengths") else v if k == "loss" else v[:, :1] for k, v in options.items()}
    loss, g = reference.loss_and_grad(params, x[:, :1], y[:, :1], **one, wrt=wrt)
    other, s = reference.loss_and_grad(params, x[:, 0], y[:, 0], **first, wrt=wrt)
    assert other == loss
    assert s.x is not None
    assert s.h0 is not None
    assert s.x.shape == x[:, 0].shape
    assert s.h0.shape == (params.shape[1],)
    assert_same(s._replace(x=s.x[:, np.newaxis], h0=s.h0[np.newaxis]), g, 0.0)


def test_forward_layouts() -> None:
    params, x, _, _ = draw(4)
    hidden, o = reference.forward(params, x)
    turned = reference.forward(params, x.swapaxes(0, 1), batch_first=True)
    np.testing.assert_array_equal(turned.hidden.swapaxes(0, 1), hidden)
    np.testing.assert_array_equal(turned.o.swapaxes(0, 1), o)
    assert reference.forward(params, x[:, 0]).o.shape == o[:, 0].shape


@pytest.mark.parametrize("method", ["recursion", *OTHER_FORMS])
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32(loss: LossName, method: Method) -> None:
    rng = np.random.default_rng(8)
    params = Params.random(2, 4, 3, biases=True, direct=True, rng=rng, dtype=np.float32)
    x = rng.standard_normal((9, 2, 2)).astype(np.float32)
    y = (rng.integers(0, 3, (9, 2)) if losses.LOSSES[loss].labels else rng.standard_normal((9, 2, 3))).astype(
        np.int32 if losses.LOSSES[loss].labels else np.float32
    )
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    value, g = reference.loss_and_grad(params, x, y, loss=loss, wrt=wrt, method=method)
    assert type(value) is float
    assert {a.dtype for _, a in g.items()} == {np.dtype(np.float32)}
    exact_value, exact = reference.oracle(params, x, y, loss=loss, wrt=wrt)
    assert value == pytest.approx(float(exact_value), rel=1e-6)
    assert {a.dtype for _, a in exact.items()} == {np.dtype(np.longdouble)}
    assert_same(g, exact, gradient_bound(np.float32, 4, 9, 0.95))
    trajectory = reference.forward(params, x)
    assert trajectory.hidden.dtype == trajectory.o.dtype == np.float32
    with pytest.raises(TypeError, match="x has dtype float64"):
        reference.loss_and_grad(params, x.astype(np.float64), y, loss=loss)


@pytest.mark.parametrize("radius", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("scalar", [np.float32, np.float64])
def test_recursion_keeps_the_numerical_contract(scalar: type[np.floating[Any]], radius: float) -> None:
    if scalar is np.float64 and np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("long double is float64 on this platform")
    rng = np.random.default_rng(9)
    params = Params.random(3, 12, 2, spectral_radius=radius, biases=True, rng=rng, dtype=scalar)
    x, y = rng.standard_normal((300, 2, 3)).astype(scalar), rng.standard_normal((300, 2, 2)).astype(scalar)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    _, g = reference.loss_and_grad(params, x, y, wrt=wrt)
    _, exact = reference.oracle(params, x, y, wrt=wrt)
    assert_same(g, exact, gradient_bound(scalar, 12, 300, radius))


def test_non_finite_in_non_finite_out_without_a_warning() -> None:
    params = Params.random(2, 3, 2, rng=0)
    x = np.ones((4, 2))
    x[2] = np.inf
    value, g = reference.loss_and_grad(params, x, np.zeros((4, 2)), loss="mse")
    assert not np.isfinite(value)
    assert g.W_hh is not None
    assert not np.isfinite(g.W_hh).all()


# --- scan and powers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_linear_scan_is_its_recurrence(reverse: bool, transpose: bool) -> None:
    rng = np.random.default_rng(10)
    W, v, s0 = rng.standard_normal((3, 3)), rng.standard_normal((5, 2, 3)), rng.standard_normal((2, 3))
    actual = reference.linear_scan(W, v, s0, reverse=reverse, transpose=transpose)
    A = W.T if transpose else W
    for b in range(2):
        s = s0[b]
        for t in reversed(range(5)) if reverse else range(5):
            s = A @ s + v[t, b]
            np.testing.assert_allclose(actual[t, b], s, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(
        reference.linear_scan(W, v[:, 0], s0[0], reverse=reverse, transpose=transpose),
        actual[:, 0],
        rtol=1e-13,
    )


def test_linear_scan_has_the_adjoint_it_claims() -> None:
    rng = np.random.default_rng(12)
    W, (u, v) = rng.standard_normal((4, 4)) / 3, rng.standard_normal((2, 20, 3, 4))
    forward = np.sum(u * reference.linear_scan(W, v))
    backward = np.sum(reference.linear_scan(W, u, reverse=True, transpose=True) * v)
    assert forward == pytest.approx(backward, rel=1e-12)


def test_matrix_powers() -> None:
    W = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert reference.matrix_powers(W, 4)[:, 0, 1].tolist() == [0, 1, 2, 3, 4]
    assert reference.matrix_powers(W, 0).tolist() == [[[1, 0], [0, 1]]]
    assert reference.matrix_powers(W.astype(np.float32), 2).dtype == np.float32
    with pytest.raises(ValueError, match="n must be at least 0"):
        reference.matrix_powers(W, -1)


def test_inputs_are_not_written_to() -> None:
    params, x, y, options = draw(14)
    arrays = [a for _, a in params.items()] + [
        x,
        y,
        *(v for v in options.values() if isinstance(v, np.ndarray)),
    ]
    before = [a.copy() for a in arrays]
    for method in ("recursion", *OTHER_FORMS):
        reference.loss_and_grad(params, x, y, **options, method=method)
    reference.linear_scan(params.W_hh, reference.forward(params, x).hidden)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)
