r"""The model of states and tangents: a linear RNN of twice the size.

Differentiate both equations of a linear RNN along a direction ``(dW_hx, dW_hh, ...)``, and put the state h
and its tangent h' one below the other:

.. math::

    \begin{pmatrix} h_t \\ h'_t \end{pmatrix}
    = \begin{pmatrix} W_{hh} & 0 \\ dW_{hh} & W_{hh} \end{pmatrix}
      \begin{pmatrix} h_{t-1} \\ h'_{t-1} \end{pmatrix}
    + \begin{pmatrix} W_{hx} & 0 \\ dW_{hx} & W_{hx} \end{pmatrix}
      \begin{pmatrix} x_t \\ dx_t \end{pmatrix}
    + \begin{pmatrix} b_h \\ db_h \end{pmatrix}, \qquad
    \begin{pmatrix} o_t \\ o'_t \end{pmatrix}
    = \begin{pmatrix} W_{qh} & 0 \\ dW_{qh} & W_{qh} \end{pmatrix}
      \begin{pmatrix} h_t \\ h'_t \end{pmatrix} + \dots

So what runs and differentiates one model runs and differentiates the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .params import Gradients

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Arrays of NumPy, or of the framework that calls: six parameters, initial state, inputs.
    Point = Sequence[Any]

#: The arrays of a point.
NAMES = Gradients._fields


def doubled(
    point: Point,
    direction: Point,
    concatenate: Callable[[list[Any], int], Any],
    zeros_like: Callable[[Any], Any],
    *,
    same_inputs: bool = False,
) -> list[Any]:
    """Return the point whose network computes ``[o; o']``: matrices ``[[M, 0], [U, M]]``, vectors ``[v; u]``.

    `direction` may hold ``None`` for zero. What is absent from `point` is absent from the result. With
    `same_inputs`, where no inputs move, inputs stay as they are and their matrices become ``[M; U]``.
    """
    result: list[Any] = []
    for name, value, change in zip(NAMES, point, direction, strict=True):
        if value is None or (same_inputs and name == "x"):
            result.append(value)
            continue
        zeros = zeros_like(value)
        change = zeros if change is None else change
        if same_inputs and name in ("W_hx", "W_qx"):
            result.append(concatenate([value, change], 0))
        elif name.startswith("W"):
            rows = [concatenate([value, zeros], 1), concatenate([change, value], 1)]
            result.append(concatenate(rows, 0))
        else:
            result.append(concatenate([value, change], value.ndim - 1))
    return result


def halved(name: str, gradient: Any) -> Any:
    """Return the gradient by an array of the point, given that by its image under `doubled`."""
    if name.startswith("W"):
        rows, columns = gradient.shape[0] // 2, gradient.shape[1] // 2
        return gradient[:rows, :columns] + gradient[rows:, columns:]
    return gradient[..., : gradient.shape[-1] // 2]
