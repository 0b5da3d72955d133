"""`tabmae.windows.calendar`: what a stamp tells of its place in the week and the year."""

import numpy as np
import pandas as pd
import pytest

from tabmae.windows import calendar_columns, unseen_cycles


@pytest.mark.parametrize(
    ("freq", "n_steps", "context", "expected"),
    [
        ("h", 30_000, 720, ("year",)),
        ("h", 20_000, 720, ()),
        ("h", 336, 100, ("week",)),
        ("h", 335, 100, ()),
        ("h", 336, 168, ()),
        ("10min", 5_000, 720, ("week",)),
        ("10min", 5_000, 1008, ()),
        ("D", 1100, 300, ("year",)),
        ("D", 1100, 366, ()),
        ("D", 21, 0, ("week",)),
        ("D", 20, 0, ()),
        ("B", 790, 100, ("year",)),
        ("B", 780, 100, ()),
        ("MS", 500, 12, ()),
        (1, 10_000, 10, ()),
        (None, 10_000, 10, ()),
    ],
)
def test_cycles_are_those_that_series_hold_often_enough_and_no_context_holds(
    freq: str | int | None, n_steps: int, context: int, expected: tuple[str, ...]
) -> None:
    assert unseen_cycles(freq, n_steps, context) == expected


def test_columns_follow_the_stamp_alone() -> None:
    stamps = pd.date_range("2021-06-01", periods=800, freq="D")
    both = calendar_columns(stamps, ("week", "year"))
    assert both.shape == (800, 11)
    np.testing.assert_array_equal(both[:, :7].sum(1), 1)
    np.testing.assert_array_equal(both[::7, :7], both[:1, :7].repeat(len(stamps[::7]), 0))
    np.testing.assert_allclose(both[365, 7:], both[0, 7:], atol=0.06)
    assert np.abs(both[182, 7:8] + both[0, 7:8]) < 0.06
    np.testing.assert_array_equal(calendar_columns(stamps[100:101], ("week", "year")), both[100:101])
    np.testing.assert_array_equal(calendar_columns(stamps.to_period("D"), ("year",)), both[:, 7:])
    assert calendar_columns(stamps, ()).shape == (800, 0)
