"""HyperImpute, in its own environment: see requirements-hyperimpute.txt.

It has no out-of-sample form: its `transform` fits again on the new rows.
"""

import numpy as np
import pandas as pd
from hyperimpute.plugins.imputers import Imputers
from hyperimpute.plugins.imputers._hyperimpute_internals import IterativeErrorCorrection


class HyperImputer:
    """Its defaults, told which columns are categories.

    By itself it takes every column of fewer than five values for a category and any other for a number.
    """

    def __init__(self, seed: int, n_jobs: int) -> None:
        self.seed = seed

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        categories = [position for position, name in enumerate(train.columns) if train[name].dtype == "category"]
        codes = pd.DataFrame(
            {
                str(position): train[name].cat.codes.replace(-1, np.nan).astype(float)
                if position in categories
                else train[name]
                for position, name in enumerate(train.columns)
            }
        )
        told = {str(position) for position in categories}
        IterativeErrorCorrection._is_categorical = lambda self, X, column: column in told
        imputed = np.asarray(Imputers().get("hyperimpute", random_state=self.seed).fit_transform(codes), dtype=float)
        completed = train.copy()
        for position, name in enumerate(train.columns):
            if position in categories:
                levels = len(train[name].cat.categories)
                found = np.clip(np.rint(imputed[:, position]), 0, levels - 1).astype(int)
                completed[name] = pd.Categorical.from_codes(found, dtype=train[name].dtype)
            else:
                completed[name] = imputed[:, position]
        return completed
