"""Claims about tables of CSV on the command line: what a field says is what comes out, or the file is refused."""

from pathlib import Path

import pandas as pd
import pytest
from test_cli import done

from tabmae.cli.csv_text import MARKERS, read_csv

KEY = 12345678901234567890
QUICK = ("--max-epochs", 1, "--seed", 0, "--quiet")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A table with a hole and keys beyond 64 bits."""
    lines = [f"{KEY + row},{row % 7 or ''},{row % 7 / 2}" for row in range(40)]
    (tmp_path / "keys.csv").write_text("\n".join(["key,x,y", *lines]))
    return tmp_path / "keys.csv"


@pytest.mark.parametrize("command", ["impute", "detect"])
def test_keys_keep_all_of_their_digits_in_parquet(keys: Path, command: str) -> None:
    done(command, keys, keys.with_name("out.parquet"), "--exclude", "key", *QUICK)
    assert pd.read_parquet(keys.with_name("out.parquet"))["key"].tolist() == [str(KEY + row) for row in range(40)]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (["12345678901234567890", "1"], "text"),
        (["9223372036854775807", "-9223372036854775808"], "integer"),
        (["9223372036854775808", "1"], "number"),
        (["9223372036854775809", ""], "text"),
        (["12345678901234567", "0.5"], "text"),
        (["1" + 400 * "0"], "text"),
        (["1" + 5000 * "0"], "text"),
        (["0.3333333333333333333333"], "number"),
    ],
)
def test_whole_numbers_that_a_float_would_round_are_text(tmp_path: Path, fields: list[str], kind: str) -> None:
    (tmp_path / "c.csv").write_text("\n".join(["c", *fields]) + "\n")
    assert read_csv(tmp_path / "c.csv", ",", MARKERS).columns["c"].kind(as_text=False) == kind
