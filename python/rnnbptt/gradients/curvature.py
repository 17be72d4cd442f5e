"""An objective as a function of one vector: where its parameters stand, and its second derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _validate
from ..engine.params import PARAMETERS, Gradients, Params
from .tangents import HessianProduct

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .. import _core
    from .._validate import FloatArray
    from ..engine.dataset import Dataset

_OPTIONAL = ("b_h", "b_q", "W_qx")


class GaussNewton(NamedTuple):
    """What `Objective.gauss_newton` returns.

    Attributes
    ----------
    loss : float
        L.
    gradient : ndarray, shape (n,)
        dL/dtheta, which is ``J^T r`` where there are residuals r.
    matrix : ndarray, shape (n, n)
        ``J^T J``, symmetric and positive semidefinite: the part of the second derivative of L that stays
        where the outputs are linear in the parameters.
    """

    loss: float
    gradient: FloatArray
    matrix: FloatArray


GaussNewton.__module__ = "rnnbptt"  # in a class body it would be one more field


class Layout:
    """How one vector holds the parameters, in the order of `Params.ravel`, and h0 behind them.

    Attributes
    ----------
    like : Params
    size : int
        Length of the vector.
    terms : tuple of bool
        Whether b_h, b_q, W_qx and h0 are in it.
    holes : list of slice
        Parameters in the vector that are not differentiated by.
    first : tuple of int
        Where the derivatives by the six parameters and by h0 begin; -1 for none.
    """

    def __init__(self, like: Params, dataset: Dataset) -> None:
        self.like = like
        shape = (dataset.batch, dataset.shape[1]) if dataset.batched else (dataset.shape[1],)
        self.start = shape if "h0" in dataset.wrt else None
        sizes = {name: array.size for name, array in like.items()}
        if self.start is not None:
            sizes["h0"] = dataset.batch * dataset.shape[1]
        self.holes, first, at = [], dict.fromkeys((*PARAMETERS, "h0"), -1), 0
        for name, size in sizes.items():
            if name in dataset.wrt:
                first[name] = at
            else:
                self.holes.append(slice(at, at + size))
            at += size
        self.size, self.first = at, tuple(first.values())
        b_h, b_q, W_qx = (name in sizes for name in _OPTIONAL)
        self.terms = (b_h, b_q, W_qx, self.start is not None)

    def without_holes(self) -> tuple[tuple[int, ...], int]:
        """Return `first` and the length where what is not differentiated by is left out."""
        skipped = [
            sum(hole.stop - hole.start for hole in self.holes if hole.start < at) if at >= 0 else 0
            for at in self.first
        ]
        first = tuple(at - less for at, less in zip(self.first, skipped, strict=True))
        return first, self.size - sum(hole.stop - hole.start for hole in self.holes)

    def clear_holes(self, vector: FloatArray) -> FloatArray:
        """Write zeros into the holes of a vector, and return it."""
        for hole in self.holes:
            vector[hole] = 0
        return vector

    def vector(self, name: str, value: ArrayLike) -> FloatArray:
        """Return `value` as a vector of this layout."""
        return _validate.array(name, value, self.like.dtype, (self.size,))

    def unpack(self, vector: FloatArray) -> tuple[Params, FloatArray | None]:
        """Take a vector apart; the parts share its memory."""
        params = self.like.unravel(vector[: self.like.size])
        return params, None if self.start is None else vector[self.like.size :].reshape(self.start)

    def join(self, gradients: Gradients) -> FloatArray:
        """Put gradients where the vector holds what they are gradients of, and zeros in the holes."""
        names = [name for name, _ in self.like.items()] + ["h0"] * self.terms[3]
        given = gradients._asdict()
        return np.concatenate(
            [
                np.zeros(getattr(self.like, name).size, self.like.dtype)
                if given[name] is None
                else given[name].ravel()
                for name in names
            ]
        )


class Curvature:
    """The part of an `Objective` that knows second derivatives."""

    _like: Params | None
    _layout: Layout | None
    _loss: Any
    _truncate: Any
    _y: Any
    _threads: int
    _hessian: HessianProduct | None = None

    def _bind(self, params: Params) -> tuple[Dataset, _core.Problem | None]:
        raise NotImplementedError

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
        layout = self._laid_out()
        if not isinstance(params, Params):
            raise TypeError(f"params must be rnnbptt.Params, not {type(params).__name__}")
        if params._kind != layout.like._kind:
            raise ValueError(
                f"params must have shapes, dtype and terms {layout.like._kind}, not {params._kind}"
            )
        if layout.start is None:
            if h0 is not None:
                raise ValueError("h0 must be None unless wrt names it")
            return params.ravel()
        if h0 is None:
            start = self._bind(layout.like)[0].start
            h0 = np.zeros(layout.start, params.dtype) if start is None else start.reshape(layout.start)
        return np.concatenate([params.ravel(), _validate.array("h0", h0, params.dtype, layout.start).ravel()])

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
        layout = self._laid_out()
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
            A new array, in the order of ``y.ravel()``. Steps that do not count are exactly zero.

        Raises
        ------
        TypeError, ValueError
            If `theta` does not fit, `like` was not given, or the loss is no sum of squares.
        """
        self._only_squares("residuals")
        layout, vector, dataset, problem = self._at(theta)
        assert problem is not None
        r = dataset.result("r", dataset.shape[2])
        view = _validate.time_major(r, dataset.batched, dataset.batch_first)
        problem.residuals(vector, layout.terms, view, self._threads)
        return r.reshape(-1)

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
            leaves out, and rows of steps that do not count, are exactly zero.

        Raises
        ------
        TypeError, ValueError
            As for `residuals`.
        MemoryError
            If the matrix cannot be had; the message names the bytes. `gauss_newton` never forms it.
        """
        self._only_squares("jac")
        layout, vector, dataset, problem = self._at(theta)
        assert problem is not None
        J = dataset.result("J", dataset.shape[2] * layout.size)
        view = _validate.time_major(J, dataset.batched, dataset.batch_first)
        problem.jacobian(vector, layout.terms, layout.first, layout.size, view, self._threads)
        return J.reshape(-1, layout.size)

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
        self._only_named("gauss_newton")
        layout, vector, _, problem = self._at(theta)
        assert problem is not None
        matrix = _validate.allocate("matrix", (layout.size, layout.size), layout.like.dtype)
        problem.gauss_newton(vector, layout.terms, layout.first, layout.size, matrix, self._threads)
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
            H v, exact; zero for parameters that `wrt` leaves out.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, `like` was not given, or the loss is a function, whose second
            derivative is not known.

        Notes
        -----
        The gradient of a model of twice the size, half of whose numbers are zero or there twice: about the
        time of two to four gradients.
        """
        # As in `flat`: what is more than an array may mean more.
        plain = type(theta) is np.ndarray and type(v) is np.ndarray
        if plain and self._hessian is not None and not self._laid_out().holes:
            product = self._hessian(theta, v, self._threads)
            if product is not None:
                return product
        self._only_named("hessp")
        layout, vector, dataset, _ = self._at(theta)
        along = layout.vector("v", v)
        if layout.holes:
            along = layout.clear_holes(along.copy())
        if self._hessian is None:
            targets = dataset.targets(self._loss, self._y)
            self._hessian = HessianProduct(layout.like, dataset, self._loss, targets, layout.terms[3])
        product = self._hessian(vector, along, self._threads)
        assert product is not None
        return layout.clear_holes(product)

    def flat(self, theta: ArrayLike) -> tuple[float, FloatArray]:
        raise NotImplementedError

    def _only_squares(self, name: str) -> None:
        self._only_whole(name)
        if self._loss not in ("mse", "squared_error"):
            shown = "a function" if callable(self._loss) else repr(self._loss)
            raise ValueError(f"loss must be 'mse' or 'squared_error' for {name}, not {shown}")

    def _only_whole(self, name: str) -> None:
        if self._truncate is not None:
            raise ValueError(f"truncate must be None for {name}, which knows whole gradients only")

    def _only_named(self, name: str) -> None:
        self._only_whole(name)
        if callable(self._loss):
            raise ValueError(
                f"loss must be one of the built-in losses for {name}, not a function: "
                "its second derivative is not known"
            )

    def _laid_out(self) -> Layout:
        if self._layout is None:
            raise ValueError("like must be given to Objective(...), or flat(theta) knows no shapes")
        return self._layout

    def _at(self, theta: ArrayLike) -> tuple[Layout, FloatArray, Dataset, _core.Problem | None]:
        layout = self._laid_out()
        return layout, layout.vector("theta", theta), *self._bind(layout.like)
