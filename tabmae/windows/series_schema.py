"""What is learnt of a table of series, and the way between such tables and panels.

Contract: `write` leaves every observed cell as it came; nothing but this room knows what a step's stamp is.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tabmae.errors import DataError, ParameterError, listed
from tabmae.windows.arrays import is_array, read_array, write_array
from tabmae.windows.containers import CHANNEL, open_frame
from tabmae.windows.frames import check_columns, numbers_of, read_owners, read_panel, write_panel
from tabmae.windows.frequency import checked_freq, stamps_after
from tabmae.windows.future import refuse_lacking, spread_ahead, starts_of
from tabmae.windows.inference import refuse_single_steps
from tabmae.windows.layouts import find_layout
from tabmae.windows.panel import Panel
from tabmae.windows.rows import Rows


@dataclass(frozen=True)
class SeriesSchema:
    """The layout of series as they were in fit.

    layout : "long", "wide" or "array". channels : names of the value columns, positions for arrays.
    id_col, time_col : columns of ids and stamps, or the names that forecasts give them; `id_col` is None where there is
        one series without an id.
    freq : a pandas offset, or an integer for integer stamps and arrays.
    future_cols, static_cols : columns known ahead, and columns that are the same within a series.
    id_dtype : dtype of the ids. by_wall : whether steps of hours are regular on the clock of their zone alone.
    """

    layout: str
    channels: tuple[Any, ...]
    id_col: str | None
    time_col: str
    freq: str | int
    future_cols: tuple[str, ...] = ()
    static_cols: tuple[str, ...] = ()
    id_dtype: str | None = None
    by_wall: bool = False

    @classmethod
    def fit(
        cls,
        X: Any,
        *,
        id_col: str | None = "unique_id",
        time_col: str = "ds",
        freq: str | int | None = None,
        target_cols: Sequence[str] | None = None,
        future_cols: Sequence[str] | None = None,
        static_cols: Sequence[str] | None = None,
    ) -> "SeriesSchema":
        """Find the layout, the channels and the frequency of series.

        Raises
        ------
        DataError, ParameterError : X or a parameter cannot be used; the message says what to do.
        """
        freq = None if freq is None else checked_freq(freq)
        if is_array(X):
            panel = read_array(X)
            refuse_roles(target_cols=target_cols, future_cols=future_cols, static_cols=static_cols)
            return cls("array", tuple(range(panel.values.shape[1])), id_col or "unique_id", time_col, freq or 1)
        frame = open_frame(X)
        found = find_layout(frame, id_col, time_col, target_cols, future_cols, static_cols)
        owners = read_owners(frame, found.id_col, found.time_col, wide=found.wide)
        freq = freq or owners.freq()
        by_wall = owners.by_wall(freq)
        if Rows.locate(owners, freq, by_wall=by_wall).lengths.max() < 2:
            refuse_single_steps(len(owners.ids))
        refuse_taken((found.id_col, found.time_col), (CHANNEL,) if len(found.channels) > 1 else ())
        layout = "wide" if found.wide else "long"
        return cls(layout, found.channels, found.id_col, found.time_col, freq, *found[4:], by_wall)

    def read(self, X: Any, *, of_fit: bool = False) -> Panel:
        """Read the series of fit, or others of the same layout and columns, as a panel.

        Warns where series, but those `of_fit`, never have two neighbouring steps of `freq`.
        """
        if self.layout == "array" or is_array(X):
            return self._read_array(X)
        frame = open_frame(X)
        rows = self._rows(frame)
        if not of_fit:
            rows.warn_of_coarse_steps()
        return read_panel(frame, rows, self._names(X), self.future_cols)

    def write(self, panel: Panel, values: NDArray[np.float64], X: Any) -> Any:
        """Fill the gaps of X, whose panel this is, with values (T, C).

        Observed cells, dtypes, index and order stay. Where X lacks stamps of its grid, it comes back complete: sorted
        by series, in order of appearance, and time.
        """
        if self.layout == "array":
            return write_array(X, values)
        frame = open_frame(X)
        rows = self._rows(frame)
        keys = (None, None) if self.layout == "wide" else (self.id_col, self.time_col)
        return write_panel(X, rows, values, self._names(X), keys, self.static_cols)

    def places(self, X: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The series of each row of a frame, by order of appearance, and the row's step in it; int64 (n,) each."""
        rows = self._rows(open_frame(X))
        return rows.codes, rows.cells - (np.cumsum(rows.lengths) - rows.lengths)[rows.codes]

    def stamps(self, panel: Panel) -> list[pd.Index]:
        """The complete grid of each series."""
        return self._stamps(panel, np.zeros(len(panel.ids), dtype=np.int64), np.array(panel.lengths, dtype=np.int64))

    def future_stamps(self, panel: Panel, horizon: int) -> list[pd.Index]:
        """The `horizon` stamps after the end of each series."""
        return self._stamps(panel, np.array(panel.lengths, dtype=np.int64), np.full(len(panel.ids), horizon))

    def read_future(self, X_future: Any, panel: Panel, horizon: int) -> NDArray[np.float64]:
        """Read the values of `future_cols` after the end of each series, (S, horizon, K).

        Rows of other series and times are passed over.

        Raises
        ------
        DataError : columns, series or stamps are lacking, or two rows of a stamp differ.
        """
        if not self.future_cols:
            return np.empty((len(panel.ids), horizon, 0))
        if X_future is None:
            raise DataError(
                f"`X_future` must hold the columns known ahead, {listed(self.future_cols)}; got None. Pass a frame "
                f"with the {horizon} stamps after each series' end."
            )
        frame = open_frame(X_future)
        check_columns(frame, self.future_cols, "`X_future`")
        owners = read_owners(frame, self.id_col, self.time_col, wide=self.layout == "wide")
        numbers = numbers_of(frame, self.future_cols)
        ahead, seen = spread_ahead(owners, numbers, panel, horizon, self.freq, by_wall=self.by_wall)
        refuse_lacking(seen, panel, self.future_stamps(panel, horizon))
        return ahead

    def frame(self, panel: Panel, stamps: list[pd.Index], columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
        """Lay out columns, each (sum of the lengths of `stamps`, C), as a long frame.

        Rows are ordered by series, channel and stamp; "channel" names the channel where there is more than one.

        Raises
        ------
        DataError : the ids or stamps are named as one of the columns.
        """
        n_channels = len(self.channels)
        refuse_taken((self.id_col, self.time_col), columns)
        lengths = np.array([len(index) for index in stamps], dtype=np.int64)
        owner = np.repeat(np.arange(len(stamps)), lengths)
        cell = np.arange(len(owner) * n_channels)
        order = cell if n_channels == 1 else np.lexsort((cell % n_channels, owner[cell // n_channels]))
        rows = order // n_channels
        out: dict[str, Any] = {}
        if self.id_col is not None:
            out[self.id_col] = self.ids(panel).take(owner[rows])
        out[self.time_col] = stamps[0].append(stamps[1:]).take(rows)
        if n_channels > 1:
            names = pd.Index(self.channels, tupleize_cols=False)
            out[CHANNEL] = names.take(order % n_channels)
        out |= {name: np.asarray(column).reshape(-1)[order] for name, column in columns.items()}
        return pd.DataFrame(out)

    def ids(self, panel: Panel) -> pd.Index:
        """The ids as they came: in the dtype of fit where it holds them."""
        try:
            return pd.Index(panel.ids, dtype=self.id_dtype, tupleize_cols=False)
        except (TypeError, ValueError):
            return pd.Index(panel.ids, tupleize_cols=False)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs, in strings, numbers, lists and None."""
        return {name: saved(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "SeriesSchema":
        """Give back the schema that `to_dict` put into a dict."""
        lists = ("channels", "future_cols", "static_cols")
        return cls(**{name: loaded(value) if name in lists else value for name, value in d.items()})

    @property
    def _step(self) -> str | int:
        """The step of the stamps: arrays count theirs, whatever their frequency is called."""
        return 1 if self.layout == "array" else self.freq

    def _rows(self, frame: pd.DataFrame) -> Rows:
        owners = read_owners(frame, self.id_col, self.time_col, wide=self.layout == "wide")
        return Rows.locate(owners, self.freq, by_wall=self.by_wall)

    def _stamps(self, panel: Panel, first: NDArray[np.int64], counts: NDArray[np.int64]) -> list[pd.Index]:
        ends = np.cumsum(counts)
        codes = np.repeat(np.arange(len(counts)), counts)
        steps = np.arange(len(codes)) + np.repeat(first - ends + counts, counts)
        grid = stamps_after(starts_of(panel), codes, steps, self._step, by_wall=self.by_wall)
        return [grid[end - count : end] for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]

    def _read_array(self, X: Any) -> Panel:
        if self.layout != "array" or not is_array(X):
            given = "an array" if is_array(X) else f"a {type(X).__name__}"
            raise DataError(f"X must have the layout of fit, {self.layout}; got {given}. Convert it, or fit again.")
        panel = read_array(X)
        if panel.values.shape[1] != len(self.channels):
            raise DataError(
                f"X must have the {len(self.channels)} channels of fit; got {panel.values.shape[1]}. "
                "The axes are series, time steps, channels."
            )
        return panel

    def _names(self, X: Any) -> tuple[Hashable, ...]:
        """The channels as X names them: the only one of a Series may have any name."""
        if isinstance(X, pd.Series) and len(self.channels) == 1:
            return (0 if X.name is None else X.name,)
        return self.channels


def refuse_roles(**roles: Sequence[str] | None) -> None:
    """Refuse names of columns where there are none."""
    named = [name for name, given in roles.items() if given]
    if named:
        raise ParameterError(f"`{named[0]}` must name columns of a table; got an array. Pass a pandas DataFrame.")


def refuse_taken(keys: Sequence[str | None], columns: Collection[str]) -> None:
    """Refuse names of the columns of ids and stamps that columns of an answer have, too."""
    taken = [name for name in keys if name in columns]
    if taken:
        raise DataError(
            f"Columns of ids and stamps must have other names than columns that answers bring, {listed(columns)}; got "
            f"{listed(taken)}. Rename them, and fit again."
        )


def saved(value: Any) -> Any:
    """A value of a schema in what JSON holds: sequences as lists, numpy's integers as plain ones."""
    if isinstance(value, list | tuple):
        return [saved(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def loaded(value: Any) -> Any:
    """Names of columns from what JSON holds: a list was a tuple."""
    return tuple(loaded(part) for part in value) if isinstance(value, list) else value
