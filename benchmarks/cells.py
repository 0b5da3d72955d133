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
MECHANISMS = ("mcar", "mar", "mnar", "natural")
LEAST_NATURAL = 10
"""Hidden cells that a column needs to be scored where natural holes decide how many it has."""

PATTERN_DRAWS = 20
"""Times that another row is drawn for a row that would lose all of its known cells."""


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

    @property
    def train_rows(self) -> np.ndarray:
        return np.flatnonzero(self.is_train)

    @property
    def test_rows(self) -> np.ndarray:
        return np.flatnonzero(~self.is_train)

    def visible(self, rows: np.ndarray) -> np.ndarray:
        """Give the codes of some rows with the hidden cells missing."""
        return np.where(self.hidden[rows], np.nan, self.codes[rows])


def hide_cells(frame: pd.DataFrame, mechanism: str, fraction: float, seed: int) -> Hidden:
    """Hide cells of the whole table, then draw the rows to fit on."""
    if mechanism == "natural":
        hidden = copy_patterns(frame.notna().to_numpy(), fraction, np.random.RandomState([seed, 3]))
    else:
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


def copy_patterns(known: np.ndarray, fraction: float, rng: np.random.RandomState) -> np.ndarray:
    """Hide, in a share of the rows, the cells that are missing in another row, drawn from those with holes.

    A row that would lose all of its known cells draws again, and is left alone in the end; a column keeps a known
    cell.

    Raises
    ------
    ValueError : the table has no holes to copy.
    """
    donors = np.flatnonzero(~known.all(axis=1))
    if not len(donors):
        raise ValueError("Natural holes need a table with missing cells; this one has none. Use another mechanism.")
    hidden = np.zeros_like(known)
    rows = rng.permutation(len(known))[: round(fraction * len(known))]
    for _ in range(PATTERN_DRAWS):
        drawn = rng.choice(donors, len(rows))
        copied = known[rows] & ~known[drawn]
        good = (copied != known[rows]).any(axis=1) & (drawn != rows)
        hidden[rows[good]] = copied[good]
        rows = rows[~good]
    for column in np.flatnonzero(known.any(axis=0) & (hidden == known).all(axis=0)):
        hidden[rng.choice(np.flatnonzero(known[:, column])), column] = False
    return hidden


def score_cells(cells: Hidden, rows: np.ndarray, imputed: np.ndarray, least: int = 1) -> dict[str, object]:
    """Score imputed codes of `rows` on their hidden cells, by column with `least` of them or more, and on average."""
    errors: dict[str, float] = {}
    hits: dict[str, float] = {}
    for position, (name, n_levels) in enumerate(zip(cells.names, cells.levels, strict=True)):
        chosen = cells.hidden[rows, position]
        target, predicted = cells.codes[rows, position][chosen], imputed[chosen, position]
        scale = float(np.nanstd(cells.codes[:, position]))
        if chosen.sum() < least:
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
