"""One model for the sales of sixty shops, small and large, some of them new: forecast, fill, compare, keep.

Every series is forecast in its own unit; what the shops have in common is learnt from all of them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE, load

N_SHOPS, N_WEEKS, HORIZON = 60, 110, 8


def read_sales() -> pd.DataFrame:
    """Draw weekly sales of shops at the coast, the first half, and in town, from tens to tens of thousands."""
    rng = np.random.default_rng(0)
    week = np.arange(N_WEEKS)
    frames = []
    for shop in range(N_SHOPS):
        peak = 26 if shop < N_SHOPS // 2 else 51
        sold = 0.5 + np.exp(2 * (np.cos(2 * np.pi * (week - peak) / 52) - 1))
        sold *= 10 ** rng.uniform(1, 4) * np.exp(0.1 * rng.normal(size=N_WEEKS))
        frames.append(pd.DataFrame({"unique_id": f"shop {shop}", "week": week, "sold": sold}))
    return pd.concat(frames, ignore_index=True)


def main() -> None:
    sales = read_sales()
    past = sales[sales["week"] < N_WEEKS - HORIZON]
    past = past[np.random.default_rng(1).random(len(past)) > 0.1]  # weeks that nobody wrote down
    is_new = past["unique_id"].isin([f"shop {shop}" for shop in range(25, 35)])
    model = TimeSeriesMAE(horizon=HORIZON, time_col="week", max_epochs=5, random_state=0)  # the default trains longer
    model.fit(past[~is_new])

    with TemporaryDirectory() as folder:
        model.save(Path(folder) / "shops")
        model = load(Path(folder) / "shops")

    found = model.forecast(past).merge(sales, on=["unique_id", "week"])
    of_shop = past.groupby("unique_id")["sold"].agg(["last", "mean"])
    found = found.join(of_shop, on="unique_id")
    found["new"] = found["unique_id"].isin(past.loc[is_new, "unique_id"])
    print("Mean absolute error in shares of a shop's mean; of the last week repeated:")
    for new, rows in found.groupby("new"):
        ours, naive = ((rows[name] - rows["sold"]).abs() / rows["mean"] for name in ("TimeSeriesMAE", "last"))
        print(f"{'new shops' if new else 'shops of fit':14s}{ours.mean():.3f}; {naive.mean():.3f}")

    embedded, at_coast = model.encode(past), np.arange(N_SHOPS) < N_SHOPS // 2
    distance = ((embedded[:, None] - embedded[None]) ** 2).sum(2) + np.diag(np.full(N_SHOPS, np.inf))
    same = at_coast[distance.argmin(1)] == at_coast
    print(f"\nFor {same.mean():.0%} of the shops the nearest embedding is that of a shop of the same kind.")


if __name__ == "__main__":
    main()
