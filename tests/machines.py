"""A machine of three channels that the tests of odd stamps share, and quick models of it."""

from typing import Any

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE
from tabmae.estimators.series import Detection

N_FIT, N_STEPS = 1200, 2400
NAMES = ["load", "heat", "flow"]


def machine(seed: int = 0, n_steps: int = N_STEPS) -> pd.DataFrame:
    """Hourly channels: the second follows the first, in thousands; the third a rhythm of its own."""
    rng = np.random.default_rng(seed)
    load = np.zeros(n_steps)
    for step in range(1, n_steps):
        load[step] = 0.8 * load[step - 1] + 0.6 * rng.normal()
    noise = rng.normal(size=(2, n_steps))
    heat = 5000 + 1000 * (load + 0.2 * noise[0])
    flow = np.sin(2 * np.pi * np.arange(n_steps) / 24) + 0.1 * noise[1]
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h", name="when")
    return pd.DataFrame(dict(zip(NAMES, (load, heat, flow), strict=True)), index=stamps)


def fitted(table: Any, **parameters: Any) -> TimeSeriesMAE:
    quick: dict[str, Any] = {"max_epochs": 0, "window": 48, "horizon": 4, "experts": ("gaussian",), "random_state": 0}
    return TimeSeriesMAE(**quick | parameters).fit(table)


def later() -> pd.DataFrame:
    return machine().iloc[N_FIT:]


def only_event(detection: Detection, near: pd.Timestamp) -> pd.Series:
    """The event that holds a stamp; it is the oddest of all."""
    events = detection.events.sort_values("peak_score", ascending=False)
    first = events.iloc[0]
    assert first["start"] <= near <= first["end"]
    return first
