"""What series cost: seconds and memory of a fit, of filling gaps and of a forecast, as the data grow.

Contract: each run is a process of its own on generated series; one of length, channels and number of series grows at a
time. Run it as `python -m benchmarks.series_sizes --help`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.markdown import markdown
from benchmarks.runs import (
    about_run,
    add_options,
    add_report_options,
    append_rows,
    finished_keys,
    read_table,
    run_or_report,
    run_worker,
)
from benchmarks.worker import cpu_seconds, peak_mb, versions

KEY = ("series", "steps", "channels", "seed")
SEASON, NOISE, N_FACTORS, HORIZON = 24, 0.3, 3, 24
GAPS = 0.02
"""Share of the steps at which a gap of a quarter of a season begins in a channel."""


class Size(NamedTuple):
    """How many series of how many steps and channels."""

    series: int
    steps: int
    channels: int


GRID = [
    *(Size(1, steps, 1) for steps in (1_000, 10_000, 100_000, 1_000_000)),
    *(Size(1, 2_000, channels) for channels in (10, 100, 1_000)),
    *(Size(series, 200, 1) for series in (10, 100, 1_000, 10_000)),
]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure time and memory of TimeSeriesMAE as series grow.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--largest", type=int, default=10**9, help="only sizes of so many cells at most")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report and not read.work and read.out is None:
        parser.error("a run needs --out FILE for its rows")
    return read


def generate_series(size: Size, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Generate series (n, T, C) of a season and a few slow factors, and the same with gaps of a quarter of a season."""
    rng = np.random.default_rng([seed, *size])
    step = 2 * np.pi * np.arange(size.steps)[:, None] / SEASON
    slow = np.cumsum(rng.normal(size=(size.series, size.steps, N_FACTORS)), axis=1)
    slow = (slow - slow.mean(1, keepdims=True)) / slow.std(1, keepdims=True)
    values = np.sin(step + rng.uniform(0, 6, (size.series, 1, size.channels)))
    values += slow @ rng.normal(size=(N_FACTORS, size.channels)) + NOISE * rng.normal(size=values.shape)
    begins = rng.random(values.shape) < GAPS
    hidden = begins.copy()
    for later in range(1, SEASON // 4):
        hidden[:, later:] |= begins[:, :-later]
    return values, np.where(hidden, np.nan, values)


def work(folder: Path) -> None:
    """Fit, fill and forecast in this process, and write what that took."""
    from tabmae import TimeSeriesMAE

    job = json.loads((folder / "job.json").read_text())
    truth, shown = generate_series(Size(*job["size"]), job["seed"])
    clock, measured = [cpu_seconds()], {"import_mb": peak_mb()}
    model = TimeSeriesMAE(horizon=HORIZON, random_state=job["seed"]).fit(shown)
    clock.append(cpu_seconds())
    filled = model.impute(shown)
    clock.append(cpu_seconds())
    model.forecast(shown)
    clock.append(cpu_seconds())
    names = ("fit_cpu_seconds", "impute_cpu_seconds", "forecast_cpu_seconds")
    measured |= dict(zip(names, np.diff(clock).tolist(), strict=True))
    hidden = np.isnan(shown)
    error = float(np.sqrt(np.mean((filled - truth)[hidden] ** 2)) / truth.std())
    result = {**measured, "peak_mb": peak_mb(), "error": error, "versions": versions()}
    (folder / "result.json").write_text(json.dumps(result))


def run_size(size: Size, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a size in a process and give its costs, or why there are none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"size": size, "seed": seed}))
        command = [sys.executable, "-m", "benchmarks.series_sizes", "--work", str(folder)]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        return failure or {"status": "ok", **json.loads((folder / "result.json").read_text())}


def run_all(arguments: argparse.Namespace) -> None:
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for size in GRID:
        for seed in arguments.seeds:
            if (*size, seed) in done or size.series * size.steps * size.channels > arguments.largest:
                continue
            row = run_size(size, seed, arguments)
            append_rows(arguments.out, [{**size._asdict(), "seed": seed, **about_run(arguments), **row}])
            outcome = row.get("reason") or f"{row['fit_cpu_seconds']:.1f} s, {row['peak_mb']:.0f} MB"
            print(f"{size.series} x {size.steps} x {size.channels} seed {seed}: {outcome}", flush=True)


def report(files: list[Path]) -> str:
    """Make the table of sizes, seconds and memory."""
    costs = ["fit_cpu_seconds", "impute_cpu_seconds", "forecast_cpu_seconds", "peak_mb", "import_mb", "error"]
    rows = read_table(files, KEY, [*costs, "threads", "reason"])
    rows["added"] = rows["peak_mb"] - rows["import_mb"]
    shown = {"fit, s": costs[0], "fill, s": costs[1], "forecast, s": costs[2], "memory, MB": "added", "error": "error"}
    entries, labels = [], []
    for size in GRID:
        runs = rows[(rows[list(size._fields)] == list(size)).all(axis=1)]
        if runs.empty:
            continue
        labels.append(f"{size.series:,} x {size.steps:,} x {size.channels:,}")
        fine = runs[runs["status"] == "ok"]
        late = str(runs["reason"].iloc[-1])
        entries.append([fine[name].mean() if len(fine) else late for name in shown.values()])
    table = pd.DataFrame(entries, index=labels, columns=list(shown))
    threads = " and ".join(str(n) for n in sorted(rows["threads"].unique()))
    about = (
        f"Series x steps x channels, a season, slow factors and noise, gaps of {SEASON // 4} steps over "
        f"{1 - (1 - GAPS) ** (SEASON // 4):.0%} of the cells; processor seconds with {threads} thread(s), memory "
        "beyond that of the imported packages and the data, error on the hidden cells in standard deviations."
    )
    digits = {"fit, s": 1, "fill, s": 1, "forecast, s": 1, "memory, MB": 0, "error": 3}
    return f"{about}\n\n{markdown(table, digits, {})}"


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    if read.work:
        work(read.work)
    else:
        run_or_report(read, run_all, lambda: report(read.report), "series-sizes")


if __name__ == "__main__":
    main()
