"""What of a network is linear, given the rest: regressions of known targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..engine.params import Params
from ..engine.trajectories import forward, linear_scan
from .blocks import triangle

if TYPE_CHECKING:
    from .experiments import Experiments, Real

#: Most numbers in the responses that inputs are regressed on: what comes later is left out.
RESPONSES = 2**21
#: Columns that are told apart by less than this, such as a bias and a mode within rounding of one, are one.
ALIKE = 1e-10


def driven(
    W_hh: Real, W_qh: Real, data: Experiments, *, biases: bool, direct: bool, fit_h0: bool
) -> tuple[Params, Real]:
    r"""Return the network of these modes that comes closest to the targets, and its initial states.

    Outputs are linear in all that drives the states, together: ``W_hx``, ``b_h``, the initial states, and
    beside them ``W_qx`` and ``b_q``. With :math:`r_t = W_{hh}^\top r_{t-1} + W_{qh}^\top e_j x_{tk}`, entry
    i of r is what ``W_hx[i, k]`` contributes to output j.

    Returns
    -------
    params : Params
    h0 : ndarray, shape (B, h)
    """
    (T, B, d), q, h = data.x.shape, data.y.shape[2], len(W_hh)
    ones = np.ones((T, B, 1 if biases else 0))
    inputs = np.concatenate([data.x, ones], axis=2)
    m = d + biases
    T = min(T, max(h, RESPONSES // (B * max(1, m) * q * h)))
    backward = np.ascontiguousarray(W_hh.T)
    free = linear_scan(backward, np.zeros((T, q, h)), W_qh)
    shared: list[Real] = [np.zeros((T, B, q, 0))]
    if m:
        entering = inputs[:T, :, np.newaxis, :, np.newaxis] * W_qh[:, np.newaxis]
        forced = linear_scan(backward, entering.reshape(T, B * q * m, h))
        shared.append(forced.reshape(T, B, q, m * h))
    beside = inputs[:T] if direct else ones[:T]
    each = np.zeros((T, B, q, q, beside.shape[2]))
    for j in range(q):
        each[:, :, j, j] = beside
    shared.append(each.reshape(T, B, q, -1))
    rows = np.concatenate(shared, axis=3)
    solution, h0 = _with_initial_states(free, rows, data, fit_h0=fit_h0)
    columns = solution[: m * h].reshape(m, h).T
    added = solution[m * h :].reshape(q, -1)
    params = Params(
        columns[:, :d],
        W_hh,
        W_qh,
        columns[:, d] if biases else None,
        added[:, -1] if biases else None,
        added[:, :d] if direct else None,
    )
    return params, h0


def initial_states(params: Params, data: Experiments) -> Real:
    """Return the initial states (B, h) of a network that come closest to the targets."""
    T, B, q = data.y.shape
    free = free_responses(params, T)
    left = data.with_targets(data.y - forward(params, data.x).o)
    return _with_initial_states(free, np.zeros((T, B, q, 0)), left, fit_h0=True)[1]


def free_responses(params: Params, steps: int) -> Real:
    """Return ``W_qh W_hh^t`` for t = 1 .. steps, (steps, q, h): what initial states contribute to outputs."""
    _, h, q = params.shape
    result: Real = linear_scan(np.ascontiguousarray(params.W_hh.T), np.zeros((steps, q, h)), params.W_qh)
    return result


def read_out(params: Params, h0: Real, data: Experiments) -> Params:
    """Return the network with the read-out that comes closest to the targets, given its hidden states."""
    d, h, q = params.shape
    parts = [forward(params, data.x, h0).hidden]
    if params.b_q is not None:
        parts.append(np.ones((*data.x.shape[:2], 1)))
    if params.W_qx is not None:
        parts.append(data.x)
    features = np.concatenate(parts, axis=2)
    weights = np.zeros((q, features.shape[2]))
    for output in range(q):
        known = data.known[..., output]
        weights[output] = _regression(features[known], data.y[..., output][known])
    return Params(
        params.W_hx,
        params.W_hh,
        weights[:, :h],
        params.b_h,
        None if params.b_q is None else weights[:, h],
        None if params.W_qx is None else weights[:, weights.shape[1] - d :],
    )


def _with_initial_states(free: Real, rows: Real, data: Experiments, *, fit_h0: bool) -> tuple[Real, Real]:
    """Regress targets on what all experiments share, (T, B, q, p), and on an initial state of each.

    `free`, (T, q, h), are the outputs that initial states lead to. An experiment's own state is eliminated
    first: what is left of its rows, orthogonal to its free outputs, is about what is shared.
    """
    T, B, _, p = rows.shape
    h = free.shape[2]
    h0 = np.zeros((B, h))
    own = [free[:T][data.known[:T, b]] for b in range(B)]
    shared = [rows[:, b][data.known[:T, b]] for b in range(B)]
    targets = [data.y[:T, b][data.known[:T, b]] for b in range(B)]
    if not fit_h0:
        return _regression(np.concatenate(shared), np.concatenate(targets)), h0
    bases = [basis(states) for states in own]
    left = [
        np.column_stack([r, y]) - Q @ (Q.T @ np.column_stack([r, y]))
        for Q, r, y in zip(bases, shared, targets, strict=True)
    ]
    whole = np.concatenate(left)
    solution = _regression(whole[:, :p], whole[:, p])
    for b in range(B):
        h0[b] = _regression(own[b], targets[b] - shared[b] @ solution)
    return solution, h0


def basis(columns: Real) -> Real:
    """Return orthonormal columns that span these, as far as they are told apart."""
    U, S, _ = np.linalg.svd(columns / _sizes(columns), full_matrices=False)
    return np.asarray(U[:, ALIKE * S[:1] < S])


def _regression(rows: Real, targets: Real) -> Real:
    """Return the least-squares solution, the shortest in units in which all columns have one length."""
    if not rows.size:
        return np.zeros(rows.shape[1])
    sizes = _sizes(rows)
    p = rows.shape[1]
    R = triangle(rows / sizes, targets[:, np.newaxis])
    solution: Real = np.linalg.lstsq(R[:, :p], R[:, p], rcond=ALIKE)[0] / sizes
    return solution


def _sizes(columns: Real) -> Real:
    """Return the norms of columns, one for those of zeros."""
    largest = np.abs(columns).max(axis=0, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    norms: Real = safe * np.maximum(np.linalg.norm(columns / safe, axis=0), 1.0)
    return norms
