"""Tangents: how outputs change along a direction of the parameters, by the model of states and tangents."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from ..engine.params import PARAMETERS, Gradients, Params, checked_direction
from ..engine.tangent_model import doubled
from ..engine.trajectories import outputs

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._validate import FloatArray


def jvp(
    params: Params,
    x: ArrayLike,
    d_params: Params | Gradients,
    *,
    h0: ArrayLike | None = None,
    d_h0: ArrayLike | None = None,
    d_x: ArrayLike | None = None,
    batch_first: bool = False,
    num_threads: int | None = None,
) -> FloatArray:
    r"""Push a direction of the parameters forward to the outputs: the Jacobian-vector product.

    .. math::

        h'_t = W_{hh} h'_{t-1} + dW_{hh} h_{t-1} + dW_{hx} x_t + db_h + W_{hx} dx_t, \qquad
        o'_t = W_{qh} h'_t + dW_{qh} h_t + dW_{qx} x_t + db_q + W_{qx} dx_t

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the result.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    d_params : Params or Gradients
        Direction, of the shapes of `params`. ``None`` stands for zero, as for what Gradients leave out.
        Gradients may bring ``h0`` and ``x`` along, instead of `d_h0` and `d_x`.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    d_h0 : array_like, shape of `h0`, optional
        Direction of the initial state; zero when absent.
    d_x : array_like, shape of `x`, optional
        Direction of the inputs; zero when absent.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...), on the way in and on the way out.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent. No bit of the result depends on it.

    Returns
    -------
    ndarray, shape (T, B, q) or (T, q)
        The tangent o' of the outputs.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    MemoryError
        If the result cannot be allocated; the message names the bytes.

    See Also
    --------
    vjp : the adjoint of this map.

    Examples
    --------
    >>> import rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> along_W_hh = rnnbptt.Params(W_hx=[[0.0]], W_hh=[[1.0]], W_qh=[[0.0]])
    >>> rnnbptt.jvp(params, [[1.0], [1.0]], along_W_hh).ravel()
    array([0., 2.])
    """
    dataset = Dataset(checked(params), x, h0, batch_first=batch_first)
    threads = _validate.num_threads(num_threads)
    direction = direction_of("d_params", d_params, params)
    if isinstance(d_params, Gradients):
        for name, given, twice in (("h0", d_params.h0, d_h0), ("x", d_params.x, d_x)):
            if given is not None and twice is not None:
                raise ValueError(f"d_{name} must be None where d_params has a direction of {name}")
        d_h0 = d_params.h0 if d_h0 is None else d_h0
        d_x = d_params.x if d_x is None else d_x
    batch, (_, h, q) = dataset.batch, params.shape
    d_start = _validate.initial_state(d_h0, params.dtype, batch, h, dataset.batched, name="d_h0")

    start = dataset.start
    if d_start is not None or start is not None:
        zero = np.zeros((batch, h), params.dtype)
        start = zero if start is None else start
        d_start = zero if d_start is None else d_start
    moved = None
    if d_x is not None:
        shape = (dataset.steps, batch, params.shape[0])
        moved = _validate.like_sequence("d_x", d_x, params.dtype, shape, dataset.batched, dataset.batch_first)
    along = [direction.get(name) for name in PARAMETERS]
    *weights, start, inputs = doubled(
        (*params._arrays, start, dataset.inputs),
        (*along, d_start, moved),
        np.concatenate,
        np.zeros_like,
        same_inputs=moved is None,
    )
    named = dict(zip(PARAMETERS, weights, strict=True))
    for name in ("W_qh", "b_q", "W_qx"):  # of the outputs, the tangent alone
        named[name] = None if named[name] is None else named[name][q:]
    model = Params(**named)
    return outputs(model, dataset.for_model(model.shape, start, inputs), threads)


def direction_of(name: str, given: object, params: Params) -> dict[str, FloatArray]:
    """Return a direction of the parameters, checked, with zeros for what is left out."""
    whole = checked_direction(given, name)
    parts = {}
    for field in PARAMETERS:
        array, part = getattr(params, field), getattr(whole, field)
        if array is None:
            if part is not None:
                raise ValueError(f"{name} must have no {field}, as params has none")
        elif part is None:
            parts[field] = np.zeros_like(array)
        else:
            parts[field] = _validate.array(f"{name}.{field}", part, params.dtype, array.shape)
    return parts
