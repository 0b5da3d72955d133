"""Make every table and picture of the benchmarks from their JSONL rows.

Contract: a figure that a README shows is written here, between its markers, and nowhere by hand. Run it as
`python -m benchmarks.report --help`.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from benchmarks.impute import KEY
from benchmarks.markdown import LABELS, markdown, show, write_section
from benchmarks.runs import failures, read_table

TOLERANCE = 1.02
"""A table counts as lost to the simple methods beyond this multiple of their error."""

LABEL_HEIGHT, ROOM_FOR_LABELS = 0.05, 100
"""Share of the picture's height that two labels stand apart; how far the time axis goes on for them."""

SCORES = {"nrmse in": ("nrmse", "in"), "nrmse out": ("nrmse", "out")}
HITS = {"accuracy in": ("accuracy", "in"), "accuracy out": ("accuracy", "out")}


def read_rows(files: Iterable[Path]) -> pd.DataFrame:
    """Give one row a run and split; of rows of the same run the last one counts, whatever its file.

    Raises
    ------
    ValueError : two methods were scored on other hidden cells of what should be the same ones.
    """
    rows = read_table(files, [*KEY, "split"])
    cells = rows.groupby([part for part in KEY if part != "method"])["cells"].nunique()
    if (cells > 1).any():
        raise ValueError(f"Methods must share their hidden cells; they differ in {list(cells[cells > 1].index)}.")
    rows["seconds"] = rows["fit_seconds"] + rows["transform_seconds"]
    return rows


def by_table(rows: pd.DataFrame, score: str, split: str) -> pd.DataFrame:
    """Give the mean over seeds of a score, a row a table, a column a method in the order of `LABELS`."""
    chosen = rows[(rows["split"] == split) & (rows["status"] == "ok") & rows[score].notna()]
    table = chosen.pivot_table(index="dataset", columns="method", values=score, aggfunc="mean", sort=False)
    table = table.astype(float)
    order = [method for method in [*LABELS, *table.columns] if method in table.columns]
    return table[list(dict.fromkeys(order))]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Give a row a method: scores, ranks and costs over all tables.

    A method that lacks a table has no rank, and its means are over the tables that it has: compare it by `paired`.
    """
    columns: dict[str, pd.Series] = {}
    tables = {name: by_table(rows, *which) for name, which in SCORES.items()}
    runs = (
        rows[rows["status"] == "ok"]
        .groupby("method")
        .apply(lambda runs: len(runs[["dataset", "seed"]].drop_duplicates()))
    )
    columns["runs"] = runs
    for name, table in tables.items():
        columns[name] = table.mean()
    for name, table in tables.items():
        complete = table.dropna(axis=1)
        columns[name.replace("nrmse", "rank")] = complete.rank(axis=1).mean()
    for name, which in HITS.items():
        columns[name] = by_table(rows, *which).mean()
    for name in ("cpu_seconds", "seconds"):
        columns[name] = by_table(rows, name, "in").sum()
    columns["peak_mb"] = by_table(rows, "peak_mb", "in").max()
    order = list(dict.fromkeys([*tables["nrmse in"].columns, *runs.index]))
    return pd.DataFrame(columns).reindex(order)


def paired(rows: pd.DataFrame, ours: str) -> pd.DataFrame:
    """Compare `ours` with each method on the runs that both finished: mean errors, and on how many tables ours wins."""
    compared = {}
    for method in [method for method in rows["method"].unique() if method != ours]:
        entry: dict[str, object] = {}
        for name, (score, split) in SCORES.items():
            chosen = rows[(rows["split"] == split) & (rows["status"] == "ok") & rows["method"].isin([method, ours])]
            both = chosen.pivot_table(index=["dataset", "rows", "seed"], columns="method", values=score).dropna()
            if both.shape[1] < 2 or both.empty:
                continue
            both = both.groupby("dataset").mean()
            entry[f"{name}, theirs"] = both[method].mean()
            entry[f"{name}, ours"] = both[ours].mean()
            entry[f"better {split}"] = f"{(both[ours] < both[method]).sum()} of {len(both)}"
        compared[method] = entry
    order = [*(m for m in LABELS if m in compared), *(m for m in compared if m not in LABELS)]
    return pd.DataFrame.from_dict(compared, orient="index").reindex(order)


def lost_tables(rows: pd.DataFrame, ours: str, simple: Sequence[str] = ("mean", "gaussian")) -> pd.DataFrame:
    """List the tables where `ours` exceeds the better of the `simple` methods by more than the tolerance.

    Only runs that all of them finished count, so that each is a mean over the same seeds.
    """
    lost = []
    compared = rows[(rows["status"] == "ok") & rows["method"].isin([ours, *simple])]
    for name, (score, split) in SCORES.items():
        chosen = compared[compared["split"] == split]
        both = chosen.pivot_table(
            index=["dataset", "rows", "seed"], columns="method", values=score, sort=False
        ).dropna()
        if ours not in both.columns or both.shape[1] < 2:
            continue
        table = both.groupby("dataset", sort=False).mean()
        ratio = table[ours] / table.drop(columns=ours).min(axis=1)
        lost += [
            {"table": dataset, "split": name, "ratio": ratio[dataset]} for dataset in ratio.index[ratio > TOLERANCE]
        ]
    return pd.DataFrame(lost, columns=["table", "split", "ratio"])


def short_report(rows: pd.DataFrame, ours: str) -> str:
    """Make the tables that the README shows: methods that finished every table, then the others beside ours."""
    tables = by_table(rows, "nrmse", "in")
    whole = tables.columns[tables.notna().all()]
    table = summary(rows[rows["method"].isin(whole)]).drop(columns=["runs", "seconds", "peak_mb"])
    low = {name: name.startswith(("nrmse", "rank")) for name in table.columns if name != "cpu_seconds"}
    digits = {"rank in": 1, "rank out": 1, "CPU s": 0}
    parts = [about(rows), markdown(table.rename(columns={"cpu_seconds": "CPU s"}), digits, low)]
    rest = paired(rows[~rows["method"].isin(set(whole) - {ours})], ours)
    if ours in whole and not rest.empty:
        parts += ["Methods that did not finish every table, on the runs that both finished:", markdown(rest, {}, {})]
    return "\n\n".join(parts)


def setting(mechanism: str, fraction: float) -> str:
    """Say in words which cells were hidden."""
    if mechanism == "natural":
        return f"natural holes, those of another row copied into {fraction:.0%} of the rows"
    return f"{mechanism.upper()}, {fraction:.0%} of the known cells hidden"


def about(rows: pd.DataFrame) -> str:
    """Say what was run."""
    runs = rows[rows["status"] == "ok"]
    kinds = runs[["mechanism", "fraction"]].drop_duplicates()
    shares = ", ".join(f"{kind.mechanism.upper()} {kind.fraction:.0%}" for kind in kinds.itertuples())
    is_natural = (kinds["mechanism"] == "natural").all()
    hidden = setting("natural", kinds["fraction"].max()) if is_natural else f"{shares} of the known cells hidden"
    n_tables = runs["dataset"].nunique()
    with_categories = int((runs.groupby("dataset")["categories"].max() > 0).sum())
    tables = f"{n_tables} table{'s' * (n_tables > 1)}"
    return (
        f"{tables} ({with_categories} with categories, up to {runs['rows'].max():,} rows), "
        f"{hidden}, seeds {', '.join(str(seed) for seed in sorted(runs['seed'].unique()))}. "
        "CPU s: processor seconds of fit and transform, summed over the tables."
    )


def notes(rows: pd.DataFrame) -> str:
    """Name the methods that did not finish everywhere."""
    tables = by_table(rows, "nrmse", "in")
    missing = {
        LABELS.get(str(method), str(method)): f"{int(tables[method].notna().sum())} of {len(tables)} tables"
        for method in tables.columns
        if tables[method].isna().any()
    }
    seeds = rows[rows["status"] == "ok"].groupby("method")["seed"].nunique()
    for method in seeds.index[seeds < seeds.max()]:
        label = LABELS.get(str(method), str(method))
        missing[label] = ", ".join(filter(None, [missing.get(label), f"{seeds[method]} of {seeds.max()} seeds"]))
    if not missing:
        return "Every method finished every run."
    listed = "; ".join(f"{label}: {what}" for label, what in missing.items())
    return f"Not finished, so means are over fewer runs and there is no rank where a table is missing: {listed}."


def full_report(rows: pd.DataFrame, ours: str) -> str:
    """Make all tables, for each mechanism and fraction."""
    parts = []
    for (mechanism, fraction), chosen in rows.groupby(["mechanism", "fraction"], sort=False):
        title = setting(str(mechanism), float(str(fraction)))
        parts += [f"### {title[0].upper()}{title[1:]}", about(chosen)]
        named = chosen[chosen["method"].isin(LABELS)]
        table = summary(named).rename(columns={"cpu_seconds": "CPU s", "seconds": "wall s", "peak_mb": "peak MB"})
        low = {
            name: name.startswith(("nrmse", "rank"))
            for name in table.columns
            if name.split()[0] in "nrmse rank accuracy"
        }
        digits = {"runs": 0, "rank in": 2, "rank out": 2, "CPU s": 0, "wall s": 0, "peak MB": 0}
        parts += [markdown(table, digits, low), notes(named)]
        if ours in table.index:
            parts += [
                f"On the runs that both finished, {ours} (ours) against each:",
                markdown(paired(named, ours), {}, {}),
            ]
            variants = paired(chosen[~chosen["method"].isin(set(LABELS) - {ours})], ours)
            if not variants.empty:
                parts += ["Variants, on the runs that both finished:", markdown(variants, {}, {})]
            lost = lost_tables(chosen, ours).set_index("table")
            heading = "Worse than the better of mean and Gaussian by more than 2 %:"
            parts += [f"{heading} none."] if lost.empty else [heading, markdown(lost, {}, {})]
        for name, which in {**SCORES, **HITS}.items():
            scores = by_table(named, *which)
            if not scores.empty:
                parts += [f"{name}, mean over seeds:", markdown(scores, {}, {})]
        parts += failures(chosen, ["dataset", "method", "seed"])
    return "\n\n".join([*parts, versions(rows)])


def versions(rows: pd.DataFrame) -> str:
    """Name the versions and commits behind the rows."""
    found: dict[str, set[str]] = {}
    for row_versions in rows["versions"].dropna():
        for package, version in row_versions.items():
            found.setdefault(package, set()).add(version)
    named = ", ".join(f"{package} {' and '.join(sorted(numbers))}" for package, numbers in sorted(found.items()))
    commits = sorted({str(commit)[:12] for commit in rows["commit"].dropna()})
    return f"Versions: {named}. Commits: {', '.join(commits) or 'not recorded'}."


def draw_picture(rows: pd.DataFrame, file: Path) -> None:
    """Draw accuracy against time: a point a method that finished every table."""
    tables = by_table(rows, "nrmse", "in")
    complete = [method for method in tables.columns if tables[method].notna().all()]
    drawn = summary(rows).loc[complete]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    apart = LABEL_HEIGHT * (drawn["nrmse out"].max() - drawn["nrmse in"].min())
    height, slow = -float("inf"), drawn["cpu_seconds"].max() / 3
    for method, row in drawn.sort_values("nrmse in").iterrows():
        label = LABELS.get(str(method), str(method))
        colour = "C3" if "**" in label else "C0"
        axes.plot([row["cpu_seconds"]] * 2, [row["nrmse in"], row["nrmse out"]], color=colour, alpha=0.4)
        axes.plot(row["cpu_seconds"], row["nrmse in"], "o", color=colour, markerfacecolor="white")
        axes.plot(row["cpu_seconds"], row["nrmse out"], "o", color=colour)
        height = max(row["nrmse in"], height + apart)
        place = (drawn["cpu_seconds"].max() if row["cpu_seconds"] > slow else row["cpu_seconds"], height)
        axes.annotate(label.strip("*"), place, xytext=(8, -4), textcoords="offset points", color=colour)
    axes.set_xscale("log")
    axes.set_xlim(drawn["cpu_seconds"].min() / 2, drawn["cpu_seconds"].max() * ROOM_FOR_LABELS)
    axes.margins(x=0.1, y=0.1)
    axes.set_xlabel("processor seconds of fit and transform, all tables")
    axes.set_ylabel("mean NRMSE")
    axes.set_title("hollow: rows of the fit; filled: new rows", fontsize="medium")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the benchmarks' tables and picture from JSONL rows.")
    parser.add_argument("files", nargs="+", type=Path, help="JSONL files of benchmarks.impute")
    parser.add_argument("--ours", default="tabmae", help="the method that is compared with each other one")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these seeds; default: all")
    parser.add_argument("--section", default="benchmark", help="name of the markers that the tables stand between")
    parser.add_argument("--short", type=Path, help="Markdown file for the table of MCAR 30 %%, or of the only setting")
    parser.add_argument("--full", type=Path, help="Markdown file for all tables")
    parser.add_argument("--picture", type=Path, help="PNG of accuracy against time, of the same rows as --short")
    read = parser.parse_args(arguments)
    rows = read_rows(read.files)
    if read.seeds:
        rows = rows[rows["seed"].isin(read.seeds)]
    is_main = (rows["mechanism"] == "mcar") & (rows["fraction"] == 0.3)
    if len(rows[["mechanism", "fraction"]].drop_duplicates()) == 1:
        is_main[:] = True
    main_rows = rows[is_main & rows["method"].isin(LABELS)]
    if read.short:
        write_section(read.short, read.section, short_report(main_rows, read.ours))
    if read.picture:
        draw_picture(main_rows, read.picture)
    show(full_report(rows, read.ours), read.full, read.section)


if __name__ == "__main__":
    main()
