"""Level and seasons of whole series: what they say far from observed cells, and how it is weighed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tabmae import TimeSeriesMAE, load
from tabmae.estimators.series.completing import LinePrior
from tabmae.experts import seasonal
from tabmae.experts.seasonal import Cycles, Seasonal, circular, distances, stretches

SEASON = 12


def holed(n_steps: int, n_channels: int = 2, missing: float = 0.4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_steps, n_channels))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def wave(n_steps: int, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """Two channels of one season, of standard deviation 1 without the noise."""
    step, rng = np.arange(n_steps), np.random.default_rng(seed)
    clean = np.stack([np.sin(2 * np.pi * step / SEASON), np.cos(2 * np.pi * step / SEASON)], 1) * 2**0.5
    return clean + noise * rng.normal(size=clean.shape)


def blacked_out(values: np.ndarray, start: int, length: int) -> np.ndarray:
    holes = values.copy()
    holes[start : start + length] = np.nan
    return holes


@pytest.mark.parametrize(("season", "most"), [(1, 1), (1, 5), (7, 3), (SEASON, 2)])
def test_cells_lie_between_the_means_of_the_nearest_observed_ones_of_their_phase(season: int, most: int) -> None:
    values = holed(100)
    at = np.nonzero(np.isnan(values))
    found, silent = Cycles.of(values, season).around(at, most)
    assert not silent.any()
    for step, channel, answer in zip(*at, found, strict=True):
        phase = np.arange(step % season, len(values), season)
        known = phase[np.isfinite(values[phase, channel])]
        before, after = known[known < step][-most:], known[known > step][:most]
        means = [values[side, channel].mean() for side in (before, after) if len(side)]
        if len(means) == 2:
            share = (step - before.mean()) / (after.mean() - before.mean())
            means = [(1 - share) * means[0] + share * means[1]]
        assert answer == pytest.approx(means[0] if means else 0)


def test_the_mean_of_a_phase_is_that_of_its_observed_cells_shrunk_by_one() -> None:
    values = holed(100)
    at = np.nonzero(np.isnan(values))
    found, silent = Cycles.of(values, 7).mean(at)
    for step, channel, answer, doubt in zip(*at, found, silent, strict=True):
        phase = values[step % 7 :: 7, channel]
        assert answer == pytest.approx(np.nansum(phase) / (np.isfinite(phase).sum() + 1))
        assert doubt == pytest.approx(1 / (np.isfinite(phase).sum() + 1))


def test_means_of_long_seasons_are_smoothed_in_a_circle() -> None:
    values = np.arange(10.0)[:, None]
    by_hand = [sum(values[(place + k) % 10, 0] for k in (-2, -1, 0, 1, 2)) for place in range(10)]
    assert circular(values, 2)[:, 0] == pytest.approx(by_hand)


def test_distances_are_the_harmonic_mean_of_those_to_either_side() -> None:
    seen = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]], dtype=bool)
    assert distances(seen)[:, 0].tolist() == pytest.approx([0, 1.5, 2, 1.5, 0])
    assert np.isinf(distances(seen)[:, 1]).all()
    assert distances(seen)[:, 2].tolist() == [6, 4, 2, 0, 2]


def test_classes_of_distances_follow_each_other_and_fit_into_the_series() -> None:
    classes = list(stretches(10_000, 48))
    assert classes[:2] == [(2, 4, 8), (4, 8, 16)]
    assert all(above[0] == below[1] for below, above in pairwise(classes))
    assert all(seasonal.LEAST_STRETCHES * length <= 10_000 and high <= length / 2 for _, high, length in classes)
    assert not list(stretches(40, 48))


def test_a_long_gap_of_a_season_is_filled_by_it_and_the_error_is_known() -> None:
    truth = wave(2000, noise=0.3)
    model = Seasonal.fit([blacked_out(truth, 700, 200)], [SEASON], 24)
    found = model.prior([blacked_out(truth, 700, 200)])
    inner = slice(720, 880)
    error = ((found.mean - truth)[inner] ** 2).mean()
    assert error == pytest.approx(0.3**2, rel=0.25)
    assert found.variance[inner].mean() == pytest.approx(error, rel=0.25)


def test_the_error_is_known_for_each_class_of_distances() -> None:
    rng = np.random.default_rng(0)
    values = np.zeros((40_000, 1))
    for i in range(1, len(values)):
        values[i] = 0.98 * values[i - 1] + 0.2 * rng.normal()
    model = Seasonal.fit([values[:15_000]], [], 16)
    later, step = values[15_000:], np.arange(25_000)
    found = model.prior([np.where((step % 100 < 60)[:, None], np.nan, later)])
    before = step % 100 + 1
    away, gap = 2 * before * (61 - before) / 61, (before < 61) & (step >= 100)
    for low, high in ((4, 8), (8, 32)):
        cells = gap & (away > low) & (away <= high)
        error = ((found.mean - later)[cells] ** 2).mean()
        assert found.variance[cells].mean() == pytest.approx(error, rel=0.1)
    assert found.variance[130] > 1.5 * found.variance[103]


def test_a_season_of_four_hidden_stretches_is_seen_between_them() -> None:
    step, rng = np.arange(4000), np.random.default_rng(0)
    values = np.stack([np.sign(np.sin(2 * np.pi * step / 32)), rng.normal(size=4000)], 1)
    values[:, 0] += 0.1 * rng.normal(size=4000)
    model = Seasonal.fit([values], [32], 24)
    assert 4 * next(stretches(4000, 24))[2] == 32
    assert model.variance[0, 0] < 0.05


def test_bounds_widen_where_phases_were_hardly_seen_and_beyond_what_was_learnt() -> None:
    truth = wave(1000)
    model = Seasonal.fit([truth], [SEASON], 24)
    learnt = model.prior([blacked_out(truth, 400, 60)]).variance[430, 0]
    assert learnt < 0.05
    unseen = model.prior([blacked_out(truth[:300], 6, 294)]).variance[:, 0]
    assert unseen[200] > 0.5
    assert learnt < model.prior([blacked_out(truth, 100, 800)]).variance[500, 0] < 1


def test_a_channel_of_few_cells_is_not_believed_by_luck() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((2000, 40)) < 0.005, rng.normal(size=(2000, 40)), np.nan)
    assert np.isinf(Seasonal.fit([values], [SEASON], 24).variance).all()


def test_noise_has_no_prior() -> None:
    values = np.random.default_rng(0).normal(size=(2000, 2))
    found = Seasonal.fit([values], [SEASON], 24).prior([blacked_out(values, 700, 300)])
    assert np.isinf(found.variance).all()
    assert (found.mean == 0).all()


def test_near_cells_and_channels_never_observed_have_no_prior() -> None:
    truth = wave(2000)
    model = Seasonal.fit([truth], [SEASON], 24)
    holes = blacked_out(truth, 700, 3)
    holes[:, 1] = np.nan
    assert np.isinf(model.prior([holes]).variance).all()
    holes = blacked_out(truth, 700, 5)
    assert np.flatnonzero(np.isfinite(model.prior([holes]).variance[:, 0])).tolist() == [701, 702, 703]


def test_series_do_not_feel_each_other() -> None:
    first, second = blacked_out(wave(600), 100, 200), blacked_out(wave(500, seed=1), 300, 100)
    model = Seasonal.fit([wave(2000)], [SEASON], 24)
    both = model.prior([first, second])
    assert (both.mean[600:] == model.prior([second]).mean).all()
    assert (both.variance[:600] == model.prior([first]).variance).all()


def test_channels_answered_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    holes = blacked_out(wave(600), 100, 200)
    model = Seasonal.fit([wave(2000)], [SEASON], 24)
    whole = model.prior([holes])
    monkeypatch.setattr(seasonal, "MAX_AT_ONCE", 1)
    parts = model.prior([holes])
    assert (parts.mean == whole.mean).all() and (parts.variance == whole.variance).all()


def test_series_too_short_teach_nothing() -> None:
    values = wave(60)
    found = Seasonal.fit([values], [SEASON], 24).prior([blacked_out(values, 10, 40)])
    assert np.isinf(found.variance).all()


def test_the_prior_counts_as_far_as_windows_know_less() -> None:
    prior = LinePrior(torch.full((3, 1), 2.0), torch.tensor([[0.25], [0.25], [torch.inf]]))
    mean, deviation = prior.inform(torch.ones(3, 1), torch.tensor([[0.05], [1.0], [1.0]]))
    assert mean[:, 0].tolist() == pytest.approx([1, 2, 1], abs=1e-3)
    assert deviation[:, 0].tolist() == pytest.approx([0.05, 0.5, 1], abs=1e-3)


@pytest.fixture(scope="module")
def sensors() -> pd.DataFrame:
    """A season on a slow drift, hour by hour."""
    drift = np.sin(np.arange(3000) / 400)[:, None]
    index = pd.date_range("2024-01-01", periods=3000, freq="h", tz="Europe/Berlin")
    day = np.sin(2 * np.pi * np.arange(3000) / 24)[:, None] * [1.0, 3.0]
    noise = np.random.default_rng(0).normal(0, 0.2, (3000, 2))
    return pd.DataFrame(20 + 5 * (day + drift + noise), index=index, columns=["roof", "room"])


def test_blackouts_longer_than_a_window_follow_the_season(sensors: pd.DataFrame) -> None:
    holes, gap = sensors.copy(), slice(1200, 1500)
    holes.iloc[gap] = np.nan
    model = TimeSeriesMAE(max_epochs=0, random_state=0).fit(holes)
    assert model.size_.window < 150
    filled = model.impute(holes)
    error = ((filled - sensors).iloc[gap] ** 2).mean()
    assert (error < 0.25 * sensors.var()).all()
    lower, upper = model.predict_interval(holes, 0.8)
    assert 0.65 < ((lower <= sensors) & (sensors <= upper)).iloc[gap].to_numpy().mean() < 0.95
    drawn = model.sample(holes, 1, random_state=0)[0]
    assert (((drawn - sensors).iloc[gap] ** 2).mean() < 0.5 * sensors.var()).all()


def test_a_saved_model_fills_long_gaps_the_same(sensors: pd.DataFrame, tmp_path: Path) -> None:
    holes = sensors.iloc[:1500].copy()
    holes.iloc[600:800] = np.nan
    model = TimeSeriesMAE(max_epochs=0, random_state=0).fit(holes)
    assert model.seasonal_ is not None and np.isfinite(model.seasonal_.variance).any()
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.impute(holes), model.impute(holes))
    for one, other in zip(loaded.predict_interval(holes), model.predict_interval(holes), strict=True):
        pd.testing.assert_frame_equal(one, other)
