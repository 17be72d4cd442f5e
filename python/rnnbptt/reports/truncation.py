"""What truncated backpropagation through time loses on a model and its data, for every truncation length."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import _validate
from ..engine.params import Params
from ..engine.truncation import Chunked, Randomized
from ..gradients.vjp import vjp
from .lag_terms import LagTerms, side_by_side
from .problem import chosen_lags, pose
from .showing import BLUE, GREEN, ORANGE, WIDTH, drawing_axes, finish, jsonable, shown
from .wide_range.scaled import Real, Scaled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ..engine.losses import LossLike
    from .problem import Problem

METHODS = ("sliding", "chunked", "randomized")
Method = Literal["sliding", "chunked", "randomized"]
#: Draws of the randomised gradient where the caller does not say, and steps of all sequences up to which.
_DRAWS, _DRAWN_STEPS = 16, 20_000


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

    @property
    def bias(self) -> Real:
        """The bias of ``Sliding(tau)`` for `taus`; inf and 0 where float64 ends."""
        with np.errstate(over="ignore", under="ignore"):
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
            A length such that it and all longer ones in the report err by less; ``None`` if there is none.
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
        rows = sorted({int(self.taus[i]) for i in shown(len(self.taus))} | set(_powers(len(self.taus))))
        on_grid = {int(tau): i for i, tau in enumerate(self.grid)}
        for tau in rows:
            line = f"{tau:>7}{_number(self.bias[tau - 1]):>11}{self.cosine[tau - 1]:>11.5f}"
            i = on_grid.get(tau)
            if i is not None:
                line += f"{_number(self.chunked_bias[i]):>14}"
                line += (
                    f"{self.chunked_cosine[i]:>11.5f}" if np.isfinite(self.chunked_cosine[i]) else " " * 11
                )
                line += f"{_number(self.randomized_deviation[i]):>19}"
            lines.append(line.rstrip())
        said = []
        for tol in (0.1, 0.01, 0.001):
            chosen, within = self.choose(tol), f"within {100 * tol:g} %"
            said.append(f"{within} from tau = {chosen} on" if chosen else f"not {within} in this report")
        text = f"The gradient of a sliding window is {', '.join(said)}."
        if self.draws:
            text += f" The deviation of a single draw is estimated from {self.draws}."
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
        axes = drawing_axes(ax, 1)[0]
        curves = (
            ("sliding window, bias", self.taus, self.bias, BLUE, "-", ""),
            ("detached blocks, bias", self.grid, self.chunked_bias, ORANGE, "--", "s"),
            ("random cuts, deviation of one draw", self.grid, self.randomized_deviation, GREEN, ":", "^"),
        )
        for label, taus, error, color, style, marker in curves:
            seen = np.isfinite(error) & (error > 0)
            if seen.any():
                axes.plot(taus[seen], error[seen], color=color, ls=style, marker=marker, ms=4, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        if axes.lines:
            axes.legend(fontsize="small")
        finish(
            axes,
            "truncation length τ (steps)",
            "error, relative to the full gradient",
            "What truncation loses",
        )
        return axes.figure


def truncation_report(
    params: Params,
    x: ArrayLike,
    y: Any,
    *,
    loss: LossLike = "mse",
    h0: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    batch_first: bool = False,
    lags: int | None = None,
    draws: int | None = None,
    rng: np.random.Generator | int | None = 0,
    num_threads: int | None = None,
) -> TruncationReport:
    r"""Tell what truncated backpropagation through time loses, for every truncation length at once.

    A window of tau steps keeps the contributions of the lags below tau, and so the tails of one sum are the
    biases of all windows:

    .. math::

        G = \sum_{k \ge 0} G_k, \qquad G^{(\tau)} = \sum_{k < \tau} G_k, \qquad
        G^{(\tau)} - G = -\sum_{k \ge \tau} G_k ,

    with :math:`G_k = (W_{hh}^\top)^k W_{qh}^\top \sum_t \frac{\partial L}{\partial o_{t+k}}\, [h_{t-1}^\top,
    x_t^\top, 1]` for ``W_hh``, ``W_hx`` and ``b_h`` together. Tails are summed from their end: small ones
    have no digits cancelled. Detached blocks and random cuts are evaluated one by one, on a grid of lengths.

    Parameters
    ----------
    params : Params
        Weights. float32 ones are widened: all computing is in float64.
    x, y, loss, h0, weights, lengths, mask, batch_first
        As for `Objective`, but finite. A `loss` that is a function needs outputs within the range of float64.
    lags : int, optional
        K, the longest window to look at, up to T: 1000 or T when absent.
    draws : int, optional
        Draws of the randomised gradient for every length of the grid, each at the price of a gradient step by
        step; 0 for none. When absent, 16 where T B is at most 20,000, else none.
    rng : numpy.random.Generator or int, optional
        Source of randomness for `draws`, or its seed; ``None`` for a new one in every call.
    num_threads : int, optional
        Threads to use; `get_num_threads` when absent.

    Returns
    -------
    TruncationReport

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit; the message names it.

    See Also
    --------
    Sliding, Chunked, Randomized : the truncations themselves, for `loss_and_grad`.
    gradient_flow : what each lag adds.

    Notes
    -----
    All sliding windows together cost about what `gradient_flow` does. Every length of the grid costs one
    gradient with detached blocks, and `draws` more.

    Examples
    --------
    >>> import numpy as np, rnnbptt
    >>> params = rnnbptt.Params(W_hx=[[1.0]], W_hh=[[0.5]], W_qh=[[1.0]])
    >>> report = rnnbptt.truncation_report(params, np.ones((50, 1)), np.zeros((50, 1)))
    >>> report.choose(0.01), report.choose(0.01, "chunked")
    (7, 50)
    """
    threads = _validate.num_threads(num_threads)
    if draws is not None:
        draws = _validate.integer("draws", draws, 0)
    generator = _validate.generator("rng", rng)
    with np.errstate(all="ignore"):
        data = pose(
            params,
            x,
            y,
            loss=loss,
            h0=h0,
            weights=weights,
            lengths=lengths,
            mask=mask,
            batch_first=batch_first,
            threads=threads,
        )
        T, B, _ = data.inputs.shape
        K = chosen_lags(lags, data)
        if draws is None:
            draws = _DRAWS if T * B <= _DRAWN_STEPS else 0
        terms = LagTerms(data, K, threads)
        total = terms.total()
        columns = _columns(data)
        tails, kept = _norms(terms, columns, total)
        whole = {name: float(_part(total, part).log2_norms()) for name, part in columns.items()}
        grid = _grid(T, K)
        chunked_bias, chunked_cosine, deviation = _on_grid(
            data, terms, total, grid, draws, generator, threads
        )
        return TruncationReport(
            steps=T,
            batch=B,
            dtype=str(params.dtype),
            parameters=tuple(name for name in columns if name != "all"),
            log2_gradient_norm=whole["all"],
            taus=np.arange(1, K + 1),
            log2_bias=tails["all"] - whole["all"],
            log2_bias_by_parameter={n: tails[n] - whole[n] for n in columns if n != "all"},
            cosine=kept,
            grid=grid,
            chunked_bias=chunked_bias,
            chunked_cosine=chunked_cosine,
            randomized_deviation=deviation,
            draws=draws,
        )


def _columns(data: Problem) -> dict[str, slice]:
    """Return which columns of the contributions belong to which parameter."""
    d, h, _ = data.params.shape
    columns = {"all": slice(None), "W_hh": slice(h), "W_hx": slice(h, h + d)}
    if data.params.b_h is not None:
        columns["b_h"] = slice(h + d, h + d + 1)
    return columns


def _part(rows: Scaled, columns: slice) -> Scaled:
    return Scaled(rows.mantissa[..., columns], rows.exponent)


def _norms(terms: LagTerms, columns: dict[str, slice], total: Scaled) -> tuple[dict[str, Real], Real]:
    """Return log2 norms of the tails that each length leaves out, and cosines of what it keeps."""
    tails: dict[str, Real] = {name: np.empty(terms.lags) for name in columns}
    for first, sums in terms.sums_from():
        for name, part in columns.items():
            logs = _part(sums, part).log2_norms()
            low = max(first - 1, 0)  # the tail from lag k on is what tau = k leaves out
            tails[name][low : first - 1 + len(logs)] = logs[low - (first - 1) :]
    for name, part in columns.items():
        tails[name][-1] = float(_part(terms.rest, part).log2_norms())
    cosine = np.empty(terms.lags)
    unit = total.mantissa.ravel() / np.linalg.norm(total.mantissa)
    for first, sums in terms.sums_up_to():
        rows = Scaled(sums.mantissa.reshape(len(sums.exponent), -1), sums.exponent)
        normal = rows.mantissa / np.abs(rows.mantissa).max(axis=1, keepdims=True)
        cosine[first : first + len(normal)] = (normal @ unit) / np.sqrt(np.einsum("ki,ki->k", normal, normal))
    return tails, np.clip(cosine, -1, 1)


def _powers(K: int) -> list[int]:
    return [2**n for n in range(K.bit_length())]


def _grid(T: int, K: int) -> NDArray[np.int64]:
    """Return the powers of two and the divisors of T, up to K."""
    up_to = np.arange(1, K + 1)
    return np.union1d(_powers(K), up_to[T % up_to == 0]).astype(np.int64)


def _on_grid(
    data: Problem,
    terms: LagTerms,
    total: Scaled,
    grid: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
    threads: int,
) -> tuple[Real, Real, Real]:
    """Return bias and cosine of detached blocks, and the relative deviation of randomised gradients."""
    bias, cosine, deviation = (np.full(len(grid), np.nan) for _ in range(3))
    if not (data.raw and data.adjoint.raw and data.d_o.raw):
        return bias, cosine, deviation
    d = data.params.shape[0]
    params = Params(data.params.W_hx, data.params.W_hh, data.params.W_qh, data.params.b_h)
    G = total.at(np.zeros_like(total.exponent)).ravel()
    size = np.linalg.norm(G)

    def truncated(truncate: Chunked | Randomized) -> Real:
        g = vjp(
            params,
            data.inputs[..., :d],
            data.d_o.mantissa,
            data.start,
            truncate=truncate,
            num_threads=threads or None,
        )
        return side_by_side(g).ravel()

    for i, tau in enumerate(grid.tolist()):
        blocks = truncated(Chunked(tau))
        bias[i] = np.linalg.norm(blocks - G) / size
        cosine[i] = np.clip(blocks @ G / (np.linalg.norm(blocks) * size), -1, 1)
        if draws and tau > 1:
            errors = [truncated(Randomized(tau, rng=rng)) - G for _ in range(draws)]
            deviation[i] = np.sqrt(np.mean(np.square(errors).sum(axis=1))) / size
    return bias, cosine, deviation


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "" if np.isnan(value) else str(float(value))
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.2e}"
