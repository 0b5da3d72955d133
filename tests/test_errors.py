import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from tabmae import TabMAE, TimeSeriesMAE
from tabmae.errors import (
    DataError,
    ParameterError,
    SavedModelError,
    TabMAEError,
    TrainingError,
    check_choice,
    check_number,
    listed,
)

OPEN_UNIT: dict[str, Any] = {"low": 0, "high": 1, "low_open": True, "high_open": True}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (DataError, ValueError),
        (ParameterError, ValueError),
        (SavedModelError, ValueError),
        (TrainingError, RuntimeError),
    ],
)
def test_an_error_is_caught_as_ours_and_as_the_builtin_one(error: type[TabMAEError], builtin: type[Exception]) -> None:
    assert issubclass(error, TabMAEError)
    assert issubclass(error, builtin)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "'a'"),
        (list("abcde"), "'a', 'b', 'c', 'd', 'e'"),
        (list("abcdef"), "'a', 'b', 'c', 'd', 'e' and 1 more"),
        (range(1000), "0, 1, 2, 3, 4 and 995 more"),
        (np.array([1.5, 2.0]), "1.5, 2.0"),
        (np.array(["x", "y"]), "'x', 'y'"),
        (("a", 1, None), "'a', 1, None"),
    ],
)
def test_names_are_listed_as_their_user_wrote_them(names: Any, text: str) -> None:
    assert listed(names) == text


def test_a_long_name_is_cut() -> None:
    assert len(listed(["x" * 1000])) == 80


def test_a_choice_among_the_choices_passes() -> None:
    check_choice("mask", "grid", ("block", "grid"))
    check_choice("mask", np.str_("grid"), {"block": 1, "grid": 2})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("blok", "`mask` must be one of 'block', 'grid'; got 'blok'. Did you mean 'block'?"),
        ("GRID", "`mask` must be one of 'block', 'grid'; got 'GRID'. Did you mean 'grid'?"),
        ("zzz", "`mask` must be one of 'block', 'grid'; got 'zzz'. Pass one of these names."),
        (None, "`mask` must be one of 'block', 'grid'; got None. Pass one of these names."),
        (["grid"], "`mask` must be one of 'block', 'grid'; got ['grid']. Pass one of these names."),
    ],
)
def test_a_wrong_choice_names_the_choices_and_the_nearest(value: object, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_choice("mask", value, ("block", "grid"))
    assert str(caught.value) == message


def test_all_choices_are_listed_however_many() -> None:
    with pytest.raises(ParameterError, match="'a', 'b', 'c', 'd', 'e', 'f', 'g'; got 'z'"):
        check_choice("name", "z", "abcdefg")


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (0.5, OPEN_UNIT),
        (np.float32(0.5), OPEN_UNIT),
        (0, {"low": 0, "high": 1}),
        (1, {"low": 0, "high": 1}),
        (3, {"low": 1, "integer": True}),
        (np.int64(3), {"low": 1, "integer": True}),
        (-1e300, {}),
        (5, {"high": 5}),
    ],
)
def test_a_number_within_its_bounds_passes(value: object, bounds: dict[str, Any]) -> None:
    check_number("x", value, **bounds)


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (1.5, OPEN_UNIT, "`x` must lie in (0, 1); got 1.5."),
        (0, OPEN_UNIT, "`x` must lie in (0, 1); got 0."),
        (np.float64(1), OPEN_UNIT, "`x` must lie in (0, 1); got 1.0."),
        (float("nan"), {"low": 0, "high": 1, "high_open": True}, "`x` must lie in [0, 1); got nan."),
        (2, {"low": 0, "high": 1, "low_open": True}, "`x` must lie in (0, 1]; got 2."),
        ("0.5", OPEN_UNIT, "`x` must be a finite number in (0, 1); got '0.5'."),
        (True, OPEN_UNIT | {"high_open": False}, "`x` must be a finite number in (0, 1]; got True."),
        (np.True_, {"low": 0}, "`x` must be a finite number of at least 0; got True."),
        (-1, {"low": 0}, "`x` must be a finite number of at least 0; got -1."),
        (float("inf"), {"low": 0, "low_open": True}, "`x` must be a finite number above 0; got inf."),
        (0, {"low": 0, "low_open": True}, "`x` must be a finite number above 0; got 0."),
        (6, {"high": 5}, "`x` must be a finite number of at most 5; got 6."),
        (5, {"high": 5, "high_open": True}, "`x` must be a finite number below 5; got 5."),
        (3.0, {"low": 1, "integer": True}, "`x` must be an integer of at least 1; got 3.0."),
        (0, {"low": 1, "integer": True}, "`x` must be an integer of at least 1; got 0."),
        (2.5, {"low": 1, "high": 3, "integer": True}, "`x` must be an integer in [1, 3]; got 2.5."),
        (None, {"integer": True}, "`x` must be an integer; got None."),
        (1j, {}, "`x` must be a finite number; got 1j."),
    ],
)
def test_a_number_outside_its_bounds_is_refused(value: object, bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_number("x", value, **bounds)
    assert str(caught.value) == message


def test_the_hint_ends_the_message() -> None:
    with pytest.raises(ParameterError, match=r"got 1\.5\. Pass the share of cells to hide, for example 0\.5\.$"):
        check_number("mask_ratio", 1.5, **OPEN_UNIT, hint="Pass the share of cells to hide, for example 0.5.")


def test_a_warning_points_at_the_line_of_the_user_whatever_lies_between(tmp_path: Path) -> None:
    small: dict[str, Any] = {"max_epochs": 1, "d_token": 4, "experts": (), "random_state": 0}
    frame = pd.DataFrame({"x": np.arange(20.0), "c": list("ab") * 10})
    odd = frame.assign(c="new")
    model = TabMAE(**small, callbacks=[print]).fit(frame)
    series = pd.DataFrame({"ds": pd.date_range("2024-01-01", periods=60), "y": [*range(57), -999, -999, -999]})
    calls: list[Callable[[], Any]] = [
        lambda: TabMAE(**small).fit(frame.assign(e=np.nan)),
        lambda: model.transform(odd),
        lambda: model.set_output(transform="pandas").transform(odd),
        lambda: make_pipeline(FunctionTransformer(), model).transform(odd),
        lambda: TimeSeriesMAE(horizon=1, max_epochs=0, experts=(), random_state=0).fit(series),
        lambda: model.save(tmp_path / "model"),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
        places = {(warning.filename, warning.lineno) for warning in told}
        assert places == {(__file__, call.__code__.co_firstlineno)}, inspect.getsource(call)
