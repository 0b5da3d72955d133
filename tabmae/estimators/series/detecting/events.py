"""Odd stamps of series joined to events: from when to when, and in which channels.

Contract: an event begins and ends with odd stamps; those of a series depend on that series alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tabmae.estimators.series.standard import Matrix

HALF = 0.5
"""Of the score, and of the distance in deviations, at the peak of an event: its first and last stamp have as much."""


class Event(NamedTuple):
    """Steps of a series, the last one included; `channels` are positions, the farthest off first."""

    start: int
    end: int
    peak: int
    peak_score: float
    channels: list[int]


def events_of(odd: NDArray[np.bool_], scores: Matrix, ratios: Matrix, window: int) -> list[Event]:
    """Join the odd steps (T,) of a series to events, in the order of time.

    Parameters
    ----------
    scores : (T,), 0 or more; of windows of so many steps as `window`. ratios : (T, C), how far off a cell lies.

    The oddest step is the first event: the run about it of odd steps with scores at least half as high, cut to what
    lies between the first and the last that is at least half as far off as the farthest. What is odd within a window of
    it may be so for its sake; the oddest of the rest is the next event.
    """
    left, events = odd.copy(), []
    while left.any():
        top = int(np.argmax(np.where(left, scores, -1)))
        begin, end = run_about(left & (scores >= HALF * scores[top]), top)
        farthest = ratios[begin:end].max(1)
        first, last = (begin + int(place) for place in np.flatnonzero(farthest >= HALF * farthest.max())[[0, -1]])
        of_channel = ratios[first : last + 1].max(0)
        order = np.argsort(-of_channel, kind="stable")
        channels = [int(c) for c in order if of_channel[c] >= HALF * of_channel.max()]
        events.append(Event(first, last, begin + int(farthest.argmax()), float(scores[top]), channels))
        left[max(0, first - window) : last + window + 1] = False
        left[begin:end] = False
    return sorted(events)


def run_about(chosen: NDArray[np.bool_], place: int) -> tuple[int, int]:
    """First step of the run of chosen ones that holds a place, and the one after its last."""
    others = np.flatnonzero(~chosen)
    after = int(np.searchsorted(others, place))
    return (int(others[after - 1]) + 1 if after else 0), (int(others[after]) if after < len(others) else len(chosen))
