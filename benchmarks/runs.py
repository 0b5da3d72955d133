"""A method's run in a process of its own, and the JSONL file of rows that a benchmark goes on from.

Contract: rows are appended when their run has ended, and a run whose key is in the file is not repeated.
"""

import argparse
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.cells import Hidden
from benchmarks.markdown import markdown, show

ROOT = Path(__file__).resolve().parent.parent
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def add_options(parser: argparse.ArgumentParser, max_rows: int | None = None) -> None:
    """Add the options that every benchmark shares; those of stored tables where `max_rows` gives their limit."""
    parser.add_argument("--out", type=Path, help="JSONL file to append to, and to resume from")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a run may take")
    parser.add_argument("--n-jobs", type=int, default=2, help="trees or models that a method may fit at once")
    parser.add_argument("--threads", type=int, default=2, help="OpenMP and BLAS threads; 1 on a machine that is shared")
    parser.add_argument("--hyperimpute-python", type=Path, help="interpreter of the environment of hyperimpute")
    parser.add_argument("--retry-failed", action="store_true", help="repeat runs that failed or ran out of time")
    if max_rows is not None:
        parser.add_argument("--data", type=Path, help="folder of NAME.parquet or tab/NAME.parquet; default: bundled")
        parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        parser.add_argument(
            "--max-rows", type=int, default=max_rows, help="rows sampled from a larger table by seed; 0: all"
        )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a benchmark that makes its own table."""
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE", help="run nothing; print the table of rows")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="with --report: write it between a page's markers")


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with a message where the shared options do not go together, and make the folder of the rows."""
    if arguments.out is None:
        parser.error("a run needs --out FILE for its rows")
    if "hyperimpute" in arguments.methods and arguments.hyperimpute_python is None:
        parser.error("hyperimpute needs --hyperimpute-python, see requirements-hyperimpute.txt")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)


def run_or_report(
    read: argparse.Namespace,
    run_all: Callable[[argparse.Namespace], None],
    make_report: Callable[[], str],
    section: str,
) -> None:
    """Do what the arguments of a benchmark that makes its own table ask for."""
    if read.report:
        show(make_report(), read.write, section)
    else:
        run_all(read)


def failures(rows: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Paragraphs that tell which runs ended without a result, by these columns, and why; none where all did."""
    failed = rows[rows["status"] != "ok"][[*names, "status", "reason"]]
    return [] if failed.empty else ["Runs without a result:", markdown(failed.astype(str).set_index(names[0]), {}, {})]


def finished_keys(out: Path, key: Sequence[str], retry_failed: bool) -> set[tuple[Any, ...]]:
    """Give the keys of the runs whose rows are written."""
    rows = read_lines([out]) if out.exists() else []
    return {tuple(row[part] for part in key) for row in rows if row["status"] == "ok" or not retry_failed}


def read_lines(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Give the rows of JSONL files, compressed ones (`.gz`) too."""
    texts = (
        gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text() for file in files
    )
    return [json.loads(line) for text in texts for line in text.splitlines()]


def read_table(files: Iterable[Path], key: Sequence[str], columns: Sequence[str] = ()) -> pd.DataFrame:
    """Give the rows as a table; of rows of one key the last one counts. `columns` are there even if no row has them."""
    table = pd.DataFrame([{"reason": "", **row} for row in read_lines(files)])
    return table.reindex(columns=list(dict.fromkeys([*table, *columns]))).drop_duplicates(list(key), keep="last")


def append_rows(out: Path, rows: Iterable[dict[str, Any]]) -> None:
    with out.open("a") as lines:
        lines.write("".join(json.dumps(row) + "\n" for row in rows))


def about_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Say under which limits, on which commit and when a run was done."""
    finished = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    limits = {"n_jobs": arguments.n_jobs, "threads": arguments.threads}
    return {**limits, "commit": git_commit(), "finished": finished}


def git_commit() -> str | None:
    """Give the commit, with a plus sign where files differ from it."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "") if commit.returncode == 0 else None


def run_method(
    cells: Hidden, method: str, seed: int, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run a method in a process: fit and complete the training rows, then complete the others.

    Returns
    -------
    measured : costs and versions, or the status and reason of a run without a result.
    imputed : completed codes of "train" and, where the method has new rows and takes them, "test"; empty without one.
    """
    python = str(arguments.hyperimpute_python) if method == "hyperimpute" else sys.executable
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"method": method, "seed": seed, "n_jobs": arguments.n_jobs, "names": cells.names, "levels": cells.levels}
        (folder / "job.json").write_text(json.dumps(job))
        np.savez(folder / "job.npz", train=cells.visible(cells.train_rows), test=cells.visible(cells.test_rows))
        failure = run_worker([python, "-m", "benchmarks.worker", str(folder)], arguments.timeout, arguments.threads)
        if failure:
            return failure, {}
        files = {part: folder / f"{part}.npy" for part in ("train", "test")}
        imputed = {part: np.load(file) for part, file in files.items() if file.exists()}
        return json.loads((folder / "result.json").read_text()), imputed


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
