"""What is learnt of a table, and the way between tables and the model's cells.

Contract: decode(encode(X), X) gives X's observed cells bit for bit, in X's container, column order and dtypes.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tabmae.errors import DataError, ParameterError, SavedModelError, listed, warn
from tabmae.schema.apart import not_absurd, outside, set_apart
from tabmae.schema.cells import Cells, contents, objects, plain, python_values
from tabmae.schema.column import Column
from tabmae.schema.levels import from_json, to_json
from tabmae.schema.logs import logarithmic
from tabmae.schema.tables import Table, open_table, read_columns
from tabmae.schema.zones import zone_name
from tabmae.sentinels import (
    warn_of_apart,
    warn_of_beyond,
    warn_of_marks,
    warn_of_names,
    warn_of_sentinels,
    warn_of_strangers,
)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of the table that was fitted.

    columns : in the order of fit.
    named : fit saw a table with column names; columns are then found by name, else by position.
    """

    columns: tuple[Column, ...]
    named: bool

    @classmethod
    def fit(
        cls,
        X: Any,
        categorical_features: Any = "auto",
        *,
        resistant: bool = False,
        doubting: bool = False,
        logs: bool = False,
    ) -> "TableSchema":
        """Learn the columns of X.

        Parameters
        ----------
        X : pandas or polars DataFrame, Arrow table, 2-D array, or list of rows.
        categorical_features : "auto", or names, positions or a bool mask of columns that are categories too. Bools,
            strings and categorical dtypes always are.
        resistant : let no few cells far from all others decide a column's centre and scale.
        doubting : leave numbers that a gap sets apart from all others of their column unobserved, and warn of them;
            those of other tables, too, and any absurdly far outside the range of these.
        logs : tell positive numbers over several decades by their logarithms.

        Raises
        ------
        DataError : X is no table, is empty, or has columns that cannot be read.
        ParameterError : `categorical_features` names what X lacks.

        >>> schema = TableSchema.fit([[1.0, "a"], [None, "b"], [3.0, "b"]])
        >>> values, observed = schema.encode([[2.0, "b"]])
        >>> values
        array([[0., 0.]], dtype=float32)
        """
        table = open_table(X)
        chosen = chosen_columns(categorical_features, table)
        cells = read_columns(table, range(len(table.names)))
        is_time = [cell.family not in ("number", "level", "empty") for cell in cells]
        times = [table.names[place] for place in sorted(chosen) if is_time[place]]
        if times:
            raise ParameterError(
                f"`categorical_features` must name columns of numbers or levels; {listed(times)} hold times. "
                "Convert them to strings to make categories of them."
            )
        divided = _divided(table.names, cells, chosen) if doubting else {}
        n_apart = dict.fromkeys(range(len(cells)), 0)
        for place, least_and_most in divided.items():
            apart = outside(cells[place].as_numbers(), least_and_most)
            cells[place], n_apart[place] = replace(cells[place], missing=cells[place].missing | apart), int(apart.sum())
        numbers = {
            place: cell.as_numbers()
            for place, cell in enumerate(cells)
            if cell.family == "number" and place not in chosen and not cell.missing.all()
        }
        undivided = {place: not_absurd(known) for place, known in numbers.items()} if doubting else {}
        believed: dict[int, tuple[float, ...]] = {**undivided, **divided}
        told_by_logs = logarithmic(numbers) if logs else set()
        columns = tuple(
            Column.fit(
                name,
                cell,
                categorical=place in chosen,
                resistant=resistant,
                log=place in told_by_logs,
                believed=believed.get(place, ()),
                n_apart=n_apart[place],
            )
            for place, (name, cell) in enumerate(zip(table.names, cells, strict=True))
        )
        blank = [column.name for column in columns if not column.learnable]
        n_useful = int(np.logical_or.reduce([~cell.missing for cell in cells]).sum())
        if blank and n_useful > 1:  # every estimator refuses fewer rows
            warn(
                f"Columns {listed(blank)} have no observed cell in fit. Nothing can be learnt of them, and they come "
                "back as they are."
            )
        warn_of_sentinels({columns[place].name: known[~np.isnan(known)] for place, known in numbers.items()})
        texts = {
            column.name: column.levels for place, column in enumerate(columns) if place not in chosen and column.levels
        }
        warn_of_strangers(texts, "are learnt as categories")
        warn_of_marks(texts)
        warn_of_names(texts, {column.name: column.n_observed for column in columns})
        return cls(columns, table.named)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Count of levels of each column, 0 for numbers."""
        return tuple(column.n_levels for column in self.columns)

    def encode(self, X: Any, *, unseen_observed: bool = False) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Turn a table into cells.

        Parameters
        ----------
        X : a container as in fit.
        unseen_observed : levels unseen in fit are observed, with the count of levels as their code, and so are numbers
            that are not believed.

        Returns
        -------
        values : float32 (B, F), standard deviations from the mean, for categories codes; 0 where not observed.
        observed : bool (B, F); False also for levels unseen in fit and numbers that are not believed, unless these are
            to be observed, and for columns of which nothing was learnt.

        Raises
        ------
        DataError : columns are absent, cannot be read, or hold something else than in fit.
        """
        table = open_table(X)
        positions = self.positions(table)
        learnt = [place for place, column in enumerate(self.columns) if column.learnable]
        cells = dict(zip(learnt, read_columns(table, [positions[place] for place in learnt]), strict=True))
        refuse_other_content([(self.columns[place], cell) for place, cell in cells.items()])
        values = np.zeros((table.n_rows, len(self.columns)), dtype=np.float32)
        observed = np.zeros(values.shape, dtype=bool)
        unseen: dict[Hashable, dict[Hashable, int]] = {}
        beyond: dict[Hashable, list[Any]] = {}
        for place, cell in cells.items():
            column = self.columns[place]
            values[:, place], observed[:, place], strangers = column.encode(cell, unseen_observed=unseen_observed)
            if strangers:
                unseen[column.name] = strangers
            if column.kind == "number" and not unseen_observed:
                far = ~cell.missing & ~observed[:, place]
                if far.sum() > column.n_apart:  # fit has warned of its own
                    beyond[column.name] = _told(cell, far)
        warn_of_beyond(beyond)
        if unseen:
            warn(unseen_message(unseen, judged=unseen_observed))
        return values, observed

    def decode(self, values: NDArray[Any], like: Any, *, whole: bool = False) -> Any:
        """Fill the missing cells of `like` from values (B, F); observed cells, index, column order and dtypes stay.

        Integer dtypes are rounded into the observed range; with `whole` so is any column that held whole numbers alone.
        """
        table = open_table(like)
        filled: dict[int, Any] = {}
        for place, position in enumerate(self.positions(table)):
            if self.columns[place].learnable:
                where = table.missing(position)
                if where.any():
                    filled[position] = put(
                        table, position, self.columns[place], where, values[where, place], whole=whole
                    )
        return table.rebuilt(filled)

    def decode_numbers(self, values: NDArray[Any], like: Any, fill_observed: bool = True) -> Any:
        """The columns of numbers alone, unrounded: bounds of intervals.

        Missing cells come from values (B, F), observed cells keep their own; with `fill_observed=False` every cell
        comes from values. Integers become float64, times stay times.
        """
        table = open_table(like)
        positions = self.positions(table)
        filled: dict[int, Any] = {}
        kept: list[int] = []
        for place, position in enumerate(positions):
            column = self.columns[place]
            if column.kind == "category":
                continue
            kept.append(position)
            if column.learnable:
                where = table.missing(position) if fill_observed else np.ones(table.n_rows, dtype=bool)
                filled[position] = put(table, position, column, where, values[where, place], unrounded=True)
        return table.rebuilt(filled, only=sorted(kept))

    def full(self, values: NDArray[Any], like: Any, where: NDArray[np.bool_] | None = None) -> Any:
        """A table in the container of `like`, the cells `where` (B, F) from values (B, F), unrounded.

        Integers become float64; without `where` every cell comes from values.
        """
        table = open_table(like)
        where = np.ones(values.shape, dtype=bool) if where is None else where
        filled = {
            position: put(
                table, position, self.columns[place], where[:, place], values[where[:, place], place], unrounded=True
            )
            for place, position in enumerate(self.positions(table))
            if self.columns[place].learnable
        }
        return table.rebuilt(filled)

    def to_dict(self) -> dict[str, Any]:
        """The schema as what JSON can hold, exactly."""
        columns = [
            {field: getattr(column, field) for field in Column.__slots__}
            | {"name": to_json(column.name), "levels": [to_json(level) for level in column.levels]}
            for column in self.columns
        ]
        return {"named": self.named, "columns": columns}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "TableSchema":
        """The schema that `to_dict` gave."""
        try:
            columns = [
                {
                    **column,
                    "name": from_json(column["name"]),
                    "levels": tuple(map(from_json, column["levels"])),
                    "common": tuple(map(float, column["common"])),
                    "believed": tuple(map(float, column["believed"])),
                }
                for column in saved["columns"]
            ]
            strange = [column["zone"] for column in columns if zone_name(column["zone"]) != column["zone"]]
            if strange:
                raise ValueError(f"unknown time zones {strange}")
            return cls(tuple(Column(**column) for column in columns), bool(saved["named"]))
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            raise SavedModelError(
                f"The saved schema must be as `to_dict` wrote it; reading it gave {error!r}. Save the model again."
            ) from error

    def positions(self, table: Table) -> list[int]:
        """Where the table holds each column of fit: by name, or by position when one of the two has no names."""
        if not (self.named and table.named):
            if len(table.names) != len(self.columns):
                raise DataError(
                    f"X has {len(table.names)} features, but {len(self.columns)} features were seen in fit. "
                    "Pass the columns of fit in their order."
                )
            return list(range(len(self.columns)))
        places = {name: position for position, name in enumerate(table.names)}
        lacking = [column.name for column in self.columns if column.name not in places]
        if lacking:
            raise DataError(
                f"X lacks columns seen in fit: [{listed(lacking)}]. Add them, as NaN where they are unknown."
            )
        return [places[column.name] for column in self.columns]


def put(
    table: Table,
    position: int,
    column: Column,
    where: NDArray[np.bool_],
    values: NDArray[Any],
    *,
    whole: bool = False,
    unrounded: bool = False,
) -> Any:
    """A table's column with encoded values in the cells `where`, of another type only if its own cannot hold them."""
    cells = table.read(position)
    if column.kind == "category":
        codes = column.codes(values)
        if cells.family == "level" or (cells.family == "number" and contents(column.levels) in ("numbers", "bools")):
            return table.put_levels(position, where, codes, column.levels)
        return table.fresh(position, objects(column.levels)[codes].tolist())
    holds_bools = column.whole and column.low >= 0 and column.high <= 1
    family = "empty" if cells.family == "level" and cells.missing.all() and not holds_bools else cells.family
    bools = family == "level" and cells.content == "bools"
    if unrounded and column.family == "number" and (bools or cells.integer or cells.exact.dtype.kind == "O"):
        numbers = cells.as_numbers()
        numbers[where] = column.numbers(values)
        return table.fresh(position, numbers)
    integer = column.integer or (family != "empty" and (cells.integer or bools))
    integer = not unrounded and (integer or (whole and column.whole))
    numbers = column.rounded(column.numbers(values), integer=integer)
    if family == column.family or (bools and column.family == "number"):
        return table.put_numbers(position, where, numbers, column.family)
    return table.fresh(position, numbers if column.family == "number" else python_values(numbers, column.family))


def chosen_columns(categorical_features: Any, table: Table) -> set[int]:
    """Positions of the columns that the user calls categories."""
    if isinstance(categorical_features, str) and categorical_features == "auto":
        return set()
    if isinstance(categorical_features, str) or not isinstance(categorical_features, Iterable):
        raise ParameterError(
            '`categorical_features` must be "auto", or a list of names, positions or bools; '
            f"got {categorical_features!r}. Pass [{categorical_features!r}] to name one column."
        )
    given = [plain(item) for item in categorical_features]
    if given and all(isinstance(item, bool) for item in given):
        if len(given) != len(table.names):
            raise ParameterError(
                f"`categorical_features` as a bool mask must have an entry per column, {len(table.names)}; "
                f"got {len(given)}."
            )
        return {position for position, chosen in enumerate(given) if chosen}
    places = {name: position for position, name in enumerate(table.names)}
    if not all(item in places for item in given) and all(isinstance(item, int) for item in given):
        places = {position: position for position in range(-len(table.names), len(table.names))}
    unknown = [item for item in given if item not in places]
    if unknown:
        raise ParameterError(
            f"`categorical_features` must name columns of X; X lacks {listed(unknown)} and has {listed(table.names)}."
        )
    return {places[item] % len(table.names) for item in given}


def _divided(names: Sequence[Hashable], cells: Sequence[Cells], chosen: set[int]) -> dict[int, tuple[float, float]]:
    """The range to be believed of the columns that a gap divides, by position; it warns of the numbers outside."""
    levels = {place for place, cell in enumerate(cells) if cell.family == "level" or place in chosen}
    numbers = {place: cell.as_numbers() for place, cell in enumerate(cells) if place not in levels}
    divided = set_apart(numbers, {place: cells[place].as_levels()[0] for place in levels})
    warn_of_apart({
        names[place]: _told(cells[place], outside(numbers[place], found)) for place, found in divided.items()
    })  # fmt: skip
    return divided


def _told(cells: Cells, where: NDArray[np.bool_]) -> list[Any]:
    """Cells of numbers or times as a warning names them."""
    found = cells.exact[where].tolist()
    return [str(np.datetime64(round(cell), "s")) for cell in found] if cells.family.startswith("datetime") else found


def refuse_other_content(cells: Sequence[tuple[Column, Cells]]) -> None:
    """Refuse columns whose observed cells are something else than they were in fit."""
    changed = [
        f"{column.name!r} held {column.content} and now holds {cell.content}"
        for column, cell in cells
        if not cell.missing.all() and not alike(column, cell)
    ]
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise DataError(
            f"Columns must hold what they held in fit; {'; '.join(changed[:5])}{more}. "
            "Convert them to the type of fit, for example with pandas.to_numeric or pandas.to_datetime."
        )


def alike(column: Column, cells: Cells) -> bool:
    """Whether cells are of the content that a column had in fit; bools may stand for numbers."""
    if column.kind == "number":
        return cells.family == column.family or (column.family == "number" and cells.content == "bools")
    now = cells.content if cells.family == "level" else "numbers" if cells.family == "number" else "times"
    return (
        now == column.content
        or {now, column.content} == {"bools", "numbers"}
        or (now != "times" and "categories" in (now, column.content))
    )


def unseen_message(unseen: dict[Hashable, dict[Hashable, int]], *, judged: bool) -> str:
    """The warning for levels unseen in fit, which are `judged` themselves or not."""
    sentences = [
        f"Column {name!r} has values unseen in fit: [{listed(list(levels))}] in {sum(levels.values())} rows."
        for name, levels in list(unseen.items())[:5]
    ]
    if len(unseen) > 5:
        sentences.append(f"So have {len(unseen) - 5} more columns.")
    fate = "judged as new levels" if judged else "kept"
    return " ".join([*sentences, f"They are {fate}, and treated as missing when other cells are predicted."])
