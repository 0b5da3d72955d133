"""Predict a target from few labels, from rows with holes: ours beside boosted trees, forests and a linear model.

Contract: every method gets the same labelled rows and the same rows to predict, whose cells are hidden by seed; the
unlabelled rows of the training part hold no target. Run it as `python -m benchmarks.few_labels --help`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.downstream import CLASSIFICATION, REGRESSION, SCORE, load_task
from benchmarks.markdown import markdown, write_section
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
from benchmarks.tables import BUNDLED
from tabmae import TabMAEClassifier, TabMAERegressor

KEY = ("dataset", "rows", "labels", "seed", "method")
HOLES = (0.0, 0.3, 0.6)
"""Shares of the cells of the rows to predict that are hidden."""
N_MASKED = 4
LARGEST_SHARE = 0.7
"""Masked copies of a labelled row for boosted trees, and the largest share of cells that they miss."""
N_TREES = 300
LEVEL = 0.9
"""Of the intervals about predicted numbers."""

LABELS = {
    "boosting": "boosted trees, NaN left in",
    "masked-boosting": "boosted trees, trained on masked copies too",
    "forest": "extremely randomised trees on mean-imputed rows",
    "linear": "logistic or ridge regression on mean-imputed rows",
    "tabmae": "**TabMAEClassifier**, **TabMAERegressor**",
    "tabmae-no-network": "the same without their fine-tuned network",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure predictions from few labels and rows with holes.")
    parser.add_argument("--methods", nargs="+", choices=list(LABELS), default=list(LABELS))
    tables = [*CLASSIFICATION, *REGRESSION]
    parser.add_argument("--tables", nargs="+", choices=tables, metavar="NAME", help="default: all that there are")
    labels = "labelled rows of the training part; 0: all of it"
    parser.add_argument("--labels", nargs="+", type=int, default=[50, 500, 0], help=labels)
    add_options(parser, max_rows=6000)
    add_report_options(parser)
    parser.add_argument(
        "--short", type=Path, metavar="PAGE", help="with --report: write the fewest labels' table there"
    )
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
    read.tables = read.tables or [name for name in tables if read.data or name in BUNDLED]
    return read


def fit_boosting(task: str, seed: int, X: pd.DataFrame, y: pd.Series) -> BaseEstimator:
    """Boosted trees that take NaN and categories as they are."""
    kind = HistGradientBoostingClassifier if task == "classification" else HistGradientBoostingRegressor
    return kind(random_state=seed, categorical_features="from_dtype").fit(X, y)


def fit_masked_boosting(task: str, seed: int, X: pd.DataFrame, y: pd.Series) -> BaseEstimator:
    """Boosted trees that have seen holes: rows as they came, and copies with more cells missing."""
    rng = np.random.RandomState([seed, 3])
    shares = [LARGEST_SHARE * rng.random_sample((len(X), 1)) for _ in range(N_MASKED)]
    copies = [X.mask(rng.random_sample(X.shape) < share) for share in shares]
    return fit_boosting(task, seed, pd.concat([X, *copies]), pd.concat([y] * (1 + N_MASKED)))


def fit_on_imputed(task: str, seed: int, X: pd.DataFrame, y: pd.Series, method: str) -> BaseEstimator:
    """A forest or a linear model on means and most frequent levels, one-hot."""
    is_class = task == "classification"
    if method == "forest":
        forest = ExtraTreesClassifier if is_class else ExtraTreesRegressor
        model = forest(N_TREES, random_state=seed)
    else:
        model = LogisticRegression(max_iter=1000) if is_class else Ridge()
    known = X.columns[X.notna().any()]
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
        (
            make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")),
            make_column_selector(dtype_include="category"),
        ),
    )
    chosen = make_column_transformer(("passthrough", list(known)), verbose_feature_names_out=False)
    return make_pipeline(chosen.set_output(transform="pandas"), columns, model).fit(X, y)


def fit_ours(task: str, seed: int, X: pd.DataFrame, y: pd.Series, members: Any) -> BaseEstimator:
    """Ours, on all rows of the training part, of which some have a label."""
    kind = TabMAEClassifier if task == "classification" else TabMAERegressor
    return kind(random_state=seed, members=members).fit(X, y)


def fit_method(method: str, task: str, seed: int, X: pd.DataFrame, y: pd.Series) -> BaseEstimator:
    """Fit a method; `y` is missing where a row has no label."""
    if method.startswith("tabmae"):
        members = "auto" if method == "tabmae" else ("linear", "trees", "boosting")
        return fit_ours(task, seed, X, y, members)
    known = y.notna()
    X, y = X[known], y[known]
    if method == "boosting":
        return fit_boosting(task, seed, X, y)
    return (
        fit_masked_boosting(task, seed, X, y)
        if method == "masked-boosting"
        else fit_on_imputed(task, seed, X, y, method)
    )


def score(model: Any, rows: pd.DataFrame, target: pd.Series, task: str) -> float:
    """Area under the ROC curve, mean over the classes against the rest; or R2."""
    if task == "regression":
        return float(r2_score(target, model.predict(rows)))
    shares, classes = model.predict_proba(rows), list(model.classes_)
    areas = []
    for level in sorted(target.unique()):
        is_level = target == level
        if is_level.sum() < len(target):
            share = shares[:, classes.index(level)] if level in classes else np.zeros(len(rows))
            areas.append(roc_auc_score(is_level, share))
    return float(np.mean(areas))


class Task(NamedTuple):
    """Rows to learn and to predict, of one table and count of labels; `known` is missing where a row has no label."""

    kind: str
    learnt: pd.DataFrame
    known: pd.Series
    asked: dict[str, pd.DataFrame]
    truth: pd.Series


def tasks(features: pd.DataFrame, target: pd.Series, kind: str, labels: list[int], seed: int) -> dict[int, Task]:
    """Split a table in halves, label rows of the first and hide cells of the second; by count of labels."""
    order = np.random.RandomState([seed, 4]).permutation(len(features))
    train, test = np.split(order, [len(order) // 2])
    chance = np.random.RandomState([seed, 5]).random_sample((len(test), features.shape[1]))
    asked = {str(share): features.iloc[test].mask(chance < share) for share in HOLES}
    found = {}
    for n_labels in labels:
        known = target.iloc[train].where(np.arange(len(train)) < (n_labels or len(train)))
        if n_labels < len(train) and known.nunique() > 1:
            found[n_labels] = Task(kind, features.iloc[train], known, asked, target.iloc[test])
    return found


def intervals(model: Any, task: Task) -> dict[str, Any]:
    """Shares of the numbers that intervals hold, and their widths in standard deviations; of ours alone."""
    if not isinstance(model, TabMAERegressor):
        return {}
    held, width = {}, {}
    for share, rows in task.asked.items():
        lower, upper = model.predict_interval(rows, LEVEL)
        held[share] = float(task.truth.between(lower, upper).mean())
        width[share] = float((upper - lower).mean() / task.truth.std(ddof=0))
    return {"coverage": held, "width": width}


def measured(task: Task, method: str, seed: int) -> dict[str, Any]:
    """Fit and predict; scores by the share of hidden cells, and processor seconds."""
    begun = time.process_time()
    model = fit_method(method, task.kind, seed, task.learnt, task.known)
    fitted = time.process_time()
    scores = {share: score(model, rows, task.truth, task.kind) for share, rows in task.asked.items()}
    seconds = {"fit_seconds": fitted - begun, "predict_seconds": (time.process_time() - fitted) / len(scores)}
    return {"status": "ok", "scores": scores, **intervals(model, task), **seconds}


def run_all(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for seed in arguments.seeds:
        for name in arguments.tables:
            features, target, kind = load_task(name, arguments.data, arguments.max_rows, seed)
            for n_labels, task in tasks(features, target, kind, arguments.labels, seed).items():
                for method in arguments.methods:
                    if (name, len(features), n_labels, seed, method) in done:
                        continue
                    about = {"dataset": name, "rows": len(features), "task": kind, "labels": n_labels, "seed": seed}
                    with threadpool_limits(arguments.threads):
                        row = {**about, "method": method, **measured(task, method, seed), **about_run(arguments)}
                    append_rows(arguments.out, [row])
                    told = " ".join(f"{found:.3f}" for found in row["scores"].values())
                    print(f"{name} seed {seed}, {n_labels or 'all'} labels, {method}: {told}", flush=True)


def tables(rows: pd.DataFrame) -> Iterator[str]:
    """A table for each task and count of labels; means over the runs that every method ended."""
    found = rows.assign(**{str(share): [scores[str(share)] for scores in rows["scores"]] for share in HOLES})
    for task, name in SCORE.items():
        for n_labels in sorted(found["labels"].unique(), key=lambda count: count or np.inf):
            chosen = found[(found["task"] == task) & (found["labels"] == n_labels)]
            runs = ["dataset", "rows", "seed"]
            counts = chosen.groupby(runs)["method"].transform("nunique")
            chosen = chosen[counts == chosen["method"].nunique()]
            if chosen.empty:
                continue
            lines = {}
            for method in (method for method in LABELS if method in set(chosen["method"])):
                of_method = chosen[chosen["method"] == method]
                line = {f"{share:.0%} hidden": of_method[str(share)].mean() for share in HOLES}
                line |= {
                    "CPU s": of_method["fit_seconds"].mean(),
                    "CPU s to predict": of_method["predict_seconds"].mean(),
                }
                lines[LABELS[method]] = line
            best = {f"{share:.0%} hidden": False for share in HOLES}
            n_runs, n_tables = chosen.groupby(runs).ngroups, chosen["dataset"].nunique()
            count = f"{n_labels} labels" if n_labels else "all labels"
            yield f"**{task}, {count}**: {name.upper()}, mean of {n_runs} runs on {n_tables} tables"
            yield markdown(pd.DataFrame.from_dict(lines, orient="index"), {"CPU s": 1, "CPU s to predict": 1}, best)


def interval_table(rows: pd.DataFrame) -> str:
    """A table of what the intervals of regression hold, a line for each count of labels."""
    found = rows[rows["coverage"].notna()] if "coverage" in rows else rows[:0]
    lines = {}
    for n_labels in sorted(found["labels"].unique(), key=lambda count: count or np.inf):
        chosen = found[found["labels"] == n_labels]
        line = {
            f"{told}, {share:.0%} hidden": chosen[name].str[str(share)].mean()
            for name, told in (("coverage", "held"), ("width", "width"))
            for share in HOLES
        }
        lines[f"{n_labels or 'all'} labels"] = {"runs": str(len(chosen)), **line}
    return markdown(pd.DataFrame.from_dict(lines, orient="index"), {}, {}) if lines else ""


def few_at_a_glance(files: list[Path]) -> str:
    """Make one table of the runs with the fewest labels."""
    rows = read_table(files, KEY)
    chosen = rows[rows["labels"] == rows.loc[rows["labels"] > 0, "labels"].min()]
    columns = {}
    for task, name in SCORE.items():
        for share in HOLES:
            of_share = chosen[chosen["task"] == task].assign(
                found=lambda each, share=share: each["scores"].str[str(share)]
            )
            columns[f"{name.upper()}, {share:.0%} hidden"] = of_share.groupby("method")["found"].mean()
    found = pd.DataFrame(columns)
    found = found.loc[[method for method in LABELS if method in found.index]].rename(index=LABELS)
    counts = " and ".join(f"{n} of {task}" for task, n in chosen.groupby("task")["dataset"].nunique().items())
    about = (
        f"{chosen['labels'].iloc[0]} labels; means over tables, {counts}; cells hidden in the rows to predict alone:"
    )
    return f"{about}\n\n{markdown(found.dropna(axis=1), {}, dict.fromkeys(found, False))}"


def report(files: list[Path]) -> str:
    """Make the tables of all runs."""
    rows = read_table(files, KEY)
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    about = (
        f"Half of up to {rows['rows'].max():,} rows trains, with labels for as many of them as are said; the other "
        f"half is predicted. Cells are hidden there alone, at random, the same for every method; seeds {seeds}."
    )
    told = (
        f"**Intervals** of `TabMAERegressor` at {LEVEL:.0%}: shares of the numbers that they hold, and mean widths in "
        "standard deviations of the target. Labelled rows have no cells hidden."
    )
    of_intervals = interval_table(rows[rows["method"] == "tabmae"])
    return "\n\n".join([about, *tables(rows), *([told, of_intervals] if of_intervals else [])])


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "few-labels")
    if read.report and read.short:
        write_section(read.short, "few-labels", few_at_a_glance(read.report))


if __name__ == "__main__":
    main()
