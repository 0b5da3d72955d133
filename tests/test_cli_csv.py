"""Claims about tables of CSV on the command line: what a field says is what comes out, or the file is refused."""

import warnings
from pathlib import Path

import pandas as pd
import pytest
from test_cli import done, refused

import tabmae
from tabmae.cli.csv_text import fields_of, read_csv
from tabmae.errors import DataError
from tabmae.sentinels import MARKERS

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


def test_a_model_of_decimals_fills_decimals_where_a_new_file_holds_whole_numbers_alone(tmp_path: Path) -> None:
    lines = [f"{row % 8 / 4:.2f},{row % 8 / 8:.3f},{row % 8}.0" for row in range(60)]
    (tmp_path / "old.csv").write_text("\n".join(["x,y,w", *lines]))
    done("impute", tmp_path / "old.csv", "-", "--save", tmp_path / "model", *QUICK)
    (tmp_path / "new.csv").write_text("x,y,w\n1,,4\n,0,0\n0,1,\n")
    done("impute", tmp_path / "new.csv", tmp_path / "out.parquet", "--model", tmp_path / "model", "--quiet")
    filled = done("impute", tmp_path / "new.csv", "-", "--model", tmp_path / "model", "--quiet").stdout.splitlines()
    X = pd.DataFrame({"x": [1.0, None, 0.0], "y": [None, 0.0, 1.0], "w": [4.0, 0.0, None]})
    expected = tabmae.load(tmp_path / "model").transform(X)
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert found["y"][0] == expected["y"][0] % 1 != 0
    assert filled[1] == f"1,{expected['y'][0]:.1f},4" and filled[2] == f"{expected['x'][1]:.1f},0,0"
    assert filled[3].startswith("0,1,") and filled[3].split(",")[2].isdigit()


def test_a_column_of_decimals_that_is_empty_in_a_new_file_is_filled_with_decimals(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("x,y\n" + "0.25,1\n0.75,2\n" * 20)
    done("impute", tmp_path / "old.csv", "-", "--save", tmp_path / "model", *QUICK)
    (tmp_path / "new.csv").write_text("x,y\n,1\n")
    filled = done("impute", tmp_path / "new.csv", "-", "--model", tmp_path / "model", "--quiet").stdout.splitlines()
    assert 0 < float(filled[1].split(",")[0]) < 1


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_file_with_another_delimiter_is_refused_with_the_one_to_pass(tmp_path: Path, mark: str) -> None:
    (tmp_path / "other.csv").write_text("\n".join(f"{a}{mark}{b}" for a, b in [("a", "b"), ("1", "2,5"), ("", "3")]))
    assert refused("impute", tmp_path / "other.csv", "-") == (
        f"The fields of 'other.csv' must be parted by ','; its only name {f'a{mark}b'!r} is parted by {mark!r}; "
        f"pass --delimiter {mark!r}."
    )
    assert done("impute", tmp_path / "other.csv", "-", "--delimiter", repr(mark)[1:-1], *QUICK).stdout.startswith(
        f"a{mark}b\n"
    )


def test_a_table_of_one_column_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("size; m2\n1\n2\n")
    assert read_csv(tmp_path / "one.csv", ",", MARKERS).names == ["size; m2"]


def test_decimal_commas_are_text_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "commas.csv").write_text("a;b;c\n" + "1,5;x,1;2\n-2;y,2;3\n;z;4\n" * 9)
    told = done("impute", tmp_path / "commas.csv", tmp_path / "out.csv", "--delimiter", ";", *QUICK).stderr
    assert told == "Warning: Columns 'a' hold numbers with commas and are read as text; write them with points.\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (['"1,234"', '"1,234,567.5"', "12"], "hold numbers with commas and are read as text; write them with points."),
        (["5%", "12.5 %"], "hold numbers with units and are read as text; write them without."),
        (["$5", '"$1,200.50"'], "hold numbers with commas and are read as text; write them with points."),
        (["\u20ac5", "7"], "hold numbers with units and are read as text; write them without."),
        (
            ["31/01/2024", "01/02/2024 15:00"],
            "hold dates and are read as text; write each as a day that exists, such as 2024-01-31.",
        ),
        (
            ["1.2.24", "12.12.24"],
            "hold dates and are read as text; write each as a day that exists, such as 2024-01-31.",
        ),
    ],
)
def test_what_looks_like_numbers_or_dates_is_text_with_a_warning(tmp_path: Path, fields: list[str], told: str) -> None:
    (tmp_path / "odd.csv").write_text("\n".join(["a,b", *[f"{field},1" for field in fields]]), encoding="utf-8")
    with pytest.warns(UserWarning, match="are read as text") as warned:
        sheet = read_csv(tmp_path / "odd.csv", ",", MARKERS)
    assert [str(warning.message) for warning in warned] == [f"Columns 'a' {told}"]
    assert sheet.columns["a"].kind(as_text=False) == "text"


@pytest.mark.parametrize("fields", [["00%", "012%"], ["7a", "8b"], ["1-2", "3-4"], ["10.0.0.1", "10.0.0.2"], ["a"]])
def test_codes_are_text_without_a_warning(tmp_path: Path, fields: list[str]) -> None:
    (tmp_path / "codes.csv").write_text("\n".join(["a,b", *[f"{field},1" for field in fields]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_csv(tmp_path / "codes.csv", ",", MARKERS).columns["a"].kind(as_text=False) == "text"


@pytest.mark.parametrize(
    "pattern", ["%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S"]
)
def test_times_that_read_in_one_way_are_filled_by_times_written_alike(tmp_path: Path, pattern: str) -> None:
    stamps = pd.date_range("2024-01-25", periods=60, freq="6h").strftime(pattern)
    lines = [f"{row % 4 and stamp},{row}" for row, stamp in enumerate(stamps)]
    (tmp_path / "times.csv").write_text("\n".join(["t,x", *lines]).replace("\n0,", "\n,"))
    done("impute", tmp_path / "times.csv", tmp_path / "out.csv", "--save", tmp_path / "model", *QUICK)
    rows = [line.split(",")[0] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert [row for place, row in enumerate(rows) if place % 4] == [s for place, s in enumerate(stamps) if place % 4]
    assert pd.to_datetime(rows, format=pattern).notna().all()
    (column, _) = tabmae.load(tmp_path / "model").schema_.columns
    assert column.family.startswith("datetime")
    done("impute", tmp_path / "times.csv", "-", "--model", tmp_path / "model", "--quiet")


@pytest.mark.parametrize("field", [' "abc" def', '\t"abc" def', '"abc" def', ' "abc', '"a" "b"'])
def test_text_beside_quotes_is_refused(tmp_path: Path, field: str) -> None:
    (tmp_path / "quotes.csv").write_text(f"a,b\n1,{field}\n")
    with pytest.raises(DataError, match="Quotes in 'quotes.csv' must enclose a whole field; those after line 2 do not"):
        read_csv(tmp_path / "quotes.csv", ",", MARKERS)


@pytest.mark.parametrize(
    ("text", "delimiter", "fields"),
    [
        ('x  "y z"', " ", ["x", "", '"y z"']),
        ('"y z"  x', " ", ['"y z"', "", "x"]),
        ('x\t\t"y"', "\t", ["x", "", '"y"']),
        ('x, "y" ,  ', ",", ["x", ' "y" ', "  "]),
        (' y"z ,"x"', ",", [' y"z ', '"x"']),
    ],
)
def test_blanks_around_quotes_belong_to_a_field_unless_they_part_it(
    text: str, delimiter: str, fields: list[str]
) -> None:
    assert fields_of(text, delimiter, "") == [fields]


def test_lines_end_as_that_of_the_header_does_whatever_its_names_hold(tmp_path: Path) -> None:
    text = '"size\nm2",b\r\n1,2\r\n3,4\r\n'
    (tmp_path / "ends.csv").write_bytes(text.encode())
    assert read_csv(tmp_path / "ends.csv", ",", MARKERS).text() == text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("abc,2024-01-03", "Column 'x' must hold numbers, as those that the model learnt; row 2 holds 'abc'; mend it"),
        (
            "1,soon",
            "Column 't' must hold times, as those that the model learnt; row 2 holds 'soon'; mend it",
        ),
    ],
)
def test_a_field_that_a_model_cannot_read_is_named_with_its_row(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "old.csv").write_text("x,t\n" + "0.25,2024-01-01\n0.75,2024-01-02\n" * 20)
    done("impute", tmp_path / "old.csv", "-", "--save", tmp_path / "model", *QUICK)
    (tmp_path / "new.csv").write_text(f"x,t\n1,2024-01-02\n{line}\n")
    assert refused("impute", tmp_path / "new.csv", "-", "--model", tmp_path / "model", "--quiet").startswith(told)
    mark = line.split(",")[told[8] == "t"]
    done("impute", tmp_path / "new.csv", "-", "--model", tmp_path / "model", "--quiet", "--missing", mark)
