"""The errors of truncated gradients, as a table, a picture and a dict."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ... import _validate
from ...engine.floating_point import quiet_class
from ..showing import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    ROUNDING,
    WIDTH,
    drawing_axes,
    finish,
    jsonable,
    left_out,
    marks,
    ratio,
    shown,
)

if TYPE_CHECKING:
    from ..wide_range.scaled import Real

METHODS = ("sliding", "chunked", "randomized")
Method = Literal["sliding", "chunked", "randomized"]
#: Errors of more than this times the gradient are out of a picture: any is too much.
MOST = 1e4


@quiet_class
@dataclass(frozen=True, eq=False, slots=True)
class TruncationReport:
    r"""Errors of truncated gradients by truncation length: see `truncation_report`.

    ``print`` shows a table, `plot` a picture, `choose` picks a length. With G the full gradient by the
    `parameters` taken together and :math:`G^{(\tau)}` the truncated one, the bias is
    :math:`\|G^{(\tau)} - G\| / \|G\|` and the cosine that of the angle between the two. nan marks what does
    not exist: everything where G is zero.

    Attributes
    ----------
    steps, batch : int
        T and B.
    dtype : str
        Of the parameters. All computing is in float64.
    parameters : tuple of str
        The parameters whose gradients look back, and so feel truncation: W_hh, W_hx and, if present, b_h.
    log2_gradient_norm : float
        :math:`\log_2 \|G\|`.
    taus : ndarray of int, shape (K,)
        1 .. K.
    log2_bias : ndarray, shape (K,)
        Base-2 logarithm of the bias of ``Sliding(tau)`` for these; -inf where there is none.
    log2_bias_by_parameter : dict of ndarray, shape (K,)
        The same for each parameter by itself, relative to its own gradient.
    cosine : ndarray, shape (K,)
        Cosine of ``Sliding(tau)``.
    grid : ndarray of int, shape (n,)
        Lengths at which the two other methods are looked at: powers of two and divisors of T, up to K.
    chunked_bias, chunked_cosine : ndarray, shape (n,)
        Of ``Chunked(tau)``. nan where the problem leaves the range of float64.
    randomized_deviation : ndarray, shape (n,)
        Root mean square of :math:`\|\hat G - G\| / \|G\|` over draws of ``Randomized(tau)``, which has no
        bias. nan where nothing was drawn, and at tau = 1.
    draws : int
        How many draws; 0 for none.
    missing : int
        Targets that are NaN, and left out.
    """

    __module__ = "rnnbptt"

    steps: int
    batch: int
    dtype: str
    parameters: tuple[str, ...]
    log2_gradient_norm: float
    taus: NDArray[np.int64]
    log2_bias: Real
    log2_bias_by_parameter: dict[str, Real]
    cosine: Real
    grid: NDArray[np.int64]
    chunked_bias: Real
    chunked_cosine: Real
    randomized_deviation: Real
    draws: int
    missing: int = 0

    @property
    def bias(self) -> Real:
        """The bias of ``Sliding(tau)`` for `taus`; inf and 0 where float64 ends."""
        values: Real = np.exp2(self.log2_bias)
        return values

    def choose(self, tol: float = 0.01, method: Method = "sliding") -> int | None:
        """Return the smallest truncation length whose error stays below `tol` from there on.

        Parameters
        ----------
        tol : float
            Bound of the bias; for ``"randomized"`` of the relative deviation of one draw.
        method : {"sliding", "chunked", "randomized"}
            Of the two last, lengths of `grid` are considered.

        Returns
        -------
        int or None
            A length such that it and all longer ones in the report err by less; ``None`` if there is none,
            which `truncate` takes as the full gradient: ``truncate=None if tau is None else Sliding(tau)``.
        """
        tol = _validate.nonnegative("tol", tol)
        _validate.choice("method", method, METHODS)
        taus, error = {
            "sliding": (self.taus, self.bias),
            "chunked": (self.grid, self.chunked_bias),
            "randomized": (self.grid, self.randomized_deviation),
        }[method]
        over = np.flatnonzero(~(error < tol))
        first = int(over[-1]) + 1 if over.size else 0
        return int(taus[first]) if first < len(taus) else None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and numbers that strict JSON can hold.

        Values that are not finite become the strings ``"inf"``, ``"-inf"`` and ``"nan"``, which ``float()``
        reads.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: jsonable(value) for name, value in values.items()}

    def __str__(self) -> str:
        lines = [
            f"Truncated gradients by {', '.join(self.parameters)}: T = {self.steps}, B = {self.batch},"
            f" {self.dtype}",
            "",
            "              sliding window            detached blocks        random cuts",
            "    tau       bias     cosine          bias     cosine          deviation",
        ]
        # Up to where a window loses more than rounding; beyond, the lengths at which the others are known.
        seen = np.flatnonzero(self.log2_bias >= np.log2(ROUNDING))
        read = int(seen[-1]) + 2 if seen.size else 1
        rows = {int(self.taus[i]) for i in shown(min(read, len(self.taus)))} | set(
            powers_up_to(len(self.taus))
        )
        on_grid = {int(tau): i for i, tau in enumerate(self.grid)}
        for tau in sorted(rows | {len(self.taus)}):
            line = f"{tau:>7}{_loss(self.log2_bias[tau - 1]):>11}{_cosine(self.cosine[tau - 1]):>11}"
            i = on_grid.get(tau)
            if i is not None:
                bias, deviation = np.log2(self.chunked_bias[i]), np.log2(self.randomized_deviation[i])
                line += f"{_loss(bias):>14}"
                line += f"{_cosine(self.chunked_cosine[i]):>11}{_loss(deviation):>19}"
            lines.append(line.rstrip())
        said = []
        for tol in (0.1, 0.01, 0.001):
            chosen, within = self.choose(tol), f"within {100 * tol:g} %"
            said.append(f"{within} from tau = {chosen} on" if chosen else f"not {within} in this report")
        text = f"The gradient of a sliding window is {', '.join(said)}."
        if np.isneginf(self.log2_gradient_norm):
            text = "The gradient is zero: there is nothing to lose."
        elif self.draws:
            text += f" The deviation of a single draw is estimated from {self.draws}."
        if self.missing:
            text += f" {left_out(self.missing)}"
        return "\n".join([*lines, "", textwrap.fill(text, WIDTH)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the error of all methods against the truncation length.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure when absent.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install 'rnnbptt[plot]'``.
        """
        axes = drawing_axes(ax, 1, "ax")[0]
        curves = (
            ("sliding window, bias", self.taus, self.bias, BLUE, "-", ""),
            ("detached blocks, bias", self.grid, self.chunked_bias, ORANGE, "--", "s"),
            ("random cuts, deviation of one draw", self.grid, self.randomized_deviation, GREEN, ":", "^"),
        )
        low, high = np.inf, 0.0
        for label, taus, error, color, style, marker in curves:
            # What is less than rounding is not there, nor is what no picture has room for.
            seen = np.isfinite(error) & (error > 0)
            if seen.any():
                shape = {"marker": marker, "ms": 4} if marker else marks(int(np.sum(seen)))
                axes.plot(taus[seen], error[seen], color=color, ls=style, label=label, **shape)
                low, high = min(low, error[seen].min()), max(high, error[seen].max())
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        if not axes.lines:
            zero = np.isnan(self.log2_bias).all()
            said = "the gradient is zero" if zero else "nothing is lost at any length"
            axes.text(0.5, 0.5, said, color=GREY, ha="center", va="center", transform=axes.transAxes)
            axes.set_yticks([])
        else:
            axes.axhspan(ROUNDING / 10, 0.01, color="0.96", lw=0, zorder=0)
            place = axes.get_yaxis_transform()
            axes.text(0.01, 0.008, "within 1 %", color=GREY, va="top", transform=place, clip_on=True)
            axes.set_ylim(max(low / 2, ROUNDING), min(max(2 * high, 1.2), MOST))
            axes.legend(fontsize="small")
        every = 1 + (len(self.taus).bit_length() - 1) // 12
        lengths = powers_up_to(len(self.taus))[::every]
        axes.set_xticks(lengths, [str(tau) for tau in lengths])
        axes.set_xticks([], minor=True)
        finish(
            axes,
            "truncation length τ (steps)",
            "error, relative to the full gradient",
            "What truncation loses",
        )
        return axes.figure


def _loss(exponent: float) -> str:
    return "" if np.isnan(exponent) else ratio(exponent)


def _cosine(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5f}"


def powers_up_to(K: int) -> list[int]:
    """Return the powers of two up to K."""
    return [2**n for n in range(K.bit_length())]
