"""The words and numbers of the demo's report, in plain lines."""

from __future__ import annotations

import math
import textwrap
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


WIDTH = 78


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
        f"{len(data.year)} years, {first}-{last} (SIDC / NGDC). The network reads one year after the other",
        f"into {hidden} hidden numbers, and forecasts the next from them:",
        "    h_t = W_hx x_t + W_hh h_{t-1} + b_h,    o_t = W_qh h_t + b_q",
        "",
        f"{first + 1 + WARM_UP}-{VALIDATION_FROM - 1}  train several random starts",
        f"{VALIDATION_FROM}-{HELD_OUT_FROM - 1}  choose the best, which is then trained on these years too",
        f"{HELD_OUT_FROM}-{last}  held out: no forecaster below was fitted to them",
    ]


def training(trained: Training, seconds: float) -> list[str]:
    """Say what training cost, and what became of the starts."""
    lines = [
        f"{STARTS} starts of up to {ITERATIONS} L-BFGS iterations, then the best one to the end:",
        f"{trained.evaluations:,} exact gradients, {seconds:.1f} s in all.",
    ]
    if trained.unstable:
        starts = "1 start" if trained.unstable == 1 else f"{trained.unstable} starts"
        lines += _prose(
            f"{starts} ended with an eigenvalue of W_hh outside the unit circle: a good fit of the old years"
            " that explodes in new ones. Only stable networks count."
        )
    return lines


def forecast_errors(params: rnnbptt.Params, data: Sunspots) -> list[ForecastErrors]:
    """Evaluate the network (first), persistence (second) and three autoregressions."""
    last = int(data.year[-1])
    hidden = params.shape[1]
    # An input-output map of h states has 2h numbers and a constant that no change of basis undoes.
    roles = {hidden: "the memory of the RNN", 2 * hidden: "the free numbers of the RNN"}
    best = forecasts.best_order_in_hindsight(data)
    hindsight = f"the best of {forecasts.LONGEST_MEMORY} orders, in hindsight"
    roles[best] = f"{roles[best]}; {hindsight}" if best in roles else hindsight
    # The fitted years begin where every forecaster, whatever its memory, can forecast.
    first = int(data.year[0]) + max(WARM_UP + 1, *roles)

    def errors(name: str, description: str, forecast: Array) -> ForecastErrors:
        return ForecastErrors(
            name,
            description,
            data.error(forecast, first, HELD_OUT_FROM - 1),
            data.error(forecast, HELD_OUT_FROM, last),
        )

    network = f"linear RNN, {hidden} hidden numbers"
    found = [
        errors("the RNN", network, forecasts.network(params, data)),
        errors("persistence", "persistence: next year is like this year", forecasts.persistence(data)),
    ]
    found += [
        errors(f"AR({order})", f"AR({order}): {role}", forecasts.autoregression(data, order))
        for order, role in sorted(roles.items())
    ]
    return found


def comparison(errors: list[ForecastErrors]) -> list[str]:
    """Tabulate the errors, and say in words who is better than whom."""
    network, persistence, *autoregressions = errors
    lines = [f"{'':56}{'fitted':>8}{'held out':>11}"]
    lines += [f"{e.description:56}{e.fitted:8.1f}{e.held_out:11.1f}" for e in errors]
    beaten = [other.name for other in autoregressions if network.held_out < other.held_out]
    ahead = [other.name for other in autoregressions if network.held_out >= other.held_out]
    verdict = [f"better than {' and '.join(beaten)}"] if beaten else []
    verdict += [f"not better than {' and '.join(ahead)}"] if ahead else []
    return [
        *lines,
        "",
        *_prose(
            "AR(p) is least-squares autoregression on the p years before. In the held-out years the RNN's"
            f" error is {', '.join(_than(network, other) for other in [persistence, *autoregressions])}."
            f" In short, it forecasts {', '.join(verdict)}."
        ),
    ]


def _than(one: ForecastErrors, other: ForecastErrors) -> str:
    change = 100 * (one.held_out / other.held_out - 1)
    return f"{abs(change):.1f} % {'below' if change < 0 else 'above'} {other.name}"


def eigenvalues(own: list[Mode], fed_back: list[Mode]) -> list[str]:
    """Tabulate modes of ``W_hh`` and of the network fed with its own forecasts; find the cycle."""
    lines = _prose(
        "W_hh alone says how the network forgets what it read. Left to itself, reading its own forecasts, it"
        f" moves with the eigenvalues of W_hh + W_hx W_qh. (Those below {spectrum.NEGLIGIBLE} are not shown.)"
    )
    lines += ["", f"{'':20}{'modulus':>9}{'period':>16}{'decays to 1/e in':>20}"]
    for name, modes in (("W_hh + W_hx W_qh", fed_back), ("W_hh", own)):
        for number, mode in enumerate(mode for mode in modes if mode.modulus >= spectrum.NEGLIGIBLE):
            title = "" if number else name
            lines.append(f"{title:20}{mode.modulus:9.3f}{_period(mode):>16}{_years(mode.decay_time):>20}")
    found = "It found" if spectrum.cycle(fed_back) is not None else "It did not find"
    swing = spectrum.swing(fed_back)
    if swing is None:
        does = "does not swing"
    elif math.isinf(swing.decay_time):
        does = f"swings with a period of {_years(swing.period)} and does not fade"
    else:
        does = f"swings with a period of {_years(swing.period)} and fades in {_years(swing.decay_time)}"
    return [*lines, "", *_prose(f"{found} the eleven-year cycle: left to itself, it {does}.")]


def _period(mode: Mode) -> str:
    return "none" if math.isinf(mode.period) else _years(mode.period)


def _years(years: float) -> str:
    return "never" if math.isinf(years) else f"{years:.1f} years"


def reach(flow: Array, slowest: Mode) -> list[str]:
    """Say at what lag the gradient has vanished, and what law it follows in the end."""
    horizon = spectrum.memory_horizon(flow)
    lag = f"more than {len(flow) - 1} years" if horizon is None else f"{horizon} years"
    return _prose(
        "Where only the last year has a loss, ||dL/dh|| falls below 1 % of what it is there after"
        f" {lag}. In the end each year back leaves {slowest.modulus:.3f} of it: the spectral radius of W_hh."
    )


def gradient(check: GradientCheck) -> list[str]:
    """Tabulate the differences from the reference, and the times."""
    names = {
        "recursion": "recursion, backwards in time",
        "closed_form": "closed form, powers of W_hh",
        "forward_mode": "sensitivities, forwards in time",
    }
    fast, slow = 1e6 * check.seconds, 1e6 * check.reference_seconds
    return [
        f"Relative difference from rnnbptt.reference, through {check.steps} years:",
        *(f"  {names[name]:34}{error:9.1e}" for name, error in check.errors.items()),
        f"One gradient takes {fast:.1f} us,"
        f" NumPy's recursion {slow:,.0f} us: {slow / fast:.0f} times as long.",
    ]


def _prose(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)
