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
BUNDLED: dict[str, Callable[[], pd.DataFrame]] = {
    "diabetes": lambda: load_diabetes(as_frame=True, scaled=False).frame.astype({"sex": "category"}),
    "iris": lambda: load_iris(as_frame=True).frame.astype({"target": "category"}),
    "wine": lambda: load_wine(as_frame=True).frame.astype({"target": "category"}),
    "breast_cancer": lambda: load_breast_cancer(as_frame=True).frame.astype({"target": "category"}),
}


def table_names(tables: list[str], data: Path | None, openml: list[str]) -> list[str]:
    """Expand "evidence" and "all" to names; OpenML's names come last."""
    if tables == ["evidence"]:
        tables = EVIDENCE
    elif tables == ["all"]:
        tables = list(BUNDLED) if data is None else sorted(path.stem for path in _folder(data).glob("*.parquet"))
    return [*tables, *openml]


def load_table(name: str, data: Path | None, openml: list[str], max_rows: int, seed: int) -> pd.DataFrame:
    """Give a table whose columns are float64 or category, of at most `max_rows` rows drawn by `seed` (0: all)."""
    if name in openml:
        frame = fetch_openml(name, version="active", as_frame=True).frame
    elif data is not None:
        frame = pd.read_parquet(_folder(data) / f"{name}.parquet")
    else:
        frame = BUNDLED[name]()
    if max_rows and len(frame) > max_rows:
        frame = frame.sample(max_rows, random_state=np.random.RandomState([seed, 2]))
    frame = frame.reset_index(drop=True)
    frame.columns = frame.columns.map(str)
    return frame.apply(_number_or_category)


def _folder(data: Path) -> Path:
    return data / "tab" if (data / "tab").is_dir() else data


def _number_or_category(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return column.astype("float64")
    levels = column.astype("category")
    return levels.cat.remove_unused_categories()
