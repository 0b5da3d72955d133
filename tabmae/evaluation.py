"""Score imputers on known cells of a table that are hidden on purpose.

Contract: every method sees the same holes, is fitted to the same rows, and is scored on the same hidden cells; cells
that are missing in the data are never scored.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
import sklearn.experimental.enable_iterative_imputer
import sklearn.impute
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state

from tabmae.errors import DataError, ParameterError, check_choice, check_number, kind_of, listed
from tabmae.metrics import accuracy, rmse
from tabmae.missingness import ampute
from tabmae.schema import TableSchema, missing_cells, open_table, take_rows

BASELINES = ("mean", "knn", "iterative")
MAX_INDICATORS = 10
"""Levels up to which a category is imputed from indicators, and beyond which by its mode: each costs a column."""
RESULT = ["method", "sample", "column", "kind", "n", "nrmse", "accuracy", "skill", "seconds"]


class Baseline(BaseEstimator):
    """An imputer of scikit-learn for mixed tables.

    It sees standardised numbers and an indicator for each level of a category; the level of the largest imputed
    indicator is taken, for "knn" the mode of the neighbours. "mean" imputes every category by its mode.

    Parameters
    ----------
    name : one of `BASELINES`.
    categorical_features : as in `TabMAE`.
    random_state : seed of "iterative".
    """

    def __init__(
        self,
        name: str = "mean",
        *,
        categorical_features: Any = "auto",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.name = name
        self.categorical_features = categorical_features
        self.random_state = random_state

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn from a table as `TabMAE` takes them; `y` is ignored."""
        check_choice("name", self.name, BASELINES)
        self.schema_ = TableSchema.fit(X, self.categorical_features)
        # A column without an observed cell comes back as it is, whatever is imputed.
        if self.name == "mean":
            self.imputer_ = sklearn.impute.SimpleImputer(keep_empty_features=True)
        elif self.name == "knn":
            self.imputer_ = sklearn.impute.KNNImputer(keep_empty_features=True)
        else:
            self.imputer_ = sklearn.impute.IterativeImputer(keep_empty_features=True, random_state=self.random_state)
        if sum(self._widths()):
            self.imputer_.fit(self._indicators(X))
        return self

    def transform(self, X: Any) -> Any:
        """Impute a table with the columns of fit."""
        widths = self._widths()
        indicators = self._indicators(X)
        completed = self.imputer_.transform(indicators) if sum(widths) else indicators
        values = np.zeros((len(completed), len(widths)))
        start = 0
        for place, width in enumerate(widths):
            block = completed[:, start : start + width]
            if width:
                values[:, place] = block[:, 0] if width == 1 else block.argmax(axis=1)
            start += width
        return self.schema_.decode(values, X)

    def _widths(self) -> list[int]:
        """Columns that stand for each column: one for a number, none for a category that gets its mode, code 0."""
        limit = 1 if self.name == "mean" else MAX_INDICATORS
        return [1 if n == 0 else n if 1 < n <= limit else 0 for n in self.schema_.n_levels]

    def _indicators(self, X: Any) -> NDArray[np.float64]:
        """Standardised numbers and indicators of levels, NaN where not observed."""
        values, observed = self.schema_.encode(X)
        blocks = [np.zeros((len(values), 0))]
        for place, width in enumerate(self._widths()):
            column = values[:, place, None]
            block = column == np.arange(width) if width > 1 else column[:, :width]
            blocks.append(np.where(observed[:, place, None], block, np.nan))
        return np.hstack(blocks)


def evaluate(
    estimator: Any,
    X: Any,
    *,
    fraction: float = 0.3,
    mechanism: str = "mcar",
    test_size: float = 0.3,
    baselines: Sequence[str] | Mapping[str, Any] = BASELINES,
    random_state: int | np.random.RandomState | None = None,
) -> pd.DataFrame:
    """Hide known cells of a table and score how well an estimator and simple imputers find them again.

    Parameters
    ----------
    estimator : TabMAE or any imputer with `fit` and `transform`; a clone of it is fitted.
    X : pandas or polars DataFrame, Arrow table, 2-D array or tensor, or list of rows, (n, F).
    fraction, mechanism : of the cells to hide, as in `ampute`.
    test_size : share of the rows, in [0, 1), that are kept from fit and only transformed.
    baselines : names out of "mean", "knn" and "iterative", or a dict from names to estimators (or to these names).
    random_state : seed of the hidden cells, the split and "iterative"; the estimator keeps its own.

    Returns
    -------
    DataFrame, a row for each method, sample ("in": the rows of fit; "out": the others) and column of X:
        kind : "number" or "category".
        n : count of hidden cells, on which the scores are.
        nrmse : root mean squared error of a number in standard deviations of the column's known cells in X.
        accuracy : share of right levels of a category.
        skill : share of the error of the mean, or of the mode, that is gone; NaN where that has no error.
        seconds : of the method on the sample, fit included for "in"; the same for all columns.

    Raises
    ------
    DataError : X cannot be read, or a method left hidden cells missing.
    ParameterError : a parameter is out of range, misspelt, or gives two methods one name.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.impute import SimpleImputer
    >>> scores = evaluate(SimpleImputer(), load_iris().data, baselines=["knn"], random_state=0)
    >>> scores.groupby("method")["nrmse"].mean().round(2).to_dict()
    {'SimpleImputer': 1.05, 'knn': 0.63}
    """
    hint = "Pass the share of rows to keep from fit, for example 0.3."
    check_number("test_size", test_size, low=0, high=1, high_open=True, hint=hint)
    _checked("`estimator`", estimator)
    rng = check_random_state(random_state)
    # One stream for the split and the holes: two of one seed would hide the very rows that are split off.
    order = rng.permutation(open_table(X).n_rows)
    X_missing, hidden = ampute(X, fraction, mechanism, random_state=rng)
    categorical = getattr(estimator, "categorical_features", "auto")
    simple = {
        name: Baseline(name, categorical_features=categorical, random_state=int(rng.randint(2**31 - 1)))
        for name in BASELINES
    }
    own = type(estimator).__name__
    methods = {own: clone(estimator)} | _chosen(baselines, simple, own)
    n_out = min(round(test_size * len(order)), len(order) - 2)
    samples = {"in": np.sort(order[n_out:]), "out": np.sort(order[:n_out])}
    truth = _Truth(X, hidden, X_missing, samples["in"], categorical)
    mean, _ = _imputed(simple["mean"], X_missing, samples)
    reference = {sample: truth.scores(table, samples[sample], "mean") for sample, table in mean.items()}
    parts = []
    for name, method in methods.items():
        tables, seconds = _imputed(method, X_missing, samples)
        for sample, table in tables.items():
            part = truth.scores(table, samples[sample], name).assign(
                method=name, sample=sample, seconds=seconds[sample]
            )
            baseline = reference[sample]["error"]
            part["skill"] = 1 - part["error"] / baseline.where(baseline > 0)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)[RESULT]


def _chosen(baselines: Sequence[str] | Mapping[str, Any], simple: Mapping[str, Baseline], taken: str) -> dict[str, Any]:
    """The baselines by name, fresh."""
    if isinstance(baselines, str):
        raise ParameterError(f"`baselines` must be a list of names; got {baselines!r}. Pass [{baselines!r}].")
    given = baselines if isinstance(baselines, Mapping) else {name: name for name in baselines}
    chosen = {}
    for name, baseline in given.items():
        if isinstance(baseline, str):
            check_choice("baselines", baseline, BASELINES)
            baseline = simple[baseline]
        chosen[name] = clone(_checked(repr(name), baseline))
    if taken in chosen:
        raise ParameterError(f"`baselines` must have other names than the estimator; got {taken!r}. Rename it.")
    return chosen


def _checked(name: str, method: Any) -> Any:
    if isinstance(method, type) or not (hasattr(method, "fit") and hasattr(method, "transform")):
        raise ParameterError(
            f"{name} must be an imputer, with `fit` and `transform`; got {kind_of(method)}. Pass for example TabMAE()."
        )
    if hasattr(method, "backtest"):
        raise ParameterError(
            f"{name} must be an imputer of tables; got {kind_of(method)}, of series. Its `quality_` tells how well it "
            "fills gaps, and its `backtest` how well it forecasts."
        )
    return method


def _imputed(
    method: Any, X_missing: Any, samples: Mapping[str, NDArray[np.intp]]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Completed rows of each sample that has any, and the seconds that they took."""
    tables, seconds = {}, {}
    with warnings.catch_warnings():
        if isinstance(method, Baseline):
            warnings.simplefilter("ignore", UserWarning)
        for sample, rows in samples.items():
            if len(rows):
                part = take_rows(X_missing, rows)
                start = time.perf_counter()
                if sample == "in":
                    method.fit(part)
                tables[sample] = method.transform(part)
                seconds[sample] = time.perf_counter() - start
    return tables, seconds


class _Truth:
    """The hidden cells in units of X's columns; those of columns that fit sees nothing of are not scored."""

    def __init__(
        self, X: Any, hidden: NDArray[np.bool_], X_missing: Any, fitted: NDArray[np.intp], categorical: Any
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self.schema = TableSchema.fit(X, categorical)
        self.values, _ = self.schema.encode(X)
        self.hidden = hidden & ~missing_cells(X_missing)[fitted].all(axis=0)

    def scores(self, completed: Any, rows: NDArray[np.intp], method: str) -> pd.DataFrame:
        """Scores of the completed rows, a line a column."""
        hidden = self.hidden[rows]
        table = open_table(completed)
        if (table.n_rows, len(table.names)) != hidden.shape:
            raise DataError(
                f"{method} must give the rows and columns that it is given; gave shape "
                f"{(table.n_rows, len(table.names))} for {hidden.shape}. Keep empty columns in it."
            )
        left = missing_cells(completed)[:, self.schema.positions(table)] & hidden
        if left.any():
            names = [self.schema.columns[place].name for place in np.flatnonzero(left.any(axis=0))]
            raise DataError(
                f"{method} must impute every missing cell; it left {int(left.sum())} in columns {listed(names)}. "
                "Remove the method from `baselines`, or have it fill the rest, for example with the mean."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            predicted, known = self.schema.encode(completed)
        lines = []
        for place, column in enumerate(self.schema.columns):
            cells = hidden[:, place]
            target, found = self.values[rows, place][cells], predicted[cells, place]
            share = error = scaled = np.nan
            if column.kind == "category":
                # A level that X does not hold is wrong.
                share = accuracy(target, np.where(known[cells, place], found, -1))
                error = 1 - share
            else:
                error = rmse(target, found)
                scaled = np.nan if column.constant else error
            lines.append((column.name, column.kind, len(target), scaled, share, error))
        return pd.DataFrame(lines, columns=["column", "kind", "n", "nrmse", "accuracy", "error"])
