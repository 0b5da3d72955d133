"""Tables of CSV: text in, typed columns for an estimator, and the same text out with its holes filled.

Contract: every field that is not filled comes out as the characters that it was in the file, quotes included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import DataError, listed, warn

Kind = Literal["empty", "integer", "number", "bool", "time", "text"]

INTEGER = r"[+-]?(?:0|[1-9]\d*)"
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?inf(?:inity)?"
CODE = r"[+-]?0\d+"
"""Digits after a zero: a zip code or a key, whose zero a number would lose."""
COMMA_NUMBER = r"[+-]?\d+(?:,\d+)?|[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"
"""A number as much of Europe writes it, or one whose thousands are parted."""
UNITS = "%$\u20ac\u00a3"
"""What people write around numbers."""
DATE = r"\d{1,4}([./-])\d{1,2}\1\d{1,4}(?:[ T]\d{1,2}:\d{2}\S*)?"
"""What may be a date."""
OTHERS = ";\t|,"
"""What may part fields where the delimiter does not."""
BOOLS = (("True", "False"), ("true", "false"), ("TRUE", "FALSE"))
DAYS, SECONDS = "%Y-%m-%d", "%Y-%m-%d %H:%M:%S"
TIMES = (
    *(DAYS, "%Y-%m-%d %H:%M", SECONDS, "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"),
    *("%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S"),
)
"""Formats that can be read in one way only; of two numbers and a year parted by slashes, either may be the month."""
REMEDIES = {
    "numbers with commas": "write them with points",
    "numbers with units": "write them without",
    "dates": "write each as a day that exists, such as 2024-01-31",
}
"""What to do where fields look like what they are not read as."""
MAX_DECIMALS = 15
LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class CsvColumn:
    """A column as it is written, and what it says.

    raw : fields as they are in the file. values : without quotes. missing : bool (n,).
    """

    raw: list[str]
    values: list[str]
    missing: NDArray[np.bool_]

    def kind(self, *, as_text: bool) -> Kind:
        """What every observed field can be read as, without a loss."""
        seen = self._seen()
        if not len(seen):
            return "empty"
        if as_text or seen.str.fullmatch(CODE).any():
            return "text"
        whole = seen.str.fullmatch(INTEGER)
        if whole.all() and all(len(text) <= 20 and -(2**63) <= int(text) < 2**63 for text in seen):
            return "integer"
        if not all(is_exact(text) for text in seen[whole]):
            return "text"
        if seen.str.fullmatch(NUMBER, case=False).all():
            return "number"
        if any(seen.isin(pair).all() for pair in BOOLS):
            return "bool"
        return "time" if self._pattern() else "text"

    def doubt(self) -> str:
        """What every observed field is in the eyes of a person, where it is read as text; "" otherwise."""
        seen = self._seen()
        if not len(seen):
            return ""
        bare = seen.str.strip(UNITS + " ")
        if seen.str.contains(",").any() and bare.str.fullmatch(COMMA_NUMBER).all():
            return "numbers with commas"
        if seen.str.contains(f"[{UNITS}]").any() and bare.str.fullmatch(NUMBER).all():
            return "" if bare.str.fullmatch(CODE).any() else "numbers with units"
        return "dates" if seen.str.fullmatch(DATE).all() and not self._pattern() else ""

    def stranger(self, kind: Kind) -> tuple[int, str] | None:
        """The first observed field of a column of text that is no number or no time, and its row from 1."""
        seen = self._seen()
        if self.kind(as_text=False) != "text":
            return None
        alike = seen.str.fullmatch(NUMBER, case=False) if kind == "number" else self._times(seen)
        return None if alike.all() else (int(alike.index[~alike][0]) + 1, str(seen[~alike].iloc[0]))

    def typed(self, kind: Kind) -> pd.Series:
        """The column for an estimator."""
        series = pd.Series(self.values, dtype=object).mask(self.missing, None)
        match kind:
            case "integer":
                whole = pd.array([pd.NA if value is None else int(value) for value in series], dtype="Int64")
                return pd.Series(whole)
            case "number" | "empty":
                return pd.Series([np.nan if value is None else float(value) for value in series])
            case "bool":
                return series.map(lambda value: None if value is None else value.lower() == "true").astype("boolean")
            case "time":
                pattern = self._pattern()
                return pd.to_datetime(series, format=pattern, utc=pattern.endswith("Z"))
        return series

    def fields(self, filled: pd.Series, kind: Kind, rows: NDArray[np.int64], delimiter: str) -> list[str]:
        """Fields of a completed column; `rows` tells of which row of the file each is, -1 for none.

        A field that is still missing is as it was, or empty.
        """
        known = (rows >= 0) & ~self.missing[rows]
        fields = [self.raw[row] if row >= 0 else "" for row in rows.tolist()]
        places = np.flatnonzero(~known & filled.notna().to_numpy(dtype=bool))
        for place, text in zip(places.tolist(), self._new(filled.iloc[places], kind, delimiter), strict=True):
            fields[place] = text
        return fields

    def _new(self, filled: pd.Series, kind: Kind, delimiter: str) -> list[str]:
        """Fields of filled cells, written as the observed ones are."""
        observed = np.flatnonzero(~self.missing).tolist()
        own = {self.values[row]: self.raw[row] for row in reversed(observed)}
        match kind:
            case "integer":
                texts = [str(int(value)) for value in filled]
            case "number":
                texts = self._decimals(filled)
            case "bool":
                true, false = next(pair for pair in BOOLS if own.keys() <= set(pair))
                texts = [true if value else false for value in filled]
            case "time":
                pattern = self._pattern() if own else DAYS if (filled == filled.dt.normalize()).all() else SECONDS
                texts = filled.dt.strftime(pattern).tolist()
            case _:
                texts = [str(value) for value in filled]
        return [own[text] if text in own else quoted(text, delimiter) for text in texts]

    def _decimals(self, filled: pd.Series) -> list[str]:
        """Numbers with one digit more than any observed one has after its point."""
        seen = self._seen()
        if not len(seen):
            return [repr(float(value)) for value in filled]
        places = 1 + int(seen.str.extract(r"\.(\d*)$")[0].str.len().fillna(0).max())
        if places > MAX_DECIMALS or seen.str.contains("e", case=False).any():
            return [repr(float(value)) for value in filled]
        return [f"{value:.{places}f}" for value in filled]

    def _seen(self) -> pd.Series:
        return pd.Series(self.values, dtype=object)[~self.missing]

    @staticmethod
    def _times(seen: pd.Series) -> pd.Series:
        """Which fields the format reads that reads most of them."""
        read = [pd.to_datetime(seen, format=pattern, errors="coerce").notna() for pattern in TIMES]
        return max(read, key=lambda found: int(found.sum()))

    def _pattern(self) -> str:
        """The format that reads every observed field and writes it back; "" without one."""
        seen = self._seen()
        for pattern in TIMES:
            if pd.to_datetime(seen.iloc[:1], format=pattern, errors="coerce").isna().all():
                continue
            stamps = pd.to_datetime(seen, format=pattern, errors="coerce")
            if stamps.notna().all() and (stamps.dt.strftime(pattern) == seen).all():
                return pattern
        return ""


@dataclass(frozen=True, slots=True)
class CsvSheet:
    """A CSV file: its columns by name, the fields of its header, and how lines are made.

    as_text : columns that are text whatever they hold. learnt : kinds of columns by the model, for those that
    hold nothing and those of fractions that hold whole numbers alone.
    """

    columns: dict[str, CsvColumn]
    header: list[str]
    delimiter: str
    newline: str
    start: str
    as_text: frozenset[str] = frozenset()
    learnt: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    @property
    def n_rows(self) -> int:
        return len(next(iter(self.columns.values())).raw)

    def part(self, names: Sequence[str]) -> pd.DataFrame:
        """Some columns, typed."""
        return pd.DataFrame({name: self.columns[name].typed(self._kind(name)) for name in names})

    def text(
        self,
        filled: pd.DataFrame | None = None,
        rows: NDArray[np.int64] | None = None,
        added: Mapping[str, Sequence[str]] | None = None,
    ) -> str:
        """The file with columns completed and others added; `rows` are the rows of the file, all without it."""
        chosen = np.arange(self.n_rows) if rows is None else rows
        fields = [
            column.fields(filled[name], self._kind(name), chosen, self.delimiter)
            if filled is not None and name in filled
            else [column.raw[row] if row >= 0 else "" for row in chosen.tolist()]
            for name, column in self.columns.items()
        ]
        fields += [[quoted(text, self.delimiter) for text in texts] for texts in (added or {}).values()]
        lines = [[*self.header, *(added or {})], *zip(*fields, strict=True)]
        return self.start + "".join(self.delimiter.join(line) + self.newline for line in lines)

    def parted_by(self, delimiter: str) -> CsvSheet:
        """The sheet with other delimiters, and quotes where its fields now need them."""
        if delimiter == self.delimiter:
            return self

        def apart(raw: list[str]) -> list[str]:
            return [text if text.lstrip().startswith('"') else quoted(text, delimiter) for text in raw]

        columns = {name: replace(column, raw=apart(column.raw)) for name, column in self.columns.items()}
        return replace(self, columns=columns, header=apart(self.header), delimiter=delimiter)

    def _kind(self, name: str) -> Kind:
        found = self.columns[name].kind(as_text=name in self.as_text)
        learnt = self.learnt.get(name, found)
        return learnt if found == "empty" or (found == "integer" and learnt == "number") else found


def read_csv(path: Path, delimiter: str, markers: Collection[str]) -> CsvSheet:
    """Read a CSV file whose first line names its columns.

    Raises
    ------
    DataError : it is not text in UTF-8, has no rows, rows of unequal length, or a name twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name!r} must be text in UTF-8; byte {error.start} is not; convert it.") from error
    if "\0" in text:
        raise DataError(f"{path.name!r} must be text in UTF-8; it holds zero bytes; convert it.")
    start, text = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    lines = fields_of(text, delimiter, path.name)
    header = lines[0] if lines else []
    end = LINE_END.match(text, len(delimiter.join(header)))
    newline = end.group() if end else "\n"
    names = [unquoted(text) for text in header]
    check_delimiter(lines[:2], delimiter, path.name)
    rows = lines[1:] if len(names) == 1 else [line for line in lines[1:] if line != [""]]
    if not rows:
        raise DataError(f"{path.name!r} must hold a line of names and rows below; it has no rows; pass another file.")
    check_unique(names)
    for place, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise DataError(
                f"Every row of {path.name!r} must have the {len(names)} fields of its header; row {place} has "
                f"{len(row)}; mend it, or pass another --delimiter."
            )
    columns = {name: column_of(list(raw), markers) for name, raw in zip(names, zip(*rows, strict=True), strict=True)}
    doubts = {name: column.doubt() for name, column in columns.items()}
    for doubt, remedy in REMEDIES.items():
        found = [name for name in names if doubts[name] == doubt]
        if found:
            told = f"Columns {listed(found)} hold {doubt} and are read as text; {remedy}."
            warn(told)
    return CsvSheet(columns, header, delimiter, newline, start)


def check_unique(names: Sequence[str]) -> None:
    """Refuse a name that several columns have."""
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(f"Column names must be unique; {listed(twice)} occur more than once; rename the copies.")


def check_delimiter(lines: Sequence[list[str]], delimiter: str, name: str) -> None:
    """Refuse a file whose first lines, of names and of a row, are parted by something else.

    Raises
    ------
    DataError : names the delimiter to pass.
    """
    if len(lines) < 2 or len(lines[0]) != 1:
        return
    (header,) = lines[0]
    for mark in OTHERS.replace(delimiter, ""):
        if mark in header and mark in delimiter.join(lines[1]):
            raise DataError(
                f"The fields of {name!r} must be parted by {delimiter!r}; its only name {header!r} is parted by "
                f"{mark!r}; pass --delimiter {mark!r}."
            )


def column_of(raw: list[str], markers: Collection[str]) -> CsvColumn:
    """A column of fields; a blank one is missing, and one that is a marker."""
    values = [unquoted(text) for text in raw]
    missing = np.array([not value.strip() or value.strip() in markers for value in values], dtype=bool)
    return CsvColumn(raw, values, missing)


def is_exact(whole: str) -> bool:
    """Whether a float holds every digit of a whole number; of decimals, which are measured, none asks for that.

    >>> is_exact("9007199254740992"), is_exact("9007199254740993")
    (True, False)
    """
    number = float(whole)
    return math.isfinite(number) and int(number) == int(whole)


def unquoted(raw: str) -> str:
    """What a field says: without its quotes, or without blanks around it."""
    text = raw.strip()
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def quoted(text: str, delimiter: str) -> str:
    """A field that says a text: in quotes where it needs them.

    >>> quoted("Oslo, N", ",")
    '"Oslo, N"'
    """
    if any(mark in text for mark in (delimiter, '"', "\n", "\r")) or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text


def fields_of(text: str, delimiter: str, name: str) -> list[list[str]]:
    """Cut CSV into the fields of its lines, as they are written.

    Raises
    ------
    DataError : a quote is not closed, or followed by more text.
    """
    if '"' not in text:
        lines = [line.split(delimiter) for line in LINE_END.split(text)]
        return lines[:-1] if lines[-1] == [""] else lines
    cut = re.escape(delimiter)
    blanks = rf"[^\S{cut}\r\n]*"
    pattern = re.compile(
        rf'({blanks}"(?:[^"]|"")*"{blanks}|{blanks}[^{cut}"\s][^{cut}\r\n]*|{blanks})({cut}|\r\n|\n|\r|\Z)'
    )
    lines, line, place = [], [], 0
    while place < len(text):
        found = pattern.match(text, place)
        if found is None:
            raise DataError(
                f"Quotes in {name!r} must enclose a whole field; those after line {len(lines) + 1} do not; mend them."
            )
        line.append(found[1])
        place = found.end()
        if found[2] != delimiter:
            lines.append(line)
            line = []
        elif place == len(text):
            lines.append([*line, ""])
    return lines
