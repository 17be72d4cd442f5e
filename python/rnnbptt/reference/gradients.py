"""Loss and gradients, by any of the three forms; and an oracle in extended precision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .. import _validate
from ..engine import truncation
from ..engine.floating_point import quiet
from ..engine.params import Gradients
from . import closed_form, forward_mode, recursion
from . import truncation as truncated
from .model import Model, as_given, initial_state, states, states_before
from .problem import Array, Problem, kept, pose, start_of, steps_run

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ..engine.losses import LossLike
    from ..engine.params import Params
    from ..engine.truncation import Truncation

Method = Literal["recursion", "closed_form", "forward_mode"]
FORMS = {"recursion": recursion, "closed_form": closed_form, "forward_mode": forward_mode}


@quiet
def loss_and_grad(
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
    truncate: Truncation | None = None,
    method: Method = "recursion",
) -> tuple[float, Gradients]:
    """Evaluate the loss (3) and its gradients, equations (4) to (12).

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the computation.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    y : array_like, shape (T, B, q) or (T, q); class labels (T, B) or (T,)
        Targets. A `loss` that is a function gets them as they are.
    loss : {"mse", "squared_error", "cross_entropy"} or callable
        ``(1/q) ||o - y||^2``, ``1/2 ||o - y||^2`` or ``-log softmax(o)[y]`` of every step; or a function
        ``f(o, y) -> (L, d_o)`` on whole arrays, laid out as `x` is.
    h0 : array_like, shape (B, h) or (h,), optional
        Initial state; zero when absent.
    weights : array_like, shape (T, B) or (T,); (T, B, q) or (T, q) for the squared losses, optional
        Weight of every step in the mean, or of every output; one when absent. Of weight zero, either is left
        out exactly.
    lengths : array_like of int, shape (B,) or (), optional
        Number of steps of each sequence, from 0 to T; later steps are neither run nor read.
    mask : array_like of bool, shape as for `weights`, optional
        Shorthand for weights of one and zero. `weights`, `lengths` and `mask` multiply. Where nothing counts,
        the loss is 0 and so are the gradients.
    batch_first : bool
        Whether batched arrays are laid out (B, T, ...).
    wrt : collection of str, optional
        Which gradients to return: every parameter that is present when absent; may name "h0" and "x".
    truncate : Sliding, Chunked or Randomized, optional
        How far back in time losses look; the whole way when absent.
    method : {"recursion", "closed_form", "forward_mode"}
        Which of the three forms of the gradient to evaluate; truncated gradients have the first alone.

    Returns
    -------
    loss : float
        L, accumulated in float64 whatever the parameters' dtype.
    gradients : Gradients
        Arrays of the parameters' dtype; ``None`` for what was not asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    form = chosen_form(method, truncate)
    names = chosen(params, wrt)
    problem = pose(
        params, x, y, loss=loss, h0=h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    L, gradients = solve(problem, names, form, truncate)
    return float(L), gradients


@quiet
def oracle(
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
    truncate: Truncation | None = None,
    method: Method = "recursion",
    dtype: DTypeLike = np.longdouble,
) -> tuple[Any, Gradients]:
    """Evaluate what `loss_and_grad` does, for the same numbers, in a wider dtype.

    The arguments are first rounded to the parameters' dtype, exactly as `loss_and_grad` would, and then
    widened: the result is the gradient *at these very numbers*, to the precision of `dtype`. What another
    implementation differs by is its own rounding error.

    Parameters
    ----------
    params, x, y, loss, h0, weights, lengths, mask, batch_first, wrt, truncate, method
        As for `loss_and_grad`. A `loss` that is a function receives outputs of `dtype`.
    dtype : dtype
        A real dtype to compute in. ``numpy.longdouble`` has 64 bits of mantissa on x86 and 113 on 64-bit
        Arm Linux, but is plain float64 with Microsoft's compiler and on Apple's Arm.

    Returns
    -------
    loss : scalar of `dtype`
    gradients : Gradients
        Arrays of `dtype`.
    """
    form = chosen_form(method, truncate)
    names = chosen(params, wrt)
    problem = pose(
        params, x, y, loss=loss, h0=h0, weights=weights, lengths=lengths, mask=mask, batch_first=batch_first
    )
    wide = np.dtype(dtype)
    L, gradients = solve(problem.cast(wide), names, form, truncate)
    return wide.type(L), gradients


@quiet
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
    method: Method = "recursion",
) -> Gradients:
    """Pull ``d_o = dL/do`` back to the parameters: equations (5) to (12), for a loss of the caller's own.

    Parameters
    ----------
    params : Params
        Weights; their dtype is the dtype of the computation.
    x : array_like, shape (T, B, d) or (T, d)
        Inputs.
    d_o : array_like, shape (T, B, q) or (T, q)
        Derivative of the loss by the outputs. Entries beyond `lengths` are not read.
    d_hT : array_like, shape (B, h) or (h,), optional
        Derivative of the loss by the last state of each sequence other than through `d_o`: it joins e_T.
        Zero when absent. The last state of a sequence of length 0 is h_0.
    h0, lengths, batch_first, wrt, truncate, method
        As for `loss_and_grad`.

    Returns
    -------
    Gradients
        The vector-Jacobian product of the map from parameters (and h0, x) to outputs and last state.

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    form = chosen_form(method, truncate)
    names = chosen(params, wrt)
    d, _, q = params.shape
    batch_first = _validate.boolean("batch_first", batch_first)
    inputs, batched = _validate.sequence("x", x, params.dtype, d, batch_first)
    T, B = inputs.shape[:2]
    cotangent = _validate.like_sequence("d_o", d_o, params.dtype, (T, B, q), batched, batch_first)
    start = initial_state(params, h0, B, batched)
    if d_hT is not None and truncate is not None:
        raise ValueError("d_hT must be None when gradients are truncated")
    last = initial_state(params, d_hT, B, batched, name="d_hT")
    counting = _validate.step_weights(None, lengths, None, params.dtype, (T, B, q), batched, batch_first)
    running = steps_run(counting, T)
    model, inputs, start = Model.of(params), kept(inputs, running), start_of(start, counting)
    hidden = kept(states(model, inputs, start), running)
    cotangent = kept(cotangent, running)
    e = cotangent @ model.W_qh
    ends = np.full(B, T) if counting.lengths is None else counting.lengths
    some = np.flatnonzero(ends > 0)
    e[ends[some] - 1, some] += last[some]
    before = states_before(hidden, start, running)
    found = evaluate(form, truncate, (model, inputs, before, hidden, cotangent), e, names)
    if "h0" in found:  # the last state of a sequence of no steps is h_0 itself
        found["h0"] = np.where(ends[:, np.newaxis] > 0, found["h0"], last)
    return as_gradients(found, running, batched, batch_first)


@quiet
def state_gradients(params: Params, d_o: ArrayLike, *, method: Method = "recursion") -> Array:
    """Return ``g_t = dL/dh_t`` for every step: equation (6), or (7), or by sensitivities carried forward.

    Parameters
    ----------
    params : Params
        Weights; only ``W_hh`` and ``W_qh`` matter.
    d_o : array_like, shape (T, B, q) or (T, q)
        Derivative of the loss by the outputs.
    method : {"recursion", "closed_form", "forward_mode"}
        Which form to evaluate.

    Returns
    -------
    ndarray, shape (T, B, h) or (T, h)

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.
    """
    form = _validate.choice("method", method, FORMS)
    q = params.shape[2]
    cotangent, batched = _validate.sequence("d_o", d_o, params.dtype, q, batch_first=False)
    g = FORMS[form].state_gradients(Model.of(params), cotangent @ params.W_qh)
    return as_given(g, batched, batch_first=False)


def chosen(params: Params, wrt: Collection[str] | None) -> frozenset[str]:
    """Return the names of the gradients to evaluate."""
    present = [name for name, _ in params.items()]
    return frozenset(present) if wrt is None else _validate.names("wrt", wrt, [*present, "h0", "x"])


def chosen_form(method: str, truncate: object) -> str:
    """Return the name of the form to evaluate."""
    form = _validate.choice("method", method, FORMS)
    if truncation.checked(truncate) is not None and form != "recursion":
        raise ValueError(f"method must be 'recursion' when gradients are truncated, not {method!r}")
    return form


def evaluate(
    form: str,
    truncate: Truncation | None,
    run: tuple[Model, Array, Array, Array, Array],
    e: Array,
    names: Collection[str],
) -> dict[str, Array]:
    """Evaluate the gradients of a run (model, x, before, hidden, d_o), truncated or not."""
    if truncate is None:
        found: dict[str, Array] = FORMS[form].gradients(*run, e, names)
        return found
    g, d_h0 = truncated.state_gradients(truncate, run[0].W_hh, e)
    return recursion.sums(*run, g, d_h0, names)


def solve(
    problem: Problem, names: Collection[str], form: str, truncate: Truncation | None
) -> tuple[Any, Gradients]:
    """Forward, loss, backward, in the dtype of the problem."""
    hidden, o = problem.run()
    L, d_o = problem.evaluate(o)
    e = d_o @ problem.model.W_qh
    before = states_before(hidden, problem.h0, problem.running)
    run = (problem.model, problem.x, before, hidden, d_o)
    found = evaluate(form, truncate, run, e, names)
    return L, as_gradients(found, problem.running, problem.batched, problem.batch_first)


def as_gradients(
    found: dict[str, Array], running: NDArray[np.bool_] | None, batched: bool, batch_first: bool
) -> Gradients:
    """Hand gradients back in the caller's layout; that by the input of a step that is not run is zero."""
    if "x" in found:
        found["x"] = as_given(kept(found["x"], running), batched, batch_first)
    if "h0" in found and not batched:
        found["h0"] = found["h0"][0]
    return Gradients(**found)
