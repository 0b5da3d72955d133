"""Stretches far from what their phases of a cycle usually are: an outage, a holiday of a series that repeats itself.

Contract: their cells count as missing where `detect` learns what is usual and what is expected of others; they are
judged like all others. Far cells that come alone do not count as missing: noise with long tails has such.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tabmae.estimators.series.standard import Matrix, each_series

LEAST_CYCLES = 4
"""Cycles whose median, phase by phase, an odd one does not move far."""
FENCE = 4.0
"""Deviations, by the median of the distances, beyond which a cell is far from its phase."""
LEAST_RUN = 3
"""Far cells one after another that are a stretch: of independent ones, one in some dozen far, hardly any are."""
MOST_FAR = 0.1
"""Share of a series that may be far; where more is, that is how the series is."""
NORMAL = 1.4826
"""Standard deviations of a normal in the median of its distances from the middle."""


def without_far(values: Matrix, lengths: tuple[int, ...], cycles: Sequence[int]) -> Matrix:
    """Series (sum of lengths, C), NaN where missing, whose far stretches are missing, too.

    `cycles` : steps that the series may repeat themselves after.
    """
    parts = [np.where(far_cells(part, cycles), np.nan, part) for part in each_series(values, lengths)]
    return np.concatenate(parts)


def far_cells(values: Matrix, cycles: Sequence[int]) -> NDArray[np.bool_]:
    """Which cells (T, C) of a series lie in runs far from the medians of their phases, in the cycle that fits best.

    >>> import numpy as np
    >>> wave = np.tile([0.0, 3.0, 1.0], 40)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(120, 1))
    >>> wave[50:53], wave[80] = wave[50:53] + 1, 9
    >>> np.flatnonzero(far_cells(wave, (3,))).tolist()
    [50, 51, 52]
    """
    best, far = np.full(values.shape[1], np.inf), np.zeros(values.shape, dtype=bool)
    for cycle in cycles:
        if not 1 < cycle <= len(values) // LEAST_CYCLES:
            continue
        distance = np.abs(values - phase_medians(values, cycle))
        known = np.isfinite(distance)
        width = np.array([np.median(d[k]) if k.any() else 0.0 for d, k in zip(distance.T, known.T, strict=True)])
        beyond = in_runs(known & (distance > FENCE * NORMAL * width))
        closer = (width > 0) & (width < best)
        few = beyond.sum(0) <= MOST_FAR * known.sum(0)
        best = np.where(closer, width, best)
        far = np.where(closer, beyond & few, far)
    return far


def phase_medians(values: Matrix, cycle: int) -> Matrix:
    """The median (T, C) of the observed cells of each cell's phase; NaN where fewer than `LEAST_CYCLES` are."""
    n_cycles = -(-len(values) // cycle)
    padded = np.full((n_cycles * cycle, values.shape[1]), np.nan)
    padded[: len(values)] = values
    folded = padded.reshape(n_cycles, cycle, -1)
    enough = np.isfinite(folded).sum(0) >= LEAST_CYCLES
    medians = np.full(enough.shape, np.nan)
    medians[enough] = np.nanmedian(folded[:, enough], axis=0)
    return np.tile(medians, (n_cycles, 1))[: len(values)]


def in_runs(chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of chosen cells (T, C) that follow each other in runs of at least `LEAST_RUN`."""
    if len(chosen) < LEAST_RUN:
        return np.zeros_like(chosen)
    begins: NDArray[np.bool_] = np.all(sliding_window_view(chosen, LEAST_RUN, axis=0), axis=-1)
    found = np.zeros_like(chosen)
    for step in range(LEAST_RUN):
        found[step : step + len(begins)] |= begins
    return found
