"""Recurrent matrices that cannot leave a disc: a parametrisation of them, and a fit in its terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from ..engine.params import Params
from .problem import clipped, largest_eigenvalue

if TYPE_CHECKING:
    from .experiments import Real
    from .normal_equations import NormalEquations
    from .problem import Problem

#: How far inside, as a part of the bound, eigenvalues start that have to be moved, and singular values at
#: least: on the bound itself the parametrisation has no slope.
INSIDE, LEAST_INSIDE = 1e-4, 1e-7
#: Rounding of eigenvalues, which are to stay within the bound to the last digit.
ROUNDING = 1e-12
#: Eigenvectors are a basis to compute in where their condition is below this.
BASIS = 1e4


class Contractions:
    r"""Matrices of spectral norm at most rho, by free ones.

    .. math::

        W = \rho \, U \sin(S) V^\top \quad \text{for} \quad M = U S V^\top

    Every matrix whose eigenvalues lie inside the circle of radius rho has a basis in which its norm is at
    most rho. The map is smooth, and reaches the bound at a finite M.

    Parameters
    ----------
    bound : float
        rho.
    M : ndarray, shape (h, h)
    """

    def __init__(self, bound: float, M: Real) -> None:
        self._rho = bound * (1 - ROUNDING)
        self._U, S, self._Vt = np.linalg.svd(M)
        self.W: Real = self._rho * (self._U * np.sin(S)) @ self._Vt
        half_sum, half_difference = (S[:, np.newaxis] + S) / 2, (S[:, np.newaxis] - S) / 2
        # (sin a - sin b) / (a - b) and (sin a + sin b) / (a + b), which have no poles.
        symmetric = np.cos(half_sum) * np.sinc(half_difference / np.pi)
        skew = np.sinc(half_sum / np.pi) * np.cos(half_difference)
        self._own, self._mirrored = (symmetric + skew) / 2, (symmetric - skew) / 2

    @classmethod
    def at(cls, bound: float, W: Real) -> Real:
        """Return the M of a matrix of norm at most rho, or of one close by, inside."""
        U, S, Vt = np.linalg.svd(W)
        result: Real = (U * np.arcsin(np.minimum(S / bound, 1 - LEAST_INSIDE))) @ Vt
        return result

    def pull(self, d_W: Real) -> Real:
        r"""Return dL/dM for dL/dW, of shape (..., h, h): the derivative of the map is symmetric.

        :math:`dW = \rho \, U (G \circ \mathrm{sym}(P) + H \circ \mathrm{skew}(P)) V^\top` with
        :math:`P = U^\top dM \, V`, where G and H are the quotients of differences and sums of the sines.
        """
        P = self._U.T @ d_W @ self._Vt.T
        inner = self._own * P + self._mirrored * P.swapaxes(-1, -2)
        result: Real = self._rho * (self._U @ inner @ self._Vt)
        return result


class StableProblem:
    """A fit whose vectors hold M of `Contractions` in the place of ``W_hh``.

    Parameters
    ----------
    problem : Problem
        Without a bound of its own.
    bound : float
        Largest modulus of an eigenvalue.
    """

    def __init__(self, problem: Problem, bound: float) -> None:
        self._problem, self._bound = problem, bound
        d, h, _ = problem.like.shape
        self._at = slice(h * d, h * d + h * h)

    def pack(self, params: Params, h0: Real) -> Real:
        """Write a network as a vector; eigenvalues outside the bound are moved within it."""
        inside = params.W_hh
        if largest_eigenvalue(inside) > self._bound:
            inside = clipped(inside, self._bound * (1 - INSIDE))
        T = _contracting_basis(inside, self._bound)
        inverse = np.linalg.inv(T)
        W_hh = T @ inside @ inverse
        b_h = None if params.b_h is None else T @ params.b_h
        moved = Params(T @ params.W_hx, W_hh, params.W_qh @ inverse, b_h, params.b_q, params.W_qx)
        theta = self._problem.pack(moved, h0 @ T.T)
        theta[self._at] = Contractions.at(self._bound, W_hh).ravel()
        return theta

    def _mapped(self, theta: Real) -> tuple[Real, Contractions]:
        h = self._problem.like.shape[1]
        contraction = Contractions(self._bound, theta[self._at].reshape(h, h))
        result = theta.copy()
        result[self._at] = contraction.W.ravel()
        return result, contraction

    def plain(self, theta: Real) -> Real:
        """Return the vector of `Problem`."""
        return self._mapped(theta)[0] if np.isfinite(theta).all() else theta

    def held_out_error(self, theta: Real) -> float:
        """Mean squared error of the held-out targets."""
        return self._problem.held_out_error(self.plain(theta))

    def loss(self, theta: Real) -> float:
        """Evaluate L; inf where it overflows."""
        return self._problem.loss(self.plain(theta)) if np.isfinite(theta).all() else np.inf

    def flat(self, theta: Real) -> tuple[float, Real]:
        """Evaluate L and its gradient."""
        if not np.isfinite(theta).all():
            return np.inf, np.zeros_like(theta)
        at, contraction = self._mapped(theta)
        loss, gradient = self._problem.flat(at)
        gradient[self._at] = contraction.pull(gradient[self._at].reshape(contraction.W.shape)).ravel()
        return loss, gradient

    def normal_equations(self, theta: Real) -> NormalEquations:
        """Evaluate ``J^T J`` and the gradient of L."""
        at, contraction = self._mapped(theta)
        equations = self._problem.normal_equations(at)

        def pull(derivatives: Real) -> Real:
            matrices = derivatives.reshape(*derivatives.shape[:-1], *contraction.W.shape)
            return contraction.pull(matrices).reshape(derivatives.shape)

        equations.change_states(self._at, pull)
        return equations


def _contracting_basis(W: Real, bound: float) -> Real:
    """Return T for which T W T^-1 has a norm of at most the bound, or hardly more.

    That of eigenvectors, in which the norm is the spectral radius, or where these are close to parallel one
    from Lyapunov's equation.
    """
    if np.linalg.norm(W, 2) <= bound:
        return np.eye(len(W))
    vectors = np.linalg.eig(W)[1]
    if np.linalg.cond(vectors) < BASIS:
        P = np.linalg.inv((vectors @ vectors.conj().T).real)
    else:
        safe = clipped(W, bound * (1 - INSIDE))
        P = solve_discrete_lyapunov((safe / bound).T, np.eye(len(W)))
    T: Real = np.linalg.cholesky((P + P.T) / 2).T / np.sqrt(np.trace(P) / len(P))
    return T
