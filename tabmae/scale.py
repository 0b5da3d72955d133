"""Tables larger than memory: a sample of a Parquet file to fit on, and the file imputed batch by batch.

Contract: what is written is what one `transform` of the whole file gives, but for the rounding of the last digits of
imputed numbers, and appears when it is whole.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.random import RandomState
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import check_is_fitted

from tabmae.errors import DataError, ParameterError, check_number, listed
from tabmae.estimators.table import TabMAE

BATCH_ROWS = 100_000
"""Rows that are in memory at once."""
ONE_AT_A_TIME = {"batch_readahead": 1, "fragment_readahead": 1}
"""So that dozens of batches are not read ahead of the one that is asked for."""
Location = str | os.PathLike[str]


def sample_parquet(
    source: Location, n_rows: int = BATCH_ROWS, *, random_state: int | RandomState | None = None
) -> pa.Table:
    """Rows of Parquet files drawn at random, to fit a model on; all of them where there are no more.

    Parameters
    ----------
    source : a Parquet file, or a folder of such files. n_rows : rows to draw.

    Returns
    -------
    table : (n_rows, F), in the order of the source. One batch of rows is in memory beside it.

    Raises
    ------
    DataError : there are no Parquet files that can be read. ParameterError : `n_rows` is below 1.
    """
    check_number("n_rows", n_rows, low=1, integer=True, hint="Pass a number of rows.")
    found = _opened(source)
    n_all = found.count_rows()
    chosen = np.sort(sample_without_replacement(n_all, min(n_rows, n_all), random_state=random_state))
    parts, start = [found.schema.empty_table()], 0
    for batch in found.to_batches(batch_size=BATCH_ROWS, **ONE_AT_A_TIME):
        here = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + len(batch))] - start
        parts.append(pa.Table.from_batches([batch]).take(pa.array(here)))
        start += len(batch)
    return pa.concat_tables(parts).combine_chunks()


def impute_parquet(
    model: TabMAE, source: Location, target: Location, *, batch_rows: int = BATCH_ROWS, overwrite: bool = False
) -> int:
    """Impute Parquet files that need not fit into memory.

    Parameters
    ----------
    model : a fitted `TabMAE`, whatever its `set_output`. Columns that it did not learn are copied.
    source : a Parquet file, or a folder of such files.
    target : the Parquet file to write: one row group a batch, the columns and types of the source.
    batch_rows : rows in memory at once; they move the last digits of imputed numbers at most.
    overwrite : replace a `target` that is there.

    Returns
    -------
    n_rows : rows written.

    Raises
    ------
    DataError : there are no Parquet files that can be read, or they lack a column that the model learnt.
    ParameterError : `target` is there already or has no folder; `batch_rows` is below 1.
    NotFittedError : the model is not fitted.
    """
    check_is_fitted(model)
    check_number("batch_rows", batch_rows, low=1, integer=True, hint="Pass a number of rows.")
    path = Path(target)
    if path.exists() and not overwrite:
        raise ParameterError(
            f"`target` must be a new file; {str(path)!r} is there already. Pass another, or overwrite=True."
        )
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ParameterError(
            f"`target` must be a file in a folder that is there; {str(path)!r} is none. "
            "Make the folder, or name a file in it."
        )
    found = _opened(source)
    names = list(getattr(model, "feature_names_in_", found.schema.names))
    lacking = [name for name in names if name not in found.schema.names]
    if lacking:
        raise DataError(
            f"{str(source)!r} must have the columns that the model learnt; it lacks {listed(lacking)}. "
            "Rename its columns."
        )
    asked = copy(model)
    asked.__dict__.pop("_sklearn_output_config", None)  # the copy's own: that of the model stays
    asked.set_output(transform="default")
    whole = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    n_rows = 0
    try:
        with pq.ParquetWriter(whole, found.schema) as writer:
            for table in _batches(found, batch_rows):
                imputed = asked.transform(table.select(names))
                for name in names:
                    place = table.schema.get_field_index(name)
                    column = imputed.column(name).cast(table.schema.field(place).type)
                    table = table.set_column(place, table.schema.field(place), column)
                writer.write_table(table, row_group_size=batch_rows)
                n_rows += len(table)
        os.replace(whole, path)
    finally:
        whole.unlink(missing_ok=True)
    return n_rows


def _opened(source: Location) -> pyarrow.dataset.Dataset:
    """Parquet files that can be read."""
    try:
        found = pyarrow.dataset.dataset(str(source), format="parquet")
        found.count_rows()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"`source` must be a Parquet file, or a folder of Parquet files; {str(source)!r} cannot be read: {error}. "
            "Pass the path of one."
        ) from error
    return found


def _batches(found: pyarrow.dataset.Dataset, n_rows: int) -> Iterator[pa.Table]:
    """The rows as tables of so many rows each, the last one of fewer."""
    kept: list[pa.RecordBatch] = []
    for batch in found.to_batches(batch_size=n_rows, **ONE_AT_A_TIME):
        kept.append(batch)
        while sum(map(len, kept)) >= n_rows:
            table = pa.Table.from_batches(kept, found.schema)
            yield table.slice(0, n_rows)
            kept = table.slice(n_rows).to_batches()
    if sum(map(len, kept)):
        yield pa.Table.from_batches(kept, found.schema)
