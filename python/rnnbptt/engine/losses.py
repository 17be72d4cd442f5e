"""The losses that have a name: one table of what they are, with value and derivative in plain NumPy.

A loss is that of one step, l(y, o); L is its weighted mean over steps. Whatever has to know a loss reads
`LOSSES`: checks of arguments, messages, reports, the command line, tests. The extension knows each by its
`Loss.name` and computes it by formulas of its own (cpp/core/losses.cpp); so does `rnnbptt.reference`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _validate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from .._validate import StepWeights

LossName = Literal["mse", "squared_error", "cross_entropy"]
#: ``f(o, y) -> (L, d_o)`` on whole arrays, laid out as the caller has them.
CallersLoss = Callable[[NDArray[Any], Any], "tuple[float, ArrayLike]"]
#: What an argument `loss` may be: a name, a name with the number that the loss takes, or a function.
LossLike = LossName | tuple[str, float] | CallersLoss

Real = NDArray[np.floating[Any]]


class Loss(ABC):
    """A loss of one step, l(y, o).

    Attributes
    ----------
    parameter : float or None
        The caller's number, where a loss takes one, finite and above 0: ``loss=(name, number)``. ``None``
        where it takes none.
    """

    #: What callers and the extension call it.
    name: ClassVar[str]
    #: Whether targets are class labels, (...), rather than arrays like the outputs, (..., q).
    labels: ClassVar[bool] = False
    #: Whether l stays the same when all outputs of a step grow by the same number.
    shift_invariant: ClassVar[bool] = False
    #: c, where ``dl/do = c (o - y)`` for all residuals near zero: reports go by it where these leave float64.
    slope_at_zero: ClassVar[float | None] = None

    def __init__(self, parameter: float | None = None) -> None:
        self.parameter = parameter

    @abstractmethod
    def value(self, o: Real, y: NDArray[Any]) -> Real:
        """Return l for outputs (..., q): (...)."""

    @abstractmethod
    def derivative(self, o: Real, y: NDArray[Any]) -> Real:
        """Return dl/do for outputs (..., q): (..., q)."""


class SumOfSquares(Loss):
    """``l = (c/2) ||o - y||^2``: what residuals, least squares and numbers beyond float64 can be had for."""

    @abstractmethod
    def factor(self, q: int) -> float:
        """Return c for q outputs."""

    def value(self, o: Real, y: NDArray[Any]) -> Real:
        result: Real = self.factor(o.shape[-1]) / 2 * np.sum((o - y) ** 2, axis=-1)
        return result

    def derivative(self, o: Real, y: NDArray[Any]) -> Real:
        result: Real = self.factor(o.shape[-1]) * (o - y)
        return result


class MeanSquaredError(SumOfSquares):
    """``l = (1/q) ||o - y||^2``."""

    name = "mse"

    def factor(self, q: int) -> float:
        return 2 / q


class SquaredError(SumOfSquares):
    """``l = (1/2) ||o - y||^2``."""

    name = "squared_error"

    def factor(self, q: int) -> float:
        return 1.0


class CrossEntropy(Loss):
    """``l = -log softmax(o)[y]``, ``dl/do = softmax(o) - onehot(y)``."""

    name = "cross_entropy"
    labels = True
    shift_invariant = True

    def value(self, o: Real, y: NDArray[Any]) -> Real:
        shifted = o - o.max(axis=-1, keepdims=True)
        at_label = np.take_along_axis(shifted, y[..., np.newaxis], axis=-1)[..., 0]
        result: Real = np.log(np.sum(np.exp(shifted), axis=-1)) - at_label
        return result

    def derivative(self, o: Real, y: NDArray[Any]) -> Real:
        k, label = np.arange(o.shape[-1]), y[..., np.newaxis]
        odds = np.exp(o - o.max(axis=-1, keepdims=True))
        p = np.where(k == label, 0, odds / odds.sum(axis=-1, keepdims=True))
        # p - 1 at the label is minus the sum of the others: no digits are lost.
        return np.where(k == label, -p.sum(axis=-1, keepdims=True), p)


#: Every loss that has a name, with the parameter it has unless the caller gives one.
LOSSES: dict[str, Loss] = {loss.name: loss for loss in (MeanSquaredError(), SquaredError(), CrossEntropy())}


def checked_loss(loss: LossLike, weights: object = None, mask: object = None) -> Loss | CallersLoss:
    """Return the loss that an argument `loss` names, or the function of the caller's that it is.

    Parameters
    ----------
    loss : str, tuple or callable
        As callers give it.
    weights, mask
        As callers give them: a function must weigh the steps itself.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, no loss has that name, it takes no parameter, or weights come with a function.
    """
    if callable(loss):
        for name, value in (("weights", weights), ("mask", mask)):
            if value is not None:
                raise ValueError(f"{name} must be None when loss is a function: weigh the steps inside it")
        return loss
    if not isinstance(loss, tuple):
        return LOSSES[_validate.choice("loss", loss, LOSSES)]
    if len(loss) != 2:
        came = _validate.describe(loss)
        raise ValueError(f"loss must be a name, (name, parameter) or a function, not {came}")
    known = LOSSES[_validate.choice("loss", loss[0], LOSSES)]
    if known.parameter is None:
        raise ValueError(f"loss {known.name!r} takes no parameter: {_validate.describe(loss[1])} was given")
    parameter = _validate.real("loss", loss[1])
    if not 0 < parameter < np.inf:
        raise ValueError(f"the number in loss=({known.name!r}, {parameter}) must be finite and above 0")
    return type(known)(parameter)


def check_weights(loss: Loss, counting: StepWeights) -> None:
    """Raise where single outputs have weights and a loss is no sum over outputs that could take them."""
    if counting.by_output and not isinstance(loss, SumOfSquares):
        known = " and ".join(repr(name) for name, some in LOSSES.items() if isinstance(some, SumOfSquares))
        raise ValueError(
            f"weights and mask must have one entry for each step for loss={loss.name!r}: "
            f"those of single outputs are for {known}"
        )


def pair_of(loss: CallersLoss, o: NDArray[Any], y: Any) -> tuple[Any, Any]:
    """Ask a loss of the caller's for ``L`` and ``d_o``, unchecked but for being two."""
    answer = loss(o, y)
    if not isinstance(answer, tuple):
        raise TypeError(f"loss must return a pair (L, d_o), not {_validate.describe(answer)}")
    if len(answer) != 2:
        raise TypeError(f"loss must return a pair (L, d_o), not a tuple of {len(answer)}")
    return answer


def answer_of(loss: CallersLoss, o: NDArray[Any], y: Any) -> tuple[float, Real]:
    """Ask a loss of the caller's for ``L`` and ``d_o``, which must be as the outputs are."""
    L, d_o = pair_of(loss, o, y)
    wanted = o.dtype, o.shape
    return _validate.number("L returned by loss", L), _validate.array("d_o returned by loss", d_o, *wanted)
