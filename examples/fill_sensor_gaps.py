"""Fill the gaps of three sensors: single readings, outages of one of them for half a day, and of all of them.

`quality_` says before anything is filled how far that will be right; the intervals say it for every reading.
"""

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE

N_HOURS = 24 * 28


def read_sensors() -> pd.DataFrame:
    """Draw hourly temperatures of a roof, a room and a cellar, which follow the weather each in its own way."""
    rng = np.random.default_rng(0)
    hour, weather = np.arange(N_HOURS), np.zeros(N_HOURS)
    for t in range(1, N_HOURS):
        weather[t] = 0.98 * weather[t - 1] + 0.6 * rng.normal()
    day = 5 * np.sin(2 * np.pi * (hour - 9) / 24)
    slow = np.convolve(weather + day, np.ones(12) / 12)[:N_HOURS]
    columns = {"roof": 12 + weather + day, "room": 18 + 0.5 * slow, "cellar": 11 + 0.15 * slow}
    stamps = pd.date_range("2024-04-01", periods=N_HOURS, freq="h")
    return pd.DataFrame(columns, index=stamps) + 0.1 * rng.normal(size=(N_HOURS, 3))


def with_outages(sensors: pd.DataFrame) -> pd.DataFrame:
    """Lose a tenth of the readings; each week half a day of each sensor, every second one half a day of all."""
    rng = np.random.default_rng(1)
    lost = rng.random(sensors.shape) < 0.1
    for week in range(N_HOURS // 168):
        for column in range(3):
            start = 168 * week + 40 * column + rng.integers(24)
            lost[start : start + 12, column] = True
        lost[168 * week + 140 : 168 * week + 140 + 12 * (week % 2)] = True
    return sensors.mask(lost)


def main() -> None:
    complete = read_sensors()
    sensors = with_outages(complete)
    lost = sensors.isna()
    model = TimeSeriesMAE(max_epochs=3, random_state=0).fit(sensors)  # the default trains longer

    print("On readings held out while fitting, in standard deviations (baseline: linear interpolation):")
    print(model.quality_[model.quality_["task"] == "impute"].drop(columns="task").round(3).to_string(index=False))

    line = sensors.interpolate(limit_direction="both")
    print(f"\nRoot mean squared error of the {int(lost.sum().sum())} lost readings, degrees:")
    for name, filled in {"linear interpolation": line, "TimeSeriesMAE": model.impute(sensors)}.items():
        errors = ((filled - complete)[lost] ** 2).mean() ** 0.5
        print(f"{name:22s}" + "".join(f"{column:>9s} {error:.2f}" for column, error in errors.items()))
    lower, upper = model.predict_interval(sensors, level=0.9)
    held = ((complete >= lower) & (complete <= upper)).to_numpy()[lost].mean()
    print(f"\nThe 90% intervals held {held:.0%} of them.")


if __name__ == "__main__":
    main()
