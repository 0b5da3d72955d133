"""What "auto" means for series: windows, groups of channels, the network and its schedule, contexts and horizon.

Contract: every choice follows from what fit can see: lengths, channels and the natural season of the steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.signal import correlate
from scipy.spatial.distance import squareform

MAX_CELLS = 1008
"""Steps times channels of a window whose covariance is inverted whole."""
FEW_HOLES = 0.005
"""Share of steps with a missing cell from which on nearly each window is a pattern of its own."""
MOSTLY_MISSING = 0.6
MAX_CHANNELS = 42
"""Channels beyond which they are split into groups of like ones."""
GROUP = 12
SHORT_WINDOW, USUAL_WINDOW, LONGEST_WINDOW = 24, 96, 336
WINDOWS_IN_ALL = 8
"""Windows side by side that the observed steps must make up at least."""
CONTEXTS = (4, 14, 30)
"""Contexts of the linear forecasters, in seasons."""
PLAIN_CONTEXTS = (24, 96, 336)
"""Contexts in steps where there is no season."""
MAX_CONTEXT = 1440
LEAST_CONTEXT = 8
"""Steps of a context that is worth learning from few series."""
MANY = 10
"""Series that lend each other windows, so that a context may be longer."""
JUDGED_SHARE = 0.2
"""Share of every series whose steps choose and weigh the forecasters, and calibrate their intervals."""
LONGEST_CYCLE = 30
"""Seasons of a cycle that judges whole: a longer one goes by too slowly for a forecast to miss it."""
SEASONS_AHEAD = 2
PLAIN_HORIZON = 24
MAX_POOL_CELLS = 4_000_000
"""Cells of the windows that train the network: 16 MB, and ten times as much for the experts' guesses of a block."""
LEAST_PEAK = 0.3
"""Autocorrelation of a season that was found, not told."""
MOST_STEPS, LEAST_STEPS, FEWEST_STEPS = 384, 100, 10
"""Steps of training: for many windows, for few, and for any number of channels."""
MANY_CHANNELS = 40
"""Channels from which on fewer steps are trained the more there are."""
NEARLY = 0.8
"""Share of the highest peak from which on an earlier one is the season, and the highest a multiple of it."""
MAX_SEASON = 400


class Size(NamedTuple):
    """Network and schedule for series: what "auto" became."""

    window: int
    backbone: Any
    patch: int
    d_token: int
    depth: int
    dropout: float
    n_windows: int
    n_steps: int
    batch_size: int
    lr: float


def cells_of(values: NDArray[np.float64]) -> int:
    """Steps times channels that a window of series (N, C) may have: what is solved for it is the lesser side.

    Where holes are few, windows share their patterns; where most is missing, the visible side is small.
    """
    if not is_holed(values):
        return MAX_CELLS
    return 2 * MAX_CELLS if np.isnan(values).mean() > MOSTLY_MISSING else MAX_CELLS // 2


def is_holed(values: NDArray[np.float64]) -> bool:
    """Whether nearly every window of series (N, C) has a pattern of its own."""
    return bool(np.isnan(values).any(axis=1).mean() >= FEW_HOLES)


def window_of(lengths: tuple[int, ...], n_channels: int, season: int, cells: int) -> int:
    """Steps of a window: as many as its `cells` allow, some seasons, and often enough in the series."""
    n_together = n_channels if n_channels <= MAX_CHANNELS else GROUP
    bearable = max(SHORT_WINDOW, cells // n_together)
    wanted = max(USUAL_WINDOW, min(LONGEST_WINDOW, 4 * season))
    if n_together > cells // USUAL_WINDOW:
        wanted = USUAL_WINDOW // 2
    there = max(max(lengths) // WINDOWS_IN_ALL if len(lengths) < WINDOWS_IN_ALL else 0, int(np.median(lengths)))
    there = min(there, max(4, sum(lengths) // WINDOWS_IN_ALL))
    return max(2, min(bearable, wanted, there))


def groups_of(values: NDArray[np.float64]) -> list[list[int]]:
    """Channels in groups of like ones, by the correlation of (T, C), NaN where missing."""
    n_channels = values.shape[1]
    if n_channels <= MAX_CHANNELS:
        return [list(range(n_channels))]
    filled = np.nan_to_num(values)
    norm = np.sqrt((filled**2).sum(0)).clip(1e-9)
    distance = 1 - np.abs((filled.T @ filled) / np.outer(norm, norm))
    np.fill_diagonal(distance, 0)
    order = leaves_list(linkage(squareform((distance + distance.T) / 2, checks=False).clip(0), "average"))
    return [sorted(order[start : start + GROUP].tolist()) for start in range(0, n_channels, GROUP)]


def season_in(values: NDArray[np.float64], lengths: tuple[int, ...], natural: tuple[int, ...]) -> int:
    """Steps of the season: the shortest natural one that fits in twice, else the first strong peak of autocorrelation.

    Parameters
    ----------
    values : (sum of lengths, C) in standard deviations, NaN where missing. natural : known from the frequency.
    """
    longest = max(lengths)
    for season in natural:
        if 2 * season <= longest and season > 1:
            return season
    if natural:
        return 0
    begin = int(np.sum(lengths[: int(np.argmax(lengths))]))
    x = np.nan_to_num(values[begin : begin + longest])
    n_lags = min(MAX_SEASON, longest // 3)
    if n_lags < 4:
        return 0
    total = np.zeros(n_lags + 1)
    for channel in x.T[:20]:
        total += correlate(channel, channel, mode="full")[longest - 1 : longest + n_lags] / np.arange(
            longest, longest - n_lags - 1, -1
        )
    if total[0] <= 0:
        return 0
    share = total / total[0]
    inner = share[1:-1]
    peaks = 1 + np.flatnonzero((inner > share[:-2]) & (inner >= share[2:]) & (inner > LEAST_PEAK))
    seasons = [int(lag) for lag in peaks if lag > 2 and share[lag] > share[: lag + 1].min() + LEAST_PEAK]
    highest = max((float(share[lag]) for lag in seasons), default=0.0)
    found = next((lag for lag in seasons if share[lag] >= NEARLY * highest), 0)
    rise = share - np.minimum.accumulate(share)
    for lag in peaks:  # on a slow drift the first peak stands out less than a multiple of it, which may be a step off
        near = abs(round(found / lag) * lag - found) <= 1
        if 2 < lag < found and near and share[lag] >= NEARLY * share[found] and rise[lag] >= rise[found] / 2:
            return int(lag)
    return found


def horizon_of(lengths: tuple[int, ...], season: int) -> int:
    """Steps to forecast when none are asked for: two seasons, at most a quarter of a series."""
    wanted = SEASONS_AHEAD * season if season else PLAIN_HORIZON
    return max(1, min(wanted, int(np.median(lengths)) // 4))


def cycle_of(season: int, natural: tuple[int, ...], n_steps: int) -> int:
    """Steps of the longest cycle above the season that series of `n_steps` hold twice; 0 without one.

    >>> cycle_of(24, (24, 168), 336), cycle_of(24, (24, 168), 335), cycle_of(7, (7, 365), 2000)
    (168, 0, 0)
    """
    held = (cycle for cycle in natural if season < cycle <= LONGEST_CYCLE * season and 2 * cycle <= n_steps)
    return max(held, default=0)


def n_judged(n_steps: int, cycle: int, horizon: int) -> int:
    """Last steps of a series that judge forecasts: `JUDGED_SHARE`, and more where its cycle would not judge whole.

    A weekend ahead is then not as sure as five working days were. At most half of them judge: the rest teach.

    >>> n_judged(1000, 0, 48), n_judged(2000, 168, 48), n_judged(504, 168, 48), n_judged(340, 168, 48)
    (200, 400, 216, 170)
    """
    share = max(1, round(JUDGED_SHARE * n_steps))
    return max(share, min(cycle + horizon, n_steps // 2)) if 0 < 2 * cycle <= n_steps else share


def contexts_of(lengths: tuple[int, ...], horizon: int, season: int) -> tuple[int, ...]:
    """Contexts of the linear forecasters that leave windows to learn from and to judge by; none in short series."""
    length = int(np.median(lengths))
    most = min(MAX_CONTEXT, (length - 2 * horizon) // (3 if len(lengths) < MANY else 2))
    wanted = [season * times for times in CONTEXTS] if season else list(PLAIN_CONTEXTS)
    fitting = [context for context in wanted if context <= most]
    if len(fitting) < len(wanted) and most >= max(LEAST_CONTEXT if len(lengths) < MANY else 2, season):
        fitting.append(most)
    return tuple(sorted(set(fitting)))


def auto_size(window: int, n_channels: int, n_positions: int, *, holed: bool) -> Size:
    """Network and schedule by the number of windows that the series hold; what was tried is in the benchmarks."""
    share = min(1.0, (n_positions / 10_000) ** 0.5) * (0.5 if holed else 1)
    share *= min(1.0, (USUAL_WINDOW / window) ** 0.5)  # a step costs as much as its windows are long
    n_windows = int(min(4096, max(64, n_positions), max(64, MAX_POOL_CELLS // (window * n_channels))))
    d_token = 64 if n_channels <= 12 else 96
    # every group of channels has a Gaussian that each step asks
    n_steps = max(LEAST_STEPS, MOST_STEPS * share) * min(1.0, MANY_CHANNELS / n_channels)
    return Size(window, "conv", 1, d_token, 4, 0.0, n_windows, max(FEWEST_STEPS, round(n_steps)), 64, 3e-3)
