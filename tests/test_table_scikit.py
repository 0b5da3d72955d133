"""`TabMAE` among scikit-learn's tools: clones, pickles, pipelines, searches, containers, names."""

import pickle
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from generated import correlated, with_holes
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from tabmae.errors import DataError
from tabmae.estimators.table import TabMAE, TabMAEEncoder

SMALL: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "random_state": 0}
HOLES = with_holes(correlated(60))
LABELS = (correlated(60)[:, 0] > 0).astype(int)


def test_a_clone_has_the_parameters_and_nothing_that_was_learnt(mixed: pd.DataFrame, model: TabMAE) -> None:
    copy = clone(model)
    assert copy.get_params() == model.get_params() and vars(copy).keys() == copy.get_params().keys()
    with pytest.raises(NotFittedError, match="not fitted"):
        copy.transform(mixed)


@pytest.mark.parametrize("estimator", [TabMAE, TabMAEEncoder])
def test_pickle_and_joblib_keep_every_answer(mixed: pd.DataFrame, tmp_path: Path, estimator: type[TabMAE]) -> None:
    model = estimator(**SMALL).fit(mixed)
    joblib.dump(model, tmp_path / "model.joblib")
    for loaded in (pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")):
        np.testing.assert_array_equal(loaded.transform(mixed), model.transform(mixed))


@pytest.mark.parametrize(("container", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output_gives_the_container_that_is_asked_for(mixed: pd.DataFrame, container: str, frame: Any) -> None:
    tables: list[Any] = [HOLES, mixed]
    for table in tables:
        imputed = TabMAE(**SMALL).set_output(transform=container).fit_transform(table)
        assert isinstance(imputed, frame) and imputed.shape == table.shape
    assert list(imputed.columns) == list(mixed.columns)
    embedded = TabMAEEncoder(**SMALL).set_output(transform=container).fit_transform(mixed)
    assert isinstance(embedded, frame) and embedded.columns[0] == "tabmaeencoder0"


@pytest.mark.parametrize("given", [pl.from_pandas, pa.Table.from_pandas], ids=["polars", "arrow"])
def test_pandas_that_is_asked_for_keeps_the_types_of_other_containers(given: Any) -> None:
    table = pd.DataFrame(HOLES, columns=list("abcde")).assign(city=["Bonn", "Rome", None] * 20)
    completed = TabMAE(**SMALL).set_output(transform="pandas").fit_transform(given(table))
    assert isinstance(completed, pd.DataFrame)
    assert list(completed.columns) == list(table.columns)
    assert all(pd.api.types.is_float_dtype(completed[name]) for name in "abcde")


def test_names_of_the_features_go_through(mixed: pd.DataFrame, model: TabMAE) -> None:
    names = mixed.columns.tolist()
    assert model.feature_names_in_.tolist() == names == model.get_feature_names_out().tolist()
    assert model.n_features_in_ == len(names)
    array = TabMAE(**SMALL).fit(HOLES)
    assert not hasattr(array, "feature_names_in_") and array.get_feature_names_out()[:2].tolist() == ["x0", "x1"]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("method", ["transform", "sample", "encode", "score", "predict_interval", "reconstruct"])
def test_columns_unlike_those_of_fit_are_refused(mixed: pd.DataFrame, model: TabMAE, method: str) -> None:
    names = "The feature names should match those that were passed during fit.\nFeature names"
    remedy = r"Pass X\[model.feature_names_in_\]"
    add = r"Add the absent ones.*X.reindex\(columns=model.feature_names_in_\)"
    for table, message in {
        "absent": (mixed[["x", "n"]], f"{names} seen at fit time, yet now missing:\n- city(.|\n)*\n{add}"),
        "new": (mixed.assign(more=1.0), f"{names} unseen at fit time:\n- more\n{remedy}"),
        "reordered": (mixed[mixed.columns[::-1]], f"{names} must be in the same order as they were in fit.\n{remedy}"),
        "fewer": (mixed.to_numpy(dtype=object)[:, :3], "X has 3 features, but TabMAE .*Pass the columns"),
    }.values():
        before = table.copy()
        with pytest.raises(DataError, match=f"^{message}"):
            getattr(model, method)(table)
        pd.testing.assert_frame_equal(pd.DataFrame(table), pd.DataFrame(before))


def test_a_table_that_lacks_columns_is_completed_as_the_message_says(mixed: pd.DataFrame, model: TabMAE) -> None:
    less = mixed.drop(columns=["x", "city"]).assign(more=1.0)
    complete = model.transform(less.reindex(columns=model.feature_names_in_))
    assert complete.columns.tolist() == mixed.columns.tolist() and not complete[["x", "city"]].isna().any(axis=None)


def test_a_pipeline_with_boosted_trees_is_cross_validated() -> None:
    pipeline = make_pipeline(TabMAE(**SMALL), HistGradientBoostingClassifier(min_samples_leaf=5, max_iter=10))
    assert cross_val_score(pipeline, HOLES[:, 1:], LABELS, cv=2, error_score="raise").mean() > 0.6
    both = make_pipeline(
        make_column_transformer((TabMAE(**SMALL), [1, 2]), (TabMAEEncoder(**SMALL), [3, 4])), LogisticRegression()
    )
    assert 0 <= both.fit(HOLES, LABELS).score(HOLES, LABELS) <= 1


def test_a_grid_over_the_mask_ratio_is_searched() -> None:
    grid = {"mask_ratio": [0.3, (0.1, 0.9)], "mask": ["bernoulli", "block"]}
    search = GridSearchCV(TabMAE(**SMALL, experts=()), grid, cv=2, error_score="raise").fit(HOLES)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4 and np.isfinite(scores).all() and len(set(scores)) > 1 and (scores < 0).all()
    assert search.best_estimator_.mask_ratio == search.best_params_["mask_ratio"]


def test_optuna_tunes_the_mask_ratio() -> None:
    def objective(trial: optuna.Trial) -> float:
        ratio = trial.suggest_float("mask_ratio", 0.1, 0.9)
        return TabMAE(**SMALL, experts=(), mask_ratio=ratio).fit(HOLES[:40]).score(HOLES[40:])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=3)
    assert len({trial.value for trial in study.trials}) == 3
    assert study.best_value == max(trial.value for trial in study.trials if trial.value is not None)
