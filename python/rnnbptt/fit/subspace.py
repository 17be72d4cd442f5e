"""The start identified from block Hankel matrices of inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import regressions
from .blocks import least_squares, triangle
from .problem import clipped, largest_eigenvalue

if TYPE_CHECKING:
    from ..engine.params import Params
    from .experiments import Experiments, Real

#: Most rows of data looked at, most block rows of a Hankel matrix, and most numbers an output is regressed
#: on. Deep matrices tell slow modes apart.
ROWS, DEPTH, REGRESSORS = 20_000, 60, 400
#: Singular values below this part of the largest are rounding: the data have no more states.
RANK = 1e-10
#: How far inside a circle, as a part of it, eigenvalues are moved that lie beyond, if not onto it.
INSIDE = 1e-4


def identify(
    data: Experiments, h: int, *, biases: bool, direct: bool, fit_h0: bool
) -> tuple[Params, Real] | None:
    r"""Identify a network of at most h states; return it with its initial states (B, h).

    Future outputs are regressed on past data and future inputs. What the past contributes, with future
    inputs projected away, is the extended observability matrix times the states,

    .. math::

        L_p Z_p \Pi_{U_f}^\perp = U S V^\top, \qquad \Gamma = U_1 S_1^{1/2}.

    A comes from the shift structure of Gamma, C is its first block. Given these, outputs are linear in B, D
    and the initial states together; given the states, in C and D: both by least squares on the outputs.

    Parameters
    ----------
    data : Experiments
        In the units of the fit.
    h : int
    biases, direct, fit_h0 : bool
        What the network has.

    Returns
    -------
    (Params, ndarray) or None
        ``None`` where the data do not suffice. Fewer than h states where the data have no more.

    References
    ----------
    P. Van Overschee, B. De Moor, "Subspace Identification for Linear Systems", 1996, chapter 4 (N4SID with
    the weighting of MOESP).
    """
    found: list[tuple[float, Params, Real]] = []
    # A constant is no mode of the system where biases stand for it. Without biases it may be one, or be
    # what inputs about a mean lead to, which hides all else.
    for constant in (True,) if biases else (False, True):
        modes = _modes(data, h, constant=constant)
        if modes is None:
            continue
        A, C = modes
        for moved in _candidates(A):
            try:
                start = _around(moved, C, data, biases=biases, direct=direct, fit_h0=fit_h0)
            except np.linalg.LinAlgError:  # outputs overflow
                continue
            loss = data.loss(*start)
            if np.isfinite(loss):
                found.append((loss, *start))
    return min(found, key=lambda start: start[0])[1:] if found else None


def _candidates(A: Real) -> list[Real]:
    """Return the matrix, and if it is unstable others inside the circle."""
    if largest_eigenvalue(A) <= 1:
        return [A]
    return [A, clipped(A, 1.0), clipped(A, 1 - INSIDE), clipped(A, 1.0, mirror=True)]


def _modes(data: Experiments, h: int, *, constant: bool) -> tuple[Real, Real] | None:
    """Return A and C of a system of at most h states, with the outputs' part that is constant left out."""
    q = data.y.shape[2]
    moving = data.x[:, :, data.x.any(axis=(0, 1))]
    d = moving.shape[2]
    # Block rows beyond what makes Gamma and its shifted part of full rank.
    least = -(-h // q) + 1
    depth = max(least, min(DEPTH, REGRESSORS // (2 * d + q)))
    matrices = _hankel_matrices(data, moving, depth)
    while matrices is None or matrices[0].shape[1] < 2 * (depth * (2 * d + q) + 1):
        if depth == least:
            return None
        depth = max(least, depth * 4 // 5)
        matrices = _hankel_matrices(data, moving, depth)
    past, future_inputs, future_outputs = matrices
    future_inputs = np.vstack([future_inputs, np.ones((1 if constant else 0, past.shape[1]))])
    both = np.vstack([past, future_inputs])
    coefficients = least_squares(both.T, future_outputs.T).T
    effect = coefficients[:, : len(past)] @ past
    if len(future_inputs):
        effect = effect - least_squares(future_inputs.T, effect.T).T @ future_inputs
    U, S, _ = np.linalg.svd(triangle(effect.T).T, full_matrices=False)
    if not S[0] > 0:
        return None
    rank = min(h, int(np.sum(RANK * S[0] < S)))
    observability = U[:, :rank] * np.sqrt(S[:rank])
    A = np.linalg.lstsq(observability[:-q], observability[q:], rcond=None)[0]
    return A, observability[:q]


def _around(
    A: Real, C: Real, data: Experiments, *, biases: bool, direct: bool, fit_h0: bool
) -> tuple[Params, Real]:
    """Return the network of modes (A, C), and its initial states, that comes closest to the targets."""
    # The state is updated before it is read: W_qh A = C.
    W_qh = np.linalg.lstsq(A.T, C.T, rcond=None)[0].T
    with np.errstate(all="ignore"):
        params, h0 = regressions.driven(A, W_qh, data, biases=biases, direct=direct, fit_h0=fit_h0)
        return regressions.read_out(params, h0, data), h0


def _hankel_matrices(data: Experiments, moving: Real, depth: int) -> tuple[Real, Real, Real] | None:
    """Return block Hankel matrices of past data, future inputs and future outputs.

    A column holds 2 `depth` successive steps; those with a missing target are left out.
    """
    past, inputs, outputs = [], [], []
    rows = 0
    for b, length in enumerate(data.lengths):
        steps = int(min(length, ROWS - rows))
        count = steps - 2 * depth + 1
        if count < 1:
            continue
        rows += steps
        x, y = moving[:steps, b], data.y[:steps, b]
        known = data.known[:steps, b].all(axis=1)
        whole = np.lib.stride_tricks.sliding_window_view(known, 2 * depth).all(axis=1)
        kept = np.flatnonzero(whole)
        if not len(kept):
            continue

        def hankel(values: Real, first: int, kept: np.ndarray = kept) -> Real:
            return np.vstack([values[kept + first + i].T for i in range(depth)])

        past.append(np.vstack([hankel(x, 0), hankel(y, 0)]))
        inputs.append(hankel(x, depth))
        outputs.append(hankel(y, depth))
    if not past:
        return None
    return np.hstack(past), np.hstack(inputs), np.hstack(outputs)
