"""Find odd rows of a table with holes, and say which of their cells are odd.

In 40 patients one reading is replaced by another patient's: normal by itself, but not beside the other nine.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from tabmae import TabMAEDetector, ampute, plot_explanation


def main() -> None:
    readings = load_breast_cancer(as_frame=True).data.iloc[:, :10].sample(frac=1, random_state=0)
    readings, _ = ampute(readings, fraction=0.1, random_state=0)
    normal, new = readings.iloc[:350], readings.iloc[350:].copy()

    rng = np.random.default_rng(0)
    swapped = rng.choice(len(new), 40, replace=False)
    for row in swapped:
        column = rng.integers(new.shape[1])
        others = normal.iloc[:, column].dropna()
        is_far = (others - new.iloc[row, column]).abs() > others.std()
        new.iloc[row, column] = rng.choice(others[is_far]) if is_far.any() else others.max()

    detector = TabMAEDetector(max_epochs=100, random_state=0).fit(normal)  # normal rows, with holes
    is_swapped = np.isin(np.arange(len(new)), swapped)
    print(f"Area under the ROC curve: {roc_auc_score(is_swapped, detector.anomaly_score(new)):.2f}")
    flagged = detector.predict(new) == -1  # 5% of normal rows are
    shares = [flagged[chosen].mean() for chosen in (is_swapped, ~is_swapped)]
    print("Flagged: {:.0%} of the rows with a swapped cell, {:.0%} of the others".format(*shares))

    cells = detector.explain(new[flagged & is_swapped])
    worst = cells.loc[cells.groupby("row", sort=False)["contribution"].idxmax()]
    print("\nThe odd cell of some of them, and what the others let expect:")
    print(worst.sort_values("contribution", ascending=False).head(5).round(3).to_string(index=False))

    oddest = int(np.argmax(detector.anomaly_score(new) * is_swapped))
    plot_explanation(detector, new, oddest).savefig("find_odd_rows.png")


if __name__ == "__main__":
    main()
