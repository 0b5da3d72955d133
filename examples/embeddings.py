"""Turn rows with holes into embeddings, and classify them by logistic regression.

To predict a label, imputed columns usually serve a linear model at least as well (pipeline_classifier.py); embeddings
are for what wants one vector a row whatever is missing: search, clustering, drawing.
"""

from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tabmae import TabMAEEncoder, ampute


def main() -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X, _ = ampute(X.iloc[:, :10], fraction=0.3, random_state=0)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, random_state=0, stratify=y)

    encoder = TabMAEEncoder(random_state=0).set_output(transform="pandas").fit(X_train)  # needs no labels
    embeddings = encoder.transform(X_test)
    print(f"{X_test.shape[1]} columns with 30% of the cells missing -> {embeddings.shape[1]} columns without holes:")
    print(embeddings.iloc[:3, :5].round(2))

    print("\nAccuracy of logistic regression by the number of labels (columns imputed by their mean; embeddings):")
    for n_labels in (20, 50, len(X_train)):
        scores = []
        for prepare in (SimpleImputer().fit(X_train), encoder):
            classify = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
            classify.fit(prepare.transform(X_train[:n_labels]), y_train[:n_labels])
            scores.append(classify.score(prepare.transform(X_test), y_test))
        print(f"{n_labels:3d} labels: {scores[0]:.3f}; {scores[1]:.3f}")


if __name__ == "__main__":
    main()
