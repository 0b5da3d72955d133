"""Files of tables: read by their extension, completed without touching what was known, and written whole or not at all.

Contract: a file that is refused is refused before anything is learnt; one that is written appears under its name only
when it is complete.
"""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
from numpy.typing import NDArray

from tabmae.cli.csv_text import CsvSheet, Kind, check_unique, read_csv
from tabmae.errors import DataError, ParameterError, listed
from tabmae.folders import RECORD, check_target
from tabmae.sentinels import MARKERS

DELIMITERS = {".csv": ",", ".tsv": "\t"}
ARROW = (".feather", ".arrow", ".ipc")
EXTENSIONS = (*DELIMITERS, ".parquet", *ARROW)
PAGES = (".html", ".htm")
STDOUT = "-"


@dataclass(frozen=True, slots=True)
class ArrowSheet:
    """A Parquet or Arrow file; the index that pandas put into it is none of its columns."""

    table: pa.Table
    index: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """Columns of values."""
        return [name for name in self.table.column_names if name not in self.index]

    @property
    def n_rows(self) -> int:
        return int(self.table.num_rows)

    def part(self, names: Sequence[str]) -> pa.Table:
        """Some columns."""
        return self.table.select(list(names))

    def completed(self, filled: pa.Table) -> pa.Table:
        """The table with columns replaced."""
        table = self.table
        for name in filled.column_names:
            table = table.set_column(table.column_names.index(name), filled.schema.field(name), filled[name])
        return table


Sheet = CsvSheet | ArrowSheet


@dataclass(frozen=True, slots=True)
class Target:
    """Where a result goes: a file with one of some extensions, or the standard output."""

    name: str
    force: bool
    extensions: tuple[str, ...] = EXTENSIONS

    @property
    def is_csv(self) -> bool:
        return self.name == STDOUT or extension(self.name) in DELIMITERS

    def check(self) -> None:
        """Refuse what could not be written once there is something to write.

        Raises
        ------
        ParameterError : the extension is unknown, the file is there and may not be replaced, or has no folder.
        """
        if self.name == STDOUT:
            return
        extension(self.name, self.extensions)
        path = Path(self.name)
        if path.is_dir():
            raise ParameterError(f"A result must go to a file; {self.name!r} is a folder; name a file in it.")
        if path.exists() and not self.force:
            raise ParameterError(f"{self.name!r} is there already; pass --force to replace it, or another name.")
        folder = path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ParameterError(
                f"A result must go to a folder that is there and can be written to; {str(folder)!r} is none."
            )

    def write(self, table: pa.Table | pd.DataFrame | str) -> None:
        """Write a table, or text as it is."""
        if self.name == STDOUT:
            click.echo(as_text(table, ","), nl=False)
            return
        kind = extension(self.name, self.extensions)
        path = Path(os.path.realpath(self.name))
        whole = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with whole.open("xb") as file:
                if path.exists():
                    whole.chmod(stat.S_IMODE(path.stat().st_mode))
                if kind in DELIMITERS:
                    file.write(as_text(table, DELIMITERS[kind]).encode())
                elif isinstance(table, str):
                    file.write(table.encode())
                elif kind == ".parquet":
                    pyarrow.parquet.write_table(as_arrow(table), file)
                else:
                    pyarrow.feather.write_feather(as_arrow(table), file)
                file.flush()
                os.fsync(file.fileno())
            self.check()
            os.replace(whole, path)
        finally:
            whole.unlink(missing_ok=True)


def check_targets(*targets: Target | None) -> None:
    """Check all targets of a command, which must differ."""
    given = [target for target in targets if target is not None]
    for target in given:
        target.check()
    places = [os.path.realpath(target.name) for target in given]
    if len(set(places)) < len(places):
        raise ParameterError("Every result must go to a file of its own; two have one name; rename one.")


def check_folder(folder: str, force: bool) -> None:
    """Refuse a folder that a model could not be saved in."""
    path = Path(os.path.realpath(folder))
    check_target(path)
    if (path / RECORD).exists() and not force:
        raise ParameterError(f"{folder!r} holds a saved model already; pass --force to replace it, or another folder.")


def extension(name: str, allowed: tuple[str, ...] = EXTENSIONS) -> str:
    """The extension of a file's name.

    Raises
    ------
    ParameterError : it is none that is read and written.
    """
    found = Path(name).suffix.lower()
    if found not in allowed:
        raise ParameterError(f"The name of the file must end in {listed(allowed, len(allowed))}; got {name!r}.")
    return found


def read_sheet(name: str, delimiter: str | None = None, missing: Sequence[str] = ()) -> Sheet:
    """Read a file by its extension.

    Parameters
    ----------
    delimiter, missing : of CSV: what parts fields, and what stands for a missing value beside an empty field.

    Raises
    ------
    ParameterError : the file is absent, or of no known extension.
    DataError : it cannot be read, or has no rows.
    """
    path, kind = Path(name), extension(name)
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise ParameterError(f"The table must be in a file; {name!r} {found}; check its name.")
    if kind in DELIMITERS:
        return read_csv(path, delimiter or DELIMITERS[kind], missing or MARKERS)
    if delimiter or missing:
        raise ParameterError(f"--delimiter and --missing are of CSV; {name!r} is none; leave them out.")
    try:
        table = read_parquet(path) if kind == ".parquet" else read_arrow(path)
    except (pa.ArrowException, OSError) as error:
        told = str(error).splitlines()[0].rstrip(".")
        raise DataError(f"{name!r} must be a {kind[1:].capitalize()} file; reading it says: {told}.") from error
    if not table.num_rows or not table.num_columns:
        raise DataError(f"{name!r} must hold rows and columns; its shape is {table.shape}; pass another file.")
    check_unique(table.column_names)
    return ArrowSheet(table, index_of(table, name))


def index_of(table: pa.Table, name: str) -> frozenset[str]:
    """Columns that pandas put into a file as its index.

    Raises
    ------
    DataError : what it told of them cannot be read.
    """
    stored = (table.schema.metadata or {}).get(b"pandas")
    if stored is None:
        return frozenset()
    try:
        columns = json.loads(stored)["index_columns"]
        return frozenset(column for column in columns if isinstance(column, str))
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{name!r} must hold what pandas tells of its index as JSON; it cannot be read; write the file again."
        ) from error


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file, without columns that names of its folders may tell."""
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read()


def read_arrow(path: Path) -> pa.Table:
    """Read an Arrow file, or a stream of it."""
    try:
        return pyarrow.feather.read_table(path, memory_map=False)
    except pa.ArrowInvalid:
        with pa.ipc.open_stream(path.read_bytes()) as stream:
            return stream.read_all()


def typed_as(sheet: Sheet, as_text: Sequence[str], learnt: Mapping[str, Kind]) -> Sheet:
    """A sheet whose columns are read as `CsvSheet` says, where it is one."""
    if isinstance(sheet, ArrowSheet):
        return sheet
    return replace(sheet, as_text=frozenset(as_text), learnt=learnt)


def completed(
    sheet: Sheet, filled: Any, target: Target, rows: NDArray[np.int64] | None = None
) -> pa.Table | pd.DataFrame | str:
    """What to write of a sheet whose columns were completed; the text of a CSV file stays where it goes to another.

    `rows` are the rows of the file that the completed ones come from, -1 for rows that were inserted; with them all
    columns were completed.
    """
    if isinstance(sheet, ArrowSheet):
        return sheet.completed(filled) if rows is None else filled
    if target.is_csv:
        return own_text(sheet, target).text(filled, rows)
    untouched = sheet.part([name for name in sheet.names if name not in filled])
    return pd.concat([filled, untouched], axis=1)[sheet.names] if len(untouched.columns) else filled


def with_columns(sheet: Sheet, added: Mapping[str, NDArray[Any]], target: Target) -> pa.Table | pd.DataFrame | str:
    """What to write of a sheet as it is, with columns of numbers or bools added."""
    if isinstance(sheet, ArrowSheet):
        table = sheet.table
        for name, values in added.items():
            table = table.append_column(name, pa.array(values))
        return table
    if target.is_csv:
        return own_text(sheet, target).text(added={name: written(values) for name, values in added.items()})
    return sheet.part(sheet.names).assign(**added)


def written(values: NDArray[Any]) -> list[str]:
    """Numbers or bools as fields of CSV."""
    return [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values.tolist()]


def own_text(sheet: CsvSheet, target: Target) -> CsvSheet:
    """A sheet of CSV with the delimiter that a target asks for, its own where both are of one kind."""
    if target.name == STDOUT or sheet.delimiter not in DELIMITERS.values():
        return sheet
    return sheet.parted_by(DELIMITERS[extension(target.name)])


def as_arrow(table: pa.Table | pd.DataFrame) -> pa.Table:
    return table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)


def as_text(table: pa.Table | pd.DataFrame | str, delimiter: str) -> str:
    """A table as CSV; lists in its cells as their parts, joined."""
    if isinstance(table, str):
        return table
    # Arrow's own types: whole numbers with holes would become floats, which hold none beyond 2 ** 53.
    is_arrow = isinstance(table, pa.Table)
    frame = table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True) if is_arrow else table
    lists = [name for name in frame if frame[name].map(lambda cell: isinstance(cell, list)).any()]
    return frame.assign(**{name: frame[name].map(", ".join) for name in lists}).to_csv(
        index=False, sep=delimiter, lineterminator="\n"
    )
