"""The spectrum of ``W_hh`` and its powers, as a table, a picture and a dict."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...engine.floating_point import quiet_class
from ..showing import (
    BLUE,
    LAG,
    ORANGE,
    ROUNDING,
    WIDTH,
    at_least,
    drawing_axes,
    finish,
    jsonable,
    whole_numbers,
)
from .numbers import Growth, Real, exp2, number, power_of_two, rounding

if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGENVALUES_PRINTED = 10


#: What is larger is drawn at the edge: matplotlib adds up and multiplies coordinates.
_DRAWN = 1e150


@quiet_class
@dataclass(frozen=True, eq=False, slots=True)
class SpectralReport:
    r"""How powers of ``W_hh`` grow or decay, and what that means for gradients: see `spectral_report`.

    Gradients go back in time by :math:`\partial L/\partial h_{t-k} = (W_{hh}^\top)^k\,
    \partial L/\partial h_t`, plus what later outputs add, so ``||W_hh^k||`` is the most a gradient can be
    stretched over k steps. ``print`` shows a table, `plot` a picture.

    Attributes
    ----------
    size : int
        h, rows of the matrix.
    dtype : str
        What it was given as. "To rounding" means rounding of this dtype.
    growth : str
        What ``||W_hh^k||`` does for large k:

        - ``"nilpotent"``: it is zero from `nilpotency_index` on;
        - ``"decaying"``, ``"growing"``: exponentially, like ``spectral_radius ** k``;
        - ``"bounded"``: the radius is 1 to rounding, the norms stay between bounds;
        - ``"polynomial"``: the radius is 1 to rounding, the norms grow like ``k ** growth_degree``;
        - ``"undecided"``: W_hh is so sensitive that its last bits decide between decay and growth.
    verdict : str
        One paragraph in plain words.
    spectral_radius : float
        Largest modulus of an eigenvalue, within `spectral_radius_bounds`.
    spectral_radius_bounds : tuple of float
        Bounds from traces and norms of powers, :math:`|\mathrm{tr}\,W^k| / h \le \rho^k \le
        \|W^k\|` with the rounding of the powers allowed for, from a triangular structure, or
        from `stability_distance`.
    largest_singular_value : float
        ``||W_hh||_2``: the most a gradient can be stretched in one step.
    growth_rate : float
        ``(||W^2k|| / ||W^k||) ** (1/k)`` at the largest k where norms can be trusted: an estimate of the
        spectral radius that uses no eigenvalue.
    growth_degree : float or None
        Exponent of the growth ``k ** growth_degree``, measured; only for ``"polynomial"``.
    nilpotency_index : int or None
        First k with ``W_hh^k = 0``.
    log2_transient_growth : float
        Base-2 logarithm of ``max_k ||W_hh^k||_2``, k = 0 included: 0 where no power stretches; inf where
        the norms grow without bound. For ``"undecided"``, the largest that was seen.
    transient_lag : int or None
        The k where that is reached; None where the norms grow without bound.
    contraction_lag : int or None
        A lag from which on no gradient is longer than it was at lag 0: 0, or a power of two that need not be
        the first such lag; None where none is known, and then `log2_transient_growth` is from below.
    kreiss_lower_bound : float
        Lower bound of the Kreiss constant :math:`K = \sup_{|z|>1} (|z|-1) \|(zI - W)^{-1}\|_2`, between
        which and e h K the largest norm lies. Inf where the norms grow without bound.
    departure_from_normality : float
        Henrici's :math:`(\|W\|_F^2 - \sum_i |\lambda_i|^2)^{1/2}`: 0 for normal matrices, for which
        eigenvalues tell everything. Resolved to some 1e-7 of ``||W||_F``; less is reported as 0.
    eigenvector_condition : float
        Condition number of the matrix of unit eigenvectors: 1 for normal matrices, beyond some 1e8 for
        matrices that lack a basis of eigenvectors.
    stability_distance : float
        Size of the smallest complex change of ``W_hh`` (in the 2-norm) that puts an eigenvalue on the unit
        circle, :math:`\min_{|z|=1} \sigma_{\min}(zI - W)`, from above: found by search.
    eigenvalues : ndarray of complex, shape (h,)
        Largest modulus first.
    decay_times : ndarray, shape (h,)
        Steps in which the component along an eigenvector falls by 1/e, ``-1 / log|lambda|``. Negative where
        it grows (by e in that many steps), inf where it stays, 0 where it is gone after one step.
    periods : ndarray, shape (h,)
        Steps of a full turn, ``2 pi / |arg lambda|``; inf where nothing oscillates, 2 for a change of sign.
    unit_circle_distances : ndarray, shape (h,)
        ``1 - |lambda|``: positive inside the unit circle.
    lags : ndarray of int, shape (n,)
        Lags k of a curve that shows transient and long run.
    log2_norms : ndarray, shape (n,)
        ``log2 ||W_hh^k||_2`` at these lags.
    """

    __module__ = "rnnbptt"

    size: int
    dtype: str
    growth: Growth
    verdict: str
    spectral_radius: float
    spectral_radius_bounds: tuple[float, float]
    largest_singular_value: float
    growth_rate: float
    growth_degree: float | None
    nilpotency_index: int | None
    log2_transient_growth: float
    transient_lag: int | None
    contraction_lag: int | None
    kreiss_lower_bound: float
    departure_from_normality: float
    eigenvector_condition: float
    stability_distance: float
    eigenvalues: NDArray[np.complex128]
    decay_times: Real
    periods: Real
    unit_circle_distances: Real
    lags: NDArray[np.int64]
    log2_norms: Real

    @property
    def transient_growth(self) -> float:
        """``max_k ||W_hh^k||_2``; inf where the norms grow without bound or float64 ends."""
        return exp2(self.log2_transient_growth)

    @property
    def singular_value_verdict(self) -> str:
        """What the largest singular value says by itself (Pascanu, Mikolov and Bengio 2013)."""
        excess = self.largest_singular_value - 1
        if abs(excess) <= rounding(self.size, self.dtype):
            return "= 1: no step lengthens a gradient"
        if excess < 0:
            return "< 1: sufficient for vanishing"
        return "> 1: necessary for exploding, not sufficient"

    @property
    def spectral_radius_verdict(self) -> str:
        """What the spectral radius says about the long run."""
        return {
            "nilpotent": f"gradients are zero after {self.nilpotency_index} steps",
            "decaying": "< 1: gradients vanish in the end",
            "bounded": "= 1 to rounding: stays within bounds",
            "polynomial": "= 1 to rounding: grows, not exponentially",
            "growing": "> 1: gradients can explode",
            "undecided": "rounding decides on which side of 1",
        }[self.growth]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers that strict JSON can hold.

        Infinite values become the strings ``"inf"`` and ``"-inf"``, which ``float()`` reads.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["transient_growth"] = self.transient_growth
        values["spectral_radius_verdict"] = self.spectral_radius_verdict
        values["singular_value_verdict"] = self.singular_value_verdict
        return {name: jsonable(value) for name, value in values.items()}

    def __str__(self) -> str:
        low, high = self.spectral_radius_bounds
        growth = "unbounded" if self.transient_lag is None else power_of_two(self.log2_transient_growth)
        where = "" if self.transient_lag is None else f"at lag {self.transient_lag}"
        rows = [
            ("spectral radius", number(self.spectral_radius), self.spectral_radius_verdict),
            ("", "", f"surely in [{low:.6g}, {high:.6g}]"),
            ("largest singular value", number(self.largest_singular_value), self.singular_value_verdict),
            ("growth rate, from powers", number(self.growth_rate), "no eigenvalue used"),
            ("transient growth", growth, where),
            ("Kreiss constant, at least", number(self.kreiss_lower_bound), ""),
            ("departure from normality", number(self.departure_from_normality), "Henrici; 0 is normal"),
            ("eigenvector condition", self._condition_text, "1 is normal"),
            ("stability distance", self._distance_text, "least change to reach |lambda| = 1"),
        ]
        lines = [f"W_hh, {self.size} x {self.size}, {self.dtype}: powers {self.growth}", ""]
        lines += [f"{name:25}{value:>9}  {note}".rstrip() for name, value, note in rows]
        lines += ["", "   |lambda|   arg / pi   steps to 1/e     period   1 - |lambda|"]
        shown = min(self.size, _EIGENVALUES_PRINTED)
        lines += [self._row(i) for i in range(shown)]
        if shown < self.size:
            lines.append(f"    ... and {self.size - shown} smaller eigenvalues")
        return "\n".join([*lines, "", textwrap.fill(self.verdict, WIDTH)])

    @property
    def _hidden(self) -> float:
        """Changes of W_hh, and so eigenvalues, that rounding hides."""
        return rounding(self.size, self.dtype) * self.largest_singular_value

    @property
    def _condition_text(self) -> str:
        condition = self.eigenvector_condition
        return f">{1 / ROUNDING:.0e}" if 1 / ROUNDING < condition < math.inf else number(condition)

    @property
    def _distance_text(self) -> str:
        distance = self.stability_distance
        return f"<{self._hidden:.0e}" if 0 < distance < self._hidden else number(distance)

    def _row(self, i: int) -> str:
        """Return the line of an eigenvalue; of one that rounding hides, no more than that."""
        z, error = self.eigenvalues[i], rounding(self.size, self.dtype)
        if 0 < abs(z) < self._hidden:
            return f"{f'<{self._hidden:.0e}':>11}{'-':>11}{'-':>15}{'-':>11}{number(1.0):>15}"
        time, distance = self.decay_times[i], self.unit_circle_distances[i]
        if abs(distance) <= error:
            time, distance = np.inf, 0.0
        decay = f"e in {number(-time)}" if time < 0 else number(time)
        return (
            f"{number(abs(z)):>11}{np.angle(z) / np.pi:11.4f}{decay:>15}"
            f"{number(self.periods[i]):>11}{number(distance):>15}"
        )

    def plot(self, axes: Sequence[Any] | None = None) -> Any:
        """Draw the eigenvalues in the unit circle beside the norms of powers.

        Parameters
        ----------
        axes : sequence of two matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install 'rnnbptt[plot]'``.
        ValueError
            If `axes` are not two.
        """
        axes = drawing_axes(axes, 2)
        self._plot_eigenvalues(axes[0])
        self._plot_norms(axes[1])
        return axes[0].figure

    def _plot_eigenvalues(self, axes: Any) -> None:
        turn = np.linspace(0, 2 * np.pi, 361)
        axes.plot(np.cos(turn), np.sin(turn), color="0.4", linewidth=1, label="unit circle")
        inside = np.abs(self.eigenvalues) <= 1 + rounding(self.size, self.dtype)
        for some, color, marker, label in (
            (inside, BLUE, "o", "|λ| ≤ 1"),
            (~inside, ORANGE, "^", "|λ| > 1: grows"),
        ):
            if some.any():
                z = np.clip(self.eigenvalues[some].view(np.float64), -_DRAWN, _DRAWN).view(np.complex128)
                axes.scatter(
                    z.real, z.imag, s=36, color=color, marker=marker, alpha=0.8, label=label, zorder=3
                )
        reach = 1.08 * min(max(1.0, float(np.abs(self.eigenvalues).max())), _DRAWN)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        finish(axes, "real part of λ", "imaginary part of λ", "Eigenvalues of W_hh")
        # Below: inside the circle there is no place that no eigenvalue ever takes.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize="small", frameon=False)

    def _plot_norms(self, axes: Any) -> None:
        finite = np.isfinite(self.log2_norms)
        lags, norms = self.lags[finite], self.log2_norms[finite]
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.plot(lags, norms, color=BLUE, marker=".", label="‖W_hh$^k$‖, worst case")
        if self.growth == "nilpotent":
            axes.axvline(self.nilpotency_index, color=ORANGE, linestyle="--", label="zero from here on")
        else:
            at_one = self.growth in ("bounded", "polynomial")
            slope = 0.0 if at_one else math.log2(self.spectral_radius)
            meaning = "uncertain" if self.growth == "undecided" else "the long run"
            label = rf"$\rho^k$, $\rho$ = {number(self.spectral_radius)}: {meaning}"
            axes.plot(self.lags, slope * self.lags, color=ORANGE, linestyle="--", label=label)
        if self.transient_lag is not None and self.log2_transient_growth > 0.01:
            label = f"largest: {power_of_two(self.log2_transient_growth)} at k = {self.transient_lag}"
            axes.plot(
                [self.transient_lag], [self.log2_transient_growth], "D", color="#000000", ms=6, label=label
            )
        at_least(axes, 1.0)
        whole_numbers(axes)
        finish(axes, LAG, "log$_2$ of the norm", "How far powers stretch a gradient")
        axes.legend(fontsize="small")
