"""The answers of `TimeSeriesMAE` about odd steps: scores, points and events.

Contract: a missing cell has no score, no p-value and no flag.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from tabmae.errors import check_number, listed, warn
from tabmae.estimators.series.detecting.detector import Judged, SeriesDetector
from tabmae.estimators.series.detecting.events import Event, events_of, farthest_channels
from tabmae.estimators.series.phases import without_far
from tabmae.estimators.series.settled import Settled
from tabmae.estimators.series.slips import without_slips
from tabmae.estimators.series.standard import Matrix, Scales, in_deviations, standardised
from tabmae.series_model import SeriesAutoencoder
from tabmae.windows import Panel, SeriesSchema, in_library_of, refuse_taken

POINTS = ("value", "expected", "lower", "upper", "score", "p_value", "flag")
EVENTS = ("start", "end", "peak", "peak_score", "channels")
SUSPECTS = 3
"""Channels of an event that are each tried as the one that is off."""


class Detection(NamedTuple):
    """What is odd in series.

    points : long frame: id, time, `channel` where there are several, `value`, `expected`, `lower`, `upper`, and the
        `score`, `p_value` and `flag` of the stamp.
    events : a row an event: id, `start`, `end` and `peak` (stamps), `peak_score`, `channels` (names, the oddest first).
    """

    points: pd.DataFrame
    events: pd.DataFrame


class Told(NamedTuple):
    """Steps of series, in standard deviations of fit, and where they lie in units.

    values, believed : (T, C), as given, and without cells that nothing is to be told from. level, scale : (T, C).
    """

    panel: Panel
    values: Matrix
    believed: Matrix
    level: Matrix
    scale: Matrix


def judged(estimator: Any, X: Any) -> tuple[Told, Judged]:
    """Steps, and what is found of them."""
    check_is_fitted(estimator)
    panel = estimator.schema_.read(X)
    unsettled = estimator.settled_.left_out(panel)
    believed, level, scale = standardised(without_slips(unsettled), estimator.scales_)
    values = in_deviations(unsettled, level, scale)
    moved = [estimator.schema_.channels[channel] for channel in estimator.detector_.beyond(values)]
    if moved:
        warn(
            f"More than a quarter of the steps of {listed(moved)} lie outside the range that fit saw, and are judged "
            "odd for that. Where a level moves on by itself, fit again with recent steps, or pass differences."
        )
    believed = without_far(believed, panel.lengths, estimator._possible_cycles)
    found = estimator.detector_.judge(estimator.model_, values, believed, panel.lengths)
    return Told(panel, values, believed, level, scale), found


class AnswersOfDetection:
    """The methods of `TimeSeriesMAE` that find odd stamps."""

    detector_: SeriesDetector
    model_: SeriesAutoencoder
    scales_: Scales
    schema_: SeriesSchema
    settled_: Settled

    def anomaly_score(self, X: Any, *, by_channel: bool = False) -> Any:
        """How odd each stamp of series is, in nats; higher is odder.

        Parameters
        ----------
        X : series as for `impute`; those of fit, or later ones.
        by_channel : what the masked model alone makes of every channel, instead of all members of every stamp.

        Returns
        -------
        Long frame of X's library: id, time, `channel` with `by_channel` where there are several, `score`; for an array
        an array (n, T) or (n, T, C). NaN where nothing is observed.

        A score is of the windows that hold a stamp: their missed cells, each patch hidden in turn; their distance from
        the mean by the Gaussian; and from the nearest of clusters, and where there is a season of their shapes. Each is
        minus the log of the share of the steps of fit that are as odd; these are added. Channels of no more than two
        values in fit are switches, where others are not: what is expected of the others knows them, but their own cells
        and windows are not judged but with `by_channel`.

        Levels are judged by those of fit: a trend that goes on is odd, too, and warned of.
        """
        (panel, *_), found = judged(self, X)
        schema = self.schema_
        scores = found.of_channels if by_channel else found.scores[:, None]
        if schema.layout == "array":
            whole = scores.reshape(len(panel.ids), -1, scores.shape[1])
            return whole if by_channel else whole[:, :, 0]
        schema = schema if by_channel else replace(schema, channels=schema.channels[:1])
        return in_library_of(schema.frame(panel, schema.stamps(panel), {"score": scores}), X)

    def detect(self, X: Any, alpha: float = 0.01) -> Detection:
        """Find odd stamps of series, tell what was expected of them, and join them to events.

        Parameters
        ----------
        X : as for `anomaly_score`. alpha : share of the stamps of usual series to flag, in (0, 1).

        Returns
        -------
        Detection(points, events). The p-value of a stamp is that of its windows or that of its oddest cell, the less of
        both, times two: the share of the steps of fit that are as odd, to clusters and a Gaussian that did not learn
        from them, and of a channel's cells that lie as far off what was expected; beyond the last tenth that of an
        exponential tail, so that odd steps of fit do not hide each other while they are few: long ones that stand out,
        up to some 7 % of a series, or fewer where steps follow each other closely. Of four cycles or more of a season,
        stretches far from the medians of their phases say nothing of what is usual or expected. All are 1, with a
        warning, where fit saw too few steps to tell. Windows that hold an odd stamp make its neighbours odd, too: an
        event is a run of stamps with p-values of at most `alpha`, cut to what is at least half as odd as its peak, and
        what else is odd within a window of it is taken for its doing, unless the stamp's own cell is odd, too, once the
        event is not believed. The stamps of events are flagged. `lower` and `upper` hold 1 - `alpha` of usual cells.
        Switches, as in `anomaly_score`, make none odd. Cells that are what `future_cols` settle have no score.
        """
        hint = "Pass the share of usual steps to flag, for example 0.01."
        check_number("alpha", alpha, low=0, high=1, low_open=True, high_open=True, hint=hint)
        check_is_fitted(self)
        schema = self.schema_
        refuse_taken((schema.id_col, schema.time_col), POINTS)
        refuse_taken((schema.id_col,), EVENTS)
        (panel, values, believed, level, scale), found = judged(self, X)
        detector = self.detector_
        p_value = p_values(detector, found)
        times = np.array([tail.value(alpha) for tail in detector.of_cells])
        expected, half = found.expected * scale + level, times * found.deviation * scale
        floor = self.scales_.floor(panel)
        expected, lower, upper = (np.maximum(part, floor) for part in (expected, expected - half, expected + half))
        as_settled = np.isnan(values)  # what breaks a rule is judged, by what is expected without one
        expected, lower, upper = (
            np.where(as_settled, self.settled_.put_in(part, panel.future), part) for part in (expected, lower, upper)
        )
        odd = p_value <= alpha
        events, flag = joined_steps(panel, found, odd, np.zeros_like(odd), detector.window)
        if (odd & ~flag).any():
            unflagged = np.where(flag[:, None], np.nan, believed)
            ratios = detector.ratios(self.model_, values, unflagged, panel.lengths, odd)
            alone = odd & (2 * of_cells(detector, ratios) <= alpha)
            events, flag = joined_steps(panel, found, odd, alone, detector.window)
        events = blamed(detector, self.model_, values, believed, panel.lengths, found.ratios, events)
        of_stamp = {"score": found.scores, "p_value": p_value, "flag": flag}
        points = schema.frame(
            panel,
            schema.stamps(panel),
            {"value": panel.values, "expected": expected, "lower": lower, "upper": upper}
            | {name: np.repeat(column[:, None], panel.values.shape[1], axis=1) for name, column in of_stamp.items()},
        )
        return Detection(points, event_table(schema, panel, events))


def p_values(detector: SeriesDetector, found: Judged) -> Matrix:
    """P-value of every stamp (T,): of its windows and its oddest judged cell, by Bonferroni; NaN without any."""
    of_windows = detector.of_scores.share(torch.from_numpy(found.scores)).numpy()
    either = 2 * np.minimum(of_windows, of_cells(detector, found.ratios))
    if detector.is_learnt:
        return np.minimum(either, 1)
    warn(
        "Fit saw too few steps to tell what is usual: all p-values are 1, and no stamp is flagged. Fit longer series, "
        "or more of them."
    )
    return np.where(np.isnan(either), np.nan, 1.0)


def of_cells(detector: SeriesDetector, ratios: Matrix) -> Matrix:
    """P-value of the oddest judged cell of every stamp (T,); 1 or more without any."""
    cells = torch.stack(
        [tail.share(torch.from_numpy(ratio)) for tail, ratio in zip(detector.of_cells, ratios.T, strict=True)], 1
    )
    return (cells.nan_to_num(nan=1.0).amin(1) * len(detector.measured)).numpy()


def joined_steps(
    panel: Panel, found: Judged, odd: NDArray[np.bool_], alone: NDArray[np.bool_], window: int
) -> tuple[list[Event], NDArray[np.bool_]]:
    """Events in steps of the panel (T,), series after series, and whether each step is odd and in one."""
    ratios, scores = found.ratios, np.nan_to_num(found.scores)
    flag, events = np.zeros(len(odd), dtype=bool), []
    for begin, end in pairwise(panel.offsets.tolist()):
        own = slice(begin, end)
        for event in events_of(odd[own], scores[own], ratios[own], window, alone[own]):
            flag[own][event.start : event.end + 1] = odd[own][event.start : event.end + 1]
            events.append(event.moved(begin))
    return events, flag


def blamed(
    detector: SeriesDetector,
    model: SeriesAutoencoder,
    values: Matrix,
    believed: Matrix,
    lengths: tuple[int, ...],
    ratios: Matrix,
    events: list[Event],
) -> list[Event]:
    """The events, of whose channels those are left that are as far off where nothing is expected from the first.

    The first is that without which the others are least far off, of the `SUSPECTS` that are farthest: what is expected
    of a channel is off, too, where the channel that tells it is.

    Parameters
    ----------
    values, believed : (T, C), as for `SeriesDetector.judge`. ratios : (T, C), its answer.
    """
    found, least = list(events), np.full(len(events), np.inf)
    for rank in range(SUSPECTS):
        places = [place for place, event in enumerate(events) if 1 < len(event.channels) > rank]
        if not places:
            break
        steps, without = np.zeros(len(values), dtype=bool), believed.copy()
        for event in (events[place] for place in places):
            steps[event.start : event.end + 1] = True
            without[event.start : event.end + 1, event.channels[rank]] = np.nan
        left = np.fmin(ratios, detector.ratios(model, values, without, lengths, steps))
        for place in places:
            event, suspect = events[place], events[place].channels[rank]
            own = slice(event.start, event.end + 1)
            distance = np.nan_to_num(left[own], nan=-1.0)
            others = float(np.delete(distance, suspect, axis=1).max())
            if others < least[place]:
                least[place] = others
                distance[:, suspect] = np.nan_to_num(ratios[own, suspect], nan=-1.0)
                channels = [c for c in farthest_channels(distance) if c != suspect]
                found[place] = event._replace(channels=[suspect, *channels])
    return found


def event_table(schema: SeriesSchema, panel: Panel, events: list[Event]) -> pd.DataFrame:
    """A row an event."""
    stamps = schema.stamps(panel)
    owner = np.searchsorted(panel.offsets, [event.start for event in events], side="right") - 1
    # Columns have their types where there is no event, too.
    whole = stamps[0].append(stamps[1:])
    ids = {} if schema.id_col is None else {schema.id_col: schema.ids(panel).take(owner)}
    places = {
        name: whole.take(np.array([getattr(event, name) for event in events], dtype=np.int64))
        for name in ("start", "end", "peak")
    }
    scored = {"peak_score": np.array([event.peak_score for event in events], dtype=np.float64)}
    channels = pd.Series([[schema.channels[c] for c in event.channels] for event in events], dtype=object)
    return pd.DataFrame({**ids, **places, **scored, "channels": channels})
