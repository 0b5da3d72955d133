"""The picture of a filled and forecast series on the README's page.

Contract: generated hourly temperatures with gaps, defaults of `TimeSeriesMAE`. Run it as
`python -m benchmarks.series_picture benchmarks/series.png`.
"""

import sys

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE, plot_series

N_HOURS = 1200


def temperatures(seed: int = 0) -> pd.DataFrame:
    """Generate two sensors that follow day, week and weather, one of them the other's echo, with gaps."""
    rng, hour = np.random.default_rng(seed), np.arange(N_HOURS)
    weather = np.cumsum(rng.normal(0, 0.15, N_HOURS))
    roof = 12 + 6 * np.sin(2 * np.pi * hour / 24) + 2 * np.sin(2 * np.pi * hour / 168) + weather
    frame = pd.DataFrame(
        {"roof": roof + rng.normal(0, 0.5, N_HOURS), "room": 19 + 0.25 * (roof - 12) + rng.normal(0, 0.3, N_HOURS)},
        index=pd.date_range("2024-01-01", periods=N_HOURS, freq="h"),
    )
    frame.iloc[1060:1090, 0] = frame.iloc[1130:1140, 0] = np.nan
    frame.iloc[1160:1164] = np.nan
    return frame


def main(path: str) -> None:
    frame = temperatures()
    model = TimeSeriesMAE(horizon=48, random_state=0).fit(frame)
    plot_series(model, frame, channel="roof").savefig(path, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1])
