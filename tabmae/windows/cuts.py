"""Windows of a few steps each that cover all series, and the way back from windows to steps.

Contract: a window lies within one series; every step is in at least one window.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def window_starts(lengths: Sequence[int] | NDArray[np.int64], window: int, stride: int) -> NDArray[np.int64]:
    """Where windows start in the steps of all series, one after the other.

    Windows are `stride` steps apart, and the last one of a series ends at its end. A series shorter than `window` has
    one, which starts at its begin; the caller pads it.

    >>> window_starts([7, 2], window=3, stride=3)
    array([0, 3, 4, 7])
    """
    length = np.asarray(lengths, dtype=np.int64)
    begins = np.cumsum(length) - length
    last = np.maximum(length - window, 0)
    counts = -(-last // stride) + 1
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(begins, counts) + np.minimum(number * stride, np.repeat(last, counts))


def join_windows(
    pieces: NDArray[np.float64],
    starts: NDArray[np.int64],
    lengths: Sequence[int] | NDArray[np.int64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Average overlapping windows (n, W, C), weighed by place (W,), into the steps of all series, (sum of lengths, C).

    A window that reaches beyond the end of its series is cut there; a step without any window is NaN.
    """
    length = np.asarray(lengths, dtype=np.int64)
    ends = np.cumsum(length)
    n_windows, window, n_channels = pieces.shape
    steps = starts[:, None] + np.arange(window)
    inside = steps < ends[np.searchsorted(ends, starts, side="right")][:, None]
    where = steps[inside]
    each = np.broadcast_to(weight, (n_windows, window))[inside]
    total = int(ends[-1])
    weights = np.bincount(where, each, minlength=total)
    sums = np.stack(
        [np.bincount(where, each * pieces[inside][:, c], minlength=total) for c in range(n_channels)], axis=1
    )
    return np.divide(sums, weights[:, None], out=np.full(sums.shape, np.nan), where=weights[:, None] > 0)
