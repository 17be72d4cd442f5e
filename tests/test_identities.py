"""What must hold between results, whatever the right ones are: no reference takes part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rnnbptt
from problems import LOSSES, SCALARS, STEP_OPTIONS, Array, Case, Scalar, assert_same, build
from rnnbptt import Gradients, Params
from rnnbptt.engine.losses import LOSSES as NAMED_LOSSES
from tolerances import FORMS, GAUGE, relative_error

sizes = st.integers(1, 20)
radii = st.sampled_from([0.3, 0.9, 1.0, 1.05])


@st.composite
def cases(draw: st.DrawFn, weighed: bool = True) -> Case:
    """Draw a float64 problem, small or with enough steps to be cut in time."""
    T = draw(st.one_of(st.integers(1, 40), st.integers(200, 700)))
    options = draw(st.sets(st.sampled_from(STEP_OPTIONS))) if weighed else ()
    return build(
        np.random.default_rng(draw(st.integers(0, 10**6))),
        np.float64,
        (T, draw(st.integers(1, 9)), draw(sizes), draw(sizes), draw(sizes)),
        loss=draw(st.sampled_from(LOSSES)),
        radius=draw(radii),
        kind=draw(st.sampled_from(["gaussian", "orthogonal", "symmetric", "identity"])),
        biases=draw(st.booleans()),
        direct=draw(st.booleans()),
        h0=draw(st.booleans()),
        steps=tuple(options),
    )


def present(array: Array | None) -> Array:
    assert array is not None
    return array


def dot(a: Gradients | Params, b: Gradients) -> float:
    """The inner product of two sets of arrays, over what `b` has."""
    return float(sum(np.vdot(getattr(a, name), value) for name, value in b.items()))


# --- gauge --------------------------------------------------------------------------------------------------


def gauge_residual(params: Params, g: Gradients, h0: Array | None) -> float:
    """Relative residual of what the invariance of L under h -> P h says about the gradients."""
    terms = [
        params.W_hh.T @ present(g.W_hh),
        -present(g.W_hh) @ params.W_hh.T,
        -present(g.W_hx) @ params.W_hx.T,
        params.W_qh.T @ present(g.W_qh),
    ]
    if params.b_h is not None:
        terms.append(-np.outer(present(g.b_h), params.b_h))
    if h0 is not None:
        terms.append(-np.atleast_2d(present(g.h0)).T @ np.atleast_2d(h0))
    scale = sum(float(np.linalg.norm(term)) for term in terms)
    return float(np.linalg.norm(sum(terms))) / scale if scale > 0 else 0.0


@given(cases())
def test_gauge_identity(case: Case) -> None:
    _, g = case.engine()
    assert gauge_residual(case.params, g, case.options.get("h0")) <= GAUGE


@given(cases(), st.integers(1, 64), st.integers(0, 5), st.integers(1, 4))
def test_gauge_identity_on_any_schedule(case: Case, lift: int, window: int, splits: int) -> None:
    _, g = case.scheduled(2, lift=lift, window=window, splits=splits)
    assert gauge_residual(case.params, g, case.options.get("h0")) <= GAUGE


# --- adjoints -----------------------------------------------------------------------------------------------


@given(
    st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 5), sizes, radii, st.booleans(), st.booleans()
)
def test_linear_scan_has_its_adjoint(
    seed: int, T: int, B: int, h: int, radius: float, reverse: bool, transpose: bool
) -> None:
    rng = np.random.default_rng(seed)
    W = Params.random(1, h, 1, spectral_radius=min(radius, 1.0), kind="orthogonal", rng=rng).W_hh
    u, v = rng.standard_normal((2, T, B, h))
    s = rnnbptt.linear_scan(W, v, reverse=reverse, transpose=transpose)
    r = rnnbptt.linear_scan(W, u, reverse=not reverse, transpose=not transpose)
    scale = np.linalg.norm(u) * np.linalg.norm(s)
    assert abs(np.vdot(u, s) - np.vdot(r, v)) <= FORMS * scale


@given(cases(weighed=False), st.integers(0, 10**6))
def test_vjp_is_the_adjoint_of_forward(case: Case, seed: int) -> None:
    # Outputs are linear in (x, h0, b_h, b_q) and in (W_qh, W_qx, b_q): for each, <v, J u> = <J^T v, u>.
    rng = np.random.default_rng(seed)
    params, x = case.params, case.x
    h0 = rng.standard_normal((x.shape[1], params.shape[1]))
    o = rnnbptt.forward(params, x, h0).o
    v = rng.standard_normal(o.shape)
    g = rnnbptt.vjp(params, x, v, h0, wrt=case.wrt)
    scale = float(np.linalg.norm(v) * np.linalg.norm(o))
    by_data = {name: getattr(g, name) for name in ("x", "h0", "b_h", "b_q")}
    at = dict(params.items()) | {"x": x, "h0": h0}
    for names in (by_data, ("W_qh", "W_qx", "b_q")):
        pulled = sum(np.vdot(getattr(g, name), at[name]) for name in names if name in at)
        assert abs(np.vdot(v, o) - pulled) <= FORMS * scale


@given(cases(weighed=False), st.integers(0, 10**6))
def test_vjp_is_linear_in_d_o(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    params, x = case.params, case.x
    shape = (*x.shape[:2], params.shape[2])
    u, v = rng.standard_normal((2, *shape))
    g_u, g_v, g = (rnnbptt.vjp(params, x, d_o, wrt=case.wrt) for d_o in (u, v, 2 * u + v))
    for name, value in g.items():
        parts = 2 * getattr(g_u, name), getattr(g_v, name)
        scale = sum(float(np.linalg.norm(part)) for part in parts)
        assert np.linalg.norm(value - sum(parts)) <= FORMS * scale, name


@given(cases())
def test_vjp_of_the_loss_is_its_gradient(case: Case) -> None:
    loss = NAMED_LOSSES[case.options["loss"]]
    if set(case.options) & set(STEP_OPTIONS):
        return
    o = rnnbptt.forward(case.params, case.x, case.options.get("h0")).o
    steps = o.shape[0] * o.shape[1]
    d_o = loss.derivative(o, case.y) / steps
    g = rnnbptt.vjp(case.params, case.x, d_o, case.options.get("h0"), wrt=case.wrt)
    _, expected = case.engine()
    names = {n: v for n, v in expected.items() if n not in ("b_h", "b_q")}  # sums that may cancel
    assert_same(g._replace(b_h=None, b_q=None), Gradients(**names), FORMS)


# --- parts and wholes ---------------------------------------------------------------------------------------


def weight_of(case: Case, b: int) -> float:
    steps = case.x.shape[0]
    w = np.asarray(case.options.get("weights", np.ones(case.x.shape[:2])))[:, b].copy()
    w[case.options["lengths"][b] if "lengths" in case.options else steps :] = 0
    if "mask" in case.options:
        w[~case.options["mask"][:, b]] = 0
    return float(w.sum())


@given(cases())
def test_batch_is_the_sum_of_its_sequences(case: Case) -> None:
    loss, whole = case.engine()
    shares = [weight_of(case, b) for b in range(case.x.shape[1])]
    total_loss = 0.0
    total: dict[str, Any] = dict.fromkeys(case.wrt, 0.0)
    for b, share in enumerate(shares):
        one = {
            name: value if name == "loss" else value[b] if name in ("h0", "lengths") else value[:, b]
            for name, value in case.options.items()
        }
        part_loss, part = Case(case.params, case.x[:, b], case.y[:, b], one).engine()
        part_share = share / sum(shares)
        total_loss += part_share * part_loss
        for name, value in part.items():
            if name in ("h0", "x"):
                expected = present(whole.h0)[b] if name == "h0" else present(whole.x)[:, b]
                scale = float(np.linalg.norm(getattr(whole, name)))
                assert np.linalg.norm(part_share * value - expected) <= FORMS * scale, name
            else:
                total[name] = total[name] + part_share * value
    assert abs(total_loss - loss) <= FORMS * max(abs(loss), 1e-300)
    scale = max(float(np.linalg.norm(value)) for _, value in whole.items())
    for name, _ in case.params.items():
        assert np.linalg.norm(total[name] - getattr(whole, name)) <= FORMS * scale, name


@given(cases(weighed=False), st.floats(0, 1))
def test_time_in_two_parts_is_the_whole(case: Case, where: float) -> None:
    params, x = case.params, case.x
    T = len(x)
    cut = min(T - 1, int(where * T))
    if cut == 0:
        return
    h0 = case.options.get("h0")
    whole = rnnbptt.forward(params, x, h0)
    early = rnnbptt.forward(params, x[:cut], h0)
    middle = early.hidden[-1]
    late = rnnbptt.forward(params, x[cut:], middle)
    for name in ("hidden", "o"):
        both = np.concatenate([getattr(early, name), getattr(late, name)])
        assert relative_error(both, getattr(whole, name)) <= FORMS

    d_o = np.random.default_rng(T).standard_normal(whole.o.shape)
    expected = rnnbptt.vjp(params, x, d_o, h0, wrt=case.wrt)
    second = rnnbptt.vjp(params, x[cut:], d_o[cut:], middle, wrt=case.wrt)
    # What the second part asks of the state between reaches the first as an output of its end, W_qh = I.
    h = params.shape[1]
    at_end = np.zeros((cut, x.shape[1], h))
    at_end[-1] = present(second.h0)
    own = dict(params.items())
    joint = Params(own["W_hx"], own["W_hh"], np.eye(h), own.get("b_h"))
    handed_on = rnnbptt.vjp(joint, x[:cut], at_end, h0, wrt=[n for n in case.wrt if n not in ("b_q", "W_qx")])
    first = rnnbptt.vjp(params, x[:cut], d_o[:cut], h0, wrt=case.wrt)
    for name, value in expected.items():
        if name == "x":
            both = np.concatenate([present(first.x) + present(handed_on.x), present(second.x)])
        elif name == "h0":
            both = present(first.h0) + present(handed_on.h0)
        else:
            both = getattr(first, name) + getattr(second, name)
            if name not in ("W_qh", "b_q", "W_qx"):
                both = both + getattr(handed_on, name)
        scale = float(np.linalg.norm(value)) + float(np.linalg.norm(getattr(second, name)))
        assert np.linalg.norm(both - value) <= FORMS * max(scale, 1e-300), name


@given(cases())
def test_batch_first_is_the_same_in_another_layout(case: Case) -> None:
    loss, expected = case.engine()
    turned = {
        name: value.swapaxes(0, 1) if name in ("weights", "mask") else value
        for name, value in case.options.items()
    }
    other = Case(case.params, case.x.swapaxes(0, 1), case.y.swapaxes(0, 1), turned)
    value, actual = other.engine(batch_first=True)
    assert value == loss
    assert_same(actual._replace(x=present(actual.x).swapaxes(0, 1)), expected, 0.0)
    x, y = (np.ascontiguousarray(a) for a in (other.x, other.y))
    copied = Case(case.params, x, y, turned).engine(batch_first=True)
    assert copied[0] == loss
    assert_same(copied[1]._replace(x=present(copied[1].x).swapaxes(0, 1)), expected, 0.0)
    h0 = case.options.get("h0")
    for a, e in zip(
        rnnbptt.forward(case.params, other.x, h0, batch_first=True),
        rnnbptt.forward(case.params, case.x, h0),
        strict=True,
    ):
        np.testing.assert_array_equal(a.swapaxes(0, 1), e)


# --- exact arithmetic ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("seed", range(30))
def test_whole_numbers_are_exact(seed: int, dtype: Scalar) -> None:
    # W_hh is a permutation with signs: whatever is added and multiplied stays a whole number, not too large.
    rng = np.random.default_rng(seed)
    T, B, d, h, q = (int(n) for n in rng.integers(1, [60, 9, 9, 40, 9]))
    W_hh = np.zeros((h, h))
    W_hh[np.arange(h), rng.permutation(h)] = rng.choice([-1, 0, 1], h)

    def whole(*shape: int) -> Array:
        return rng.integers(-2, 3, shape).astype(dtype)

    params = Params(whole(h, d), W_hh.astype(dtype), whole(q, h), whole(h), whole(q), whole(q, d))
    x, h0, d_o = whole(T, B, d), whole(B, h), whole(T, B, q)
    wrt = [name for name, _ in params.items()] + ["h0", "x"]
    lengths = rng.integers(1, T + 1, B) if seed % 2 else None
    expected = rnnbptt.reference.vjp(params, x, d_o, h0, lengths=lengths, wrt=wrt)
    actual = rnnbptt.vjp(params, x, d_o, h0, lengths=lengths, wrt=wrt)
    assert_same(actual, expected, 0.0)
    for lift in (1, 2, 4, 8, 11, 16, 32, 64):
        options: dict[str, Any] = {"h0": h0} | ({} if lengths is None else {"lengths": lengths})
        _, forced = Case(params, x, d_o, options | {"loss": "given"}).scheduled(lift=lift, window=3)
        assert_same(forced, expected, 0.0)
    for a, e in zip(rnnbptt.forward(params, x, h0), rnnbptt.reference.forward(params, x, h0), strict=True):
        np.testing.assert_array_equal(a, e)
    scan = rnnbptt.linear_scan(params.W_hh, whole(T, B, h), h0, reverse=True)
    assert scan.dtype == dtype
    powers = rnnbptt.matrix_powers(params.W_hh, 12)
    np.testing.assert_array_equal(powers, rnnbptt.reference.matrix_powers(params.W_hh, 12))


# --- state gradients ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_methods_of_state_gradients_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    T, B, h, q = (int(n) for n in rng.integers(1, [300, 5, 20, 5]))
    params = Params.random(2, h, q, spectral_radius=float(rng.uniform(0.3, 1.0)), rng=rng)
    d_o = rng.standard_normal((T, B, q))
    by_steps = rnnbptt.state_gradients(params, d_o)
    for method in ("closed_form", "scan"):
        assert relative_error(rnnbptt.state_gradients(params, d_o, method=method), by_steps) <= FORMS
    assert relative_error(rnnbptt.reference.state_gradients(params, d_o), by_steps) <= FORMS
    single = rnnbptt.state_gradients(params, d_o[:, 0])
    assert relative_error(single, by_steps[:, 0]) <= FORMS
    # g_t W_hx is the gradient by x_t.
    x_gradient = rnnbptt.vjp(params, np.zeros((T, B, 2)), d_o, wrt=("x",)).x
    assert relative_error(present(x_gradient), by_steps @ params.W_hx) <= FORMS
