"""Forecast series by the field's splits, with and without holes in the history, and say how far the intervals hold.

Contract: data set, horizon, stride, pattern, share and seed fix the windows and the hidden cells, whatever the method;
hidden values are for scoring alone; a run whose row is in the file is not repeated. Run it as
`python -m benchmarks.forecast --help`.
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

from benchmarks.markdown import markdown, write_section
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
from benchmarks.series_data import FORECASTS, M4, M4_HORIZON, Outlook, hide_history, load_outlook
from benchmarks.series_peers import ENVIRONMENTS, FORECASTERS

HORIZONS = (96, 192, 336, 720)
LEVELS = (0.8, 0.95)
"""Shares of the coming values that intervals are asked to hold."""

N_SCORED = 256
"""Windows that are scored at once."""

PUBLISHED: dict[str, dict[str, dict[int, tuple[float, float]]]] = {
    "PatchTST/64": {
        "ETTh1": {96: (0.370, 0.400), 192: (0.413, 0.429), 336: (0.422, 0.440), 720: (0.447, 0.468)},
        "ETTm1": {96: (0.293, 0.346), 192: (0.333, 0.370), 336: (0.369, 0.392), 720: (0.416, 0.420)},
        "weather": {96: (0.149, 0.198), 192: (0.194, 0.241), 336: (0.245, 0.282), 720: (0.314, 0.334)},
    },
    "DLinear": {
        "ETTh1": {96: (0.375, 0.399), 192: (0.405, 0.416), 336: (0.439, 0.443), 720: (0.472, 0.490)},
        "ETTm1": {96: (0.299, 0.343), 192: (0.335, 0.365), 336: (0.369, 0.386), 720: (0.425, 0.421)},
        "weather": {96: (0.176, 0.237), 192: (0.220, 0.282), 336: (0.265, 0.319), 720: (0.323, 0.362)},
    },
}
"""MSE and MAE by horizon. Source: Nie et al. 2023, table 3; DLinear's are those of Zeng et al. 2023."""

LABELS = {
    "seasonal-naive": "seasonal naive",
    "ols": "least squares, context 336",
    "autotheta": "AutoTheta",
    "autoets": "AutoETS",
    "patchtst": "PatchTST, neuralforecast",
    "tabmae-interpolated": "TimeSeriesMAE, holes interpolated",
    "tabmae-experts": "TimeSeriesMAE, no network",
    "tabmae": "**TimeSeriesMAE**",
}
UNIVARIATE = ("autotheta", "autoets")
"""Methods that fit a model to each series, for M4 alone."""

WINDOWED = POINT_ONLY = ("patchtst",)
"""Methods for windows of one series, and methods without intervals."""


class Run(NamedTuple):
    """What fixes a row."""

    dataset: str
    horizon: int
    missing: float
    pattern: str
    stride: int
    intervals: bool
    seed: int
    method: str


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure forecasts of series.")
    parser.add_argument("--methods", nargs="+", choices=list(FORECASTERS), default=["seasonal-naive", "ols", "tabmae"])
    parser.add_argument("--data", type=Path, help="folder that holds ETT, weather and M4")
    parser.add_argument("--datasets", nargs="+", choices=list(FORECASTS), default=list(FORECASTS))
    horizons = f"steps ahead; {M4} has its {M4_HORIZON} whatever is given"
    parser.add_argument("--horizons", nargs="+", type=int, default=list(HORIZONS), help=horizons)
    parser.add_argument("--missing", nargs="+", type=float, default=[0.0], help="shares of the history's cells to hide")
    parser.add_argument("--pattern", nargs="+", choices=["points", "runs"], default=["points"])
    parser.add_argument("--stride", type=int, default=1, help="steps between test windows; 1 is the field's")
    parser.add_argument("--intervals", action="store_true", help="ask for intervals, too: rows of their own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    for package in ("statsforecast", "neuralforecast"):
        methods = ", ".join(method for method, needed in ENVIRONMENTS.items() if needed == package)
        parser.add_argument(f"--{package}-python", type=Path, help=f"interpreter of an environment for {methods}")
    add_options(parser)
    add_report_options(parser)
    short = "with --report: write one table of it between this page's markers"
    parser.add_argument("--short", type=Path, metavar="PAGE", help=short)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
        check_environments(parser, read)
        if read.short:
            parser.error("--short needs --report with the rows to write of")
    return read


def check_environments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a message where the data or the interpreter of a method's environment is not given."""
    if arguments.data is None:
        parser.error("a run needs --data DIR")
    for method in arguments.methods:
        package = ENVIRONMENTS.get(method)
        if package and getattr(arguments, f"{package}_python") is None:
            parser.error(f"{method} needs --{package}-python, see requirements-{package}.txt")


def interpreter(method: str, arguments: argparse.Namespace) -> str:
    """Name the interpreter that a method runs in."""
    return str(getattr(arguments, f"{ENVIRONMENTS[method]}_python")) if method in ENVIRONMENTS else sys.executable


def naive2(history: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """Repeat the last value (T,), seasonally adjusted where the season shows: the reference of the M4 competition.

    Source: Makridakis et al. 2020 and the competition's R code: a 90 % test of the autocorrelation, then a
    multiplicative decomposition by the centred moving average.
    """
    centred = history - history.mean()
    lags = np.array([centred[lag:] @ centred[: len(centred) - lag] for lag in range(1, season + 1)])
    lags = lags / max(centred @ centred, np.finfo(float).tiny)
    limit = 1.645 * np.sqrt((1 + 2 * (lags[:-1] ** 2).sum()) / len(history))
    if len(history) < 3 * season or abs(lags[-1]) <= limit:
        return np.repeat(history[-1], horizon)
    weights = np.r_[0.5, np.ones(season - 1), 0.5] / season
    half = season // 2
    ratio = np.full(len(history), np.nan)
    ratio[half : len(history) - half] = history[half : len(history) - half] / np.convolve(history, weights, "valid")
    padded = np.pad(ratio, (0, -len(ratio) % season), constant_values=np.nan).reshape(-1, season)
    shape = np.nanmean(padded, axis=0)
    shape /= shape.mean()
    at = np.arange(len(history) - 1, len(history) + horizon) % season
    return history[-1] / shape[at[0]] * shape[at[1:]]


def m4_scores(point: np.ndarray, truth: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    """Symmetric percentage error and scaled error of each series (n,)."""
    error = np.abs(point - truth)
    smape = 200 * error / np.maximum(np.abs(point) + np.abs(truth), np.finfo(float).tiny)
    return {"smape": smape.mean(axis=(1, 2)), "mase": error.mean(axis=(1, 2)) / scale}


def interval_scores(found: np.ndarray, truth: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    """Score bounds (n, 1 + 2 * levels, H, C) by window: coverage, width, interval score and their weighted sum.

    Source: Gneiting and Raftery 2007; the weighted interval score, which nears the continuous ranked probability score,
    Bracher et al. 2021.
    """
    scores = {}
    total = np.abs(found[:, 0] - truth).mean(axis=(1, 2)) / 2
    for place, level in enumerate(LEVELS):
        low, high = found[:, 1 + 2 * place], found[:, 2 + 2 * place]
        beyond = np.maximum(low - truth, 0) + np.maximum(truth - high, 0)
        score = (high - low + 2 / (1 - level) * beyond).mean(axis=(1, 2))
        total += (1 - level) / 2 * score
        scores[f"coverage {level:.0%}"] = ((low <= truth) & (truth <= high)).mean(axis=(1, 2))
        scores[f"width {level:.0%}"] = (high - low).mean(axis=(1, 2)) / scale
        scores[f"score {level:.0%}"] = score / scale
    return {**scores, "WIS": total / (len(LEVELS) + 0.5) / scale}


def score_forecasts(outlook: Outlook, found: np.ndarray, is_m4: bool) -> dict[str, Any]:
    """Score forecasts (n, 1 + 2 * levels, H, C) of all windows; those of M4 over the error of its seasonal naive."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(found), N_SCORED):
        chosen = slice(start, start + N_SCORED)
        part, truth = found[chosen].astype(np.float64), outlook.truth(chosen)
        if left := int(np.isnan(part).sum()):
            return {"status": "failed", "reason": f"{left} forecasts missing"}
        scale = (
            np.array([naive_error(outlook, number) for number, _ in outlook.origins[chosen]]) if is_m4 else np.ones(1)
        )
        error = part[:, 0] - truth
        plain = {"mse": (error**2).mean(axis=(1, 2)), "mae": np.abs(error).mean(axis=(1, 2))}
        scores = m4_scores(part[:, 0], truth, scale) if is_m4 else plain
        parts.append({**scores, **(interval_scores(part, truth, scale) if part.shape[1] > 1 else {})})
    means = {name: float(np.concatenate([part[name] for part in parts]).mean()) for name in parts[0]}
    if not is_m4:
        return {"status": "ok", **means}
    smape, mase = m4_reference(outlook)
    owa = (means["smape"] / smape + means["mase"] / mase) / 2
    return {"status": "ok", **means, "owa": owa, "naive2_smape": smape, "naive2_mase": mase}


def naive_error(outlook: Outlook, number: int) -> float:
    """Mean absolute error of the seasonal naive within the true history of a series."""
    history = outlook.series[number][: outlook.n_fitted[number]]
    return float(np.abs(history[outlook.season :] - history[: -outlook.season]).mean())


def m4_reference(outlook: Outlook) -> tuple[float, float]:
    """Errors of Naive2 on the true histories, which OWA is over."""
    whole = slice(0, len(outlook.origins))
    histories = [outlook.series[number][:step, 0] for number, step in outlook.origins]
    point = np.stack([naive2(history, outlook.season, outlook.horizon)[:, None] for history in histories])
    scale = np.array([naive_error(outlook, number) for number, _ in outlook.origins])
    scores = m4_scores(point, outlook.truth(whole), scale)
    return float(scores["smape"].mean()), float(scores["mase"].mean())


def run_row(run: Run, outlook: Outlook, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit and forecast in a process of its own, and score."""
    levels = list(LEVELS) if run.intervals else []
    task = {"horizon": outlook.horizon, "season": outlook.season, "freq": outlook.freq, "n_train": outlook.n_train}
    job = {
        "kind": "forecast",
        "method": run.method,
        "seed": run.seed,
        "n_jobs": arguments.n_jobs,
        "n_fitted": outlook.n_fitted,
        "task": {**task, "levels": levels},
    }
    last = pd.DataFrame(outlook.origins).groupby(0)[1].max()
    seen: dict[str, Any] = {f"series{number}": values[: last[number]] for number, values in enumerate(outlook.visible)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "job.npz", origins=outlook.origins, **seen)
        command = [interpreter(run.method, arguments), "-m", "benchmarks.series_peers", name]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        if failure:
            return failure
        shape = (len(outlook.origins), 1 + 2 * len(levels), outlook.horizon, outlook.series[0].shape[1])
        found = np.memmap(folder / "found.f32", dtype=np.float32, mode="r", shape=shape)
        return {
            **json.loads((folder / "result.json").read_text()),
            **score_forecasts(outlook, found, run.dataset == M4),
        }


def all_runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """Order the runs by method first; a method is left out where it has no form for a set or for intervals."""
    holes = [(share, pattern) for share in arguments.missing if share for pattern in arguments.pattern]
    if 0 in arguments.missing:
        holes = [(0.0, "none"), *holes]
    for method in arguments.methods:
        if arguments.intervals and method in POINT_ONLY:
            continue
        for dataset in arguments.datasets:
            if (method in UNIVARIATE and dataset != M4) or (method in WINDOWED and dataset == M4):
                continue
            for horizon in [M4_HORIZON] if dataset == M4 else arguments.horizons:
                stride = 1 if dataset == M4 else arguments.stride
                for share, pattern in holes:
                    for seed in arguments.seeds:
                        yield Run(dataset, horizon, share, pattern, stride, arguments.intervals, seed, method)


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, Run._fields, arguments.retry_failed)
    for run in all_runs(arguments):
        if run in done:
            continue
        outlook = load_outlook(run.dataset, arguments.data, run.horizon, run.stride)
        if run.missing:
            outlook = hide_history(outlook, run.pattern, run.missing, run.seed)
        about = {**run._asdict(), "windows": len(outlook.origins), "cells": outlook.digest, **about_run(arguments)}
        row = {**about, **run_row(run, outlook, arguments)}
        append_rows(arguments.out, [row])
        score = "smape" if run.dataset == M4 else "mse"
        outcome = row.get("reason") or f"{score} {row[score]:.4f}, {row['cpu_seconds']:.1f} CPU s"
        holes = f"{run.pattern} {run.missing:.0%}" if run.missing else "complete"
        print(f"{run.dataset} {run.horizon} {holes} seed {run.seed} {run.method}: {outcome}", flush=True)


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Order the lines of methods and name them in full."""
    return table.loc[[method for method in LABELS if method in table.index]].rename(index=LABELS)


def about_windows(dataset: str, rows: pd.DataFrame) -> str:
    """Say how many windows a table is of, and where they begin."""
    stride, seeds = rows["stride"].iloc[0], ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    counts = ", ".join(f"{count:,}" for count in sorted(rows["windows"].unique(), reverse=True))
    where = (
        "every window of the test part" if stride == 1 else f"every {stride}th window of the test part, a quick look"
    )
    return f"**{dataset}**, {where} ({counts}), seeds {seeds}"


def window_table(dataset: str, rows: pd.DataFrame) -> str:
    """Make the table of methods and published figures x horizons."""
    horizons = sorted(rows["horizon"].unique())
    means = rows.groupby(["method", "horizon"])[["mse", "mae", "cpu_seconds"]].mean()
    names = {"mse": "MSE", "mae": "MAE"}
    lines: dict[str, dict[str, float]] = {
        f"{method} (published)": {
            f"{horizon} {name}": float(figures[dataset][horizon][place])
            for horizon in horizons
            for place, name in enumerate(names.values())
            if horizon in figures[dataset]
        }
        for method, figures in PUBLISHED.items()
    }
    ours = {}
    for method, found in means.groupby("method"):
        found = found.droplevel("method")
        scores = {f"{h} {name}": found[score].get(h) for h in horizons for score, name in names.items()}
        whole = len(found) == len(horizons)
        ours[method] = {**scores, "CPU s": found["cpu_seconds"].sum() if whole else None}
    columns = [*(f"{horizon} {name}" for horizon in horizons for name in names.values()), "CPU s"]
    table = pd.concat([pd.DataFrame.from_dict(lines, orient="index"), labelled(pd.DataFrame(ours).T)])[columns]
    for name in names.values() if len(horizons) > 1 else ():
        table.insert(
            table.shape[1] - 1, f"mean {name}", table[[f"{h} {name}" for h in horizons]].mean(axis=1, skipna=False)
        )
    best = {name: True for name in table if name.endswith(("MSE", "MAE"))}
    return markdown(table, {"CPU s": 0}, best)


def hole_table(rows: pd.DataFrame, score: str) -> str:
    """Make the table of methods x shares of hidden cells of a history."""
    rows = rows.sort_values(["pattern", "missing"])
    shares = [
        f"{pattern} {share:.0%}" if share else "none"
        for pattern, share in zip(rows["pattern"], rows["missing"], strict=True)
    ]
    table = rows.assign(holes=shares).pivot_table(index="method", columns="holes", values=score, sort=False)
    return markdown(labelled(table), {}, dict.fromkeys(table.columns, True))


def m4_table(rows: pd.DataFrame) -> str:
    reference = rows[["naive2_smape", "naive2_mase"]].iloc[0].to_list()
    names = {"smape": "sMAPE", "mase": "MASE", "owa": "OWA", "cpu_seconds": "CPU s"}
    table = labelled(rows.groupby("method")[list(names)].mean()).rename(columns=names)
    table.loc["Naive2"] = [*reference, 1.0, np.nan]
    return markdown(table, {"CPU s": 0}, {"sMAPE": True, "MASE": True, "OWA": True})


def interval_table(rows: pd.DataFrame) -> str:
    names = [f"{score} {level:.0%}" for level in LEVELS for score in ("coverage", "width", "score")]
    table = labelled(rows.groupby("method")[[*names, "WIS"]].mean())
    return markdown(table, {}, {name: True for name in table if name.startswith(("score", "WIS"))})


def report(files: list[Path]) -> str:
    """Make the tables: complete histories, holes, M4, intervals."""
    scores = ["mse", "mae", "smape", "mase", "owa", "naive2_smape", "naive2_mase", "WIS", "cpu_seconds", "windows"]
    rows = read_table(files, Run._fields, scores)
    good = rows[rows["status"] == "ok"]
    complete, point = good["missing"] == 0, ~good["intervals"].astype(bool)
    parts = [
        "MSE and MAE in standard deviations of the training part. Published: taken from Nie et al. 2023, table 3 "
        "(PatchTST/64: context 512, DLinear: 336), not run here. CPU s: processor seconds of fit and forecasts, all "
        "horizons."
    ]
    is_m4 = good["dataset"] == M4
    for (dataset, _), chosen in good[complete & point & ~is_m4].groupby(["dataset", "stride"]):
        parts += [about_windows(dataset, chosen) + ":", window_table(dataset, chosen)]
    m4 = good[is_m4 & complete].sort_values("intervals").drop_duplicates(["seed", "method"])
    if len(m4):
        about = f"**M4 hourly**, {m4['windows'].iloc[0]:,.0f} series, {M4_HORIZON} steps ahead"
        parts += [f"{about}; OWA is against Naive2, which is computed here:", m4_table(m4)]
    for (dataset, horizon, _), chosen in good[point].groupby(["dataset", "horizon", "stride"]):
        if chosen["missing"].any():
            about = f"{about_windows(dataset, chosen)}, {horizon} steps ahead, cells of the history hidden"
            for score, name in ({"mase": "MASE"} if dataset == M4 else {"mse": "MSE", "mae": "MAE"}).items():
                parts += [f"{about}, {name}:", hole_table(chosen, score)]
    for (dataset, horizon, _), chosen in good[complete & ~point].groupby(["dataset", "horizon", "stride"]):
        unit = "errors of the seasonal naive in the history" if dataset == M4 else "standard deviations"
        about = f"{about_windows(dataset, chosen)}, {horizon} steps ahead: intervals, widths and scores in {unit}"
        parts += [f"{about} (score: interval score; WIS: weighted, an estimate of CRPS):", interval_table(chosen)]
    parts += failures(rows, ["dataset", "horizon", "method", "seed"])
    return "\n\n".join(parts)


def short_report(files: list[Path]) -> str:
    """Make one table: the mean MSE over all horizons of each set, every window, and M4's OWA."""
    rows = read_table(files, Run._fields, ["mse", "owa"])
    whole = (rows["missing"] == 0) & (rows["stride"] == 1)
    lines: dict[str, dict[str, float]] = {
        f"{method} (published)": {
            f"{dataset} MSE": float(np.mean([mse for mse, _ in by_horizon.values()]))
            for dataset, by_horizon in figures.items()
        }
        for method, figures in PUBLISHED.items()
    }
    found: dict[str, dict[str, float]] = {}
    for (dataset, method), runs in rows[whole & (rows["status"] == "ok")].groupby(["dataset", "method"]):
        if dataset == M4:
            found.setdefault(method, {})["M4 hourly OWA"] = runs["owa"].mean()
        elif set(runs["horizon"]) >= set(HORIZONS):
            chosen = runs[runs["horizon"].isin(HORIZONS)]
            found.setdefault(method, {})[f"{dataset} MSE"] = chosen.groupby("horizon")["mse"].mean().mean()
    table = pd.concat([pd.DataFrame.from_dict(lines, orient="index"), labelled(pd.DataFrame(found).T)])
    horizons = ", ".join(map(str, HORIZONS))
    about = f"Mean squared error over the horizons {horizons} in standard deviations; M4's 48 steps against Naive2:"
    return f"{about}\n\n{markdown(table, {}, dict.fromkeys(table.columns, True))}"


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "forecast")
    if read.short:
        write_section(read.short, "forecast", short_report(read.report))


if __name__ == "__main__":
    main()
