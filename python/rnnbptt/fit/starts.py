"""Where descents start: random networks, and one identified from block Hankel matrices of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..engine.params import Kind, Params
from ..engine.trajectories import forward, linear_scan
from .blocks import least_squares, triangle
from .problem import clipped

if TYPE_CHECKING:
    from .experiments import Experiments, Real

KINDS = ("random", "orthogonal", "subspace")

#: Random starts have a short memory and small outputs: the modes that matter most are the first to grow.
RANDOM_RADIUS, RANDOM_SIZE = 0.5, 0.03
ORTHOGONAL_RADIUS = 0.9
#: Most rows of data looked at by the subspace method, most block rows of a Hankel matrix, and most numbers an
#: output is regressed on. Deep matrices tell slow modes apart.
SUBSPACE_ROWS, SUBSPACE_DEPTH, SUBSPACE_REGRESSORS = 20_000, 60, 400
#: Most outputs of the least-squares problem that gives initial states.
START_STEPS = 2_000


class Start(NamedTuple):
    """A place to start from.

    Attributes
    ----------
    kind : str
        One of `KINDS`, as it came about: "random" stands in for "subspace" where there are too few data.
    params : Params
    h0 : ndarray, shape (B, h)
    """

    kind: str
    params: Params
    h0: Real


def draw(
    kind: str,
    data: Experiments,
    h: int,
    *,
    biases: bool,
    direct: bool,
    fit_h0: bool,
    max_spectral_radius: float | None,
    rng: np.random.Generator,
) -> Start:
    """Return a start of a kind; the data are in the units of the fit."""
    limit = np.inf if max_spectral_radius is None else max_spectral_radius
    if kind == "subspace":
        found = subspace(data, h, biases=biases, direct=direct, fit_h0=fit_h0, radius=min(1.0, limit))
        if found is not None:
            return found
        kind = "random"
    (d, q), B = (data.x.shape[2], data.y.shape[2]), len(data.lengths)
    orthogonal = kind == "orthogonal"
    size = 1.0 if orthogonal else RANDOM_SIZE
    radius = min(limit, ORTHOGONAL_RADIUS if orthogonal else RANDOM_RADIUS)
    family: Kind = "orthogonal" if orthogonal else "gaussian"
    drawn = Params.random(d, h, q, spectral_radius=radius, kind=family, direct=direct, rng=rng)
    params = Params(
        size * drawn.W_hx,
        drawn.W_hh,
        size * drawn.W_qh,
        np.zeros(h) if biases else None,
        np.zeros(q) if biases else None,
        None if drawn.W_qx is None else size * drawn.W_qx,
    )
    h0 = RANDOM_SIZE * rng.standard_normal((B, h)) if fit_h0 else np.zeros((B, h))
    return Start(kind, params, h0)


# --- subspace identification --------------------------------------------------------------------------------


def subspace(
    data: Experiments, h: int, *, biases: bool, direct: bool, fit_h0: bool, radius: float
) -> Start | None:
    r"""Identify a network from block Hankel matrices of inputs and outputs.

    Future outputs are regressed on past data and future inputs. What the past contributes, with future
    inputs projected away, is the extended observability matrix times the states,

    .. math::

        L_p Z_p \Pi_{U_f}^\perp = U S V^\top, \qquad \Gamma = U_1 S_1^{1/2}, \qquad
        S_k = \Gamma^+ L_p Z_p .

    A comes from the shift structure of Gamma, C is its first block, B from the states by least squares; the
    initial states and the read-out follow by least squares on the outputs themselves.

    Returns
    -------
    Start or None
        ``None`` where the data do not suffice.

    References
    ----------
    P. Van Overschee, B. De Moor, "Subspace Identification for Linear Systems", 1996, chapter 4 (N4SID with
    the weighting of MOESP).
    """
    q, d = data.y.shape[2], data.x.shape[2]
    # Block rows beyond what makes Gamma and its shifted part of full rank.
    least = -(-h // q) + 1
    depth = max(least, min(SUBSPACE_DEPTH, SUBSPACE_REGRESSORS // (2 * d + q)))
    matrices = _hankel_matrices(data, depth)
    while matrices is None or matrices[0].shape[1] < 2 * (depth * (2 * d + q) + 1):
        if depth == least:
            return None
        depth = max(least, depth * 4 // 5)
        matrices = _hankel_matrices(data, depth)
    past, future_inputs, future_outputs, successive = matrices
    # A constant is no mode of the system where biases stand for it.
    ones = np.ones((1 if biases else 0, past.shape[1]))
    future_inputs = np.vstack([future_inputs, ones])
    both = np.vstack([past, future_inputs])
    coefficients = least_squares(both.T, future_outputs.T).T
    effect = coefficients[:, : len(past)] @ past
    fitted = least_squares(future_inputs.T, effect.T).T @ future_inputs
    U, S, _ = np.linalg.svd(triangle((effect - fitted).T).T, full_matrices=False)
    if len(S) < h or not S[h - 1] > 1e-10 * S[0]:
        return None
    observability = U[:, :h] * np.sqrt(S[:h])
    states = U[:, :h].T @ effect / np.sqrt(S[:h, np.newaxis])
    A = np.linalg.lstsq(observability[:-q], observability[q:], rcond=None)[0]
    C = observability[:q]
    inputs = np.vstack([future_inputs[:d], ones])
    now, then = states[:, :-1][:, successive], states[:, 1:][:, successive]
    B = least_squares(inputs[:, :-1][:, successive].T, (then - A @ now).T).T
    A = clipped(A, radius)
    # The state is updated before it is read: W_qh A = C.
    W_qh = np.linalg.lstsq(A.T, C.T, rcond=None)[0].T
    params = Params(
        B[:, :d],
        A,
        W_qh,
        B[:, d] if biases else None,
        np.zeros(q) if biases else None,
        np.zeros((q, d)) if direct else None,
    )
    h0 = np.zeros((len(data.lengths), h))
    params = _read_out(params, h0, data)
    if fit_h0:
        h0 = _initial_states(params, data)
        params = _read_out(params, h0, data)
    finite = all(np.isfinite(array).all() for _, array in params.items()) and np.isfinite(h0).all()
    return Start("subspace", params, h0) if finite else None


def _hankel_matrices(data: Experiments, depth: int) -> tuple[Real, Real, Real, np.ndarray] | None:
    """Return block Hankel matrices of past data, future inputs and future outputs.

    A column holds 2 `depth` successive steps; those with a missing target are left out. The last array says
    which columns are followed by the one that begins a step later.
    """
    past, inputs, outputs, followed = [], [], [], []
    rows = 0
    for b, length in enumerate(data.lengths):
        steps = int(min(length, SUBSPACE_ROWS - rows))
        count = steps - 2 * depth + 1
        if count < 1:
            continue
        rows += steps
        x, y = data.x[:steps, b], data.y[:steps, b]
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
        followed.append(np.append(np.diff(kept) == 1, False))
    if not past:
        return None
    return np.hstack(past), np.hstack(inputs), np.hstack(outputs), np.concatenate(followed)[:-1]


def _initial_states(params: Params, data: Experiments) -> Real:
    """Return the h0 of every experiment that comes closest to its targets, by linear least squares."""
    _, h, q = params.shape
    steps = min(len(data.x), START_STEPS)
    # Row t of the scan is (W_hh^t e_1, ..., W_hh^t e_h): a batch of the unit vectors.
    powers = linear_scan(params.W_hh, np.zeros((steps, h, h)), np.eye(h))
    effect = powers @ params.W_qh.T  # (steps, h, q)
    error = data.y[:steps] - forward(params, data.x[:steps]).o
    result = np.zeros((len(data.lengths), h))
    for b in range(len(result)):
        known = data.known[:steps, b].ravel()
        rows = effect.transpose(0, 2, 1).reshape(steps * q, h)[known]
        result[b] = least_squares(rows, error[:, b].ravel()[known])
    return result


def _read_out(params: Params, h0: Real, data: Experiments) -> Params:
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
        weights[output] = least_squares(features[known], data.y[..., output][known])
    return Params(
        params.W_hx,
        params.W_hh,
        weights[:, :h],
        params.b_h,
        None if params.b_q is None else weights[:, h],
        None if params.W_qx is None else weights[:, -d:],
    )
