"""The words and numbers of the demo's report, in plain lines of at most 78 characters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import forecasts, spectrum
from .sunspots import HELD_OUT_FROM, VALIDATION_FROM, WARM_UP
from .training import ITERATIONS, STARTS

if TYPE_CHECKING:
    import rnnbptt

    from .gradient_check import GradientCheck
    from .spectrum import Mode
    from .sunspots import Array, Sunspots
    from .training import Training


@dataclass(frozen=True)
class ForecastErrors:
    """Root mean square errors of one forecaster, in sunspots.

    Parameters
    ----------
    name, description : str
        What it is called, and what it does.
    fitted, held_out : float
        Errors in the years it was fitted to, and in the held-out years.
    """

    name: str
    description: str
    fitted: float
    held_out: float


def task(data: Sunspots, hidden: int) -> list[str]:
    """Say what is forecast, by what, and which years are for what."""
    first, last = int(data.year[0]), int(data.year[-1])
    return [
        f"{len(data.year)} years, {first}-{last} (SIDC / NGDC). Each year the network reads the year's number",
        f"into {hidden} hidden states and forecasts the next: h_t = W_hx x_t + W_hh h_(t-1) + b_h,",
        "o_t = W_qh h_t + b_q.",
        f"{first + 1 + WARM_UP}-{VALIDATION_FROM - 1}  train the starts",
        f"{VALIDATION_FROM}-{HELD_OUT_FROM - 1}  choose the best, which is then trained on these years too",
        f"{HELD_OUT_FROM}-{last}  held out: nothing below was fitted to them",
    ]


def training(trained: Training, seconds: float) -> list[str]:
    """Say what training cost, and what became of the starts."""
    lines = [
        f"{STARTS} starts of {ITERATIONS} L-BFGS iterations, then the best one to the end:",
        f"{trained.evaluations:,} exact gradients in {seconds:.1f} s.",
    ]
    if trained.unstable:
        are = "start" if trained.unstable == 1 else "starts"
        lines += [
            f"{trained.unstable} {are} ended with an eigenvalue of W_hh outside the unit circle: a good fit of",
            "old years that grows without bound in new ones. Only stable networks count.",
        ]
    return lines


def forecast_errors(params: rnnbptt.Params, data: Sunspots) -> list[ForecastErrors]:
    """Evaluate the network (first), persistence (second) and three autoregressions."""
    last = int(data.year[-1])
    hidden = params.shape[1]
    by_aic = forecasts.order_by_aic(data)

    def errors(name: str, description: str, forecast: Array) -> ForecastErrors:
        # From the first year on that every forecaster, whatever its memory, can forecast.
        first = int(data.year[0]) + max(WARM_UP + 1, 2 * hidden)
        return ForecastErrors(
            name,
            description,
            data.error(forecast, first, HELD_OUT_FROM - 1),
            data.error(forecast, HELD_OUT_FROM, last),
        )

    network = f"linear RNN, {hidden} hidden states"
    found = [
        errors("the RNN", network, forecasts.network(params, data)),
        errors("persistence", "persistence: next year is like this year", forecasts.persistence(data)),
    ]
    # An input-output map of h states has 2h numbers and a constant that no change of basis undoes.
    roles = {
        hidden: "remembers as many numbers as the RNN",
        2 * hidden: "has as many free numbers as the RNN",
    }
    roles[by_aic] = f"{roles[by_aic]}; order by AIC" if by_aic in roles else "has its order chosen by AIC"
    found += [
        errors(f"AR({order})", f"AR({order}), which {role}", forecasts.autoregression(data, order))
        for order, role in sorted(roles.items())
    ]
    return found


def comparison(errors: list[ForecastErrors]) -> list[str]:
    """Tabulate the errors, and say in words who is better than whom."""
    network, persistence, *autoregressions = errors
    lines = [f"{'':50}{'fitted':>8}{'held out':>12}"]
    lines += [f"{e.description:50}{e.fitted:8.1f}{e.held_out:12.1f}" for e in errors]
    lines += ["", f"In the held-out years the RNN's error is {_than(network, persistence)}."]
    lines += [
        f"Beside least-squares autoregression, it is {_than(network, other)}." for other in autoregressions
    ]
    better = sum(network.held_out < other.held_out for other in autoregressions)
    total = len(autoregressions)
    verdict = {0: "worse than every AR here", total: "better than every AR here"}
    lines.append(
        f"So it is {verdict.get(better, f'better than {better} of {total} autoregressions, not all')}."
    )
    return lines


def _than(one: ForecastErrors, other: ForecastErrors) -> str:
    change = 100 * (one.held_out / other.held_out - 1)
    return f"{abs(change):.1f} % {'below' if change < 0 else 'above'} that of {other.name}"


def eigenvalues(own: list[Mode], fed_back: list[Mode]) -> list[str]:
    """Tabulate modes of ``W_hh`` and of the network fed with its own forecasts; find the cycle."""
    lines = [
        "Fed with its own forecasts, the network swings by itself, with the eigenvalues of",
        "W_hh + W_hx W_qh; those of W_hh alone say how it forgets what it read.",
        "",
        f"{'':20}{'modulus':>9}{'period':>16}{'decays to 1/e in':>20}",
    ]
    for name, modes in (("W_hh + W_hx W_qh", fed_back), ("W_hh", own)):
        for number, mode in enumerate(modes):
            lines.append(
                f"{'' if number else name:20}{mode.modulus:9.3f}{_period(mode):>16}{_years(mode.decay_time):>20}"
            )
    found = spectrum.cycle(fed_back)
    lines.append("")
    if found is not None:
        fading = "never fades" if math.isinf(found.decay_time) else f"fades over {found.decay_time:.0f} years"
        lines.append(
            f"It found the eleven-year cycle: its own swing takes {found.period:.1f} years and {fading}."
        )
    else:
        turning = [mode for mode in fed_back if mode.eigenvalue.imag > 0]
        swing = (
            f"its own swing takes {turning[0].period:.1f} years" if turning else "it does not swing at all"
        )
        lines.append(f"It did not find the eleven-year cycle: {swing}.")
    return lines


def _period(mode: Mode) -> str:
    return "none" if math.isinf(mode.period) else _years(mode.period)


def _years(years: float) -> str:
    return "never" if math.isinf(years) else f"{years:.1f} years"


def reach(flow: Array, slowest: Mode) -> list[str]:
    """Say at what lag the gradient has vanished, and what law it follows in the end."""
    lags = len(flow) - 1
    horizon = spectrum.memory_horizon(flow)
    seen = "does not fall" if horizon is None else "falls"
    when = f"within {lags} years" if horizon is None else f"at a lag of {horizon} years"
    return [
        f"||dL/dh|| of a loss in the last year {seen} below 1 % of its value there {when};",
        f"in the end every year leaves {slowest.modulus:.3f} of it, the spectral radius of W_hh.",
    ]


def gradient(check: GradientCheck) -> list[str]:
    """Tabulate the differences from the reference, and the times."""
    names = {
        "recursion": "recursion, backwards in time",
        "closed_form": "closed form, powers of W_hh",
        "forward_mode": "sensitivities, forwards in time",
    }
    lines = ["relative difference from rnnbptt.reference, through " + f"{check.steps} years:"]
    lines += [f"  {names[name]:34}{error:9.1e}" for name, error in check.errors.items()]
    lines.append(
        f"One gradient takes {1e6 * check.seconds:.1f} us; the NumPy recursion {1e6 * check.reference_seconds:,.0f} us"
        f" ({check.reference_seconds / check.seconds:.0f} times as long)."
    )
    return lines
