"""Slips: rare cells so far outside of their series that nothing is to be learnt or told from them.

Contract: a slip counts as missing wherever something is learnt, filled or forecast; it is kept where values are given
back, and judged where odd steps are looked for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tabmae.estimators.series.standard import Matrix
from tabmae.windows import Panel

FENCE = 10.0
"""Interquartile ranges of a series outside of its quartiles beyond which a cell may be a slip."""
RARE = 0.001
"""Share of a series' cells, and one in any case, that may be slips; more far cells are how the series is."""
LEAST_CELLS = 50
"""Observed cells from which on one of them may be a slip: of fewer it would be no rare one."""


def without_slips(panel: Panel) -> Panel:
    """The panel, slips missing: a value of -9999 for none, a digit too many, a spike of a sensor.

    >>> import pandas as pd
    >>> from tabmae.windows import SeriesSchema
    >>> frame = pd.DataFrame({"ds": range(60), "y": [*range(59), -9999.0]}).assign(unique_id="a")
    >>> schema = SeriesSchema.fit(frame)
    >>> without_slips(schema.read(frame)).values[-2:, 0].tolist()
    [58.0, nan]
    """
    values = panel.values
    slips = np.concatenate([_slips(panel.series(i)) for i in range(len(panel.ids))])
    return replace(panel, values=np.where(slips, np.nan, values)) if slips.any() else panel


def _slips(series: Matrix) -> np.ndarray:
    """Which cells (T, C) of a series are slips."""
    found = np.zeros(series.shape, dtype=bool)
    for channel, column in enumerate(series.T):
        known = np.sort(column[np.isfinite(column)])
        if len(known) < LEAST_CELLS:
            continue
        low, high = known[len(known) // 4], known[(3 * len(known)) // 4]
        width = FENCE * (high - low)
        far = (column < low - width) | (column > high + width)
        if width > 0 and far.sum() <= max(1, RARE * len(known)):
            found[:, channel] = far
    return found
