"""The loss of a fit as a function of one vector: squared errors of known targets, and penalties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import schur

from ..engine.trajectories import forward
from ..gradients.objective import Objective
from . import regressions
from .normal_equations import Columns, NormalEquations

if TYPE_CHECKING:
    from ..engine.params import Params
    from .experiments import Experiments, Real


def largest_eigenvalue(W: Real) -> float:
    """Return the largest modulus of an eigenvalue."""
    return float(np.abs(np.linalg.eigvals(W)).max())


def clipped(W: Real, bound: float, *, mirror: bool = False) -> Real:
    """Return the matrix itself, or one with the eigenvalues outside a circle moved onto it.

    With `mirror` they are moved inside: two that are told apart by their sizes stay so.
    """
    if largest_eigenvalue(W) <= bound:
        return W
    values, vectors = np.linalg.eig(W)
    # A little less, so that rounding does not lead out again.
    moved = values * _factors(np.abs(values), bound * (1 - 1e-12), mirror)
    if np.linalg.cond(vectors) < 1e6:
        result: Real = (vectors * moved @ np.linalg.inv(vectors)).real
        if largest_eigenvalue(result) <= bound:
            return result
    # Eigenvectors too close to parallel for that: in Schur's form eigenvalues are moved one by one as well.
    T, Z = schur(W, output="real")
    i = 0
    while i < len(T):
        block = slice(i, i + 1 + bool(i + 1 < len(T) and T[i + 1, i] != 0))
        # Rounding moves an eigenvalue of multiplicity m by the m-th root of its own size.
        T[block, block] *= _factors(largest_eigenvalue(T[block, block]), bound * (1 - 1e-6), mirror)
        i = block.stop
    result = Z @ T @ Z.T
    radius = largest_eigenvalue(result)
    return result if radius <= bound else result * (bound * (1 - 1e-12) / radius)


def _factors(radii: Any, bound: float, mirror: bool) -> Any:
    """Return what to multiply eigenvalues of these moduli by to move them within a bound."""
    ratio = np.minimum(1.0, bound / np.maximum(radii, 1e-300))
    return ratio**2 if mirror else ratio


class Problem:
    r"""The loss that a fit minimises.

    .. math::

        L = \frac{1}{N} \sum_{\text{known}} (o - y)^2 + \alpha \|\text{weights}\|^2
            + c \sum_i \max(0, |\lambda_i(W_{hh})| - \rho)^2

    with N the number of known targets. The last sum runs over all eigenvalues: a sum over a function of
    eigenvalues is smooth even where the largest of them change places.

    Parameters
    ----------
    like : Params
        Parameters whose shapes and terms are to be fitted.
    data : Experiments
    ridge : float
        alpha.
    max_spectral_radius : float or None
        rho; no last sum when ``None``.
    fit_h0 : bool
        Whether the initial states are fitted; otherwise they are zero.
    num_threads : int, optional
    """

    def __init__(
        self,
        like: Params,
        data: Experiments,
        *,
        ridge: float = 0.0,
        max_spectral_radius: float | None = None,
        fit_h0: bool = True,
        num_threads: int | None = None,
    ) -> None:
        self.like, self.data = like, data
        self.ridge, self.radius, self.radius_weight = ridge, max_spectral_radius, 1.0
        self.fit_h0 = fit_h0
        wrt = [name for name, _ in like.items()] + ["h0"] * fit_h0
        known = data.known
        if (known == known[..., :1]).all():  # whole steps are masked in less time than single outputs
            known = known[..., 0]
        self._objective = Objective(
            data.x,
            data.y,
            like=like,
            wrt=wrt,
            mask=None if known.all() else known,
            lengths=data.lengths,
            num_threads=num_threads,
        )
        layout, _, self._curvature = self._objective._laid_out()
        self._threads = self._objective._threads
        starts = np.arange(like.size, layout.size).reshape(len(data.lengths), -1)
        self._columns = Columns(layout.output_columns, layout.state_columns, starts)

    def pack(self, params: Params, h0: Real) -> Real:
        """Write parameters and initial states (B, h) as one vector."""
        return self._objective.pack(params, h0) if self.fit_h0 else params.ravel()

    def unpack(self, theta: Real) -> tuple[Params, Real]:
        """Take a vector apart: parameters and initial states (B, h)."""
        params, h0 = self._objective.unpack(theta)
        if h0 is None:
            h0 = np.zeros((len(self.data.lengths), params.shape[1]))
        return params, h0

    def spectral_radius(self, theta: Real) -> float:
        """Largest modulus of an eigenvalue of ``W_hh``."""
        return largest_eigenvalue(self.unpack(theta)[0].W_hh)

    def within(self, theta: Real, bound: float, *, mirror: bool = False) -> Real:
        """Return the vector itself, or one with the eigenvalues of ``W_hh`` `clipped`."""
        if self.spectral_radius(theta) <= bound:
            return theta
        result = theta.copy()
        result[self._recurrent] = clipped(self.unpack(theta)[0].W_hh, bound, mirror=mirror).ravel()
        return result

    def refitted(self, theta: Real) -> Real:
        """Return the vector, or one of the same ``W_hh`` whose other parameters fit better."""
        params, _ = self.unpack(theta)
        try:
            driven, h0 = regressions.driven(
                params.W_hh,
                params.W_qh,
                self.data,
                biases=params.b_h is not None,
                direct=params.W_qx is not None,
                fit_h0=self.fit_h0,
            )
            found = self.pack(regressions.read_out(driven, h0, self.data), h0)
        except np.linalg.LinAlgError:  # outputs overflow
            return theta
        return found if self.loss(found) < self.loss(theta) else theta

    def held_out_error(self, theta: Real) -> float:
        """Mean squared error of the held-out targets; inf where it overflows."""
        params, h0 = self.unpack(theta)
        with np.errstate(all="ignore"):
            error = (forward(params, self.data.x, h0).o - self.data.y)[self.data.held_out]
            result = float(np.mean(error**2))
        return result if np.isfinite(result) else np.inf

    # --- the forms optimisers ask for -----------------------------------------------------------------------

    def loss(self, theta: Real) -> float:
        """Evaluate L; inf where it overflows."""
        with np.errstate(all="ignore"):
            r = self._objective.residuals(theta)
            loss = 0.5 * float(r @ r) + self._penalty(theta)
        return loss if np.isfinite(loss) else np.inf

    def flat(self, theta: Real) -> tuple[float, Real]:
        """Evaluate L and its gradient."""
        with np.errstate(all="ignore"):
            loss, gradient = self._objective.flat(theta)
            size = self.like.size
            gradient[:size] += 2 * self.ridge * theta[:size]
            rows, excess = self._radius_rows(theta)
            gradient[self._recurrent] += 2 * self.radius_weight * (excess @ rows)
            loss += self._penalty(theta, excess)
        if not (np.isfinite(loss) and np.isfinite(gradient).all()):
            return np.inf, np.zeros_like(theta)  # a line search then takes a shorter step
        return loss, gradient

    def normal_equations(self, theta: Real) -> NormalEquations:
        """Evaluate ``J^T J`` and the gradient of L, with the penalties' residuals as rows of J."""
        _, gradient = self._objective.flat(theta)
        blocks = self._curvature.gauss_newton_blocks(theta, self._threads)
        size = self.like.size
        gradient[:size] += 2 * self.ridge * theta[:size]
        equations = NormalEquations(blocks, gradient, self._columns)
        if self.ridge > 0:
            equations.add_ridge(2 * self.ridge)
        rows, excess = self._radius_rows(theta)
        if len(excess):
            gradient[self._recurrent] += 2 * self.radius_weight * (excess @ rows)
            equations.add_to_states(self._recurrent, 2 * self.radius_weight * (rows.T @ rows))
        return equations

    # --- parts ----------------------------------------------------------------------------------------------

    @property
    def _recurrent(self) -> slice:
        """Where W_hh stands in a vector."""
        d, h, _ = self.like.shape
        return slice(h * d, h * d + h * h)

    def _penalty(self, theta: Real, excess: Real | None = None) -> float:
        weights = theta[: self.like.size]
        if excess is None:
            excess = self._radius_rows(theta)[1]
        return self.ridge * float(weights @ weights) + self.radius_weight * float(excess @ excess)

    def _radius_rows(self, theta: Real) -> tuple[Real, Real]:
        r"""Return ``|lambda_i| - rho`` where it is positive, and its derivatives by ``W_hh``, one row each.

        With right and left eigenvectors v and u, :math:`\partial \lambda / \partial W = \bar u v^\top /
        (u^H v)`.
        """
        h = self.like.shape[1]
        nothing = np.zeros((0, h * h)), np.zeros(0)
        if self.radius is None:
            return nothing
        W = theta[self._recurrent].reshape(h, h)
        if not np.isfinite(W).all():
            return np.zeros((1, h * h)), np.full(1, np.inf)
        values, right = np.linalg.eig(W)
        outside = np.abs(values) > self.radius
        if not outside.any():
            return nothing
        try:
            left = np.linalg.inv(right)  # row i is u_i^H / (u_i^H v_i)
        except np.linalg.LinAlgError:  # a defective matrix, beside which others are not
            left = np.linalg.pinv(right)
        phase = values[outside].conj() / np.abs(values[outside])
        rows = np.einsum("i,ia,bi->iab", phase, left[outside], right[:, outside]).real
        return rows.reshape(len(rows), h * h), np.abs(values[outside]) - self.radius
