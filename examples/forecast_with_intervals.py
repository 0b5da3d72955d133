"""Forecast two weeks of a power station's daily load, with intervals, and with a calendar that is known ahead.

The history has a hole and ends in another: gaps are filled before a forecast looks ahead.
"""

import numpy as np
import pandas as pd
from sklearn.base import clone

from tabmae import TimeSeriesMAE

HORIZON = 14


def read_load() -> pd.DataFrame:
    """Draw two years of daily load by weekday and weather; on holidays it falls by a quarter."""
    rng = np.random.default_rng(0)
    day = np.arange(2 * 365)
    weather = np.zeros(len(day))
    for t in range(1, len(day)):
        weather[t] = 0.8 * weather[t - 1] + rng.normal()
    holiday = (rng.random(len(day)) < 0.06).astype(float)
    holiday[-10:-6] = 1
    week = np.array([1.0, 1.05, 1.05, 1.04, 1.0, 0.85, 0.8])[day % 7]
    load = 500 * week * (1 - 0.25 * holiday) + 40 * np.cos(2 * np.pi * day / 365) + 8 * weather
    stamps = pd.date_range("2022-01-03", periods=len(day), freq="D")
    return pd.DataFrame({"ds": stamps, "load": load, "holiday": holiday})


def main() -> None:
    days = read_load()
    past, ahead = days[:-HORIZON].copy(), days[-HORIZON:]
    past.loc[past.index[[-30, -29, -28, -27, -1]], "load"] = None

    quick = TimeSeriesMAE(
        horizon=HORIZON, target_cols=["load"], max_epochs=3, random_state=0
    )  # the default trains longer
    blind = clone(quick).fit(past)
    model = quick.set_params(future_cols=["holiday"]).fit(past)
    forecast = model.forecast(X_future=ahead[["ds", "holiday"]])

    known = forecast.merge(ahead, on="ds")
    print(known[["ds", "load", "holiday", *forecast.columns[1:]]].to_string(index=False, float_format="{:.0f}".format))

    last_week = np.tile(days["load"].to_numpy()[-HORIZON - 7 : -HORIZON], 2)
    errors = {
        "the last week again": last_week,
        "without the holidays": blind.forecast()["TimeSeriesMAE"],
        "with the holidays": forecast["TimeSeriesMAE"],
    }
    print("\nMean absolute error:")
    for name, values in errors.items():
        print(f"{name:22s}{np.abs(np.asarray(values) - ahead['load'].to_numpy()).mean():7.1f}")


if __name__ == "__main__":
    main()
