"""Tables that the tests of the estimators draw."""

import numpy as np
from numpy.typing import NDArray


def correlated(n_rows: int, seed: int = 0, n_columns: int = 5, noise: float = 0.5) -> NDArray[np.float64]:
    """Draw rows of columns that share one normal factor, each with a mean and scale of its own."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n_rows, 1))
    columns = np.arange(n_columns)
    sign = np.where(columns % 2, -1.0, 1.0)
    return 10.0 * columns + (1 + columns) * (sign * factor + noise * rng.normal(size=(n_rows, n_columns)))


def with_holes(table: NDArray[np.float64], fraction: float = 0.3, seed: int = 1) -> NDArray[np.float64]:
    """Blank cells at random."""
    hidden = np.random.default_rng(seed).random(table.shape) < fraction
    return np.where(hidden, np.nan, table)
