"""Impute a real incomplete table and show how well: `python -m tabmae.demo [PICTURE]`.

The table is the Palmer penguins as scikit-learn carries them; a third of its known cells is hidden and imputed with
the defaults. Prints a line per column and the time, and writes one picture.
"""

import gzip
import io
import sys
import time
from importlib import resources

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tabmae.estimators.table import TabMAE
from tabmae.metrics import accuracy, rmse
from tabmae.missingness import ampute

FRACTION = 0.3
COLOURS = {"Adelie": "#E69F00", "Chinstrap": "#CC79A7", "Gentoo": "#0072B2"}


def read_penguins() -> pd.DataFrame:
    """Read the 344 penguins, three of the seven columns categories, with the holes of the original.

    Source: Gorman, Williams and Fraser 2014, PLoS ONE 9(3), e90081; OpenML 42585.
    Differs: the sex written as "_" is missing.
    """
    name = "datasets/tests/data/openml/id_42585/data-v1-dl-21854866.arff.gz"
    text = gzip.decompress(resources.files("sklearn").joinpath(name).read_bytes()).decode()
    header, _, rows = text.partition("@DATA\n")
    names = [line.split()[1] for line in header.splitlines() if line.startswith("@ATTRIBUTE")]
    return pd.read_csv(io.StringIO(rows), names=names, na_values=["?", "_"])


def score(table: pd.DataFrame, incomplete: pd.DataFrame, imputed: pd.DataFrame, hidden: np.ndarray) -> pd.DataFrame:
    """Score each column on its hidden cells against the mean or mode of its known ones.

    Errors are root mean squared errors in the column's unit, or shares of wrong levels; skill is the share of the
    baseline's error that is gone.
    """
    lines = []
    for name, chosen in zip(table, hidden.T, strict=True):
        target, predicted, known = table[name][chosen], imputed[name][chosen], incomplete[name]
        if pd.api.types.is_numeric_dtype(known):
            error, baseline = (rmse(target, guess) for guess in (predicted, np.full(len(target), known.mean())))
        else:
            mode = np.full(len(target), known.mode()[0], dtype=object)
            error, baseline = (1 - accuracy(target, guess) for guess in (predicted, mode))
        lines.append({"column": name, "n": len(target), "error": error, "mean or mode": baseline})
    scores = pd.DataFrame(lines).set_index("column")
    return scores.assign(skill=1 - scores["error"] / scores["mean or mode"])


def draw(table: pd.DataFrame, imputed: pd.DataFrame, hidden: np.ndarray, scores: pd.DataFrame, path: str) -> None:
    """Draw the imputed against the true values, a panel for each numeric column."""
    numbers = table.select_dtypes("number").columns
    figure = Figure(figsize=(3.4 * len(numbers), 3.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(numbers)), numbers, strict=True):
        chosen = hidden[:, table.columns.get_loc(name)]
        target, predicted = table[name][chosen], imputed[name][chosen]
        for species, colour in COLOURS.items():
            of_species = table["species"][chosen] == species
            axis.scatter(target[of_species], predicted[of_species], s=16, alpha=0.7, color=colour, label=species)
        axis.axline((target.mean(), target.mean()), slope=1, color="0.3", linewidth=1, zorder=0)
        low, high = min(target.min(), predicted.min()), max(target.max(), predicted.max())
        limits = low - 0.04 * (high - low), high + 0.04 * (high - low)
        axis.set(xlabel="true", aspect="equal", xlim=limits, ylim=limits)
        axis.set_title(f"{name}\nskill {scores['skill'][name]:.2f}")
    figure.axes[0].set_ylabel("imputed")
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


def main(path: str = "demo.png") -> None:
    """Hide, impute, score and draw."""
    table = read_penguins()
    incomplete, hidden = ampute(table, fraction=FRACTION, random_state=0)
    start = time.perf_counter()
    imputed = TabMAE(random_state=0).fit_transform(incomplete)
    seconds = time.perf_counter() - start
    scores = score(table, incomplete, imputed, hidden)
    print(f"Palmer penguins, {len(table)} rows: {hidden.mean():.0%} of the cells hidden, imputed in {seconds:.1f} s\n")
    print(scores.to_string(float_format="{:.2f}".format))
    print("\nerror: root mean squared error in the column's unit, or share of wrong levels")
    draw(table, imputed, hidden, scores, path)
    print(f"Imputed against true values: {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
