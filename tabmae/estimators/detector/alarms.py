"""From which anomaly score on a row is called an outlier, where the rows of fit are normal.

Contract: a row is an outlier where its p-value is at most `FALSE_ALARMS`.
"""

from __future__ import annotations

import math

from torch import Tensor

from tabmae.errors import warn

FALSE_ALARMS = 0.05
"""Share of normal rows that are called outliers."""
LEAST_ROWS = 38
"""Rows of fit, half of which are held out, with which a p-value can be as small."""


def alarm_threshold(held_out_scores: Tensor, n_rows: int) -> float:
    """Anomaly score above which a row is an outlier, by sorted scores of held-out rows; infinite where these are few.

    Parameters
    ----------
    n_rows : rows of fit, for the warning.
    """
    n_alarms = int(FALSE_ALARMS * (1 + len(held_out_scores)))
    if n_alarms:
        return float(held_out_scores[-n_alarms])
    warn(
        f"X must have at least {LEAST_ROWS} rows with an observed cell for a p-value to reach {FALSE_ALARMS:.0%}; "
        f"got {n_rows}, with which `predict` flags none. Pass more rows, or compare `anomaly_score`."
    )
    return math.inf
