"""Impute a table with numbers, categories, whole numbers and dates, and see which columns may be trusted."""

import pandas as pd

from tabmae import TabMAE
from tabmae.demo import read_penguins


def main() -> None:
    penguins = read_penguins()  # 344 penguins; measurements and sex are missing for some
    penguins["species"] = penguins["species"].astype("category")
    penguins["flipper_length_mm"] = penguins["flipper_length_mm"].astype("Int64")
    penguins["measured"] = pd.Timestamp("2008-11-01") + pd.to_timedelta(penguins.index % 30, unit="D")
    penguins.loc[::7, "measured"] = None

    model = TabMAE(random_state=0)
    complete = model.fit_transform(penguins)

    incomplete = penguins.isna().any(axis=1)
    print("Before:", penguins[incomplete].tail(4), sep="\n")
    print("\nAfter:", complete[incomplete].tail(4), sep="\n")
    print("\nMissing cells:", int(penguins.isna().sum().sum()), "->", int(complete.isna().sum().sum()))
    print("Same dtypes:", complete.dtypes.equals(penguins.dtypes))
    print("\nOn known cells held out while fitting (skill 0: no better than the mean or mode):")
    print(model.quality_.round(2))


if __name__ == "__main__":
    main()
