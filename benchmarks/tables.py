"""The tables of the benchmarks: from a folder of Parquet files, bundled with scikit-learn, or from OpenML."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml, load_breast_cancer, load_diabetes, load_iris, load_wine

EVIDENCE = [
    *("yacht", "airfoil", "concrete", "wine_red", "diabetes", "raisin", "energy", "parkinsons", "climate", "credit_g"),
    *("abalone", "power_plant", "california", "letter", "spambase", "adult"),
]
NATURAL = [
    *("airquality", "mammal_sleep", "labor", "hepatitis", "autos", "penguins", "dermatology", "horse_colic"),
    *("credit_approval", "breast_w", "tao", "boys", "pima", "titanic", "mammographic", "house_prices", "sick"),
    *("mushroom", "support2", "air_quality_uci", "nhanes", "california_missing", "beijing_pm25", "adult"),
]
"""Tables with holes of their own and 50 rows at least."""

EPOCH, DAY = pd.Timestamp(0, tz="UTC"), pd.Timedelta(days=1)

MAX_LEVELS = 50
"""A column of more levels is an identifier or free text."""

MIN_KNOWN = 20
"""A column with fewer known cells among the rows drawn leaves nothing to fit on or to score."""

BUNDLED: dict[str, Callable[[], pd.DataFrame]] = {
    "diabetes": lambda: load_diabetes(as_frame=True, scaled=False).frame.astype({"sex": "category"}),
    "iris": lambda: load_iris(as_frame=True).frame.astype({"target": "category"}),
    "wine": lambda: load_wine(as_frame=True).frame.astype({"target": "category"}),
    "breast_cancer": lambda: load_breast_cancer(as_frame=True).frame.astype({"target": "category"}),
}


def table_names(tables: list[str], data: Path | None, openml: list[str]) -> list[str]:
    """Expand "evidence", "natural" and "all" to names; OpenML's names come last."""
    if tables == ["evidence"]:
        tables = EVIDENCE
    elif tables == ["natural"]:
        tables = NATURAL
    elif tables == ["all"]:
        tables = list(BUNDLED) if data is None else sorted(path.stem for path in _folder(data).glob("*.parquet"))
    return [*tables, *openml]


def load_table(name: str, data: Path | None, openml: list[str], max_rows: int, seed: int) -> pd.DataFrame:
    """Give a table whose columns are float64 or category, of at most `max_rows` rows drawn by `seed` (0: all).

    Dates become numbers of days. Identifiers and free text are dropped for everybody, and so are columns with hardly
    a known cell.
    """
    if name in openml:
        frame = fetch_openml(name, version="active", as_frame=True).frame
    elif data is not None:
        frame = pd.read_parquet(_folder(data) / f"{name}.parquet")
    else:
        frame = BUNDLED[name]()
    frame.columns = frame.columns.map(str)
    frame = frame.apply(_number_or_category)
    frame = frame.loc[:, [not _is_text(frame[column]) for column in frame.columns]]
    if max_rows and len(frame) > max_rows:
        frame = frame.sample(max_rows, random_state=np.random.RandomState([seed, 2]))
    frame = frame.loc[:, frame.notna().sum() >= MIN_KNOWN].reset_index(drop=True)
    for column in frame.select_dtypes("category"):
        frame[column] = frame[column].cat.remove_unused_categories()
    return frame


def _folder(data: Path) -> Path:
    return data / "tab" if (data / "tab").is_dir() else data


def _number_or_category(column: pd.Series) -> pd.Series:
    types = pd.api.types
    if types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype):
        return column.astype("float64")
    if types.is_datetime64_any_dtype(column.dtype) or types.infer_dtype(column, skipna=True) in ("date", "datetime"):
        return (pd.to_datetime(column, utc=True) - EPOCH) / DAY
    if types.is_timedelta64_dtype(column.dtype):
        return column / DAY
    return column.astype("category")


def _is_text(column: pd.Series) -> bool:
    """Tell whether the levels are too many for a category: over `MAX_LEVELS`, or hardly any of them comes twice."""
    if column.dtype != "category":
        return False
    n_levels = column.nunique()
    return n_levels > MAX_LEVELS or 2 * n_levels > column.notna().sum()
