"""Classify rows with holes from twenty labels, and compare with boosted trees that have the same labels."""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier

from tabmae import TabMAEClassifier, ampute

N_LABELS = 20


def main() -> None:
    complete = load_breast_cancer(as_frame=True)
    X, _ = ampute(complete.data.sample(frac=1, random_state=0), fraction=0.3, random_state=0)
    y = complete.target_names[complete.target.loc[X.index]]
    train, test = slice(0, 300), slice(300, None)

    labels = np.where(np.arange(300) < N_LABELS, y[train], None)  # rows without a label teach how columns depend
    classifier = TabMAEClassifier(max_epochs=100, random_state=0).fit(X[train], labels)
    boosting = HistGradientBoostingClassifier(random_state=0).fit(X[:N_LABELS], y[:N_LABELS])

    print(f"{N_LABELS} labels, 30 % of the cells missing; share of right answers on other rows")
    print(f"boosted trees {boosting.score(X[test], y[test]):.2f}")
    print(f"tabmae        {classifier.score(X[test], y[test]):.2f}")
    print(classifier.quality_.round(2))


if __name__ == "__main__":
    main()
