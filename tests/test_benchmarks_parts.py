"""The report of the parts pairs runs and weighs tables alike."""

import pandas as pd

from benchmarks.report_parts import parts_report


def run(dataset: str, rows: int, method: str, nrmse: float, seed: int = 0) -> dict[str, object]:
    about = {"dataset": dataset, "rows": rows, "method": method, "seed": seed, "status": "ok"}
    return {**about, "nrmse": nrmse, "accuracy": None, "split": "in"}


def test_only_runs_of_both_count_and_tables_are_sorted_by_size() -> None:
    rows = pd.DataFrame(
        [
            *(run("small", 300, method, error) for method, error in (("tabmae", 0.9), ("tabmae-no-network", 1.0))),
            *(run("large", 9000, method, error) for method, error in (("tabmae", 0.4), ("tabmae-no-network", 0.5))),
            run("large", 9000, "tabmae", 5.0, seed=1),
        ]
    )
    lines = {line.split("|")[1].strip(): line for line in parts_report(rows).splitlines() if line.startswith("|")}
    assert "| 1 | 1.000 | -10.0% |" in lines["under 1,000 rows"]
    assert "| 1 | 0.500 | -20.0% |" in lines["5,000 and more"]
    assert "| 2 | 0.750 | -13.3% |" in lines["all"]
    assert "1,000 to 4,999" not in lines
