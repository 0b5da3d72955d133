"""MissForest: one forest a column, refitted in rounds until the imputed values stop moving closer.

Source: Stekhoven and Buehlmann 2012, algorithm 1: columns by rising missingness, mean or mode at the start, stop at
the first round in which the change grows for numbers and categories alike, and keep the round before.
Differs: new rows go through the kept rounds' forests in the same order; categories enter as level codes, which
scikit-learn's trees split by threshold.
"""

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)


class MissForest:
    """Random forests of 100 trees with the square root of the columns tried at each split, as in the R package.

    All columns at each split, scikit-learn's default for regression, cost twice the time and gave a larger error on
    four of five small tables.
    """

    regressor: type[BaseEstimator] = RandomForestRegressor
    classifier: type[BaseEstimator] = RandomForestClassifier
    max_features: float | str = "sqrt"

    def __init__(self, seed: int, n_jobs: int, max_rounds: int = 10) -> None:
        self.rng = np.random.RandomState(seed)
        self.n_jobs = n_jobs
        self.max_rounds = max_rounds

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        values = self._values(train)
        missing = np.isnan(values)
        self.is_category = np.array([train[name].dtype == "category" for name in train.columns])
        columns = zip(values.T, self.is_category, strict=True)
        self.start = np.array([_mode(column) if categorical else np.nanmean(column) for column, categorical in columns])
        by_missing = np.argsort(missing.sum(axis=0), kind="stable")
        self.order = [column for column in by_missing if not missing[:, column].all()]
        self.rounds: list[list[BaseEstimator]] = []
        values = np.where(missing, self.start, values)
        changes = np.full(2, np.inf)
        for _ in range(self.max_rounds):
            previous = values.copy()
            forests = [self._fit_column(values, missing, column) for column in self.order]
            new_changes = self._changes(values, previous, missing)
            if (new_changes >= changes)[self._scored(missing)].all():
                values = previous
                break
            self.rounds.append(forests)
            changes = new_changes
        return self._frame(values, train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        values = self._values(frame)
        missing = np.isnan(values)
        values = np.where(missing, self.start, values)
        for forests in self.rounds:
            for column, forest in zip(self.order, forests, strict=True):
                rows = missing[:, column]
                if rows.any():
                    values[rows, column] = forest.predict(np.delete(values[rows], column, axis=1))
        return self._frame(values, frame)

    def _fit_column(self, values: np.ndarray, missing: np.ndarray, column: int) -> BaseEstimator:
        """Fit a column's forest on its known cells, and fill its missing ones in place."""
        kind = self.classifier if self.is_category[column] else self.regressor
        forest = kind(
            n_estimators=100,
            max_features=self.max_features,
            n_jobs=self.n_jobs,
            random_state=self.rng.randint(2**31 - 1),
        )
        rows, others = missing[:, column], np.delete(values, column, axis=1)
        forest.fit(others[~rows], values[~rows, column])
        if rows.any():
            values[rows, column] = forest.predict(others[rows])
        return forest

    def _changes(self, values: np.ndarray, previous: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Give the relative change of the numbers, and the share of categories that changed."""
        numbers, categories = ~self.is_category, self.is_category
        moved = ((values - previous)[:, numbers] ** 2).sum() / max((values[:, numbers] ** 2).sum(), 1e-300)
        changed = (values != previous)[:, categories].sum() / max(missing[:, categories].sum(), 1)
        return np.array([moved, changed])

    def _scored(self, missing: np.ndarray) -> np.ndarray:
        return np.array([missing[:, ~self.is_category].any(), missing[:, self.is_category].any()])

    def _values(self, frame: pd.DataFrame) -> np.ndarray:
        return np.column_stack(
            [
                np.where(frame[name].isna(), np.nan, frame[name].cat.codes)
                if frame[name].dtype == "category"
                else frame[name].to_numpy()
                for name in frame.columns
            ]
        )

    def _frame(self, values: np.ndarray, like: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(
            {
                name: pd.Categorical.from_codes(column.astype(np.int64), dtype=like[name].dtype)
                if like[name].dtype == "category"
                else column
                for name, column in zip(like.columns, values.T, strict=True)
            }
        )


class MissExtraTrees(MissForest):
    """The same rounds with extremely randomised trees, scikit-learn's stand-in for MissForest."""

    regressor = ExtraTreesRegressor
    classifier = ExtraTreesClassifier


def _mode(codes: np.ndarray) -> float:
    return float(np.bincount(codes[~np.isnan(codes)].astype(np.int64)).argmax())
