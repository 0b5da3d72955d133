"""Masked autoencoders for tables and series with missing values: impute, forecast, detect, in scikit-learn's manner.

Contract: a public name loads its room when it is first asked for, so `import tabmae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from os import PathLike

    from tabmae.errors import (
        DataError,
        ParameterError,
        SavedModelError,
        TabMAEError,
        TrainingError,
        TrainingInterruptedWarning,
    )
    from tabmae.estimators.detector import TabMAEDetector
    from tabmae.estimators.series import TimeSeriesMAE
    from tabmae.estimators.supervised import TabMAEClassifier, TabMAERegressor
    from tabmae.estimators.table import TabMAE, TabMAEEncoder
    from tabmae.evaluation import evaluate
    from tabmae.missingness import ampute
    from tabmae.plotting import plot_detection, plot_explanation, plot_imputed, plot_missing, plot_series
    from tabmae.pooling import pool
    from tabmae.report import html_report, imputed_cells
    from tabmae.scale import impute_parquet, sample_parquet
    from tabmae.tuning import tune

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "ParameterError",
    "SavedModelError",
    "TabMAE",
    "TabMAEClassifier",
    "TabMAEDetector",
    "TabMAEEncoder",
    "TabMAEError",
    "TabMAERegressor",
    "TimeSeriesMAE",
    "TrainingError",
    "TrainingInterruptedWarning",
    "ampute",
    "evaluate",
    "html_report",
    "impute_parquet",
    "imputed_cells",
    "load",
    "plot_detection",
    "plot_explanation",
    "plot_imputed",
    "plot_missing",
    "plot_series",
    "pool",
    "sample_parquet",
    "tune",
]

_ROOMS = {
    "DataError": "tabmae.errors",
    "ParameterError": "tabmae.errors",
    "SavedModelError": "tabmae.errors",
    "TabMAE": "tabmae.estimators.table",
    "TabMAEClassifier": "tabmae.estimators.supervised",
    "TabMAEDetector": "tabmae.estimators.detector",
    "TabMAEEncoder": "tabmae.estimators.table",
    "TabMAEError": "tabmae.errors",
    "TabMAERegressor": "tabmae.estimators.supervised",
    "TimeSeriesMAE": "tabmae.estimators.series",
    "TrainingError": "tabmae.errors",
    "TrainingInterruptedWarning": "tabmae.errors",
    "ampute": "tabmae.missingness",
    "evaluate": "tabmae.evaluation",
    "html_report": "tabmae.report",
    "impute_parquet": "tabmae.scale",
    "imputed_cells": "tabmae.report",
    "plot_detection": "tabmae.plotting",
    "plot_explanation": "tabmae.plotting",
    "plot_imputed": "tabmae.plotting",
    "plot_missing": "tabmae.plotting",
    "plot_series": "tabmae.plotting",
    "pool": "tabmae.pooling",
    "sample_parquet": "tabmae.scale",
    "tune": "tabmae.tuning",
}


_ESTIMATORS = tuple(f"tabmae.estimators.{room}" for room in ("table", "detector", "series", "supervised"))
"""Rooms whose classes can be loaded; each registers its own."""


def load(folder: "str | PathLike[str]") -> Any:
    """Read a fitted estimator from the folder that its `save` wrote; nothing in the folder is run.

    Raises
    ------
    SavedModelError : the folder is absent, damaged, of a newer format, or not what it says.
    """
    for room in _ESTIMATORS:
        import_module(room)
    return import_module("tabmae.saving").load(folder)


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'tabmae' has no attribute {name!r}")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
