"""Impute inside a scikit-learn pipeline: each fold of the cross-validation learns from its own training rows only."""

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabmae import TabMAE, ampute


def main() -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, hidden = ampute(X.iloc[:, :10], fraction=0.5, random_state=0)
    print(f"{hidden.mean():.0%} of {X.shape[0]} x {X.shape[1]} cells are missing. AUROC, three folds:")

    impute = TabMAE(experts=("gaussian",), max_epochs=20, random_state=0)  # the default grows trees and trains longer
    boosting = HistGradientBoostingClassifier(random_state=0)
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    pipelines = {
        "boosting, NaN left in": boosting,
        "TabMAE and boosting": make_pipeline(impute, boosting),
        "mean and logistic regression": make_pipeline(SimpleImputer(), logistic),
        "TabMAE and logistic regression": make_pipeline(impute, logistic),
    }
    for name, pipeline in pipelines.items():
        scores = cross_val_score(pipeline, X, y, cv=3, scoring="roc_auc")
        print(f"{name:32s} {scores.mean():.3f} +- {scores.std():.3f}")


if __name__ == "__main__":
    main()
