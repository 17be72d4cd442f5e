"""The parameters of a linear RNN, their gradients, and a trajectory through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np

from .. import _validate
from . import summary
from .floating_point import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from .._validate import FloatArray

PARAMETERS = ("W_hx", "W_hh", "W_qh", "b_h", "b_q", "W_qx")

Kind = Literal["gaussian", "orthogonal", "symmetric", "identity"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, eq=False, slots=True)
class Params:
    r"""Weights of the linear recurrent network.

    .. math::

        h_t = W_{hx} x_t + W_{hh} h_{t-1} \; [+\, b_h], \qquad
        o_t = W_{qh} h_t \; [+\, W_{qx} x_t + b_q]

    Parameters
    ----------
    W_hx : array_like, shape (h, d)
        Input-to-hidden weights; (h, 0) of a system without inputs, whose x has shape (T, B, 0).
    W_hh : array_like, shape (h, h)
        Hidden-to-hidden weights. Their dtype, float32 or float64, is the dtype of every computation.
    W_qh : array_like, shape (q, h)
        Hidden-to-output weights.
    b_h : array_like, shape (h,), optional
        Hidden bias. ``None`` is absent and costs nothing.
    b_q : array_like, shape (q,), optional
        Output bias.
    W_qx : array_like, shape (q, d), optional
        Direct input-to-output weights.

    Raises
    ------
    TypeError
        If `W_hh` is neither float32 nor float64 (integers become float64), or another array cannot be
        cast to its dtype safely.
    ValueError
        If the shapes do not fit together.

    Notes
    -----
    An array that already has the right dtype and is C-contiguous is kept as it is, not copied.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> x, y = np.ones((5, 1)), np.zeros((5, 1))
    >>> losses = []
    >>> for _ in range(3):
    ...     loss, gradients = rnnbptt.loss_and_grad(params, x, y)
    ...     losses.append(round(loss, 2))
    ...     params = params.step(gradients, rate=0.05)
    >>> losses
    [2.72, 0.38, 0.26]
    """

    __module__ = "rnnbptt"

    W_hx: FloatArray
    W_hh: FloatArray
    W_qh: FloatArray
    b_h: FloatArray | None = None
    b_q: FloatArray | None = None
    W_qx: FloatArray | None = None
    # Shapes, dtype and terms in one: what data are checked against, compared at every call of an Objective.
    _kind: tuple[object, ...] = field(init=False, repr=False)
    # All six, as the extension takes them.
    _arrays: tuple[FloatArray | None, ...] = field(init=False, repr=False)

    def __init__(
        self,
        W_hx: ArrayLike,
        W_hh: ArrayLike,
        W_qh: ArrayLike,
        b_h: ArrayLike | None = None,
        b_q: ArrayLike | None = None,
        W_qx: ArrayLike | None = None,
    ) -> None:
        for name, array in _validate.parameters(W_hx, W_hh, W_qh, b_h, b_q, W_qx).items():
            object.__setattr__(self, name, array)
        kind = (self.shape, self.dtype, tuple(name for name, _ in self.items()))
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_arrays", tuple(getattr(self, name) for name in PARAMETERS))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes ``(d, h, q)`` of inputs, hidden state and outputs."""
        return (self.W_hx.shape[1], self.W_hx.shape[0], self.W_qh.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of every parameter: float32 or float64."""
        return self.W_hh.dtype

    @property
    def size(self) -> int:
        """The number of scalars in all present parameters."""
        return sum(array.size for _, array in self.items())

    def items(self) -> list[tuple[str, FloatArray]]:
        """Name and array of every parameter that is present, in the order of the constructor."""
        arrays = ((name, getattr(self, name)) for name in PARAMETERS)
        return [(name, array) for name, array in arrays if array is not None]

    def __repr__(self) -> str:
        return summary.text("Params", self.items())

    def _repr_html_(self) -> str:
        return summary.table("Params", self.items())

    def to_dict(self) -> dict[str, Any]:
        """Return every parameter that is present by its name, for ``np.savez(path, **params.to_dict())``.

        Returns
        -------
        dict of str to ndarray
            The arrays themselves, not copies. `from_dict` and ``rnnbptt report`` read them back.
        """
        return dict(self.items())

    @classmethod
    def from_dict(cls, values: Mapping[str, ArrayLike]) -> Self:
        """Build parameters from what `to_dict` returned, or from a file: ``Params.from_dict(np.load(path))``.

        Parameters
        ----------
        values : mapping of str to array_like
            ``W_hx``, ``W_hh``, ``W_qh``, and those of ``b_h``, ``b_q`` and ``W_qx`` that are present.

        Returns
        -------
        Params

        Raises
        ------
        TypeError, ValueError
            If one is missing, has another name, or does not fit; the message names it.
        """
        try:
            given = dict(values)
        except (TypeError, ValueError):
            came = _validate.describe(values)
            raise TypeError(f"values must be a mapping of names to arrays, not {came}") from None
        _validate.names("values", [*given], PARAMETERS)
        for name in PARAMETERS[:3]:
            if given.get(name) is None:
                raise ValueError(f"values must hold {name}, and there is none")
        return cls(**given)

    def step(self, gradients: Gradients, rate: float) -> Self:
        """Take one step of gradient descent: ``params - rate * gradients``.

        Parameters
        ----------
        gradients : Gradients
            As `loss_and_grad` returns them. A parameter whose gradient was not asked for stays as it is;
            gradients of ``h0`` and ``x`` are left out.
        rate : float
            The learning rate, finite; below 0 it climbs.

        Returns
        -------
        Params
            New parameters of the same dtype. Arrays that did not change are shared.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; the message names it.
        """
        if not isinstance(gradients, Gradients):
            raise TypeError(f"gradients must be Gradients, not {_validate.describe(gradients)}")
        factor = _validate.real("rate", rate)
        if not np.isfinite(factor):
            raise ValueError(f"rate must be finite, not {factor}")
        parts: dict[str, Any] = dict(self.items())
        for name in PARAMETERS:
            gradient = getattr(gradients, name)
            if gradient is None:
                continue
            if name not in parts:
                raise ValueError(f"gradients must have no {name}, as params has none")
            old = parts[name]
            slope = _validate.array(f"gradients.{name}", gradient, self.dtype, old.shape)
            with np.errstate(all="ignore"):  # not finite in, not finite out, without a warning
                parts[name] = old - self.dtype.type(factor) * slope
        return type(self)(**parts)

    def ravel(self) -> FloatArray:
        """Concatenate all present parameters into one new vector ``theta``, in the constructor's order."""
        return np.concatenate([array.ravel() for _, array in self.items()])

    def unravel(self, theta: ArrayLike) -> Self:
        """Build parameters of the same shapes from the vector ``theta``.

        Parameters
        ----------
        theta : array_like, shape (size,)
            Entries in the order of `ravel`. Where dtype and layout allow, the result shares its memory.

        Returns
        -------
        Params
            Parameters with the shapes and the dtype of this object.
        """
        vector = _validate.array("theta", theta, self.dtype, (self.size,))
        parts, start = {}, 0
        for name, array in self.items():
            parts[name] = vector[start : start + array.size].reshape(array.shape)
            start += array.size
        return type(self)(**parts)

    @classmethod
    @quiet
    def random(
        cls,
        d: int,
        h: int,
        q: int,
        *,
        spectral_radius: float = 0.95,
        kind: Kind = "gaussian",
        biases: bool = False,
        direct: bool = False,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float64,
    ) -> Self:
        """Draw random parameters with a prescribed spectral radius of ``W_hh``.

        Parameters
        ----------
        d, h, q : int
            Sizes of inputs, hidden state and outputs.
        spectral_radius : float
            Largest modulus of an eigenvalue of ``W_hh``.
        kind : {"gaussian", "orthogonal", "symmetric", "identity"}
            Family of ``W_hh``: independent normal entries, a Haar-distributed orthogonal matrix, a symmetric
            matrix of normal entries, or the identity; each scaled to `spectral_radius`.
        biases, direct : bool
            Whether to draw ``b_h`` and ``b_q``, and ``W_qx``.
        rng : numpy.random.Generator or int, optional
            Source of randomness, or its seed.
        dtype : dtype
            float32 or float64.

        Returns
        -------
        Params
            Entries of the other weights are normal with variance one over the number of columns.
        """
        d, h, q = _validate.integer("d", d, 0), _validate.size("h", h), _validate.size("q", q)
        radius = _validate.nonnegative("spectral_radius", spectral_radius)
        scalar = _validate.scalar_type("dtype", dtype)
        for name, shape in (("W_hx", (h, d)), ("W_hh", (h, h)), ("W_qh", (q, h)), ("W_qx", (q, d))):
            _validate.allocate(name, shape, np.dtype(np.float64))  # too large a size is refused at once
        generator = _validate.generator("rng", rng)
        _validate.choice("kind", kind, KINDS)
        biases, direct = _validate.boolean("biases", biases), _validate.boolean("direct", direct)
        if kind == "identity":
            W_hh = np.eye(h)
        elif kind == "orthogonal":
            Q, R = np.linalg.qr(generator.standard_normal((h, h)))
            W_hh = Q * np.where(np.diag(R) < 0, -1.0, 1.0)
        else:
            W_hh = generator.standard_normal((h, h))
            if kind == "symmetric":
                W_hh = W_hh + W_hh.T
            W_hh = W_hh / np.abs(np.linalg.eigvals(W_hh)).max()

        def normal(*shape: int) -> NDArray[Any]:
            entries: NDArray[Any] = generator.standard_normal(shape) / np.sqrt(max(1, shape[-1]))
            return entries.astype(scalar)

        return cls(
            normal(h, d),
            (radius * W_hh).astype(scalar),
            normal(q, h),
            normal(h) if biases else None,
            normal(q) if biases else None,
            normal(q, d) if direct else None,
        )


def checked(params: object, name: str = "params") -> Params:
    """Return `params` if it is one of ours."""
    if not isinstance(params, Params):
        raise TypeError(f"{name} must be rnnbptt.Params, not {type(params).__name__}")
    return params


def checked_direction(direction: object, name: str) -> Params | Gradients:
    """Return `direction` if it has a part for every parameter."""
    if not isinstance(direction, (Params, Gradients)):
        raise TypeError(f"{name} must be rnnbptt.Params or Gradients, not {type(direction).__name__}")
    return direction


class Gradients(NamedTuple):
    """Gradients of the loss: each field has the shape and dtype of what it is the gradient of.

    ``None`` marks a parameter that is absent, or a gradient that was not asked for. ``h0`` and ``x`` are
    there when ``wrt`` named them.
    """

    W_hx: FloatArray | None = None
    W_hh: FloatArray | None = None
    W_qh: FloatArray | None = None
    b_h: FloatArray | None = None
    b_q: FloatArray | None = None
    W_qx: FloatArray | None = None
    h0: FloatArray | None = None
    x: FloatArray | None = None

    def items(self) -> list[tuple[str, FloatArray]]:
        """Name and array of every gradient that is present."""
        return [(name, array) for name, array in zip(self._fields, self, strict=True) if array is not None]

    def ravel(self) -> FloatArray:
        """Concatenate the present gradients of parameters, in the order of `Params.ravel`."""
        parts = [array.ravel() for name, array in self._checked().items() if name in PARAMETERS]
        return np.concatenate(parts) if parts else np.empty(0)

    def _checked(self) -> Gradients:
        """Return gradients whose fields are arrays of float32 or float64, as those of the engine always are.

        Raises
        ------
        TypeError, ValueError
            If a field holds no real numbers; the message names it. Integers become float64.
        """
        arrays = {name: _validate.floats(f"gradients.{name}", value) for name, value in self.items()}
        same = all(array is getattr(self, name) for name, array in arrays.items())
        return self if same else self._replace(**arrays)

    def __repr__(self) -> str:
        return summary.text("Gradients", self.items())

    def _repr_html_(self) -> str:
        return summary.table("Gradients", self.items())


Gradients.__module__ = "rnnbptt"  # in a class body it would be one more field


class Trajectory(NamedTuple):
    """What `forward` returns.

    Attributes
    ----------
    hidden : ndarray, shape (T, B, h) or (T, h)
        Hidden states h_1 .. h_T.
    o : ndarray, shape (T, B, q) or (T, q)
        Outputs o_1 .. o_T.
    """

    hidden: FloatArray
    o: FloatArray

    def __repr__(self) -> str:
        return summary.text("Trajectory", self._asdict().items())

    def _repr_html_(self) -> str:
        return summary.table("Trajectory", self._asdict().items())


Trajectory.__module__ = "rnnbptt"  # in a class body it would be one more field
