"""Tangents and Hessian-vector products by the complex step, applied to outputs and to the gradient itself.

Move the point theta along v on the imaginary axis. Outputs and gradient are analytic functions of theta, so

    o(theta + i s v) = o + i s J v - O(s^2),            grad L(theta + i s v) = grad L + i s H v - O(s^2),

and with s = 1e-100 the imaginary parts, over s, are J v and H v to rounding: the equations of this package
run once, on complex numbers, and no second derivative is derived by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.floating_point import quiet
from ..engine.params import Gradients
from .gradients import FORMS, as_gradients, chosen
from .model import as_given, states_before
from .numerical import COMPLEX_STEP, moved, velocity_of
from .problem import Array, pose

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, DTypeLike

    from ..engine.losses import LossLike
    from ..engine.params import Params


@quiet
def jvp(
    params: Params,
    x: ArrayLike,
    d_params: Params | Gradients,
    *,
    h0: ArrayLike | None = None,
    d_h0: ArrayLike | None = None,
    d_x: ArrayLike | None = None,
    batch_first: bool = False,
    dtype: DTypeLike = np.complex128,
) -> Array:
    """Push a direction of the parameters forward to the outputs: the Jacobian-vector product.

    Parameters
    ----------
    params : Params
        Weights.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    d_params : Params or Gradients
        Direction, of the shapes of `params`; ``None`` stands for zero.
    h0, d_h0, d_x, batch_first
        As for `rnnbptt.jvp`.
    dtype : dtype, default complex128
        Complex numbers to compute with; clongdouble makes an oracle.

    Returns
    -------
    ndarray, shape (T, B, q) or (T, q)
        In float64, or what `dtype` is made of.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    problem = pose(params, x, None, loss=_no_loss, h0=h0, batch_first=batch_first)
    velocity = velocity_of("d_params", d_params, params, problem)
    beside: Any = {"h0": d_h0, "x": d_x}
    velocity = velocity_of("d", Gradients(**beside), params, problem, between="_") | velocity
    o = moved(problem.cast(_validate.complex_dtype("dtype", dtype)), velocity, 1j * COMPLEX_STEP).run()[1]
    return as_given(o.imag / COMPLEX_STEP, problem.batched, problem.batch_first)


@quiet
def hvp(
    params: Params,
    x: ArrayLike,
    y: Any,
    v: Params | Gradients,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    dtype: DTypeLike = np.complex128,
) -> Gradients:
    """Multiply the Hessian of the loss by a direction.

    Parameters
    ----------
    params, x, y, loss, h0, weights, lengths, mask, batch_first
        As for `loss_and_grad`. A `loss` that is a function must accept complex outputs.
    v : Params or Gradients
        Direction; ``None`` stands for zero.
    wrt : collection of str, optional
        Parts of H v to return: every parameter that is present when absent; may name "h0" and "x".
    dtype : dtype, default complex128
        Complex numbers to compute with; clongdouble makes an oracle.

    Returns
    -------
    Gradients
        In float64, or what `dtype` is made of.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    names = chosen(params, wrt)
    problem = pose(
        params, x, y, loss=loss, h0=h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    velocity = velocity_of("v", v, params, problem)
    analytic = moved(problem.cast(_validate.complex_dtype("dtype", dtype)), velocity, 1j * COMPLEX_STEP)
    hidden, o = analytic.run()
    d_o = analytic.evaluate(o)[1]
    before = states_before(hidden, analytic.h0, analytic.running)
    run = (analytic.model, analytic.x, before, hidden, d_o)
    found = FORMS["recursion"].gradients(*run, d_o @ analytic.model.W_qh, names)
    parts = {name: np.ascontiguousarray(part.imag / COMPLEX_STEP) for name, part in found.items()}
    return as_gradients(parts, problem.running, problem.batched, problem.batch_first)


def _no_loss(o: Array, y: Any) -> tuple[Any, Array]:
    raise AssertionError("only the outputs are asked for")
