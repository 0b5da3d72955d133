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
EQUAL = 1 - 1e-6
"""Of the highest score: scores of so much are the same but for rounding."""

GAP = 0.25
"""Of what two events make up: a gap between them that parts nothing."""


class Event(NamedTuple):
    """Steps of a series, the last one included; `channels` are positions, the farthest off first."""

    start: int
    end: int
    peak: int
    peak_score: float
    channels: list[int]

    def moved(self, n_steps: int) -> Event:
        """The event so many steps later."""
        return self._replace(start=self.start + n_steps, end=self.end + n_steps, peak=self.peak + n_steps)


def events_of(
    odd: NDArray[np.bool_], scores: Matrix, ratios: Matrix, window: int, alone: NDArray[np.bool_] | None = None
) -> list[Event]:
    """Join the odd steps (T,) of a series to events, in the order of time.

    Parameters
    ----------
    scores : (T,), 0 or more; of windows of so many steps as `window`. ratios : (T, C), how far off a cell lies; NaN
        where missing. alone : (T,), what is odd by its own cell; None for nothing.

    The oddest step is the first event, of equal ones the farthest off: the run about it of odd steps with scores at
    least half as high, cut to what lies between the first and the last that is at least half as far off as the
    farthest. Missing steps cut no run, where they are no more than a window. What is odd within a window of it may be
    so for its sake, unless it is odd alone; the oddest of the rest is the next event. Events of one channel with
    hardly a gap between them are one: what is stuck or drifts comes by what was expected on its way.
    """
    left, events = odd.copy(), []
    alone = np.zeros_like(odd) if alone is None else alone
    distance = np.nan_to_num(ratios, nan=-1.0)
    farthest = distance.max(1)
    missing = short_runs(farthest < 0, window)
    while left.any():
        highest = scores[left].max()
        top = int(np.argmax(np.where(left & (scores >= EQUAL * highest), farthest, -2)))
        begin, end = run_about(left & (scores >= HALF * highest) | missing, top)
        far = farthest[begin:end]
        first, last = (begin + int(place) for place in np.flatnonzero(far >= HALF * far.max())[[0, -1]])
        channels = farthest_channels(distance[first : last + 1])
        events.append(Event(first, last, begin + int(far.argmax()), float(highest), channels))
        near = slice(max(0, min(begin, first - window)), max(end, last + window + 1))
        left[near] &= alone[near]
        left[first : last + 1] = False
    return joined(sorted(events), distance, window)


def farthest_channels(distance: Matrix) -> list[int]:
    """The channels of an event (T, C) that are at least half as far off as the farthest, this one first."""
    of_channel = distance.max(0)
    order = np.argsort(-of_channel, kind="stable")
    return [int(c) for c in order if of_channel[c] >= HALF * of_channel.max()]


def joined(events: list[Event], distance: Matrix, window: int) -> list[Event]:
    """Events in the order of time, those of a common channel joined whose gap is at most `GAP` of what they make up.

    What lies between them and is less odd belongs to them. No gap is longer than a window.
    """
    found: list[Event] = []
    for event in events:
        place = len(found) - 1
        while place >= 0 and event.start - found[place].end <= window:
            other = found[place]
            first, last = other.start, max(event.end, other.end)
            is_near = event.start - other.end - 1 <= GAP * (last - first + 1)
            if is_near and set(other.channels) & set(event.channels):
                oddest = max(other, event, key=lambda each: each.peak_score)
                channels = farthest_channels(distance[first : last + 1])
                event = oddest._replace(start=first, end=last, channels=channels)
                found[place:] = [each for each in found[place + 1 :] if each.peak_score > event.peak_score]
            place -= 1
        found.append(event)
    return sorted(found)


def run_about(chosen: NDArray[np.bool_], place: int) -> tuple[int, int]:
    """First step of the run of chosen ones that holds a place, and the one after its last."""
    others = np.flatnonzero(~chosen)
    after = int(np.searchsorted(others, place))
    return (int(others[after - 1]) + 1 if after else 0), (int(others[after]) if after < len(others) else len(chosen))


def short_runs(chosen: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """Those of the chosen steps (T,) that lie in runs of at most so many."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    found = np.zeros_like(chosen)
    for begin, end in edges.reshape(-1, 2):
        found[begin:end] = end - begin <= most
    return found
