"""How gradients flow back through a model on its own data: by step, by lag, and what each lag adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import _validate
from ...engine.floating_point import quiet
from ..lag_terms import LagTerms
from ..problem import chosen_lags, pose
from ..wide_range.scaled import Real, Scaled
from .alignment import Backpropagated
from .report import GradientFlow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ...engine.losses import LossLike
    from ...engine.params import Params


@quiet
def gradient_flow(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    lags: int | None = None,
    num_threads: int | None = None,
) -> GradientFlow:
    r"""Tell how the gradients of a loss flow back in time, and what each lag adds to ``dL/dW_hh``.

    With :math:`e_t = W_{qh}^\top\,\partial L/\partial o_t`, the gradient of a state sums what later losses
    send back, and the gradient of the recurrent weights sums over the lag k between a loss and the state at
    which it arrives:

    .. math::

        g_t = \frac{\partial L}{\partial h_t} = \sum_{k \ge 0} (W_{hh}^\top)^k e_{t+k}, \qquad
        \frac{\partial L}{\partial W_{hh}} = \sum_{k \ge 0} G_k, \quad
        G_k = (W_{hh}^\top)^k W_{qh}^\top \sum_t \frac{\partial L}{\partial o_{t+k}} h_{t-1}^\top .

    Nothing overflows or underflows: where float64 would, states, outputs and gradients are carried as a
    mantissa times a power of two.

    Parameters
    ----------
    params : Params
        Weights. float32 ones are widened: all computing is in float64.
    x, y, loss, h0, weights, lengths, mask, batch_first
        As for `Objective`, but finite; a target that is NaN is missing: it is left out, as of weight 0. A
        `loss` that is a function gets `y` as it is, and needs outputs within the range of float64.
    lags : int, optional
        K, the number of lags to tell apart, up to T: 1000 or T when absent.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.

    Returns
    -------
    GradientFlow

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    See Also
    --------
    truncation_report : what is lost by looking back a few steps only.
    spectral_report : what ``W_hh`` does to gradients on any data.

    Notes
    -----
    Beyond one gradient, the cost is that of the states' gradients, 2 T B h^2 flops, of correlating d with q
    series, for many by the Fourier transforms of d + q, and of the contributions, 8 K h^2 q flops; some ten
    times as much where numbers leave the range of float64. Eigenvectors of ``W_hh`` are
    computed only when `GradientFlow.alignment` or `GradientFlow.leading_eigenvalues` are asked for, or shown.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> flow = rnnbptt.gradient_flow(params, np.ones((20, 1)), np.zeros((20, 1)))
    >>> flow.horizon(0.01)  # 0.5 ** 7 < 1 %
    7
    >>> bool(abs(flow.shares.sum() + flow.remainder_share - 1) < 1e-12)
    True
    """
    threads = _validate.num_threads(num_threads)
    problem = pose(
        params,
        x,
        y,
        loss=loss,
        h0=h0,
        weights=weights,
        lengths=lengths,
        mask=mask,
        batch_first=batch_first,
        threads=threads,
    )
    terms = LagTerms(problem, chosen_lags(lags, problem), threads)
    by_step = problem.log2_state_gradients()
    W, P = problem.params.W_hh, terms.P
    arriving = Backpropagated(W, P, problem.d_o, max(problem.used, 1), threads)
    h = len(problem.start[0])
    total = terms.total(h)
    mantissa = total.mantissa
    square = float(np.sum(mantissa * mantissa))
    inner = terms.inner_products(mantissa)
    shares = _scaled_share(inner.mantissa, inner.exponent, square, total)
    rest = terms.rest_of(h)
    beyond = np.sum(rest.mantissa * mantissa)
    own = by_step if problem.batched else by_step[:, 0]
    return GradientFlow(
        steps=len(by_step),
        batch=by_step.shape[1],
        size=h,
        dtype=str(params.dtype),
        batch_first=problem.batched and problem.batch_first,
        log2_state_gradients=own.T if problem.batched and problem.batch_first else own,
        log2_lag_norms=arriving.log2_norms,
        arriving=arriving,
        missing=problem.missing,
        log2_contributions=terms.log2_norms(h),
        shares=shares,
        remainder_share=float(_scaled_share(beyond, rest.exponent, square, total)),
        log2_remainder=float(rest.log2_norms()),
        log2_gradient_norm=float(total.log2_norms()),
    )


def _scaled_share(inner: Any, exponent: Any, square: float, total: Scaled) -> Real:
    shift = np.clip(exponent - total.exponent, -5000, 5000).astype(np.int32)
    share: Real = np.ldexp(np.divide(inner, square), shift)
    return share
