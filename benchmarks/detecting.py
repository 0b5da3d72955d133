"""One run of one detector in its own process: it learns from training rows and scores the others.

Contract: reads `job.json` and `job.npz` of a folder, writes `result.json` and the anomaly scores of the test rows
there, and the p-values of a method that has some; higher scores are odder for every method. Peers other than the
isolation forest get rows that `IterativeImputer` completed. A method's module is imported before the clock starts.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.experimental.enable_iterative_imputer
import sklearn.impute
from sklearn.covariance import EllipticEnvelope
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from benchmarks.detect_packages import MODULES, autoencoder, deepsvdd, icl, import_module_of, lunar, scored
from benchmarks.worker import cpu_seconds, peak_mb, versions

N_NEIGHBOURS = 5
PCA_VARIANCE = 0.9
SHARE_OF_OUTLIERS = 0.1
"""What `TabMAEDetector` is told of contaminated rows, whatever their true share is."""

Scores = np.ndarray


def knn(train: np.ndarray, test: np.ndarray, same: bool, reduce: Callable[..., Scores]) -> Scores:
    """Distances to the nearest training rows, the row itself left out where it is one of them."""
    distances, _ = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(train).kneighbors(None if same else test)
    return reduce(distances, axis=1)


def lof(train: np.ndarray, test: np.ndarray, same: bool) -> Scores:
    model = LocalOutlierFactor(n_neighbors=min(20, len(train) - 1), novelty=not same).fit(train)
    return -model.negative_outlier_factor_ if same else -model.score_samples(test)


def pca(train: np.ndarray, test: np.ndarray, same: bool) -> Scores:
    """Squared error of the rows that the leading components give back."""
    model = PCA(PCA_VARIANCE).fit(train)
    return np.square(test - model.inverse_transform(model.transform(test))).sum(axis=1)


def fitted(make: Callable[[int], Any], train: np.ndarray, test: np.ndarray, seed: int) -> Scores:
    return -make(seed).fit(train).score_samples(test)


def tabmae(train: np.ndarray, test: np.ndarray, same: bool, seed: int, members: Any) -> tuple[Scores, np.ndarray]:
    """Scores and p-values."""
    detector = importlib.import_module("tabmae").TabMAEDetector
    contamination = SHARE_OF_OUTLIERS if same else "auto"
    fitted = detector(contamination=contamination, members=members, random_state=seed).fit(train)
    return fitted.anomaly_score(test), fitted.p_value(test)


PEERS: dict[str, Callable[[np.ndarray, np.ndarray, bool, int], Scores]] = {
    "knn": lambda train, test, same, seed: knn(train, test, same, np.mean),
    "knn-largest": lambda train, test, same, seed: knn(train, test, same, np.max),
    "iforest": lambda train, test, same, seed: fitted(lambda s: IsolationForest(random_state=s), train, test, seed),
    "lof": lambda train, test, same, seed: lof(train, test, same),
    "ocsvm": lambda train, test, same, seed: fitted(lambda s: OneClassSVM(), train, test, seed),
    "mcd": lambda train, test, same, seed: fitted(lambda s: EllipticEnvelope(random_state=s), train, test, seed),
    "pca": lambda train, test, same, seed: pca(train, test, same),
    "hbos": lambda train, test, same, seed: scored(import_module_of("hbos").HBOS(), train, test),
    "ecod": lambda train, test, same, seed: scored(import_module_of("ecod").ECOD(), train, test),
    "autoencoder": lambda train, test, same, seed: autoencoder(train, test, seed),
    "lunar": lambda train, test, same, seed: lunar(train, test, seed),
    "deepsvdd": lambda train, test, same, seed: deepsvdd(train, test, seed),
    "icl": lambda train, test, same, seed: icl(train, test, seed),
}
WITH_HOLES = ("iforest",)
"""Peers that take missing cells."""
OURS = {
    "tabmae": "auto",
    "tabmae-distances": ("distance", "log_distance", "rank_distance"),
    "tabmae-network": ("network",),
}
METHODS = (*PEERS, *OURS)


def judged(method: str, train: np.ndarray, test: np.ndarray, same: bool, seed: int) -> tuple[Scores, np.ndarray | None]:
    """Anomaly scores of the test rows by a method that learnt from the training rows, and p-values if it has some.

    `same` says that the test rows are the training rows.
    """
    if method in OURS:
        return tabmae(train, test, same, seed, OURS[method])
    centre, scale = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    train, test = ((rows - centre) / np.where(scale > 0, scale, 1) for rows in (train, test))
    if method not in WITH_HOLES and np.isnan(train).any():
        imputer = sklearn.impute.IterativeImputer(random_state=seed, keep_empty_features=True).fit(train)
        train, test = imputer.transform(train), imputer.transform(test)
    return PEERS[method](train, test, same, seed), None


def main(folder: Path) -> None:
    job: dict[str, Any] = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "job.npz")
    if job["method"] in OURS:
        importlib.import_module("tabmae.estimators.detector")
    if job["method"] in MODULES:
        import_module_of(job["method"])
    start, start_cpu = time.perf_counter(), cpu_seconds()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores, p_values = judged(job["method"], arrays["train"], arrays["test"], job["same"], job["seed"])
    measured = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": cpu_seconds() - start_cpu,
        "peak_mb": peak_mb(),
        "versions": versions(),
    }
    np.save(folder / "scores.npy", scores)
    if p_values is not None:
        np.save(folder / "p_values.npy", p_values)
    (folder / "result.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
