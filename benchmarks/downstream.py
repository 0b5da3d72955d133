"""What an imputation is worth to the model behind it: impute, then boosted trees and a linear model.

Contract: the imputer is fitted on the training features, holes included; it never sees the target or a test row before
it completes them. Run it as `python -m benchmarks.downstream --help`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.cells import Hidden, hide_cells
from benchmarks.markdown import LABELS, markdown
from benchmarks.runs import (
    about_run,
    add_options,
    add_report_options,
    append_rows,
    check_options,
    failures,
    finished_keys,
    read_table,
    run_method,
    run_or_report,
)
from benchmarks.tables import BUNDLED, load_table
from benchmarks.worker import IN_SAMPLE_ONLY, METHODS, frame_of

KEY = ("dataset", "rows", "fraction", "seed", "method")
NO_IMPUTER = "nan"
CLASSIFICATION = {
    "wine": "target",
    "breast_cancer": "target",
    "iris": "target",
    "parkinsons": "status",
    "climate": "outcome",
    "raisin": "Class",
    "credit_g": "class",
    "credit_approval": "class",
    "hepatitis": "Class",
    "horse_colic": "surgical_lesion",
    "pima": "Outcome",
    "mammographic": "Severity",
    "titanic": "Survived",
    "penguins": "species",
    "obesity": "NObeyesdad",
    "sick": "Class",
    "spambase": "class",
    "adult": "income",
    "shoppers": "Revenue",
    "magic": "Class",
    "bank_marketing": "deposit",
    "letter": "lettr",
}
REGRESSION = {
    "diabetes": "target",
    "yacht": "residuary_resistance",
    "airfoil": "sound_pressure",
    "concrete": "strength",
    "energy": "Heating Load",
    "wine_red": "quality",
    "abalone": "rings",
    "power_plant": "PE",
    "california": "MedHouseVal",
    "bike_sharing": "cnt",
    "house_prices": "SalePrice",
}
"""Tables by task, each with its target."""

OTHER_TARGETS = {"energy": "Cooling Load"}
"""Columns that would give the target away."""

MODELS = ("boosting", "linear")
SCORE = {"classification": "auroc", "regression": "r2"}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure imputation by the models that are fitted to its result.")
    methods = [NO_IMPUTER, *(method for method in METHODS if method not in IN_SAMPLE_ONLY)]
    default = [NO_IMPUTER, "mean", "miceforest", "tabmae"]
    help_methods = f"'{NO_IMPUTER}' leaves the cells missing, for boosting only"
    parser.add_argument("--methods", nargs="+", choices=methods, default=default, help=help_methods)
    tables = [*CLASSIFICATION, *REGRESSION]
    parser.add_argument("--tables", nargs="+", choices=tables, metavar="NAME", help="default: all that there are")
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.3], help="share of the features' known cells")
    add_options(parser, max_rows=2000)
    add_report_options(parser)
    read = parser.parse_args(arguments)
    if not read.report:
        check_options(parser, read)
    read.tables = read.tables or [name for name in tables if read.data or name in BUNDLED]
    return read


def load_task(name: str, data: Path | None, max_rows: int, seed: int) -> tuple[pd.DataFrame, pd.Series, str]:
    """Give the features, the target (classes as strings) and the task; rows without a target are left out."""
    task = "classification" if name in CLASSIFICATION else "regression"
    target = {**CLASSIFICATION, **REGRESSION}[name]
    frame = load_table(name, data, [], max_rows, seed).dropna(subset=target, ignore_index=True)
    features = frame.drop(columns=[target, *([OTHER_TARGETS[name]] if name in OTHER_TARGETS else [])])
    return features, frame[target].astype(str) if task == "classification" else frame[target], task


def complete(
    cells: Hidden, method: str, seed: int, arguments: argparse.Namespace
) -> tuple[dict[str, Any], tuple[pd.DataFrame, pd.DataFrame] | None]:
    """Give the costs, and the features of training and test rows as the models get them; None where a run failed."""
    if method == NO_IMPUTER:
        costs = {"fit_seconds": 0.0, "transform_seconds": 0.0, "cpu_seconds": 0.0}
        imputed = {"train": cells.visible(cells.train_rows), "test": cells.visible(cells.test_rows)}
    else:
        costs, imputed = run_method(cells, method, seed, arguments)
        if imputed and (left := sum(int(np.isnan(codes).sum()) for codes in imputed.values())):
            return {**costs, "status": "failed", "reason": f"{left} cells left missing"}, None
    if not imputed:
        return costs, None
    train, test = (frame_of(imputed[part], cells.names, cells.levels) for part in ("train", "test"))
    return costs, (train, test)


def make_model(model: str, task: str, seed: int) -> BaseEstimator:
    """Build scikit-learn's boosted trees, or a linear model on standardised numbers and one-hot categories."""
    is_class = task == "classification"
    if model == "boosting":
        kind = HistGradientBoostingClassifier if is_class else HistGradientBoostingRegressor
        return kind(random_state=seed)
    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=1000) if is_class else Ridge())


def score_model(
    model: BaseEstimator, train: pd.DataFrame, test: pd.DataFrame, target: pd.Series, cells: Hidden, task: str
) -> float:
    """Fit a model and give the area under the ROC curve, each class against the rest, or R2 of the test rows."""
    known, wanted = target[cells.is_train], target[~cells.is_train]
    model.fit(train, known)
    if task == "regression":
        return float(r2_score(wanted, model.predict(test)))
    shares = model.predict_proba(test)
    scored = [level for level in model.classes_ if 0 < (wanted == level).sum() < len(wanted)]
    areas = [roc_auc_score(wanted == level, shares[:, list(model.classes_).index(level)]) for level in scored]
    return float(np.mean(areas))


def run_rows(
    cells: Hidden, target: pd.Series, task: str, method: str, seed: int, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Impute once, and give a row for each model, or one row that says why there is none."""
    costs, completed = complete(cells, method, seed, arguments)
    if completed is None:
        yield {"model": None, **costs}
        return
    for model in MODELS[:1] if method == NO_IMPUTER else MODELS:
        start = time.process_time()
        with threadpool_limits(arguments.threads):
            score = score_model(make_model(model, task, seed), *completed, target, cells, task)
        yield {
            "model": model,
            "status": "ok",
            SCORE[task]: score,
            "model_seconds": time.process_time() - start,
            **costs,
        }


def run_all(arguments: argparse.Namespace) -> None:
    done = finished_keys(arguments.out, KEY, arguments.retry_failed)
    for method in arguments.methods:
        for fraction in arguments.fractions:
            for seed in arguments.seeds:
                for name in arguments.tables:
                    features, target, task = load_task(name, arguments.data, arguments.max_rows, seed)
                    if (name, len(features), fraction, seed, method) in done:
                        continue
                    cells = hide_cells(features, "mcar", fraction, seed)
                    about = {
                        "dataset": name,
                        "rows": len(features),
                        "columns": len(cells.names),
                        "task": task,
                        "fraction": fraction,
                        "seed": seed,
                        "method": method,
                        "cells": cells.digest,
                        **about_run(arguments),
                    }
                    rows = [{**about, **row} for row in run_rows(cells, target, task, method, seed, arguments)]
                    append_rows(arguments.out, rows)
                    for row in rows:
                        outcome = row.get("reason") or f"{row['model']} {SCORE[task]} {row[SCORE[task]]:.3f}"
                        print(f"{name} seed {seed} {method}: {outcome}", flush=True)


def report(files: list[Path]) -> str:
    """Make the table of methods x models; ranks and means are over the runs that every pair of them finished."""
    scores = ["auroc", "r2", "status"]
    costs = ["fit_seconds", "transform_seconds", "cpu_seconds", "model_seconds"]
    rows = read_table(files, [*KEY, "model"], [*scores, *costs])
    rows = rows[rows["finished"] == rows.groupby(list(KEY))["finished"].transform("last")]
    chosen = rows[rows["status"] == "ok"].assign(score=lambda runs: runs["auroc"].fillna(runs["r2"]))
    index = ["task", "dataset", "rows", "fraction", "seed"]
    table = chosen.pivot_table(index=index, columns=["model", "method"], values="score", sort=False)
    whole = table.dropna()
    means = whole.groupby(["task", "dataset"]).mean()
    seconds = chosen.assign(seconds=chosen["fit_seconds"] + chosen["transform_seconds"])
    lines = {}
    for model in MODELS:
        methods = [method for method in (NO_IMPUTER, *LABELS, *rows["method"].unique()) if (model, method) in table]
        for method in dict.fromkeys(methods):
            pair = (model, method)
            ranks = means[model].rank(axis=1, ascending=False)[method]
            spent = seconds[(seconds["model"] == model) & (seconds["method"] == method)]
            label = "left missing" if method == NO_IMPUTER else LABELS.get(method, method)
            entry: dict[str, float] = {"runs": float(table[pair].notna().sum())}
            for task, score in SCORE.items():
                if task in means.index.get_level_values("task"):
                    entry[score.upper()] = means.loc[task, pair].mean()
            entry |= {"rank": ranks.mean(), "CPU s": spent["cpu_seconds"].mean(), "wall s": spent["seconds"].mean()}
            lines[f"{label}, then {model}"] = entry
    found = pd.DataFrame.from_dict(lines, orient="index")
    counts = ", ".join(f"{n} of {task}" for task, n in means.groupby("task").size().items())
    digits = {"runs": 0, "rank": 2, "CPU s": 1, "wall s": 1}
    shares = ", ".join(f"{share:.0%}" for share in sorted(rows["fraction"].unique()))
    about = (
        f"{counts}; MCAR {shares} of the features' known cells hidden in training and test rows, seeds "
        f"{', '.join(str(seed) for seed in sorted(rows['seed'].unique()))}, up to {rows['rows'].max():,} rows. Means "
        f"and ranks (within a model) are over the {len(whole)} of {len(table)} runs that every line has. Seconds: "
        "fit and transform of the imputation, mean of a run."
    )
    parts = [about, markdown(found, digits, {"AUROC": False, "R2": False})]
    parts += failures(rows, ["dataset", "method", "seed"])
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    read = parse_arguments(arguments)
    run_or_report(read, run_all, lambda: report(read.report), "downstream")


if __name__ == "__main__":
    main()
