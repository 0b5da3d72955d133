"""Tune the share of cells to hide while training: trials on rows kept aside, and a fit to all rows."""

from optuna.distributions import FloatDistribution
from sklearn.datasets import load_wine

from tabmae import TabMAE, ampute, tune


def main() -> None:
    wine = load_wine(as_frame=True)
    table = wine.data.assign(cultivar=wine.target_names[wine.target])
    table, _ = ampute(table, fraction=0.2, random_state=0)

    # The pure masked autoencoder, which is what the mask ratio makes most of a difference to.
    model = TabMAE(experts=(), max_epochs=120, random_state=0)
    tuned = tune(model, table, n_trials=4, space={"mask_ratio": FloatDistribution(0.05, 0.95)}, random_state=0)

    for trial in tuned.study_.trials:  # the first is the model as it was passed
        print(f"{trial.params or 'as passed'!s:40} score {trial.value:.3f}")
    print("Best:", tuned.best_params_ or "as passed")
    complete = tuned.transform(table)
    print(f"Missing cells: {int(table.isna().sum().sum())} before, {int(complete.isna().sum().sum())} after")


if __name__ == "__main__":
    main()
