"""In which turn each missing cell of a row is drawn: by chance, but for columns that are asked of some rows alone.

Contract: a cell that a row need not have is drawn after those that must not take it for a cell that the row has.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tabmae.tokenizers import CellTokenizer

MAX_TURNS = 4
"""Cells of a row are drawn in up to this many turns, each given the turns before it."""
MAX_ROWS = 5_000
"""Rows by which it is seen where cells are missing."""
TOLD = 0.5
"""Correlation with a number, or with an indicator of a level, from which on it tells whether cells are observed: holes
at random reach it seldom, and questions that depend on another answer mostly pass it."""


def asked_of_some(tokenizer: CellTokenizer, values: Tensor, observed: Tensor) -> Tensor:
    """Which columns have their cells where another column tells, such as years of smoking; bool (F,).

    values : (n, F), observed : bool (n, F), of the rows of fit.
    """
    step = max(1, -(-len(values) // MAX_ROWS))
    values, observed = values[::step], observed[::step]
    cells, shown = tokenizer.expand(values, observed)
    present, known = observed.double(), shown.double()
    cells = torch.where(shown, cells, 0).double()
    # moments over the rows in which the column that may tell is known
    count = known.sum(0).clamp_min(1)
    share, mean = present.T @ known / count, cells.sum(0) / count
    apart = present.T @ cells / count - share * mean
    variances = share * (1 - share) * ((cells.square().sum(0) / count) - mean.square()).clamp_min(0)
    correlation = apart / variances.clamp_min(1e-12).sqrt()
    own = torch.arange(values.shape[1], device=values.device)[:, None] == tokenizer.expert_feature
    return (correlation.abs().masked_fill(own, 0) > TOLD).any(1).cpu()


def turns(missing: Tensor, last: Tensor, generator: torch.Generator) -> Tensor:
    """The turn in which each missing cell (n, F) is drawn, from 0 on; int64 (n, F), anything for other cells.

    last : bool (F,), columns that come after the others of a row.
    """
    keys = torch.rand(missing.shape, generator=generator) + last.to(torch.float32)
    order = torch.where(missing, keys, torch.inf).argsort(1).argsort(1)
    n_missing = missing.sum(1, keepdim=True)
    n_turns = min(MAX_TURNS, int(n_missing.max()))
    return order * n_turns // n_missing.clamp_min(1)
