"""How the benchmarks' tables look, and where they stand on a page.

Contract: a section of a page stands between its own two markers; nothing else of the page is touched.
"""

from pathlib import Path

import pandas as pd

LABELS = {
    "mean": "mean / mode",
    "knn": "KNNImputer(5)",
    "iterative": "IterativeImputer(BayesianRidge)",
    "missforest": "MissForest (100 trees)",
    "extratrees": "MissForest with ExtraTrees",
    "miceforest": "miceforest",
    "hyperimpute": "HyperImpute",
    "gaussian": "Gaussian EM alone",
    "tabmae": "**TabMAE**",
}


def markdown(table: pd.DataFrame, digits: dict[str, int], best: dict[str, bool]) -> str:
    """Format a table; `best` names the columns whose best number is set in bold, True where low is good."""
    numbers = table.apply(pd.to_numeric, errors="coerce")
    winners = {name: numbers[name].min() if low else numbers[name].max() for name, low in best.items() if name in table}
    lines = ["| " + " | ".join(["", *table.columns]) + " |", "| --- |" + " ---: |" * len(table.columns)]
    for label, row in table.iterrows():
        entries = []
        for name in table.columns:
            value = row[name]
            text = "" if pd.isna(value) else value if isinstance(value, str) else f"{value:,.{digits.get(name, 3)}f}"
            entries.append(f"**{text}**" if text and winners.get(name) == value else text)
        lines.append("| " + " | ".join([LABELS.get(str(label), str(label)), *entries]) + " |")
    return "\n".join(lines)


def markers(section: str) -> tuple[str, str]:
    """Give the comments that a section of a page stands between."""
    return f"<!-- {section}:start -->", f"<!-- {section}:end -->"


def write_section(page: Path, section: str, text: str) -> None:
    """Replace what stands between the markers of a section of a Markdown page.

    Raises
    ------
    ValueError : the page lacks a marker.
    """
    start, end = markers(section)
    whole = page.read_text()
    if start not in whole or end not in whole:
        raise ValueError(f"{page} must hold {start} and {end}; add them where the section goes.")
    before, after = whole.split(start)[0], whole.split(end)[1]
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")


def show(text: str, page: Path | None, section: str) -> None:
    """Print a section, or write it where a page is given."""
    if page is None:
        print(text)
    else:
        write_section(page, section, text)
