"""Series that the benchmarks forecast and complete: the field's splits, the cells that are hidden, and plain fillings.

Contract: data set, pattern, fraction and seed fix the hidden cells, whatever the method. Values are in standard
deviations of the training part, those of M4 excepted, which stay as they are. `data` is the folder of the files.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

MONTH = 30 * 24
"""Hours of the month that the splits of ETT count in."""

M4 = "m4-hourly"
M4_HORIZON = 48
RUN_STEPS = (24, 72)
"""Lengths of the runs that are hidden in a history, drawn evenly."""

TSI_WINDOW = 48
TSI_RUN = 36
TSI_MONTHS = (14, 19, 24)
"""Calendar months that training, validation and test part end after."""

BLOCK = (6, 6)
"""Steps and channels of a hidden block. Source: the code of TSI-Bench, Du et al. 2024."""

WINDOW = 96
N_BLACKOUTS = 5
RUN_SHARE = 0.1
"""Share of a whole series that a hidden run is long."""

START = "2000-01-01"
"""Time stamp of the first step, where a frame needs one."""

ICU_HOURS = 48
ICU_STATIC = ("RecordID", "Age", "Gender", "Height", "ICUType")
"""Parameters of a stay that are no series."""


class Source(NamedTuple):
    """Where a data set lies, the steps of its season, and the distance of its steps as pandas writes it, where a
    method may need it."""

    path: str
    season: int
    freq: str = ""


FORECASTS = {
    "ETTh1": Source("ETT/ETTh1.csv.gz", 24, "h"),
    "ETTm1": Source("ETT/ETTm1.csv.gz", 96, "15min"),
    "weather": Source("weather/weather.csv.gz", 144, "10min"),
    M4: Source("M4", 24, "h"),
}
WHOLE = {
    "airq": Source("ImputeGAP/airq.txt.gz", 24),
    "chlorine": Source("ImputeGAP/chlorine.txt.gz", 125),
    "climate": Source("ImputeGAP/climate.txt.gz", 12),
    "electricity": Source("ImputeGAP/electricity.txt.gz", 24),
    "meteo": Source("ImputeGAP/meteo.txt.gz", 144),
    "temperature": Source("ImputeGAP/temperature.txt.gz", 365),
}
"""Sets of which one series is completed as it is, without a training part of its own. Chlorine's season is the one
whose phases fit best."""

GAPS = {
    "ETTh1": FORECASTS["ETTh1"],
    "ETTh1-tsi": FORECASTS["ETTh1"],
    "weather": FORECASTS["weather"],
    "beijing": Source("BeijingPM25/PRSA_data_2010-2014.csv.gz", 24),
    "physionet2012": Source("physionet2012/set-a_long.csv.gz", 24),
    **WHOLE,
}
STRIDED = ("ETTh1", "weather")
"""Sets whose test windows begin at every step, or at every `stride`-th."""

SETTINGS: dict[str, list[tuple[str, float]]] = {
    **{name: [("points", share) for share in (0.125, 0.25, 0.375, 0.5)] for name in STRIDED},
    "ETTh1-tsi": [("points", 0.1), ("points", 0.5), ("points", 0.9), ("runs", 0.5), ("blocks", 0.5)],
    "beijing": [("points", 0.1)],
    "physionet2012": [("points", 0.1)],
    **{name: [("points", 0.1), ("runs", 0.05), ("blackouts", 0.1)] for name in WHOLE},
}
"""Pattern and share of the known cells that are hidden, by data set."""


@dataclass(frozen=True)
class Outlook:
    """Series (T, C) and the places that forecasts of `horizon` steps begin at.

    `series` hold the truth and `visible` what a method may see of it, NaN where hidden. `origins` (n, 2) are the number
    of a series and the step that is forecast first. Methods are fitted on the first `n_fitted` steps of each series, of
    which `n_train` are the training part and the others, if any, the validation part.
    """

    series: list[np.ndarray]
    visible: list[np.ndarray]
    origins: np.ndarray
    n_train: list[int]
    n_fitted: list[int]
    horizon: int
    season: int
    freq: str

    @property
    def digest(self) -> str:
        """Fingerprint of the hidden cells and the origins."""
        return fingerprint([self.origins, *(np.isnan(values) for values in self.visible)])

    def truth(self, chosen: slice) -> np.ndarray:
        """Give what came (n, horizon, C) after some of the origins."""
        return np.stack([self.series[number][step : step + self.horizon] for number, step in self.origins[chosen]])


@dataclass(frozen=True)
class Gaps:
    """Windows to complete, and what a method is fitted on.

    `train` (n, T, C) and `validation` (m, T, C) are as the method sees them, NaN where missing; `truth` and `hidden`
    (k, W, C) are those of the test windows. Phases are the steps since the first of a period that a window begins at.
    """

    train: np.ndarray
    validation: np.ndarray
    truth: np.ndarray
    hidden: np.ndarray
    train_phase: np.ndarray
    test_phase: np.ndarray
    period: int

    @property
    def visible(self) -> np.ndarray:
        return np.where(self.hidden, np.float32(np.nan), self.truth)

    @property
    def digest(self) -> str:
        """Fingerprint of the hidden cells and of what is missing in the training part."""
        return fingerprint([self.hidden, np.isnan(self.train)])


def fingerprint(arrays: Iterable[np.ndarray]) -> str:
    found = hashlib.sha256()
    for values in arrays:
        found.update(values.tobytes())
    return found.hexdigest()[:12]


def read_series(data: Path, name: str) -> np.ndarray:
    """Give the steps x channels of a set of one series."""
    path = data / {**FORECASTS, **GAPS}[name].path
    if name in WHOLE:
        return np.loadtxt(path)
    frame = pd.read_csv(path, encoding="latin-1")
    other = ["No", "year", "month", "day", "hour", "cbwd"] if name == "beijing" else ["date"]
    return frame.drop(columns=other).to_numpy(dtype=np.float64)


def standardised(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values (..., C) in standard deviations of `known` (..., C) from its mean; a channel without spread is centred."""
    rows = known.reshape(-1, known.shape[-1])
    spread = np.nanstd(rows, axis=0)
    return (values - np.nanmean(rows, axis=0)) / np.where(spread > 0, spread, 1)


def split_steps(name: str, n_steps: int) -> tuple[int, int, int]:
    """Give where training, validation and test part end: 12, 4 and 4 months of ETT, 70, 10 and 20 % of another set.

    Raises
    ------
    ValueError : a set of ETT is shorter than its twenty months.
    """
    if name in ("ETTh1", "ETTm1"):
        month = MONTH * FORECASTS[name].season // 24
        if n_steps < 20 * month:
            raise ValueError(f"{name} must have {20 * month} steps; got {n_steps}. Take the file as it is published.")
        return 12 * month, 16 * month, 20 * month
    return int(0.7 * n_steps), n_steps - int(0.2 * n_steps), n_steps


def load_outlook(name: str, data: Path, horizon: int, stride: int) -> Outlook:
    """Load what is to be forecast, nothing hidden; a window begins at every `stride`-th step of the test part."""
    source = FORECASTS[name]
    if name == M4:
        parts = [pd.read_csv(data / source.path / f"Hourly-{part}.csv.gz", index_col=0) for part in ("train", "test")]
        histories, futures = ([row[~np.isnan(row)] for row in part.to_numpy(dtype=np.float64)] for part in parts)
        series = [np.r_[pair][:, None] for pair in zip(histories, futures, strict=True)]
        lengths = [len(history) for history in histories]
        origins = np.column_stack([np.arange(len(series)), lengths])
        return Outlook(series, series, origins, lengths, lengths, M4_HORIZON, source.season, source.freq)
    values = read_series(data, name)
    n_train, n_fitted, n_steps = split_steps(name, len(values))
    series = [standardised(values[:n_steps], values[:n_train])]
    steps = np.arange(n_fitted, n_steps - horizon + 1, stride)
    origins = np.column_stack([np.zeros_like(steps), steps])
    return Outlook(series, series, origins, [n_train], [n_fitted], horizon, source.season, source.freq)


def hide_history(outlook: Outlook, pattern: str, fraction: float, seed: int) -> Outlook:
    """Hide a share of the cells of every step that a method may see, by "points" or by "runs" of `RUN_STEPS`."""
    rng = np.random.default_rng([seed, 7])
    visible = []
    for values in outlook.series:
        hidden = rng.random(values.shape) < fraction if pattern == "points" else np.zeros(values.shape, dtype=bool)
        for channel in hidden.T if pattern == "runs" else ():
            while channel.mean() < fraction:
                start, length = rng.integers(len(channel)), rng.integers(RUN_STEPS[0], RUN_STEPS[1] + 1)
                channel[start : start + length] = True
        visible.append(np.where(hidden, np.nan, values))
    return replace(outlook, visible=visible)


def hide_points(known: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Hide known cells one by one."""
    return known & (rng.random(known.shape, dtype=np.float32) < fraction)


def hide_runs(known: np.ndarray, fraction: float, length: int, rng: np.random.Generator) -> np.ndarray:
    """Hide a run of `length` steps in as many channels of windows (n, W, C) as make up the fraction."""
    n_windows, n_steps, n_channels = known.shape
    hidden = np.zeros_like(known)
    n_runs = max(1, round(fraction * n_steps / length * n_windows * n_channels))
    for place in rng.permutation(n_windows * n_channels)[:n_runs]:
        window, channel = divmod(int(place), n_channels)
        start = rng.integers(n_steps - length + 1)
        hidden[window, start : start + length, channel] = True
    return hidden & known


def hide_blocks(known: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Hide blocks of `BLOCK` steps x neighbouring channels in each window (n, W, C) until the fraction is reached."""
    hidden = np.zeros_like(known)
    length, width = (min(size, there) for size, there in zip(BLOCK, known.shape[1:], strict=True))
    for window in hidden:
        while window.mean() < fraction:
            step, channel = rng.integers(window.shape[0] - length + 1), rng.integers(window.shape[1] - width + 1)
            window[step : step + length, channel : channel + width] = True
    return hidden & known


def hide_blackouts(known: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Hide all channels at once in `N_BLACKOUTS` stretches of the steps, which do not meet."""
    hidden = np.zeros_like(known)
    n_steps = known.shape[1]
    length = max(1, round(fraction * n_steps / N_BLACKOUTS))
    for first in np.linspace(0, n_steps, N_BLACKOUTS, endpoint=False).astype(int):
        start = first + 1 + rng.integers(n_steps // N_BLACKOUTS - length - 1)
        hidden[:, start : start + length] = True
    return hidden & known


def hiding(name: str, pattern: str, fraction: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    """Give the function that hides cells of known ones (n, W, C) of a data set."""

    def hide(known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if pattern == "runs":
            return hide_runs(known, fraction, round(RUN_SHARE * known.shape[1]) if name in WHOLE else TSI_RUN, rng)
        return {"points": hide_points, "blocks": hide_blocks, "blackouts": hide_blackouts}[pattern](
            known, fraction, rng
        )

    return hide


def load_gaps(name: str, data: Path, pattern: str, fraction: float, seed: int, stride: int) -> Gaps:
    """Load what is to be completed.

    Beside the test windows, cells of the training and validation part are hidden in "ETTh1-tsi" and "beijing"; of the
    others they are as they come. A whole series is training part and test window at once.
    """
    hide, rng = hiding(name, pattern, fraction), np.random.default_rng([seed, 8])
    if name == "physionet2012":
        return _stays(data, hide, seed)
    values = read_series(data, name)
    season, n_steps = GAPS[name].season, len(values)
    phase = np.arange(n_steps) % season
    if name in WHOLE:
        hidden = hide(~np.isnan(values)[None], rng)
        truth = standardised(values, np.where(hidden[0], np.nan, values)).astype(np.float32)[None]
        visible = np.where(hidden, np.float32(np.nan), truth)
        return Gaps(visible, visible[:, :0], truth, hidden, phase[:1], phase[:1], season)
    if name == "ETTh1-tsi":
        ends = month_ends(data / GAPS[name].path, TSI_MONTHS)
        window, step = TSI_WINDOW, TSI_WINDOW
    else:
        ends = np.array(split_steps(name, n_steps))
        window, step = WINDOW, stride if name in STRIDED else WINDOW
    scaled = standardised(values, values[: ends[0]]).astype(np.float32)
    truth = cut(scaled[ends[1] : ends[2]], window, step)
    test_phase = phase[ends[1] : ends[2] - window + 1 : step]
    train, validation = scaled[None, : ends[0]], scaled[None, ends[0] : ends[1]]
    train_phase = phase[:1]
    if name == "ETTh1-tsi":
        train, validation = (cut(part[0], window, step) for part in (train, validation))
        train_phase = phase[: ends[0] - window + 1 : step]
    if name not in STRIDED:
        train, validation = (np.where(hide(~np.isnan(part), rng), np.nan, part) for part in (train, validation))
    return Gaps(train, validation, truth, hide(~np.isnan(truth), rng), train_phase, test_phase, season)


def cut(values: np.ndarray, window: int, step: int) -> np.ndarray:
    """Cut a series (T, C) into windows (k, W, C) that begin at every `step`-th step."""
    return np.moveaxis(sliding_window_view(values, window, axis=0)[::step], -1, 1)


def month_ends(path: Path, counts: Sequence[int]) -> np.ndarray:
    """Give how many steps of a file of dated steps lie in its first calendar months."""
    times = pd.to_datetime(pd.read_csv(path, usecols=["date"])["date"])
    months = (times.dt.year - times[0].year) * 12 + times.dt.month - times[0].month
    return np.searchsorted(months, counts)


def _stays(data: Path, hide: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int) -> Gaps:
    """Give stays (n, 48, C) of hourly means, split 64 / 16 / 20 by patients; cells of the test part are hidden."""
    source = GAPS["physionet2012"]
    rows = pd.read_csv(data / source.path).query("Parameter not in @ICU_STATIC and Value >= 0")
    rows = rows.assign(hour=rows["Time"].str[:2].astype(int)).query("hour < @ICU_HOURS")
    table = rows.groupby(["RecordID", "hour", "Parameter"])["Value"].mean().unstack()
    patients = table.index.get_level_values("RecordID").unique()
    table = table.reindex(pd.MultiIndex.from_product([patients, range(ICU_HOURS)]))
    stays = table.to_numpy(dtype=np.float64).reshape(len(patients), ICU_HOURS, -1)
    order = np.random.default_rng([seed, 9]).permutation(len(stays))
    train, validation, test = np.split(order, [round(0.64 * len(stays)), round(0.8 * len(stays))])
    scaled = standardised(stays, stays[train]).astype(np.float32)
    hidden = hide(~np.isnan(scaled[test]), np.random.default_rng([seed, 8]))
    phases = np.zeros(len(stays), dtype=int)
    parts = scaled[train], scaled[validation], scaled[test], hidden
    return Gaps(*parts, phases[: len(train)], phases[: len(test)], source.season)


def interpolate(values: np.ndarray, empty: np.ndarray | float = 0.0) -> np.ndarray:
    """Fill the gaps of windows (n, T, C) by lines, ends by the nearest value, a channel without any by `empty`."""
    known = ~np.isnan(values)
    if known.all():
        return values
    n_steps = values.shape[1]
    steps = np.arange(n_steps)[None, :, None]
    before = np.maximum.accumulate(np.where(known, steps, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, steps, n_steps)[:, ::-1], axis=1)[:, ::-1]
    left, right = np.where(before < 0, after, before), np.where(after == n_steps, before, after)
    low, high = (np.take_along_axis(values, side.clip(0, n_steps - 1), axis=1) for side in (left, right))
    filled = low + (steps - left) / np.maximum(right - left, 1) * (high - low)
    return np.where(known, values, np.where(known.any(axis=1, keepdims=True), filled, empty))


def carry_forward(values: np.ndarray, empty: np.ndarray | float = 0.0) -> np.ndarray:
    """Fill the gaps of windows (n, T, C) by the last value before, those at the start by the first value."""
    known = ~np.isnan(values)
    before = np.maximum.accumulate(np.where(known, np.arange(values.shape[1])[None, :, None], -1), axis=1)
    first = known.argmax(axis=1, keepdims=True)
    filled = np.take_along_axis(values, np.where(before < 0, first, before), axis=1)
    return np.where(known.any(axis=1, keepdims=True), filled, empty)


def long_frame(parts: list[np.ndarray], origins: list[int], freq: str) -> pd.DataFrame:
    """Series (T, C) that end before a step, as a frame of unique_id, ds and the channels."""
    stamps = pd.date_range(START, periods=max(origins), freq=freq)
    frames = [
        pd.DataFrame(values, columns=channel_names(values.shape[1])).assign(
            unique_id=f"{number:06d}", ds=stamps[origin - len(values) : origin]
        )
        for number, (values, origin) in enumerate(zip(parts, origins, strict=True))
    ]
    return pd.concat(frames, ignore_index=True)


def channel_names(n_channels: int) -> list[str]:
    return ["y"] if n_channels == 1 else [f"y{channel:03d}" for channel in range(n_channels)]


def bound_names(model: str, levels: list[float]) -> list[str]:
    """Columns of a frame of forecasts in Nixtla's manner: the point, then the bounds of each level."""
    return [model, *(f"{model}-{side}-{100 * level:g}" for level in levels for side in ("lo", "hi"))]


def stacked(found: pd.DataFrame, columns: list[str], names: list[str]) -> np.ndarray:
    """Turn a long frame of forecasts into (n, columns, H, C); frames of one channel need not name it."""
    frame = found.reset_index() if "unique_id" not in found else found
    frame = frame if "channel" in frame else frame.assign(channel=names[0])
    table = frame.pivot(index=["unique_id", "ds"], columns="channel", values=columns)
    n_series = frame["unique_id"].nunique()
    values = np.stack([table[column][names].to_numpy() for column in columns])
    return np.moveaxis(values.reshape(len(columns), n_series, -1, len(names)), 0, 1)
