"""Structures carry on what a series is made of, and the one that is likely is the one that is believed."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from torch import Tensor

from tabmae.experts.structural import LEAST_STEPS, REACHES, Structural, Structure, phases_alike, structures_of

Matrix = NDArray[np.float64]


def ahead(values: Matrix, horizon: int, season: int = 0) -> Matrix:
    """Forecast of one series (T,) by the structures that it has."""
    history = torch.from_numpy(values)[None, :, None]
    fitted = Structural.fit([values[:, None]], horizon, season)
    found = fitted.forecast(history, torch.ones_like(history) > 0, torch.zeros(1, horizon, 1).double())
    return found[0, :, 0].numpy()


@pytest.mark.parametrize("season", [0, 4])
def test_lines_constants_and_seasons_go_on(season: int) -> None:
    step, wave = np.arange(46.0), np.resize([1.0, -2.0, 0.5, 0.5], 46)
    noise = 0.01 * np.random.default_rng(0).normal(size=46)
    for values in (np.full(46, 7.0), 3 + 0.5 * step + noise, *([wave + 0.1 * step + noise] if season else [])):
        np.testing.assert_allclose(ahead(values[:40], 6, season), values[40:], atol=0.1)


def test_a_smooth_season_is_seen_in_a_cycle_and_a_half() -> None:
    noise = 0.05 * np.random.default_rng(0).normal(size=48)
    wave = np.sin(2 * np.pi * np.arange(48) / 24) + noise
    np.testing.assert_allclose(ahead(wave[:36], 12, season=24), wave[36:], atol=0.25)


@pytest.mark.parametrize("reach", [0.0, *REACHES])
@pytest.mark.parametrize("season", [2, 7, 24])
def test_phases_are_alike_by_their_distance_on_the_circle(season: int, reach: float) -> None:
    gap = torch.arange(-2.0 * season, 2 * season + 1, dtype=torch.float64)
    alike = phases_alike(gap, season, reach)
    nearer = torch.minimum(gap % season, -gap % season)
    torch.testing.assert_close(alike, phases_alike(nearer, season, reach))
    assert (alike[nearer == 0] == 1).all() and (alike[nearer > 0] < 1).all()
    assert (alike[nearer.argsort(stable=True)].diff() <= 1e-12).all()


def test_what_walks_goes_on_from_its_last_step_and_noise_from_its_mean() -> None:
    rng = np.random.default_rng(1)
    walk, noise = rng.normal(size=200).cumsum(), rng.normal(size=200)
    assert np.abs(ahead(walk, 12) - walk[-1]).max() < 1.0 < walk.std()
    assert np.abs(ahead(noise, 12) - noise.mean()).max() < 0.2


def test_forecasts_move_with_the_level_and_the_scale_of_a_series() -> None:
    values = np.random.default_rng(2).normal(size=60).cumsum()
    np.testing.assert_allclose(ahead(1000 + 7 * values, 5), 1000 + 7 * ahead(values, 5), rtol=1e-6)


def test_the_evidence_is_the_density_of_the_steps_at_the_noise_that_suits_best() -> None:
    values = np.random.default_rng(3).normal(size=30).cumsum()
    values -= values.mean()
    kinds = [
        Structure(walk=0.5),
        Structure(has_slope=1.0, turn=0.1, has_season=1.0, moving=0.05),
        Structure(0, 0, 0, 20.0, 0.8),
        Structure(walk=0.1, has_season=1.4, moving=0.05),
    ]
    model = Structural(len(kinds), 1, 1, 5, 30)
    model.structures[:] = torch.tensor(kinds, dtype=torch.float64)
    found = model._asked(torch.from_numpy(values[:, None]), 1)[0][0].numpy()
    step = torch.arange(1.0, 31, dtype=torch.float64)
    densities = []
    for kind in kinds:
        covariance = kind.covariance(step, step, 5, 30).numpy() + np.eye(30)
        size = values @ np.linalg.solve(covariance, values) / 30
        densities.append(multivariate_normal(np.zeros(30), size * covariance, allow_singular=True).logpdf(values))
    np.testing.assert_allclose(found - found[0], np.array(densities) - densities[0], rtol=1e-6)


def test_structures_of_many_series_are_those_that_most_of_them_have() -> None:
    rng = np.random.default_rng(4)
    walks, noises = (
        [part[:, None] for part in found] for found in (rng.normal(size=(60, 20)).cumsum(1), rng.normal(size=(60, 20)))
    )

    def usual_walk(series: list[Matrix]) -> float:
        fitted = Structural.fit(series, 4, 0)
        return float((fitted.odds.softmax(0) * fitted.structures[:, 0]).sum())

    assert usual_walk(noises) < 0.2 < 2 < usual_walk(walks)


def test_what_comes_before_the_first_real_step_is_not_believed_and_too_little_not_asked() -> None:
    values = np.random.default_rng(5).normal(size=40).cumsum()
    fitted = Structural.fit([values[:, None]], 6, 0)
    history = torch.from_numpy(values)[None, :, None].repeat(3, 1, 1)
    observed = torch.ones_like(history) > 0
    observed[1, :15] = False
    observed[2, : 41 - LEAST_STEPS] = False
    otherwise = torch.full((3, 6, 1), 9.0, dtype=torch.float64)

    def found(history: Tensor) -> Tensor:
        return fitted.forecast(history, observed, otherwise)

    changed = history.clone()
    changed[1, :15] = 50.0
    torch.testing.assert_close(found(changed), found(history))
    assert (found(history)[2] == 9).all() and (found(history)[:2] != 9).all()


def test_only_series_with_a_season_are_asked_for_one() -> None:
    assert not any(each.has_season for each in structures_of(0))
    assert 2 * sum(each.has_season for each in structures_of(12)) > len(structures_of(12))
    assert {each.has_season for each in structures_of(7)} == {0.0, 1.0}
    assert {each.has_season for each in structures_of(12)} == {0.0, 1.0, *(1 + reach for reach in REACHES)}


def test_the_deviation_is_that_of_the_steps_ahead_given_those_that_are_known() -> None:
    values = np.random.default_rng(6).normal(size=30).cumsum()
    model = Structural(1, 4, 1, 5, 30)
    model.structures[:] = torch.tensor([Structure(walk=0.5, has_season=1.0, moving=0.05)], dtype=torch.float64)
    history = torch.from_numpy(values)[None, :, None]
    found = model.ahead(history, torch.ones_like(history) > 0, 4)[1][0, :, 0].numpy()
    step = torch.arange(1.0, 35, dtype=torch.float64)
    every = Structure(*model.structures[0].tolist()).covariance(step, step, 5, 30).numpy() + np.eye(34)
    known, centred = every[:30, :30], values - values.mean()
    left = every[30:, 30:] - every[30:, :30] @ np.linalg.solve(known, every[:30, 30:])
    size = centred @ np.linalg.solve(known, centred) / 29
    expected = np.sqrt(size * left.diagonal())
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-6)
    assert found[0] == pytest.approx(expected[0], rel=0.15)


def test_expected_paths_of_a_walk_hold_together_and_are_as_wide_as_expected() -> None:
    model = Structural(1, 8, 1, 0, 30)
    model.structures[:] = torch.tensor([Structure(walk=100.0)], dtype=torch.float64)
    paths = model.paths(4000, 30, 8)
    torch.testing.assert_close(paths.std(0), torch.ones(8).double(), atol=0.05, rtol=0)
    assert torch.corrcoef(paths[:, -2:].T)[0, 1] > 0.9


def test_noise_that_has_grown_is_expected_to_be_large_and_even_noise_to_stay() -> None:
    noise = np.random.default_rng(7).normal(size=90)
    history = torch.from_numpy(np.stack([noise, np.linspace(0.2, 3, 90) * noise, np.linspace(3, 0.2, 90) * noise]))
    model = Structural(1, 3, 1, 0, 90)
    even, grown, fallen = model.ahead(history[:, :, None], torch.ones(3, 90, 1) > 0, 3)[1][:, 0, 0].tolist()
    assert even == pytest.approx(1, rel=0.2)
    assert grown > 1.15 * history[1].std() and fallen < 0.8 * history[2].std()
