"""Do detectors rank the odd stretches of a series above the others?

Contract: a series and its labels are the same for every method, and no method sees the labels; a run whose row is in
the file is not repeated. Run it as `python -m benchmarks.detect_series --help`.
"""

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score

from benchmarks.detect_packages import MODULES, autoencoder, import_module_of, installed, needs
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
from benchmarks.worker import cpu_seconds, peak_mb, versions
from tabmae.metrics import vus_pr

KEY = ("dataset", "series", "seed", "method")
WINDOW = 100
"""Steps of the peers' windows, a fifth of the training series at most."""
BUFFER = 100
"""Longest buffer of VUS-PR in steps."""
PCA_VARIANCE = 0.9
N_CLUSTERS = 20
MAX_LEARNT = 5000
"""Windows that a peer learns from, drawn by seed from more."""
ABOUT = {
    "NAB": "fitted to the series that is scored, unlabelled",
    "SMAP": "fitted to the training part, which is normal as far as known, and scored on the test part",
}
IN_DEVELOPMENT = {
    "NAB": (
        "artificialWithAnomaly/art_daily_flatmiddle.csv",
        "artificialWithAnomaly/art_increase_spike_density.csv",
        "realAWSCloudwatch/ec2_cpu_utilization_5f5533.csv",
        "realAWSCloudwatch/ec2_cpu_utilization_fe7f93.csv",
        "realAWSCloudwatch/ec2_network_in_5abac7.csv",
        "realAWSCloudwatch/rds_cpu_utilization_cc0c53.csv",
        "realKnownCause/ec2_request_latency_system_failure.csv",
        "realKnownCause/rogue_agent_key_updown.csv",
    ),
    "SMAP": (
        "A-1",
        "A-3",
        "A-5",
        "A-7",
        "A-9",
        "D-1",
        "D-12",
        "D-4",
        "D-8",
        "E-11",
        "E-3",
        "E-7",
        "F-2",
        "G-3",
        "P-1",
        "P-7",
        "T-2",
    ),
}
"""Series whose labels were looked at when the detector of series was made."""
LABELS = {
    "pca": "Sub-PCA, reconstruction error",
    "kmeans": "k-means of windows (KMeansAD)",
    "mahalanobis": "Mahalanobis distance of windows",
    "iforest": "isolation forest of windows",
    "autoencoder": "autoencoder of windows (PyOD)",
    "matrix-profile": "matrix profile (stumpy)",
    "matrix-profile-raw": "matrix profile, windows as they are",
    "tabmae": "**TimeSeriesMAE**",
    "tabmae-untrained": "TimeSeriesMAE(max_epochs=0)",
}

Scores = np.ndarray


class Task(NamedTuple):
    """Series to learn from and to score (T, C), and which steps of the latter are anomalous."""

    train: np.ndarray
    test: np.ndarray
    labels: np.ndarray


def windows_of(series: np.ndarray, window: int) -> np.ndarray:
    """All windows (T - W + 1, W * C) of a series, a view where there is one channel."""
    views = np.lib.stride_tricks.sliding_window_view(series, window, axis=0)
    return views.transpose(0, 2, 1).reshape(len(views), -1)


def over_windows(odd: np.ndarray, window: int) -> Scores:
    """Mean of what windows (n,) have, over those that hold each step (n + W - 1,)."""
    ones = np.ones(window)
    return np.convolve(odd, ones) / np.convolve(np.ones_like(odd), ones)


def pca(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    model = PCA(PCA_VARIANCE, random_state=seed).fit(train)
    return np.square(test - model.inverse_transform(model.transform(test))).sum(axis=1)


def kmeans(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    return KMeans(N_CLUSTERS, n_init=1, random_state=seed).fit(train).transform(test).min(axis=1)


def mahalanobis(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    covariance = np.cov(train, rowvar=False) + 1e-2 * np.eye(train.shape[1])
    gaps = test - train.mean(axis=0)
    return np.einsum("nd,nd->n", np.linalg.solve(covariance, gaps.T).T, gaps)


def iforest(train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


OF_WINDOWS: dict[str, Callable[[np.ndarray, np.ndarray, int], Scores]] = {
    "pca": pca,
    "kmeans": kmeans,
    "mahalanobis": mahalanobis,
    "iforest": iforest,
    "autoencoder": autoencoder,
}
OURS: dict[str, dict[str, Any]] = {"tabmae": {}, "tabmae-untrained": {"max_epochs": 0}}
OF_STUMPY = {"matrix-profile": True, "matrix-profile-raw": False}
"""Whether each window is put into standard deviations from its own mean, as is usual."""
METHODS = (*OF_WINDOWS, *OF_STUMPY, *OURS)


def matrix_profile(train: np.ndarray, test: np.ndarray, window: int, normalize: bool) -> Scores:
    """Distance of each window to the nearest other one, or to that of another series; the mean over the channels."""
    stump = import_module_of("matrix-profile").stump
    same = train.shape == test.shape and bool((train == test).all())
    pairs = zip(train.T.astype(np.float64), test.T.astype(np.float64), strict=True)
    found = [stump(b, window, None if same else a, ignore_trivial=same, normalize=normalize)[:, 0] for a, b in pairs]
    return np.nan_to_num(np.array(found, dtype=np.float64), posinf=0.0).mean(axis=0)


def compile_stumpy(normalize: bool) -> None:
    """Have the functions of stumpy compiled, which takes far longer than a run."""
    parts = np.random.RandomState(0).random_sample((2, 50, 1))
    for other in parts:
        matrix_profile(parts[0], other, 5, normalize)


def scores_of(method: str, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, Scores]:
    """Scores of the test steps (T,) by a method, and by its members where it has some."""
    if method in OURS:
        model = importlib.import_module("tabmae").TimeSeriesMAE(**OURS[method], random_state=seed).fit(train[None])
        answers = importlib.import_module("tabmae.estimators.series.detecting.answers")
        found = answers.judged(model, test[None])[1]
        return {"": found.scores, **dict(zip(model.detector_.member_names, found.of_members.T, strict=True))}
    centre, scale = train.mean(axis=0), train.std(axis=0)
    train, test = ((part - centre) / np.where(scale > 0, scale, 1) for part in (train, test))
    window = max(2, min(WINDOW, len(train) // 5))
    if method in OF_STUMPY:
        return {"": over_windows(matrix_profile(train, test, window, OF_STUMPY[method]), window)}
    learnt = windows_of(train, window)
    if len(learnt) > MAX_LEARNT:
        learnt = learnt[np.random.RandomState(seed).permutation(len(learnt))[:MAX_LEARNT]]
    return {"": over_windows(OF_WINDOWS[method](learnt, windows_of(test, window), seed), window)}


def series_names(dataset: str, data: Path) -> list[str]:
    """Names of the series of a data set that hold an anomaly."""
    if dataset == "SMAP":
        return sorted(path.stem for path in (data / "SMAP").glob("*.npz"))
    labels = json.loads((data / "NAB" / "labels" / "combined_windows.json").read_text())
    return sorted(name for name, odd in labels.items() if odd and (data / "NAB" / "data" / name).exists())


def load_series(dataset: str, name: str, data: Path) -> Task:
    if dataset == "SMAP":
        with np.load(data / "SMAP" / f"{name}.npz") as arrays:
            train, test = (arrays[part].astype(np.float64) for part in ("train", "test"))
            return Task(train, test, arrays["label"] > 0)
    table = pd.read_csv(data / "NAB" / "data" / name, parse_dates=["timestamp"])
    labels = np.zeros(len(table), dtype=bool)
    odd = json.loads((data / "NAB" / "labels" / "combined_windows.json").read_text())[name]
    for start, end in odd:
        labels |= table["timestamp"].between(pd.Timestamp(start), pd.Timestamp(end)).to_numpy()
    values = table[["value"]].to_numpy(np.float64)
    return Task(values, values, labels)


def judged(labels: np.ndarray, scores: Scores) -> dict[str, float]:
    return {"vus_pr": vus_pr(labels, scores, BUFFER), "auc_pr": float(average_precision_score(labels, scores))}


def run_row(task: Task, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Score the series in a process of its own, and judge the scores."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps({"method": method, "seed": seed}))
        np.savez(folder / "job.npz", train=task.train, test=task.test)
        command = [sys.executable, "-m", "benchmarks.detect_series", "--work", str(folder)]
        failure = run_worker(command, arguments.timeout, arguments.threads)
        if failure:
            return failure
        measured = json.loads((folder / "result.json").read_text())
        with np.load(folder / "scores.npz") as arrays:
            scores = {name: np.nan_to_num(arrays[name]) for name in arrays.files}
    members = {name: judged(task.labels, each) for name, each in scores.items() if name != "all"}
    return {"status": "ok", **judged(task.labels, scores["all"]), "members": members, **measured}


def work(folder: Path) -> None:
    """Do one run of one method: read `job.json` and `job.npz`, write `scores.npz` and `result.json`.

    What a method's package has to import and to compile, it does before the clock starts.
    """
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "job.npz")
    if job["method"] in OURS:
        importlib.import_module("tabmae.estimators.series")
    if job["method"] in MODULES:
        import_module_of(job["method"])
    if job["method"] in OF_STUMPY:
        compile_stumpy(OF_STUMPY[job["method"]])
    start, start_cpu = time.perf_counter(), cpu_seconds()
    scores = scores_of(job["method"], arrays["train"], arrays["test"], job["seed"])
    spent = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - start_cpu}
    named: dict[str, Any] = {name or "all": each for name, each in scores.items()}
    np.savez(folder / "scores.npz", **named)
    (folder / "result.json").write_text(json.dumps({**spent, "peak_mb": peak_mb(), "versions": versions()}))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure detectors of odd stretches on labelled series.")
    default = [method for method in METHODS if installed(method)]
    about = f"default: all that are installed; {needs(METHODS)}"
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=default, help=about)
    parser.add_argument("--datasets", nargs="+", choices=tuple(ABOUT), default=list(ABOUT))
    parser.add_argument("--every", type=int, default=1, help="take every so many series of a set, by name")
    parser.add_argument("--data", type=Path, help="folder of NAB (data, labels) and SMAP (NAME.npz)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report and read.work is None:
        check_options(parser, read)
        if read.data is None:
            parser.error("a run needs --data DIR with NAB and SMAP")
        absent = needs(method for method in read.methods if not installed(method))
        if absent:
            parser.error(f"{absent}; not installed here")
    return read


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for dataset in arguments.datasets:
        for name in series_names(dataset, arguments.data)[:: arguments.every]:
            task = load_series(dataset, name, arguments.data)
            for seed in arguments.seeds:
                for method in arguments.methods:
                    key = dict(zip(KEY, (dataset, name, seed, method), strict=True))
                    if tuple(key.values()) in done:
                        continue
                    about = {**key, "steps": len(task.test), "channels": task.test.shape[1]}
                    row = {**about, **about_run(arguments), **run_row(task, method, seed, arguments)}
                    append_rows(arguments.out, [row])
                    found = row.get("reason") or f"VUS-PR {row['vus_pr']:.3f} in {row['seconds']:.1f} s"
                    print(f"{dataset} {name} seed {seed} {method}: {found}", flush=True)


def report(files: list[Path]) -> str:
    """Make tables for each data set, of the series that nobody looked at and of those of development.

    Means are over the series that all methods of a table finished.
    """
    rows = read_table(files, KEY, ["vus_pr", "auc_pr", "seconds", "cpu_seconds", "members", "status"])
    known = [name in IN_DEVELOPMENT[dataset] for dataset, name in zip(rows["dataset"], rows["series"], strict=True)]
    parts = []
    for (dataset, developed), runs in rows.groupby(["dataset", pd.Series(known, index=rows.index)]):
        good = runs[runs["status"] == "ok"]
        count = good.groupby(["series", "seed"])["method"].nunique()
        whole = good.set_index(["series", "seed"]).loc[count.index[count == good["method"].nunique()]]
        lines = {}
        for method in [name for name in METHODS if (whole["method"] == name).any()]:
            own = whole[whole["method"] == method]
            names = dict.fromkeys(["", *(name for members in own["members"] for name in members)])
            for member in names:
                scored = [members[member] for members in own["members"] if member in members]
                scored = scored if member else own[["vus_pr", "auc_pr"]].to_dict("records")
                line = {
                    "VUS-PR": np.mean([found["vus_pr"] for found in scored]),
                    "AUC-PR": np.mean([found["auc_pr"] for found in scored]),
                    "series": len(scored),
                }
                if not member:
                    line |= {"median s": own["seconds"].median(), "longest s": own["seconds"].max()}
                lines[f"its {member} alone" if member else LABELS[method]] = line
        seeds = ", ".join(str(seed) for seed in sorted(runs["seed"].unique()))
        of = "series of development" if developed else "series that nobody looked at in development"
        about = f"**{dataset}**: {ABOUT[str(dataset)]}; {len(count)} {of}, seeds {seeds}."
        digits = {"series": 0, "median s": 1, "longest s": 1}
        table = pd.DataFrame.from_dict(lines, orient="index")
        parts += [about, markdown(table, digits, {"VUS-PR": False, "AUC-PR": False})]
        parts += failures(runs, ["series", "method", "seed"])
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    if read.work is not None:
        work(read.work)
    else:
        run_or_report(read, run_all, lambda: report(read.report), "detect-series")


if __name__ == "__main__":
    main()
