"""The demo from beginning to end: train, compare, look inside, check; and a picture to draw."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import gradient_check, picture, printing, spectrum, sunspots, training

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .sunspots import Sunspots
    from .training import Training

LAGS = 60  # years the gradient flow is followed back


def tell(seed: int, hidden: int) -> Callable[[Path], None]:
    """Run the demo and print its report.

    Parameters
    ----------
    seed : int
        Seed of the random starts.
    hidden : int
        Size of the hidden state.

    Returns
    -------
    callable
        Writes the picture to the file it is given.
    """
    console = Console(highlight=False, soft_wrap=True)

    def say(title: str, lines: list[str]) -> None:
        console.print(f"\n{title}", style="bold", markup=False)
        console.print("\n".join(f"  {line}" if line else "" for line in lines), markup=False)

    data = sunspots.load()
    say("Yearly sunspot numbers: forecast the next year with a linear RNN", printing.task(data, hidden))
    start = time.perf_counter()
    trained = _train_visibly(data, hidden, seed)
    say("Training", printing.training(trained, time.perf_counter() - start))

    params = trained.params
    errors = printing.forecast_errors(params, data)
    say("Error one year ahead (root mean square, in sunspots)", printing.comparison(errors))
    own, fed_back = spectrum.modes(params.W_hh), spectrum.modes(spectrum.feedback(params))
    say("What it learned: eigenvalues as periods and decay times", printing.eigenvalues(own, fed_back))
    flow = spectrum.gradient_flow(params, LAGS)
    say("How far a gradient reaches back", printing.reach(flow, own[0]))
    say("The gradient, checked against NumPy", printing.gradient(gradient_check.check(data, hidden, seed)))
    return lambda output: picture.draw(output, params, data, flow)


def _train_visibly(data: Sunspots, hidden: int, seed: int) -> Training:
    """Train behind a progress bar, on standard error, where there is a terminal to draw it on."""
    screen = Console(stderr=True)
    bar = Progress(
        TextColumn("  training"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )
    with bar:
        task = bar.add_task("training", total=training.TOTAL_ITERATIONS)
        return training.train(data, hidden, seed, lambda done: bar.update(task, completed=done))
