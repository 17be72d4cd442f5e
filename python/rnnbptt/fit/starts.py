"""Where descents start: random networks, one identified from the data, and the caller's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..engine.params import Kind, Params
from . import regressions, subspace

if TYPE_CHECKING:
    from .experiments import Experiments, Real

KINDS = ("random", "orthogonal", "subspace")

#: Random starts have a short memory and small outputs: the modes that matter most are the first to grow.
RANDOM_RADIUS, RANDOM_SIZE = 0.5, 0.03
ORTHOGONAL_RADIUS = 0.9


class Start(NamedTuple):
    """A place to start from.

    Attributes
    ----------
    kind : str
        One of `KINDS`, as it came about: "random" stands in for "subspace" where there are too few data,
        "given" are parameters of the caller's.
    params : Params
    h0 : ndarray, shape (B, h)
    """

    kind: str
    params: Params
    h0: Real


def given(params: Params, shape: tuple[int, int, int], *, biases: bool, direct: bool) -> Params:
    """Return parameters to start from with exactly the terms that are fitted, in float64."""
    d, h, q = shape
    if params.shape != shape:
        raise ValueError(f"starts must hold Params of shape (d, h, q) = {shape}, not {params.shape}")
    terms: dict[str, Any] = {"b_h": (biases, (h,)), "b_q": (biases, (q,)), "W_qx": (direct, (q, d))}
    arrays: dict[str, Any] = {name: array.astype(np.float64) for name, array in params.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"starts must hold finite Params, not {name} with NaN or inf")
    for name, (fitted, size) in terms.items():
        if fitted:
            arrays.setdefault(name, np.zeros(size))
        elif arrays.pop(name, np.zeros(0)).any():
            option = "direct" if name == "W_qx" else "biases"
            raise ValueError(f"starts must hold Params without {name}, which {option}=False does not fit")
    return Params(**arrays)


def draw(
    kind: str | Params,
    data: Experiments,
    h: int,
    *,
    biases: bool,
    direct: bool,
    fit_h0: bool,
    max_spectral_radius: float | None,
    rng: np.random.Generator,
) -> Start:
    """Return a start of a kind, or from parameters; data and parameters are in the units of the fit."""
    limit = np.inf if max_spectral_radius is None else max_spectral_radius
    (d, q), B = (data.x.shape[2], data.y.shape[2]), len(data.lengths)
    if isinstance(kind, Params):
        h0 = regressions.initial_states(kind, data) if fit_h0 else np.zeros((B, h))
        return Start("given", kind, h0)
    if kind == "subspace":
        found = subspace.identify(data, h, biases=biases, direct=direct, fit_h0=fit_h0)
        if found is not None:
            return Start("subspace", *_extended(*found, h, min(limit, RANDOM_RADIUS), rng))
        kind = "random"
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


def _extended(
    params: Params, h0: Real, h: int, radius: float, rng: np.random.Generator
) -> tuple[Params, Real]:
    """Return a network of h states that computes what one of fewer does: nothing is read of the others."""
    d, rank, q = params.shape
    if rank == h:
        return params, h0
    more = h - rank
    drawn = Params.random(d, more, q, spectral_radius=radius, rng=rng)
    W_hh = np.zeros((h, h))
    W_hh[:rank, :rank], W_hh[rank:, rank:] = params.W_hh, drawn.W_hh
    extended = Params(
        np.vstack([params.W_hx, RANDOM_SIZE * drawn.W_hx]),
        W_hh,
        np.hstack([params.W_qh, np.zeros((q, more))]),
        None if params.b_h is None else np.concatenate([params.b_h, np.zeros(more)]),
        params.b_q,
        params.W_qx,
    )
    return extended, np.hstack([h0, np.zeros((len(h0), more))])
