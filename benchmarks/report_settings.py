"""Set all settings, mechanism x fraction, side by side: who leads where, by how much, and where ours does not.

Contract: a figure stands for the same runs in all methods that it compares. Run it as
`python -m benchmarks.report_settings --help`.
"""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks.markdown import LABELS, markdown, show
from benchmarks.report import HITS, SCORES, about, read_rows, versions

PEERS = ("missforest", "hyperimpute")
SETTING = ["mechanism", "fraction"]
RUN = ["dataset", "rows", "seed"]
WORSE, POINTS_BELOW = 1.03, 3.0
"""A table is an exception beyond this multiple of the best peer's error, or so many points below its accuracy."""


def runs(rows: pd.DataFrame, score: str, split: str) -> pd.DataFrame:
    """Give a score of every run, a row a table and seed, a column a method, NaN where a method has no result."""
    chosen = rows[(rows["split"] == split) & (rows["status"] == "ok") & rows[score].notna()]
    table = chosen.pivot_table(index=RUN, columns="method", values=score, sort=False).astype(float)
    return table[[method for method in LABELS if method in table.columns]]


def mean_over_tables(table: pd.DataFrame) -> pd.Series:
    """Give the mean over seeds, then over tables."""
    return table.groupby("dataset").mean().mean()


def settings_of(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Give the rows of each setting, by its short name."""
    groups = rows.groupby(SETTING, sort=False)
    return {f"{mechanism} {float(str(fraction)):.0%}": group for (mechanism, fraction), group in groups}


def side_by_side(rows: pd.DataFrame, score: str, split: str, ranked: bool) -> pd.DataFrame:
    """Give a row a method and a column a setting: mean scores, or mean ranks among the methods that finished all runs.

    A method that lacks a run has no rank, and its mean is text with the number of its runs beside it.
    """
    columns = {}
    for name, group in settings_of(rows).items():
        table = runs(group, score, split)
        whole = table.dropna(axis=1)
        if ranked:
            columns[name] = mean_over_tables(whole.rank(axis=1, ascending=score != "accuracy"))
            continue
        means = mean_over_tables(table)
        counts = table.notna().sum()
        columns[name] = pd.Series(
            {
                method: means[method] if method in whole else f"{means[method]:.3f} ({counts[method]} of {len(table)})"
                for method in table.columns
            },
            dtype=object,
        )
    found = pd.DataFrame(columns)
    found = found.reindex([method for method in LABELS if method in found.index])
    found["mean"] = found.apply(pd.to_numeric, errors="coerce").mean(axis=1, skipna=False)
    return found.dropna(axis=1, how="all")


def relative(rows: pd.DataFrame, ours: str, peer: str) -> pd.DataFrame:
    """Set ours against a peer on the runs that both finished: ratios of errors and times, differences of accuracy."""
    entries = {}
    for name, group in settings_of(rows[rows["method"].isin([ours, peer])]).items():
        entry: dict[str, object] = {}
        for label, which in {**SCORES, **HITS, "CPU": ("cpu_seconds", "in"), "wall": ("seconds", "in")}.items():
            both = runs(group, *which).dropna()
            if both.shape[1] < 2 or both.empty:
                continue
            means = mean_over_tables(both)
            if label in HITS:
                entry[f"{label}, points"] = 100 * (means[ours] - means[peer])
            else:
                entry[f"{label}, ratio"] = means[ours] / means[peer]
            if label in SCORES:
                entry[f"better {which[1]}"] = (
                    f"{(both.groupby('dataset').mean().diff(axis=1).iloc[:, -1] < 0).sum()}"
                    f" of {both.index.get_level_values('dataset').nunique()}"
                )
        entries[name] = entry
    return pd.DataFrame.from_dict({name: entry for name, entry in entries.items() if entry}, orient="index")


def exceptions(rows: pd.DataFrame, ours: str) -> pd.DataFrame:
    """List the tables and settings where ours is clearly worse than the best peer, each peer on the runs both have."""
    found = []
    for name, group in settings_of(rows).items():
        for label, which in {**SCORES, **HITS}.items():
            table = runs(group, *which)
            if ours not in table:
                continue
            for dataset, scores in table.groupby("dataset", sort=False):
                if entry := _worse(scores, ours, higher=label in HITS):
                    found.append({"table": dataset, "setting": name, "score": label, **entry})
    columns = ["table", "setting", "score", "ours", "best peer", "theirs", "worse by"]
    return pd.DataFrame(found, columns=columns).set_index("table")


def _worse(scores: pd.DataFrame, ours: str, higher: bool) -> dict[str, object] | None:
    """Give the peer that leads ours by the most on one table, or None where none leads by more than the tolerance."""
    both = {peer: scores[[ours, peer]].dropna().mean() for peer in scores.columns if peer != ours}
    lead = {
        peer: 100 * (means[peer] - means[ours]) if higher else means[ours] / means[peer]
        for peer, means in both.items()
        if means.notna().all()
    }
    if not lead:
        return None
    best = max(lead, key=lambda peer: lead[peer])
    if lead[best] <= (POINTS_BELOW if higher else WORSE):
        return None
    worse = f"{lead[best]:.1f} points" if higher else f"{lead[best] - 1:.1%}"
    return {"ours": both[best][ours], "best peer": LABELS[best], "theirs": both[best][best], "worse by": worse}


def settings_report(rows: pd.DataFrame, ours: str) -> str:
    """Make all tables over the settings."""
    rows = rows[rows["method"].isin(LABELS)]
    parts = [about(rows), "A mean over fewer runs has their number beside it; compare it by the ratios below."]
    for label, which in {**SCORES, **HITS}.items():
        means = side_by_side(rows, *which, ranked=False)
        low = dict.fromkeys(means.columns, label in SCORES)
        parts += [f"Mean {label}:", markdown(means, {}, low)]
        if label in SCORES:
            ranks = side_by_side(rows, *which, ranked=True)
            heading = f"Mean rank by {label}, among the methods that finished every run of the setting:"
            parts += [heading, markdown(ranks, dict.fromkeys(ranks.columns, 2), dict.fromkeys(ranks.columns, True))]
    for peer in PEERS:
        compared = relative(rows, ours, peer)
        if not compared.empty:
            heading = f"{LABELS[ours]} against {LABELS[peer]}, on the runs that both finished (below 1 is better, "
            parts += [f"{heading}points of accuracy above 0 are better):", markdown(compared, {}, {})]
    return "\n\n".join([*parts, *exceptions_report(rows, ours), versions(rows)])


def exceptions_report(rows: pd.DataFrame, ours: str) -> list[str]:
    """Count and list the exceptions."""
    listed = exceptions(rows, ours)
    scored = sum(
        runs(group, *which)[ours].groupby("dataset").any().sum()
        for group in settings_of(rows).values()
        for which in {**SCORES, **HITS}.values()
        if ours in runs(group, *which)
    )
    heading = (
        f"Where {LABELS[ours]} is worse than the best peer by more than {WORSE - 1:.0%} of its error or "
        f"{POINTS_BELOW:g} points of accuracy: {len(listed)} of {scored} scores"
    )
    return [f"{heading}."] if listed.empty else [f"{heading}:", markdown(listed, {}, {})]


def seeds_report(rows: pd.DataFrame, ours: str) -> str:
    """Make the tables of means and ratios of the methods that ran with every seed."""
    seeds = rows.groupby("method")["seed"].nunique()
    rows = rows[rows["method"].isin(LABELS) & rows["method"].map(seeds == seeds.max())]
    parts = [about(rows), "Methods that ran with all of these seeds; means over seeds, then over tables."]
    for label, which in {**SCORES, **HITS}.items():
        means = side_by_side(rows, *which, ranked=False)
        parts += [f"Mean {label}:", markdown(means, {}, dict.fromkeys(means.columns, label in SCORES))]
    for peer in PEERS:
        compared = relative(rows, ours, peer)
        if not compared.empty:
            parts += [f"{LABELS[ours]} against {LABELS[peer]}:", markdown(compared, {}, {})]
    return "\n\n".join([*parts, versions(rows)])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Set all mechanisms and fractions of JSONL rows side by side.")
    parser.add_argument("files", nargs="+", type=Path, help="JSONL files of benchmarks.impute")
    parser.add_argument("--ours", default="tabmae", help="the method that is compared with each other one")
    parser.add_argument("--max-rows", type=int, help="leave out runs on more rows")
    parser.add_argument("--seeds", nargs="+", type=int, help="leave out runs of other seeds")
    parser.add_argument("--several-seeds", action="store_true", help="only the methods that ran with every seed")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write between a page's markers")
    read = parser.parse_args(arguments)
    rows = read_rows(read.files)
    rows = rows[(rows["mechanism"] != "natural") & (rows["rows"] <= (read.max_rows or rows["rows"].max()))]
    if read.seeds:
        rows = rows[rows["seed"].isin(read.seeds)]
    if read.several_seeds:
        show(seeds_report(rows, read.ours), read.write, "settings-seeds")
    else:
        show(settings_report(rows, read.ours), read.write, "settings")


if __name__ == "__main__":
    main()
