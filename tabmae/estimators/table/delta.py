"""Delta adjustment: imputed numbers are decoded by a schema whose columns are moved.

Contract: a column that is not named, or constant, stays; a moved one stays within float64.

Whole numbers and whole days move by whole steps, one less or one more by chance, so that they move as far on the mean:
drawn numbers lie on the steps already, and rounding them once more would undo small shifts and double others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabmae.errors import ParameterError, check_number, listed
from tabmae.schema import Column, TableSchema

MOST_STEPS = 2.0**40
"""Steps of a shift beyond which a part of one is rounding error."""

Matrix = NDArray[np.float64]


def shifted_schema(schema: TableSchema, delta: float | Mapping[Any, float]) -> TableSchema:
    """The schema that decodes imputed numbers `delta` standard deviations higher.

    Raises
    ------
    ParameterError : `delta` is not finite, or names a column that is absent or holds neither numbers nor times.
    """
    numbers = [column.name for column in schema.columns if column.kind == "number" and column.learnable]
    if not isinstance(delta, Mapping):
        hint = "Pass standard deviations, as one number or as a dict from columns to numbers."
        check_number("delta", delta, hint=hint)
        delta = dict.fromkeys(numbers, delta)
    wrong = [name for name in delta if name not in numbers]
    if wrong:
        raise ParameterError(
            f"`delta` must name columns of numbers or times in fit; got {listed(wrong)}. Such columns are "
            f"{listed(numbers) or 'absent'}."
        )
    for name, shift in delta.items():
        check_number(f"delta[{name!r}]", shift, hint="Pass standard deviations of the column.")
    columns = tuple(_shifted(column, float(delta.get(column.name, 0.0))) for column in schema.columns)
    return TableSchema(columns, schema.named)


def by_whole_steps(schema: TableSchema, shifted: TableSchema, values: Matrix, random: np.random.Generator) -> None:
    """Add to values (n, F), in place, what is lacking from the shift of each column to a number of whole steps."""
    for place, (column, moved) in enumerate(zip(schema.columns, shifted.columns, strict=True)):
        step = column.step or float(column.whole)
        shift = moved.mean - column.mean
        by_chance = random.random(len(values))
        if step and not column.log and 0 < abs(shift) < MOST_STEPS * step:
            n_steps = np.floor(shift / step + by_chance)
            values[:, place] += (n_steps * step - shift) / column.scale


def _shifted(column: Column, delta: float) -> Column:
    """The column with its centre and range moved by `delta` standard deviations, within float64."""
    if delta == 0 or column.constant:
        return column
    limit = float(np.finfo(np.float64).max)
    shift = delta * column.scale
    mean = min(max(column.mean + shift, -limit), limit)
    with np.errstate(over="ignore"):
        factor = np.exp(shift)
        ends = [edge * factor if column.log else edge + shift for edge in (column.low, column.high, column.log)]
    low, high, least = (float(np.clip(edge, -limit, limit)) for edge in ends)
    return replace(column, mean=mean, low=low, high=high, log=least if column.log else 0.0)
