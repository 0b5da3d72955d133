"""What is usual of the series of fit, and how odd the steps of others are.

Contract: a series' scores depend on that series and on what fit learnt alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.estimators.series.completing import Completed, complete
from tabmae.estimators.series.detecting.left_out import left_out
from tabmae.estimators.series.detecting.members import (
    OVERLAP,
    is_full,
    learnt_clusters,
    measured_channels,
    of_members,
    of_residuals,
    part_of,
    precisions_of,
    relearnt,
)
from tabmae.estimators.series.detecting.tails import Tail, added, evidence
from tabmae.estimators.series.phases import without_far
from tabmae.estimators.series.sizes import season_in
from tabmae.estimators.series.standard import Line, Matrix, laid_out
from tabmae.experts.clusters import Clusters
from tabmae.series_model import SeriesAutoencoder

USUAL_WINDOW = 100
"""Steps of a window that is judged: about so many, in whole seasons where there is one."""
LONGEST_SHARE = 10
"""Windows of the longest series: they are a tenth of it at most."""
LEAST_WINDOW = 4
N_FOLDS = 3
MAX_REFERENCE = 100_000
"""Cells of fit that say what is usual."""
BEYOND = 0.25
"""Share of a channel's cells that may lie outside the range of fit before its level is said to have moved."""
LEAST_STEPS = 1000
"""Steps of a series that are kept for that, where it has as many."""


class Judged(NamedTuple):
    """What is found of the steps of series, in the order of the panel.

    expected, deviation : (T, C), of every cell given its surroundings, in standard deviations of the channel.
    scores : (T,), nats of all members together; NaN where no measured channel is observed.
    of_members : (T, M), nats of each member; NaN where it has no say.
    of_channels : (T, C), nats of what the masked model alone makes of each channel; NaN where not observed.
    ratios : (T, C), how many of its deviations a cell lies off what was expected, signless; NaN where not observed, and
        where the channel is none of `measured`.
    """

    expected: Matrix
    deviation: Matrix
    scores: Matrix
    of_members: Matrix
    of_channels: Matrix
    ratios: Matrix


class Reference(NamedTuple):
    """Steps of the series of fit that say what is usual, kept for when a detector is asked for.

    values : float32 (sum of lengths, C), in standard deviations, NaN where missing; `MAX_REFERENCE` cells, where there
        are no more than that in `LEAST_STEPS`. seed : of the clusters. cycles : steps of what may repeat.
    experts_stay : the model's Gaussian did not learn from these series, and judges all folds itself.
    """

    values: NDArray[np.float32]
    lengths: tuple[int, ...]
    seed: int
    cycles: tuple[int, ...]
    experts_stay: bool

    @classmethod
    def of(
        cls,
        values: Matrix,
        lengths: tuple[int, ...],
        seed: int,
        cycles: tuple[int, ...] = (),
        *,
        experts_stay: bool = False,
    ) -> Self:
        """Copy from series (sum of lengths, C), in standard deviations, the last steps of some."""
        chosen, lengths = some_steps(values, lengths)
        return cls(chosen.astype(np.float32), lengths, seed, cycles, experts_stay)


class SeriesDetector:
    """What is usual of the series of fit, and how odd others are.

    Parameters
    ----------
    window : steps of the windows that are judged. measured : the channels whose cells and windows are; the others are
        seen by what expects them. clusters : of raw windows, and of shapes where there is a season.
    of_cells : usual ratios of each channel's cells. of_channels : usual residuals of each channel, over windows.
    of_members : usual values of the residuals of measured channels, of the Gaussian where there is one, and of each of
        the clusters. of_scores : usual sums of the members' evidence. ends : (2, C), lowest and highest value.
    is_learnt : every fold was judged by windows of the others; else nothing says how far usual steps lie off.

    What is usual of a step is told by a Gaussian and clusters that were fitted to the other folds.
    """

    def __init__(
        self,
        window: int,
        measured: Sequence[int],
        clusters: Sequence[Clusters],
        of_cells: Sequence[Tail],
        of_channels: Sequence[Tail],
        of_members: Sequence[Tail],
        of_scores: Tail,
        ends: Tensor,
        is_learnt: bool,
    ) -> None:
        self.window, self.measured, self.clusters = window, list(measured), list(clusters)
        self.of_cells, self.of_channels = list(of_cells), list(of_channels)
        self.of_members, self.of_scores, self.ends = list(of_members), of_scores, ends
        self.is_learnt = is_learnt

    @classmethod
    def fit(cls, model: SeriesAutoencoder, reference: Reference) -> Self:
        """Learn what is usual; the same bits whenever it is asked for."""
        values, lengths, seed, cycles, experts_stay = reference.values.astype(np.float64), *reference[1:]
        season = season_in(values, lengths, ())
        window = window_of_detection(season, max(lengths), model.window)
        line, told = (laid_out(part, lengths, model.window) for part in (values, without_far(values, lengths, cycles)))
        filled, measured = complete(model, line).mean, measured_channels(values, lengths)
        known = filled if torch.equal(told.observed, line.observed) else complete(model, told).mean
        judged, cells = part_of(line, measured), filled[:, measured]
        every, starts = line.covering(window, 1), line.covering(window, max(1, window // OVERLAP))
        kinds = (False, True) if season else (False,)
        fold = torch.full((len(line.values),), -1)
        seen = line.observed[line.place].any(1).cumsum(0)
        fold[line.place] = (seen - 1).clamp_min(0) * N_FOLDS // seen[-1]
        ratios, is_learnt = torch.full_like(line.values, torch.nan), True
        of_windows = torch.full((len(fold), bool(len(model.experts)) + len(kinds)), torch.nan, dtype=torch.float64)
        for number in range(N_FOLDS):
            before = torch.cat([torch.zeros(1, dtype=torch.long), (fold == number).long().cumsum(0)])
            touched = before[starts + window] > before[starts]
            others = every[before[every + window] == before[every]]
            is_learnt &= bool(is_full(judged, window, others).any())
            learnt = (fold >= 0) & (fold != number) if len(others) else fold >= 0
            others = others if len(others) else every
            judge, own = model if experts_stay else relearnt(model, known, learnt), fold == number
            ratios[own] = ratios_of(told, left_out(judge, told, own))[own]
            clusters = learnt_clusters(judged, cells, others, window, kinds, seed)
            precisions = precisions_of(judge, window, measured)
            of_windows[own] = of_members(judged, cells, window, starts[touched], precisions, clusters)[own]
        residual = of_residuals(told, ratios, window, measured)
        members = torch.cat([residual[:, :1], of_windows], 1)
        tails = [Tail.fit(column[line.place], wary=True) for column in members.T]
        return cls(
            window,
            measured,
            learnt_clusters(judged, cells, every, window, kinds, seed),
            [Tail.fit(column) for column in ratios.T],
            [Tail.fit(column[line.place], wary=True) for column in residual[:, 1:].T],
            tails,
            Tail.fit(added(evidence(tails, members))[line.place], wary=True),
            torch.from_numpy(np.stack([np.fmin.reduce(values), np.fmax.reduce(values)])),
            is_learnt,
        )

    def judge(self, model: SeriesAutoencoder, values: Matrix, believed: Matrix, lengths: tuple[int, ...]) -> Judged:
        """Judge the steps of series (sum of lengths, C), in standard deviations, NaN where missing.

        `believed` : the same without cells that nothing is to be told from; what is expected of all is told by these.
        """
        line, told = (laid_out(part, lengths, model.window) for part in (values, believed))
        completed, left = torch.where(line.observed, line.values, complete(model, told).mean), left_out(model, told)
        cells = completed[:, self.measured]
        ratios = ratios_of(line, left)
        residual = of_residuals(line, ratios, self.window, self.measured)
        starts = line.covering(self.window, max(1, self.window // OVERLAP))
        judged, precisions = part_of(line, self.measured), precisions_of(model, self.window, self.measured)
        of_windows = of_members(judged, cells, self.window, starts, precisions, self.clusters)
        members = evidence(self.of_members, torch.cat([residual[:, :1], of_windows], 1))
        channels = evidence(self.of_channels, residual[:, 1:])
        parts = (
            left.mean,
            left.deviation,
            torch.where(judged.observed.any(1), added(members), torch.nan),
            members,
            torch.where(line.observed, channels, torch.nan),
            self._measured_alone(ratios),
        )
        return Judged(*(part[line.place].double().numpy() for part in parts))

    def ratios(
        self,
        model: SeriesAutoencoder,
        values: Matrix,
        believed: Matrix,
        lengths: tuple[int, ...],
        chosen: NDArray[np.bool_],
    ) -> Matrix:
        """`Judged.ratios` of the chosen steps (T,) alone, NaN elsewhere; the rest as for `judge`."""
        line, told = (laid_out(part, lengths, model.window) for part in (values, believed))
        asked = torch.zeros(len(line.values), dtype=torch.bool)
        asked[line.place] = torch.from_numpy(chosen)
        ratios = self._measured_alone(ratios_of(line, left_out(model, told, asked)))
        return torch.where(asked[:, None], ratios, torch.nan)[line.place].double().numpy()

    def _measured_alone(self, cells: Tensor) -> Tensor:
        """Cells (N, C), NaN those of channels that are not measured."""
        switches = [channel for channel in range(cells.shape[1]) if channel not in self.measured]
        return cells.index_fill(1, torch.tensor(switches, dtype=torch.long), torch.nan)

    def beyond(self, values: Matrix) -> list[int]:
        """Channels of series (T, C) of whose observed cells more than `BEYOND` lie outside the range of fit."""
        low, high = self.ends.numpy()
        values = values.astype(np.float32)  # as the cells whose ends these are
        outside, known = ((values < low) | (values > high)).sum(0), np.isfinite(values).sum(0)
        return [channel for channel in self.measured if outside[channel] > BEYOND * known[channel]]

    @property
    def member_names(self) -> list[str]:
        """What the columns of `Judged.of_members` are."""
        windows = ["shapes" if clusters.shapes else "clusters" for clusters in self.clusters]
        gaussian = ["gaussian"] if len(self.of_members) > 1 + len(windows) else []
        return ["residual", *gaussian, *windows]

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Values for JSON, and tensors."""
        tails = {"cells": self.of_cells, "channels": self.of_channels, "members": self.of_members}
        tensors = {f"clusters.{k}": clusters.centres for k, clusters in enumerate(self.clusters)}
        for name, several in (*tails.items(), ("scores", [self.of_scores])):
            tensors[f"{name}.quantiles"] = torch.stack([tail.quantiles for tail in several])
            tensors[f"{name}.scale"] = torch.stack([tail.scale for tail in several])
        tensors["ends"] = self.ends
        shapes = [clusters.shapes for clusters in self.clusters]
        named = {"window": self.window, "measured": self.measured, "shapes": shapes, "is_learnt": self.is_learnt}
        return named, tensors

    @classmethod
    def restored(cls, state: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """A detector from what `state` gave."""
        clusters = [Clusters(len(state["measured"]), shapes=shapes) for shapes in state["shapes"]]
        for k, each in enumerate(clusters):
            each.centres = tensors[f"clusters.{k}"]
        cells, channels, members, (scores,) = (
            [Tail(*pair) for pair in zip(tensors[f"{name}.quantiles"], tensors[f"{name}.scale"], strict=True)]
            for name in ("cells", "channels", "members", "scores")
        )
        window, measured, is_learnt = state["window"], state["measured"], state["is_learnt"]
        return cls(window, measured, clusters, cells, channels, members, scores, tensors["ends"], is_learnt)


def some_steps(values: Matrix, lengths: tuple[int, ...]) -> tuple[Matrix, tuple[int, ...]]:
    """The last steps of some of the series, `MAX_REFERENCE` cells in all, where there are more."""
    most = MAX_REFERENCE // values.shape[1]
    each = np.minimum(lengths, max(most // len(lengths), LEAST_STEPS))
    every = max(1, -(-int(each.sum()) // max(most, LEAST_STEPS)))
    ends = np.cumsum(lengths)
    chosen = [slice(end - n, end) for end, n in zip(ends[::every], each[::every], strict=True)]
    return np.concatenate([values[part] for part in chosen]), tuple(int(n) for n in each[::every])


def ratios_of(line: Line, left: Completed) -> Tensor:
    """How many deviations every cell (N, C) lies off what was expected; NaN where not observed."""
    return torch.where(line.observed, (line.values - left.mean).abs() / left.deviation, torch.nan)


def window_of_detection(season: int, longest: int, most: int) -> int:
    """Steps of the windows that are judged."""
    wanted = season * max(1, round(USUAL_WINDOW / season)) if season else USUAL_WINDOW
    return min(most, max(LEAST_WINDOW, min(wanted, longest // LONGEST_SHARE)))
