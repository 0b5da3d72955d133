"""Complete series and windows of them by the field's protocols, on the same hidden cells for every method.

Contract: data set, pattern, share, stride and seed fix the hidden cells, whatever the method; no method sees them; a
run whose row is in the file is not repeated. Run it as `python -m benchmarks.impute_series --help`.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
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
    check_options,
    failures,
    finished_keys,
    read_table,
    run_or_report,
    run_worker,
)
from benchmarks.series_data import GAPS, SETTINGS, STRIDED, WHOLE, Gaps, load_gaps
from benchmarks.series_peers import ENVIRONMENTS, IMPUTERS

N_SCORED = 1024
"""Windows that are scored at once."""

MEAN = "mean of four"
PUBLISHED: dict[str, dict[str, dict[str, tuple[float | None, float]]]] = {
    "ETTh1": {"TimesNet": {MEAN: (0.187, 0.078)}, "GPT4TS": {MEAN: (None, 0.069)}},
    "weather": {"TimesNet": {MEAN: (0.054, 0.030)}, "GPT4TS": {MEAN: (None, 0.031)}},
    "ETTh1-tsi": {
        "SAITS": {
            "points 10%": (0.144, 0.047),
            "points 50%": (0.223, 0.107),
            "points 90%": (0.507, 0.498),
            "runs 50%": (0.635, 0.881),
        },
        "CSDI": {"runs 50%": (0.558, 0.783), "blocks 50%": (0.401, 0.340)},
    },
    "physionet2012": {
        "SAITS": {"points 10%": (0.257, 0.276)},
        "CSDI": {"points 10%": (0.252, 0.323)},
        "linear interpolation": {"points 10%": (0.366, 0.426)},
    },
}
"""MAE and MSE by data set, method and setting. Source: TimesNet, Wu et al. 2023, and GPT4TS, Zhou et al. 2023, mean of
12.5, 25, 37.5 and 50 % hidden; the others TSI-Bench, Du et al. 2024."""

PROTOCOLS = {
    "ETTh1": "windows of 96 of the test part; fitted on the complete training part",
    "weather": "windows of 96 of the test part; fitted on the complete training part",
    "ETTh1-tsi": "windows of 48 that do not meet, 14, 5 and 5 months; the training windows have holes of the same "
    "kind. The published figures are on draws of their own, compare loosely",
    "beijing": "windows of 96 of BeijingPM25 that do not meet, 70, 10 and 20 %; hidden beside its own gaps, in the "
    "training part too",
    "physionet2012": "stays of 48 hours, 64, 16 and 20 % of the patients of set a. The published figures are on three "
    "sets of patients, compare loosely",
}
LABELS = {
    "mean": "mean of the channel",
    "locf": "last value carried forward",
    "linear": "linear interpolation",
    "seasonal": "mean of the phase",
    "brits": "BRITS, PyPOTS",
    "saits": "SAITS, PyPOTS",
    "timesnet": "TimesNet, PyPOTS",
    "tabmae-experts": "TimeSeriesMAE, no network",
    "tabmae": "**TimeSeriesMAE**",
}
SCORES = {"mae": "MAE", "mse": "MSE"}


class Run(NamedTuple):
    """What fixes a row."""

    dataset: str
    pattern: str
    fraction: float
    stride: int
    seed: int
    method: str


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the imputation of series on the same hidden cells.")
    default = ["mean", "locf", "linear", "seasonal", "tabmae"]
    parser.add_argument("--methods", nargs="+", choices=list(IMPUTERS), default=default)
    parser.add_argument("--data", type=Path, help="folder that holds ETT, weather, ImputeGAP and the others")
    parser.add_argument("--datasets", nargs="+", choices=list(GAPS), default=list(GAPS))
    patterns = sorted({pattern for settings in SETTINGS.values() for pattern, _ in settings})
    parser.add_argument("--patterns", nargs="+", choices=patterns, default=patterns)
    parser.add_argument("--fractions", nargs="+", type=float, help="only these of a set's shares of hidden cells")
    stride = f"steps between test windows of {' and '.join(STRIDED)}; 1 is the field's"
    parser.add_argument("--stride", type=int, default=1, help=stride)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--pypots-python", type=Path, help="interpreter of an environment for saits, brits, timesnet")
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
        if read.data is None:
            parser.error("a run needs --data DIR")
        if read.pypots_python is None and set(ENVIRONMENTS) & set(read.methods):
            parser.error("networks of PyPOTS need --pypots-python, see requirements-pypots.txt")
    return read


def score_windows(gaps: Gaps, found: np.ndarray) -> dict[str, Any]:
    """Score completed windows (k, W, C) on the hidden cells, in standard deviations of the training part."""
    count, absolute, square, left = 0, 0.0, 0.0, 0
    for start in range(0, len(found), N_SCORED):
        chosen = slice(start, start + N_SCORED)
        hidden = gaps.hidden[chosen]
        error = found[chosen][hidden].astype(np.float64) - gaps.truth[chosen][hidden]
        left += int(np.isnan(error).sum())
        count, absolute, square = count + len(error), absolute + np.abs(error).sum(), square + (error**2).sum()
    if left or not count:
        return {"status": "failed", "reason": f"{left} of {count} hidden cells left missing"}
    return {"status": "ok", "mae": absolute / count, "mse": square / count}


def run_row(run: Run, gaps: Gaps, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit and complete in a process of its own, and score."""
    job = {"kind": "impute", "method": run.method, "seed": run.seed, "n_jobs": arguments.n_jobs, "period": gaps.period}
    seen: dict[str, Any] = {"train": gaps.train, "validation": gaps.validation, "train_phase": gaps.train_phase}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "job.npz", windows=gaps.visible, phases=gaps.test_phase, **seen)
        python = str(arguments.pypots_python) if run.method in ENVIRONMENTS else sys.executable
        command = [python, "-m", "benchmarks.series_peers", name]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        if failure:
            return failure
        found = np.memmap(folder / "found.f32", dtype=np.float32, mode="r", shape=gaps.truth.shape)
        return {**json.loads((folder / "result.json").read_text()), **score_windows(gaps, found)}


def all_runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """Order the runs by method first, so that the cheap ones listed first are done first."""
    for method in arguments.methods:
        for dataset in arguments.datasets:
            for pattern, fraction in SETTINGS[dataset]:
                if pattern not in arguments.patterns or fraction not in (arguments.fractions or [fraction]):
                    continue
                for seed in arguments.seeds:
                    yield Run(dataset, pattern, fraction, arguments.stride if dataset in STRIDED else 1, seed, method)


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, Run._fields, arguments.retry_failed)
    for run in all_runs(arguments):
        if run in done:
            continue
        gaps = load_gaps(run.dataset, arguments.data, run.pattern, run.fraction, run.seed, run.stride)
        about = {
            **run._asdict(),
            "windows": len(gaps.truth),
            "steps": gaps.truth.shape[1],
            "channels": gaps.truth.shape[2],
            "hidden": float(gaps.hidden.sum() / (~np.isnan(gaps.truth)).sum()),
            "cells": gaps.digest,
            **about_run(arguments),
        }
        row = {**about, **run_row(run, gaps, arguments)}
        append_rows(arguments.out, [row])
        outcome = row.get("reason") or " ".join(f"{score} {row[score]:.4f}" for score in ("mae", "mse", "cpu_seconds"))
        print(f"{run.dataset} {run.pattern} {run.fraction:.1%} seed {run.seed} {run.method}: {outcome}", flush=True)


def setting(pattern: str, fraction: float) -> str:
    return f"{pattern} {100 * fraction:g}%"


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Order the lines of methods and name them in full."""
    return table.loc[[method for method in LABELS if method in table.index]].rename(index=LABELS)


def set_table(dataset: str, rows: pd.DataFrame) -> str:
    """Make the table of methods and published figures x settings of one set."""
    settings = [setting(*pair) for pair in SETTINGS[dataset]]
    shown = rows.assign(setting=[setting(*pair) for pair in zip(rows["pattern"], rows["fraction"], strict=True)])
    means = shown.groupby(["method", "setting"])[[*SCORES, "cpu_seconds"]].mean()
    settings = [name for name in settings if name in set(shown["setting"])]
    columns = [f"{name} {score}" for name in settings for score in SCORES.values()]
    lines: dict[str, dict[str, float | None]] = {
        f"{method} (published)": {
            f"{name} {score}": figure
            for name, pair in figures.items()
            for score, figure in zip(SCORES.values(), pair, strict=True)
        }
        for method, figures in PUBLISHED.get(dataset, {}).items()
    }
    ours: dict[str, dict[str, float | None]] = {}
    for method, found in means.groupby("method"):
        found = found.droplevel("method")
        line = {f"{name} {label}": found[score].get(name) for name in settings for score, label in SCORES.items()}
        if len(found) == len(settings):
            line["CPU s"] = found["cpu_seconds"].sum()
            if dataset in STRIDED and len(settings) == len(SETTINGS[dataset]):
                line |= {f"{MEAN} {label}": found[score].mean() for score, label in SCORES.items()}
        ours[str(method)] = line
    if dataset in STRIDED:
        columns += [f"{MEAN} {label}" for label in SCORES.values()]
    table = pd.concat(
        [pd.DataFrame.from_dict(lines, orient="index"), labelled(pd.DataFrame.from_dict(ours, orient="index"))]
    )
    table = table.reindex(columns=[*columns, "CPU s"]).dropna(how="all")
    return markdown(table, {"CPU s": 0}, dict.fromkeys(columns, True))


def whole_table(rows: pd.DataFrame, score: str) -> str:
    """Make the table of methods x sets of one pattern that are completed whole."""
    table = rows.pivot_table(index="method", columns="dataset", values=score)
    table["mean"] = table.mean(axis=1, skipna=False)
    table["CPU s"] = rows.groupby("method")["cpu_seconds"].sum() / rows["seed"].nunique()
    return markdown(
        labelled(table),
        {**dict.fromkeys(table.columns, 4), "CPU s": 0},
        {name: True for name in table if name != "CPU s"},
    )


def report(files: list[Path]) -> str:
    """Make a table for each set of windows, and one for each pattern of the sets that are completed whole."""
    rows = read_table(files, Run._fields, [*SCORES, "cpu_seconds", "windows", "steps"])
    good = rows[rows["status"] == "ok"]
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    parts = [
        f"Errors on the hidden cells in standard deviations of the training part, seeds {seeds}. Published: taken from "
        "the papers (TimesNet: Wu et al. 2023; GPT4TS: Zhou et al. 2023; the others: TSI-Bench, Du et al. 2024), not "
        "run here. CPU s: processor seconds of fit and imputation, all columns."
    ]
    for dataset, protocol in PROTOCOLS.items():
        for stride, chosen in good[good["dataset"] == dataset].groupby("stride"):
            look = "" if stride == 1 else f"; every {stride}th window, a quick look"
            about = f"**{dataset}**, {chosen['windows'].iloc[0]:,} {protocol}{look}:"
            parts += [about, set_table(dataset, chosen)]
    whole = good[good["dataset"].isin(list(WHOLE))]
    for (pattern, fraction), chosen in whole.groupby(["pattern", "fraction"]):
        for score, label in SCORES.items():
            about = f"**ImputeGAP's sets**, one series each, {setting(pattern, fraction)} of the cells hidden, {label}:"
            parts += [about, whole_table(chosen, score)]
    parts += failures(rows, ["dataset", "pattern", "fraction", "method", "seed"])
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "impute-series")


if __name__ == "__main__":
    main()
