"""Hide known cells of a table on purpose, so that an imputation can be scored against the truth.

Contract: only known cells are hidden, no column loses its last one, and the same `random_state` hides the same cells
whatever the container holds them.
"""

from collections.abc import Sequence
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
from sklearn.utils import check_random_state
from torch import Tensor

from tabmae.errors import DataError, ParameterError, check_choice, check_number, listed
from tabmae.schema.tables import array_of_rows, array_of_tensor

MECHANISMS = ("mcar", "mar", "mnar")
PATTERNS = ("cell", "run", "block")
MAX_BLOCK_ROWS = 10
MAX_EXACT_INTEGER = 2**53
NUMERIC_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal", "boolean")


def ampute(
    X: Any,
    fraction: float = 0.3,
    mechanism: str = "mcar",
    *,
    columns: Sequence[Any] | None = None,
    observed_fraction: float = 0.5,
    pattern: str = "cell",
    random_state: int | np.random.RandomState | None = None,
) -> tuple[Any, np.ndarray]:
    """Hide a share of the known cells of a table.

    Parameters
    ----------
    X : pandas or polars DataFrame, Arrow table, 2-D array or tensor, or list of rows, (n, F). Cells that are missing
        already are left alone.
    fraction : float in (0, 1), default 0.3
        Share of the known cells to hide in each touched column. Under "mcar" with `pattern="cell"` exactly
        `round(fraction * known)` cells of the column are hidden; otherwise it is the expected share.
    mechanism : {"mcar", "mar", "mnar"}, default "mcar"
        "mcar": every known cell is as likely. "mar": a logistic model on columns that stay complete, the drivers.
        "mnar": a logistic model on all the columns, the hidden one included.
    columns : names (frames) or positions (arrays), default None
        The columns that may lose cells. None: all of them, less the drivers under "mar". With `columns` given, the
        others drive under "mar".
    observed_fraction : float in (0, 1), default 0.5
        Share of the columns that are drawn as drivers under "mar" where `columns` leaves none; at least one.
    pattern : {"cell", "run", "block"}, default "cell"
        "cell": each cell on its own. "run": neighbouring touched columns of a row. "block": a rectangle of up to 10
        neighbouring rows and a run of columns. The mechanism then decides which rows, or bands of rows, are hit.
    random_state : int, RandomState or None, default None
        A `RandomState`'s stream does not change between NumPy versions, so neither do the hidden cells. A seed's stream
        is this function's own: a split of the rows by the same seed is independent of the cells.

    Returns
    -------
    X_missing : a new table of X's type. pandas columns that lose a cell keep their dtype where it can hold a missing
        value; NumPy integers become float64 (`Int64` or `UInt64` beyond 2**53) and NumPy bool becomes `boolean`.
        Integer and bool arrays become float64, string arrays object with NaN, tensors arrays.
    hidden : bool (n, F), True exactly where a known cell was hidden now.

    Raises
    ------
    DataError : X is not a supported table, is empty, or holds what cannot be given a missing value.
    ParameterError : a parameter out of range, misspelt, or a column that X lacks.

    Source: Muzellec et al. 2020, Missing Data Imputation using Optimal Transport, section 4: logistic models with
    standard normal coefficients over the scale of their sum, the intercept found by bisection.
    Differs: inputs are standardised, categories enter as integer codes in order of appearance, and missing inputs as
    the column's mean; the expected rate is taken over the known cells of the column.

    Examples
    --------
    >>> X_missing, hidden = ampute(np.arange(20.0).reshape(10, 2), fraction=0.3, random_state=0)
    >>> hidden.sum(axis=0)
    array([3, 3])
    """
    hint = "Pass the share of known cells to hide in each touched column, for example 0.3."
    check_number("fraction", fraction, low=0, high=1, low_open=True, high_open=True, hint=hint)
    check_choice("mechanism", mechanism, MECHANISMS)
    hint = "Pass the share of columns that stay complete, for example 0.5."
    check_number("observed_fraction", observed_fraction, low=0, high=1, low_open=True, high_open=True, hint=hint)
    check_choice("pattern", pattern, PATTERNS)
    given, X = X, _opened(X)
    view = _pandas_view(X)
    rng = check_random_state(random_state)
    if rng is not random_state:
        # A split drawn by the same seed would otherwise permute the rows exactly as the first column's cells.
        rng = np.random.RandomState(rng.randint(2**31 - 1))
    known = view.notna().to_numpy()
    touched, drivers = _roles(view.columns, mechanism, columns, observed_fraction, rng)
    inputs = np.zeros((len(view), 0)) if mechanism == "mcar" else _standardised(view, drivers)
    drawn = (
        _cells(known[:, touched], inputs, mechanism, fraction, rng)
        if pattern == "cell"
        else _runs(len(view), len(touched), inputs, mechanism, fraction, pattern, rng)
    )
    hidden = np.zeros(view.shape, dtype=bool)
    hidden[:, touched] = drawn & known[:, touched]
    for column in np.flatnonzero(known.any(axis=0) & (hidden == known).all(axis=0)):
        hidden[rng.choice(np.flatnonzero(known[:, column])), column] = False
    X_missing = _with_holes(X, hidden)
    return X_missing.tolist() if isinstance(given, list | tuple) else X_missing, hidden


def _opened(X: Any) -> Any:
    """Give rows and tensors as an array, any other table as it is."""
    if isinstance(X, list | tuple):
        return array_of_rows(X)
    return array_of_tensor(X) if isinstance(X, Tensor) else X


def _pandas_view(X: Any) -> pd.DataFrame:
    """Give any supported table as a pandas frame, for reading only."""
    if isinstance(X, pd.DataFrame):
        view = X
    elif isinstance(X, np.ndarray):
        if X.ndim != 2:
            raise DataError(f"X must have two dimensions, rows and columns; got {X.ndim}. Reshape it first.")
        if X.dtype.kind not in "fiubOUSmM":
            raise DataError(f"X must hold numbers, strings or dates; got an array of {X.dtype}. Convert it first.")
        view = pd.DataFrame(X)
    else:
        try:
            view = nw.from_native(X, eager_only=True).to_pandas()
        except TypeError:
            wanted = "a pandas or polars DataFrame, an Arrow table, a 2-D array or a list of rows"
            raise DataError(f"X must be {wanted}; got {type(X).__name__}. Convert it first.") from None
    if any(pd.api.types.is_complex_dtype(dtype) for dtype in view.dtypes):
        raise DataError("X must hold no complex numbers. Pass their real and imaginary parts as columns.")
    if not view.shape[0] or not view.shape[1]:
        raise DataError(f"X must have a row and a column at least; got shape {view.shape}. Pass a table with cells.")
    return view


def _roles(
    names: pd.Index, mechanism: str, columns: Sequence[Any] | None, observed_fraction: float, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Give the positions of the columns that may lose cells, and of those that the mechanism depends on."""
    every = np.arange(len(names))
    touched = every if columns is None else _positions(names, columns)
    if mechanism == "mcar":
        return touched, every[:0]
    if mechanism == "mnar":
        return touched, every
    drivers = np.setdiff1d(every, touched)
    if not len(drivers):
        if len(names) < 2:
            raise DataError("mechanism='mar' needs two columns at least; got 1. Use 'mcar' or 'mnar'.")
        n_drivers = min(max(int(observed_fraction * len(names)), 1), len(names) - 1)
        drivers = np.sort(rng.choice(len(names), n_drivers, replace=False))
    return np.setdiff1d(touched, drivers), drivers


def _positions(names: pd.Index, columns: Sequence[Any]) -> np.ndarray:
    if isinstance(columns, str):
        raise ParameterError(f"`columns` must be a list of columns; got {columns!r}. Pass [{columns!r}].")
    absent = [column for column in columns if column not in names]
    if absent:
        raise ParameterError(f"`columns` must be columns of X; X lacks {listed(absent)}. It has {listed(names)}.")
    if not len(columns):
        raise ParameterError("`columns` must name a column at least; got none. Leave it out to touch all of them.")
    return np.flatnonzero(names.isin(list(columns)))


def _standardised(view: pd.DataFrame, drivers: np.ndarray) -> np.ndarray:
    """Turn columns into float64 (n, drivers) of mean 0 and deviation 1, with 0 where missing or constant."""
    inputs = np.column_stack([_codes(view.iloc[:, position]) for position in drivers])
    infinite = np.isinf(inputs).any(axis=0)
    if infinite.any():
        names = listed(view.columns[drivers[infinite]])
        raise DataError(f"X must hold finite numbers; columns {names} hold infinite ones. Replace them by NaN first.")
    seen = ~np.isnan(inputs)
    counts = np.maximum(seen.sum(axis=0), 1)
    inputs = np.where(seen, inputs - np.where(seen, inputs, 0).sum(axis=0) / counts, 0)
    scale = np.sqrt((inputs**2).sum(axis=0) / counts)
    return inputs / np.where(scale > 0, scale, 1)


def _codes(column: pd.Series) -> np.ndarray:
    """Turn a column into float64 with NaN: numbers and dates as they are, anything else as codes."""
    types = pd.api.types
    kind = types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    if kind == "date":
        column = pd.to_datetime(column)
    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        return np.where(column.notna(), column.astype("int64"), np.nan)
    numeric = kind in NUMERIC_OBJECTS or types.is_bool_dtype(column.dtype) or types.is_numeric_dtype(column.dtype)
    if numeric and not isinstance(column.dtype, pd.CategoricalDtype):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        codes = pd.factorize(column)[0].astype(np.float64)
    except TypeError:
        raise DataError(f"Column {column.name!r} must hold plain values; got nested ones. Take them apart.") from None
    return np.where(codes < 0, np.nan, codes)


def _cells(
    known: np.ndarray, inputs: np.ndarray, mechanism: str, fraction: float, rng: np.random.RandomState
) -> np.ndarray:
    """Draw cells one by one: an exact count in each column under "mcar", Bernoulli otherwise."""
    if mechanism != "mcar":
        return rng.random_sample(known.shape) < _probabilities(inputs, known, fraction, rng)
    drawn = np.zeros(known.shape, dtype=bool)
    for column in range(known.shape[1]):
        rows = np.flatnonzero(known[:, column])
        drawn[rng.permutation(rows)[: round(fraction * len(rows))], column] = True
    return drawn


def _runs(
    n_rows: int,
    n_columns: int,
    inputs: np.ndarray,
    mechanism: str,
    fraction: float,
    pattern: str,
    rng: np.random.RandomState,
) -> np.ndarray:
    """Draw runs of neighbouring columns, each over a band of one row ("run") or of several ("block").

    A run is half of the columns long, or as long as `fraction` needs, and may reach over either edge of the table, so
    that each column is as likely. The starts are spread evenly over the bands hit.
    """
    height = 1 if pattern == "run" else min(MAX_BLOCK_ROWS, max(2, n_rows // 20))
    first_rows = np.arange(0, n_rows, height)
    length = int(np.ceil(max(n_columns / 2, fraction * (n_columns - 1) / (1 - fraction))))
    n_starts = n_columns + length - 1
    rate = min(fraction * n_starts / length, 1.0)
    if mechanism == "mcar":
        hit = rng.permutation(len(first_rows))[: round(rate * len(first_rows))]
    else:
        heights = np.diff(np.append(first_rows, n_rows))[:, None]
        band_inputs = np.add.reduceat(inputs, first_rows, axis=0) / heights
        likely = _probabilities(band_inputs, np.ones((len(first_rows), 1), dtype=bool), rate, rng)[:, 0]
        hit = rng.permutation(np.flatnonzero(rng.random_sample(len(first_rows)) < likely))
    spread = np.arange(len(hit)) * n_starts // max(len(hit), 1)
    starts = (spread + rng.randint(n_starts)) % n_starts - (length - 1)
    position = np.arange(n_columns)
    bands = np.zeros((len(first_rows), n_columns), dtype=bool)
    bands[hit] = (position >= starts[:, None]) & (position < starts[:, None] + length)
    return np.repeat(bands, height, axis=0)[:n_rows]


def _probabilities(inputs: np.ndarray, known: np.ndarray, fraction: float, rng: np.random.RandomState) -> np.ndarray:
    """Give the logistic probability of each cell of `known`, of mean `fraction` over the known cells of a column."""
    scores = inputs @ rng.standard_normal((inputs.shape[1], known.shape[1]))
    scale = scores.std(axis=0)
    scores /= np.where(scale > 0, scale, 1)
    counts = np.maximum(known.sum(axis=0), 1)
    low, high = np.full(known.shape[1], -50.0), np.full(known.shape[1], 50.0)
    for _ in range(60):
        middle = (low + high) / 2
        rate = (_sigmoid(scores + middle) * known).sum(axis=0) / counts
        low, high = np.where(rate < fraction, middle, low), np.where(rate < fraction, high, middle)
    return _sigmoid(scores + (low + high) / 2)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(scores / 2))


def _with_holes(X: Any, hidden: np.ndarray) -> Any:
    """Copy the table with the hidden cells missing."""
    if isinstance(X, np.ndarray):
        return _array_with_holes(X, hidden)
    touched = np.flatnonzero(hidden.any(axis=0))
    if isinstance(X, pd.DataFrame):
        X_missing = X.copy()
        for position in touched:
            X_missing.isetitem(position, _nullable(X.iloc[:, position]).mask(hidden[:, position]))
        return X_missing
    frame = nw.from_native(X, eager_only=True)
    gone = [
        nw.new_series(name=frame.columns[position], values=hidden[:, position], backend=frame.implementation)
        for position in touched
    ]
    return frame.with_columns(
        nw.when(~hidden_column).then(nw.col(hidden_column.name)).otherwise(None).alias(hidden_column.name)
        for hidden_column in gone
    ).to_native()


def _nullable(column: pd.Series) -> pd.Series:
    """Give a NumPy integer or bool column a dtype that can hold a missing value and loses nothing."""
    if not isinstance(column.dtype, np.dtype) or column.dtype.kind not in "biu":
        return column
    if column.dtype.kind == "b":
        return column.astype("boolean")
    if column.max() <= MAX_EXACT_INTEGER and column.min() >= -MAX_EXACT_INTEGER:
        return column.astype(np.float64)
    return column.astype("UInt64" if column.dtype.kind == "u" else "Int64")


def _array_with_holes(X: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    if X.dtype.kind in "iu" and (X.max() > MAX_EXACT_INTEGER or X.min() < -MAX_EXACT_INTEGER):
        raise DataError("Integers of an array must lie within 2**53 to be held beside NaN. Pass a DataFrame instead.")
    if X.dtype.kind in "mM":
        X_missing, missing = X.copy(), np.array("NaT", dtype=X.dtype)
    else:
        X_missing = X.astype(object if X.dtype.kind in "OUS" else X.dtype if X.dtype.kind == "f" else np.float64)
        missing = np.array(np.nan)
    X_missing[hidden] = missing
    return X_missing
