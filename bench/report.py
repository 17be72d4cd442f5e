"""What a run found, as JSON to compare with and as Markdown to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.contenders import CONTENDERS, OURS, Role
from bench.measure import Measurement
from bench.problems import GRID, SWEEPS, Sweep

# The part of the limit that the project promises, for problems of at least MUCH_WORK seconds.
PROMISED_FRACTION = ((64, 0.65), (32, 0.45), (8, 0.2))
MUCH_WORK = 5e-3


@dataclass
class Run:
    date: str
    machine: str
    command: str
    threads: int
    repeats: int
    load_before: float  # what else the machine did before the run: 0 is a quiet machine
    versions: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    grid: list[Measurement] = field(default_factory=list)
    sweeps: dict[str, list[Measurement]] = field(default_factory=dict)

    def limit(self, dtype: str) -> float:
        """The machine's best rate in this run, in GF/s."""
        return max(self.limits.get(dtype, {}).values(), default=0.0)

    def fraction(self, measurement: Measurement) -> float | None:
        """Our share of the limit."""
        rate, limit = measurement.rate(OURS.name), self.limit(measurement.shape.dtype)
        return None if rate is None or not limit else rate / limit

    def swept(self) -> Iterator[tuple[Sweep, list[Measurement]]]:
        for sweep in SWEEPS:
            if measurements := self.sweeps.get(sweep.name):
                yield sweep, measurements

    def contenders(self) -> list[str]:
        return [name for name in CONTENDERS if name in self.versions]

    def wrong(self) -> list[str]:
        """Results that were refused."""
        measured = [*self.grid, *(m for found in self.sweeps.values() for m in found)]
        return [timing.wrong for m in measured for timing in m.timings.values() if timing.wrong]

    def save(self, path: Path) -> None:
        data = vars(self) | {
            "grid": [measurement.to_json() for measurement in self.grid],
            "sweeps": {name: [m.to_json() for m in found] for name, found in self.sweeps.items()},
        }
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Run:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        data["grid"] = [Measurement.from_json(entry) for entry in data["grid"]]
        data["sweeps"] = {
            name: [Measurement.from_json(entry) for entry in entries]
            for name, entries in data["sweeps"].items()
        }
        return cls(**data)


def markdown(run: Run, baseline: Run | None = None, plots: tuple[Path, ...] = ()) -> str:
    """The whole report; with a baseline, one more column: the earlier run's time of ours over this one's."""
    parts = [
        "# Gradients per second",
        f"{run.date}, {run.machine}, {run.threads} threads, medians of {run.repeats} repeats. "
        f"Command: `{run.command}`. Load of the machine before the run: {run.load_before:.1f}.",
        "; ".join(dict.fromkeys([*run.versions.values(), *run.missing.values()])) + ".",
        _limits(run),
        "Times in milliseconds. *Ratio* is the fastest peer's time over ours; *of limit* is our share of the "
        "machine's best rate. *JAX, own adjoint* has backpropagation written by hand and is outside the "
        "ratio.",
    ]
    if run.grid:
        parts += ["## Named shapes", _table(run, run.grid, baseline)]
        parts += _shortfalls(run)
    for sweep, measurements in run.swept():
        parts += [f"## Sweep over {sweep.name}", _table(run, measurements, baseline)]
        parts += [f"Cliff: {text}." for text in cliffs(sweep, measurements)]
    parts += [f"![{plot.stem}]({plot.name})" for plot in plots]
    return "\n\n".join(parts) + "\n"


def cliffs(sweep: Sweep, measurements: list[Measurement]) -> list[str]:
    """Points of ours slower per flop than half of both their neighbours."""
    rates = [(sweep.value(m.shape), rate) for m in measurements if (rate := m.rate(OURS.name)) is not None]
    return [
        f"{sweep.size} = {value} at {rate:.3g} GF/s between {before:.3g} and {after:.3g}"
        for (_, before), (value, rate), (_, after) in zip(rates, rates[1:], rates[2:], strict=False)
        if rate < min(before, after) / 2
    ]


def _limits(run: Run) -> str:
    found = [
        f"{dtype} {rate:.0f} GF/s ({source})"
        for dtype, sources in run.limits.items()
        for source, rate in sources.items()
    ]
    return "Limit: " + "; ".join(found) + "." if found else "Limit: not measured."


def _table(run: Run, measurements: list[Measurement], baseline: Run | None) -> str:
    names = run.contenders()
    heads = ["T, B, d, h, q", "dtype", *(CONTENDERS[name].label for name in names)]
    heads += ["fastest peer", "ratio", "promised", "of limit"]
    if baseline:
        heads.append("before / now")
    rows = [heads, ["---"] * len(heads)]
    for m in measurements:
        s = m.shape
        row = [f"{s.T}, {s.B}, {s.d}, {s.h}, {s.q}", s.dtype, *(_time(m, name) for name in names)]
        fastest = m.fastest(Role.PEER)
        promised = GRID.get(s)
        row += [
            _peer(m, fastest),
            _number(m.ratio(Role.PEER), "{:.1f}x"),
            "" if promised is None else f"{promised:g}x",
            _number(run.fraction(m), "{:.2f}"),
        ]
        if baseline:
            row.append(_number(_before(baseline, m), "{:.2f}"))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _shortfalls(run: Run) -> list[str]:
    """Promises of ratio and fraction that this run does not keep."""
    found = []
    for m in run.grid:
        ratio, promised = m.ratio(Role.PEER), GRID.get(m.shape)
        if ratio is not None and promised is not None and ratio < promised:
            found.append(f"{m.shape} at {ratio:.1f}x of {promised:g}x")
    for m in (*run.grid, *(m for _, measurements in run.swept() for m in measurements)):
        fraction, seconds = run.fraction(m), m.seconds(OURS.name)
        wanted = next((share for h, share in PROMISED_FRACTION if m.shape.h >= h), None)
        if fraction is None or seconds is None or wanted is None or seconds < MUCH_WORK:
            continue
        if fraction < wanted:
            found.append(f"{m.shape} at {fraction:.2f} of the limit, not {wanted}")
    return ["Below promise: " + "; ".join(found) + "."] if found else []


def _time(m: Measurement, name: str) -> str:
    timing = m.timings.get(name)
    if timing is None:
        return "-"
    if timing.median is None:
        return "wrong" if timing.wrong else timing.skipped or "-"
    return f"{timing.median * 1e3:.3g}"


def _peer(m: Measurement, name: str | None) -> str:
    if name is None:
        return "-"
    timing = m.timings[name]
    return f"{CONTENDERS[name].label} ({timing.variant}, {timing.threads}t)"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _before(baseline: Run, m: Measurement) -> float | None:
    everything = [*baseline.grid, *(old for found in baseline.sweeps.values() for old in found)]
    old = next((old.seconds(OURS.name) for old in everything if old.shape == m.shape), None)
    now = m.seconds(OURS.name)
    return None if old is None or now is None else old / now
