"""One run of a method that draws completed tables, in a process of its own; and the methods.

Contract: reads `job.json` and `job.npz` of a folder as `benchmarks.worker` does, writes `result.json` and `drawn.npz`
there: codes of the training rows completed again and again, and the bounds of the methods that have some of their own.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from benchmarks.worker import METHODS, codes_of, cpu_seconds, frame_of, versions

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Shares of hidden cells that intervals are asked to hold."""

N_DRAWS = 5
"""Completed tables that are compared with the truth."""

N_FOR_INTERVALS = 20
"""Completed tables of a method without intervals of its own; coarse, but chained methods take the time m times."""

N_ROUNDS = 5
"""Rounds of miceforest, as in `peers_mice`."""


@dataclass
class Drawn:
    """What a method gives.

    `draws` are completed training tables; `point` is the one of its means, where it has both. `bounds` are, for "train"
    and "test" rows, a lower and an upper table of the numeric columns for each of `LEVELS`. `fitted` is the clock when
    the first draw could begin, `about` what to know of the run.
    """

    draws: list[pd.DataFrame]
    fitted: float
    point: pd.DataFrame | None = None
    bounds: dict[str, list[tuple[pd.DataFrame, pd.DataFrame]]] = field(default_factory=dict)
    about: dict[str, object] = field(default_factory=dict)


def drawn_by_tabmae(train: pd.DataFrame, test: pd.DataFrame, seed: int, n_jobs: int) -> Drawn:
    """`TabMAE` with its defaults, its draws, intervals and means."""
    model = importlib.import_module("tabmae").TabMAE(random_state=seed).fit(train)
    fitted = time.perf_counter()
    bounds = {
        split: [model.predict_interval(rows, level) for level in LEVELS]
        for split, rows in (("train", train), ("test", test))
    }
    return Drawn(model.sample(train, N_DRAWS), fitted, model.transform(train), bounds)


def drawn_by_miceforest(train: pd.DataFrame, test: pd.DataFrame, seed: int, n_jobs: int) -> Drawn:
    """miceforest with its default mean matching, without it where that fails; columns go in by number."""
    kernel_of = mice_kernel()
    numbered = train.set_axis([f"c{position}" for position in range(train.shape[1])], axis=1)
    about: dict[str, object] = {"matching": True}
    try:
        kernel = kernel_of(numbered, num_datasets=N_FOR_INTERVALS, random_state=seed)
        kernel.mice(N_ROUNDS)
    except Exception as error:
        about = {"matching": False, "matching_failed": f"{type(error).__name__}: {error}"[:300]}
        kernel = kernel_of(numbered, num_datasets=N_FOR_INTERVALS, mean_match_candidates=0, random_state=seed)
        kernel.mice(N_ROUNDS)
    fitted = time.perf_counter()
    draws = [
        kernel.complete_data(number, iteration=N_ROUNDS).set_axis(train.columns, axis=1)
        for number in range(N_FOR_INTERVALS)
    ]
    return Drawn(draws, fitted, about=about)


def mice_kernel() -> Any:
    """miceforest's class; its default matching passes by position what LightGBM takes by name since 4.7."""
    return importlib.import_module("benchmarks.pooling").mice_kernel()


def drawn_by_iterative(train: pd.DataFrame, test: pd.DataFrame, seed: int, n_jobs: int) -> Drawn:
    """scikit-learn's chained Bayesian ridge, whose cells are drawn; a run for each draw.

    Categories are filled by their most frequent level, as `peers.Iterative` explains.
    """
    start = time.perf_counter()
    draws = []
    for number in range(N_FOR_INTERVALS):
        peer = importlib.import_module("benchmarks.peers").Iterative(N_FOR_INTERVALS * seed + number, n_jobs)
        peer.imputer.set_params(sample_posterior=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            draws.append(peer.fit_transform(train))
    return Drawn(draws, start)


def completed_once(method: str) -> Callable[[pd.DataFrame, pd.DataFrame, int, int], Drawn]:
    """A method of `benchmarks.worker` that has one answer."""

    def complete(train: pd.DataFrame, test: pd.DataFrame, seed: int, n_jobs: int) -> Drawn:
        module, name = METHODS[method].split(":")
        completed = getattr(importlib.import_module(module), name)(seed=seed, n_jobs=n_jobs).fit_transform(train)
        return Drawn([completed], time.perf_counter())

    return complete


DRAWING: dict[str, Callable[[pd.DataFrame, pd.DataFrame, int, int], Drawn]] = {
    "mean": completed_once("mean"),
    "missforest": completed_once("missforest"),
    "iterative": drawn_by_iterative,
    "miceforest": drawn_by_miceforest,
    "tabmae": drawn_by_tabmae,
}


def bound_codes(tables: list[tuple[pd.DataFrame, pd.DataFrame]], names: list[str]) -> np.ndarray:
    """Bounds as (levels, 2, n, F), NaN in columns without bounds."""
    return np.array([[side.reindex(columns=names).to_numpy(dtype=np.float64) for side in pair] for pair in tables])


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    arrays = np.load(folder / "job.npz")
    train, test = (frame_of(arrays[split], job["names"], job["levels"]) for split in ("train", "test"))
    draw = DRAWING[job["method"]]
    start, start_cpu = time.perf_counter(), cpu_seconds()
    drawn = draw(train, test, job["seed"], job["n_jobs"])
    end, end_cpu = time.perf_counter(), cpu_seconds()
    found: dict[str, Any] = {"draws": np.array([codes_of(table) for table in drawn.draws])}
    if drawn.point is not None:
        found["point"] = codes_of(drawn.point)[None]
    found |= {split: bound_codes(tables, job["names"]) for split, tables in drawn.bounds.items()}
    np.savez(folder / "drawn.npz", **found)
    measured = {
        "fit_seconds": drawn.fitted - start,
        "draw_seconds": end - drawn.fitted,
        "cpu_seconds": end_cpu - start_cpu,
        **drawn.about,
        "versions": versions(),
    }
    (folder / "result.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
