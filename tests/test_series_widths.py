"""Intervals of forecasts are as wide as little is known: short histories, few origins, origins that overlap."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.origins import Origins
from tabmae.estimators.series.widths import drawn_of, independent_residuals, local_scale, quantiles

pytestmark = pytest.mark.usefixtures("no_bridges")

EXPERTS_ONLY: dict[str, Any] = {"max_epochs": 0, "random_state": 0}
BOUNDS = ["TimeSeriesMAE-lo-80", "TimeSeriesMAE-hi-80", "TimeSeriesMAE-lo-95", "TimeSeriesMAE-hi-95"]


def weekly(names: list[str], n_steps: int, rng: np.random.Generator, scale: float = 0.0) -> pd.DataFrame:
    """Draw daily series with a week in them, each begun on its own day; `scale` spreads their logarithms."""
    frames = []
    for name in names:
        step = np.arange(n_steps) + rng.integers(7)
        values = 100 + 10 * np.sin(2 * np.pi * step / 7) + 2 * rng.normal(size=n_steps)
        stamps = pd.date_range("2024-01-01", periods=n_steps, freq="D")
        frames.append(pd.DataFrame({"unique_id": name, "ds": stamps, "y": np.exp(scale * rng.normal()) * values}))
    return pd.concat(frames, ignore_index=True)


def share_held(found: pd.DataFrame, came: pd.DataFrame, level: int = 80) -> float:
    both = found.merge(came, on=["unique_id", "ds"])
    return float(both["y"].between(both[f"TimeSeriesMAE-lo-{level}"], both[f"TimeSeriesMAE-hi-{level}"]).mean())


def width(found: pd.DataFrame, level: int = 80) -> float:
    return float((found[f"TimeSeriesMAE-hi-{level}"] - found[f"TimeSeriesMAE-lo-{level}"]).mean())


@pytest.mark.parametrize("scale", [0.0, 1.5], ids=["one scale", "many scales"])
def test_the_less_of_a_new_series_is_known_the_wider_its_intervals_are(scale: float) -> None:
    rng = np.random.default_rng(0)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY, horizon=7).fit(
        weekly([f"s{i}" for i in range(20)], 250 if scale else 120, rng, scale)
    )
    widths = []
    for length in (1, 3, 5, 8, 14, 120):
        whole = weekly([f"n{i}" for i in range(80)], length + 7, rng, scale)
        history = whole.groupby("unique_id").cumcount() < length
        found = fitted.forecast(whole[history])
        assert share_held(found, whole[~history]) > 0.65
        widths.append(width(found))
    assert widths[0] > 2 * widths[-1] and widths[1] > (1.0 if scale else 1.5) * widths[-1]
    assert scale or widths[-1] < 6.5


def test_a_series_without_an_observed_value_is_as_uncertain_as_the_panel() -> None:
    rng = np.random.default_rng(0)
    panel = weekly([f"s{i}" for i in range(10)], 120, rng)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY, horizon=7).fit(panel)
    empty = weekly(["new"], 60, rng).assign(y=np.nan)
    assert width(fitted.forecast(empty)) > 2 * panel["y"].std()


def test_a_short_series_of_fit_is_not_thought_to_be_sure() -> None:
    rng = np.random.default_rng(0)
    for length in (3, 8):
        whole = pd.concat(
            [weekly([f"s{i}" for i in range(30)], 120, rng), weekly([f"n{i}" for i in range(30)], length + 7, rng)]
        )
        left = whole.groupby("unique_id").cumcount(ascending=False)
        fitted = TimeSeriesMAE(**EXPERTS_ONLY, horizon=7).fit(whole[left >= 7])
        short = whole["unique_id"].str.startswith("n")
        assert share_held(fitted.forecast(), whole[(left < 7) & short]) > 0.7
        assert 0.7 < share_held(fitted.forecast(), whole[(left < 7) & ~short]) < 0.9


def test_steps_that_are_filled_do_not_count_as_calm() -> None:
    history = torch.zeros(1, 20, 1)
    observed = torch.zeros(1, 20, 1, dtype=torch.bool)
    history[0, -4:, 0], observed[0, -4:] = torch.tensor([-1.0, 1, -1, 1]), True
    one = torch.ones(1)
    whole = local_scale(history[:, -4:], observed[:, -4:], one, one)
    assert whole.item() == pytest.approx((4 / 3) ** 0.5)
    assert 1 < local_scale(history, observed, one, one).item() < whole.item()
    assert local_scale(history, observed & False, one, one).item() == 1


def test_few_origins_tell_levels_apart() -> None:
    for n_steps in (36, 60):
        rng = np.random.default_rng(n_steps)
        values = 50 + 4 * np.sin(2 * np.pi * np.arange(n_steps) / 12) + rng.normal(size=n_steps)
        frame = pd.DataFrame({"y": values}, index=pd.date_range("2015-01-01", periods=n_steps, freq="MS"))
        fitted = TimeSeriesMAE(**EXPERTS_ONLY, horizon=12).fit(frame)
        found = fitted.forecast()
        assert width(found, 95) > 1.3 * width(found, 80)


def test_a_forecast_lies_within_its_intervals() -> None:
    rng = np.random.default_rng(4)
    ramp = np.r_[np.zeros(250), 0.5 * np.arange(150)] + rng.normal(size=400)
    frame = pd.DataFrame({"y": ramp}, index=pd.date_range("2024-01-01", periods=400, freq="h"))
    found = TimeSeriesMAE(**EXPERTS_ONLY, horizon=24).fit(frame).forecast()
    low80, high80, low95, high95 = (found[name] for name in BOUNDS)
    mean = found["TimeSeriesMAE"]
    assert ((low95 <= low80) & (low80 <= mean) & (mean <= high80) & (high80 <= high95)).all()


def origins_at(steps: torch.Tensor) -> Origins:
    no = torch.zeros(len(steps))
    return Origins(no, no, no, no, no.long(), steps, weighed=no, scales=no)


def test_origins_of_a_walk_count_less_the_farther_they_look_ahead() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=1024))
    walk, steps = noise.cumsum(0), torch.arange(1000)
    ahead = walk[steps[:, None] + torch.arange(1, 25)] - walk[steps][:, None]
    told = independent_residuals(ahead[:, :, None], origins_at(steps))
    assert told[0] > 800 and 30 < told[-1] < 150
    white = noise[steps[:, None] + torch.arange(1, 25)]
    assert (independent_residuals(white[:, :, None], origins_at(steps)) > 800).all()


def test_quantiles_of_many_residuals_are_theirs_and_of_few_those_of_students_t() -> None:
    paths = torch.from_numpy(np.random.default_rng(0).exponential(size=(5000, 4, 1)) - 1).float()
    many = quantiles(paths, [0.1, 0.9], 4, torch.full((4,), 5000.0))
    torch.testing.assert_close(many[:, 0, 0], torch.tensor([0.105 - 1, 2.303 - 1]), atol=0.06, rtol=0)
    few = quantiles(paths, [0.025, 0.1, 0.9, 0.975], 8, torch.full((4,), 2.0))[:, :, 0]
    torch.testing.assert_close(few[0], -few[3], atol=0, rtol=0.15)
    assert (few[3] > 1.5 * few[2]).all() and (few[:, 7].abs() > few[:, 3].abs()).all()


def test_paths_are_drawn_as_wide_as_the_quantiles_are() -> None:
    paths = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 3, 1))).float() + 1
    for n in (4.0, 4000.0):
        told = torch.full((3,), n)
        drawn = drawn_of(paths, told, torch.Generator().manual_seed(0))
        low, high = quantiles(paths, [0.1, 0.9], 3, told)[:, :, 0]
        held = ((drawn[..., 0] > low) & (drawn[..., 0] < high)).float().mean()
        assert held == pytest.approx(0.8, abs=0.05)
