"""Which rows of fit are taken to be normal, and which of these are held out.

Contract: chosen before anything is learnt; rows without an observed cell are left out.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor

LEAST_TRIMMED = 0.2
"""Share of the rows left out where some are outliers: outliers that are learnt hide themselves."""
N_TREES = 100
HELD_OUT = 0.2
LEAST_HELD_OUT = 39
MAX_HELD_OUT = 1_999


def least_odd_rows(values: Tensor, observed: Tensor, contamination: float, seed: int) -> Tensor:
    """Positions of the rows of values (n, F) to learn from: all, or without the worst by an isolation forest.

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
