"""What a recurrent matrix does to gradients in the long run, and on the way there."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core, _validate
from .powers import power_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from ._validate import FloatArray

Real = NDArray[np.float64]
Growth = Literal["nilpotent", "decaying", "bounded", "polynomial", "growing", "undecided"]

_WIDTH = 78
_EIGENVALUES_PRINTED = 10
#: Powers of two up to which powers are followed with their rounding errors.
_OCTAVES = 40
#: Points of the curve of norms that a report holds.
_CURVE = 40
#: Lags up to which every power is looked at for the largest; beyond, a search.
_DENSE = 32
#: A relative departure from normality below this leaves no trace in norms.
_NORMAL = 1e-6
_EPS = float(np.finfo(np.float64).eps)


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
        return _exp2(self.log2_transient_growth)

    @property
    def singular_value_verdict(self) -> str:
        """What the largest singular value says by itself (Pascanu, Mikolov and Bengio 2013)."""
        excess = self.largest_singular_value - 1
        if abs(excess) <= _rounding(self.size, self.dtype):
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
        values["eigenvalues"] = [[z.real, z.imag] for z in self.eigenvalues]
        values["transient_growth"] = self.transient_growth
        values["spectral_radius_verdict"] = self.spectral_radius_verdict
        values["singular_value_verdict"] = self.singular_value_verdict
        return {name: _jsonable(value) for name, value in values.items()}

    def __str__(self) -> str:
        low, high = self.spectral_radius_bounds
        growth = "unbounded" if self.transient_lag is None else _power_of_two(self.log2_transient_growth)
        where = "" if self.transient_lag is None else f"at lag {self.transient_lag}"
        rows = [
            ("spectral radius", _number(self.spectral_radius), self.spectral_radius_verdict),
            ("", "", f"surely in [{low:.6g}, {high:.6g}]"),
            ("largest singular value", _number(self.largest_singular_value), self.singular_value_verdict),
            ("growth rate, from powers", _number(self.growth_rate), "no eigenvalue used"),
            ("transient growth", growth, where),
            ("Kreiss constant, at least", _number(self.kreiss_lower_bound), ""),
            ("departure from normality", _number(self.departure_from_normality), "Henrici; 0 is normal"),
            ("eigenvector condition", _number(self.eigenvector_condition), "1 is normal"),
            ("stability distance", _number(self.stability_distance), "least change to reach |lambda| = 1"),
        ]
        lines = [f"W_hh, {self.size} x {self.size}, {self.dtype}: powers {self.growth}", ""]
        lines += [f"{name:25}{value:>9}  {note}".rstrip() for name, value, note in rows]
        lines += ["", "   |lambda|   arg / pi   steps to 1/e     period   1 - |lambda|"]
        shown = min(self.size, _EIGENVALUES_PRINTED)
        for i in range(shown):
            z = self.eigenvalues[i]
            time = self.decay_times[i]
            decay = f"e in {_number(-time)}" if time < 0 else _number(time)
            lines.append(
                f"{_number(abs(z)):>11}{np.angle(z) / np.pi:11.4f}{decay:>15}"
                f"{_number(self.periods[i]):>11}{_number(self.unit_circle_distances[i]):>15}"
            )
        if shown < self.size:
            lines.append(f"    ... and {self.size - shown} smaller eigenvalues")
        return "\n".join([*lines, "", textwrap.fill(self.verdict, _WIDTH)])

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
        try:
            import matplotlib.figure
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install 'rnnbptt[plot]'") from error
        if axes is None:
            figure = matplotlib.figure.Figure(figsize=(10, 4.4), layout="constrained")
            axes = figure.subplots(1, 2)
        if len(axes) != 2:
            raise ValueError(f"axes must be two matplotlib Axes, not {len(axes)}")
        self._plot_eigenvalues(axes[0])
        self._plot_norms(axes[1])
        return axes[0].figure

    def _plot_eigenvalues(self, axes: Any) -> None:
        turn = np.linspace(0, 2 * np.pi, 361)
        axes.plot(np.cos(turn), np.sin(turn), color="0.4", linewidth=1, label="unit circle")
        inside = np.abs(self.eigenvalues) <= 1 + _rounding(self.size, self.dtype)
        for some, color, marker, label in (
            (inside, "#0072B2", "o", "|λ| ≤ 1"),
            (~inside, "#D55E00", "^", "|λ| > 1: grows"),
        ):
            if some.any():
                z = self.eigenvalues[some]
                axes.scatter(
                    z.real, z.imag, s=36, color=color, marker=marker, alpha=0.8, label=label, zorder=3
                )
        reach = 1.08 * max(1.0, float(np.abs(self.eigenvalues).max()))
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set(xlabel="real part of λ", ylabel="imaginary part of λ", title="Eigenvalues of W_hh")
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(loc="upper left", fontsize="small")

    def _plot_norms(self, axes: Any) -> None:
        finite = np.isfinite(self.log2_norms)
        lags, norms = self.lags[finite], self.log2_norms[finite]
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.plot(lags, norms, color="#0072B2", marker=".", label="‖W_hh$^k$‖, worst case")
        if self.growth == "nilpotent":
            axes.axvline(self.nilpotency_index, color="#D55E00", linestyle="--", label="zero from here on")
        else:
            at_one = self.growth in ("bounded", "polynomial")
            slope = 0.0 if at_one else math.log2(self.spectral_radius)
            meaning = "uncertain" if self.growth == "undecided" else "the long run"
            label = rf"$\rho^k$, $\rho$ = {self.spectral_radius:.4g}: {meaning}"
            axes.plot(self.lags, slope * self.lags, color="#D55E00", linestyle="--", label=label)
        if self.transient_lag is not None and self.log2_transient_growth > 0.01:
            label = f"largest: {_power_of_two(self.log2_transient_growth)} at k = {self.transient_lag}"
            axes.plot(
                [self.transient_lag], [self.log2_transient_growth], "D", color="#000000", ms=6, label=label
            )
        low, high = axes.get_ylim()
        if high - low < 1:  # rounding is not to fill the picture
            axes.set_ylim(min(low, -1), max(high, 1))
        axes.set(
            xlabel="lag k (steps back in time)",
            ylabel="log$_2$ of the norm",
            title="How far powers stretch a gradient",
        )
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.legend(fontsize="small")


def spectral_report(W_hh: ArrayLike, *, num_threads: int | None = None) -> SpectralReport:
    r"""Tell whether, how fast and by which detour gradients through ``W_hh`` vanish or explode.

    Eigenvalues decide the long run, singular values one step, and neither what happens in between: for
    a matrix that is not normal, norms of powers can grow over many steps before they decay,

    .. math::

        \rho(W)^k \;\le\; \|W^k\|_2 \;\le\; \|W\|_2^k, \qquad
        K \;\le\; \max_k \|W^k\|_2 \;\le\; e\,h\,K, \qquad
        K = \sup_{|z|>1} (|z|-1)\, \|(zI - W)^{-1}\|_2 .

    Computed eigenvalues do not decide alone either: rounding by eps moves those of an m-fold defective one
    by ``eps ** (1/m)``. They are believed where no matrix within rounding of ``W_hh`` has an eigenvalue on
    the unit circle. Elsewhere `power_norms` of high powers decide, as far as their own rounding allows;
    beyond that the report says that it cannot tell. An eigenvalue that stands alone on the diagonal, as in
    triangular matrices, is exact.

    Parameters
    ----------
    W_hh : array_like, shape (h, h)
        Hidden-to-hidden weights, float32 or float64. All computing is in float64.
    num_threads : int, optional
        Threads to use for powers; `get_num_threads` when absent.

    Returns
    -------
    SpectralReport

    Raises
    ------
    TypeError, ValueError
        If ``W_hh`` is not a square matrix of finite real numbers.

    Notes
    -----
    Largest norm: every lag up to 32, then four lags per octave up to a power of two m with ``||W^m|| <= 1``
    (later norms cannot exceed the largest before m), then closer and closer around the largest; a narrow
    peak between lags beyond 32 can be missed.

    Kreiss constant: the supremum is searched over arguments of eigenvalues and a grid, at ``|z| - 1`` near
    1/k for the k of the largest norm, then refined by a pattern search. Every point is a lower bound, and so
    is the result.

    The cost is that of some 200 inversions of a complex h x h matrix and up to 100 decompositions: some 30 ms
    at h = 32, seconds at h = 256.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
       ICML 2013.
    .. [2] L. N. Trefethen, M. Embree, *Spectra and Pseudospectra*, Princeton 2005, chapters 16 and 18.
    .. [3] P. Henrici, "Bounds for iterates, inverses, spectral variation and fields of values of
       non-normal matrices", Numer. Math. 4 (1962).

    Examples
    --------
    >>> import rnnbptt
    >>> report = rnnbptt.spectral_report([[0.5, 100.0], [0.0, 0.5]])
    >>> report.growth, report.spectral_radius, report.transient_lag, round(report.transient_growth)
    ('decaying', 0.5, 1, 100)
    """
    given = _validate.square("W_hh", W_hh)
    _validate.num_threads(num_threads)
    if not np.isfinite(given).all():
        row, column = np.argwhere(~np.isfinite(given))[0]
        raise ValueError(f"W_hh must be finite, not {given[row, column]} at [{row}, {column}]")
    W = given.astype(np.float64)
    h, dtype = len(W), str(given.dtype)
    tolerance = _rounding(h, dtype)
    largest_singular_value = float(np.linalg.norm(W, 2))

    index = _nilpotency_index(W, num_threads)
    whole = _rate_of_powers(W, num_threads)
    parts = [_part(W[np.ix_(block, block)], dtype, whole, h, num_threads) for block in _diagonal_blocks(W)]
    eigenvalues = np.concatenate([part.eigenvalues for part in parts])
    if index is not None:
        eigenvalues = np.zeros(h, np.complex128)
    scale = 2.0 ** (math.frexp(float(np.abs(W).max()))[1] - 1) if W.any() else 1.0
    # Part by part: a division of complex numbers overflows on the way.
    scaled = (eigenvalues.view(np.float64) / scale).view(np.complex128)
    order = np.lexsort((-scaled.imag, -scaled.real, -np.abs(scaled).round(14)))
    eigenvalues = eigenvalues[order]
    radius = 0.0 if index is not None else max(part.radius for part in parts)
    bounds = tuple(0.0 if index is not None else max(part.bounds[i] for part in parts) for i in (0, 1))

    departure = _departure_from_normality(W / scale, scaled)
    normal = departure <= _NORMAL * float(np.linalg.norm(W / scale))
    condition = 1.0 if normal else _eigenvector_condition(W)

    degree = None
    if index is not None:
        growth: Growth = "nilpotent"
    elif any(part.side > 0 for part in parts):
        growth = "growing"
    elif all(part.side < 0 for part in parts):
        growth = "decaying"
    else:
        on_circle = [part for part in parts if part.side == 0]
        triangular = all(len(part.eigenvalues) == 1 for part in on_circle)
        growth, degree = _growth_at_one(W, whole, normal, condition, triangular, dtype, num_threads)

    if growth == "polynomial":
        radius = min(max(1.0, bounds[0]), bounds[1])
    # A triangular structure survives rounding of the powers, however large they become.
    exact = index is not None or all(len(part.eigenvalues) == 1 for part in parts)
    rate, horizon = whole.rate, 2**whole.trusted
    if exact or whole.trusted == _OCTAVES:
        horizon = 2**61
        tops = power_norms(W, 2 ** np.arange(62), "fro", num_threads=num_threads)
    else:
        tops = whole.tops
    if exact and index is None:
        rate = _exp2(float(tops[31] - tops[30]) / 2**30)

    peak, peak_lag, contraction = math.inf, None, None
    if normal and growth in ("decaying", "bounded", "nilpotent"):
        peak, peak_lag, contraction = 0.0, 0, 0
    elif growth not in ("growing", "polynomial"):
        if growth == "bounded":
            last = 2 ** min(whole.trusted, _octaves_at_one(h, dtype))
        else:
            last = 2 ** int(np.argmax(tops <= 0)) if (tops <= 0).any() else horizon
        peak, peak_lag = _transient(W, last, tolerance, num_threads)
        # ||W^(m+j)|| <= ||W^m|| max_j ||W^j||
        small = tops + peak <= 0
        if peak == 0:
            contraction = 0
        elif growth != "bounded" and small.any():
            contraction = 2 ** int(np.argmax(small))
    kreiss = math.inf
    if peak_lag is not None:
        kreiss = _kreiss(W, eigenvalues, peak_lag)
        # No larger than the largest norm, but for rounding where W is all but singular to invert.
        if contraction is not None:
            kreiss = min(kreiss, max(1.0, _exp2(peak)))

    with np.errstate(divide="ignore"):
        moduli = np.abs(eigenvalues)
        logs = np.log(moduli)
        decay_times = np.where(np.abs(logs) <= tolerance, np.inf, -1 / logs) + 0.0
        periods = 2 * np.pi / np.abs(np.angle(eigenvalues))
    reach = max(4 * (peak_lag or 0), _reach(growth, index, decay_times))
    reach = min(max(reach, min(contraction or 0, 16 * (peak_lag or 0))), horizon)
    step = 2 ** max(0, math.ceil(math.log2(reach / _CURVE)))
    curve = np.arange(0, reach + 1, step)
    report = SpectralReport(
        size=h,
        dtype=dtype,
        growth=growth,
        verdict="",
        spectral_radius=radius,
        spectral_radius_bounds=(bounds[0], bounds[1]),
        largest_singular_value=largest_singular_value,
        growth_rate=0.0 if index is not None else rate,
        growth_degree=degree,
        nilpotency_index=index,
        log2_transient_growth=peak,
        transient_lag=peak_lag,
        contraction_lag=contraction,
        kreiss_lower_bound=kreiss,
        departure_from_normality=departure * scale,
        eigenvector_condition=condition,
        stability_distance=_stability_distance(W, eigenvalues),
        eigenvalues=eigenvalues,
        decay_times=decay_times,
        periods=periods,
        unit_circle_distances=1 - moduli,
        lags=curve,
        log2_norms=power_norms(W, curve, num_threads=num_threads),
    )
    return replace(report, verdict=_in_words(report, normal))


# --- the long run -------------------------------------------------------------------------------------------


def _rounding(h: int, dtype: str) -> float:
    """Return the relative size of differences that rounding of an (h, h) matrix explains."""
    return 4 * h * float(np.finfo(dtype).eps)


def _octaves_at_one(h: int, dtype: str) -> int:
    """Return how many octaves of lags a radius that is 1 only to rounding stays as good as 1."""
    return min(_OCTAVES, max(4, int(math.log2(0.01 / _rounding(h, dtype)))))


class _Rate(NamedTuple):
    """What powers at k = 1, 2, 4, ... tell about the spectral radius."""

    bounds: tuple[float, float]
    rate: float
    #: The octave up to which norms are right to 2^-10.
    trusted: int
    #: Certain upper bounds of log2 norms, octave by octave; all norms here are Frobenius'.
    tops: Real


def _rate_of_powers(W: FloatArray, num_threads: int | None) -> _Rate:
    r"""Bound the spectral radius by :math:`|\mathrm{tr} W^k| / h \le \rho^k \le \|W^k\|`, k = 2^j.

    Powers are believed as far as they do not depend on digits far behind the last one of W: an error of
    2^-70 h |P|^2 in each square is followed, where squaring P + E leaves 2 |P| |E| + |E|^2. `power_norms`
    itself computes with more digits than that where it takes more.
    """
    h = len(W)
    ks = 2 ** np.arange(_OCTAVES + 1, dtype=np.int64)
    mantissas, scales = np.empty((len(ks), h, h)), np.empty(len(ks))
    _core.scaled_powers(h, W, ks, mantissas, scales, _validate.num_threads(num_threads))
    with np.errstate(divide="ignore"):
        norms = np.log2(np.linalg.norm(mantissas, "fro", axis=(1, 2))) + scales
        traces = np.log2(np.abs(np.trace(mantissas, axis1=1, axis2=2))) + scales
    low, high, trusted, error = -math.inf, math.inf, 0, -math.inf
    tops = np.full(len(ks), np.inf)
    for j, (norm, trace) in enumerate(zip(norms, traces, strict=True)):
        if norm == -math.inf:
            break
        k = 2.0**j
        tops[j] = np.logaddexp2(norm, error)
        high = min(high, float(tops[j]) / k)
        # |tr E| <= h |E|; a trace of less than twice that says nothing.
        if trace > math.log2(2 * h) + error:
            certain = trace + math.log2(-math.expm1((error + math.log2(h) - trace) * math.log(2)))
            low = max(low, (certain - math.log2(h)) / k)
        if error <= norm - 10:
            trusted = j
        fresh = math.log2(h) - 70 + 2 * float(tops[j])
        error = float(np.logaddexp2(np.logaddexp2(1 + norm + error, 2 * error), fresh))
        if not error < 2**60:
            break
    rate = norms[0] if trusted == 0 else (norms[trusted] - norms[trusted - 1]) / 2.0 ** (trusted - 1)
    low, high = _exp2(low) * (1 - 4 * _EPS), _exp2(high) * (1 + 4 * _EPS)
    return _Rate((low, high), _exp2(float(rate)), trusted, tops)


class _Part(NamedTuple):
    """Eigenvalues of one irreducible diagonal block: outside (1), inside (-1) or at (0) the unit circle."""

    eigenvalues: NDArray[np.complex128]
    radius: float
    bounds: tuple[float, float]
    side: int


def _part(block: FloatArray, dtype: str, whole: _Rate, h: int, num_threads: int | None) -> _Part:
    tolerance = _rounding(h, dtype)

    def side_of(radius: float) -> int:
        return 0 if abs(radius - 1) <= tolerance else 1 if radius > 1 else -1

    if len(block) == 1:
        radius = abs(float(block[0, 0]))
        return _Part(block[0].astype(np.complex128), radius, (radius, radius), side_of(radius))
    eigenvalues = np.linalg.eigvals(block).astype(np.complex128)
    low, high = (whole if len(block) == h else _rate_of_powers(block, num_threads)).bounds
    radius = min(max(float(np.abs(eigenvalues).max()), low), high)
    if high < 1 - tolerance or low > 1 + tolerance:
        return _Part(eigenvalues, radius, (low, high), -1 if high < 1 else 1)
    # No matrix within rounding has an eigenvalue on the circle: none was moved across it.
    rounding = tolerance * float(np.linalg.norm(block, 2))
    side = side_of(radius) if _stability_distance(block, eigenvalues) > rounding else 0
    if side < 0:
        high = min(high, 1.0)
    elif side > 0:
        low = max(low, 1.0)
    return _Part(eigenvalues, radius, (low, high), side)


def _diagonal_blocks(W: FloatArray) -> list[NDArray[np.intp]]:
    """Return the strongly connected components of the graph of nonzeros: W is block triangular in them."""
    reachable = (W != 0) | np.eye(len(W), dtype=bool)
    count = -1
    while count != (count := int(np.count_nonzero(reachable))):
        # Sums of at most h ones: exact in float32.
        reachable = (reachable.astype(np.float32) @ reachable.astype(np.float32)) > 0
    together = reachable & reachable.T
    representatives = together.argmax(axis=1)
    return [np.flatnonzero(representatives == first) for first in np.unique(representatives)]


def _nilpotency_index(W: FloatArray, num_threads: int | None) -> int | None:
    h = len(W)
    if power_norms(W, h, "fro", num_threads=num_threads) > -np.inf:
        return None
    norms = power_norms(W, np.arange(h + 1), "fro", num_threads=num_threads)
    return int(np.argmax(norms == -np.inf))


def _growth_at_one(
    W: FloatArray,
    whole: _Rate,
    normal: bool,
    condition: float,
    exact: bool,
    dtype: str,
    num_threads: int | None,
) -> tuple[Growth, float | None]:
    """Tell bounded from polynomial growth where the spectral radius is 1 to rounding."""
    # Defective matrices have condition numbers beyond 1 / sqrt(eps), and only these grow.
    if normal or condition < 0.1 / math.sqrt(float(np.finfo(dtype).eps)):
        return "bounded", None
    # A triangular structure survives rounding of the powers, however large they become.
    last = 30 if exact else min(whole.trusted, _octaves_at_one(len(W), dtype))
    if last < 4:
        return "undecided", None
    ks = np.unique(np.round(2.0 ** np.arange(0, last + 0.01, 0.25)).astype(np.int64))
    norms = power_norms(W, ks, "fro", num_threads=num_threads)
    octave = np.floor(np.log2(ks)).astype(int)
    tops = np.array([norms[octave == j].max() for j in range(last)])
    first = last // 2
    degrees = np.diff(tops[first:])
    degree = float(degrees.mean())
    if degree < 0.5:
        return "bounded", None
    # Exponential growth or decay under way shows as slopes that change from octave to octave.
    if not exact and np.ptp(degrees) > max(0.75, 0.25 * degree):
        return "undecided", None
    return "polynomial", float(degrees[-1])


# --- the way there ------------------------------------------------------------------------------------------


def _transient(W: FloatArray, last: int, tolerance: float, num_threads: int | None) -> tuple[float, int]:
    """Return log2 of the largest norm up to lag `last`, and its lag."""

    def norms(ks: NDArray[np.int64]) -> Real:
        return power_norms(W, ks, num_threads=num_threads)

    ks = np.unique(np.round(2.0 ** np.arange(0, math.log2(last) + 0.01, 0.25)).astype(np.int64))
    ks = np.union1d(np.arange(min(last, _DENSE) + 1), ks)
    # Singular values are dear, so only where the Frobenius norm, which is larger, leaves a chance.
    above = power_norms(W, ks, "fro", num_threads=num_threads)
    best, peak = 0, 0.0  # lag 0
    for some in np.array_split(np.argsort(-above, kind="stable"), math.ceil(len(ks) / 8)):
        chance = some[above[some] > peak]
        if chance.size == 0:
            break
        found = norms(ks[chance])
        if found.max() > peak:
            best, peak = int(chance[found.argmax()]), float(found.max())
    lag = int(ks[best])
    low, high = int(ks[max(best - 1, 0)]), int(ks[min(best + 1, len(ks) - 1)])
    while high - low > 2:
        near = np.unique(np.round(np.linspace(low, high, 10)).astype(np.int64))
        found = norms(near)
        best = int(found.argmax())
        if found[best] > peak:
            peak, lag = float(found[best]), int(near[best])
        closer = int(near[max(best - 1, 0)]), int(near[min(best + 1, len(near) - 1)])
        if closer == (low, high):
            break
        low, high = closer
    if peak <= tolerance:  # rounding of 1
        peak, lag = 0.0, 0
    return peak, lag


def _resolvent_norm(W: FloatArray, z: complex) -> float:
    """Return ||(z I - W)^-1||_2, from below: by the power method, which needs few steps near a pole."""
    try:
        inverse = np.linalg.inv(z * np.eye(len(W)) - W)
    except np.linalg.LinAlgError:
        return math.inf
    scale = float(np.abs(inverse).max())
    if not 0 < scale < math.inf:
        return math.inf
    inverse = inverse / scale
    v = inverse[:, np.linalg.norm(inverse, axis=0).argmax()]
    for _ in range(6):
        w = inverse.conj().T @ (v / np.linalg.norm(v))
        v = inverse @ (w / np.linalg.norm(w))
    return float(np.linalg.norm(v)) * scale


def _angles(eigenvalues: NDArray[np.complex128], distance: Real, grid: int) -> Real:
    """Return arguments of a dozen eigenvalues and of a grid: the upper half, for W is real."""
    chosen = eigenvalues[np.argsort(distance, kind="stable")[:24]]
    near = np.unique(np.abs(np.angle(chosen)).round(12))[:12]
    return np.union1d(near, np.linspace(0, np.pi, grid))


def _search(f: Callable[[Real], float], points: list[Real], steps: Real, rounds: int) -> float:
    """Return the largest f over `points`, then over a pattern that closes in around the best."""
    values = [f(point) for point in points]
    best, where = max(values), points[int(np.argmax(values))]
    for _ in range(rounds):
        if not math.isfinite(best):
            break
        moved = False
        for axis, sign in ((axis, sign) for axis in range(len(steps)) for sign in (1, -1)):
            trial = where.copy()
            trial[axis] += sign * steps[axis]
            if (value := f(trial)) > best:
                best, where, moved = value, trial, True
        if not moved:
            steps = steps / 3
    return best


def _stability_distance(W: FloatArray, eigenvalues: NDArray[np.complex128]) -> float:
    angles = _angles(eigenvalues, np.abs(np.abs(eigenvalues) - 1), 16)
    points = [np.array([angle]) for angle in angles]
    norm = _search(lambda p: _resolvent_norm(W, np.exp(1j * p[0])), points, np.array([0.1]), 15)
    return 1 / norm


def _kreiss(W: FloatArray, eigenvalues: NDArray[np.complex128], peak_lag: int) -> float:
    """Return a lower bound of sup (|z| - 1) ||(z I - W)^-1||, at least its limit 1 at infinity."""

    def f(p: Real) -> float:
        excess = math.exp(min(p[1], 700.0))
        return excess * _resolvent_norm(W, (1 + excess) * np.exp(1j * p[0]))

    angles = _angles(eigenvalues, -np.abs(eigenvalues), 8)
    around = -math.log(max(peak_lag, 1))
    points = [np.array([angle, around + shift]) for angle in angles for shift in (-1.5, 0.0, 1.5)]
    return max(1.0, _search(f, points, np.array([0.1, 0.7]), 16))


def _departure_from_normality(W: FloatArray, eigenvalues: NDArray[np.complex128]) -> float:
    total = float(np.sum(W * W))
    difference = total - float(np.sum(np.abs(eigenvalues) ** 2))
    return math.sqrt(difference) if difference > 16 * len(W) * _EPS * total else 0.0


def _eigenvector_condition(W: FloatArray) -> float:
    vectors = np.linalg.eig(W).eigenvectors
    singular = np.linalg.svd(vectors, compute_uv=False)
    return float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf


# --- words and numbers --------------------------------------------------------------------------------------


def _in_words(report: SpectralReport, normal: bool) -> str:
    """Return the verdict: the long run first, then the way there."""
    rho, sigma = _number(report.spectral_radius), _number(report.largest_singular_value)
    peak, lag = _power_of_two(report.log2_transient_growth), report.transient_lag
    eigenvalue_rule = "all there is to it, for W_hh is normal"
    if report.growth == "nilpotent":
        said = [
            "Gradients vanish altogether: W_hh is nilpotent, and nothing reaches back "
            f"{_steps(report.nilpotency_index or 0)} or more."
        ]
    elif report.growth == "decaying":
        said = [
            f"Gradients vanish in the long run: the spectral radius {rho} is below 1, and they end up "
            f"shrinking by it at every step back in time, to 1/e in {_steps(float(report.decay_times[0]))}."
        ]
        if normal:
            said.append(f"That is {eigenvalue_rule}: no gradient grows on the way.")
    elif report.growth == "growing":
        outside = int(np.sum(report.unit_circle_distances < 0))
        said = [
            f"Gradients explode: the spectral radius {rho} is above 1, and the norm of W_hh^k ends up "
            f"growing by it at every step, by e in {_steps(-float(report.decay_times[0]))}. Of {report.size} "
            f"eigenvalues, {outside} lie{'s' if outside == 1 else ''} outside the unit circle; a gradient "
            "without any component along these directions of W_hh^T does not explode."
        ]
        said.append(
            f"That is {eigenvalue_rule}."
            if normal
            else f"W_hh is not normal: at first the growth can be faster, up to {sigma} in one step."
        )
    elif report.growth == "bounded":
        orthogonal = normal and bool(
            np.all(np.abs(report.unit_circle_distances) <= _rounding(report.size, report.dtype))
        )
        said = [
            "Gradients neither vanish nor explode: W_hh is orthogonal to rounding and keeps the length of "
            "every gradient, however far back."
            if orthogonal
            else "Some gradients neither vanish nor explode: the spectral radius is 1 to rounding. "
            "Components along eigenvalues on the unit circle stay, those along the others fade."
        ]
        if normal and not orthogonal:
            said.append(f"That is {eigenvalue_rule}.")
    elif report.growth == "polynomial":
        said = [
            "Gradients grow without bound, but not exponentially: the spectral radius is 1 to rounding "
            "with an eigenvalue on the unit circle that lacks eigenvectors, and the norm of W_hh^k grows "
            f"like k^{report.growth_degree:.2g}. The rule of eigenvalues below and above 1 does not see this."
        ]
    else:
        low, high = report.spectral_radius_bounds
        said = [
            "Rounding decides: changes of W_hh in its last digits move eigenvalues across the unit circle, "
            f"so whether gradients vanish or explode in the long run cannot be told (the computed radius is "
            f"{rho}; certain is only that it lies between {low:.4g} and {high:.4g}). What its powers show is "
            f"growth to {peak} by lag {lag}, which is what matters in practice."
        ]
    if not normal and lag is not None and report.growth != "undecided":
        said.append(_detour(report, sigma, peak, lag))
    return " ".join(said)


def _detour(report: SpectralReport, sigma: str, peak: str, lag: int) -> str:
    if lag == 0:
        return f"W_hh is not normal, but no gradient grows on the way: {sigma} is the most in one step."
    text = (
        f"But W_hh is not normal, and eigenvalues do not tell the way there: a gradient can first grow "
        f"{peak}-fold over {_steps(lag)}"
    )
    if report.contraction_lag is None and report.growth == "decaying":
        return f"{text}, or more: powers beyond are lost in rounding."
    if report.growth == "bounded":
        return f"{text}, and stays below that."
    return f"{text}; from lag {report.contraction_lag} on, if not before, it is shorter than at first."


def _reach(growth: Growth, index: int | None, decay_times: Real) -> int:
    """Return the last lag that a picture of the norms needs."""
    if growth == "nilpotent":
        return max(8, 2 * (index or 0))
    times = np.abs(decay_times[np.isfinite(decay_times) & (decay_times != 0)])
    time = (
        float(times.max()) if times.size and growth == "bounded" else float(times[0]) if times.size else 16.0
    )
    return int(min(max(16.0, 4 * time), 2.0**20))


def _exp2(exponent: float) -> float:
    """Return 2^exponent; inf and 0 beyond float64."""
    if exponent >= 1024:
        return math.inf
    return float(2.0**exponent) if exponent > -1080 else 0.0


def _number(value: float) -> str:
    text = f"{value:.5g}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3g}"
    if text == "1" and abs(value - 1) > 1e-12:  # which side of 1 is the point
        return f"1{value - 1:+.1g}"
    return text


def _power_of_two(exponent: float) -> str:
    """Return 2^exponent as a decimal number, also beyond float64."""
    if exponent == math.inf or abs(exponent) < 1000:
        return _number(_exp2(exponent))
    power, decimal = exponent * math.log10(2), math.floor(exponent * math.log10(2))
    return f"{10 ** (power - decimal):.2f}e{decimal:+d}"


def _steps(count: float) -> str:
    text = _number(count) if count == int(count) else f"{count:.3g}"
    return f"{text} step{'' if text == '1' else 's'}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value
