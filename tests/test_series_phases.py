"""Claims about odd stretches of a series that repeats itself: they hide neither themselves nor each other."""

import numpy as np
import pandas as pd

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.phases import far_cells

ODD = ((1100, 1103, 4.0), (900, 912, 3.0), (700, 724, -4.0))


def hours(seed: int, odd: tuple[tuple[int, int, float], ...], n_steps: int = 1344) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw hours of a day and a week with noise of .5, and which steps are odd."""
    rng, step = np.random.default_rng(seed), np.arange(n_steps)
    y = 20 + 4 * np.sin(2 * np.pi * step / 24) - 2 * (step // 24 % 7 >= 5) + rng.normal(0, 0.5, n_steps)
    is_odd = np.zeros(n_steps, dtype=bool)
    for begin, end, by in odd:
        y[begin:end] += by
        is_odd[begin:end] = True
    return pd.DataFrame({"y": y}, index=pd.date_range("2024-01-01", periods=n_steps, freq="h", name="ds")), is_odd


def test_odd_stretches_of_one_s_own_history_are_found() -> None:
    frame, is_odd = hours(0, ODD)
    flag = TimeSeriesMAE(max_epochs=0, random_state=0).fit(frame).detect(frame).points["flag"].to_numpy()
    assert flag[is_odd].mean() > 0.8
    assert flag[~is_odd].mean() < 0.01


def test_a_stretch_is_far_by_the_cycle_that_fits_best() -> None:
    frame, is_odd = hours(1, ODD)
    values = frame.to_numpy()
    far = far_cells(values, (24, 168))[:, 0]
    assert far[is_odd].mean() > 0.9 and not far[~is_odd].any()
    with_gap = np.where(np.arange(len(values))[:, None] % 50 == 7, np.nan, values)
    assert far_cells(with_gap, (24, 168))[is_odd].mean() > 0.7
    assert not far_cells(values[:90], (24, 168)).any()


def test_long_tails_and_series_without_a_cycle_have_no_far_stretches() -> None:
    rng = np.random.default_rng(0)
    wave = hours(0, ())[0].to_numpy()
    long_tails = wave + rng.standard_t(3, wave.shape)
    for values in (wave, long_tails, rng.normal(size=wave.shape).cumsum(0), np.zeros(wave.shape)):
        assert far_cells(values, (24, 168)).mean() < 0.002
    often = np.where(np.arange(len(wave))[:, None] % 40 < 8, wave + 9, wave)
    assert not far_cells(often, (24, 168)).any()
