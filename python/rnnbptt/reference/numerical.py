"""Derivatives from values of the loss alone: two methods without the chain rule.

Both move the point theta a little way along a direction v and watch L. The *complex step* moves it along
the imaginary axis. L is analytic, so

    L(theta + i s v) = L(theta) + i s <grad L, v> - O(s^2),        <grad L, v> = Im L(theta + i s v) / s,

with no difference of nearby numbers: s may be so small that the error term is below rounding. *Finite
differences* stay on the real line. The central difference

    D(s) = (L(theta + s v) - L(theta - s v)) / (2 s) = <grad L, v> + c s^2 + O(s^4)

loses its s^2 term in one Richardson step, (4 D(s/2) - D(s)) / 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _validate
from ..engine.floating_point import quiet
from ..engine.params import Gradients
from .gradients import as_gradients, chosen
from .problem import Array, Problem, pose

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import ArrayLike

    from ..engine.losses import LossLike
    from ..engine.params import Params

NumericalMethod = Literal["complex_step", "finite_difference"]
METHODS = ("complex_step", "finite_difference")
COMPLEX_STEP = 1e-100
FINITE_STEP = 5e-4


def moved(problem: Problem, direction: Mapping[str, Array], step: complex) -> Problem:
    """Return the problem at theta + step * direction; names without a direction stay where they are."""
    parts = {name: step * v for name, v in direction.items()}
    model = problem.model._replace(
        **{name: getattr(problem.model, name) + v for name, v in parts.items() if name not in ("h0", "x")}
    )
    return problem._replace(model=model, x=problem.x + parts.get("x", 0), h0=problem.h0 + parts.get("h0", 0))


def value(problem: Problem) -> Any:
    """Return the loss, equations (1) to (3), and nothing else."""
    return problem.value(problem.run()[1])


def slope(problem: Problem, direction: Mapping[str, Array], method: str) -> float:
    """Return ``<grad L, direction>``; the arrays in `direction` are laid out as the problem's own."""
    if method == "complex_step":
        analytic = problem.cast(np.dtype(np.complex128))
        return float(np.imag(value(moved(analytic, direction, 1j * COMPLEX_STEP))) / COMPLEX_STEP)
    problem = problem.cast(np.dtype(np.float64))

    def central(step: float) -> float:
        difference = value(moved(problem, direction, step)) - value(moved(problem, direction, -step))
        return float(difference / (2 * step))

    return (4 * central(FINITE_STEP / 2) - central(FINITE_STEP)) / 3


@quiet
def directional_derivative(
    params: Params,
    x: ArrayLike,
    y: Any,
    direction: Gradients,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    method: NumericalMethod = "complex_step",
) -> float:
    """Measure how fast the loss changes when the parameters move along a direction.

    Parameters
    ----------
    params, x, y, loss, h0, weights, lengths, mask, batch_first
        As for `loss_and_grad`.
    direction : Gradients
        The velocity of each parameter, of ``h0`` and of ``x``; ``None`` stays at rest.
    method : {"complex_step", "finite_difference"}
        How to measure. A `loss` that is a function must accept complex outputs for the complex step.

    Returns
    -------
    float
        ``<grad L, direction>``, in float64.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    how = _validate.choice("method", method, METHODS)
    problem = pose(
        params, x, y, loss=loss, h0=h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    return slope(problem, velocity_of("direction", direction, params, problem), how)


def velocity_of(
    label: str, direction: Params | Gradients, params: Params, problem: Problem
) -> dict[str, Array]:
    """Return what a direction holds, checked and in float64, laid out as the problem's own arrays."""
    double = np.dtype(np.float64)
    batched = problem.batched
    B = problem.x.shape[1]
    velocity: dict[str, Array] = {}
    for name, v in direction.items():
        field = f"{label}.{name}"
        if name == "x":
            velocity[name] = _validate.like_sequence(
                field, v, double, problem.x.shape, batched, problem.batch_first
            )
        elif name == "h0":
            start = _validate.initial_state(v, double, B, params.shape[1], batched, name=field)
            velocity[name] = np.zeros_like(problem.h0) if start is None else start
        else:
            own = getattr(params, name)
            if own is None:
                raise ValueError(f"{field} must be None: params has no {name}")
            velocity[name] = _validate.array(field, v, double, own.shape)
    return velocity


@quiet
def numerical_gradient(
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
    wrt: Collection[str] | None = None,
    method: NumericalMethod = "complex_step",
) -> Gradients:
    """Measure the gradient entry by entry: one directional derivative for every number in `wrt`.

    Parameters
    ----------
    params, x, y, loss, h0, weights, lengths, mask, batch_first, wrt
        As for `loss_and_grad`.
    method : {"complex_step", "finite_difference"}
        How to measure. The complex step is exact to rounding; finite differences give about ten digits.

    Returns
    -------
    Gradients
        In float64. The cost is one forward pass (or four) for every entry.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    how = _validate.choice("method", method, METHODS)
    names = chosen(params, wrt)
    problem = pose(
        params, x, y, loss=loss, h0=h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    found: dict[str, Array] = {}
    for name in names:
        place = problem if name in ("h0", "x") else problem.model
        found[name] = np.zeros(getattr(place, name).shape)
        for index in np.ndindex(found[name].shape):
            unit = np.zeros(found[name].shape)
            unit[index] = 1
            found[name][index] = slope(problem, {name: unit}, how)
    return as_gradients(found, problem.running, problem.batched, problem.batch_first)
