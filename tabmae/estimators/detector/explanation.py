"""Which cells make a row odd, and what was expected of them, as a table of its own in the units of the columns.

Contract: values are X's own; rows come in the order of X's, columns in that of fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.estimators.detector.network import Expected
from tabmae.schema import TableSchema, open_table

N_SUSPECTS = 3
"""Cells of a row that are left out in turn; more were blamed no better."""
N_WITNESSES = 12
"""Cells of a row that are judged again without a suspect, the most surprising ones; all of a narrow table."""

Surprise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(values (B, F), observed, wanted) -> nats (B, F) of the wanted cells, given the observed ones; 0 for the others."""


def blame(surprise: Surprise, values: Tensor, observed: Tensor, forbidden: Tensor | None = None) -> Tensor:
    """By how many nats a row's surprise falls without a cell, which counts what a wrong cell does to the others.

    Parameters
    ----------
    forbidden : float64 (B, F), nats that tell of a cell which should not be there; those that say so are not to blame.

    Returns
    -------
    blame : (B, F), not negative; the cell's own surprise but for the `N_SUSPECTS` most surprising ones of a row.
    """
    forbidden = torch.zeros(values.shape, dtype=torch.float64) if forbidden is None else forbidden
    own = surprise(values, observed, observed) + forbidden
    found, order = own.clone(), own.sort(dim=1, descending=True, stable=True).indices
    witness = torch.zeros_like(observed).scatter_(1, order[:, :N_WITNESSES], True) & observed
    total = torch.where(witness, own, 0).sum(1)
    for suspect in order[:, :N_SUSPECTS].unbind(1):
        rows = torch.nonzero(own.gather(1, suspect[:, None])[:, 0])[:, 0]
        if len(rows):
            place = torch.arange(len(rows)), suspect[rows]
            without, wanted = observed[rows], witness[rows]
            without[place] = wanted[place] = False
            rest = (surprise(values[rows], without, wanted) + torch.where(wanted, forbidden[rows], 0)).sum(1)
            found[rows, suspect[rows]] = (total[rows] - rest).clamp_min(0)
    return found


def as_frame(X: Any) -> pd.DataFrame:
    """Any supported table as a DataFrame; one without names has positions for columns."""
    if isinstance(X, pd.DataFrame):
        return X
    return X.to_pandas() if hasattr(X, "to_pandas") else pd.DataFrame(X)


def explained(
    schema: TableSchema, frame: pd.DataFrame, contribution: NDArray[np.float64], expected: Expected
) -> pd.DataFrame:
    """One row a cell of the frame: `row`, `column`, `value`, `contribution`, `expected`, `lower`, `upper`.

    Parameters
    ----------
    contribution : (B, F), in nats, columns as in fit. expected : (B, F) each, as the schema encodes cells.
    """
    positions = schema.positions(open_table(frame))
    names = frame.columns[positions]
    point = schema.full(expected.point.numpy(), frame)
    lower, upper = (
        schema.decode_numbers(bound.numpy(), frame, fill_observed=False) for bound in (expected.lower, expected.upper)
    )
    parts = [
        pd.DataFrame(
            {
                "row": frame.index.to_flat_index(),
                "column": pd.Series([column.name] * len(frame), dtype=object),
                "value": as_objects(frame[name]),
                "contribution": contribution[:, place],
                "expected": as_objects(point[name]) if column.learnable else None,
                "lower": as_objects(lower[name]) if name in lower and column.learnable else None,
                "upper": as_objects(upper[name]) if name in upper and column.learnable else None,
            }
        )
        for place, (name, column) in enumerate(zip(names, schema.columns, strict=True))
    ]
    cells = pd.concat(parts, keys=range(len(parts)))
    order = np.arange(len(parts) * len(frame)).reshape(len(parts), len(frame)).T.ravel()
    return cells.iloc[order].reset_index(drop=True).infer_objects()


def as_objects(column: pd.Series) -> pd.Series:
    """Cells of any type as Python objects, which columns of several types can share."""
    return pd.Series(column.tolist(), dtype=object)
