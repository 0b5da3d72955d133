"""Rows of `quality_`: how far held-out cells were missed, and how far simple answers missed them.

Contract: a channel that nothing has judged has NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tabmae.estimators.series.fitting import Judgement
from tabmae.series_model import SeriesAutoencoder


def judged_quality(judgement: Judgement | None, channels: tuple[Any, ...], model: SeriesAutoencoder) -> pd.DataFrame:
    """Rows of `quality_` for the imputation: error and that of linear interpolation on held-out cells."""
    rows = []
    for c, name in enumerate(channels):
        if judgement is None:
            rows.append(("impute", name, np.nan, np.nan, 0))
            continue
        cells = judgement.hidden[:, :, c]
        target = judgement.values[:, :, c][cells]
        errors = [
            float((part[:, :, c][cells] - target).square().mean().sqrt()) for part in (judgement.mean, judgement.line)
        ]
        rows.append(("impute", name, *errors, int(cells.sum())))
    table = pd.DataFrame(rows, columns=["task", "channel", "error", "baseline_error", "n"])
    table["network"] = model.share.double().cpu().numpy()
    return with_skill(table)


def with_skill(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `skill`, the share of the baseline's error that is gone."""
    table = table.copy()
    table["n"] = table["n"].astype(int)
    table["skill"] = 1 - table["error"] / table["baseline_error"].where(table["baseline_error"] > 0)
    order = ["task", "channel", "n", "error", "baseline_error", "skill", "network"]
    return table.reindex(columns=order)
