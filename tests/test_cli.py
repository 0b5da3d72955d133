"""Claims about the command line: known cells come out as they were, results are whole or absent, errors are short."""

import csv
import io
import json
import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from sklearn.exceptions import ConvergenceWarning

import tabmae
from tabmae.cli import main
from tabmae.cli.csv_text import fields_of, read_csv, unquoted
from tabmae.cli.program import first_sentence, warnings_in_words
from tabmae.optimizer import AdamW
from tabmae.sentinels import MARKERS

pytestmark = pytest.mark.usefixtures("few_structures")

ROOT = Path(__file__).parent.parent
N_ROWS = 60
FIRST_KEY = 2**53 + 1


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def done(*args: object) -> Result:
    """Run a command line that must succeed."""
    found = run(*args)
    assert found.exit_code == 0, found.output
    return found


def refused(*args: object) -> str:
    """Run a command line that must be refused, and give its one sentence."""
    found = run(*args)
    assert found.exit_code == 2 and found.stdout == "", found.output
    line, rest = found.stderr.split("\n", 1)
    assert line.startswith("Error: ") and rest == "", found.stderr
    return line.removeprefix("Error: ")


def table_text(newline: str = "\n") -> str:
    """A table whose columns follow one factor, in ways of writing that a pass through numbers would not keep."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=N_ROWS)
    lines = ['zip,"size, m2",price,rooms,sold,day,key,city']
    for row, x in enumerate(factor):
        fields = [
            f"00{7 + (x > 0)}",
            f"{x:.2f}" if row % 2 else f"{x:.2f}0",
            f"+{100 + 20 * x:.1f}",
            str(round(3 * x)),
            "yes" if x > 0 else "no",
            f"2024-0{3 + (x > 0)}-{15 + round(4 * x):02d}",
            str(FIRST_KEY + row),
            '"Oslo, ""N"""' if x > 0 else '"Rome"',
        ]
        gone = rng.random(len(fields)) < 0.2
        lines.append(",".join(("NA", "", " ")[row % 3] if g else field for g, field in zip(gone, fields, strict=True)))
    return newline.join(lines) + newline


def cells_of(text: str) -> list[list[str]]:
    return fields_of(text, ",", "")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def table(room: Path) -> Path:
    path = room / "table.csv"
    path.write_bytes(("\ufeff" + table_text("\r\n")).encode())
    return path


@pytest.fixture(scope="module")
def saved(room: Path, table: Path) -> Path:
    """A model of the table, fitted and saved by the command line, beside what that wrote."""
    done("impute", table, room / "out.csv", "--save", room / "model", "--max-epochs", 2, "--seed", 0, "--quiet")
    return room / "model"


@pytest.fixture(scope="module")
def series(room: Path) -> Path:
    """Two series of hours with gaps, an absent stamp in the first, and a column that is no value."""
    rng = np.random.default_rng(0)
    lines = ["id,when,load,note"]
    for name in ("007", "010"):
        for step in range(100):
            value = "" if 30 <= step < 34 else f"{np.sin(step / 4) + 0.01 * rng.normal():.2f}"
            if (name, step) != ("007", 50):
                stamp = pd.Timestamp("2024-01-01") + pd.Timedelta(step, "h")
                lines.append(f"{name},{stamp:%Y-%m-%dT%H:%M},{value},n{step}")
    path = room / "series.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def saved_series(room: Path, series: Path) -> Path:
    options = ("--time-col", "when", "--id-col", "id", "--max-epochs", 1, "--seed", 0, "--quiet")
    done("impute", series, room / "filled.csv", "--save", room / "series-model", *options)
    return room / "series-model"


def test_known_cells_of_csv_come_out_as_the_very_text_that_they_were(table: Path, saved: Path) -> None:
    before, after = table.read_bytes().decode(), (saved.parent / "out.csv").read_bytes().decode()
    assert after.startswith("\ufeffzip") and after.count("\r\n") == after.count("\n") == N_ROWS + 1
    rows, filled = cells_of(before.removeprefix("\ufeff")), cells_of(after.removeprefix("\ufeff"))
    assert filled[0] == rows[0] and len(filled) == len(rows)
    n_holes = 0
    for row, new in zip(rows[1:], filled[1:], strict=True):
        for field, now in zip(row, new, strict=True):
            hole = field.strip() in ("", "NA")
            n_holes += hole
            assert now.strip() not in ("", "NA") if hole else now == field
    assert n_holes > 50


def test_imputed_cells_are_written_as_their_column_is(table: Path, saved: Path) -> None:
    rows, filled = (cells_of(path.read_bytes().decode()[1:]) for path in (table, saved.parent / "out.csv"))
    names = [unquoted(name) for name in rows[0]]
    new: dict[str, set[str]] = {name: set() for name in names}
    for row, now in zip(rows[1:], filled[1:], strict=True):
        for name, field, text in zip(names, row, now, strict=True):
            if field.strip() in ("", "NA"):
                new[name].add(text)
    assert new["zip"] <= {"007", "008"} and new["sold"] <= {"yes", "no"} and new["city"] <= {'"Oslo, ""N"""', '"Rome"'}
    assert all(len(text.split(".")[1]) == 4 for text in new["size, m2"])
    assert all(len(text.split(".")[1]) == 2 for text in new["price"])
    assert all(text == str(int(text)) for text in new["rooms"])
    assert all(int(text) >= FIRST_KEY for text in new["key"])
    assert all(pd.Timestamp(text).strftime("%Y-%m-%d") == text for text in new["day"])


def test_what_is_imputed_is_what_the_estimator_imputes(table: Path, saved: Path, room: Path) -> None:
    done("impute", table, room / "typed.parquet", "--model", saved, "--quiet")
    typed = pd.read_parquet(room / "typed.parquet")
    frame = read_csv(table, ",", MARKERS).part(list(typed))
    pd.testing.assert_frame_equal(typed, tabmae.load(saved).transform(frame), check_dtype=False)
    assert typed["rooms"].dtype.kind == "i" and typed["day"].dtype.kind == "M" and typed["zip"][0] == "008"
    assert typed["key"].min() >= FIRST_KEY


def test_a_table_without_holes_comes_out_byte_for_byte(saved: Path, room: Path) -> None:
    done("impute", saved.parent / "out.csv", room / "again.csv", "--model", saved)
    assert (room / "again.csv").read_bytes() == (saved.parent / "out.csv").read_bytes()


def test_columns_that_are_empty_in_a_new_file_are_written_as_the_model_learnt_them(room: Path) -> None:
    lines = [f"{i % 7},{'true' if i % 7 > 3 else 'false'},2024-03-{1 + i % 7:02d},{i % 7 / 2}" for i in range(60)]
    (room / "full.csv").write_text("\n".join(["n,flag,day,x", *lines]))
    done("impute", room / "full.csv", "-", "--save", room / "full", "--max-epochs", 1, "--seed", 0, "--quiet")
    (room / "unseen.csv").write_text("n,flag,day,x\n,,,1.5\n,,,3.0\n")
    (room / "other.csv").write_text("n,flag,day,x\n6,,,\n")
    found = done("impute", room / "unseen.csv", "-", "--model", room / "full", "--quiet").stdout.splitlines()
    found += done("impute", room / "other.csv", "-", "--model", room / "full", "--quiet").stdout.splitlines()[1:]
    for line in found[1:]:
        n, flag, day, x = line.split(",")
        assert n == str(int(n)) and flag in ("True", "False") and len(day) == 10 and float(x) >= 0
        assert pd.Timestamp("2024-03-01") <= pd.Timestamp(day) <= pd.Timestamp("2024-03-07")


def test_text_of_the_model_is_text_where_a_new_file_holds_digits_alone(room: Path) -> None:
    (room / "zips.csv").write_text("zip,x\n" + "007,1\n100,2\n,2\n" * 15)
    done("impute", room / "zips.csv", "-", "--save", room / "zips", "--max-epochs", 1, "--seed", 0, "--quiet")
    (room / "digits.csv").write_text("zip,x\n100,2\n,2\n,1\n")
    found = done("impute", room / "digits.csv", "-", "--model", room / "zips", "--quiet").stdout.splitlines()
    assert found[1] == "100,2" and {line.split(",")[0] for line in found[1:]} <= {"007", "100"}


def test_a_saved_model_does_as_the_one_that_was_fitted(table: Path, saved: Path, room: Path) -> None:
    done("impute", table, room / "reused.csv", "--model", saved)
    assert (room / "reused.csv").read_bytes() == (saved.parent / "out.csv").read_bytes()


@pytest.mark.parametrize("ending", ["parquet", "feather", "arrow"])
def test_parquet_and_arrow_keep_their_types_and_their_cells(table: Path, saved: Path, room: Path, ending: str) -> None:
    frame = read_csv(table, ",", MARKERS).part(list(read_csv(table, ",", MARKERS).names)).set_index("zip", drop=False)
    frame.index.name = "where"
    given = pa.Table.from_pandas(frame.assign(rooms=frame["rooms"].astype("Int16")))
    given = given.set_column(0, "zip", given["zip"].dictionary_encode())
    path, out = room / f"given.{ending}", room / f"done.{ending}"
    if ending == "parquet":
        pyarrow.parquet.write_table(given, path)
    elif ending == "feather":
        pyarrow.feather.write_feather(given, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, given.schema) as stream:
            stream.write_table(given)
    done("impute", path, out, "--model", saved, "--quiet")
    found = pyarrow.parquet.read_table(out) if ending == "parquet" else pyarrow.feather.read_table(out)
    assert found.schema.types == given.schema.types and found.schema.metadata == given.schema.metadata
    for name in frame:
        old, new = given[name].to_pylist(), found[name].to_pylist()
        assert None not in new and None in old
        assert all(a == b for a, b in zip(old, new, strict=True) if a is not None)
    assert found["where"] == given["where"]


def test_arrow_becomes_csv_without_a_loss_of_long_numbers(saved: Path, room: Path) -> None:
    keys = [FIRST_KEY, None, FIRST_KEY + 2, 5] * 15
    pyarrow.feather.write_feather(pa.table({"a": [1.0, 2.0, None, 4.0] * 15, "key": keys}), room / "keys.feather")
    options = ("--columns", "a", "--max-epochs", 1, "--quiet")
    found = done("impute", room / "keys.feather", "-", *options).stdout
    assert [line.split(",")[1] for line in found.splitlines()[1:5]] == [str(FIRST_KEY), "", str(FIRST_KEY + 2), "5"]


def test_an_index_of_pandas_is_kept_and_not_learnt(room: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, None, 4.0] * 10, "b": [1.0, 2.0, 3.0, 4.0] * 10})
    frame.index = pd.Index(np.arange(40.0), name="where")
    frame.to_parquet(room / "indexed.parquet")
    options = ("--max-epochs", 1, "--quiet", "--save", room / "indexed")
    done("impute", room / "indexed.parquet", room / "indexed-out.parquet", *options)
    found = pd.read_parquet(room / "indexed-out.parquet")
    assert found.index.equals(frame.index) and found["a"].notna().all()
    assert [column.name for column in tabmae.load(room / "indexed").schema_.columns] == ["a", "b"]


def test_tabs_and_semicolons_part_fields_and_other_texts_are_missing(room: Path) -> None:
    lines = ["a;b;c", *[f"{i % 7};{'?' if i % 5 == 0 else 2 * (i % 7)};x, y" for i in range(40)]]
    (room / "semi.csv").write_text("\n".join(lines))
    options = ("--delimiter", ";", "--missing", "?", "--max-epochs", 1, "--quiet")
    found = done("impute", room / "semi.csv", "-", *options).stdout.splitlines()
    assert found[0] == "a;b;c" and found[2] == "1;2;x, y" and "?" not in "".join(found)
    assert all(line.split(";")[1].isdigit() for line in found[1:])
    (room / "comma.csv").write_text("\n".join(["a,b", *[f"{i % 7 or ''},p\tq" for i in range(40)]]))
    done("impute", room / "comma.csv", room / "tabs.tsv", "--max-epochs", 1, "--quiet")
    assert (room / "tabs.tsv").read_text().splitlines()[2] == '1\t"p\tq"'


def test_na_may_be_a_value(room: Path) -> None:
    (room / "na.csv").write_text("n,c\n" + "1,NA\n2,\n3,DE\n" * 12)
    found = done("impute", room / "na.csv", "-", "--missing", "?", "--max-epochs", 1, "--quiet").stdout.splitlines()
    assert found[1] == "1,NA" and found[2] in ("2,NA", "2,DE")


def test_only_the_columns_asked_for_are_filled(table: Path, room: Path) -> None:
    options = ("--max-epochs", 1, "--seed", 0, "--quiet", "--save", room / "part")
    done("impute", table, room / "part.csv", "--columns", "rooms,zip", "--columns", "size, m2",
         "--exclude", "zip", "--categorical", "rooms", "--force", *options)  # fmt: skip
    model = tabmae.load(room / "part")
    assert [column.name for column in model.schema_.columns] == ["size, m2", "rooms"]
    assert [column.kind for column in model.schema_.columns] == ["number", "category"]
    before, after = (cells_of(path.read_bytes().decode()[1:]) for path in (table, room / "part.csv"))
    assert [row[0] for row in before] == [row[0] for row in after]
    assert all(row[1].strip() not in ("", "NA") for row in after)


def test_cells_and_quality_are_written_beside(table: Path, saved: Path, room: Path) -> None:
    cells, quality = room / "cells.csv", room / "quality.csv"
    found = done("impute", table, "-", "--model", saved, "--cells", cells, "--quality", quality, "--level", 80)
    assert "skill" in found.stderr and "skill" not in found.stdout
    listed = pd.read_csv(cells, dtype={"value": str})
    rows = cells_of(found.stdout.removeprefix("\ufeff"))
    names = [unquoted(name) for name in rows[0]]
    numbers = listed[listed["column"] == "rooms"]
    assert len(numbers) > 3
    for cell in numbers.itertuples():
        assert rows[cell.row][names.index("rooms")] == cell.value
        assert float(cell.lower) <= int(cell.value) + 0.5 and int(cell.value) - 0.5 <= float(cell.upper)
    wide = tabmae.imputed_cells(tabmae.load(saved), read_csv(table, ",", MARKERS).part(names), 0.8)
    assert len(wide) == len(listed) and listed["row"].tolist() == [row + 1 for row in wide["row"]]
    assert numbers["lower"].astype(float).tolist() == pytest.approx(wide.loc[numbers.index, "lower"].astype(float))
    assert pd.read_csv(quality)["skill"].tolist() == pytest.approx(
        tabmae.load(saved).quality_["skill"].tolist(), nan_ok=True
    )


def test_a_file_is_replaced_only_when_asked_to(table: Path, saved: Path, room: Path) -> None:
    there = room / "there.csv"
    there.write_text("precious")
    assert refused("impute", table, there, "--model", saved).startswith(
        f"{str(there)!r} is there already; pass --force"
    )
    assert there.read_text() == "precious"
    done("impute", table, there, "--model", saved, "--force")
    assert there.read_bytes() == (saved.parent / "out.csv").read_bytes()
    assert "holds a saved model already" in refused("impute", table, room / "new.csv", "--save", saved)
    assert not (room / "new.csv").exists()


def test_a_table_may_be_filled_in_place(table: Path, saved: Path, room: Path) -> None:
    (room / "self.csv").write_bytes(table.read_bytes())
    done("impute", room / "self.csv", room / "self.csv", "--model", saved, "--force")
    assert (room / "self.csv").read_bytes() == (saved.parent / "out.csv").read_bytes()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_result_that_cannot_be_written_whole_leaves_what_was_there(
    table: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    out = tmp_path / f"out.{ending}"
    out.write_text("precious")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(os, "fsync", full)
    assert (
        refused("impute", table, out, "--model", saved, "--force", "--quiet")
        == f"No space left on device: {str(out)!r}."
    )
    assert out.read_text() == "precious" and os.listdir(tmp_path) == [out.name]


def test_a_new_file_has_the_rights_of_any_other(saved: Path) -> None:
    (saved.parent / "plain.txt").touch()
    assert (saved.parent / "out.csv").stat().st_mode == (saved.parent / "plain.txt").stat().st_mode


def test_a_private_file_stays_private_while_it_is_replaced_and_after(
    table: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "private.csv"
    out.touch(0o600)
    rights: list[int] = []

    def watched(number: int) -> None:
        rights.append(os.fstat(number).st_mode & 0o777)

    monkeypatch.setattr(os, "fsync", watched)
    done("impute", table, out, "--model", saved, "--force", "--quiet")
    assert rights == [0o600] and out.stat().st_mode & 0o777 == 0o600


def bad_files(room: Path) -> dict[str, Path]:
    texts = {
        "empty": b"",
        "header": b"a,b\n",
        "ragged": b"a,b\n1,2\n1\n",
        "twice": b"a,a\n1,2\n",
        "binary": b"a,b\n\xff\xfe,2\n",
        "quotes": b'a,b\n"1"x,2\n',
        "infinite": b"a,b\n" + b"1,inf\n2,3\n" * 20,
        "one": b"a,b\n1,2\n",
        "score": b"a,outlier\n" + b"1,2\n2,3\n" * 20,
    }
    paths = {name: room / f"bad-{name}.csv" for name in texts}
    for name, text in texts.items():
        paths[name].write_bytes(text)
    pyarrow.parquet.write_table(pa.table([[1.0], [2.0]], ["a", "a"]), room / "bad-copies.parquet")
    pyarrow.feather.write_feather(pa.table([[1.0], [2.0]], ["a", "a"]), str(room / "bad-copies.feather"))
    paths |= {"copies": room / "bad-copies.parquet", "copies.feather": room / "bad-copies.feather"}
    for number, stored in enumerate((b"{bad", b"{}", b"[]", b'{"index_columns": 1}', b"\xff")):
        paths[f"meta{number}"] = room / f"bad-meta{number}.parquet"
        broken = pa.table({"a": [1.0, None]}).replace_schema_metadata({b"pandas": stored})
        pyarrow.parquet.write_table(broken, paths[f"meta{number}"])
    paths["torn"] = room / "bad-torn.parquet"
    paths["torn"].write_bytes(b"PAR1 nothing")
    paths["shredded"] = room / "bad-shredded.feather"
    paths["shredded"].write_bytes(b"ARROW1 nothing")
    paths["strange"] = room / "table.xlsx"
    paths["strange"].write_bytes(b"")
    return paths


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("impute NONE OUT", "The table must be in a file; '.*none.csv' does not exist; check its name."),
        ("impute ROOM.csv OUT", "The table must be in a file; '.*' does not exist; check its name."),
        ("impute STRANGE OUT", "The name of the file must end in '.csv', .*; got '.*table.xlsx'."),
        ("impute TABLE out.xlsx", "The name of the file must end in '.csv', .*; got 'out.xlsx'."),
        (
            "impute TABLE ABSENT/out.csv",
            "A result must go to a folder that is there and can be written to; '.*' is none.",
        ),
        ("impute TABLE OUT --cells OUT", "Every result must go to a file of its own; two have one name; rename one."),
        ("impute TABLE OUT --quality q.xlsx", "The name of the file must end in '.csv', .*"),
        (
            "impute EMPTY OUT",
            "'bad-empty.csv' must hold a line of names and rows below; it has no rows; pass another file.",
        ),
        (
            "impute HEADER OUT",
            "'bad-header.csv' must hold a line of names and rows below; it has no rows; pass another file.",
        ),
        (
            "impute RAGGED OUT",
            "Every row .* must have the 2 fields of its header; row 2 has 1; mend it, or pass another --delimiter.",
        ),
        ("impute TWICE OUT", "Column names must be unique; 'a' occur more than once; rename the copies."),
        ("impute BINARY OUT", "'bad-binary.csv' must be text in UTF-8; byte 4 is not; convert it."),
        (
            "impute QUOTES OUT",
            "Quotes in 'bad-quotes.csv' must enclose a whole field; those after line 2 do not; mend them.",
        ),
        ("impute INFINITE OUT", "Numbers must be finite; columns 'b' hold infinite values."),
        ("impute ONE OUT", "X must have at least 2 rows; got n_samples = 1."),
        ("impute COPIES OUT", "Column names must be unique; 'a' occur more than once; rename the copies."),
        ("impute COPIES.FEATHER OUT", "Column names must be unique; 'a' occur more than once; rename the copies."),
        *[
            (f"impute META{number} OUT", "'.*' must hold what pandas tells of its index as JSON.*")
            for number in range(5)
        ],
        ("impute TABLE OUT --time-col day --freq ²", ".*freq.*²'?.*"),
        ("impute TORN OUT", "'.*' must be a Parquet file; reading it says: .*"),
        ("impute SHREDDED OUT", "'.*' must be a Feather file; reading it says: .*"),
        ("impute TABLE OUT --columns zap", "--columns must name columns of the table; it has .* and lacks 'zap'."),
        ("impute TABLE OUT --exclude zap", "--exclude must name columns of the table; .*"),
        ("impute TABLE OUT --categorical zap", "--categorical must name columns of the table; .*"),
        (
            "impute TABLE OUT --columns zip --exclude zip",
            "--columns and --exclude must leave a column; they leave none; name fewer of them.",
        ),
        ("impute TABLE OUT --time-col zap", "--time-col must name a column; 'zap' is none of .*"),
        ("impute TABLE OUT --id-col zip", "Options must belong together; --id-col are of series, .*"),
        ("impute TABLE OUT --time-col day --columns zip", "Options must belong together; --columns are of tables, .*"),
        ("impute TABLE OUT --model NOWHERE", "`folder` must be written by save; '.*' does not exist."),
        ("impute TABLE OUT --model ROOM", "A saved model must hold 'tabmae.json' and 'weights.safetensors'; .*"),
        ("impute TABLE OUT --model HOSTILE", "'tabmae.json' must be valid JSON; in .*"),
        ("impute TABLE OUT --model MODEL --seed 1", "Options must belong together; --seed are of a model that is .*"),
        ("impute TABLE OUT --model MODEL --seed 0", "Options must belong together; --seed are of a model that is .*"),
        ("impute TABLE OUT --model EMPTY_TEXT", "Invalid value for '--model': a name must have a character; .*"),
        ("impute TABLE OUT --save EMPTY_TEXT", "Invalid value for '--save': a name must have a character; .*"),
        ("impute TABLE OUT --cells EMPTY_TEXT", "Invalid value for '--cells': a name must have a character; .*"),
        ("impute TABLE OUT --time-col EMPTY_TEXT", "Invalid value for '--time-col': a name must have a character; .*"),
        ("detect TABLE OUT --events EMPTY_TEXT", "Invalid value for '--events': a name must have a character; .*"),
        ("forecast TABLE OUT --future EMPTY_TEXT", "Invalid value for '--future': a name must have a character; .*"),
        ("evaluate TABLE --model EMPTY_TEXT", "Invalid value for '--model': a name must have a character; .*"),
        ("tune TABLE --study EMPTY_TEXT --seed 1", "Invalid value for '--study': a name must have a character; .*"),
        ("impute TABLE OUT --model MODEL --save NEW", "--save keeps a model that is fitted here; .*"),
        ("impute TABLE OUT --save ROOM", "`folder` must be new, empty or a saved model; .*"),
        ("impute TABLE OUT --save MIXED --force", "`folder` must be new, empty or a saved model; .* 'notes.txt'."),
        ("impute TABLE OUT --save IN_FILE", "`folder` must lie in a folder that can be written to; '.*' is not one."),
        ("impute SERIES OUT --model MODEL", "A table must hold the columns that the model learnt; it lacks 'zip', .*"),
        ("impute TABLE OUT --level 100", "Invalid value for '--level': 100.0 is not in the range 1<=x<100."),
        ("impute TABLE OUT --level nan", "Invalid value for '--level': nan is not a finite number."),
        ("impute TABLE OUT --seed x", "Invalid value for '--seed': 'x' is not a valid integer range."),
        ("impute TABLE OUT --delimiter ;;", "Invalid value for '--delimiter': ';;' is not one character that parts .*"),
        ("tune TABLE --study s.db", "--study must come with a --seed, .*"),
        (
            "tune TABLE --study TABLE --seed 1",
            "--study must name a new file or one of a study before; '.*' cannot be one.",
        ),
        ("impute TABLE OUT --sed 1", "No such option.*--sed.*"),
        ("impute TABLE", "Missing argument 'OUT'."),
        ("impude TABLE OUT", "No such command.*impude.*"),
        (
            "detect TABLE OUT --model MODEL",
            "--model must hold a TabMAEDetector or TimeSeriesMAE; '.*' holds a TabMAE; pass another one.",
        ),
        ("detect TABLE OUT --alpha 0.1 --contamination 0.1", "--alpha and --contamination both say how many .*"),
        ("detect TABLE OUT --contamination 0.7", "`contamination` must .*"),
        ("detect SCORE OUT", "Columns .* are those of the result; the table has 'outlier' already."),
        ("detect TABLE OUT --events e.csv", "Options must belong together; --events are of series, .*"),
        ("forecast SERIES OUT --level 0.9", "Invalid value for '--level': '0.9' holds a level that is below 1 .*"),
        ("forecast SERIES OUT --level x", "Invalid value for '--level': 'x' is no list of numbers .*"),
        ("forecast SERIES OUT --future TABLE", "--future must come with columns that are known ahead, .*"),
        (
            "forecast SERIES OUT --future SCORE --future-col a --time-col when",
            "--future must hold the columns 'when', 'a'; it lacks 'when'.",
        ),
        ("forecast SERIES OUT --horizon 0", "Invalid value for '--horizon': 0 is not in the range x>=1."),
        (
            "forecast TABLE OUT --model MODEL",
            "--model must hold a TimeSeriesMAE; '.*' holds a TabMAE; pass another one.",
        ),
        (
            "forecast HEADER OUT",
            "'bad-header.csv' must hold a line of names and rows below; it has no rows; pass another file.",
        ),
        ("evaluate TABLE --mechanism all", "Invalid value for '--mechanism': 'all' is not one of .*"),
        ("evaluate TABLE --fraction 1", "Invalid value for '--fraction': 1.0 is not in the range 0<x<1."),
        ("tune ONE --quiet", "X must have at least 10 rows to tune on; got 1."),
        ("report TABLE page.csv", "The name of the file must end in '.html', '.htm'; got 'page.csv'."),
        ("info ROOM", "A saved model must hold 'tabmae.json' and 'weights.safetensors'; .*"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_learnt(
    line: str, sentence: str, table: Path, saved: Path, series: Path, room: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "tabmae.json").write_text("__import__('os').system('true')")
    (hostile / "weights.safetensors").write_bytes(b"")
    mixed = room / "mixed"
    mixed.mkdir(exist_ok=True)
    (mixed / "tabmae.json").touch()
    (mixed / "notes.txt").touch()
    places = {name.upper(): path for name, path in bad_files(room).items()}
    places |= {"TABLE": table, "SERIES": series, "MODEL": saved, "ROOM": room, "HOSTILE": hostile}
    places |= {"MIXED": mixed, "IN_FILE": table / "model"}
    places |= {"OUT": tmp_path / "out.csv", "NEW": tmp_path / "new", "NONE": room / "none.csv"}
    monkeypatch.chdir(tmp_path)

    def learn(*_: object, **__: object) -> None:
        raise AssertionError("something was learnt")

    monkeypatch.setattr("tabmae.estimators.learner.MaskedTableEstimator._learn", learn)
    monkeypatch.setattr("tabmae.estimators.series.learner.fit_windows", learn)
    words = ["" if word == "EMPTY_TEXT" else str(places.get(word, word)) for word in line.split()]
    words = [word.replace("ROOM", str(room)).replace("ABSENT", str(tmp_path / "absent")) for word in words]
    told = refused(*words)
    assert_matches(sentence, told)
    assert os.listdir(tmp_path) == ["hostile"]


def assert_matches(pattern: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{pattern}$"):
        raise ValueError(text)


def test_the_first_sentence_of_an_error_ends_at_no_period_of_a_name_or_a_number() -> None:
    told = "Column 'St. Gallen Nord. Bern' of \"a. B\" has 2.5. Pass another one."
    assert first_sentence(told) == "Column 'St. Gallen Nord. Bern' of \"a. B\" has 2.5."
    assert first_sentence("X's rows are few. Pass `X. Y`.") == "X's rows are few."
    assert first_sentence("no period") == "no period"


def test_odd_rows_are_flagged_beside_the_text_of_the_table(room: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    lines = [f"{v:.3f},0{abs(v):.2f},{'' if i % 9 == 0 else format(-v, '.3f')}" for i, v in enumerate(x)]
    lines[5] = "2.000,02.00,2.000"
    (room / "rows.csv").write_text("\n".join(["a,b,c", *lines]))
    options = ("--max-epochs", 20, "--seed", 0, "--quiet", "--exclude", "b")
    done("detect", room / "rows.csv", room / "odd.csv", "--save", room / "odd", "--explain", room / "why.csv", *options)
    found = (room / "odd.csv").read_text().splitlines()
    assert found[0] == "a,b,c,anomaly_score,p_value,outlier"
    assert [line.rsplit(",", 3)[0] for line in found[1:]] == lines
    odd = pd.read_csv(room / "odd.csv")
    detector = tabmae.load(room / "odd")
    X = pd.read_csv(room / "rows.csv")[["a", "c"]]
    assert odd["outlier"].tolist() == (detector.predict(X) < 0).tolist() and odd["outlier"][5]
    assert odd["anomaly_score"].tolist() == pytest.approx(detector.anomaly_score(X).tolist(), rel=1e-4)
    why = pd.read_csv(room / "why.csv")
    assert sorted(set(why["row"])) == (np.flatnonzero(odd["outlier"]) + 1).tolist()
    assert why[why["row"] == 6].set_index("column").loc["c", "value"] == 2
    done("detect", room / "rows.csv", room / "few.csv", "--model", room / "odd", "--alpha", 0.3, "--quiet")
    few = pd.read_csv(room / "few.csv")
    assert few["outlier"].tolist() == (few["p_value"] <= 0.3).tolist() and few["outlier"].sum() > odd["outlier"].sum()


def test_series_get_their_gaps_and_absent_rows_and_keep_their_text(series: Path, saved_series: Path) -> None:
    before = series.read_text().splitlines()
    after = (saved_series.parent / "filled.csv").read_text().splitlines()
    assert len(after) == len(before) + 1
    inserted = after[51]
    assert inserted.startswith("007,2024-01-03T02:00,") and inserted.endswith(",") and inserted.count(",") == 3
    for old, new in zip(before, after[:51] + after[52:], strict=True):
        assert new == old or (",," in old and new.startswith(old.split(",,")[0]) and new.endswith(old.split(",,")[1]))
    assert ",," not in "".join(after)
    filled = [float(line.split(",")[2]) for line in after[1:]]
    assert abs(filled[31] - np.sin(31 / 4)) < 0.2 and len(after[32].split(",")[2].split(".")[1]) == 3


def test_series_of_arrow_come_out_with_their_types(series: Path, saved_series: Path, room: Path) -> None:
    frame = pd.read_csv(series, dtype={"id": str}, parse_dates=["when"])
    pyarrow.parquet.write_table(pa.Table.from_pandas(frame), room / "series.parquet")
    done("impute", room / "series.parquet", room / "filled.parquet", "--model", saved_series, "--quiet")
    found = pd.read_parquet(room / "filled.parquet")
    assert len(found) == len(frame) + 1 and found["load"].notna().all() and found["when"].dtype.kind == "M"
    done("impute", series, room / "typed.feather", "--model", saved_series, "--quiet")
    typed = pyarrow.feather.read_table(room / "typed.feather")
    assert pa.types.is_timestamp(typed["when"].type) and typed["id"][0].as_py() == "007"
    assert typed["load"].to_pylist() == pytest.approx(found["load"].tolist())


def test_forecasts_are_those_of_the_model_with_the_levels_asked_for(
    series: Path, saved_series: Path, room: Path
) -> None:
    done("forecast", series, room / "ahead.parquet", "--model", saved_series, "--horizon", 3, "--level", "50,90")
    found = pd.read_parquet(room / "ahead.parquet")
    assert found["id"].tolist() == ["007"] * 3 + ["010"] * 3
    assert [name for name in found if "-" in name] == [
        f"TimeSeriesMAE-{side}-{n}" for n in (50, 90) for side in ("lo", "hi")
    ]
    assert found["when"][0] == pd.Timestamp("2024-01-05 04:00")
    own = tabmae.load(saved_series).forecast(horizon=3, level=[50, 90])
    assert found["TimeSeriesMAE"].tolist() == pytest.approx(own["TimeSeriesMAE"].tolist())
    assert len(done("forecast", series, "-", "--model", saved_series, "--horizon", 2).stdout.splitlines()) == 5


def test_columns_known_ahead_come_in_with_their_future(room: Path) -> None:
    stamps = pd.date_range("2024-01-01", periods=130, freq="h")
    promo = (np.arange(130) % 10 < 3).astype(int)
    frame = pd.DataFrame({"ds": stamps, "y": np.sin(np.arange(130) / 4) + promo, "promo": promo})
    frame[:120].to_csv(room / "promo.csv", index=False)
    frame[["ds", "promo"]][120:].to_csv(room / "future.csv", index=False)
    options = ("--future", room / "future.csv", "--max-epochs", 1, "--seed", 0, "--quiet", "--save", room / "promo")
    done("forecast", room / "promo.csv", room / "promo-out.csv", "--future-col", "promo", "--horizon", 10, *options)
    found = pd.read_csv(room / "promo-out.csv")
    assert np.abs(found["TimeSeriesMAE"] - frame["y"][120:].to_numpy()).mean() < 0.3
    assert tabmae.load(room / "promo").schema_.future_cols == ("promo",)
    told = refused("forecast", room / "promo.csv", "-", "--model", room / "promo")
    assert told.startswith("--future must come with columns that are known ahead")


def test_odd_stretches_of_series_have_points_and_events(series: Path, saved_series: Path, room: Path) -> None:
    lines = series.read_text().splitlines()
    lines[80] = ",".join([*lines[80].split(",")[:2], "9.00", ""])
    (room / "spike.csv").write_text("\n".join(lines))
    done("detect", room / "spike.csv", room / "points.csv", "--model", saved_series, "--events", room / "events.csv")
    points = pd.read_csv(room / "points.csv", dtype={"id": str})
    assert len(points) == 200 and points.loc[points["score"].idxmax(), "value"] == 9
    events = pd.read_csv(room / "events.csv", dtype={"id": str})
    assert {"id", "start", "end", "peak", "channels"} <= set(events) and "007" in set(events["id"])


def test_an_evaluation_prints_means_and_writes_every_column(table: Path, room: Path) -> None:
    options = (
        "--columns",
        "zip,price,rooms",
        "--max-epochs",
        1,
        "--seed",
        0,
        "--baseline",
        "mean",
        "--baseline",
        "knn",
    )
    found = done("evaluate", table, room / "scores.csv", "--quiet", *options)
    scores = pd.read_csv(room / "scores.csv")
    assert set(scores["method"]) == {"TabMAE", "mean", "knn"} and set(scores["column"]) == {"zip", "price", "rooms"}
    mean = scores[(scores["method"] == "knn") & (scores["sample"] == "out")]["nrmse"].mean()
    (line,) = [line for line in found.stdout.splitlines() if line.split()[:1] == ["knn"]]
    after = found.stdout.splitlines()[found.stdout.splitlines().index(line) + 1]
    assert float(after.split()[1]) == pytest.approx(mean, abs=6e-4) and found.stderr == ""


def test_an_evaluation_takes_the_parameters_of_a_saved_model(
    table: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def watched(estimator: Any, X: pd.DataFrame, **parameters: Any) -> pd.DataFrame:
        given.append({**estimator.get_params(), **parameters, "columns": list(X)})
        return pd.DataFrame({name: [1.0] for name in ("method", "sample", "nrmse", "accuracy", "skill", "seconds")})

    monkeypatch.setattr(tabmae, "evaluate", watched, raising=False)
    done("evaluate", table, "--model", saved, "--seed", 5, "--mechanism", "mar", "--fraction", 0.5, "--quiet")
    (found,) = given
    assert found["max_epochs"] == 2 and found["mechanism"] == "mar" and found["fraction"] == 0.5
    assert found["baselines"] == ("mean", "knn", "iterative") and len(found["columns"]) == 8


def test_tuned_parameters_are_printed_and_their_model_is_kept(table: Path, room: Path) -> None:
    options = ("--columns", "size, m2", "--columns", "price", "--max-epochs", 1, "--seed", 3, "--quiet")
    found = done("tune", table, "--trials", 2, "--save", room / "tuned", *options)
    told = json.loads(found.stdout)
    assert told["trials"] == 2 and told["score"] >= told["score_of_defaults"] and found.stderr == ""
    model = tabmae.load(room / "tuned")
    assert all(getattr(model, name) == pytest.approx(value) for name, value in told["best_params"].items())


@pytest.mark.parametrize("name", ["study.db", "a?b %41#.db"])
def test_a_study_in_a_file_goes_on(table: Path, tmp_path: Path, name: str) -> None:
    options = ("--columns", "price,rooms", "--max-epochs", 1, "--seed", 3, "--quiet", "--study", tmp_path / name)
    first, second = (json.loads(done("tune", table, "--trials", 1, *options).stdout)["trials"] for _ in range(2))
    assert (first, second) == (1, 2) and os.listdir(tmp_path) == [name]


def test_info_tells_of_a_model_in_words_and_in_json(saved: Path, saved_series: Path) -> None:
    told = json.loads(done("info", saved, "--json").stdout)
    assert told["class"] == "TabMAE" and told["parameters"] == {"max_epochs": 2, "random_state": 0}
    assert told["columns"]["zip"] == "category of 2 levels" and told["columns"]["rooms"].startswith(
        "whole number from "
    )
    assert [line["column"] for line in told["quality"]] == list(told["columns"])
    words = done("info", saved).stdout
    assert words.startswith(f"TabMAE in {saved}\n") and "rooms: whole number" in words and "skill" in words
    assert json.loads(done("info", saved_series, "--json").stdout)["columns"]["channels"] == ["load"]


def test_a_report_is_a_page_on_the_file(table: Path, saved: Path, room: Path) -> None:
    done("report", table, room / "page.html", "--model", saved, "--rows", 3, "--quiet")
    page = (room / "page.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<h1>table.csv</h1>" in page and "3 of " in page
    first = next(row for row, line in enumerate(cells_of(table.read_text()), 0) if {"", " ", "NA"} & set(line))
    assert f'<th scope="row">{first}</th>' in page


def test_progress_and_warnings_are_lines_on_the_standard_error(room: Path) -> None:
    (room / "blank.csv").write_text("a,b,none\n" + "1,2,\n2,,\n3,6,\n" * 12)
    options = ("--max-epochs", 1, "--seed", 0)
    loud = done("impute", room / "blank.csv", "-", "--save", room / "loud", *options)
    assert tabmae.load(room / "loud").verbose == 0
    assert "epoch" in loud.stderr and "skill" in loud.stderr
    quiet = done("impute", room / "blank.csv", "-", "--quiet", *options)
    assert quiet.stdout == loud.stdout and quiet.stdout.startswith("a,b,none\n1,2,\n")
    (line,) = quiet.stderr.splitlines()
    assert line.startswith("Warning: Columns 'none' have no observed cell in fit.")


def test_warnings_for_users_are_told_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_in_words():
        for message, category in (
            ("a", UserWarning),
            ("a", UserWarning),
            ("b", RuntimeWarning),
            ("c", UserWarning),
            ("d", ConvergenceWarning),
        ):
            warnings.warn(message, category, stacklevel=1)
    assert capsys.readouterr() == ("", "Warning: a\nWarning: c\n")


def test_an_interrupt_ends_without_a_result(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = AdamW.step, iter(range(100))

    def interrupted(optimizer: AdamW, *given: Any) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        step(optimizer, *given)

    monkeypatch.setattr(AdamW, "step", interrupted)
    found = run("impute", table, tmp_path / "out.csv", "--quiet")
    assert found.exit_code == 130 and found.stderr == "Error: Interrupted; the result was not written.\n"
    assert os.listdir(tmp_path) == []


def test_an_interrupt_after_the_fit_does_not_deny_the_model_that_is_kept(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tabmae.cli.impute.completed", interrupted)
    options = ("--save", tmp_path / "model", "--max-epochs", 1, "--quiet")
    found = run("impute", table, tmp_path / "out.csv", *options)
    assert found.exit_code == 130 and found.stderr.strip() == "Error: Interrupted; the result was not written."
    assert os.listdir(tmp_path) == ["model"]


def test_help_and_bad_names_of_files_load_no_torch() -> None:
    code = (
        "import sys; from tabmae.cli import main\ntry:\n    main(['impute', 'none.csv', 'out.csv'])\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.split() == ["2", "False"] and found.stderr.startswith("Error: The table must be in a file")
    module = subprocess.run(
        [sys.executable, "-m", "tabmae", "--version"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert module.stdout == f"tabmae, version {tabmae.__version__}\n"


def test_the_console_script_is_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"tabmae": f"{main.callback.__module__.rsplit('.', 1)[0]}:{main.name}"}
    assert set(main.commands) == {"impute", "forecast", "detect", "evaluate", "tune", "report", "info"}
    for name in main.commands:
        assert "--help" in done(name, "--help").stdout


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_any_csv_is_read_as_others_read_it_and_comes_out_as_it_was(tmp_path: Path, newline: str) -> None:
    rng = np.random.default_rng(0)
    values = ["", "a", 'q"q', "two\nlines", " pad", "x,y", "'", "1.50", "\u2028", "é"]
    for _ in range(20):
        rows = [[values[k] for k in rng.integers(0, len(values), 3)] for _ in range(6)]
        file = io.StringIO()
        csv.writer(
            file,
            lineterminator=newline,
            quoting=csv.QUOTE_ALL if rng.random() < 0.3 or newline == "\r" else csv.QUOTE_MINIMAL,
        ).writerows([["n1", "n,2", 'n"3'], *rows])
        (tmp_path / "any.csv").write_bytes(file.getvalue().encode())
        sheet = read_csv(tmp_path / "any.csv", ",", MARKERS)
        assert sheet.names == ["n1", "n,2", 'n"3'] and sheet.text() == file.getvalue()
        found = [list(row) for row in zip(*[column.values for column in sheet.columns.values()], strict=True)]
        assert [[value.strip() for value in row] for row in found] == [[value.strip() for value in row] for row in rows]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (["1", "", "-20"], "integer"),
        (["1", "2.50"], "number"),
        (["1e5", ".5", "7."], "number"),
        (["007", "10"], "text"),
        (["-01"], "text"),
        (["0", "0.5"], "number"),
        (["true", "false"], "bool"),
        (["True", "false"], "text"),
        (["2024-01-31", ""], "time"),
        (["2024-01-31 10:00", "2024-02-01 11:30"], "time"),
        (["2024-02-31"], "text"),
        (["2024-1-3"], "text"),
        (["31.12.2024"], "time"),
        (["", "NA"], "empty"),
        (["1_000"], "text"),
        (["infinite"], "text"),
    ],
)
def test_a_column_is_what_all_of_its_fields_can_be_without_a_loss(tmp_path: Path, fields: list[str], kind: str) -> None:
    (tmp_path / "c.csv").write_text("\n".join(["c", *fields]) + "\n")
    assert read_csv(tmp_path / "c.csv", ",", MARKERS).columns["c"].kind(as_text=False) == kind
