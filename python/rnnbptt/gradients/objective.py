"""The loss of a data set as a function of the parameters, and its derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _validate
from ..engine import truncation
from ..engine.dataset import Dataset, checked
from ..engine.losses import checked_loss
from ..engine.params import Gradients, Params
from ..engine.truncation import Randomized
from .curvature import Curvature, GaussNewton, check_loss
from .layout import Layout
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike

    from .. import _core
    from .._validate import FloatArray
    from ..engine.losses import LossLike
    from ..engine.truncation import Truncation


#: What is made from the arguments, and made again where an objective is copied or comes from a pickle.
_MADE = ("_step_loss", "_bound", "_laid", "_flat")


class Objective:
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
    weights : array_like, shape (T, B) or (T,); (T, B, q) or (T, q) for the squared losses, optional
        Weight of every step, at least 0; one when absent. Or of every output, and L is sum w l / (sum w / q),
        l its share in the step's loss. Only ratios matter. Weight 0 leaves out exactly, whatever the target.
    lengths : array_like of int, shape (B,) or (), optional
        Number of steps of each sequence, from 0 to T; later steps are neither run nor read.
    mask : array_like of bool, shape as for `weights`, optional
        Shorthand for weights of 0 and 1. All three multiply; if nothing is left, loss and gradients are 0.
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
        loss: LossLike = "mse",
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
        self._loss = loss
        self._x, self._y = x, y
        self._options: dict[str, Any] = {"h0": h0, "weights": weights, "lengths": lengths, "mask": mask}
        _validate.memory_limit(memory_limit)
        wrt = None if wrt is None else _validate.names("wrt", wrt, Gradients._fields)
        batch_first = _validate.boolean("batch_first", batch_first)
        self._options |= {"batch_first": batch_first, "wrt": wrt, "memory_limit": memory_limit}
        self._truncate = truncation.checked(truncate)
        self._threads = _validate.num_threads(num_threads)
        self._like = like
        self._make()

    def _make(self) -> None:
        like = self._like
        self._step_loss = checked_loss(self._loss, self._options["weights"], self._options["mask"])
        self._bound: Problem | None = None
        self._laid: tuple[Layout, Problem, Curvature] | None = None
        self._flat: tuple[_core.Problem, _core._Terms] | None = None
        if like is not None:
            problem = self._bind(checked(like, "like"))
            layout = Layout(like, problem.dataset)
            self._laid = (layout, problem, Curvature(problem, layout))
            if problem.native is not None and not (isinstance(self._truncate, Randomized) or layout.holes):
                # The extension serves flat() alone.
                self._flat = (problem.native, layout.terms)

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
        return self._bind(params).loss_and_gradients(params, self._threads)

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
            posed, terms = self._flat
            result = posed.flat(theta, terms, self._threads)
            if result is not None:
                return result
        layout, problem, _ = self._laid_out()
        vector = layout.vector("theta", theta)
        if problem.native is None or isinstance(self._truncate, Randomized):
            params, h0 = layout.unpack(vector)
            loss, gradients = problem.starting_at(h0).loss_and_gradients(params, self._threads)
            return loss, layout.join(gradients)
        result = problem.native.flat(vector, layout.terms, self._threads)
        assert result is not None
        layout.clear_holes(result[1])
        return result

    @property
    def weight_sum(self) -> tuple[float, int]:
        """What L is divided by, ``mantissa * 2**exponent``: both, since it may lie outside float64.

        ``sum w``, ``sum w / q`` of outputs' own, or the number of steps; the mantissa is 0 or in [1/2, 1).
        """
        if self._bound is None:
            raise ValueError("like must be given to Objective(...), or weight_sum is known after a call only")
        return self._bound.dataset.weight_sum

    def pack(self, params: Params, h0: ArrayLike | None = None) -> FloatArray:
        """Write parameters, and the initial state where `wrt` names it, into one vector ``theta``.

        Parameters
        ----------
        params : Params
            Parameters of the kind of `like`.
        h0 : array_like, shape (B, h) or (h,), optional
            Initial state; when absent that of the objective. To be left out where `wrt` does not name it.

        Returns
        -------
        ndarray, shape (like.size,) or (like.size + h0.size,)
            What `flat`, `residuals`, `jac`, `gauss_newton` and `hessp` take.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or `like` was not given to the objective.
        """
        layout, problem, _ = self._laid_out()
        return layout.pack(checked(params), h0, problem.dataset.start)

    def unpack(self, theta: ArrayLike) -> tuple[Params, FloatArray | None]:
        """Take the vector ``theta`` apart: the reverse of `pack`.

        Parameters
        ----------
        theta : array_like, shape (like.size,) or (like.size + h0.size,)

        Returns
        -------
        params : Params
        h0 : ndarray, shape (B, h) or (h,), or None
            ``None`` where `wrt` does not name it. Both share memory with `theta` where dtype and layout
            allow.

        Raises
        ------
        TypeError, ValueError
            If `theta` does not fit, or `like` was not given to the objective.
        """
        layout = self._laid_out()[0]
        return layout.unpack(layout.vector("theta", theta))

    def residuals(self, theta: ArrayLike) -> FloatArray:
        r"""Evaluate the residuals that the loss is half the sum of squares of, as SciPy's least_squares asks.

        .. math::

            r_{t,b} = \sqrt{c \, w_{t,b} / \textstyle\sum w} \; (o_{t,b} - y_{t,b}), \qquad
            L = \tfrac12 \sum r^2

        with c = 1 for ``"squared_error"`` and c = 2/q for ``"mse"``: SciPy's ``cost`` is L itself.

        Parameters
        ----------
        theta : array_like
            As for `flat`.

        Returns
        -------
        ndarray, shape (T * B * q,)
            A new array, in the order of ``y.ravel()``. What does not count is exactly zero.

        Raises
        ------
        TypeError, ValueError
            If `theta` does not fit, `like` was not given, or the loss is no sum of squares.
        """
        check_loss("residuals", self._step_loss, self._truncate, squares=True)
        layout, _, curvature = self._laid_out()
        return curvature.residuals(layout.vector("theta", theta), self._threads)

    def jac(self, theta: ArrayLike) -> FloatArray:
        """Evaluate the derivative of the residuals by ``theta``, as `scipy.optimize.least_squares` asks.

        Parameters
        ----------
        theta : array_like
            As for `flat`.

        Returns
        -------
        ndarray, shape (T * B * q, n)
            A new array; rows as in `residuals`, columns as in `theta`. Columns of parameters that `wrt`
            leaves out, and rows of what does not count, are exactly zero.

        Raises
        ------
        TypeError, ValueError
            As for `residuals`.
        MemoryError
            If the matrix cannot be had; the message names the bytes. `gauss_newton` never forms it.
        """
        check_loss("jac", self._step_loss, self._truncate, squares=True)
        layout, _, curvature = self._laid_out()
        return curvature.jacobian(layout.vector("theta", theta), self._threads)

    def gauss_newton(self, theta: ArrayLike) -> GaussNewton:
        r"""Evaluate loss, gradient and Gauss-Newton matrix.

        .. math::

            G = \sum_{t,b} \frac{w_{t,b}}{\sum w} \,
                \left(\frac{\partial o_{t,b}}{\partial\theta}\right)^T
                \frac{\partial^2 l}{\partial o_{t,b}^2} \,
                \frac{\partial o_{t,b}}{\partial\theta}

        This is ``J^T J`` of `jac` for the squared losses, and the generalised Gauss-Newton matrix [1]_ with
        ``diag(p) - p p^T``, ``p = softmax(o)``, in the middle for the cross entropy. It is summed up in
        windows of time: beside the trajectory and the result, some megabytes of memory do for any T.

        Parameters
        ----------
        theta : array_like
            As for `flat`.

        Returns
        -------
        GaussNewton
            ``(loss, gradient, matrix)``; loss and gradient are those of `flat`. Rows and columns of
            parameters that `wrt` leaves out are zero.

        Raises
        ------
        TypeError, ValueError
            If `theta` does not fit, `like` was not given, or the loss is a function, whose second
            derivative is not known.
        MemoryError
            If the matrix cannot be had; the message names the bytes.

        References
        ----------
        .. [1] N. N. Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent",
           Neural Computation 14 (2002), 1723-1738.
        """
        check_loss("gauss_newton", self._step_loss, self._truncate, squares=False)
        layout, _, curvature = self._laid_out()
        vector = layout.vector("theta", theta)
        matrix = curvature.gauss_newton(vector, self._threads)
        return GaussNewton(*self.flat(vector), matrix)

    def hessp(self, theta: ArrayLike, v: ArrayLike) -> FloatArray:
        r"""Multiply the Hessian of the loss by a vector, as ``scipy.optimize.minimize(hessp=...)`` asks.

        .. math::

            H v = \nabla_\theta \langle \nabla_\theta L, v \rangle

        Parameters
        ----------
        theta : array_like
            As for `flat`.
        v : array_like, shape of `theta`
            Direction. Entries of parameters that `wrt` leaves out count as zero.

        Returns
        -------
        ndarray, shape of `theta`
            H v, exact, in the time of two to four gradients; zero for parameters that `wrt` leaves out.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, `like` was not given, or the loss is a function, whose second
            derivative is not known.
        """
        check_loss("hessp", self._step_loss, self._truncate, squares=False)
        layout, _, curvature = self._laid_out()
        # As in `flat`: what is more than an array may mean more.
        if type(theta) is np.ndarray and type(v) is np.ndarray and not layout.holes:
            product = curvature.hessian_product(theta, v, self._threads)
            if product is not None:
                return product
        vector, along = layout.vector("theta", theta), layout.vector("v", v)
        if layout.holes:
            along = layout.clear_holes(along.copy())
        product = curvature.hessian_product(vector, along, self._threads)
        assert product is not None
        return layout.clear_holes(product)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make()

    def _bind(self, params: Params) -> Problem:
        """Return the problem for parameters of this kind."""
        # Read once and set as one, so that threads with parameters of different kinds do not mix them up.
        bound = self._bound
        if bound is None or not (isinstance(params, Params) and bound.dataset.fits(params)):
            dataset = Dataset(checked(params), self._x, **self._options)
            bound = self._bound = Problem(dataset, self._step_loss, self._y, self._truncate)
        return bound

    def _laid_out(self) -> tuple[Layout, Problem, Curvature]:
        if self._laid is None:
            raise ValueError("like must be given to Objective(...), or flat(theta) knows no shapes")
        return self._laid
