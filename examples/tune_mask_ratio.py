"""Tune the share of cells to hide while training, with a plain Optuna study."""

import optuna
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from tabmae import TabMAE, ampute


def main() -> None:
    wine = load_wine(as_frame=True)
    table = wine.data.assign(cultivar=wine.target_names[wine.target])
    table, _ = ampute(table, fraction=0.2, random_state=0)
    train, validation = train_test_split(table, random_state=0)

    def objective(trial: optuna.Trial) -> float:
        mask_ratio = trial.suggest_float("mask_ratio", 0.05, 0.95)
        model = TabMAE(mask_ratio=mask_ratio, max_epochs=100, random_state=0).fit(train)
        return model.score(validation)  # minus the error on cells hidden here

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial({"mask_ratio": 0.5})
    study.optimize(objective, n_trials=6)

    for trial in study.trials:
        print(f"mask_ratio {trial.params['mask_ratio']:.2f}   score {trial.value:.3f}")
    print(f"Best: {study.best_params['mask_ratio']:.2f}, score {study.best_value:.3f}")


if __name__ == "__main__":
    main()
