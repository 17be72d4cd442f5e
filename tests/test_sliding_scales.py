"""`Sliding` is exact whatever lies outside its lag windows, however large that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rnnbptt
from problems import KINDS, SCALARS, Case, Scalar, build, nudged
from rnnbptt import Params, Sliding
from speed import thinned
from tolerances import TIMES_SEQUENTIAL, gradient_bound, relative_error


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("tau", [1, 2, 8, 20, 90, 150, 199])
def test_an_input_just_behind_the_window_by_hand(tau: int, dtype: Scalar) -> None:
    # One loss, at the last step: it looks back at tau states, and the input behind them takes no part.
    p = Params(*(np.array([[value]], dtype) for value in (1, 0.5, 1)))
    x, d_o = np.zeros((200, 1), dtype), np.zeros((200, 1), dtype)
    x[200 - tau - 1], d_o[-1] = 1e30, 1e3
    g = rnnbptt.vjp(p, x, d_o, truncate=Sliding(tau), wrt=["W_hx", "W_hh", "x"])
    assert g.x is not None
    assert g.W_hx == 0
    assert not g.x[: 200 - tau].any()
    exact = 1e33 * 0.5 ** (tau - 1) * tau
    assert g.W_hh is not None
    assert g.W_hh.item() == pytest.approx(exact, rel=1e-6 if dtype is np.float32 else 1e-13)


def uneven(seed: int, dtype: Scalar) -> tuple[Case, int]:
    """Draw a problem whose rows are of very different sizes, and a window."""
    rng = np.random.default_rng(seed)
    decades = 30 if dtype is np.float64 else 9
    T = int(rng.integers(20, 300))
    tau = int(rng.choice([1, 2, 3, T // 4 + 1, T // 2, T - 1, int(rng.integers(1, T))]))
    h = int(rng.integers(1, 7))
    radius = float(rng.choice([0.1, 0.5, 0.9, 0.99, 1.0, 1.05]))
    direct = bool(rng.integers(2))
    case = build(rng, dtype, (T, 2, 2, h, 2), radius=radius, kind=KINDS[seed % 4], direct=direct)
    x, y, h0 = case.x.copy(), case.y.copy(), case.options["h0"].copy()

    def spikes(array: Any, size: float) -> None:
        for _ in range(int(rng.integers(1, 4))):
            t, b = int(rng.integers(len(array))), int(rng.integers(2))
            array[t, b] *= 10.0 ** rng.uniform(0, size)
            if rng.integers(2):  # another that would cancel it
                other = (t + int(rng.choice([1, tau, 7]))) % len(array)
                array[other, b] = -array[t, b]

    if rng.integers(2):
        spikes(x, decades)
    if rng.integers(2):
        spikes(y, decades)
    if rng.integers(3) == 0:
        h0 *= dtype(10.0 ** rng.uniform(0, decades))
    if rng.integers(3) == 0:
        x *= np.geomspace(1, 10.0 ** -rng.uniform(0, decades), T)[:, np.newaxis, np.newaxis].astype(dtype)
    if rng.integers(3) == 0:
        y *= np.geomspace(10.0 ** -rng.uniform(0, decades), 1, T)[:, np.newaxis, np.newaxis].astype(dtype)
    given = bool(rng.integers(2))
    options: dict[str, Any] = {"h0": h0, "loss": "given" if given else "squared_error"}
    if given and rng.integers(2):
        y[rng.uniform(size=T) < 0.9] = 0
    if not given and rng.integers(2):
        options["mask"] = rng.uniform(size=(T, 2)) < rng.choice([0.05, 0.5])
        options["mask"][-1] = True
    return case._replace(x=x, y=y, options=options), tau


def solved(case: Case, tau: int, *, exactly: bool) -> rnnbptt.Gradients:
    """Answer by the reference, which adds up lag windows term by term."""
    options = dict(case.options)
    truncate = Sliding(tau)
    if options.pop("loss") != "given":
        options["loss"] = "squared_error"
        solve = rnnbptt.reference.oracle if exactly else rnnbptt.reference.loss_and_grad
        return solve(case.params, case.x, case.y, wrt=case.wrt, truncate=truncate, **options)[1]
    if not exactly:
        return rnnbptt.reference.vjp(
            case.params, case.x, case.y, options["h0"], wrt=case.wrt, truncate=truncate
        )

    def loss(_o: Any, _y: Any) -> tuple[float, Any]:
        return 0.0, case.y.astype(np.longdouble)

    return rnnbptt.reference.oracle(
        case.params, case.x, case.y, loss=loss, wrt=case.wrt, truncate=truncate, **options
    )[1]


@pytest.mark.parametrize("dtype", SCALARS)
@pytest.mark.parametrize("seed", thinned(range(600), 10))
def test_rows_of_very_different_sizes(seed: int, dtype: Scalar) -> None:
    case, tau = uneven(seed, dtype)
    exact, steps = solved(case, tau, exactly=True), solved(case, tau, exactly=False)
    options = dict(case.options)
    h0 = options.pop("h0")
    if options["loss"] == "given":
        actual = rnnbptt.vjp(case.params, case.x, case.y, h0, wrt=case.wrt, truncate=Sliding(tau))
    else:
        _, actual = rnnbptt.loss_and_grad(
            case.params, case.x, case.y, h0=h0, wrt=case.wrt, truncate=Sliding(tau), **options
        )
    radius = float(np.abs(np.linalg.eigvals(case.params.W_hh.astype(np.float64))).max())
    bound = gradient_bound(dtype, len(case.params.W_hh), len(case.x), radius)
    moved: list[rnnbptt.Gradients] = []
    for name, gradient in actual.items():
        right = getattr(exact, name)
        error = relative_error(gradient, right)
        if error <= bound:
            continue
        # Sensitive to how inputs are rounded: then the recursion's own error counts, or what a nudge does.
        own = relative_error(getattr(steps, name), right)
        if error > TIMES_SEQUENTIAL * own and not moved:
            moved = [solved(nudged(case, seed + i), tau, exactly=True) for i in range(4)]
        own = max([own, *(relative_error(getattr(other, name), right) for other in moved)])
        assert error <= TIMES_SEQUENTIAL * own, f"{name}: {error:.1e}, the recursion {own:.1e}"
