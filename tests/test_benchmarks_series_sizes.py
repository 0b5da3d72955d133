"""The program that measures what series cost."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import series_sizes
from benchmarks.series_sizes import Size, generate_series, main


def test_gaps_hide_the_share_that_the_report_says_and_nothing_else() -> None:
    truth, shown = generate_series(Size(2, 5_000, 3), 0)
    hidden = np.isnan(shown)
    share = 1 - (1 - series_sizes.GAPS) ** (series_sizes.SEASON // 4)
    assert abs(hidden.mean() - share) < 0.01
    assert np.array_equal(shown[~hidden], truth[~hidden])
    again = generate_series(Size(2, 5_000, 3), 0)[0]
    assert np.array_equal(truth, again), "the same seed gives the same series"


def test_a_run_is_kept_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(series_sizes, "GRID", [Size(1, 120, 1)])
    out = tmp_path / "sizes.jsonl"
    main(["--out", str(out), "--threads", "1"])
    row = json.loads(out.read_text())
    assert row["status"] == "ok" and row["fit_cpu_seconds"] > 0 and row["error"] > 0
    main(["--out", str(out)])
    assert len(out.read_text().splitlines()) == 1, "a run that is in the file is not repeated"
    capsys.readouterr()
    main(["--report", str(out)])
    assert "| 1 x 120 x 1 | " in capsys.readouterr().out
