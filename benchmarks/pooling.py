"""Do intervals pooled over imputed tables hold the truth? Linear regressions on generated tables with holes.

Contract: table and mechanism fix data and holes, whatever the method; a row is written when its run has ended, and a
run whose row is there is not repeated. Run it as `python -m benchmarks.pooling --help`.
"""

import argparse
import importlib
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sklearn.experimental.enable_iterative_imputer
import sklearn.impute
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from benchmarks.markdown import show
from benchmarks.peers import MeanMode
from benchmarks.runs import append_rows, finished_keys, git_commit, read_lines
from benchmarks.worker import versions
from tabmae import TabMAE, ampute, pool

N_ROWS = 300
N_DRAWS = 10
FRACTION = 0.3
LEVEL = 0.95
TRUTH = {"intercept": 1.0, "x1": 1.0, "x2": -0.5, "x3": 0.5, "x4": 0.3, "group": 0.8}
CORRELATION = 0.5
"""Between any two of the numeric covariates, which are standard normal; the noise of y is so, too."""
DRIVERS = ("x1", "x4")
"""Columns that stay complete under MAR and decide where the others lose cells."""
KEY = ("mechanism", "table", "method")


def generated(seed: int, n_rows: int = N_ROWS) -> pd.DataFrame:
    """Draw a table of four correlated covariates, a category of two levels that leans on the first, and y."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n_rows, 1))
    x = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * rng.normal(size=(n_rows, 4))
    table = pd.DataFrame(x, columns=["x1", "x2", "x3", "x4"])
    is_b = rng.random(n_rows) < 1 / (1 + np.exp(-x[:, 0]))
    table["group"] = pd.Categorical.from_codes(is_b.astype(np.int64), ["a", "b"])
    table["y"] = design(table) @ np.array(list(TRUTH.values())) + rng.normal(size=n_rows)
    return table


def with_holes(table: pd.DataFrame, mechanism: str, seed: int) -> pd.DataFrame:
    """Hide 30 % of the cells: of every column under MCAR, of all but the drivers under MAR."""
    columns = [name for name in table if mechanism == "mcar" or name not in DRIVERS]
    return ampute(table, FRACTION, mechanism, columns=columns, random_state=seed)[0]


def numbers(table: pd.DataFrame) -> pd.DataFrame:
    """The table with 0 and 1 for the levels of the category."""
    codes = table["group"].cat.codes.astype(np.float64)
    return table.assign(group=codes.where(codes >= 0))


def design(table: pd.DataFrame) -> NDArray[np.float64]:
    """Covariates (n, 6) in the order of `TRUTH`, an intercept of ones first."""
    coded = numbers(table) if table["group"].dtype == "category" else table
    return coded.assign(intercept=1.0)[list(TRUTH)].to_numpy(dtype=np.float64)


def least_squares(X: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ordinary least squares: coefficients (p,) and their squared standard errors (p,)."""
    inverse = np.linalg.inv(X.T @ X)
    coefficients = inverse @ X.T @ y
    noise = ((y - X @ coefficients) ** 2).sum() / (len(y) - X.shape[1])
    return coefficients, noise * np.diag(inverse)


def filled_by_mean(holes: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """The table of means and modes, twice: what its intervals leave out is the point."""
    return [MeanMode(seed, n_jobs=1).fit_transform(holes)] * 2


def drawn_by_iterative(holes: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """scikit-learn's chained Bayesian ridge; the category is a number, which rounding would bias."""
    tables = []
    for number in range(N_DRAWS):
        imputer = sklearn.impute.IterativeImputer(sample_posterior=True, random_state=N_DRAWS * seed + number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            tables.append(pd.DataFrame(imputer.fit_transform(numbers(holes)), columns=holes.columns))
    return tables


@cache
def mice_kernel() -> Any:
    """miceforest's class; its default matching passes by position what LightGBM takes by name since 4.7."""
    booster = importlib.import_module("lightgbm").Booster
    inner = booster._Booster__inner_predict
    booster._Booster__inner_predict = lambda model, data_idx: inner(model, data_idx=data_idx)
    return importlib.import_module("miceforest").ImputationKernel


def drawn_by_miceforest(holes: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """miceforest with its default mean matching, five rounds."""
    kernel = mice_kernel()(holes, num_datasets=N_DRAWS, random_state=seed)
    kernel.mice(5)
    return [kernel.complete_data(number) for number in range(N_DRAWS)]


def drawn_by_tabmae(holes: pd.DataFrame, seed: int) -> list[pd.DataFrame]:
    """`TabMAE` with its defaults."""
    return TabMAE(random_state=seed).fit(holes).sample(holes, N_DRAWS)


METHODS: dict[str, Callable[[pd.DataFrame, int], list[pd.DataFrame]] | None] = {
    "complete": None,
    "mean": filled_by_mean,
    "iterative": drawn_by_iterative,
    "miceforest": drawn_by_miceforest,
    "tabmae": drawn_by_tabmae,
}
"""Completed tables from a table with holes and a seed; "complete" is the regression before any cell was hidden."""


def run(method: str, mechanism: str, seed: int) -> dict[str, Any]:
    """Impute, regress and pool one table; give the seconds of the imputation and a record for each coefficient."""
    table = generated(seed)
    holes = with_holes(table, mechanism, seed)
    complete = METHODS[method]
    start = time.perf_counter()
    tables = [table] * 2 if complete is None else complete(holes, seed)
    seconds = time.perf_counter() - start
    fits = [least_squares(design(completed), completed["y"].to_numpy()) for completed in tables]
    pooled = pool([fit[0] for fit in fits], [fit[1] for fit in fits], len(table) - len(TRUTH), LEVEL)
    pooled = pooled.assign(truth=TRUTH.values(), width=pooled["high"] - pooled["low"]).set_axis(list(TRUTH))
    pooled["covered"] = (pooled["low"] <= pooled["truth"]) & (pooled["truth"] <= pooled["high"])
    return {"seconds": seconds, "coefficients": pooled.to_dict("index")}


def report(files: Iterable[Path]) -> str:
    """A Markdown table with a line for each mechanism and method, over the tables that they finished."""
    rows = [row for row in read_lines(files) if row["status"] == "ok"]
    cells = pd.DataFrame(
        {**{part: row[part] for part in (*KEY, "seconds")}, "coefficient": name, **found}
        for row in rows
        for name, found in row["coefficients"].items()
    ).drop_duplicates([*KEY, "coefficient"], keep="last")
    whole = cells[cells["method"] == "complete"].set_index(["mechanism", "table", "coefficient"])["width"]
    cells = cells.join(whole.rename("width_complete"), on=["mechanism", "table", "coefficient"])
    lines = [
        "| holes | method | tables | bias, % of the truth | coverage | lowest | width / complete | s a table |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = {method: place for place, method in enumerate(METHODS)}
    for (mechanism, method), part in sorted(
        cells.groupby(["mechanism", "method"]), key=lambda group: (group[0][0], order.get(group[0][1], len(order)))
    ):
        one = part.groupby("coefficient")[["estimate", "truth", "covered"]].mean()
        bias = 100 * ((one["estimate"] - one["truth"]) / one["truth"]).abs().mean()
        both = part.dropna(subset="width_complete").groupby("coefficient")[["width", "width_complete"]].mean()
        width = (both["width"] / both["width_complete"]).mean()
        lines.append(
            f"| {mechanism.upper()} | {method} | {part['table'].nunique()} | {bias:.1f} "
            f"| {one['covered'].mean():.3f} | {one['covered'].min():.3f} | {width:.2f} | {part['seconds'].mean():.2f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Check pooled intervals of regressions on generated tables.")
    parser.add_argument("--out", type=Path, help="JSONL file to append to, and to resume from")
    parser.add_argument("--n-tables", type=int, default=200)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--mechanisms", nargs="+", choices=["mcar", "mar"], default=["mcar", "mar"])
    parser.add_argument("--retry-failed", action="store_true", help="repeat runs that failed")
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE", help="run nothing; print the table of rows")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="with --report: write it between a page's markers")
    read = parser.parse_args(arguments)
    if read.report:
        show(report(read.report), read.write, "pooling")
        return
    if read.out is None:
        parser.error("a run needs --out FILE for its rows")
    read.out.parent.mkdir(parents=True, exist_ok=True)
    done = finished_keys(read.out, KEY, read.retry_failed)
    about = {"commit": git_commit(), "versions": versions()}
    for table in range(read.n_tables):
        for mechanism in read.mechanisms:
            for method in read.methods:
                if (mechanism, table, method) in done:
                    continue
                try:
                    found = {"status": "ok", **run(method, mechanism, table)}
                except Exception as error:
                    found = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
                key = {"mechanism": mechanism, "table": table, "method": method}
                append_rows(read.out, [{**key, **about, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **found}])
                print(*key.values(), found.get("reason") or f"{found['seconds']:.2f} s", flush=True)


if __name__ == "__main__":
    main()
