"""Do intervals hold their share of hidden cells, and do draws look like the truth?

Contract: table, fraction and seed fix the hidden cells, the rows that are compared and the directions that they are
projected on, whatever the method; a run whose row is in the file is not repeated. Run it as
`python -m benchmarks.draws --help`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist, pdist

from benchmarks.cells import Hidden, hide_cells
from benchmarks.drawing import DRAWING, LEVELS, N_DRAWS
from benchmarks.markdown import LABELS, markdown
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
from benchmarks.tables import load_table, table_names

KEY = ("dataset", "rows", "fraction", "seed", "method")
MAX_COMPARED = 1_000
"""Rows whose distances to one another are taken."""

N_DIRECTIONS = 200
ROUNDING = 1e-5
"""Standard deviations by which a bound may miss a cell, for methods that compute in single precision."""

FEW_VALUES = 16
"""Columns of no more values have a line of their own: an interval that ends on values holds all of both, and no bound
can be set between them."""

LEAST_CELLS = 10
"""Hidden cells that a column needs for its coverage."""

QUANTILES: dict[str, Literal["weibull", "linear"]] = {"type 6": "weibull", "type 7": "linear"}
"""Quantiles that make an interval of m draws: type 6 holds its share of cells if they are exchangeable with the draws,
as far as the outermost two can; type 7, NumPy's default, holds less, .86 instead of .95 with 20 draws.

Source: Hyndman and Fan 1996.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure intervals and draws on the same hidden cells.")
    parser.add_argument("--methods", nargs="+", choices=list(DRAWING), default=list(DRAWING))
    names = "names, 'evidence' for the sixteen, or 'all'"
    parser.add_argument("--tables", nargs="+", default=["all"], help=names)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.3], help="share of the known cells to hide")
    add_options(parser, max_rows=2000)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
    return read


def interval_scores(cells: Hidden, rows: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> dict[str, Any]:
    """Score bounds (levels, n, F) of `rows` on their hidden numeric cells.

    Returns
    -------
    A list by `LEVELS` each of `coverage`, the mean over columns, `continuous`, that of columns of more than
    `FEW_VALUES` values, None without one, `worst`, the lowest of a column, and `width`, in standard deviations of the
    column's known values; and `columns`, how many had the cells for it.
    """
    covered, width, many = [], [], []
    for column, n_levels in enumerate(cells.levels):
        chosen = cells.hidden[rows, column]
        scale = float(np.nanstd(cells.codes[:, column]))
        if n_levels or scale == 0 or chosen.sum() < LEAST_CELLS:
            continue
        truth, low, high = cells.codes[rows, column][chosen], lower[:, chosen, column], upper[:, chosen, column]
        slack = ROUNDING * scale
        covered.append(((low - slack <= truth) & (truth <= high + slack)).mean(axis=1))
        width.append((high - low).mean(axis=1) / scale)
        many.append(pd.Series(cells.codes[:, column]).nunique() > FEW_VALUES)
    if not covered:
        return {"columns": 0}
    shares, widths = np.array(covered), np.array(width)
    scores = {"coverage": shares.mean(axis=0), "worst": shares.min(axis=0), "width": widths.mean(axis=0)}
    continuous = shares[many].mean(axis=0).tolist() if any(many) else [None] * len(LEVELS)
    lists = {name: values.tolist() for name, values in scores.items()}
    return {"columns": len(covered), "continuous": continuous, **lists}


def all_intervals(cells: Hidden, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """Score the bounds of a method, "in" and "out" of sample, or those that its many draws make."""
    if "train" in found:
        return {
            side: interval_scores(cells, rows, found[split][:, 0], found[split][:, 1])
            for side, split, rows in (("in", "train", cells.train_rows), ("out", "test", cells.test_rows))
        }
    draws = found["draws"]
    if len(draws) == 1:
        return {}
    scores = {}
    for name, kind in QUANTILES.items():
        levels = np.array(LEVELS)
        lower, upper = (np.quantile(draws, (1 + side * levels) / 2, axis=0, method=kind) for side in (-1, 1))
        scores[f"in, {name}"] = interval_scores(cells, cells.train_rows, lower, upper)
    return scores


def embedded(cells: Hidden, codes: np.ndarray, numbers_alone: bool = False) -> np.ndarray:
    """Rows of codes (n, F) as points: numbers over the column's deviation, one-hot levels over the root of two."""
    blocks = []
    for column, n_levels in enumerate(cells.levels):
        scale = float(np.nanstd(cells.codes[:, column]))
        if n_levels == 0 and scale > 0:
            blocks.append(codes[:, [column]] / scale)
        elif n_levels and not numbers_alone:
            blocks.append(np.eye(n_levels)[codes[:, column].astype(np.int64)] / np.sqrt(2))
    return np.hstack(blocks) if blocks else np.zeros((len(codes), 0))


def energy_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Energy distance between samples of points (n, d), the root as in scipy's for one dimension.

    Source: Szekely and Rizzo 2013; the averages are over all pairs, a point and itself included.
    """
    within = sum(2 * pdist(points).sum() / len(points) ** 2 for points in (one, other))
    return float(np.sqrt(max(0.0, 2 * cdist(one, other).mean() - within)))


def sliced_wasserstein(one: np.ndarray, other: np.ndarray, rng: np.random.RandomState) -> float:
    """Mean over random directions of the mean distance between the sorted projections of (n, d) and (n, d).

    Source: Bonneel et al. 2015, of order one.
    """
    directions = rng.normal(size=(one.shape[1], N_DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    return float(np.abs(np.sort(one @ directions, axis=0) - np.sort(other @ directions, axis=0)).mean())


def draw_scores(cells: Hidden, draws: np.ndarray, seed: int) -> dict[str, float]:
    """Mean distance between true and completed training rows (m, n, F), on rows without natively missing cells."""
    truth = cells.codes[cells.train_rows]
    rows = np.flatnonzero(~np.isnan(truth).any(axis=1))
    rows = np.sort(np.random.RandomState([seed, 4]).permutation(rows)[:MAX_COMPARED])
    scores: dict[str, list[float]] = {"energy": [], "energy_numbers": [], "sliced": []}
    for completed in draws[:N_DRAWS]:
        one, other = (embedded(cells, codes[rows]) for codes in (truth, completed))
        scores["energy"].append(energy_distance(one, other))
        numbers = (embedded(cells, codes[rows], numbers_alone=True) for codes in (truth, completed))
        scores["energy_numbers"].append(energy_distance(*numbers))
        scores["sliced"].append(sliced_wasserstein(one, other, np.random.RandomState([seed, 5])))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def run_row(cells: Hidden, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Draw in a process of its own, and score."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"method": method, "seed": seed, "n_jobs": arguments.n_jobs, "names": cells.names, "levels": cells.levels}
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "job.npz", train=cells.visible(cells.train_rows), test=cells.visible(cells.test_rows))
        command = [sys.executable, "-m", "benchmarks.drawing", str(folder)]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        if failure:
            return failure
        with np.load(folder / "drawn.npz") as arrays:
            found = dict(arrays)
        measured = json.loads((folder / "result.json").read_text())
    left = int(np.isnan(found["draws"][:, cells.hidden[cells.train_rows]]).sum())
    if left:
        return {"status": "failed", "reason": f"{left} hidden cells left missing", **measured}
    point = {"point": draw_scores(cells, found["point"], seed)} if "point" in found else {}
    scores = {"draws": draw_scores(cells, found["draws"], seed), **point, "intervals": all_intervals(cells, found)}
    return {"status": "ok", "n_draws": len(found["draws"]), "interval_levels": LEVELS, **scores, **measured}


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for method in arguments.methods:
        for fraction in arguments.fractions:
            for seed in arguments.seeds:
                for name in table_names(arguments.tables, arguments.data, []):
                    frame = load_table(name, arguments.data, [], arguments.max_rows, seed)
                    if (name, len(frame), fraction, seed, method) in done:
                        continue
                    cells = hide_cells(frame, "mcar", fraction, seed)
                    key = dict(zip(KEY, (name, len(frame), fraction, seed, method), strict=True))
                    about = {**key, "columns": len(cells.names), "cells": cells.digest, **about_run(arguments)}
                    row = {**about, **run_row(cells, method, seed, arguments)}
                    append_rows(arguments.out, [row])
                    outcome = (
                        row.get("reason") or f"{row['cpu_seconds']:.1f} CPU s, energy {row['draws']['energy']:.3f}"
                    )
                    print(f"{name} seed {seed} {method}: {outcome}", flush=True)


def label(method: str, kind: str = "") -> str:
    return ", ".join(filter(None, (LABELS.get(method, method), kind)))


def report(files: list[Path]) -> str:
    """Make the tables of intervals and of distances; a mean over tables is over those that all methods finished."""
    columns = ["draws", "point", "intervals", "status", "fit_seconds", "draw_seconds", "cpu_seconds", "matching"]
    rows = read_table(files, KEY, columns)
    good = rows[rows["status"] == "ok"]
    methods = [method for method in dict.fromkeys([*LABELS, *good["method"]]) if (good["method"] == method).any()]
    runs = good.groupby(["dataset", "rows", "fraction", "seed"])["method"].nunique()
    whole = runs.index[runs == len(methods)]
    chosen = good[pd.MultiIndex.from_frame(good[["dataset", "rows", "fraction", "seed"]]).isin(whole)]
    about = (
        f"{chosen['dataset'].nunique()} tables of up to {rows['rows'].max():,} rows, seeds "
        f"{', '.join(str(seed) for seed in sorted(rows['seed'].unique()))}; MCAR "
        f"{', '.join(f'{share:.0%}' for share in sorted(rows['fraction'].unique()))} of the known cells hidden. Every "
        f"line is over the {len(whole)} of {len(runs)} runs that all methods finished."
    )
    intervals = interval_table(chosen, methods)
    widths = [name for name in intervals if name.startswith("width")]
    distances = distance_table(chosen, methods)
    best = {"energy": True, "energy, numbers": True, "sliced Wasserstein": True}
    parts = [
        about,
        "Coverage of hidden numeric cells (held: mean over columns, then tables; continuous: columns of more than "
        f"{FEW_VALUES} values; lowest: the worst column's), mean over tables:",
        markdown(intervals.drop(columns=widths), {}, {}),
        "Mean width in standard deviations:",
        markdown(intervals[widths], dict.fromkeys(widths, 2), {}),
        "Distance of completed from true training rows:",
        markdown(
            distances, {name: 0 for name in distances if name.startswith("best")} | {"wall s": 1, "CPU s": 1}, best
        ),
    ]
    unmatched = sorted(good.loc[good["matching"].eq(False), "dataset"].unique())
    if unmatched:
        parts.append(f"miceforest without mean matching, which failed: {', '.join(unmatched)}.")
    parts += failures(rows, ["dataset", "method", "seed"])
    return "\n\n".join(parts)


SHOWN = {"coverage": "held", "continuous": "continuous", "worst": "lowest", "width": "width"}


def interval_table(rows: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """A line for each method and kind of interval, a column for each level and score."""
    lines = {}
    for method in methods:
        scored = rows.loc[rows["method"] == method, ["dataset", "intervals"]]
        for kind in dict.fromkeys(kind for intervals in scored["intervals"] for kind in intervals):
            found = [
                {
                    "dataset": dataset,
                    **{
                        f"{short} {level:.0%}": intervals[kind][score][place]
                        for score, short in SHOWN.items()
                        for place, level in enumerate(LEVELS)
                    },
                }
                for dataset, intervals in scored.itertuples(index=False)
                if intervals[kind]["columns"]
            ]
            lines[label(method, kind)] = pd.DataFrame(found).groupby("dataset").mean().mean()
    return pd.DataFrame.from_dict(lines, orient="index")


def distance_table(rows: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """A line for each method, and one for the means of a method that draws; bests are counted among draws."""
    names = {"energy": "energy", "energy_numbers": "energy, numbers", "sliced": "sliced Wasserstein"}
    means = {}
    for method in methods:
        one = rows[rows["method"] == method]
        for kind in ("draws", "point"):
            scored = one.dropna(subset=kind)
            if len(scored):
                shown = "its means" if kind == "point" else ""
                scores = pd.DataFrame(list(scored[kind]), index=scored["dataset"]).groupby("dataset").mean()
                means[label(method, shown)] = scores
    drawn = [label(method) for method in methods]
    lines = {line: {shown: scores[name].mean() for name, shown in names.items()} for line, scores in means.items()}
    for name in ("energy", "sliced"):
        table = pd.DataFrame({line: means[line][name] for line in drawn})
        for line in drawn:
            lines[line][f"best of {len(table)} by {names[name]}"] = float((table.idxmin(axis=1) == line).sum())
    for method in methods:
        one = rows[rows["method"] == method]
        lines[label(method)] |= {
            "wall s": (one["fit_seconds"] + one["draw_seconds"]).mean(),
            "CPU s": one["cpu_seconds"].mean(),
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "draws")


if __name__ == "__main__":
    main()
