"""The loss of a data set as a function of the parameters, and its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _validate
from ..engine import truncation
from ..engine.dataset import Backflow, Dataset, checked
from ..engine.params import Params
from ..engine.trajectories import outputs
from ..engine.truncation import Randomized, Sliding, backflow
from .curvature import Curvature, Layout
from .sliding import sliding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import ArrayLike, NDArray

    from .. import _core
    from .._validate import FloatArray
    from ..engine.params import Gradients
    from ..engine.truncation import Truncation

    CallableLoss = Callable[[NDArray[Any], Any], tuple[float, ArrayLike]]
    Loss = Literal["mse", "squared_error", "cross_entropy"] | CallableLoss

LOSSES = ("mse", "squared_error", "cross_entropy")


class Objective(Curvature):
    r"""Loss and gradients of one data set, with data checked once and memory kept between calls.

    .. math::

        L = \frac{1}{\sum w} \sum_{t,b} w_{t,b} \, l(y_{t,b}, o_{t,b})

    Parameters
    ----------
    x : array_like, shape (T, B, d) or (T, d)
        Inputs. Kept, and not copied where dtype and layout allow: do not change them between calls.
    y : array_like, shape (T, B, q) or (T, q); class labels (T, B) or (T,)
        Targets. A `loss` that is a function gets them as they are.
    loss : {"mse", "squared_error", "cross_entropy"} or callable
        ``(1/q) ||o - y||^2``, ``1/2 ||o - y||^2`` or ``-log softmax(o)[y]`` of every step; or a function
        ``f(o, y) -> (L, d_o)`` on whole arrays, laid out as `x` is.
    like : Params, optional
        Parameters whose shapes, dtype and optional terms `flat` is to use. Given, everything is checked
        here rather than at the first call.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    weights : array_like, shape (T, B) or (T,), optional
        Weight of every step, at least 0; one when absent. A step of weight 0 is left out exactly.
    lengths : array_like of int, shape (B,) or (), optional
        Number of steps of each sequence; later steps are neither run nor read.
    mask : array_like of bool, shape (T, B) or (T,), optional
        Shorthand for weights of one and zero. `weights`, `lengths` and `mask` multiply.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...).
    wrt : collection of str, optional
        Gradients to compute: every parameter that is present when absent; may name ``"h0"`` and ``"x"``.
        Naming ``"h0"`` makes the initial state a part of ``theta`` for `flat` and its like (see `pack`).
    truncate : Sliding, Chunked or Randomized, optional
        How far back in time losses look; the whole way when absent.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent. No bit of the result depends on it.
    memory_limit : int, optional
        Bytes of memory to work in, beside arguments and results. Longer sequences run in windows, at the
        price of a second forward pass. Absent, some 256 MiB are aimed at.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it, what was expected and what came.
    MemoryError
        If `memory_limit` is too small, or memory cannot be had; the message names the bytes.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params.random(d=1, h=3, q=1, rng=0)
    >>> objective = rnnbptt.Objective(np.ones((5, 1)), np.zeros((5, 1)), like=params)
    >>> loss, gradients = objective(params)
    >>> gradients.W_hh.shape
    (3, 3)
    >>> loss, gradient = objective.flat(params.ravel())
    >>> gradient.shape
    (15,)
    """

    __module__ = "rnnbptt"

    def __init__(
        self,
        x: ArrayLike,
        y: Any,
        *,
        loss: Loss = "mse",
        like: Params | None = None,
        h0: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        batch_first: bool = False,
        wrt: Collection[str] | None = None,
        truncate: Truncation | None = None,
        num_threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        if callable(loss):
            for name, value in (("weights", weights), ("mask", mask)):
                if value is not None:
                    raise ValueError(
                        f"{name} must be None when loss is a function: weigh the steps inside it"
                    )
        else:
            _validate.choice("loss", loss, LOSSES)
        self._loss: Loss = loss
        self._x, self._y = x, y
        self._options: dict[str, Any] = {
            "h0": h0,
            "weights": weights,
            "lengths": lengths,
            "mask": mask,
            "batch_first": batch_first,
            "wrt": wrt,
            "memory_limit": memory_limit,
        }
        self._truncate = truncation.checked(truncate)
        self._threads = _validate.num_threads(num_threads)
        # Set and read as one, so that threads with parameters of different kinds do not mix them up.
        self._bound: tuple[Dataset, _core.Problem | None] | None = None
        self._like = like
        self._flat: tuple[_core.Problem, _core._Terms] | None = None
        self._layout: Layout | None = None
        if like is not None:
            dataset, problem = self._bind(checked(like, "like"))
            self._layout = Layout(like, dataset)
            alone = not isinstance(truncate, Randomized)
            if problem is not None and alone and not self._layout.holes:
                # The extension serves flat() alone.
                self._flat = (problem, self._layout.terms)

    def __call__(self, params: Params) -> tuple[float, Gradients]:
        """Evaluate the loss and its gradients.

        Parameters
        ----------
        params : Params

        Returns
        -------
        loss : float
            L.
        gradients : Gradients
            New arrays of the parameters' dtype; ``None`` for what was not asked for.
        """
        dataset, problem = self._bind(params)
        if problem is not None:
            return _pulled(dataset, problem, params, self._threads, self._truncate)
        return self._with_callers_loss(params, None, dataset)

    def flat(self, theta: ArrayLike) -> tuple[float, FloatArray]:
        """Evaluate the loss and its gradient at a vector, as ``scipy.optimize.minimize(jac=True)`` asks.

        Parameters
        ----------
        theta : array_like, shape (like.size,) or (like.size + h0.size,)
            Parameters in the order of `Params.ravel`; if `wrt` names ``"h0"``, the initial state after them
            (see `pack`).

        Returns
        -------
        loss : float
            L.
        gradient : ndarray, shape of `theta`
            A new array in the same order, with zeros for parameters that `wrt` leaves out.
        """
        # What is more than an array may mean more: a mask, for one.
        if self._flat is not None and type(theta) is np.ndarray:
            bound, terms = self._flat
            result = bound.flat(theta, terms, self._threads)
            if result is not None:
                return result
        layout, vector, dataset, problem = self._at(theta)
        if problem is None or isinstance(self._truncate, Randomized):
            params, h0 = layout.unpack(vector)
            if problem is None:
                loss, gradients = self._with_callers_loss(params, h0, dataset)
            else:
                if h0 is not None:
                    dataset = dataset.starting_at(h0)
                    problem = self._posed(dataset)
                loss, gradients = _pulled(dataset, problem, params, self._threads, self._truncate)
            return loss, layout.join(gradients)
        result = problem.flat(vector, layout.terms, self._threads)
        assert result is not None
        layout.clear_holes(result[1])
        return result

    def _bind(self, params: Params) -> tuple[Dataset, _core.Problem | None]:
        """Return the data checked against parameters of this kind, and what the extension made of them."""
        bound = self._bound
        if bound is None or not (isinstance(params, Params) and bound[0].fits(params)):
            dataset = Dataset(checked(params), self._x, **self._options)
            bound = self._bound = (dataset, None if callable(self._loss) else self._posed(dataset))
        return bound

    def _posed(self, dataset: Dataset) -> _core.Problem:
        assert not callable(self._loss)
        targets = dataset.targets(self._loss, self._y)
        return dataset.pose(self._loss, targets, backflow(self._truncate, dataset))

    def _with_callers_loss(
        self, params: Params, h0: FloatArray | None, dataset: Dataset
    ) -> tuple[float, Gradients]:
        assert callable(self._loss)
        dataset = dataset.starting_at(h0)
        L, d_o = answer_of(self._loss, outputs(params, dataset, self._threads), self._y)
        L = _validate.number("L", L)
        d_o = dataset.outputs_like("d_o", d_o)
        problem = dataset.pose("given", d_o, backflow(self._truncate, dataset))
        return L, _pulled(dataset, problem, params, self._threads, self._truncate)[1]


def answer_of(loss: Any, o: FloatArray, y: Any) -> tuple[Any, Any]:
    """Ask a loss of the caller's for ``L`` and ``d_o``, unchecked but for being two."""
    answer = loss(o, y)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise TypeError(f"loss must return a pair (L, d_o), not {type(answer).__name__}")
    return answer


def _pulled(
    dataset: Dataset, problem: _core.Problem, params: Params, threads: int, truncate: Truncation | None
) -> tuple[float, Gradients]:
    """Compute loss and gradients, truncated or not, of a problem posed with `backflow(truncate, ...)`."""
    if isinstance(truncate, Sliding):
        return sliding(dataset, problem, params, threads, truncate.tau)
    cuts = truncate.cuts(dataset.steps, dataset.batch) if isinstance(truncate, Randomized) else None
    return dataset.gradients(problem, params, threads, cuts=cuts)


def loss_and_grad(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: Loss = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    truncate: Truncation | None = None,
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> tuple[float, Gradients]:
    r"""Evaluate the loss of a linear RNN and its exact gradients by backpropagation through time.

    .. math::

        g_t = W_{qh}^T \, \partial L / \partial o_t + W_{hh}^T g_{t+1}, \qquad
        \partial L / \partial W_{hh} = \sum_t g_t h_{t-1}^T, \quad
        \partial L / \partial W_{hx} = \sum_t g_t x_t^T

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of every result.
    x, y, loss, h0, weights, lengths, mask, batch_first, wrt, truncate, num_threads, memory_limit
        As for `Objective`, which is the better choice for more than one call on the same data.

    Returns
    -------
    loss : float
        L.
    gradients : Gradients
        New arrays; ``None`` for what was not asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it, what was expected and what came.
    MemoryError
        If memory cannot be had; the message names the bytes.

    See Also
    --------
    rnnbptt.reference.loss_and_grad : the same as equations in NumPy.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> loss, gradients = rnnbptt.loss_and_grad(params, [[1.0], [1.0]], [[0.0], [0.0]], loss="squared_error")
    >>> loss, gradients.W_hh
    (3.25, array([[3.]]))
    """
    objective = Objective(
        x,
        y,
        loss=loss,
        h0=h0,
        weights=weights,
        lengths=lengths,
        mask=mask,
        batch_first=batch_first,
        wrt=wrt,
        truncate=truncate,
        num_threads=num_threads,
        memory_limit=memory_limit,
    )
    return objective(params)


def vjp(
    params: Params,
    x: ArrayLike,
    d_o: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    d_hT: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    batch_first: bool = False,
    wrt: Collection[str] | None = None,
    truncate: Truncation | None = None,
    num_threads: int | None = None,
    memory_limit: int | None = None,
) -> Gradients:
    """Pull ``d_o = dL/do`` back to parameters, initial state and inputs: BPTT for a loss of your own.

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of every result.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    d_o : array_like, shape (T, B, q) or (T, q)
        Derivative of the loss by the outputs. Entries beyond `lengths` are not read.
    d_hT : array_like, shape (B, h) or (h,), optional
        Derivative of the loss by the last state of each sequence other than through `d_o`: by what was
        computed from that state afterwards. Zero when absent. Time is lifted in chunks of L steps only
        where L divides every length. Not to be had with `truncate`.
    h0, lengths, batch_first, wrt, truncate, num_threads, memory_limit
        As for `Objective`.

    Returns
    -------
    Gradients
        The vector-Jacobian product of the map from parameters (and h0, x) to outputs and last state.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    Examples
    --------
    A sequence in two windows: the gradient by the state they share is carried from the later to the earlier.

    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[2.0]])
    >>> x, d_o = np.ones((6, 1)), np.ones((6, 1))
    >>> h3 = rnnbptt.forward(params, x[:3]).hidden[-1]
    >>> late = rnnbptt.vjp(params, x[3:], d_o[3:], h3, wrt=("W_hh", "h0"))
    >>> early = rnnbptt.vjp(params, x[:3], d_o[:3], d_hT=late.h0)
    >>> early.W_hh + late.W_hh == rnnbptt.vjp(params, x, d_o).W_hh
    array([[ True]])
    """
    dataset = Dataset(
        checked(params),
        x,
        h0,
        lengths=lengths,
        batch_first=batch_first,
        wrt=wrt,
        memory_limit=memory_limit,
    )
    threads = _validate.num_threads(num_threads)
    truncation.checked(truncate)
    if d_hT is not None and truncate is not None:
        raise ValueError("d_hT must be None when gradients are truncated")
    targets, last = dataset.outputs_like("d_o", d_o), dataset.state("d_hT", d_hT)
    back = backflow(truncate, dataset) if last is None else Backflow(d_hT=last)
    problem = dataset.pose("given", targets, back)
    return _pulled(dataset, problem, params, threads, truncate)[1]
