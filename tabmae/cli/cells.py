"""Lists of cells, imputed or odd, as files show them.

Contract: rows are counted from 1, as those of a file are.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tabmae.cli.sheets import Target


def rows_from_one(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells of a table with rows counted from 1; those of series as they are."""
    return cells.assign(row=np.asarray(cells["row"], dtype=np.int64) + 1) if "row" in cells else cells


def plain(cells: pd.DataFrame, target: Target) -> pd.DataFrame:
    """Imputed cells as columns of one type each, which CSV does without."""
    if target.is_csv:
        return cells
    texts = {
        name: cells[name].map(lambda cell: None if pd.isna(cell) else str(cell)) for name in cells if name != "row"
    }
    return cells.assign(**texts)
