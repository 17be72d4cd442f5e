"""The flow of gradients, as a table, a picture and a dict."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ... import _validate
from ...engine.floating_point import quiet_class
from ..showing import (
    BLUE,
    GREY,
    LAG,
    ORANGE,
    ROUNDING,
    WIDTH,
    at_least,
    drawing_axes,
    finish,
    jsonable,
    left_out,
    marks,
    power_of_two,
    ratio,
    share,
    shown,
    side_of_1,
    whole_numbers,
)

if TYPE_CHECKING:
    from ..wide_range.scaled import Real
    from .alignment import Backpropagated

#: Base-2 logarithms of the smallest normal number and of what no number reaches.
_RANGES = {"float32": (-126, 128), "float64": (-1022, 1024)}


class RangeExits(NamedTuple):
    """Where numbers of a dtype end, going backwards; ``None`` where they suffice.

    Attributes
    ----------
    underflow_lag, overflow_lag : int or None
        First lag k at which ``||(W_hh^T)^k e||`` is below the smallest normal number, or beyond the largest.
    underflow_step, overflow_step : int or None
        Last step t (from 1), and so the first on the way back, at which ``||dL/dh_t||`` is; zeros are not.
    """

    underflow_lag: int | None
    overflow_lag: int | None
    underflow_step: int | None
    overflow_step: int | None


@quiet_class
@dataclass(frozen=True, eq=False, slots=True)
class GradientFlow:
    r"""Gradients of a loss on their way back in time: see `gradient_flow`.

    ``print`` shows a table, `plot` a picture. Logarithms are to base 2 and finite however large or small the
    gradients are; -inf stands for a true zero.

    Attributes
    ----------
    steps, batch, size : int
        T, B and h.
    dtype : str
        Of the parameters. All computing is in float64.
    batch_first : bool
        Whether batched arrays are laid out (B, T).
    log2_state_gradients : ndarray, shape (T,), (T, B) or (B, T)
        :math:`\log_2 \|g_t\|` with :math:`g_t = \partial L / \partial h_t`, laid out as the inputs.
    log2_lag_norms : ndarray, shape (K,)
        How much of a gradient arrives k steps back: :math:`\log_2` of the root mean square of
        :math:`\|(W_{hh}^\top)^k e_t\|`, :math:`e_t = W_{qh}^\top \partial L / \partial o_t`, over the steps
        t that count in the loss. If only the last does, this is :math:`\|\partial L/\partial h_{T-k}\|`.
        Powers are taken as though every step had k predecessors.
    log2_contributions : ndarray, shape (K,)
        :math:`\log_2 \|G_k\|_F` with :math:`\partial L/\partial W_{hh} = \sum_k G_k`.
    shares : ndarray, shape (K,)
        :math:`\langle G_k, G\rangle / \|G\|^2`, signed, with ``G = dL/dW_hh``. With `remainder_share` they
        sum up to 1; nan where the gradient is zero.
    remainder_share : float
        The share of all lags from K on.
    log2_remainder : float
        :math:`\log_2 \|\sum_{k \ge K} G_k\|_F`.
    log2_gradient_norm : float
        :math:`\log_2 \|\partial L/\partial W_{hh}\|_F`.
    arriving : Backpropagated
        What `alignment` and `leading_eigenvalues` are computed from when they are first asked for.
    missing : int
        Targets that are NaN, and left out.
    """

    __module__ = "rnnbptt"

    steps: int
    batch: int
    size: int
    dtype: str
    batch_first: bool
    log2_state_gradients: Real
    log2_lag_norms: Real
    log2_contributions: Real
    shares: Real
    remainder_share: float
    log2_remainder: float
    log2_gradient_norm: float
    arriving: Backpropagated = field(repr=False)
    missing: int = 0

    @property
    def alignment(self) -> Real:
        """Share of the length of what arrives k steps back that lies in the leading eigenspace, (K,).

        It belongs to the `leading_eigenvalues` of ``W_hh^T``: 1 when those vectors have turned into it, nan
        where they are zero. Computed when first asked for.
        """
        return self.arriving.alignment

    @property
    def leading_eigenvalues(self) -> NDArray[np.complex128]:
        """The eigenvalues of largest modulus: one, a conjugate pair, or all that tie."""
        return self.arriving.eigenvalues

    @property
    def _by_step(self) -> Real:
        """State gradients as (T, B)."""
        if self.log2_state_gradients.ndim == 1:
            return self.log2_state_gradients[:, np.newaxis]
        return self.log2_state_gradients.T if self.batch_first else self.log2_state_gradients

    @property
    def lags(self) -> int:
        """K: lags 0 .. K-1 are told apart."""
        return len(self.shares)

    @property
    def cumulative_shares(self) -> Real:
        """What the lags up to each one add up to, as a share of the gradient."""
        sums: Real = np.cumsum(self.shares)
        return sums

    def horizon(self, tol: float = 0.01) -> int | None:
        """Return the effective memory horizon: the first lag where less than `tol` of a gradient arrives.

        Parameters
        ----------
        tol : float
            Share of the norm at lag 0.

        Returns
        -------
        int or None
            The first k with ``||(W_hh^T)^k e|| < tol ||e||`` (root mean squares); ``None`` if it lies beyond
            the lags of this report.
        """
        tol = _positive("tol", tol)
        below = np.flatnonzero(self.log2_lag_norms - self.log2_lag_norms[0] < np.log2(tol))
        return int(below[0]) if below.size else None

    def range_exits(self, dtype: str = "float64") -> RangeExits:
        """Return where, going backwards, numbers of `dtype` underflow or overflow.

        Parameters
        ----------
        dtype : {"float32", "float64"}

        Returns
        -------
        RangeExits
        """
        low, high = _RANGES[_validate.choice("dtype", dtype, _RANGES)]

        def ends(logs: Real) -> tuple[int | None, int | None]:
            below = np.flatnonzero((logs < low) & (logs > -np.inf))
            above = np.flatnonzero(logs >= high)
            return tuple(int(i[0]) if i.size else None for i in (below, above))  # type: ignore[return-value]

        T = self.steps
        backwards = self._by_step[::-1]
        some = np.where(np.isneginf(backwards), np.inf, backwards)
        steps = ends(some.min(axis=1))[0], ends(backwards.max(axis=1))[1]
        return RangeExits(*ends(self.log2_lag_norms), *(None if i is None else T - i for i in steps))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers that strict JSON can hold.

        Values that are not finite become the strings ``"inf"``, ``"-inf"`` and ``"nan"``, which ``float()``
        reads.
        """
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "arriving"}
        values["alignment"] = self.alignment
        values["leading_eigenvalues"] = self.leading_eigenvalues
        values["lags"] = self.lags
        values["horizon"] = self.horizon()
        for dtype in _RANGES:
            values[f"range_exits_{dtype}"] = self.range_exits(dtype)._asdict()
        return {name: jsonable(value) for name, value in values.items()}

    def __str__(self) -> str:
        K = self.lags
        radius = float(abs(self.leading_eigenvalues[0]))
        lines = [
            f"Gradient flow: T = {self.steps}, B = {self.batch}, h = {self.size}, {self.dtype},"
            f" spectral radius {side_of_1(radius)}",
            "",
            "    lag   |(W^T)^k e|     of lag 0  aligned        |G_k|      share     so far",
        ]
        relative, read = self._relative_to_lag_0, self._readable_lags
        for k in shown(read):
            aligned = f"{self.alignment[k]:.3f}" if np.isfinite(self.alignment[k]) else "-"
            lines.append(
                f"{k:>7}{power_of_two(self.log2_lag_norms[k]):>14}{ratio(relative[k]):>13}"
                f"{aligned:>9}{self._contribution(self.log2_contributions[k]):>13}"
                f"{share(self.shares[k]):>11}{share(self.cumulative_shares[k]):>11}"
            )
        if read < K:
            lines.append(f"{f'{read} to {K - 1}' if read < K - 1 else f'{read}':>14}  {self._beyond(read)}")
        if self.steps > K:
            rest = f"{self._contribution(self.log2_remainder):>42}{share(self.remainder_share):>11}"
            lines.append(f"{f'from {K} on':>14}{rest}")
        return "\n".join([*lines, "", textwrap.fill(self._summary(), WIDTH)])

    @property
    def _relative_to_lag_0(self) -> Real:
        """``log2`` of what arrives k steps back, as a share of what arrives at lag 0."""
        relative: Real = self.log2_lag_norms - self.log2_lag_norms[0]
        return relative

    @property
    def _readable_lags(self) -> int:
        """Lags up to the last one that is more than rounding of lag 0, or of the gradient."""
        added = self.log2_contributions - self.log2_gradient_norm
        seen = np.flatnonzero(np.fmax(self._relative_to_lag_0, added) >= np.log2(ROUNDING))
        return int(seen[-1]) + 1 if seen.size else 1

    def _contribution(self, exponent: float) -> str:
        """Return what some lags add; what is less than rounding of the gradient is that."""
        if -np.inf < exponent < self.log2_gradient_norm + np.log2(ROUNDING):
            return f"<{ROUNDING:.0e} G"
        return power_of_two(exponent)

    def _beyond(self, lag: int) -> str:
        rest = np.concatenate([self.log2_lag_norms[lag:], self.log2_contributions[lag:]])
        if np.isneginf(rest).all():
            return "nothing arrives"
        return f"below rounding: less than {ROUNDING:.0e} of lag 0 and of G = dL/dW_hh"

    def _summary(self) -> str:
        norms = self._by_step[np.isfinite(self._by_step)]
        parts = [f"||dL/dW_hh|| is {power_of_two(self.log2_gradient_norm)}."]
        if norms.size:
            parts.append(
                f"||dL/dh_t|| lies between {power_of_two(norms.min())} and {power_of_two(norms.max())}."
            )
        horizon = self.horizon()
        if np.isneginf(self.log2_lag_norms[0]):
            parts.append("No loss sends anything back: dL/do is zero, or nothing counts.")
        elif horizon is None:
            parts.append(f"More than 1 % of a gradient arrives at every lag below {self.lags}.")
        else:
            parts.append(f"Less than 1 % of a gradient arrives at lag {horizon}: the memory horizon.")
        for dtype in _RANGES:
            exits = self.range_exits(dtype)
            said = [
                f"{what}s at {kind} {at}"
                for what, kind, at in (
                    ("underflow", "lag", exits.underflow_lag),
                    ("overflow", "lag", exits.overflow_lag),
                    ("underflow", "step", exits.underflow_step),
                    ("overflow", "step", exits.overflow_step),
                )
                if at is not None
            ]
            if said:
                parts.append(f"Going back, {dtype} {', '.join(said)}.")
        if self.missing:
            parts.append(left_out(self.missing))
        return " ".join(parts)

    def plot(self, axes: Any = None) -> Any:
        """Draw gradients by step, by lag, and what each lag adds to dL/dW_hh.

        Parameters
        ----------
        axes : sequence of three matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install 'rnnbptt[plot]'``.
        ValueError
            If `axes` are not three.
        """
        axes = drawing_axes(axes, 3)
        self._plot_steps(axes[0])
        self._plot_lags(axes[1])
        self._plot_shares(axes[2])
        return axes[0].figure

    def _plot_steps(self, axes: Any) -> None:
        t = np.arange(1, self.steps + 1)
        logs = np.where(np.isfinite(self._by_step), self._by_step, np.nan)
        if self.batch == 1:
            axes.plot(t, logs[:, 0], color=BLUE, lw=1, **marks(len(t)))
        elif np.isfinite(logs).any():
            kept = np.isfinite(logs).any(axis=1)
            low, middle, high = np.nanpercentile(logs[kept], [0, 50, 100], axis=1)
            axes.fill_between(t[kept], low, high, color=BLUE, alpha=0.25, lw=0, label="all sequences")
            axes.plot(t[kept], middle, color=BLUE, lw=1, label="median", **marks(len(t)))
            axes.legend(fontsize="small")
        at_least(axes, 1.0)
        whole_numbers(axes)
        finish(
            axes, "time step t", r"log$_2\,\Vert \partial L/\partial h_t \Vert$", "Gradients of the states"
        )

    def _plot_lags(self, axes: Any) -> None:
        k, relative = np.arange(self._readable_lags), self._relative_to_lag_0[: self._readable_lags]
        finite = np.isfinite(relative)
        label = r"$\Vert (W_{hh}^\top)^k e \Vert$ of lag 0"
        axes.plot(k[finite], relative[finite], color=BLUE, label=label, **marks(len(k)))
        radius = float(abs(self.leading_eigenvalues[0]))
        if finite.any() and radius > 0:
            last = k[finite][-1]
            law = relative[last] + (k - last) * np.log2(radius)
            axes.plot(k, law, color=ORANGE, ls="--", label=rf"law $\rho^k$, $\rho$ = {side_of_1(radius)}")
        horizon = self.horizon()
        if horizon is not None:
            axes.axvline(horizon, color=GREY, ls=":", label=f"below 1 % at lag {horizon}")
        at_least(axes, 1.0)
        whole_numbers(axes)
        axes.legend(fontsize="small")
        finish(axes, LAG, "log$_2$ of the norm, lag 0 = 0", "What arrives k steps back")

    def _plot_shares(self, axes: Any) -> None:
        # Up to where nothing is added that an eye could see, and some more.
        seen = np.flatnonzero(~(np.abs(self.shares) < 1e-3 * np.nanmax(np.abs(self.shares), initial=0)))
        last = int(seen[-1]) if seen.size else 0
        k = np.arange(min(self.lags, max(10, last + last // 4 + 1)))
        axes.axhline(1, color=GREY, lw=0.8)
        axes.axhline(0, color=GREY, lw=0.8)
        axes.plot(k, self.shares[: len(k)], color=BLUE, lw=1, label="share of lag k", **marks(len(k)))
        sums = self.cumulative_shares[: len(k)]
        if np.isnan(sums).all():
            axes.text(0.5, 0.5, "the gradient is zero", color=GREY, ha="center", transform=axes.transAxes)
        axes.plot(k, sums, color=ORANGE, ls="--", label="lags up to k", **marks(len(k)))
        if np.nanmax(np.abs(sums), initial=0) > 100:
            axes.set_yscale("symlog", linthresh=1)
        whole_numbers(axes)
        axes.legend(fontsize="small")
        finish(axes, LAG, r"share of $\partial L/\partial W_{hh}$", "What each lag is worth")


def _positive(name: str, value: object) -> float:
    number = _validate.nonnegative(name, value)
    if number == 0:
        raise ValueError(f"{name} must be positive, not 0")
    return number
