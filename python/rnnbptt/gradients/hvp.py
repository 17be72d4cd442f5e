"""Products of the Hessian of the loss with a direction of the parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine.dataset import checked
from ..engine.params import Gradients, Params
from .jvp import direction_of
from .objective import Objective

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from ..engine.losses import LossLike


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
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> Gradients:
    r"""Multiply the Hessian of the loss by a direction, exactly and without forming the Hessian.

    .. math::

        H v = \nabla_\theta \langle \nabla_\theta L, v \rangle

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of every result.
    x, y, loss, h0, weights, lengths, mask, batch_first, num_threads, memory_limit
        As for `Objective`, whose `hessp` is the better choice for more than one product on the same data.
        The second derivative of a `loss` that is a function is not known: that is an error.
    v : Params or Gradients
        Direction, of the shapes of `params`. ``None`` stands for zero, as for what Gradients leave out; they
        may have a direction of ``h0``, but none of ``x``.
    wrt : collection of str, optional
        Parts of H v to return: every parameter that is present when absent; may name ``"h0"``. It says
        nothing of `v`.

    Returns
    -------
    Gradients
        H v, in new arrays; ``None`` for what was not asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it, what was expected and what came.
    MemoryError
        If memory cannot be had; the message names the bytes.

    See Also
    --------
    jvp : products with the Jacobian of the outputs.

    Examples
    --------
    >>> import rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> along_W_hh = rnnbptt.Gradients(W_hh=[[1.0]])
    >>> x, y = [[1.0], [1.0]], [[0.0], [0.0]]
    >>> rnnbptt.hvp(params, x, y, along_W_hh, loss="squared_error").W_hh
    array([[2.]])
    """
    terms = [name for name, _ in checked(params).items()]
    wanted = frozenset(terms) if wrt is None else _validate.names("wrt", wrt, (*terms, "h0"))
    direction = direction_of("v", v, params)
    start = v.h0 if isinstance(v, Gradients) else None
    if isinstance(v, Gradients) and v.x is not None:
        raise ValueError("v must have no direction of x")
    with_start = start is not None or "h0" in wanted
    objective = Objective(
        x,
        y,
        loss=loss,
        like=params,
        h0=h0,
        weights=weights,
        lengths=lengths,
        mask=mask,
        batch_first=batch_first,
        wrt=[*terms, "h0"] if with_start else None,
        num_threads=num_threads,
        memory_limit=memory_limit,
    )
    theta = objective.pack(params)
    along = np.concatenate([part.ravel() for part in direction.values()])
    if with_start:
        rest = np.zeros(theta.size - params.size, params.dtype)
        if start is not None:
            rest = objective.pack(params, start)[params.size :]
        along = np.concatenate([along, rest])
    product, product_h0 = objective.unpack(objective.hessp(theta, along))
    parts = {name: array for name, array in product.items() if name in wanted}
    return Gradients(**parts, h0=product_h0 if "h0" in wanted else None)
