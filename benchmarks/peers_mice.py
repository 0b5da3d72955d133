"""miceforest: multiple imputation by chained LightGBM forests.

Point predictions are taken in the form that serves it best: the forests' predictions instead of values drawn by mean
matching, five data sets, their mean for numbers and most frequent level for categories.
"""

import miceforest
import pandas as pd

N_DATASETS = 5
N_ROUNDS = 5


class MiceForest:
    """Five data sets of five rounds of its default forests; out of sample by `impute_new_data`.

    LightGBM takes its threads from OpenMP's limit, and refuses names with brackets or colons: columns go in by number.
    """

    def __init__(self, seed: int, n_jobs: int) -> None:
        self.seed = seed

    def fit_transform(self, train: pd.DataFrame) -> pd.DataFrame:
        self.kernel = miceforest.ImputationKernel(
            _numbered(train), num_datasets=N_DATASETS, mean_match_candidates=0, random_state=self.seed
        )
        self.kernel.mice(N_ROUNDS)
        return _pooled(self.kernel, train)

    def transform(self, frame: pd.DataFrame) -> pd.DataFrame:
        return _pooled(self.kernel.impute_new_data(_numbered(frame), random_state=self.seed), frame)


def _numbered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis([f"c{position}" for position in range(frame.shape[1])], axis=1)


def _pooled(imputed: miceforest.ImputedData, like: pd.DataFrame) -> pd.DataFrame:
    # The round is named: left to itself, `complete_data` gives new rows their random start, round 0.
    completed = [imputed.complete_data(number, iteration=N_ROUNDS) for number in range(N_DATASETS)]
    pooled = like.copy()
    for name in like.columns:
        position = like.columns.get_loc(name)
        drawn = pd.concat([dataset[f"c{position}"] for dataset in completed], axis=1)
        if like[name].dtype == "category":
            pooled[name] = pd.Categorical(drawn.mode(axis=1)[0], dtype=like[name].dtype)
        else:
            pooled[name] = drawn.mean(axis=1)
    return pooled
