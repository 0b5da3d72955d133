"""Would these forecasts have been right? Forecast from days gone by, and compare with what came.

Fit on the first weeks only: origins in steps that were learnt from would flatter the model.
"""

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE

HORIZON = 24


def read_traffic(n_days: int = 49) -> pd.DataFrame:
    """Draw hourly counts on two roads, busy twice a day and quieter at weekends."""
    rng = np.random.default_rng(0)
    hour = np.arange(24 * n_days)
    rush = np.exp(-(((hour % 24) - 8) ** 2) / 6) + np.exp(-(((hour % 24) - 17) ** 2) / 8)
    weekend = np.where(hour // 24 % 7 >= 5, 0.5, 1.0)
    frames = []
    for road, size in (("north", 900), ("south", 60)):
        state = np.zeros(len(hour))
        for t in range(1, len(hour)):
            state[t] = 0.95 * state[t - 1] + 0.06 * rng.normal()
        counts = rng.poisson(size * (0.1 + rush * weekend) * np.exp(state)).astype(float)
        stamps = pd.date_range("2024-01-01", periods=len(hour), freq="h")
        frames.append(pd.DataFrame({"unique_id": road, "ds": stamps, "y": counts}))
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    traffic = read_traffic()
    early = traffic[traffic["ds"] < "2024-02-05"]
    model = TimeSeriesMAE(horizon=HORIZON, max_epochs=2, random_state=0).fit(early)  # the default trains longer
    forecasts, metrics = model.backtest(traffic, n_windows=14, step=HORIZON)  # a day from each of two weeks' midnights

    print("By cutoff, the last hour known:")
    print(metrics.to_string(index=False, float_format="{:.2f}".format))

    before = traffic.assign(ds=traffic["ds"] + pd.Timedelta(7, "D")).rename(columns={"y": "last week"})
    both = forecasts.merge(before, on=["unique_id", "ds"])
    print("\nMean absolute error by road:")
    for road, rows in both.groupby("unique_id"):
        ours, naive = ((rows[name] - rows["y"]).abs().mean() for name in ("TimeSeriesMAE", "last week"))
        print(f"{road}: {ours:.1f}; the same hour a week before: {naive:.1f}")
    for level in (80, 95):
        print(f"The {level}% intervals held {metrics[f'coverage-{level}'].mean():.0%}.")


if __name__ == "__main__":
    main()
