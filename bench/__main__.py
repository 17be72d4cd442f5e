"""`python -m bench`: measure, print as it goes, and write the table, the JSON and the plots."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.contenders import CONTENDERS, OURS, Role
from bench.measure import Bench, Measurement, Settings
from bench.problems import DTYPES, GRID, SWEEPS, Shape, Sweep
from bench.report import Run, markdown

QUICK = Settings(burst=0.03, tuning=0.05, patience=3.0, fewer_threads=False)
BUSY = 0.5
# Eager PyTorch is the slowest by far on long sequences; a quick look leaves it to the named shapes.
SLOW_IN_SWEEPS = frozenset({"torch"})


def main() -> None:
    arguments = parse()
    settings = replace(
        QUICK if arguments.quick else Settings(),
        threads=arguments.threads,
        repeats=arguments.repeats,
        seed=arguments.seed,
    )
    grid, sweeps = selected(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    baseline = Run.load(arguments.baseline) if arguments.baseline else None
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY:
        print(f"load {load:.1f}: other work on this machine will blur the figures", file=sys.stderr)
    with Bench(arguments.contenders, settings) as bench:
        for reason in bench.missing.values():
            print(reason, file=sys.stderr)
        run = Run(
            date=time.strftime("%Y-%m-%d"),
            machine=f"{cpu_name()}, {platform.system()} {platform.machine()}",
            command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
            threads=settings.threads,
            repeats=settings.repeats,
            load_before=load,
            versions=bench.versions,
            missing=bench.missing,
            limits=bench.limits,
        )
        for dtype in DTYPES:
            bench.measure_limit(dtype)
        for shape in grid:
            run.grid.append(bench.measure(shape))
            show(run, run.grid[-1])
            run.save(arguments.output / "results.json")
        without = SLOW_IN_SWEEPS if arguments.quick else frozenset()
        for sweep in sweeps:
            print(f"-- {sweep.name}", flush=True)
            points = run.sweeps.setdefault(sweep.name, [])
            for shape in sweep.shapes:
                points.append(bench.measure(shape, without=without))
                show(run, points[-1])
                run.save(arguments.output / "results.json")
    write(run, baseline, arguments.output)
    if wrong := run.wrong():
        sys.exit("wrong results:\n" + "\n".join(wrong))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short bursts, fewer variants, thinned sweeps")
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=Shape.parse,
        metavar="T,B,d,h,q[,dtype]",
        help="only these shapes; no sweeps unless --sweeps is given",
    )
    parser.add_argument(
        "--sweeps",
        nargs="*",
        metavar="NAME",
        choices=[sweep.name for sweep in SWEEPS],
        help="only these sweeps (none when no name follows)",
    )
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--threads", type=int, default=2, help="threads for everyone (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="repeats behind each median (default 7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("bench-results"), help="folder to write to")
    parser.add_argument("--baseline", type=Path, help="results.json of an earlier run to compare with")
    return parser.parse_args()


def selected(arguments: argparse.Namespace) -> tuple[list[Shape], list[Sweep]]:
    grid = arguments.shapes or list(GRID)
    if arguments.sweeps is not None:
        sweeps = [sweep for sweep in SWEEPS if sweep.name in arguments.sweeps]
        if not arguments.shapes and arguments.sweeps:
            grid = []
    else:
        sweeps = [] if arguments.shapes else list(SWEEPS)
    return grid, [sweep.thinned() for sweep in sweeps] if arguments.quick else sweeps


def show(run: Run, measurement: Measurement) -> None:
    times = [
        f"{CONTENDERS[name].label} {timing.wrong or timing.skipped or f'{(timing.median or 0) * 1e3:.3f} ms'}"
        for name, timing in measurement.timings.items()
    ]
    ratio, fraction = measurement.ratio(Role.PEER), run.fraction(measurement)
    if ratio is not None:
        times.append(f"ratio {ratio:.1f}x")
    if fraction is not None:
        times.append(f"{fraction:.2f} of limit")
    print(f"{measurement.shape!s:>28}  " + "  ".join(times), flush=True)


def write(run: Run, baseline: Run | None, folder: Path) -> None:
    run.save(folder / "results.json")
    plots: tuple[Path, ...] = ()
    if run.sweeps:
        from bench.plots import draw

        plots = draw(run, folder)
    (folder / "results.md").write_text(markdown(run, baseline, plots), encoding="utf-8")
    print(f"wrote {', '.join(str(path) for path in sorted(folder.iterdir()))}")
    if OURS.name not in run.versions:
        print("without rnnbptt there are no ratios", file=sys.stderr)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} CPUs)" if names else platform.processor()


if __name__ == "__main__":
    main()
