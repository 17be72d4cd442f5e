"""Clipping of gradients by their global norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from .. import _validate
from ..engine.floating_point import quiet
from ..engine.params import Gradients

if TYPE_CHECKING:
    from .._validate import FloatArray

OnNonfinite = Literal["raise", "keep", "zero"]


@quiet
def clip_by_global_norm(
    gradients: Gradients, max_norm: float, *, on_nonfinite: OnNonfinite = "raise"
) -> tuple[Gradients, float]:
    r"""Scale all gradients by one factor, so that together they are no longer than `max_norm`.

    .. math::

        \|g\| = \Bigl(\sum_{\text{fields}} \|g_{\text{field}}\|_F^2\Bigr)^{1/2}, \qquad
        g \leftarrow \min\bigl(1, \text{max\_norm} / \|g\|\bigr)\, g

    The norm is taken of the gradients divided by a power of two, which is exact: squares neither overflow
    nor underflow, and finite gradients of any size keep their direction.

    Parameters
    ----------
    gradients : Gradients
        Gradients of one call, as `loss_and_grad` returns them. Every field that is present counts, those of
        ``h0`` and ``x`` too. They are not written to.
    max_norm : float
        The largest norm allowed, at least 0. ``math.inf`` only measures.
    on_nonfinite : {"raise", "keep", "zero"}
        What to do if a gradient holds inf or nan, which no factor can repair:

        - ``"raise"``: ValueError naming the field. The default, for such gradients mean that something went
          wrong earlier, and a factor of ``max_norm / inf`` would turn inf into nan and hide what it was.
        - ``"keep"``: return the gradients as they are, so that inf stays inf.
        - ``"zero"``: return zeros, so that an optimiser's step does nothing.

    Returns
    -------
    clipped : Gradients
        The same fields with the same shapes and dtypes. Arrays are shared with `gradients` where nothing
        was clipped.
    norm : float
        The global norm before clipping, in float64 whatever the dtype. It is inf where a norm of finite
        gradients is beyond float64 (they are clipped all the same) or a gradient is inf; nan where one is
        nan.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or a gradient is not finite and `on_nonfinite` is ``"raise"``.

    See Also
    --------
    torch.nn.utils.clip_grad_norm_ : divides by the norm plus 1e-6, and by inf where the norm overflows.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
       ICML 2013, algorithm 1.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> steep = rnnbptt.Gradients(W_hh=np.full((2, 2), 1e300))
    >>> clipped, norm = rnnbptt.clip_by_global_norm(steep, 1.0)
    >>> clipped.W_hh.tolist(), norm
    ([[0.5, 0.5], [0.5, 0.5]], 2e+300)
    """
    if not isinstance(gradients, Gradients):
        raise TypeError(f"gradients must be Gradients, not {type(gradients).__name__}")
    limit = math.inf if max_norm == math.inf else _validate.nonnegative("max_norm", max_norm)
    _validate.choice("on_nonfinite", on_nonfinite, ("raise", "keep", "zero"))
    present = gradients.items()
    largest = max((float(np.abs(g).max()) for _, g in present if g.size), default=0.0, key=_nan_last)
    if not math.isfinite(largest):
        if on_nonfinite == "raise":
            name = next(name for name, g in present if not np.isfinite(g).all())
            raise ValueError(f"gradients must be finite, but {name} holds inf or nan (see on_nonfinite)")
        if on_nonfinite == "zero":
            gradients = gradients._replace(**{name: np.zeros_like(g) for name, g in present})
        return gradients, largest
    if largest == 0:
        return gradients, 0.0

    # norm = root * 2^exponent, with entries of at most one under the root.
    exponent = math.frexp(largest)[1]
    squares = (float(np.sum(np.square(np.ldexp(g.astype(np.float64), -exponent)))) for _, g in present)
    root = math.sqrt(math.fsum(squares))
    try:
        norm = math.ldexp(root, exponent)
    except OverflowError:
        norm = math.inf
    if norm <= limit:
        return gradients, norm
    mantissa, shift = math.frexp(limit)
    # Scaled first to where a product with the factor neither overflows nor loses bits, and back after it.
    lift = 64 if exponent < 0 else -2 if exponent > 1000 else 0
    factor, shift = mantissa / root, shift - exponent - lift

    def scaled(g: FloatArray) -> FloatArray:
        wide = np.ldexp(np.ldexp(g.astype(np.float64), lift) * factor, shift)
        narrow: FloatArray = wide.astype(g.dtype)
        return narrow

    # An entry that becomes smaller than the dtype's smallest number is rounded to zero, which is no fault.
    return gradients._replace(**{name: scaled(g) for name, g in present}), norm


def _nan_last(value: float) -> tuple[bool, float]:
    return (math.isnan(value), value)
