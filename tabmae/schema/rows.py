"""Rows of a table as a table of the same container.

Contract: rows come in the order asked for, their cells as they were.
"""

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray


def take_rows(X: Any, rows: NDArray[np.intp]) -> Any:
    """Take rows by position from any supported container.

    >>> take_rows([["a", 1], ["b", 2], ["c", 3]], np.array([2, 0]))
    [['c', 3], ['a', 1]]
    """
    if isinstance(X, list | tuple):
        return [X[row] for row in rows.tolist()]
    if isinstance(X, pd.DataFrame | pd.Series):
        return X.iloc[rows]
    table = nw.from_native(X, eager_only=True, pass_through=True)
    return table[rows.tolist()].to_native() if isinstance(table, nw.DataFrame) else np.asarray(X)[rows]
