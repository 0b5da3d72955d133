"""Estimate a regression from an incomplete table: several completed tables, pooled by Rubin's rules.

The spread between the tables carries what one completed table hides: that the missing values are not known. The last
line asks what would change if the missing values of a column were half a standard deviation higher than they look.
"""

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes

from tabmae import TabMAE, ampute, pool

PREDICTORS = ["bmi", "bp", "s5"]


def regress(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Give the least-squares coefficients of the predictors on the target, and their variances."""
    design = np.column_stack([np.ones(len(table)), table[PREDICTORS]])
    coefficients, residual, *_ = np.linalg.lstsq(design, table["target"].to_numpy(), rcond=None)
    variance = residual[0] / (len(table) - design.shape[1]) * np.linalg.inv(design.T @ design).diagonal()
    return coefficients[1:], variance[1:]


def pooled(tables: list[pd.DataFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Give the estimates pooled over completed tables, and their variances."""
    estimates, variances = zip(*map(regress, tables), strict=True)
    found = pool(estimates, variances, n_complete=len(tables[0]) - len(PREDICTORS) - 1)
    return found["estimate"].to_numpy(), found["standard_error"].to_numpy() ** 2


def main() -> None:
    complete = load_diabetes(as_frame=True, scaled=False).frame
    table, _ = ampute(complete, fraction=0.4, mechanism="mar", columns=PREDICTORS, random_state=0)
    quick = TabMAE(experts=("gaussian",), max_epochs=40, random_state=0)  # the default grows trees and trains longer
    model = quick.fit(table)

    results = {
        "complete data": regress(complete),
        "complete rows only": regress(table.dropna()),
        "imputed once": regress(model.transform(table)),
        "10 draws, pooled": pooled(model.sample(table, n_samples=10, random_state=0)),
        "if bmi were higher": pooled(model.sample(table, n_samples=10, random_state=0, delta={"bmi": 0.5})),
    }
    print(f"{len(table)} rows, {len(table.dropna())} of them complete. Coefficients and standard errors:")
    print(" " * 20 + "".join(f"{name:>18s}" for name in PREDICTORS))
    for name, (estimate, variance) in results.items():
        cells = (f"{b:9.2f} +- {se:5.2f}" for b, se in zip(estimate, np.sqrt(variance), strict=True))
        print(f"{name:20s}" + "".join(f"{cell:>18s}" for cell in cells))


if __name__ == "__main__":
    main()
