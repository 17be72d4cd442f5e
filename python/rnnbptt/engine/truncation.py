"""Truncated backpropagation through time: how far back a loss looks.

Write ``e_t = W_qh^T dL/do_t`` for the part of ``dL/dh_t`` that comes through o_t alone, and g_t for what
replaces ``dL/dh_t``. Without truncation ``g_t = sum_{i >= 0} (W_hh^T)^i e_{t+i}``. Each class here says which
terms of that sum are kept. From g_t follow

    d_W_hh = sum_t g_t h_{t-1}^T,   d_W_hx = sum_t g_t x_t^T,   d_b_h = sum_t g_t,
    d_x_t = W_hx^T g_t + W_qx^T d_o_t

as without truncation; ``d_W_qh``, ``d_b_q`` and ``d_W_qx`` depend on no g_t and do not change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .. import _validate
from .dataset import Backflow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .dataset import Dataset


@dataclass(frozen=True, slots=True)
class Sliding:
    r"""Every loss looks back at exactly `tau` states, its own included.

    .. math::

        g_t = \sum_{i=0}^{\tau-1} (W_{hh}^T)^i \, e_{t+i}

    The initial state is state 0, at which no loss looks directly (``e_0 = 0``): its gradient is
    ``d_h0 = sum_{i=1}^{tau-1} (W_hh^T)^i e_i``. With `tau` above the number of steps T, this is the full
    gradient; with ``tau = T`` only ``d_h0`` lacks its last term.

    Parameters
    ----------
    tau : int
        Number of states, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `tau` is no integer of at least 1.

    Notes
    -----
    A lag window of `tau` states is the difference of two full gradients, ``g_t - (W_hh^T)^tau g_{t+tau}``,
    with one forward pass for both; where ``W_hh^tau`` is negligible to rounding, the first alone is computed.
    Where powers of ``W_hh`` grow or stay, that difference would cancel; it is then taken within blocks of
    time, and the part of a lag window that lies beyond its block enters as a gradient by the block's last
    state. All in all it takes about the time of two gradients, whatever `tau` and ``W_hh``; of two and a half
    where long lag windows meet a spectral radius above one. Where what lies outside the lag windows is so
    large, by the data, that a difference would not be exact beside it, or the truncated gradient so small
    beside the full one, lag windows are summed up loss by loss, by doubling: some ``2 log2(tau)`` products
    of all states with a power of ``W_hh``, several times the cost. Where powers of ``W_hh`` grow before they
    decay, as those of companion matrices do, it is `tau` products with ``W_hh`` itself. Memory beyond a full
    gradient is dL/do for up to twice all steps, and some eight states per block and sequence; a block has at
    least `tau` steps, except where that would cancel.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> x = d_o = np.ones((4, 1))
    >>> rnnbptt.vjp(params, x, d_o, truncate=rnnbptt.Sliding(2), wrt="x").x[:, 0]
    array([1.5, 1.5, 1.5, 1. ])
    """

    __module__ = "rnnbptt"

    tau: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", _validate.size("tau", self.tau))


@dataclass(frozen=True, slots=True)
class Chunked:
    r"""Time is cut into blocks of `tau` steps: states are carried from one to the next, gradients are not.

    .. math::

        g_t = \sum_{i=t}^{k(t)} (W_{hh}^T)^{i-t} \, e_i, \qquad k(t) = \text{the last step of the block of } t

    Blocks are steps 1 .. tau, tau + 1 .. 2 tau, and so on; the last one may be shorter. A loss looks back
    between 1 and `tau` steps. This is what training loops do that detach the state every `tau` steps. The
    initial state belongs to the first block: ``d_h0 = W_hh^T g_1``.

    Parameters
    ----------
    tau : int
        Steps of a block, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `tau` is no integer of at least 1.

    Notes
    -----
    Time is lifted in chunks of L steps only where L divides `tau`, which costs no more than the full gradient
    for most `tau`. On long single sequences a `tau` below six costs two to five gradients; a prime `tau`
    above 256 is not lifted at all.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> x = d_o = np.ones((4, 1))
    >>> rnnbptt.vjp(params, x, d_o, truncate=rnnbptt.Chunked(2), wrt="x").x[:, 0]
    array([1.5, 1. , 1.5, 1. ])
    """

    __module__ = "rnnbptt"

    tau: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "tau", _validate.size("tau", self.tau))


@dataclass(frozen=True, slots=True, eq=False)
class Randomized:
    r"""Truncation at random places, with weights that make it unbiased.

    .. math::

        g_t = e_t + a_{t+1} W_{hh}^T g_{t+1}, \qquad
        a_t = \begin{cases} 0 & \text{with probability } c \\ 1 / (1 - c) & \text{otherwise} \end{cases}

    with :math:`c = 1/\tau`, and ``d_h0 = a_1 W_hh^T g_1``. The expectation of every gradient is the full one.
    All a_t are drawn independently, for every step of every sequence, and anew in every call.

    Parameters
    ----------
    tau : float, optional
        Expected number of states that a loss looks back at, above 1; ``math.inf`` never cuts.
    probability : float, optional
        The probability c of a cut, at least 0 and below 1, in place of `tau`.
    rng : numpy.random.Generator or int, optional
        Source of randomness, or its seed. The stream goes on from call to call.

    Raises
    ------
    TypeError, ValueError
        If not exactly one of `tau` and `probability` is given, or one is out of range.

    Notes
    -----
    One object may serve several threads: the draw of a call is one call of the generator, which locks itself.
    Which thread gets which draw is then up to chance; for repeatable results give each thread its own object.

    Long paths are rare and weigh much: the variance grows with the spectral radius of ``W_hh`` and with c.

    References
    ----------
    Tallec and Ollivier, Unbiasing truncated backpropagation through time, 2017 (anticipated reweighted
    truncated backpropagation, ARTBP).

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> x = d_o = np.ones((4, 1))
    >>> truncate = rnnbptt.Randomized(tau=4, rng=0)
    >>> rnnbptt.vjp(params, x, d_o, truncate=truncate, wrt="x").x[:, 0]
    array([1.66666667, 1.        , 1.        , 1.        ])
    """

    __module__ = "rnnbptt"

    tau: float | None = None
    probability: float | None = field(default=None, kw_only=True)
    rng: np.random.Generator | int | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if (self.tau is None) == (self.probability is None):
            raise ValueError("one of tau and probability must be given to Randomized(...), and not both")
        if self.tau is not None:
            tau = _validate.real("tau", self.tau)
            if not tau > 1:
                raise ValueError(f"tau must be above 1, not {self.tau!r}")
            c = 1 / tau
        else:
            c = _validate.nonnegative("probability", self.probability)
            if not c < 1:
                raise ValueError(f"probability must be below 1, not {self.probability!r}")
        object.__setattr__(self, "probability", c)
        object.__setattr__(self, "rng", _validate.generator("rng", self.rng))

    @property
    def factor(self) -> float:
        """The value 1 / (1 - c) of an a_t that does not cut."""
        assert self.probability is not None
        return 1 / (1 - self.probability)

    def cuts(self, steps: int, batch: int) -> NDArray[np.bool_]:
        """Draw the cuts: at which steps of which sequences no gradient flows to the state before.

        Parameters
        ----------
        steps, batch : int
            Sizes T and B.

        Returns
        -------
        ndarray of bool, shape (T, B)
            True where a_t is zero. Drawn from the stream of `rng`, like those of every call.
        """
        assert self.probability is not None
        assert isinstance(self.rng, np.random.Generator)
        steps, batch = _validate.size("steps", steps), _validate.size("batch", batch)
        _validate.allocate("steps and batch of cuts", (steps, batch), np.dtype(np.float64))
        return self.rng.random((steps, batch)) < self.probability


Truncation = Sliding | Chunked | Randomized


def checked(truncate: object) -> Truncation | None:
    """Return `truncate` if it is a truncation or None."""
    if truncate is None or isinstance(truncate, Sliding | Chunked | Randomized):
        return truncate
    came = _validate.describe(truncate)
    raise TypeError(f"truncate must be Sliding(tau), Chunked(tau), Randomized(...) or None, not {came}")


def backflow(truncate: Truncation | None, dataset: Dataset) -> Backflow:
    """Return what of a truncation is fixed before any call; cuts are drawn for each call."""
    if isinstance(truncate, Chunked) and truncate.tau < dataset.steps:
        return Backflow(block=truncate.tau)
    if isinstance(truncate, Sliding) and truncate.tau <= dataset.steps:
        return Backflow(tau=truncate.tau)
    if isinstance(truncate, Randomized):
        return Backflow(factor=truncate.factor)
    return Backflow()
