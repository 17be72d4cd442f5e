"""What truncated backpropagation through time loses on a model and its data, for every truncation length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import _validate
from ...engine.floating_point import quiet
from ...engine.params import Params
from ...engine.truncation import Chunked, Randomized
from ...gradients.vjp import vjp
from ..lag_terms import LagTerms, side_by_side
from ..problem import chosen_lags, pose
from ..wide_range.scaled import Real, Scaled
from .report import TruncationReport, powers_up_to

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ...engine.losses import LossLike
    from ..problem import Problem

#: Draws of the randomised gradient where the caller does not say, and steps of all sequences up to which.
_DRAWS, _DRAWN_STEPS = 16, 20_000
#: What a gradient step by step costs, roughly: of a call, of a step, and multiply-adds in a second.
_SECONDS_A_CALL, _SECONDS_A_STEP, _RATE = 3e-5, 5e-8, 5e9


@_validate.memory_for("x, y and what is computed of them")
@quiet
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

    A lag window of tau steps keeps the contributions of the lags below tau, and so the tails of one sum are
    the biases of all lag windows:

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
        As for `Objective`, but finite; a target that is NaN is missing: it is left out, as of weight 0. A
        `loss` that is a function gets `y` as it is, and needs outputs within the range of float64.
    lags : int, optional
        K, the longest lag window to look at, up to T: 1000 or T when absent.
    draws : int, optional
        Draws of the randomised gradient for every length of the grid, each at the price of a gradient step by
        step; 0 for none. When absent, 16 where T B is at most 20,000, else none. Refused where that would
        take more than an hour: squares of deviations may be averaged over reports with other `rng`.
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
    All lag windows together cost about what `gradient_flow` does. Every length of the grid costs one gradient
    with detached blocks, and `draws` more.

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
    problem = pose(
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
    T, B, _ = problem.inputs.shape
    K = chosen_lags(lags, problem)
    if draws is None:
        draws = _DRAWS if T * B <= _DRAWN_STEPS else 0
    grid = _grid(T, K)
    _check_draws(draws, grid, problem)
    terms = LagTerms(problem, K, threads)
    total = terms.total()
    columns = _columns(problem)
    tails, kept = _norms(terms, columns, total)
    whole = {name: float(_part(total, part).log2_norms()) for name, part in columns.items()}
    chunked_bias, chunked_cosine, deviation = _on_grid(problem, total, grid, draws, generator, threads)
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
        missing=problem.missing,
    )


def _check_draws(draws: int, grid: NDArray[np.int64], problem: Problem) -> None:
    """Refuse draws that would take hours."""
    T, B, _ = problem.inputs.shape
    d, h, q = problem.params.shape
    products = h * (2 * d + 3 * h + 3 * q)
    each = np.count_nonzero(grid > 1) * (_SECONDS_A_CALL + T * B * (_SECONDS_A_STEP + products / _RATE))
    _validate.affordable("draws", draws, float(each))


def _columns(problem: Problem) -> dict[str, slice]:
    """Return which columns of the contributions belong to which parameter."""
    d, h, _ = problem.params.shape
    columns = {"all": slice(None), "W_hh": slice(h), "W_hx": slice(h, h + d)}
    if problem.params.b_h is not None:
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


def _grid(T: int, K: int) -> NDArray[np.int64]:
    """Return the powers of two and the divisors of T, up to K."""
    up_to = np.arange(1, K + 1)
    return np.union1d(powers_up_to(K), up_to[T % up_to == 0]).astype(np.int64)


def _on_grid(
    problem: Problem,
    total: Scaled,
    grid: NDArray[np.int64],
    draws: int,
    rng: np.random.Generator,
    threads: int,
) -> tuple[Real, Real, Real]:
    """Return bias and cosine of detached blocks, and the relative deviation of randomised gradients."""
    bias, cosine, deviation = (np.full(len(grid), np.nan) for _ in range(3))
    if not problem.raw:
        return bias, cosine, deviation
    d = problem.params.shape[0]
    params = Params(problem.params.W_hx, problem.params.W_hh, problem.params.W_qh, problem.params.b_h)
    G = total.at(np.zeros_like(total.exponent)).ravel()
    size = np.linalg.norm(G)

    def truncated(truncate: Chunked | Randomized) -> Real:
        g = vjp(
            params,
            problem.inputs[..., :d],
            problem.d_o.mantissa,
            problem.start,
            truncate=truncate,
            num_threads=threads or None,
        )
        return side_by_side(g).ravel()

    for i, tau in enumerate(grid.tolist()):
        if tau < len(problem.inputs):
            blocks = truncated(Chunked(tau))
            bias[i] = np.linalg.norm(blocks - G) / size
            cosine[i] = np.clip(blocks @ G / (np.linalg.norm(blocks) * size), -1, 1)
        else:  # one block is no truncation: what G computed otherwise differs by is rounding
            bias[i], cosine[i] = (0.0, 1.0) if size > 0 else (np.nan, np.nan)
        if draws and tau > 1:
            squares = [np.square(truncated(Randomized(tau, rng=rng)) - G).sum() for _ in range(draws)]
            deviation[i] = np.sqrt(np.mean(squares)) / size
    return bias, cosine, deviation
