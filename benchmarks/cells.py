"""The cells that a run is scored on: hide, split, encode, score.

Contract: table, mechanism, fraction and seed fix the hidden cells and the rows of either split, whatever the method.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tabmae.metrics import accuracy, nrmse
from tabmae.missingness import ampute

TRAIN_SHARE = 0.7


@dataclass(frozen=True)
class Hidden:
    """A table with cells hidden, split in two.

    `codes` (n, F) holds the truth: numbers as they are, categories as level codes, NaN where natively missing.
    `hidden` (n, F) is True where a known cell was hidden; `is_train` (n,) marks the rows to fit on; `levels` has the
    number of levels a column, 0 for numbers.
    """

    names: list[str]
    levels: list[int]
    codes: np.ndarray
    hidden: np.ndarray
    is_train: np.ndarray

    @property
    def digest(self) -> str:
        """Fingerprint of the hidden cells and the split."""
        cells = np.packbits(np.column_stack([self.hidden, self.is_train]))
        return hashlib.sha256(cells.tobytes()).hexdigest()[:12]

    def visible(self, rows: np.ndarray) -> np.ndarray:
        """Give the codes of some rows with the hidden cells missing."""
        return np.where(self.hidden[rows], np.nan, self.codes[rows])


def hide_cells(frame: pd.DataFrame, mechanism: str, fraction: float, seed: int) -> Hidden:
    """Hide cells of the whole table, then draw the rows to fit on."""
    _, hidden = ampute(frame, fraction, mechanism, random_state=seed)
    is_train = np.zeros(len(frame), dtype=bool)
    is_train[np.random.RandomState([seed, 1]).permutation(len(frame))[: round(TRAIN_SHARE * len(frame))]] = True
    columns = [frame[name] for name in frame.columns]
    levels = [len(column.cat.categories) if column.dtype == "category" else 0 for column in columns]
    codes = np.column_stack(
        [
            np.where(column.isna(), np.nan, column.cat.codes) if n_levels else column.to_numpy(dtype=np.float64)
            for column, n_levels in zip(columns, levels, strict=True)
        ]
    )
    return Hidden(list(frame.columns), levels, codes, hidden, is_train)


def score_cells(cells: Hidden, rows: np.ndarray, imputed: np.ndarray) -> dict[str, object]:
    """Score imputed codes of `rows` on their hidden cells, by column and on average."""
    errors: dict[str, float] = {}
    hits: dict[str, float] = {}
    for position, (name, n_levels) in enumerate(zip(cells.names, cells.levels, strict=True)):
        chosen = cells.hidden[rows, position]
        target, predicted = cells.codes[rows, position][chosen], imputed[chosen, position]
        scale = float(np.nanstd(cells.codes[:, position]))
        if not chosen.any():
            continue
        if n_levels:
            hits[name] = accuracy(target, predicted)
        elif scale > 0:
            errors[name] = nrmse(target, predicted, scale)
    return {
        "nrmse": float(np.mean(list(errors.values()))) if errors else None,
        "nrmse_columns": errors,
        "accuracy": float(np.mean(list(hits.values()))) if hits else None,
        "accuracy_columns": hits,
    }
