"""Numbers and texts that stand for a missing value are told of, and nothing else is."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tabmae import DataError, TabMAE, TimeSeriesMAE
from tabmae.sentinels import marks_of, sentinels_of, strangers_of, warn_of_strangers

pytestmark = pytest.mark.usefixtures("few_structures")

USUAL = np.random.default_rng(0).normal(20, 5, size=200)


@pytest.mark.parametrize("number", [-999.0, -9999.0, 99999.0, 9999.9, 1e30, -32768.0])
def test_a_code_for_a_missing_value_is_found(number: float) -> None:
    assert sentinels_of(np.append(USUAL, [number] * 5)) == [number]


def test_several_codes_are_found() -> None:
    assert sentinels_of(np.concatenate([USUAL, [-999.0] * 3, [-9999.0] * 40])) == [-9999.0, -999.0]


def test_a_code_of_a_survey_is_found_beside_few_values() -> None:
    assert sentinels_of(np.array([0, 1, 2, 3, 4, 5] * 20 + [99] * 4, dtype=float)) == [99.0]


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param(np.append(USUAL, [-999.0] * 2), id="hardly again"),
        pytest.param(np.append(USUAL, [-1000.0] * 9), id="no code"),
        pytest.param(np.append(USUAL * 50, [999.0] * 9), id="within the range"),
        pytest.param(np.append(np.exp(USUAL), [999.0] * 9), id="within a heavy tail"),
        pytest.param(np.full(50, 99.0), id="constant"),
        pytest.param(np.array([99.0, 100.0, 98.0] * 20), id="a price"),
        pytest.param(np.zeros(0), id="nothing"),
    ],
)
def test_what_may_be_a_measurement_is_none(numbers: np.ndarray) -> None:
    assert sentinels_of(numbers) == []


def test_tables_and_series_warn_of_them_at_fit_alone() -> None:
    table = pd.DataFrame({"age": np.append(USUAL, [-999.0] * 10), "size": np.append(USUAL, USUAL[:10])})
    with pytest.warns(UserWarning, match=r"again and again, far outside of all others: 'age' \(-999\.0\)\. It is"):
        model = TabMAE(max_epochs=1, d_token=4).fit(table)
    series = table.set_index(pd.date_range("2024", periods=len(table), freq="h"))
    with pytest.warns(UserWarning, match=r"'age' \(-999\.0\)"):
        TimeSeriesMAE(horizon=2, max_epochs=1).fit(series)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.transform(table)
        TabMAE(max_epochs=1, d_token=4).fit(table.replace(-999.0, np.nan))


@pytest.mark.parametrize(
    ("levels", "strangers"),
    [
        pytest.param([*map(str, range(40)), "?", "n.d."], ["?", "n.d."], id="marks"),
        pytest.param([f"{number:.1f}" for number in range(40)], [], id="decimals"),
        pytest.param([f"-{number}e-3" for number in range(40)] + ["err"], ["err"], id="powers"),
        pytest.param([*map(str, range(10115, 10155))], None, id="codes"),
        pytest.param([f"0{number}" for number in range(40)] + ["?"], None, id="codes with zeros"),
        pytest.param([*map(str, range(40)), *"abcdef"], None, id="many others"),
        pytest.param(["1", "2", "3", "x"], None, id="few numbers"),
        pytest.param([True, False], None, id="bools"),
    ],
)
def test_a_few_texts_among_numbers_are_found(levels: list[object], strangers: list[str] | None) -> None:
    assert strangers_of(levels) == strangers


def test_tables_warn_of_numbers_as_text_unless_they_are_called_categories() -> None:
    sizes = [f"{size:.2f}" for size in USUAL]
    table = pd.DataFrame({"size": [*sizes[:-1], "err"], "age": USUAL})
    with pytest.warns(
        UserWarning, match=r"numbers as text, and are learnt as categories: 'size' \(but for 'err'\)\. Con"
    ):
        TabMAE(max_epochs=1, d_token=4).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TabMAE(max_epochs=1, d_token=4, categorical_features=["size"]).fit(table)


@pytest.mark.parametrize("text", ["<0.5", "> 900", "err"])
def test_values_beyond_a_limit_are_not_called_missing(text: str) -> None:
    with pytest.warns(UserWarning, match=r"numbers as text, and are learnt") as told:
        warn_of_strangers({"size": [*map(str, USUAL), text]}, "are learnt")
    assert ("half of the limit" in str(told[0].message)) == (text != "err")


@pytest.mark.parametrize(
    ("levels", "marks"),
    [
        pytest.param(["a", "?", "b", ""], ["?", ""], id="of files"),
        pytest.param(["nan", "a", "<NA>", " NaT ", "None"], ["nan", "<NA>", " NaT ", "None"], id="of casts"),
        pytest.param(["none", "no", "a?", "nano", "-", True, 1], [], id="levels"),
        pytest.param([*map(str, range(40)), "?"], [], id="told of as a number's"),
    ],
)
def test_texts_that_pandas_or_files_write_for_a_missing_value_are_found(levels: list[object], marks: list[str]) -> None:
    assert marks_of(levels) == marks


def test_tables_warn_of_marks_unless_the_column_is_called_a_category() -> None:
    table = np.array([["a", np.nan], ["b", "x"], ["a", "y"]] * 20)
    said = r"texts that may stand for a missing value: 1 \('nan'\)\. They are learnt as levels"
    with pytest.warns(UserWarning, match=said):
        model = TabMAE(max_epochs=1, d_token=4).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (model.transform(table) == table).all()
        TabMAE(max_epochs=1, d_token=4, categorical_features=[1]).fit(table)
        TabMAE(max_epochs=1, d_token=4).fit(pd.DataFrame(table).replace("nan", np.nan))


def test_tables_warn_once_of_levels_that_never_come_twice_unless_they_are_called_categories() -> None:
    names = pd.DataFrame({"id": [f"customer {row}" for row in range(60)], "x": np.arange(60.0)})
    names.loc[::3, "id"] = None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = TabMAE(max_epochs=1, d_token=4).fit(names)
        model.transform(names)
    assert [str(warning.message)[:46] for warning in told] == ["Columns 'id' hold another level in every row, "]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TabMAE(max_epochs=1, d_token=4, categorical_features=["id"]).fit(names)
        TabMAE(max_epochs=1, d_token=4).fit(names.assign(id=[*names["id"][:-1], "customer 1"]))
        TabMAE(max_epochs=1, d_token=4).fit(names.iloc[:28])


def test_series_warn_of_numbers_as_text_that_are_no_channel() -> None:
    stamps = pd.date_range("2024", periods=len(USUAL), freq="h")
    series = pd.DataFrame({"ds": stamps, "load": USUAL, "temp": ["err", *USUAL[1:].astype(str)], "where": "hall 3"})
    with pytest.warns(UserWarning, match=r"numbers as text, and are no channels: 'temp' \(but for 'err'\)\. Convert"):
        model = TimeSeriesMAE(horizon=2, max_epochs=0).fit(series)
    assert model.schema_.channels == ("load",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TimeSeriesMAE(horizon=2, max_epochs=0, target_cols=["load"]).fit(series)


@pytest.mark.parametrize("target_cols", [None, ["temp"]])
@pytest.mark.parametrize("wide", [False, True])
def test_the_text_that_leaves_series_without_a_channel_is_told_of(target_cols: list[str] | None, wide: bool) -> None:
    stamps = pd.date_range("2024", periods=len(USUAL), freq="h")
    series = pd.DataFrame({"ds": stamps, "temp": ["err", *USUAL[1:].astype(str)]})
    with (
        pytest.warns(UserWarning, match=r"are no channels: 'temp' \(but for 'err'\)\. Convert"),
        pytest.raises(DataError),
    ):
        TimeSeriesMAE(target_cols=target_cols).fit(series.set_index("ds") if wide else series)
