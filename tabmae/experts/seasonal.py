"""What the level and the seasons of a whole series say of cells that lie far from any observed one.

Contract: a cell that is not observed has no influence on any output; a series' answer depends on that series and on
what fit learnt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

NEAREST = 2
"""Distance from observed cells beyond which something is said."""
WIDER, MUCH_WIDER, FAR = 2, 4, 4
"""How many times farther each class of distances reaches than it begins, up to so many windows away and beyond."""
N_ROUNDS = 4
"""Rounds that hide every stretch of a series once."""
LEAST_STRETCHES = 8
"""Stretches of a length that a series must hold for that length to be learnt."""
MAX_CELLS = 400_000
"""Cells that are learnt from, the last ones of the longest series; more where so many channels leave few windows."""
MAX_AT_ONCE = 2_000_000
"""Cells of the channels that are answered at once."""
NEAR_CYCLES = 3
"""Observed cells of the same phase on either side that make up the mean of the near cycles."""
SMOOTHED = 100
"""Part of a season over which the means of its phases are smoothed, to either side."""
RIDGE = 0.02
"""Pull of the shared weights to 0, in the weight of all cells: candidates are alike."""
SHRINKAGE = 0.1
"""Pull of a channel's own weights to the shared ones, in the weight of a mean channel's cells."""
GAIN, LEAST_CELLS = 0.98, 30
"""Share of the variance that must be missed at most for a channel's answer to be given, on so many cells at least."""
LEAST_WIDER = 1.5
"""How many times farther the last class must reach than it begins."""

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Prior(NamedTuple):
    """What is believed of cells (T, C) before their neighbours are looked at, in the unit of the values.

    variance : mean squared error of cells held out that lie as far from observed ones, drawn to 1 for cells farther
        than any of these and where the phase was hardly seen; infinite where nothing is said.
    """

    mean: Matrix
    variance: Matrix


class Seasonal:
    """Blends the line between the nearest observed cells, the level on both sides, and the means of the phase of each
    season, over all cycles and over the nearest ones.

    Parameters
    ----------
    seasons : in steps. level : observed cells on either side that make up the level.
    edges : (n + 1,), between the n classes of distances, see `distances`; cells beyond the last are in the last class.
    weights : (n, C, K), at least 0, of each candidate. variance : (n, C), squared error on cells held out.

    Source: non-negative stacking, Breiman 1996.
    """

    def __init__(self, seasons: Sequence[int], level: int, edges: Matrix, weights: Matrix, variance: Matrix) -> None:
        self.seasons, self.level = tuple(seasons), level
        self.edges, self.weights, self.variance = edges, weights, variance

    @classmethod
    def fit(cls, series: Sequence[Matrix], seasons: Sequence[int], window: int) -> Self:
        """Learn the weights from stretches of all lengths that are hidden.

        Parameters
        ----------
        series : (T, C) each, in standard deviations about the mean, NaN where missing.
        seasons : in steps; those without two cycles in the longest series are left out.
        window : steps that other experts see at once.
        """
        ordered = sorted(series, key=len, reverse=True)
        n_channels, longest = ordered[0].shape[1], len(ordered[0])
        seasons = [season for season in sorted(set(seasons)) if season > 1 and 2 * season <= longest]
        level = seasons[0] if seasons else max(1, window // 4)
        most = max(MAX_CELLS // n_channels, 4 * LEAST_STRETCHES * window)
        learnt: list[Matrix] = []
        n_learnt = 0
        for values in ordered:
            if n_learnt < most and len(values) >= LEAST_STRETCHES * window // 2:
                learnt.append(values[-most:])
                n_learnt += len(learnt[-1])
        model = cls(seasons, level, np.zeros(0), np.zeros((0, n_channels, 2 + 2 * len(seasons))), np.zeros((0, 0)))
        bounds = list(stretches(max(map(len, learnt), default=0), window))
        classes = [model._learn(learnt, *bound) for bound in bounds]
        if classes:
            model.edges = np.array([bounds[0][0], *(high for _, high, _ in bounds)], dtype=np.float64)
            model.weights, model.variance = (np.stack(part) for part in zip(*classes, strict=True))
        return model

    def prior(self, series: Sequence[Matrix]) -> Prior:
        """Answer for all cells of series (T, C), one below the other, NaN where missing."""
        if not len(self.edges):
            shape = sum(map(len, series)), series[0].shape[1]
            return Prior(np.zeros(shape), np.full(shape, np.inf))
        means, variances = [], []
        for values in series:
            mean, variance = np.zeros(values.shape), np.full(values.shape, np.inf)
            steps = distances(np.isfinite(values))
            if (steps > self.edges[0]).any():
                each = max(1, MAX_AT_ONCE // len(values))
                for begin in range(0, values.shape[1], each):
                    part = slice(begin, begin + each)
                    at = np.nonzero((steps[:, part] > self.edges[0]) & (steps[:, part] < np.inf))
                    away, channel = steps[:, part][at], at[1] + begin
                    number = np.searchsorted(self.edges[:-1], away, side="left") - 1
                    candidates, silent = self._candidates(values[:, part], at)
                    weights = self.weights[number, channel]
                    mean[:, part][at] = (candidates * weights).sum(1)
                    heard = 1 - (silent * weights).sum(1) / weights.sum(1).clip(1e-9)
                    heard *= np.minimum(1, self.edges[-1] / away)
                    told = self.variance[number, channel]
                    variance[:, part][at] = np.where(np.isfinite(told), told + (1 - heard) * (1 - told).clip(0), told)
            means.append(np.where(np.isfinite(variance), mean, 0))
            variances.append(variance)
        return Prior(np.concatenate(means), np.concatenate(variances))

    def _learn(self, series: Sequence[Matrix], low: int, high: int, length: int) -> tuple[Matrix, Matrix]:
        """Weights (C, K) and squared errors (C,) of cells that are `low` to `high` far from observed ones."""
        moments = [Moments.none(*self.weights.shape[1:]) for _ in range(2)]
        for values in series:
            seen = np.isfinite(values)
            stretch = np.arange(len(values)) // length
            for turn in range(N_ROUNDS):
                # each time another one of four: seasons may be as long as four of them
                hidden = (stretch + stretch // N_ROUNDS) % N_ROUNDS == turn
                left = np.where(hidden[:, None], np.nan, values)
                steps = distances(np.isfinite(left))
                at = np.nonzero(hidden[:, None] & seen & (steps > low) & (steps <= high))
                candidates, target = self._candidates(left, at)[0], values[at]
                half = stretch[at[0]] // N_ROUNDS % 2
                for side in range(2):
                    chosen = half == side
                    moments[side].add(candidates[chosen], target[chosen], at[1][chosen])
        first, second = moments
        count = np.maximum(first.n + second.n, 1)
        error = (first.missed(second.weights()) + second.missed(first.weights())) / count
        base = (first.square + second.square) / count
        both = Moments(*(a + b for a, b in zip(first, second, strict=True)))
        return both.weights(), np.where((error < GAIN * base) & (both.n >= LEAST_CELLS), error, np.inf)

    def _candidates(self, values: Matrix, at: tuple[NDArray[np.intp], ...]) -> tuple[Matrix, Matrix]:
        """What each candidate says of cells `at` (steps, channels), (n, K), and how little it heard, 1 for nothing."""
        steps = Cycles.of(values, 1)
        found = [steps.around(at, 1), steps.around(at, self.level)]
        for season in self.seasons:
            cycles = Cycles.of(values, season)
            found += [cycles.mean(at), cycles.around(at, NEAR_CYCLES)]
        said, silent = (np.stack(part, 1) for part in zip(*found, strict=True))
        return said, silent


class Moments(NamedTuple):
    """Products of candidates and targets, by channel: gram (C, K, K), cross (C, K), square (C,), n (C,)."""

    gram: Matrix
    cross: Matrix
    square: Matrix
    n: Matrix

    @classmethod
    def none(cls, n_channels: int, n_candidates: int) -> Self:
        shapes = (n_channels, n_candidates, n_candidates), (n_channels, n_candidates), (n_channels,), (n_channels,)
        return cls(*(np.zeros(shape) for shape in shapes))

    def add(self, candidates: Matrix, target: Matrix, channel: NDArray[np.intp]) -> None:
        order = np.argsort(channel, kind="stable")
        ends = np.cumsum(np.bincount(channel, minlength=len(self.n)))[:-1]
        for c, rows in enumerate(np.split(order, ends)):
            x, y = candidates[rows], target[rows]
            self.gram[c] += x.T @ x
            self.cross[c] += x.T @ y
            self.square[c] += y @ y
            self.n[c] += len(y)

    def weights(self) -> Matrix:
        """Non-negative weights (C, K) of each channel, shrunk to those of all."""
        n_channels, n_candidates = self.cross.shape
        gram = self.gram.sum(0)
        size = np.diag(np.diag(gram)) + 1e-9 * np.eye(n_candidates)
        shared = non_negative(gram + RIDGE * size, self.cross.sum(0))
        pull = SHRINKAGE / n_channels * size
        return np.stack(
            [non_negative(own + pull, cross + pull @ shared) for own, cross in zip(self.gram, self.cross, strict=True)]
        )

    def missed(self, weights: Matrix) -> Matrix:
        """Sum of the squared errors of weights, (C,)."""
        squares = np.einsum("ck,ckl,cl->c", weights, self.gram, weights)
        return np.maximum(self.square - 2 * (weights * self.cross).sum(1) + squares, 0)


class Cycles(NamedTuple):
    """Running sums over the observed cells of each phase of a season, for series (T, C) in n cycles.

    rank : (n, season, C), how many cells of the phase are observed up to this one. seen : whether this one is.
    totals, places : (n + 1, season, C), sums of the values, and of the cycles, of the first `i` observed cells.
    """

    rank: NDArray[np.int64]
    seen: Mask
    totals: Matrix
    places: Matrix

    @classmethod
    def of(cls, values: Matrix, season: int) -> Self:
        n_cycles = -(-len(values) // season)
        padded = np.full((n_cycles * season, values.shape[1]), np.nan)
        padded[: len(values)] = values
        folded = padded.reshape(n_cycles, season, -1)
        seen = np.isfinite(folded)
        rank = seen.cumsum(0)
        cycle = np.where(seen, np.arange(n_cycles)[:, None, None], 0)
        where = np.where(seen, rank, n_cycles + 1)  # what is not observed is written where nothing is read
        totals, places = (np.zeros((n_cycles + 2, *folded.shape[1:])) for _ in range(2))
        np.put_along_axis(totals, where, np.where(seen, folded, 0).cumsum(0), 0)
        np.put_along_axis(places, where, cycle.cumsum(0).astype(float), 0)
        return cls(rank, seen, totals[:-1], places[:-1])

    def around(self, at: tuple[NDArray[np.intp], ...], most: int) -> tuple[Matrix, Matrix]:
        """At cells (steps, channels): between the means of up to `most` observed cells of the phase on either side.

        Also 1 where there is none, else 0.
        """
        cycle, phase, channel = self._split(at)
        until = self.rank[cycle, phase, channel]
        before = until - self.seen[cycle, phase, channel]
        first, last = np.maximum(before - most, 0), np.minimum(until + most, self.rank[-1, phase, channel])
        n_before, n_after = before - first, last - until
        means = []
        for totals in (self.totals, self.places):
            for start, end in ((first, before), (until, last)):
                total = totals[end, phase, channel] - totals[start, phase, channel]
                means.append(total / np.maximum(end - start, 1))
        left, right, begin, end = means
        share = np.clip((cycle - begin) / np.maximum(end - begin, 1e-9), 0, 1)
        share = np.where((n_before > 0) & (n_after > 0), share, n_after > 0)
        return left * (1 - share) + right * share, (n_before + n_after == 0).astype(np.float64)

    def mean(self, at: tuple[NDArray[np.intp], ...]) -> tuple[Matrix, Matrix]:
        """At cells (steps, channels): the mean of the phase and those beside it, shrunk to 0 by one cell; its share."""
        _, phase, channel = self._split(at)
        count = self.rank[-1].astype(float)
        total = np.take_along_axis(self.totals, self.rank[-1:], 0)[0]
        half = len(count) // SMOOTHED
        total, count = (circular(part, half) for part in (total, count))
        return (total / (count + 1))[phase, channel], (1 / (count + 1))[phase, channel]

    def _split(self, at: tuple[NDArray[np.intp], ...]) -> tuple[NDArray[np.intp], ...]:
        step, channel = at
        cycle, phase = np.divmod(step, self.rank.shape[1])
        return cycle, phase, channel


def stretches(n_steps: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Classes of distances to learn: above, up to, and the length of the stretches that are hidden for it."""
    low = NEAREST
    while True:
        length = 2 * (WIDER if low < FAR * window else MUCH_WIDER) * low
        length = min(length, n_steps // LEAST_STRETCHES)
        if length // 2 < LEAST_WIDER * low:
            return
        yield low, length // 2, length
        low = length // 2


def distances(seen: Mask) -> Matrix:
    """How far cells (T, C) lie from the nearest observed ones of their channel: the harmonic mean over both sides.

    A cell with one side alone is twice as far; infinite where there is none.

    Source: the variance of a Brownian bridge goes with it.
    """
    step = np.arange(len(seen), dtype=np.float64)[:, None]
    before = step - np.maximum.accumulate(np.where(seen, step, -np.inf), 0)
    after = np.minimum.accumulate(np.where(seen, step, np.inf)[::-1], 0)[::-1] - step
    with np.errstate(divide="ignore"):
        apart: Matrix = 2 / (1 / before + 1 / after)
    return apart


def circular(values: Matrix, half: int) -> Matrix:
    """Sums (S, C) over `half` places to either side in a circle."""
    if not half:
        return values
    wrapped = np.concatenate([np.zeros_like(values[:1]), values[-half:], values, values[:half]]).cumsum(0)
    return wrapped[2 * half + 1 :] - wrapped[: -2 * half - 1]


def non_negative(gram: Matrix, cross: Matrix) -> Matrix:
    """The w >= 0 for which w' gram w - 2 w' cross is least; gram (K, K) positive definite.

    Source: by least squares with a Cholesky factor, Lawson & Hanson 1974.
    """
    factor = np.linalg.cholesky(gram)
    found: Matrix = nnls(factor.T, np.linalg.solve(factor, cross))[0]
    return found
