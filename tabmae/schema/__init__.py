"""Tables <-> cells: the only room that sees a table.

Contract: `TableSchema.encode` gives (values, observed); `decode` fills the missing cells and leaves
every observed one as it came.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabmae.schema.column import Column
from tabmae.schema.rows import take_rows
from tabmae.schema.table_schema import TableSchema
from tabmae.schema.tables import open_table

__all__ = ["Column", "TableSchema", "missing_cells", "open_table", "take_rows"]


def missing_cells(X: Any) -> NDArray[np.bool_]:
    """Which cells (B, F) of a table are missing: null, None, NaN, NaT or pd.NA.

    >>> missing_cells([[1.0, None], [float("nan"), "a"]])
    array([[False,  True],
           [ True, False]])
    """
    table = open_table(X)
    return np.column_stack([table.missing(position) for position in range(len(table.names))])
