"""What arrives of gradients k steps back in time, and how it turns into the leading eigenvectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..cached import cached
from ..lag_terms import log2_norms_of_products
from ..wide_range.scaled import Real, Scaled, outer_sum, product

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Eigenvalues whose moduli agree to this count as tied.
_TIE = 1e-9


class Backpropagated:
    """The vectors ``(W_hh^T)^k e_t`` with ``e_t = W_qh^T dL/do_t``, over all steps t, for every lag k.

    Eigenvectors cost more than all else about a large matrix: they are computed when asked for.

    Attributes
    ----------
    log2_norms : ndarray, shape (K,)
        Base-2 logarithms of root mean squares of their lengths over `used` steps.
    """

    def __init__(self, W: Real, P: Scaled, d_o: Scaled, used: int, threads: int) -> None:
        self._W, self._threads = W, threads
        # sum_t ||(W^T)^k W_qh^T d_o_t||^2 = ||D P_k||_F^2, with D the rows d_o_t. Two of its columns may lie
        # far apart where numbers have an exponent each: what they are divided by goes to the rows of P_k.
        each = d_o.exponent.ndim == d_o.mantissa.ndim
        top = d_o.exponent.max(axis=(0, 1)) if each else d_o.exponent.max()
        self._rows = d_o.at(np.broadcast_to(top, d_o.exponent.shape)).reshape(-1, d_o.mantissa.shape[2])
        exponents = P.exponent + top
        exponent = exponents.max(axis=1)
        self._by_lag = (
            Scaled(P.mantissa, exponents).at(np.broadcast_to(exponent[:, np.newaxis], exponents.shape)),
            exponent,
        )
        vectors, _ = self._by_lag
        gram = outer_sum(self._rows, self._rows, threads)
        self._lengths = log2_norms_of_products(vectors, None, gram, threads) + exponent
        lost = np.flatnonzero(np.isnan(self._lengths))
        if lost.size:
            self._lengths[lost] = self._vectors(lost).log2_norms()
        self.log2_norms: Real = self._lengths - np.log2(used) / 2

    @property
    def eigenvalues(self) -> NDArray[np.complex128]:
        """The eigenvalues of ``W_hh`` of largest modulus."""
        return self._leading[0]

    @cached
    def alignment(self) -> Real:
        """Share of the vectors' length in the eigenspace of ``W_hh^T`` of these eigenvalues, (K,)."""
        vectors, exponent = self._vectors(slice(None))
        basis = self._leading[1]
        rows = product(vectors.reshape(-1, len(basis)), basis, self._threads)
        within = Scaled(rows.reshape(len(exponent), -1), exponent).log2_norms()
        share: Real = np.exp2(np.minimum(within - self._lengths, 0))
        return share

    @cached
    def _leading(self) -> tuple[NDArray[np.complex128], Real]:
        return _leading(self._W)

    @cached
    def _R(self) -> Real:
        """R of D = QR: ``||D P_k|| = ||R P_k||``."""
        return np.asarray(np.linalg.qr(self._rows, mode="r"))

    def _vectors(self, lags: Any) -> Scaled:
        """Return ``R P_k`` for some lags, (., ., h)."""
        P, exponent = self._by_lag
        P = P[lags]
        K, q, h = P.shape
        by_output = np.ascontiguousarray(P.swapaxes(0, 1)).reshape(q, K * h)
        rows = product(self._R, by_output, self._threads).reshape(-1, K, h)
        return Scaled(np.ascontiguousarray(rows.swapaxes(0, 1)), exponent[lags])


def _leading(W: Real) -> tuple[NDArray[np.complex128], Real]:
    """Return the leading eigenvalues of W^T, and an orthonormal basis of what their eigenvectors span."""
    values, vectors = np.linalg.eig(W.T)
    sizes = np.abs(values)
    chosen = sizes >= sizes.max() * (1 - _TIE)
    span = np.concatenate([vectors[:, chosen].real, vectors[:, chosen].imag], axis=1)
    left, singular, _ = np.linalg.svd(span, full_matrices=False)
    return values[chosen].astype(np.complex128), left[:, singular > 1e-8 * singular[0]]
