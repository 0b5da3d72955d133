"""Do detectors rank odd rows of a table above normal ones?

Contract: set, rows, protocol, missing share and seed fix the training and test rows and their holes, whatever the
method; a run whose row is in the file is not repeated. Run it as `python -m benchmarks.detect_tables --help`.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks.detect_packages import installed, needs
from benchmarks.detecting import METHODS
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

KEY = ("dataset", "rows", "protocol", "missing", "seed", "method")
PROTOCOLS = ("clean", "published", "contaminated")
LEAST_OUTLIERS = 30
"""Outliers that a sample of a large set keeps, if it has as many."""
RESAMPLED = 1_000
"""Rows that the published protocol draws with replacement from a smaller set."""
LABELS = {
    "knn": "kNN (5), mean distance",
    "knn-largest": "kNN (5), largest distance",
    "iforest": "isolation forest",
    "lof": "LOF (20)",
    "ocsvm": "one-class SVM",
    "mcd": "MCD",
    "pca": "PCA reconstruction",
    "hbos": "HBOS",
    "ecod": "ECOD",
    "autoencoder": "autoencoder (PyOD)",
    "lunar": "LUNAR (PyOD)",
    "deepsvdd": "Deep SVDD (PyOD)",
    "icl": "ICL (DeepOD), one network",
    "tabmae": "**TabMAEDetector**",
    "tabmae-distances": "its distances alone",
    "tabmae-network": "its network alone",
}
ABOUT = {
    "clean": "Rows shuffled, half of the normal ones for training, the others and all outliers for the test.",
    "published": "The published one-class protocol: the first half of the normal rows in the file's order for "
    "training, sets under 1,000 rows drawn again to 1,000 with replacement, so that test rows are copies of training "
    "rows.",
    "contaminated": "All rows for training and test, outliers included and unlabelled.",
}


ALARMS = (0.01, 0.05)
"""P-values at which the share of normal test rows that are flagged is counted."""
ALARM_NAMES = [f"alarms {level:.0%}" for level in ALARMS]


class Task(NamedTuple):
    """Training and test rows with holes, and which test rows are outliers; `same` where they are the same rows."""

    train: np.ndarray
    test: np.ndarray
    is_outlier: np.ndarray
    same: bool


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure detectors of odd rows on labelled sets.")
    default = [method for method in METHODS if installed(method)]
    about = f"default: all that are installed; here or beside tabmae in another environment, {needs(METHODS)}"
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=default, help=about)
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all of the folder")
    parser.add_argument(
        "--protocols",
        nargs="+",
        choices=PROTOCOLS,
        default=["clean"],
        help="how rows are split; published: as others do",
    )
    parser.add_argument("--missing", nargs="+", type=float, default=[0.0], help="share of all cells to hide")
    parser.add_argument("--data", type=Path, help="folder of NAME.npz or ad/NAME.npz, each with X (n, F) and y (n,)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--max-rows", type=int, default=10_000, help="rows sampled from a larger set by seed; 0: all")
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
        if read.data is None:
            parser.error("a run needs --data DIR with the sets")
        absent = needs(method for method in read.methods if not installed(method))
        if absent:
            parser.error(f"{absent}; not installed here")
    return read


def load_set(name: str, data: Path, max_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the rows, and which are outliers; at most `max_rows` (0: all), in the file's order."""
    with np.load(folder_of(data) / f"{name}.npz") as arrays:
        rows, is_outlier = arrays["X"].astype(np.float64), arrays["y"] == 1
    if not max_rows or len(rows) <= max_rows:
        return rows, is_outlier
    order = np.random.RandomState([seed, 2]).permutation(len(rows))
    chosen = order[:max_rows]
    lacking = LEAST_OUTLIERS - int(is_outlier[chosen].sum())
    if lacking > 0:
        more = order[max_rows:][is_outlier[order[max_rows:]]][:lacking]
        chosen = np.concatenate([chosen, more])
    chosen = np.sort(chosen)
    return rows[chosen], is_outlier[chosen]


def folder_of(data: Path) -> Path:
    return data / "ad" if (data / "ad").is_dir() else data


def make_task(rows: np.ndarray, is_outlier: np.ndarray, protocol: str, missing: float, seed: int) -> Task:
    """Split the rows as the protocol says, and hide the share `missing` of all cells."""
    if protocol == "published" and len(rows) < RESAMPLED:
        drawn = np.random.RandomState([seed, 5]).choice(len(rows), RESAMPLED)
        rows, is_outlier = rows[drawn], is_outlier[drawn]
    hidden = np.random.RandomState([seed, 4]).random_sample(rows.shape) < missing
    rows = np.where(hidden, np.nan, rows)
    if protocol == "contaminated":
        return Task(rows, rows, is_outlier, True)
    normal = np.flatnonzero(~is_outlier)
    if protocol == "clean":
        normal = np.random.RandomState([seed, 3]).permutation(normal)
    half = len(normal) // 2
    test = np.concatenate([normal[half:], np.flatnonzero(is_outlier)])
    return Task(rows[normal[:half]], rows[test], is_outlier[test], False)


def run_row(task: Task, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Score the test rows in a process of its own, and judge the scores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"method": method, "seed": seed, "same": task.same}))
        np.savez(folder / "job.npz", train=task.train, test=task.test)
        command = [sys.executable, "-m", "benchmarks.detecting", str(folder)]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        if failure:
            return failure
        measured = json.loads((folder / "result.json").read_text())
        scores = np.load(folder / "scores.npy")
        if (folder / "p_values.npy").exists():
            normal = np.load(folder / "p_values.npy")[~task.is_outlier]
            measured |= {name: float((normal <= level).mean()) for name, level in zip(ALARM_NAMES, ALARMS, strict=True)}
    if not np.isfinite(scores).all():
        return {"status": "failed", "reason": f"{int((~np.isfinite(scores)).sum())} scores are not finite", **measured}
    auroc, auprc = roc_auc_score(task.is_outlier, scores), average_precision_score(task.is_outlier, scores)
    return {"status": "ok", "auroc": float(auroc), "auprc": float(auprc), **measured}


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    names = arguments.sets or sorted(path.stem for path in folder_of(arguments.data).glob("*.npz"))
    for protocol in arguments.protocols:
        for missing in arguments.missing:
            for seed in arguments.seeds:
                for method in arguments.methods:
                    for name in names:
                        rows, is_outlier = load_set(name, arguments.data, arguments.max_rows, seed)
                        key = dict(zip(KEY, (name, len(rows), protocol, missing, seed, method), strict=True))
                        if tuple(key.values()) in done:
                            continue
                        task = make_task(rows, is_outlier, protocol, missing, seed)
                        about = {**key, "columns": rows.shape[1], "outliers": int(is_outlier.sum())}
                        row = {**about, **about_run(arguments), **run_row(task, method, seed, arguments)}
                        append_rows(arguments.out, [row])
                        found = row.get("reason") or f"AUROC {row['auroc']:.3f} AUPRC {row['auprc']:.3f}"
                        print(f"{name} {protocol} {missing:g} seed {seed} {method}: {found}", flush=True)


def report(files: list[Path]) -> str:
    """Make a table for each protocol and missing share, and one more for methods that were not run on all seeds."""
    rows = read_table(files, KEY, ["auroc", "auprc", "seconds", "cpu_seconds", "status", *ALARM_NAMES])
    parts = []
    for _, runs in rows.groupby(["protocol", "missing"], sort=False):
        seeds_of = runs.groupby("method")["seed"].agg(set)
        fewer = seeds_of[seeds_of.map(len) < runs["seed"].nunique()]
        parts += section(runs[~runs["method"].isin(fewer.index)])
        if len(fewer):
            parts += section(runs[runs["seed"].isin(set.intersection(*fewer))])
    return "\n\n".join(parts)


def section(runs: pd.DataFrame) -> list[str]:
    """Make the table of the runs of one protocol and missing share; means are over the runs that all methods have."""
    protocol, missing = str(runs["protocol"].iloc[0]), float(runs["missing"].iloc[0])
    good = runs[runs["status"] == "ok"]
    methods = [method for method in (*LABELS, *good["method"]) if (good["method"] == method).any()]
    table = good.pivot_table(index=["dataset", "rows", "seed"], columns="method", values=["auroc", "auprc"])
    whole = table.dropna().groupby("dataset").mean()
    lines = {}
    for method in dict.fromkeys(methods):
        spent = good[good["method"] == method]
        lines[LABELS.get(method, method)] = {
            "AUROC": 100 * whole["auroc"][method].mean(),
            "AUPRC": 100 * whole["auprc"][method].mean(),
            "rank by AUROC": whole["auroc"].rank(axis=1, ascending=False)[method].mean(),
            "median s": spent["seconds"].median(),
            "mean s": spent["seconds"].mean(),
        }
        if protocol == "clean" and spent[ALARM_NAMES].notna().any(axis=None):
            lines[LABELS.get(method, method)] |= {name: 100 * spent[name].mean() for name in ALARM_NAMES}
    seeds = ", ".join(str(seed) for seed in sorted(runs["seed"].unique()))
    holes = f", {missing:.0%} of all cells hidden" if missing else ""
    about = f"**{protocol.capitalize()}{holes}.** {ABOUT[protocol]} {len(whole)} sets of up to "
    about += f"{runs['rows'].max():,} rows, seeds {seeds}; {len(table.dropna())} of {len(table)} runs that all have."
    if any(set(ALARM_NAMES) & set(line) for line in lines.values()):
        about += " Alarms: normal test rows with p-values of at most 1 and 5 %, in per cent."
    digits = {"AUROC": 1, "AUPRC": 1, "rank by AUROC": 1, "median s": 1, "mean s": 1, **dict.fromkeys(ALARM_NAMES, 2)}
    best = {"AUROC": False, "AUPRC": False, "rank by AUROC": True}
    table_of_lines = markdown(pd.DataFrame.from_dict(lines, orient="index"), digits, best)
    return [about, table_of_lines, *failures(runs, ["dataset", "method", "seed"])]


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "detect")


if __name__ == "__main__":
    main()
