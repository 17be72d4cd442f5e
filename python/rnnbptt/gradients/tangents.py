r"""Tangents: how outputs and gradients change along a direction of the parameters.

The tangent of a linear RNN is a linear RNN of twice the size. Differentiate both equations along a direction
``(dW_hx, dW_hh, ...)``, and put the state h and its tangent h' one below the other:

.. math::

    \begin{pmatrix} h_t \\ h'_t \end{pmatrix}
    = \begin{pmatrix} W_{hh} & 0 \\ dW_{hh} & W_{hh} \end{pmatrix}
      \begin{pmatrix} h_{t-1} \\ h'_{t-1} \end{pmatrix}
    + \begin{pmatrix} W_{hx} \\ dW_{hx} \end{pmatrix} x_t, \qquad
    o'_t = \begin{pmatrix} dW_{qh} & W_{qh} \end{pmatrix} \begin{pmatrix} h_t \\ h'_t \end{pmatrix}

So the engine that runs and differentiates one model runs and differentiates the other. The gradient of
``sum_t dL/do_t . o'_t``, which is the derivative of the loss along the direction, is the product of the
Hessian with the direction: forward over reverse [1]_, with nothing to be derived by hand.

References
----------
.. [1] B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994), 147-160.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.dataset import Dataset, checked
from ..engine.params import PARAMETERS, Gradients, Params
from ..engine.trajectories import outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from .._validate import FloatArray

    Parts = Mapping[str, NDArray[Any]]


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

    point = dict(params.items())
    if d_start is not None or dataset.start is not None:
        zero = np.zeros((batch, h), params.dtype)
        point["h0"] = zero if dataset.start is None else dataset.start
        direction["h0"] = zero if d_start is None else d_start
    both = doubled(point, direction)
    if d_x is not None:
        shape = (dataset.steps, batch, params.shape[0])
        moved = _validate.like_sequence("d_x", d_x, params.dtype, shape, dataset.batched, dataset.batch_first)
        dataset.inputs = np.concatenate([dataset.inputs, moved], axis=-1)
        into = np.zeros((2 * h, params.shape[0]), params.dtype)
        into[h:] = params.W_hx
        both["W_hx"] = np.hstack([both["W_hx"], into])
        if params.W_qx is not None:
            both["W_qx"] = np.hstack([both["W_qx"], np.concatenate([params.W_qx] * 2)])
    dataset.start = both.pop("h0", None)
    # Of the outputs, the tangent alone.
    tangent = {name: part[q:] if name in ("W_qh", "b_q", "W_qx") else part for name, part in both.items()}
    model = Params(**tangent)
    dataset.shape = model.shape
    return outputs(model, dataset, threads)


def direction_of(name: str, given: object, params: Params) -> dict[str, FloatArray]:
    """Return a direction of the parameters, checked, with zeros for what is left out."""
    if not isinstance(given, (Params, Gradients)):
        raise TypeError(f"{name} must be rnnbptt.Params or Gradients, not {type(given).__name__}")
    parts = {}
    for field in PARAMETERS:
        array, part = getattr(params, field), getattr(given, field)
        if array is None:
            if part is not None:
                raise ValueError(f"{name} must have no {field}, as params has none")
        elif part is None:
            parts[field] = np.zeros_like(array)
        else:
            parts[field] = _validate.array(f"{name}.{field}", part, params.dtype, array.shape)
    return parts


def doubled(point: Parts, direction: Parts) -> dict[str, NDArray[Any]]:
    """Return the parameters, and h0 as (B, h), of the model of states and tangents, outputs o over o'."""
    both = {}
    for name, part in point.items():
        moved = direction[name]
        if name in ("W_hh", "W_qh"):
            both[name] = np.block([[part, np.zeros_like(part)], [moved, part]])
        else:
            both[name] = np.concatenate([part, moved], axis=-1 if name == "h0" else 0)
    return both


class HessianProduct:
    """Products with the Hessian of a built-in loss, at any point and along any direction.

    Parameters
    ----------
    params : Params
        Shapes, dtype and terms.
    dataset : Dataset
        The data.
    loss : str
    targets : ndarray
        As `Dataset.targets` returns them.
    with_start : bool
        Whether vectors hold h0 behind the parameters.
    **schedule : int
        As `Dataset.pose` takes them.
    """

    def __init__(
        self,
        params: Params,
        dataset: Dataset,
        loss: str,
        targets: NDArray[Any],
        with_start: bool,
        **schedule: int,
    ) -> None:
        present = [name for name, _ in params.items()]
        self._terms = ("b_h" in present, "b_q" in present, "W_qx" in present, with_start)
        d, h, q = dataset.shape
        start = None  # part of the vector
        if dataset.start is not None and not with_start:
            start = np.concatenate([dataset.start, np.zeros_like(dataset.start)], axis=-1)
        self._problem = dataset.doubled((d, 2 * h, 2 * q), start).pose(loss, targets, **schedule)

    def __call__(self, theta: object, v: object, threads: int) -> FloatArray | None:
        """Return the product of the Hessian at `theta` with `v`; None where one is no vector of its size."""
        return self._problem.hessian_product(theta, v, self._terms, threads)
