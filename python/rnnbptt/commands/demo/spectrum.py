"""Eigenvalues as periods and decay times, and how far a gradient reaches back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import rnnbptt

if TYPE_CHECKING:
    from .sunspots import Array

CYCLE = (10.0, 12.0)  # years: what counts as the eleven-year cycle
NEGLIGIBLE = 0.1  # modulus of a mode that is all but gone within a year


@dataclass(frozen=True)
class Mode:
    """An eigenvalue of a recurrence, one of each complex pair.

    Parameters
    ----------
    eigenvalue : complex
        With an imaginary part of at least zero.
    """

    eigenvalue: complex

    @property
    def modulus(self) -> float:
        """What one year leaves of the mode."""
        return abs(self.eigenvalue)

    @property
    def period(self) -> float:
        """Years per turn; infinite for a positive eigenvalue, two for a negative one."""
        angle = math.atan2(self.eigenvalue.imag, self.eigenvalue.real)
        return math.tau / angle if angle else math.inf

    @property
    def decay_time(self) -> float:
        """Years until 1/e is left; infinite where nothing decays."""
        if self.modulus >= 1:
            return math.inf
        return -1 / math.log(self.modulus) if self.modulus else 0.0


def modes(matrix: Array) -> list[Mode]:
    """Return the modes of ``s_t = matrix s_{t-1}``, the slowest to decay first."""
    found = [Mode(complex(value)) for value in np.linalg.eigvals(matrix) if value.imag >= 0]
    return sorted(found, key=lambda mode: -mode.modulus)


def spectral_radius(matrix: Array) -> float:
    """Return the largest modulus of an eigenvalue; infinite for a matrix that is not finite."""
    if not np.isfinite(matrix).all():
        return math.inf
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def feedback(params: rnnbptt.Params) -> Array:
    """Return the recurrence of a network that reads its own forecasts: ``W_hh + W_hx W_qh``.

    With x_{t+1} = o_t = W_qh h_t, h_{t+1} = W_hx x_{t+1} + W_hh h_t becomes (W_hh + W_hx W_qh) h_t, up to
    constants.
    """
    matrix: Array = params.W_hh + params.W_hx @ params.W_qh
    return matrix


def swing(found: list[Mode]) -> Mode | None:
    """Return the slowest to decay of the modes that turn, unless it is negligible."""
    turning = [mode for mode in found if mode.eigenvalue.imag > 0 and mode.modulus >= NEGLIGIBLE]
    return max(turning, key=lambda mode: mode.modulus, default=None)


def cycle(found: list[Mode]) -> Mode | None:
    """Return the `swing`, if its period is that of the eleven-year cycle."""
    slowest = swing(found)
    return slowest if slowest is not None and CYCLE[0] <= slowest.period <= CYCLE[1] else None


def gradient_flow(params: rnnbptt.Params, lags: int) -> Array:
    """Return ``||dL/dh_{T-k}||`` by lag k = 0 .. lags, as a share of lag 0; L sees the last output only."""
    d_o: np.ndarray[Any, np.dtype[Any]] = np.zeros((lags + 1, 1))
    d_o[-1] = 1
    norms = np.linalg.norm(rnnbptt.state_gradients(params, d_o), axis=1)[::-1]
    shares: Array = norms / norms[0]
    return shares


def memory_horizon(flow: Array, share: float = 0.01) -> int | None:
    """Return the first lag at which less than `share` of the gradient is left; ``None`` if there is none."""
    below = np.flatnonzero(flow < share)
    return int(below[0]) if below.size else None
