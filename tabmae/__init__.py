"""Masked autoencoders for tables with missing values: impute, draw, encode, in scikit-learn's manner.

Contract: a public name loads its room when it is first asked for, so `import tabmae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tabmae.errors import DataError, ParameterError, SavedModelError, TabMAEError, TrainingError
    from tabmae.estimators.table import TabMAE, TabMAEEncoder
    from tabmae.evaluation import evaluate
    from tabmae.missingness import ampute
    from tabmae.saving import load

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "ParameterError",
    "SavedModelError",
    "TabMAE",
    "TabMAEEncoder",
    "TabMAEError",
    "TrainingError",
    "ampute",
    "evaluate",
    "load",
]

_ROOMS = {
    "DataError": "tabmae.errors",
    "ParameterError": "tabmae.errors",
    "SavedModelError": "tabmae.errors",
    "TabMAE": "tabmae.estimators.table",
    "TabMAEEncoder": "tabmae.estimators.table",
    "TabMAEError": "tabmae.errors",
    "TrainingError": "tabmae.errors",
    "ampute": "tabmae.missingness",
    "evaluate": "tabmae.evaluation",
    "load": "tabmae.saving",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'tabmae' has no attribute {name!r}")
    value = getattr(import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
