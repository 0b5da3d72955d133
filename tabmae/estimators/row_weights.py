"""Weights of the rows of a table, as a user gives them.

Contract: they are finite and not negative, and the largest is 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from tabmae.errors import DataError
from tabmae.schema import open_table, take_rows


def weighed_rows(X: Any, sample_weight: ArrayLike | None) -> tuple[Any, Tensor | None]:
    """The rows of a positive weight, a table as it came, and their weights."""
    n_rows = open_table(X).n_rows
    if sample_weight is None:
        return X, None
    weight = checked_weight(sample_weight, n_rows)
    rows = torch.nonzero(weight)[:, 0]
    return (X if len(rows) == n_rows else take_rows(X, rows.numpy())), weight[rows]


def checked_weight(sample_weight: ArrayLike, n_rows: int) -> Tensor:
    """Weights of the rows as float32 (n,), the largest 1."""
    given = sample_weight.detach().cpu() if isinstance(sample_weight, Tensor) else sample_weight
    try:
        weight = torch.from_numpy(np.array(given, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"`sample_weight` must hold numbers; {error}. Pass an array of shape (n_rows,).") from error
    wrong = int((~torch.isfinite(weight) | (weight < 0)).sum())
    if weight.shape != (n_rows,) or wrong:
        raise DataError(
            f"`sample_weight` must hold {n_rows} finite weights that are not negative, one a row; got shape "
            f"{tuple(weight.shape)} and {wrong} that are negative or not finite. Pass an array of shape (n_rows,)."
        )
    if not (weight > 0).any():
        raise DataError("`sample_weight` must not be zero for all rows; it is. Give some rows a positive weight.")
    return (weight / weight.max()).float()
