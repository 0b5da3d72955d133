"""Run methods x tables x mechanisms x fractions x seeds on the same hidden cells, one JSONL row a result.

Contract: each run is a process of its own; a row is written when its run has ended, and a run whose row is there is
not repeated. Run it as `python -m benchmarks.impute --help`.
"""

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.cells import LEAST_NATURAL, MECHANISMS, Hidden, hide_cells, score_cells
from benchmarks.runs import about_run, add_options, append_rows, check_options, finished_keys, run_method
from benchmarks.tables import load_table, table_names
from benchmarks.worker import METHODS

KEY = ("dataset", "rows", "mechanism", "fraction", "seed", "method")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure imputation methods on the same hidden cells.")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["mean", "knn", "iterative", "tabmae"])
    names = "names, 'evidence' for the sixteen, 'natural' for those with holes of their own, or 'all'"
    parser.add_argument("--tables", nargs="+", default=["all"], help=names)
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=["mcar"])
    shares = "share of the known cells to hide; under 'natural' of the rows that get the holes of another row"
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.3], help=shares)
    parser.add_argument("--openml", nargs="+", default=[], metavar="NAME", help="tables to fetch from OpenML")
    add_options(parser, max_rows=5000)
    arguments_read = parser.parse_args(arguments)
    check_options(parser, arguments_read)
    return arguments_read


def run_rows(cells: Hidden, method: str, seed: int, arguments: argparse.Namespace, least: int) -> list[dict[str, Any]]:
    """Run a method and give a row for each split, or one row that says why there is no result."""
    measured, imputed = run_method(cells, method, seed, arguments)
    if not imputed:
        return [{"split": "in", **measured}]
    rows = []
    for part, codes in imputed.items():
        split, chosen = ("in", cells.train_rows) if part == "train" else ("out", cells.test_rows)
        left = int(np.isnan(codes[cells.hidden[chosen]]).sum())
        failed = {"status": "failed", "reason": f"{left} hidden cells left missing"}
        scored = failed if left else {"status": "ok", **score_cells(cells, chosen, codes, least)}
        rows.append({"split": split, **scored, **measured})
    return rows


def all_runs(arguments: argparse.Namespace) -> Iterable[tuple[str, str, str, float, int]]:
    """Order the runs by method first, so that the cheap ones listed first are done first."""
    names = table_names(arguments.tables, arguments.data, arguments.openml)
    for method in arguments.methods:
        for mechanism in arguments.mechanisms:
            for fraction in arguments.fractions:
                for seed in arguments.seeds:
                    for name in names:
                        yield method, name, mechanism, fraction, seed


def main() -> None:
    arguments = parse_arguments()
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for method, name, mechanism, fraction, seed in all_runs(arguments):
        frame = load_table(name, arguments.data, arguments.openml, arguments.max_rows, seed)
        if (name, len(frame), mechanism, fraction, seed, method) in done:
            continue
        cells = hide_cells(frame, mechanism, fraction, seed)
        about = {
            "dataset": name,
            "rows": len(frame),
            "columns": len(cells.names),
            "categories": sum(n_levels > 0 for n_levels in cells.levels),
            "mechanism": mechanism,
            "fraction": fraction,
            "seed": seed,
            "method": method,
            "cells": cells.digest,
            "hidden": float(cells.hidden.sum() / (~np.isnan(cells.codes)).sum()),
            **about_run(arguments),
        }
        least = LEAST_NATURAL if mechanism == "natural" else 1
        for row in run_rows(cells, method, seed, arguments, least):
            append_rows(arguments.out, [{**about, **row}])
            outcome = row.get("reason") or " ".join(
                f"{score} {row[score]:.3f}" for score in ("nrmse", "accuracy", "fit_seconds") if row[score] is not None
            )
            print(f"{name} {mechanism} {fraction:g} seed {seed} {method} {row['split']}: {outcome}", flush=True)


if __name__ == "__main__":
    main()
