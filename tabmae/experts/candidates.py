"""Which remembered rows a row may be a copy of: the nearest of many, and those that have the same rare value.

Contract: what is left out of many is next to never one of the very nearest.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

N_CANDIDATES = 64
"""Remembered rows that a row may be a copy of, by a fast product; of these it is weighed exactly."""
HEAPS = 16
"""Heaps of remembered rows for each candidate, where they are many: one of each may be one."""
FEW_VALUES = 64
"""Values up to which those of a number lie so far apart that what is near is equal."""


class Ties(NamedTuple):
    """The remembered rows of a column by their values, where equal ones are told from near ones.

    rows, values : (n,) of the observed cells, by rising values.
    """

    rows: Tensor
    values: Tensor

    @classmethod
    def of(cls, values: Tensor, observed: Tensor) -> Self:
        """Of a column's cells (N,)."""
        rows = torch.nonzero(observed)[:, 0]
        order = values[rows].argsort(stable=True)
        return cls(rows[order], values[rows[order]])

    def counts(self, asked: Tensor) -> tuple[Tensor, Tensor]:
        """Where the rows of each asked value (B,) begin, and how many there are."""
        start = torch.searchsorted(self.values, asked.contiguous())
        return start, torch.searchsorted(self.values, asked.contiguous(), right=True) - start

    def frequency(self, asked: Tensor) -> Tensor:
        """Share of the cells that each asked value (B,) is."""
        return self.counts(asked)[1].clamp_min(1) / max(1, len(self.rows))

    def draw_near(self, distance: Tensor, asked: Tensor, told: Tensor, same: Tensor, anew: Tensor) -> None:
        """Take from the distances (B, N) what equal values tell that no more rows share than are candidates.

        asked : (B,). told : bool (B,), where equal values tell anything. same : (), how likely a cell is copied to the
        last digit, anew : (), how likely drawn anew.
        """
        start, count = self.counts(asked)
        count = torch.where(told & (count <= N_CANDIDATES), count, 0)
        nats = (same / self.frequency(asked) + anew).log()
        row = torch.repeat_interleave(torch.arange(len(asked), device=asked.device), count)
        within = torch.arange(len(row), device=asked.device) - (count.cumsum(0) - count)[row]
        distance[row, self.rows[start[row] + within]] -= nats[row].to(distance)


class Remembered(NamedTuple):
    """The remembered rows as they are compared: float32 (E, N) for a product; ties of some columns."""

    table: Tensor
    ties: dict[int, Ties]


def nearest(distance: Tensor, n_near: int) -> Tensor:
    """Positions (B, K) of the least distances (B, N), in no order; of many, the least of each of some heaps.

    What is left out is one of two that lie in the same heap, the lesser one: next to never one of the very first.
    """
    n_heaps, n_rows = HEAPS * n_near, distance.shape[1]
    if n_rows < 2 * n_heaps:
        return distance.topk(n_near, dim=1, largest=False, sorted=False).indices
    n_layers, n_more = divmod(n_rows, n_heaps)
    least = distance[:, : n_layers * n_heaps].unflatten(1, (n_layers, n_heaps)).amin(1)
    if n_more:
        least[:, :n_more] = torch.minimum(least[:, :n_more], distance[:, -n_more:])
    heap = least.topk(n_near, dim=1, largest=False, sorted=False).indices
    place = heap[:, None] + n_heaps * torch.arange(n_layers + 1, device=heap.device)[:, None]
    held = (
        distance.gather(1, place.clamp_max(n_rows - 1).flatten(1))
        .view_as(place)
        .masked_fill(place >= n_rows, torch.inf)
    )
    return place.gather(1, held.argmin(1, keepdim=True))[:, 0]


def likeliest(weight: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """The value (B,) of the likeliest of candidates (B, K), and how likely one that has it is copied."""
    value = cells.gather(1, weight.argmax(1, keepdim=True))
    return value[:, 0], (weight * (cells == value)).sum(1)


def repeats(known: Tensor) -> bool:
    """Whether a column's observed numbers (n,) are of so many values, and these so frequent, that equal is not near."""
    return FEW_VALUES < len(known.unique()) <= len(known) / 2


def spacing(known: Tensor) -> float:
    """Least distance of the few values of a column's observed numbers (n,), 0 of many."""
    values = known.unique()
    return float(values.diff().min()) if 1 < len(values) <= FEW_VALUES else 0.0
