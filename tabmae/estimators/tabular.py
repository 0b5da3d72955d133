"""What every estimator of tables shares: tables with the columns of fit, and a folder to be saved in.

Contract: an estimator that cannot be fitted stays as it was.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from tabmae.errors import DataError, listed
from tabmae.estimators.parameters import check_parameters
from tabmae.saving import save
from tabmae.schema import TableSchema, open_table


@contextmanager
def unchanged_by_failure(estimator: BaseEstimator) -> Iterator[None]:
    """Leave an estimator as it was before when it cannot be fitted."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


class TabularEstimator(BaseEstimator, ABC):
    """Tags, reading and save of an estimator whose `schema_` is that of the table of fit."""

    schema_: TableSchema

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags

    def _check_columns(self, X: Any, *, reset: bool) -> None:
        """Keep, or compare with those of fit, the count and the names of the columns."""
        try:
            validate_data(self, X, reset=reset, skip_check_array=True)
        except TypeError as error:  # of names of several types
            raise DataError(
                f"Columns must all be named by strings, or none; got {listed(open_table(X).names)}. "
                "Pass X.set_axis(X.columns.astype(str), axis=1)."
            ) from error
        except ValueError as error:
            told = str(error).strip()
            end = "\n" if "\n" in told else " "
            raise DataError(f"{told}{end}{self._remedy(X)}") from error

    def _remedy(self, X: Any) -> str:
        """What to do about a table whose columns are not those of fit."""
        table, names = open_table(X), getattr(self, "feature_names_in_", None)
        if names is None or not table.named:
            return "Pass the columns of fit in their order."
        if set(names) <= set(table.names):
            return "Pass X[model.feature_names_in_]."
        return "Add the absent ones, as NaN where they are unknown: X.reindex(columns=model.feature_names_in_)."

    def _read(self, X: Any) -> tuple[Tensor, Tensor]:
        """Cells of a table with the columns of fit: values (n, F), observed (n, F)."""
        check_is_fitted(self)
        open_table(X)
        self._check_columns(X, reset=False)
        return self._cells(self.schema_, X)

    @staticmethod
    def _cells(schema: TableSchema, X: Any) -> tuple[Tensor, Tensor]:
        """A table as cells: values (n, F), observed (n, F)."""
        values, observed = schema.encode(X)
        return torch.from_numpy(values), torch.from_numpy(observed)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a folder, whole or not at all; `tabmae.load` reads it.

        Raises
        ------
        ParameterError : a parameter is a function, which cannot be saved, or was set to what `fit` refuses.
        """
        check_is_fitted(self)
        self._check()
        save(self, folder)

    def _check(self) -> None:
        """Check every parameter."""
        check_parameters(self)

    @abstractmethod
    def _get_state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Fitted state for JSON, and tensors."""

    @abstractmethod
    def _set_state(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Undo `_get_state`."""


def check_enough(values: Tensor, observed: Tensor, least: int = 2) -> None:
    """Refuse tables from which nothing can be learnt: they have fewer than `least` rows with an observed cell."""
    if len(values) < least:
        raise DataError(
            f"X must have at least {least} rows; got n_samples = {len(values)}. "
            "Pass more rows to fit; one row is enough to transform."
        )
    n_useful = int(observed.any(1).sum())
    if n_useful < least:
        raise DataError(
            f"X must have at least {least} rows with an observed cell; got {n_useful} of {len(values)}. "
            "Pass rows that hold values."
        )
