"""Series that the tests of `TimeSeriesMAE` draw, in frames and arrays."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SEASON = 12
SCALES, LEVELS = (1.0, 1000.0), (0.0, 50_000.0)
"""Of the first and the second series of `seasonal`: they differ by far in both."""


def seasonal(n_steps: int = 240, n_series: int = 2, noise: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Draw hourly series of half a day's season and a whole day's, every second one in thousands about 50,000."""
    rng = np.random.default_rng(seed)
    step = 2 * np.pi * np.arange(n_steps)
    frames = []
    for i in range(n_series):
        wave = np.sin(step / SEASON + i) + 0.5 * np.cos(step / (2 * SEASON) + 2 * i)
        values = SCALES[i % 2] * (wave + noise * rng.normal(size=n_steps)) + LEVELS[i % 2]
        stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h")
        frames.append(pd.DataFrame({"unique_id": f"s{i}", "ds": stamps, "y": values}))
    return pd.concat(frames, ignore_index=True)


def wide(n_steps: int = 240, n_channels: int = 3, seed: int = 0) -> pd.DataFrame:
    """Draw hourly channels that follow one season and one slow walk, each in a unit of its own."""
    rng = np.random.default_rng(seed)
    step = np.arange(n_steps)
    shared = np.sin(2 * np.pi * step / SEASON) + 0.1 * np.cumsum(rng.normal(size=n_steps))
    channels = np.arange(n_channels)
    noise = 0.2 * rng.normal(size=(n_steps, n_channels))
    values = 10.0**channels * (shared[:, None] + noise) + 100 * channels
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h", name="when")
    return pd.DataFrame(values, index=stamps, columns=[f"c{channel}" for channel in channels])


def waves(n_series: int = 3, n_steps: int = 120, n_channels: int = 2, seed: int = 0) -> NDArray[np.float64]:
    """Draw series (n, T, C) of a season whose phase is that of the series."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, size=(n_series, 1, n_channels))
    step = np.arange(n_steps)[None, :, None]
    noise = 0.1 * rng.normal(size=(n_series, n_steps, n_channels))
    wave: NDArray[np.float64] = 5 + 2 * np.sin(2 * np.pi * step / SEASON + phase) + noise
    return wave


def with_runs(values: NDArray[np.float64], length: int = 6, every: int = 20, first: int = 15) -> NDArray[np.float64]:
    """Blank a run of steps (T, ...) every so many, and a few single ones between them."""
    step = np.arange(len(values)) - first
    hidden = ((step % every < length) | (step % (2 * every) == length + 4)) & (step >= 0) & (step < len(values) - 25)
    blanked: NDArray[np.float64] = np.where(hidden.reshape(-1, *[1] * (values.ndim - 1)), np.nan, values)
    return blanked


def frame_with_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Blank runs of every series of a long frame."""
    return frame.assign(y=frame.groupby("unique_id")["y"].transform(lambda y: with_runs(y.to_numpy())))


def rooted(errors: NDArray[np.float64] | pd.Series) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(errors))))
