"""What a framework of automatic differentiation needs of a linear RNN: two maps, closed under derivatives.

The outputs and the last state are a function of a *point*, the eight arrays ``(W_hx, W_hh, W_qh, b_h, b_q,
W_qx, h0, x)`` in the order of `rnnbptt.Gradients`. `run` evaluates it, `pull` its vector-Jacobian product.
Moved in a direction, a linear RNN is a linear RNN of twice the size (`rnnbptt.engine.tangent_model`):
derivatives of any order are again `run` and `pull`, at points that `doubled` makes and `halved` undoes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _validate
from .engine.dataset import Dataset
from .engine.params import Params
from .engine.tangent_model import NAMES as NAMES
from .engine.tangent_model import doubled as doubled
from .engine.tangent_model import halved as halved
from .engine.trajectories import outputs_and_last_state
from .gradients.vjp import vjp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._validate import FloatArray
    from .engine.tangent_model import Point


def run(point: Point, batch_first: bool, num_threads: int | None) -> tuple[FloatArray, FloatArray]:
    """Return the outputs in the layout of ``x``, and the last state (B, h), as arrays of their own."""
    *weights, h0, x = point
    params = Params(*weights)
    dataset = Dataset(params, x, h0, batch_first=batch_first)
    return outputs_and_last_state(params, dataset, _validate.num_threads(num_threads))


def pull(
    point: Point,
    cotangents: Sequence[FloatArray | None],
    wrt: Sequence[str],
    batch_first: bool,
    num_threads: int | None,
) -> list[FloatArray]:
    """Pull derivatives by outputs and last state, `cotangents`, back to the arrays that `wrt` names.

    Returns
    -------
    list of ndarray
        Gradients in the order of `wrt`. A cotangent of ``None`` is zero.
    """
    *weights, h0, x = point
    params = Params(*weights)
    d_o, d_hT = cotangents
    if d_o is None:
        d_o = np.broadcast_to(np.zeros((), params.dtype), (*x.shape[:-1], params.shape[2]))
    gradients = vjp(params, x, d_o, h0, d_hT=d_hT, batch_first=batch_first, wrt=wrt, num_threads=num_threads)
    return [getattr(gradients, name) for name in wrt]


def checked_shapes(point: Point, batch_first: bool) -> None:
    """Check the shapes of a point, whatever its arrays are, against those of ``W_hx``, ``W_qh`` and ``x``.

    Raises
    ------
    ValueError
        If a shape does not fit; the message names the array.
    """
    W_hx, W_hh, W_qh, *_, x = point
    if len(W_hh.shape) != 2 or W_hh.shape[0] != W_hh.shape[1] or W_hh.shape[0] == 0:
        raise ValueError(f"W_hh must be a square matrix of size at least 1, not of shape {tuple(W_hh.shape)}")
    h = W_hh.shape[0]
    if len(W_hx.shape) != 2 or W_hx.shape[0] != h or W_hx.shape[1] == 0:
        raise ValueError(f"W_hx must have shape ({h}, d), not {tuple(W_hx.shape)}")
    if len(W_qh.shape) != 2 or W_qh.shape[1] != h or W_qh.shape[0] == 0:
        raise ValueError(f"W_qh must have shape (q, {h}), not {tuple(W_qh.shape)}")
    d, q = W_hx.shape[1], W_qh.shape[0]
    if len(x.shape) not in (2, 3) or x.shape[-1] != d:
        leading = "(B, T" if batch_first else "(T, B"
        raise ValueError(f"x must have shape (T, {d}) or {leading}, {d}), not {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"x must have at least one step and one sequence, not shape {tuple(x.shape)}")
    states = (h,) if len(x.shape) == 2 else (x.shape[0 if batch_first else 1], h)
    shapes = {"b_h": (h,), "b_q": (q,), "W_qx": (q, d), "h0": states}
    for name, value in zip(NAMES, point, strict=True):
        if value is not None and name in shapes and tuple(value.shape) != shapes[name]:
            raise ValueError(f"{name} must have shape {shapes[name]}, not {tuple(value.shape)}")
