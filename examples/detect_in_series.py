"""Find what is odd in machine readings: a spike, a sensor that stops following the other, a rhythm that slips.

Each value of the second half is one that the first half has seen; only where and beside what it stands is odd.
"""

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE, plot_detection

N_HOURS = 3000


def readings() -> pd.DataFrame:
    """Hourly temperature and pressure that follow a day's rhythm and a slow load, with gaps."""
    rng = np.random.default_rng(0)
    hour = np.arange(N_HOURS)
    load = np.convolve(rng.normal(size=N_HOURS + 47), np.ones(48) / 7, "valid")
    phase = np.where((hour >= 2700) & (hour < 2800), 6, 0)  # the rhythm slips by six hours
    temperature = 60 + 8 * np.sin(2 * np.pi * (hour + phase) / 24) + 3 * load + 0.8 * rng.normal(size=N_HOURS)
    pressure = 5 + 0.5 * load + 0.1 * rng.normal(size=N_HOURS)
    pressure[2400:2440] = 10 - pressure[2400:2440]  # it mirrors the load instead of following it
    temperature[2150] += 14
    table = pd.DataFrame({"temperature": temperature, "pressure": pressure})
    table.index = pd.date_range("2024-01-01", periods=N_HOURS, freq="h", name="time")
    return table.mask(rng.random(table.shape) < 0.02)


def main() -> None:
    table = readings()
    model = TimeSeriesMAE(max_epochs=0, random_state=0).fit(table.iloc[:2000])
    detection = model.detect(table.iloc[2000:], alpha=0.01)
    print(detection.events.to_string(index=False, float_format="%.1f"))
    odd = detection.points[detection.points["flag"]]
    print(f"\n{len(odd) // 2} of {len(detection.points) // 2} hours are odd; what was expected of some of them:")
    columns = ["time", "channel", "value", "expected", "lower", "upper"]
    print(odd[columns].head(4).to_string(index=False, float_format="%.2f"))
    plot_detection(detection).savefig("detect_in_series.png", dpi=100)


if __name__ == "__main__":
    main()
