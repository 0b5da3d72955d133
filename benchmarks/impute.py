"""Run methods x tables x mechanisms x fractions x seeds on the same hidden cells, one JSONL row a result.

Contract: each run is a process of its own; a row is written when its run has ended, and a run whose row is there is
not repeated. Run it as `python -m benchmarks.impute --help`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Hidden, hide_cells, score_cells
from benchmarks.tables import load_table, table_names
from benchmarks.worker import METHODS

ROOT = Path(__file__).resolve().parent.parent
KEY = ("dataset", "rows", "mechanism", "fraction", "seed", "method")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure imputation methods on the same hidden cells.")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to append to, and to resume from")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["mean", "knn", "iterative", "tabmae"])
    parser.add_argument("--tables", nargs="+", default=["all"], help="names, 'evidence' for the sixteen, or 'all'")
    parser.add_argument("--data", type=Path, help="folder of NAME.parquet or tab/NAME.parquet; default: bundled sets")
    parser.add_argument("--openml", nargs="+", default=[], metavar="NAME", help="tables to fetch from OpenML")
    parser.add_argument("--mechanisms", nargs="+", choices=["mcar", "mar", "mnar"], default=["mcar"])
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-rows", type=int, default=5000, help="rows sampled from a larger table by seed; 0: all")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a run may take")
    parser.add_argument("--n-jobs", type=int, default=2, help="trees or models that a method may fit at once")
    parser.add_argument("--threads", type=int, default=2, help="OpenMP and BLAS threads; 1 on a machine that is shared")
    parser.add_argument("--hyperimpute-python", type=Path, help="interpreter of the environment of hyperimpute")
    parser.add_argument("--retry-failed", action="store_true", help="repeat runs that failed or ran out of time")
    arguments_read = parser.parse_args(arguments)
    if "hyperimpute" in arguments_read.methods and arguments_read.hyperimpute_python is None:
        parser.error("hyperimpute needs --hyperimpute-python, see requirements-hyperimpute.txt")
    return arguments_read


def finished_keys(out: Path, retry_failed: bool) -> set[tuple[Any, ...]]:
    """Give the keys of the runs whose rows are written."""
    if not out.exists():
        return set()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return {tuple(row[part] for part in KEY) for row in rows if row["status"] == "ok" or not retry_failed}


def git_commit() -> str | None:
    """Give the commit, with a plus sign where files differ from it."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") if commit.returncode == 0 else None


def run_method(cells: Hidden, method: str, seed: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a method in a process and give a row for each split, or one row that says why there is no result."""
    rows_of = {"in": np.flatnonzero(cells.is_train), "out": np.flatnonzero(~cells.is_train)}
    python = str(arguments.hyperimpute_python) if method == "hyperimpute" else sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"method": method, "seed": seed, "n_jobs": arguments.n_jobs, "names": cells.names, "levels": cells.levels}
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "job.npz", train=cells.visible(rows_of["in"]), test=cells.visible(rows_of["out"]))
        failure = run_worker([python, "-m", "benchmarks.worker", str(folder)], arguments.timeout, arguments.threads)
        if failure:
            return [{"split": "in", **failure}]
        measured = json.loads((folder / "result.json").read_text())
        files = {"in": folder / "train.npy", "out": folder / "test.npy"}
        imputed = {split: np.load(file) for split, file in files.items() if file.exists()}
    rows = []
    for split, codes in imputed.items():
        left = int(np.isnan(codes[cells.hidden[rows_of[split]]]).sum())
        failed = {"status": "failed", "reason": f"{left} hidden cells left missing"}
        scored = failed if left else {"status": "ok", **score_cells(cells, rows_of[split], codes)}
        rows.append({"split": split, **scored, **measured})
    return rows


def run_worker(command: list[str], timeout: float, threads: int) -> dict[str, str] | None:
    """Run a worker with its threads limited; give the status and reason where it did not end well."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return {"status": "timeout", "reason": f"over {timeout:g} s"}
    if process.returncode == 0:
        return None
    lines = errors.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"]
    return {"status": "failed", "reason": lines[-1][:300]}


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
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    done = finished_keys(arguments.out, arguments.retry_failed)
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
            "n_jobs": arguments.n_jobs,
            "threads": arguments.threads,
            "commit": git_commit(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        for row in run_method(cells, method, seed, arguments):
            with arguments.out.open("a") as lines:
                lines.write(json.dumps({**about, **row}) + "\n")
            outcome = row.get("reason") or " ".join(
                f"{score} {row[score]:.3f}" for score in ("nrmse", "accuracy", "fit_seconds") if row[score] is not None
            )
            print(f"{name} {mechanism} {fraction:g} seed {seed} {method} {row['split']}: {outcome}", flush=True)


if __name__ == "__main__":
    main()
