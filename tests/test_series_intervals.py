"""`tabmae.estimators.series.intervals`: cells of like difficulty share a calibration."""

import numpy as np
import torch
from scipy.stats import t as student_t

from tabmae.estimators.series.fitting import Judgement
from tabmae.estimators.series.intervals import DEGREES, N_KINDS, CellIntervals, kinds, steps_to_visible


def judged(n_windows: int = 400, n_steps: int = 12) -> Judgement:
    """Windows of one channel whose hidden points miss half as far as they are thought to, hidden runs twice."""
    generator = torch.Generator().manual_seed(0)
    shape = n_windows, n_steps, 1
    visible = torch.ones(shape, dtype=torch.bool)
    visible[: n_windows // 2, 4] = False
    visible[n_windows // 2 :, :9] = False
    hidden = ~visible
    hidden[:, 7:9] = False
    times = torch.full(shape, 0.5)
    times[n_windows // 2 :] = 2
    deviation = torch.full(shape, 0.1)
    noise = torch.from_numpy(student_t.rvs(DEGREES, size=shape, random_state=0)).float()
    values = torch.randn(shape, generator=generator)
    guess = values + noise * times * deviation
    return Judgement(values, visible, hidden, guess, guess, deviation, guess)


def test_the_distance_to_visible_cells_is_that_in_the_channel() -> None:
    visible = torch.tensor([[1, 0], [0, 0], [0, 0], [0, 0], [1, 0], [0, 0]], dtype=torch.bool)
    distance = steps_to_visible(visible)
    assert distance[:, 0].tolist() == [0, 1, 2, 1, 0, 1]
    assert bool((distance[:, 1] > 6).all())
    stacked = torch.stack([visible, visible.flip(0)])
    assert torch.equal(steps_to_visible(stacked)[1, :, 0], distance[:, 0].flip(0))


def test_cells_are_told_apart_by_their_deviation_and_by_how_far_they_are_from_visible_ones() -> None:
    visible = torch.tensor([True, False, False, False, False, False, False])[:, None]
    same = kinds(torch.full((7, 1), 0.1), visible)[:, 0]
    assert same.tolist() == [0, 0, 0, 3, 3, 3, 3]
    growing = kinds(torch.tensor([0.0, 0.1, 0.5, 0.1, 0.5, 0.7, 9])[:, None], visible)[:, 0]
    assert growing.tolist() == [0, 0, 1, 3, 4, 5, 5]


def test_points_and_runs_have_intervals_of_their_own() -> None:
    intervals = CellIntervals.fit(judged(), 1)
    visible = torch.ones(30, 1, dtype=torch.bool)
    visible[3], visible[10:20] = False, False
    half = intervals.half_width(torch.full((30, 1), 0.1), visible, 0.8)[:, 0]
    asked = 0.1 * student_t.ppf(0.9, DEGREES)
    np.testing.assert_allclose(half[3], 0.5 * asked, rtol=0.25)
    np.testing.assert_allclose(half[14], 2 * asked, rtol=0.25)


def test_draws_spread_as_far_as_the_intervals_reach() -> None:
    intervals = CellIntervals.fit(judged(), 1)
    visible = torch.ones(1, 30, 1, dtype=torch.bool)
    visible[:, 3], visible[:, 10:20] = False, False
    visible, deviation = visible.repeat(4000, 1, 1), torch.full((4000, 30, 1), 0.1)
    noise = torch.randn(deviation.shape, generator=torch.Generator().manual_seed(1))
    drawn = intervals.spread(noise, deviation, visible) * deviation
    half = intervals.half_width(deviation[0], visible[0], 0.8)[:, 0]
    for step in (3, 14):
        assert abs(float((drawn[:, step, 0].abs() <= half[step]).float().mean()) - 0.8) < 0.03


def test_without_judges_intervals_are_what_the_model_says() -> None:
    intervals = CellIntervals.fit(None, 2)
    assert len(intervals.calibrations) == N_KINDS
    half = intervals.half_width(torch.full((5, 2), 0.3), torch.zeros(5, 2, dtype=torch.bool), 0.9)
    np.testing.assert_allclose(half, 0.3 * student_t.ppf(0.95, DEGREES), rtol=1e-6)
