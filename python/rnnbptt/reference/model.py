"""The network, equations (1) and (2): states and outputs from parameters and inputs.

Inside this package arrays are time-major and always have a batch axis: x is (T, B, d), a state (B, h). A
batch of states is a stack of *rows*, so the column equation ``W h`` is written ``h @ W.T``. Nothing fixes the
dtype: the same lines serve float32, float64, long double, and the complex numbers of the complex step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.floating_point import quiet
from ..engine.params import Trajectory
from .scan import scan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..engine.params import Params

Array = NDArray[Any]


class Model(NamedTuple):
    """The parameters of `rnnbptt.Params` in any dtype."""

    W_hx: Array
    W_hh: Array
    W_qh: Array
    b_h: Array | None = None
    b_q: Array | None = None
    W_qx: Array | None = None

    @classmethod
    def of(cls, params: Params) -> Self:
        """Take the arrays of `params`, uncopied."""
        return cls(**dict(params.items()))

    def cast(self, dtype: np.dtype[Any]) -> Self:
        """Return the same numbers in another dtype."""
        return self._replace(
            **{
                name: array.astype(dtype, copy=False)
                for name, array in self._asdict().items()
                if array is not None
            }
        )


def states(model: Model, x: Array, h0: Array) -> Array:
    """Run equation (1), ``h_t = W_hx x_t + W_hh h_{t-1} + b_h``, for t = 1..T.

    All that enters from outside is known in advance, so it is one product over all steps; what is left
    inside the time loop is the recurrence itself.

    Returns
    -------
    ndarray, shape (T, B, h)
    """
    v = x @ model.W_hx.T
    if model.b_h is not None:
        v += model.b_h
    return scan(model.W_hh, v, h0)


def states_before(hidden: Array, h0: Array, running: NDArray[np.bool_] | None) -> Array:
    """Return ``h_{t-1}`` for t = 1..T, zero where the step is not run: the state before may be infinite.

    Returns
    -------
    ndarray, shape (T, B, h)
    """
    before = np.concatenate([h0[np.newaxis], hidden[:-1]])
    return before if running is None else np.where(running, before, 0)


def outputs(model: Model, x: Array, hidden: Array) -> Array:
    """Evaluate equation (2), ``o_t = W_qh h_t + W_qx x_t + b_q``, for all steps at once.

    Returns
    -------
    ndarray, shape (T, B, q)
    """
    o: Array = hidden @ model.W_qh.T
    if model.W_qx is not None:
        o += x @ model.W_qx.T
    if model.b_q is not None:
        o += model.b_q
    return o


@quiet
def forward(
    params: Params, x: ArrayLike, h0: ArrayLike | None = None, *, batch_first: bool = False
) -> Trajectory:
    """Run the network: equations (1) and (2).

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the computation.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state h_0; zero when absent.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...), on the way in and on the way out.

    Returns
    -------
    Trajectory
        Hidden states and outputs, without a batch axis if `x` has none.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    d = params.shape[0]
    batch_first = _validate.boolean("batch_first", batch_first)
    inputs, batched = _validate.sequence("x", x, params.dtype, d, batch_first)
    start = initial_state(params, h0, inputs.shape[1], batched)
    model = Model.of(params)
    hidden = states(model, inputs, start)
    o = outputs(model, inputs, hidden)
    return Trajectory(as_given(hidden, batched, batch_first), as_given(o, batched, batch_first))


def initial_state(params: Params, h0: ArrayLike | None, batch: int, batched: bool, name: str = "h0") -> Array:
    """Return h_0, or another state, as (B, h): the caller's, or zero."""
    h = params.shape[1]
    start = _validate.initial_state(h0, params.dtype, batch, h, batched, name)
    return np.zeros((batch, h), params.dtype) if start is None else start


def as_given(array: Array, batched: bool, batch_first: bool) -> Array:
    """Return a time-major (T, B, ...) array in the layout the caller uses."""
    if not batched:
        return array[:, 0]
    return array.swapaxes(0, 1) if batch_first else array
