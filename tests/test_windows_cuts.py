"""Windows cover every step of every series, stay within one, and join again to what they were cut from."""

import numpy as np
import pytest

from tabmae.windows import join_windows, window_starts


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("window", [1, 4, 8])
def test_windows_cover_every_step_within_one_series(window: int, stride: int) -> None:
    lengths = np.array([1, 8, 9, 30, 4, 17])
    ends = np.cumsum(lengths)
    starts = window_starts(lengths, window, min(stride, window))
    covered = np.zeros(ends[-1], dtype=bool)
    for start in starts:
        series = np.searchsorted(ends, start, side="right")
        begin = ends[series] - lengths[series]
        assert start == begin if lengths[series] < window else start + window <= ends[series]
        covered[start : min(start + window, ends[series])] = True
    assert covered.all()
    assert (np.diff(starts) > 0).all() and starts.dtype == np.int64


def test_windows_are_a_stride_apart_and_the_last_ends_with_its_series() -> None:
    assert window_starts([10, 3, 4], 4, 3).tolist() == [0, 3, 6, 10, 13]
    assert window_starts([11], 4, 3).tolist() == [0, 3, 6, 7]


def test_joined_windows_are_what_they_were_cut_from() -> None:
    lengths, window = [12, 3, 7], 5
    values = np.random.default_rng(0).normal(size=(22, 2))
    starts = window_starts(lengths, window, 2)
    padded = np.concatenate([values, np.full((window, 2), 1e9)])
    pieces = padded[starts[:, None] + np.arange(window)]
    weight = np.array([1.0, 2, 3, 2, 1])
    np.testing.assert_allclose(join_windows(pieces, starts, lengths, weight), values, rtol=1e-13)


def test_overlaps_are_weighed_by_the_place_in_the_window() -> None:
    pieces = np.array([[[1.0], [1.0]], [[4.0], [4.0]]])
    joined = join_windows(pieces, np.array([0, 1]), [3], np.array([1.0, 2.0]))
    assert joined.ravel().tolist() == [1.0, 2.0, 4.0]


def test_a_step_without_a_window_is_missing() -> None:
    joined = join_windows(np.ones((1, 2, 1)), np.array([0]), [3], np.ones(2))
    assert np.isnan(joined.ravel()).tolist() == [False, False, True]
