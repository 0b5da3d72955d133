"""What time buys at which size: fit and transform of generated tables, with the error on the hidden cells.

Contract: a size has the same table and hidden cells for every method; a method that ran out of time is not tried on
larger tables. Run it as `python -m benchmarks.sizes --help`.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.cells import Hidden, hide_cells, score_cells
from benchmarks.markdown import LABELS, markdown
from benchmarks.runs import (
    about_run,
    add_options,
    add_report_options,
    append_rows,
    check_options,
    finished_keys,
    read_table,
    run_method,
    run_or_report,
)
from benchmarks.worker import METHODS

KEY = ("rows", "columns", "new_rows", "fraction", "seed", "method")
N_FACTORS, NOISE = 5, 0.3
CATEGORY_EVERY, N_LEVELS = 5, 4
CLOCKS = {"cpu": "processor seconds", "wall": "seconds on the clock"}


class Size(NamedTuple):
    """Rows to fit and complete, columns, and new rows to complete afterwards."""

    rows: int
    columns: int
    new_rows: int


GRID = [Size(rows, columns, 0) for columns in (10, 50, 200) for rows in (200, 2_000, 20_000, 200_000)]
NEW_ROWS = Size(5_000, 20, 100_000)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the time of imputation methods on tables of growing size.")
    default = ["tabmae", "iterative", "knn", "miceforest", "missforest"]
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=default)
    parser.add_argument("--rows", nargs="+", type=int, help="only these numbers of rows of the grid")
    parser.add_argument("--columns", nargs="+", type=int, help="only these numbers of columns of the grid")
    parser.add_argument("--new-rows-methods", nargs="*", choices=list(METHODS), default=["tabmae"], metavar="METHOD")
    parser.add_argument("--fraction", type=float, default=0.2, help="share of the cells to hide, MCAR")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--clock", choices=list(CLOCKS), default="cpu", help="the seconds that the report shows")
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
    return read


def generate_table(n_rows: int, n_columns: int, seed: int) -> pd.DataFrame:
    """Generate a table that five hidden factors drive through curves; every fifth column is a category of four levels.

    A number is a sine of its own mix of the factors, at deviation 1, and noise of deviation .3; a category is the
    largest of four such numbers.
    """
    rng = np.random.default_rng([seed, n_rows, n_columns])
    factors = rng.standard_normal((n_rows, N_FACTORS))
    columns: dict[str, np.ndarray | pd.Categorical] = {}
    for position in range(n_columns):
        is_category = position % CATEGORY_EVERY == CATEGORY_EVERY - 1
        width = N_LEVELS if is_category else 1
        mixed = factors @ rng.standard_normal((N_FACTORS, width)) / np.sqrt(N_FACTORS) + rng.standard_normal(width)
        curves = np.sin(mixed)
        values = (curves - curves.mean(axis=0)) / curves.std(axis=0) + NOISE * rng.standard_normal(curves.shape)
        columns[f"c{position}"] = (
            pd.Categorical.from_codes(values.argmax(axis=1), categories=list("abcd")) if is_category else values[:, 0]
        )
    return pd.DataFrame(columns)


def hide_size(size: Size, fraction: float, seed: int) -> Hidden:
    """Generate a table of a size and hide cells of it; the first rows are fitted on, the new ones follow."""
    frame = generate_table(size.rows + size.new_rows, size.columns, seed)
    return replace(hide_cells(frame, "mcar", fraction, seed), is_train=np.arange(len(frame)) < size.rows)


def too_large(size: Size, timeouts: list[Size]) -> bool:
    """Tell whether a table of no more rows and columns ran out of time already."""
    return any(late.rows <= size.rows and late.columns <= size.columns for late in timeouts)


def run_size(size: Size, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a method on a table of a size and give its scores and costs, or why there are none."""
    cells = hide_size(size, arguments.fraction, seed)
    measured, imputed = run_method(cells, method, seed, arguments)
    part, rows = ("test", cells.test_rows) if size.new_rows else ("train", cells.train_rows)
    if part not in imputed:
        return {"cells": cells.digest, "status": "failed", "reason": "no form for new rows", **measured}
    left = int(np.isnan(imputed[part][cells.hidden[rows]]).sum())
    if left:
        return {"cells": cells.digest, **measured, "status": "failed", "reason": f"{left} hidden cells left missing"}
    return {"cells": cells.digest, "status": "ok", **score_cells(cells, rows, imputed[part]), **measured}


def all_runs(arguments: argparse.Namespace) -> Iterator[tuple[str, int, Size]]:
    """Order the runs by method and size, so that a size that takes too long comes before the larger ones."""
    rows, columns = arguments.rows, arguments.columns
    chosen = [
        size for size in GRID if size.rows in (rows or [size.rows]) and size.columns in (columns or [size.columns])
    ]
    for method in dict.fromkeys([*arguments.methods, *arguments.new_rows_methods]):
        for seed in arguments.seeds:
            for size in chosen if method in arguments.methods else []:
                yield method, seed, size
            if method in arguments.new_rows_methods:
                yield method, seed, NEW_ROWS


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    late: dict[str, list[Size]] = {}
    if arguments.out.exists():
        written = read_table([arguments.out], KEY)
        for row in written[(written["status"] == "timeout") & (written["new_rows"] == 0)].itertuples():
            late.setdefault(row.method, []).append(Size(row.rows, row.columns, row.new_rows))
    for method, seed, size in all_runs(arguments):
        if (*size, arguments.fraction, seed, method) in done:
            continue
        if too_large(size, late.get(method, [])) and not size.new_rows:
            row = {"status": "skipped", "reason": "ran out of time on a smaller table"}
        else:
            row = run_size(size, method, seed, arguments)
        if row["status"] == "timeout":
            late.setdefault(method, []).append(size)
        about = {**size._asdict(), "fraction": arguments.fraction, "seed": seed, "method": method}
        append_rows(arguments.out, [{**about, **about_run(arguments), **row}])
        outcome = row.get("reason") or f"{row['cpu_seconds']:.1f} s, nrmse {row['nrmse']:.3f}"
        print(f"{size.rows} x {size.columns} + {size.new_rows} seed {seed} {method}: {outcome}", flush=True)


def report(files: list[Path], clock: str) -> str:
    """Make the tables of sizes x methods, "seconds (NRMSE)"."""
    costs = ["fit_seconds", "transform_seconds", "cpu_seconds", "transform_cpu_seconds", "nrmse", "accuracy"]
    rows = read_table(files, KEY, [*costs, "threads"])
    rows["seconds"] = rows["cpu_seconds"] if clock == "cpu" else rows["fit_seconds"] + rows["transform_seconds"]
    new = rows["new_rows"] > 0
    columns = ["rows", "columns", "method"]
    cells = {key: _entry(runs) for key, runs in rows[~new].groupby(columns)}
    methods = [method for method in dict.fromkeys([*LABELS, *rows["method"]]) if method in set(rows[~new]["method"])]
    sizes = sorted({(n_rows, n_columns) for n_rows, n_columns, _ in cells}, key=lambda size: size[::-1])
    table = pd.DataFrame(
        [[cells.get((*size, method), "") for method in methods] for size in sizes],
        index=[f"{n_rows:,} x {n_columns}" for n_rows, n_columns in sizes],
        columns=[LABELS.get(method, method) for method in methods],
    )
    about = (
        f"Generated tables, rows x columns, every fifth column a category, {rows['fraction'].iloc[0]:.0%} of the cells "
        f"hidden (MCAR): {CLOCKS[clock]} of fit and transform (NRMSE on the hidden cells), "
        f"{' and '.join(str(n) for n in sorted(rows['threads'].unique()))} thread(s)."
    )
    parts = [about, markdown(table, {}, {})]
    for _, run in rows[new & (rows["status"] == "ok")].iterrows():
        seconds = run["transform_cpu_seconds"] if clock == "cpu" else run["transform_seconds"]
        parts.append(
            f"{LABELS.get(run['method'], run['method'])}, fitted on {run['rows']:,} x {run['columns']}, completes "
            f"{run['new_rows']:,} new rows in {seconds:.1f} {CLOCKS[clock]} (NRMSE {run['nrmse']:.3f})."
        )
    return "\n\n".join(parts)


def _entry(runs: pd.DataFrame) -> str:
    """Show the mean of the runs of one size and method, or why there is none."""
    fine = runs[runs["status"] == "ok"]
    if fine.empty:
        status = str(runs["status"].iloc[-1])
        return {"timeout": str(runs["reason"].iloc[-1])}.get(status, status)
    seconds = fine["seconds"].mean()
    return f"{seconds:,.{0 if seconds >= 10 else 1}f} ({fine['nrmse'].mean():.3f})"


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report, read.clock), "sizes")


if __name__ == "__main__":
    main()
