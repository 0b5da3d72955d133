"""What each part of the ensemble is worth, by the size of the table: variants beside the defaults on the same runs.

Run it as `python -m benchmarks.report_parts FILES [--write PAGE]`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.markdown import markdown, show
from benchmarks.report import HITS, SCORES, read_rows

PARTS = {
    "tabmae-no-network": "Gaussian, copies and forests, no network",
    "tabmae-no-copies": "Gaussian, network and forests, no copies",
    "tabmae-no-trees": "Gaussian, copies and network, no forests",
    "tabmae-pure": "network alone, nothing beside it",
}
SIZES = {
    "under 1,000 rows": (0, 999),
    "1,000 to 4,999": (1000, 4999),
    "5,000 and more": (5000, 10**9),
    "all": (0, 10**9),
}


def gains(rows: pd.DataFrame, part: str, ours: str, low: int, high: int) -> dict[str, object]:
    """Give mean errors of a variant and by how much the defaults change them, over tables of so many rows."""
    chosen = rows[rows["rows"].between(low, high) & (rows["status"] == "ok") & rows["method"].isin([part, ours])]
    entry: dict[str, object] = {}
    for name, (score, split) in {**SCORES, **HITS}.items():
        of_split = chosen[(chosen["split"] == split) & chosen[score].notna()]
        both = of_split.pivot_table(index=["dataset", "seed"], columns="method", values=score, aggfunc="first").dropna()
        if both.shape[1] < 2 or both.empty:
            continue
        both = both.groupby("dataset").mean()
        entry.setdefault("tables", len(both))
        entry[name] = both[part].mean()
        change = both[ours].mean() - both[part].mean()
        entry[f"defaults, {name}"] = f"{change:+.3f}" if "accuracy" in name else f"{change / both[part].mean():+.1%}"
    return entry


def parts_report(rows: pd.DataFrame, ours: str = "tabmae", parts: Sequence[str] = tuple(PARTS)) -> str:
    """Make a table for each variant that has runs: a row a size of table."""
    text = ["What the defaults change against a variant that lacks a part, on the runs that both finished."]
    for part, label in ((part, PARTS[part]) for part in parts):
        found = {size: gains(rows, part, ours, *bounds) for size, bounds in SIZES.items()}
        table = pd.DataFrame.from_dict({size: entry for size, entry in found.items() if entry}, orient="index")
        if len(table):
            text.append(f"**{label}**\n\n{markdown(table, {'tables': 0}, {})}")
    return "\n\n".join(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Show what each part of the ensemble is worth, by the size of the table."
    )
    parser.add_argument("files", nargs="+", type=Path, help="JSONL files of benchmarks.impute")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="variants, default: all")
    parser.add_argument("--section", default="parts", help="whose markers the page has, default: parts")
    parser.add_argument("--write", type=Path, help="Markdown page with the markers of the section")
    read = parser.parse_args(arguments)
    show(parts_report(read_rows(read.files), parts=read.parts), read.write, read.section)


if __name__ == "__main__":
    main()
