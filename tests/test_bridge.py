"""The maps that frameworks of automatic differentiation build on; what importing the bridges asks for."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import rnnbptt
from rnnbptt import bridge
from rnnbptt.engine import trajectories
from rnnbptt.engine.dataset import Dataset
from tolerances import COMPLEX_STEP, FORMS, relative_error


def draw(seed: int) -> tuple[list[Any], list[Any]]:
    """Draw a point and a direction."""
    rng = np.random.default_rng(seed)
    points = []
    for _ in range(2):
        params = rnnbptt.Params.random(2, 3, 2, biases=True, direct=True, rng=rng)
        points.append(
            [*(a for _, a in params.items()), rng.standard_normal((4, 3)), rng.standard_normal((6, 4, 2))]
        )
    return points[0], points[1]


def plain(point: list[Any]) -> tuple[Any, Any]:
    """Run the network step by step; complex numbers too."""
    W_hx, W_hh, W_qh, b_h, b_q, W_qx, h, x = point
    outputs = []
    for step in x:
        h = step @ W_hx.T + h @ W_hh.T + b_h
        outputs.append(h @ W_qh.T + step @ W_qx.T + b_q)
    return np.array(outputs), h


def second_half(array: Any) -> Any:
    return array[..., array.shape[-1] // 2 :]


def doubled(point: list[Any], direction: list[Any]) -> list[Any]:
    return bridge.doubled(point, direction, np.concatenate, np.zeros_like)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("T", "B"), [(1, 1), (6, 4), (37, 1), (403, 1), (2500, 2)])
def test_outputs_and_last_state(T: int, B: int, batch_first: bool) -> None:
    rng = np.random.default_rng(T)
    point, _ = draw(0)
    point[6], point[7] = rng.standard_normal((B, 3)), rng.standard_normal((T, B, 2))
    expected = plain(point)
    if batch_first:
        point[7] = point[7].swapaxes(0, 1)
    o, h_T = bridge.run(point, batch_first, None)
    assert relative_error(o.swapaxes(0, 1) if batch_first else o, expected[0]) <= FORMS
    assert relative_error(h_T, expected[1]) <= FORMS
    assert h_T.base is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("lift", [1, 2, 8, 11, 32])
def test_outputs_on_every_schedule(lift: int, window: int, dtype: Any) -> None:
    rng = np.random.default_rng(lift)
    for radius in (0.5, 1.0):
        params = rnnbptt.Params.random(
            3, 9, 2, biases=True, direct=True, spectral_radius=radius, rng=rng, dtype=dtype
        )
        x, h0 = rng.standard_normal((203, 2, 3)).astype(dtype), rng.standard_normal((2, 9)).astype(dtype)
        hidden, o = rnnbptt.reference.forward(params, x, h0)
        dataset = Dataset(params, x, h0)
        found, last, states = np.empty_like(o, dtype), np.empty((2, 9), dtype), np.empty_like(hidden, dtype)
        problem = dataset.pose(None, None, lift=lift, window=window)
        problem.outputs(params._arrays, found, states, last, 2)
        tolerance = 200 * float(np.finfo(dtype).eps)
        assert relative_error(found, o) <= tolerance
        assert relative_error(states, hidden) <= tolerance
        assert relative_error(last, hidden[-1]) <= tolerance


def test_outputs_before_an_infinite_input_stay_finite() -> None:
    params = rnnbptt.Params.random(2, 40, 2, rng=0)
    x = np.ones((5000, 2))
    x[4990] = np.inf
    o, _ = trajectories.outputs_and_last_state(params, Dataset(params, x), 1)
    assert np.isfinite(o[:4990]).all()
    assert not np.isfinite(o[4990:]).any()


def test_the_doubled_network_computes_the_directional_derivative() -> None:
    point, direction = draw(1)
    step = 1e-30
    shifted = plain([p + 1j * step * u for p, u in zip(point, direction, strict=True)])
    for both, value in zip(bridge.run(doubled(point, direction), False, None), shifted, strict=True):
        assert relative_error(both[..., : both.shape[-1] // 2], value.real) <= FORMS
        assert relative_error(second_half(both), value.imag / step) <= COMPLEX_STEP


def test_folding_is_the_transpose_of_doubling() -> None:
    # <c, second half of run(p.u)> is linear in u, and bent by p: its gradient by p, along v, both ways round.
    point, u = draw(2)
    v = draw(3)[0]
    rng = np.random.default_rng(4)
    o, h_T = bridge.run(point, False, None)
    cotangents = [rng.standard_normal(r.shape) for r in (o, h_T)]
    late = [np.concatenate([np.zeros_like(c), c], -1) for c in cotangents]

    def bend(along: list[Any], against: list[Any]) -> float:
        pulled = bridge.pull(doubled(point, along), late, bridge.NAMES, False, None)
        folded = [bridge.halved(name, g) for name, g in zip(bridge.NAMES, pulled, strict=True)]
        return sum(float((f * w).sum()) for f, w in zip(folded, against, strict=True))

    assert bend(u, v) == pytest.approx(bend(v, u), rel=FORMS)
    step = 1e-30
    moved = [p + 1j * step * w for p, w in zip(point, v, strict=True)]
    both = plain(doubled(moved, u))
    expected = sum((c * second_half(b).imag).sum() / step for c, b in zip(cotangents, both, strict=True))
    assert bend(u, v) == pytest.approx(expected, rel=COMPLEX_STEP)


def test_absent_terms_stay_absent() -> None:
    params = rnnbptt.Params.random(2, 3, 1, rng=0)
    x = np.ones((4, 1, 2))
    point = [params.W_hx, params.W_hh, params.W_qh, None, None, None, None, x]
    assert [a is None for a in doubled(point, [None] * 8)] == [a is None for a in point]
    (d_x,) = bridge.pull(point, (None, np.ones((1, 3))), ["x"], False, None)
    expected = rnnbptt.vjp(params, x, np.zeros((4, 1, 1)), d_hT=np.ones((1, 3)), wrt=["x"]).x
    assert expected is not None
    assert np.array_equal(d_x, expected)


@pytest.mark.parametrize("module", ["torch", "jax"])
def test_without_the_framework_the_error_names_the_extra(module: str) -> None:
    code = f"""
import sys
sys.modules["{module}"] = None
import rnnbptt
assert not hasattr(rnnbptt, "{module}")
for statement in ("import rnnbptt.{module}", "from rnnbptt import {module}", "rnnbptt.{module}.linear_rnn"):
    try:
        exec(statement)
    except (ImportError, AttributeError) as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = f"rnnbptt.{module} needs {module}, which is not installed: pip install 'rnnbptt[{module}]'\n"
    assert done.stdout == 3 * expected
