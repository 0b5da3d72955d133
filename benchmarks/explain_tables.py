"""Does an explanation name the cell that was planted in a normal row?

Contract: set, rows and seed fix the planted cells, whatever the method; a run whose row is in the file is not repeated.
Run it as `python -m benchmarks.explain_tables --help`.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.covariance import LedoitWolf
from threadpoolctl import threadpool_limits

from benchmarks.detect_tables import folder_of, load_set, make_task
from benchmarks.markdown import markdown
from benchmarks.runs import (
    about_run,
    add_options,
    add_report_options,
    append_rows,
    check_options,
    finished_keys,
    read_table,
    run_or_report,
)
from tabmae import TabMAEDetector

KEY = ("dataset", "rows", "seed", "method")
MAX_PLANTED = 200
FARTHER = 1.0
"""Standard deviations of the column by which a planted value differs at least, if any value does."""
LABELS = {
    "tabmae": "**TabMAEDetector.explain**",
    "gaussian": "Gaussian residual given the others (Ledoit-Wolf)",
    "z": "largest deviation from the mean",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how often the planted cell is the one that is blamed most.")
    parser.add_argument("--methods", nargs="+", choices=list(BLAME), default=list(BLAME))
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all of the folder")
    parser.add_argument("--data", type=Path, help="folder of NAME.npz or ad/NAME.npz, each with X (n, F) and y (n,)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--max-rows", type=int, default=3_000, help="rows sampled from a larger set by seed; 0: all")
    add_options(parser)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
        if read.data is None:
            parser.error("a run needs --data DIR with the sets")
    return read


def plant(rows: np.ndarray, scale: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Replace one cell of each row by another row's of the same column; give the rows and the columns."""
    rng = np.random.RandomState([seed, 6])
    columns = rng.choice(np.flatnonzero(scale > 0), len(rows))
    planted = rows.copy()
    for row, column in enumerate(columns):
        gap = np.abs(rows[:, column] - rows[row, column])
        chosen = np.flatnonzero(gap >= min(FARTHER * scale[column], gap.max()))
        planted[row, column] = rows[rng.choice(chosen), column]
    return planted, columns


def by_tabmae(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    cells = TabMAEDetector(members=("network", "forests"), random_state=seed).fit(train).explain(rows)
    return cells["contribution"].to_numpy().reshape(rows.shape)


def by_gaussian(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """Deviation of each cell from its conditional mean, in conditional standard deviations."""
    scale = np.where(train.std(axis=0) > 0, train.std(axis=0), 1)
    model = LedoitWolf().fit((train - train.mean(axis=0)) / scale)
    pull = ((rows - train.mean(axis=0)) / scale) @ model.precision_
    return np.abs(pull) / np.sqrt(np.diag(model.precision_))


def by_z(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    scale = train.std(axis=0)
    return np.abs(rows - train.mean(axis=0)) / np.where(scale > 0, scale, np.inf)


BLAME: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "tabmae": by_tabmae,
    "gaussian": by_gaussian,
    "z": by_z,
}
"""Methods: (training rows, rows, seed) -> blame of every cell."""


def run_row(rows: np.ndarray, is_outlier: np.ndarray, method: str, seed: int) -> dict[str, Any]:
    """Learn from half of the normal rows, plant a cell in others, and see where it ranks in its row."""
    task = make_task(rows, is_outlier, "clean", 0.0, seed)
    planted, columns = plant(task.test[~task.is_outlier][:MAX_PLANTED], task.train.std(axis=0), seed)
    start = time.perf_counter()
    blame = BLAME[method](task.train, planted, seed)
    own = blame[np.arange(len(columns)), columns]
    rank = (blame > own[:, None]).sum(axis=1) + ((blame == own[:, None]).sum(axis=1) - 1) / 2
    scores = {"first": float((rank < 1).mean()), "among_three": float((rank < 3).mean())}
    return {"status": "ok", "planted": len(columns), **scores, "seconds": time.perf_counter() - start}


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    names = arguments.sets or sorted(path.stem for path in folder_of(arguments.data).glob("*.npz"))
    for method in arguments.methods:
        for seed in arguments.seeds:
            for name in names:
                rows, is_outlier = load_set(name, arguments.data, arguments.max_rows, seed)
                key = dict(zip(KEY, (name, len(rows), seed, method), strict=True))
                if tuple(key.values()) in done:
                    continue
                with threadpool_limits(arguments.threads):
                    found = run_row(rows, is_outlier, method, seed)
                append_rows(arguments.out, [{**key, "columns": rows.shape[1], **about_run(arguments), **found}])
                print(f"{name} seed {seed} {method}: first {found['first']:.2f}", flush=True)


def report(files: list[Path]) -> str:
    """Make the table of methods; means are over the sets that all finished."""
    rows = read_table(files, KEY)
    table = rows.pivot_table(index="dataset", columns="method", values=["first", "among_three", "seconds"]).dropna()
    methods = [method for method in LABELS if method in table["first"]]
    lines = {
        LABELS[method]: {
            "blamed most": table["first"][method].mean(),
            "among the three": table["among_three"][method].mean(),
            "best sets": float((table["first"].idxmax(axis=1) == method).sum()),
            "median s": table["seconds"][method].median(),
        }
        for method in methods
    }
    about = (
        f"Share of rows whose planted cell is blamed most, or among the three most: {len(table)} sets of up to "
        f"{rows['rows'].max():,} rows, up to {int(rows['planted'].max())} normal rows each, seeds "
        f"{', '.join(str(seed) for seed in sorted(rows['seed'].unique()))}."
    )
    best = {"blamed most": False, "among the three": False, "best sets": False}
    return (
        f"{about}\n\n{markdown(pd.DataFrame.from_dict(lines, orient='index'), {'best sets': 0, 'median s': 1}, best)}"
    )


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "explain")


if __name__ == "__main__":
    main()
