"""Series that are arrays (n, T, C): numpy arrays, torch tensors and nested lists.

Contract: what is filled has the shape, dtype and kind of what was read.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from tabmae.errors import DataError
from tabmae.windows.numbers import check_finite, filled_array, object_floats
from tabmae.windows.panel import Panel


def is_array(X: Any) -> bool:
    """Whether X is read as an array."""
    return isinstance(X, np.ndarray | torch.Tensor | list | tuple)


def read_array(X: Any) -> Panel:
    """Read series as a panel that counts its steps from 0."""
    array = open_array(X)
    n_series, n_steps, n_channels = array.shape
    values = as_floats(array).reshape(-1, n_channels)
    check_finite(dict(enumerate(values.T)))
    return Panel(
        tuple(range(n_series)),
        (0,) * n_series,
        (n_steps,) * n_series,
        values,
        np.empty((len(values), 0)),
    )


def write_array(X: Any, values: NDArray[np.float64]) -> Any:
    """Fill the gaps of series with values (n * T, C)."""
    if isinstance(X, torch.Tensor):
        if not X.is_floating_point():
            return X.clone()
        limits = torch.finfo(X.dtype)
        finite = torch.from_numpy(values.reshape(X.shape)).clamp(limits.min, limits.max)
        return torch.where(X.isnan(), finite.to(X), X.detach())
    array = open_array(X)
    fills = values.reshape(array.shape)
    missing = np.asarray(pd.isna(array), dtype=bool)
    out = filled_array(array, missing, fills)
    return out.tolist() if isinstance(X, list | tuple) else out


def open_array(X: Any) -> NDArray[Any]:
    """The array of three axes that X is."""
    if isinstance(X, np.ma.MaskedArray):
        raise DataError("X must be a plain array; got a masked array. Pass X.astype(float).filled(numpy.nan).")
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        array = X.double().numpy() if X.is_floating_point() else X.numpy()
    elif isinstance(X, np.ndarray):
        array = X
    else:
        try:
            array = np.array(X, dtype=object)
        except ValueError:
            array = np.empty(0, dtype=object)
        if array.ndim < 3 and any(isinstance(cell, list | tuple | np.ndarray) for cell in array.ravel().tolist()):
            raise DataError(
                "Nested lists must be of one length; got lists of different lengths. Fill them up with None."
            )
    if array.ndim != 3:
        raise DataError(
            f"X must be an array (n, T, C): series, time steps, channels; got shape {array.shape}. Reshape it to "
            "(1, T, C) for one series of C channels, or to (n, T, 1) for n series of one."
        )
    if 0 in array.shape or array.shape[1] < 2:
        raise DataError(
            f"X must hold series of two time steps or more, and channels; got shape {array.shape}. "
            "The axes are series, time steps, channels."
        )
    return array


def as_floats(array: NDArray[Any]) -> NDArray[np.float64]:
    """Cells as a new float64 array, NaN where missing."""
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    if array.dtype == object:
        try:
            return object_floats(array)
        except (TypeError, ValueError):
            pass
    held = "objects" if array.dtype == object else str(array.dtype)
    raise DataError(f"X must hold numbers; got an array of {held} that are not. Convert it by X.astype(float).")
