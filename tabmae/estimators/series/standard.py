"""Panels in standard deviations, laid out in one line of steps: what models of windows are fed.

Contract: a series' numbers depend on that series and on what fit learnt, not on the other series of a panel.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.windows import Panel, SeriesSchema

OWN_STEPS = 200
"""Median length from which on every series of a panel has a level and a scale of its own."""
SPREAD_OF_SCALES = 10.0
"""Ratio of the 9th to the 1st decile of the series' scales beyond which they have their own in any case."""
SPREAD_OF_LEVELS = 6.0
"""Standard deviation of the series' levels, in median scales of theirs, beyond which they have their own in any case:
measured to be better from 4 on for 20 steps, from 10 on for 100."""
LEAST_RATIO = 1e-12
"""Least standard deviation, in mean absolute values of the channel, that is no rounding error."""

FEW_CELLS = 30
"""Observed cells of a series below which its scale is drawn to the typical one."""
PRIOR_CELLS = 5.0
"""Cells of the typical scale that stand beside those of a series that has hardly any."""
MOST_TYPICAL = 4.0
"""Medians that the typical scale may be."""
FARTHEST = 1e8
"""Standard deviations from the mean beyond which nothing is told from a cell: in float32 it would drown all others."""
FALLING = 1.5
"""How much faster than in its history a series' least value may fall in a forecast."""
TINY = 1e-300
LEAST_VARIANCE = 1e-9
"""Variance of the steps before an origin, in that of their series, that is no rounding error."""

Matrix = NDArray[np.float64]


class Scales:
    """Level and scale of every channel: those of all series together, or each series' own.

    Parameters
    ----------
    mean, deviation : (C,), of all observed cells of fit. typical : (C,), deviation of a series of fit that is not
        short.
    own : id -> (2, C), level and scale of the series of fit; None where all share one, those to come too.
    signed : bool (C,), channels of which fit saw a value below zero; None for all.
    """

    def __init__(
        self,
        mean: Matrix,
        deviation: Matrix,
        own: dict[Hashable, Matrix] | None,
        typical: Matrix | None = None,
        signed: NDArray[np.bool_] | None = None,
    ) -> None:
        self.mean, self.deviation, self.own = mean, deviation, own
        self.typical = deviation if typical is None else typical
        self.signed = np.ones(len(mean), dtype=bool) if signed is None else signed

    @classmethod
    def fit(cls, panel: Panel, *, shared: bool) -> Self:
        """Learn the scales of a panel; `shared` for windows of one process."""
        mean, deviation = moments(panel.values)
        signed = np.fmin.reduce(panel.values) < 0
        if shared:
            return cls(mean, deviation, None, signed=signed)
        if len(panel.ids) == 1:
            return cls(mean, deviation, {panel.ids[0]: np.stack([mean, deviation])}, signed=signed)
        each = [np.stack(moments(panel.series(i), (mean, deviation))) for i in range(len(panel.ids))]
        if np.median(panel.lengths) < OWN_STEPS and alike(*np.stack(each, 1)):
            return cls(mean, deviation, None, signed=signed)
        known = np.stack([np.isfinite(panel.series(i)).sum(0) for i in range(len(panel.ids))])
        found = cls(mean, deviation, {}, typical_deviation(np.stack(each)[:, 1], known, deviation), signed)
        found.own = {name: found.of_one(panel.series(i)) for i, name in enumerate(panel.ids)}
        return found

    def of(self, panel: Panel) -> tuple[Matrix, Matrix]:
        """Levels and scales (n_series, C); those of a series that fit has not seen come from its own cells."""
        shared = np.stack([self.mean, self.deviation])
        if self.own is None:
            found = [shared] * len(panel.ids)
        else:
            found = [
                self.own[name] if name in self.own else self._of_new(panel.series(i))
                for i, name in enumerate(panel.ids)
            ]
        both = np.stack(found)
        return both[:, 0], both[:, 1]

    def of_one(self, values: Matrix) -> Matrix:
        """Level and scale (2, C) of a series by its own cells (T, C); few of them lie close together by chance."""
        level, scale = moments(values, (self.mean, self.deviation))
        count = np.isfinite(values).sum(0)
        return np.stack([level, np.where(count == 0, scale, drawn_to_typical(scale, count, self.typical))])

    def floor(self, panel: Panel) -> Matrix:
        """Least value (sum of lengths, C) to fill in: 0 where neither fit nor the series has one below, else none."""
        least = np.stack([np.fmin.reduce(panel.series(i), initial=np.inf) for i in range(len(panel.ids))])
        return np.repeat(np.where((least < 0) | self.signed, -np.inf, 0.0), panel.lengths, axis=0)

    def _of_new(self, values: Matrix) -> Matrix:
        """Level and scale (2, C) of a series (T, C) that fit has not seen; after one series that one's, if alike."""
        both, new = np.stack([self.mean, self.deviation]), self.of_one(values)
        like_one = self.own is not None and len(self.own) == 1 and alike(*np.stack([both, new], 1))
        return both if like_one else new

    def to_dict(self, named: Callable[[Any], Any]) -> dict[str, Any]:
        """Values for JSON, ids as `named` gives them."""
        own = None if self.own is None else [[named(name), pair.tolist()] for name, pair in self.own.items()]
        shared = {name: getattr(self, name).tolist() for name in ("mean", "deviation", "typical")}
        return {**shared, "own": own, "signed": self.signed.tolist()}

    @classmethod
    def from_dict(cls, state: dict[str, Any], name_of: Callable[[Any], Any]) -> Self:
        """Undo `to_dict`, with the function that undoes `named`."""
        own = state["own"]
        pairs = None if own is None else {name_of(name): np.array(pair) for name, pair in own}
        mean, deviation, typical, signed = (np.array(state[k]) for k in ("mean", "deviation", "typical", "signed"))
        return cls(mean, deviation, pairs, typical, signed)


def drawn_to_typical(scale: Matrix, count: NDArray[Any], typical: Matrix) -> Matrix:
    """Scales by so many cells each, drawn to the typical one where these are few."""
    lacking = PRIOR_CELLS * np.maximum(0, 1 - count / FEW_CELLS)
    drawn = lacking / np.maximum(count - 1 + lacking, 1e-9)
    few = np.where(count <= 1, typical, scale ** (1 - drawn) * typical**drawn)
    return np.where(drawn == 0, scale, few)


def scales_at(values: Matrix, observed: NDArray[np.bool_], origins: NDArray[np.int64]) -> Matrix:
    """Level and scale (n, 2, C) of a series (T, C) by its observed cells before each origin, ascending in (0, T).

    In deviations of the whole series: its level, 0, and its scale, 1, are those of what is not known.
    """
    begins = np.concatenate([[0], origins])
    powers = (np.where(observed, values**power, 0.0) for power in range(3))
    count, total, square = (np.add.reduceat(part, begins)[:-1].cumsum(0) for part in powers)
    level = total / np.maximum(count, 1)
    variance = square / np.maximum(count, 1) - level**2
    scale = np.sqrt(np.where(variance > LEAST_VARIANCE, variance, 1.0))
    return np.stack([level, drawn_to_typical(scale, count, np.ones_like(level))], 1)


def typical_deviation(each: Matrix, known: NDArray[np.int64], otherwise: Matrix) -> Matrix:
    """Typical deviation (C,) of series by those of each (n, C) that has `known` cells enough; else `otherwise`.

    It is their mean, above the median where they differ: whoever knows nothing of a series must not be too sure.
    """
    found = otherwise.copy()
    for c, long in enumerate((known >= FEW_CELLS).T):
        if long.any():
            found[c] = min(each[long, c].mean(), MOST_TYPICAL * np.median(each[long, c]))
    return found


def alike(levels: Matrix, widths: Matrix) -> bool:
    """Whether series may share one level and scale: own levels and scales (S, C)."""
    low, high = np.quantile(widths, [0.1, 0.9], axis=0, method="nearest")
    apart = (levels / np.median(widths, axis=0)).std(0)
    return bool((high / low).max() < SPREAD_OF_SCALES and apart.max() < SPREAD_OF_LEVELS)


def moments(values: Matrix, otherwise: tuple[Matrix, Matrix] | None = None) -> tuple[Matrix, Matrix]:
    """Mean and standard deviation of the observed cells of each channel of (T, C); 1 where nothing varies.

    Channels without two observed cells have those of `otherwise`.
    """
    seen = np.isfinite(values)
    count = seen.sum(0)
    unit = max(float(np.abs(values, where=seen, out=np.zeros_like(values)).max(initial=0)), TINY)
    filled = np.where(seen, values, 0) / unit  # squares of the largest numbers would overflow
    mean = filled.sum(0) / np.maximum(count, 1)
    deviation = np.sqrt(np.where(seen, (filled - mean) ** 2, 0).sum(0) / np.maximum(count, 1))
    varies = deviation > LEAST_RATIO * (np.abs(filled).sum(0) / np.maximum(count, 1))
    mean, deviation = mean * unit, deviation * unit
    fallback = np.ones_like(deviation) if otherwise is None else otherwise[1]
    deviation = np.where(varies, deviation, np.where(count >= 2, 1.0, fallback))
    return (mean if otherwise is None else np.where(count > 0, mean, otherwise[0])), deviation


def each_series(steps: NDArray[Any], lengths: tuple[int, ...]) -> list[NDArray[Any]]:
    """The parts of steps (sum of lengths, ...) that belong to each series."""
    return np.split(steps, np.cumsum(lengths)[:-1])


class Line(NamedTuple):
    """A panel's cells in one line of steps, with a window of missing steps before, between and after the series.

    values : float32 (N, C), in standard deviations, 0 where not observed. observed : bool (N, C).
    place : int64 (sum of lengths,), where each step of the panel lies. starts, lengths : of each series' stretch,
        which is a window at least.
    """

    values: Tensor
    observed: Tensor
    place: Tensor
    starts: Tensor
    lengths: Tensor

    @property
    def owner(self) -> Tensor:
        """Number of the series of each step, int64 (N,); of a step between two series that of the one before."""
        return torch.searchsorted(self.starts, torch.arange(len(self.values)), right=True) - 1

    def windows(self, starts: Tensor, window: int) -> tuple[Tensor, Tensor]:
        """Values and observed cells (n, W * C) of the windows that begin at `starts`."""
        steps = starts[:, None] + torch.arange(window)
        return self.values[steps].flatten(1), self.observed[steps].flatten(1)

    def covering(self, window: int, stride: int) -> Tensor:
        """Starts of windows that cover every series: `stride` steps apart, the last one at the end."""
        found = []
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            begins = torch.arange(start, start + length - window + 1, stride)
            last = start + length - window
            found.append(begins if int(begins[-1]) == last else torch.cat([begins, torch.tensor([last])]))
        return torch.cat(found)


def laid_out(values: Matrix, lengths: tuple[int, ...], window: int) -> Line:
    """Put standardised series (sum of lengths, C), NaN where missing, into one line."""
    length = np.asarray(lengths, dtype=np.int64)
    taken = np.maximum(length, window)
    starts = window + np.concatenate([[0], np.cumsum(taken[:-1] + window)])
    offset = np.concatenate([[0], np.cumsum(length[:-1])])
    place = np.arange(length.sum()) + np.repeat(starts - offset, length)
    total = int(starts[-1] + taken[-1] + window)
    line = np.zeros((total, values.shape[1]), dtype=np.float32)
    observed = np.zeros(line.shape, dtype=bool)
    seen = np.isfinite(values)
    line[place] = np.where(seen, values, 0)
    observed[place] = seen
    return Line(*(torch.from_numpy(part) for part in (line, observed, place, starts, taken)))


def standardised(panel: Panel, scales: Scales) -> tuple[Matrix, Matrix, Matrix]:
    """Values (sum of lengths, C) in standard deviations, and level and scale of each of these steps.

    Cells beyond `FARTHEST`, such as fill values of 1e20, are missing.
    """
    level, scale = (np.repeat(part, panel.lengths, axis=0) for part in scales.of(panel))
    values = in_deviations(panel, level, scale)
    return np.where(np.abs(values) < FARTHEST, values, np.nan), level, scale


def in_deviations(panel: Panel, level: Matrix, scale: Matrix) -> Matrix:
    """Values (sum of lengths, C) in standard deviations; cells beyond `FARTHEST` are there."""
    with np.errstate(over="ignore"):
        return np.clip((panel.values - level) / scale, -FARTHEST, FARTHEST)


def last_steps(panel: Panel, schema: SeriesSchema, n_steps: int) -> Panel:
    """The last `n_steps` of every series; shorter ones whole."""
    kept = tuple(min(length, n_steps) for length in panel.lengths)
    if kept == panel.lengths:
        return panel
    stamps = schema.stamps(panel)
    starts = tuple(index[len(index) - length] for index, length in zip(stamps, kept, strict=True))
    ends = np.cumsum(panel.lengths)
    steps = np.concatenate([np.arange(end - length, end) for end, length in zip(ends, kept, strict=True)])
    return replace(panel, starts=starts, lengths=kept, values=panel.values[steps], future=panel.future[steps])


def floor_of(history: Matrix, horizon: int) -> Matrix:
    """The least value (C,) to forecast after a history (T, C), NaN where missing; none where values are negative.

    What is never negative is not forecast below its least value, unless that has been falling: then at `FALLING` times
    the pace.
    """
    half = max(1, len(history) // 2)
    filled = np.where(np.isfinite(history), history, np.inf)
    old, new = filled[:half].min(0, initial=np.inf), filled[half:].min(0, initial=np.inf)
    fall = np.where(np.isfinite(old) & np.isfinite(new), np.maximum(0, np.where(np.isfinite(old), old, 0) - new), 0)
    least = np.minimum(old, new)
    fall = FALLING * fall * max(1, horizon / half)
    floor: Matrix = np.where(np.isfinite(least) & (least >= 0), np.maximum(0, least - fall), -np.inf)
    return floor
