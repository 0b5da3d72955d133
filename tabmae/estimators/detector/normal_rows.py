"""Which rows of fit are taken to be normal, and which of these are held out.

Contract: chosen before any member learns; a row without an observed cell is none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor

from tabmae.estimators.detector.linear import CellGaussian
from tabmae.training import draw_seed

LEAST_TRIMMED = 0.2
"""Share of the rows left out where some are outliers: outliers that are learnt hide themselves."""
N_TREES = 100
GOING_TOGETHER = 0.95
"""Share of the least odd rows whose cells are taken to go together, and with them all rows whose cells do as well."""
MAX_ROWS = 5_000
"""Rows that say how cells go together."""
HELD_OUT = 0.2
LEAST_HELD_OUT = 39
MAX_HELD_OUT = 1_999


class NormalRows(NamedTuple):
    """Rows that are taken to be normal, bool (n,) each.

    Attributes
    ----------
    learnt, held_out : what cells go together is learnt from, and what is compared with; no row is both.
    near : rows that lie near others, which say how far apart rows are, and which of the above others are near to.
    """

    learnt: Tensor
    held_out: Tensor
    near: Tensor

    @classmethod
    def draw(
        cls,
        values: Tensor,
        observed: Tensor,
        contamination: float,
        n_levels: Sequence[int],
        generator: torch.Generator,
    ) -> Self:
        """Choose among rows (n, F) with an observed cell each.

        Parameters
        ----------
        contamination : share of outliers among the rows, 0 for none: then all are normal.
        n_levels : for each column 0 for a number, else the number of its levels.
        """
        least_odd = least_odd_rows(values, observed, contamination, draw_seed(generator))
        near, usual = torch.zeros(len(values), dtype=torch.bool), torch.ones(len(values), dtype=torch.bool)
        near[least_odd] = True
        if contamination:
            usual = go_together(values, observed, least_odd, n_levels)
        held_out = usual & draw_held_out_rows(len(values), generator)
        return cls(usual & ~held_out, held_out, near)


def go_together(values: Tensor, observed: Tensor, least_odd: Tensor, n_levels: Sequence[int]) -> Tensor:
    """Which rows of values (n, F) have cells that go together as those of most rows at the positions `least_odd`; bool.

    A row at an end of the data is one where a line through the others leads to it; a row with a cell of another row is
    none, however near it lies. Of a table too wide for a Gaussian, the least odd rows.
    """
    some = least_odd[:: max(1, -(-len(least_odd) // MAX_ROWS))]
    gaussian = CellGaussian.fit((values[some], observed[some]), n_levels)
    if gaussian is None:
        return torch.zeros(len(values), dtype=torch.bool).index_fill(0, least_odd, True)
    surprise = gaussian.surprise(values, observed).square().mean(1)
    usual = surprise[some].quantile(GOING_TOGETHER, interpolation="higher")
    return surprise <= usual


def least_odd_rows(values: Tensor, observed: Tensor, contamination: float, seed: int) -> Tensor:
    """Positions of the rows of values (n, F) that lie near others: all, or without the worst by an isolation forest.

    Parameters
    ----------
    contamination : share of outliers among the rows, 0 for none.

    Source: Liu et al. 2008.
    Differs: missing cells go where scikit-learn's random splits send them, and codes of levels by falling frequency
    are numbers, so that rare levels are split off first.
    """
    rows = torch.nonzero(observed.any(1))[:, 0]
    if not contamination:
        return rows
    cells = np.where(observed[rows].numpy(), values[rows].numpy(), np.nan)
    forest = IsolationForest(n_estimators=N_TREES, random_state=seed).fit(cells)
    score = torch.from_numpy(forest.score_samples(cells))
    n_kept = max(len(rows) // 2, round((1 - max(contamination, LEAST_TRIMMED)) * len(rows)))
    return rows[score.argsort(descending=True, stable=True)[:n_kept].sort().values]


def draw_held_out_rows(n_rows: int, generator: torch.Generator) -> Tensor:
    """Rows to hold out, bool (n,): about a fifth, from 39 to 1,999, and at most half of a small table.

    One less than a multiple of 100, or of 20 where a fifth is far from 99: a p-value is a multiple of one over one more
    than the held-out rows, and falls short of an alarm level between two of these.
    """
    most = n_rows // 2
    wanted = min(max(round(HELD_OUT * n_rows), LEAST_HELD_OUT), most, MAX_HELD_OUT)
    step = 100 if wanted >= 75 else 20
    n_steps = max(1, min(round((wanted + 1) / step), (most + 1) // step))
    n_held_out = min(step * n_steps - 1, most)
    held_out = torch.zeros(n_rows, dtype=torch.bool)
    held_out[torch.randperm(n_rows, generator=generator)[:n_held_out]] = True
    return held_out
