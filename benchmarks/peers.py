"""Peers of NumPy and scikit-learn: mean or mode, nearest neighbours, chained linear models.

Contract of every method: `fit_transform(train)` and `transform(test)` take tables of float64 and category columns and
give them completed.
"""

import numpy as np
import pandas as pd
from sklearn.experimental import enable_iterative_imputer
from sklearn.impute import IterativeImputer, KNNImputer

__all__ = ["Iterative", "MeanMode", "Neighbours", "enable_iterative_imputer"]


class MeanMode:
    """The mean of a numeric column, the most frequent level of a category."""

    def __init__(self, seed: int, n_jobs: int) -> None:
        self.fill: dict[str, object] = {}

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        self.fill = {
            name: train[name].mode().iloc[0] if train[name].dtype == "category" else train[name].mean()
            for name in train.columns
        }
        return self.transform(train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.fillna(self.fill)


class OneHot:
    """Run an imputer of numbers on standardised numbers and one-hot categories; the largest column names the level.

    A missing category is missing in all of its columns, so that a mean over neighbours is their vote.
    """

    def __init__(self, imputer: KNNImputer | IterativeImputer) -> None:
        self.imputer = imputer

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        numbers = train.select_dtypes("number")
        self.mean, self.scale = numbers.mean(), numbers.std(ddof=0).replace(0, 1).fillna(1)
        return self._decoded(self.imputer.fit_transform(self._encoded(train)), train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._decoded(self.imputer.transform(self._encoded(frame)), frame)

    def _encoded(self, frame: pd.DataFrame) -> np.ndarray:
        blocks = []
        for name in frame.columns:
            if frame[name].dtype == "category":
                codes = frame[name].cat.codes.to_numpy()
                block = np.eye(len(frame[name].cat.categories))[codes]
                blocks.append(np.where(codes[:, None] < 0, np.nan, block))
            else:
                blocks.append(((frame[name] - self.mean[name]) / self.scale[name]).to_numpy()[:, None])
        return np.hstack(blocks)

    def _decoded(self, encoded: np.ndarray, frame: pd.DataFrame) -> pd.DataFrame:
        completed, start = frame.copy(), 0
        for name in frame.columns:
            missing = frame[name].isna().to_numpy()
            if frame[name].dtype == "category":
                width = len(frame[name].cat.categories)
                codes = encoded[:, start : start + width].argmax(axis=1)
                levels = pd.Categorical.from_codes(codes, dtype=frame[name].dtype)
                completed.loc[missing, name] = levels[missing]
            else:
                width = 1
                completed.loc[missing, name] = encoded[missing, start] * self.scale[name] + self.mean[name]
            start += width
        return completed


class Neighbours(OneHot):
    """scikit-learn's KNNImputer with its five neighbours."""

    def __init__(self, seed: int, n_jobs: int) -> None:
        super().__init__(KNNImputer(keep_empty_features=True))


class Iterative(OneHot):
    """scikit-learn's IterativeImputer with its BayesianRidge and ten rounds; categories by their most frequent level.

    Left missing, the one-hot columns of a category would predict one another: they add up to one where it is known, so
    each is imputed at its mean, and the largest of them is the most frequent level again.
    """

    def __init__(self, seed: int, n_jobs: int) -> None:
        super().__init__(IterativeImputer(random_state=seed, skip_complete=True, keep_empty_features=True))
        self.mode = MeanMode(seed, n_jobs)

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        return super().fit_transform(_with_categories(train, self.mode.fit_transform(train)))

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return super().transform(_with_categories(frame, self.mode.transform(frame)))


def _with_categories(frame: pd.DataFrame, completed: pd.DataFrame) -> pd.DataFrame:
    categories = frame.select_dtypes("category").columns
    return frame.assign(**{name: completed[name] for name in categories})
