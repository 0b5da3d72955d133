"""The straight line across gaps: where it is, what held-out runs say of it, and what is filled then."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tabmae import TimeSeriesMAE, load
from tabmae.estimators.series.bridging import LEAST_RUNS, hidden_runs, run_lengths
from tabmae.experts.bridges import Bridge, Bridges, HeldOut, bridged

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 4, "max_epochs": 0, "random_state": 0}


def holed(n_steps: int = 60, n_channels: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n_steps, n_channels, generator=generator)
    return values, torch.rand(values.shape, generator=generator) > 0.4


def frame(values: np.ndarray, hidden: np.ndarray, freq: str = "D") -> pd.DataFrame:
    index = pd.date_range("1990-01-01", periods=len(values), freq=freq)
    return pd.DataFrame({"y": np.where(hidden, np.nan, values)}, index=index)


def within(n_steps: int, length: int) -> np.ndarray:
    """One gap, in the second third."""
    step = np.arange(n_steps) - n_steps // 3
    return (step >= 0) & (step < length)


def runs_of(length: int, n_runs: int, *, line_is_right: bool) -> HeldOut:
    """Held-out runs of one channel whose truth is on the bridge, or where the answer says, about."""
    rng, n_cells = np.random.default_rng(0), length * n_runs
    answer, bridge = rng.normal(size=n_cells), rng.normal(size=n_cells)
    value = (bridge if line_is_right else answer) + 0.1 * rng.normal(size=n_cells)
    whole, flag = np.full(n_cells, length), np.ones(n_cells, dtype=bool)
    fold = np.arange(n_cells) // length % 2
    return HeldOut(value, answer, answer**0, bridge, whole, value**0, whole, fold, flag, 0 * whole)


def test_gaps_are_spanned_between_the_nearest_visible_cells() -> None:
    values, visible = holed()
    found = bridged(values, visible)
    for c in range(2):
        known = np.flatnonzero(visible[:, c].numpy())
        inner = slice(known[0], known[-1] + 1)
        expected = np.interp(np.arange(60), known, values[known, c].numpy())
        np.testing.assert_allclose(found.mean[inner, c], expected[inner], rtol=1e-5, atol=1e-6)
        for step in np.flatnonzero(~visible[inner, c].numpy()) + known[0]:
            before, after = known[known < step][-1], known[known > step][0]
            assert found.gap[step, c] == after - before - 1
            assert found.apart[step, c] == pytest.approx(2 / (1 / (step - before) + 1 / (after - step)))
    assert not found.gap[visible].any()


def test_no_bridge_leads_out_of_a_series() -> None:
    values, visible = torch.arange(12.0)[:, None], torch.ones(12, 1, dtype=torch.bool)
    visible[[0, 1, 4, 5, 6, 9]] = False
    owner = torch.arange(12) // 6
    assert bridged(values, visible, owner).gap[:, 0].nonzero()[:, 0].tolist() == [9]
    assert bridged(values, visible).gap[:, 0].nonzero()[:, 0].tolist() == [4, 5, 6, 9]


def test_an_invisible_value_changes_no_bridge() -> None:
    values, visible = holed()
    changed = torch.where(visible, values, torch.nan)
    for one, other in zip(bridged(values, visible), bridged(changed, visible), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("line_is_right", "share"), [(True, 1.0), (False, 0.0)])
def test_answers_are_drawn_to_what_held_out_runs_lie_on(line_is_right: bool, share: float) -> None:
    found = Bridges.fit(runs_of(4, 50, line_is_right=line_is_right), 3, 1, window=50)
    assert found.shares[1, 2, 0] == pytest.approx(share, abs=0.1)


def test_few_runs_are_believed_less_than_many() -> None:
    few, many = (Bridges.fit(runs_of(4, n, line_is_right=True), 3, 1, window=50).shares[1, 2, 0] for n in (2, 50))
    assert 0.3 < few < many


def test_gaps_of_no_held_out_length_are_bridged_where_no_window_sees_across() -> None:
    shares = Bridges.fit(runs_of(4, 50, line_is_right=False), 6, 1, window=10).shares[1, :, 0]
    assert shares[[0, 1]].tolist() == [0, 0] and shares[[4, 5]].tolist() == [1, 1]


def test_the_share_between_two_lengths_lies_between_theirs() -> None:
    bridges = Bridges(np.array([[[0.0], [0.0], [1.0]]] * 2), np.array([[0.25], [0.0]]))
    gap = torch.tensor([0, 1, 2, 3, 4, 100])[:, None]
    ones = torch.ones(6, 1)
    mean, deviation = bridges.inform(0 * ones, ones, Bridge(ones, gap, ones), ones > 0)
    share = [0, 0, 0, np.log2(1.5), 1, 1]
    assert mean[:, 0].tolist() == pytest.approx(share)
    assert deviation[:, 0].tolist() == pytest.approx([1 - each / 2 for each in share])


def test_every_cell_of_a_short_series_is_hidden_once_for_each_length() -> None:
    generator = np.random.default_rng(0)
    for length in run_lengths(50, 10):
        hidden = [part[0] for part in hidden_runs([np.zeros((50, 1))], length, 50, generator, helped=False)]
        assert (np.sum(hidden, axis=0) == 1).all()
    assert run_lengths(50, 10)[-1] * LEAST_RUNS <= 50
    assert run_lengths(3, 10) == []


def test_half_of_the_channels_are_hidden_where_others_are_to_help() -> None:
    generator = np.random.default_rng(0)
    for hidden in hidden_runs([np.zeros((200, 6))], 4, 20, generator, helped=True):
        assert set(hidden[0].sum(1).tolist()) == {0, 3}


LINES = [(30, 6, "YS", 0.5), (60, 12, "MS", 0.5), (200, 40, "D", 0.5), (400, 100, "h", 0.5), (60, 12, "MS", 0.0)]


@pytest.mark.parametrize(("n_steps", "length", "freq", "noise"), LINES)
def test_gaps_of_trends_are_filled_nearly_as_by_the_line(n_steps: int, length: int, freq: str, noise: float) -> None:
    rng = np.random.default_rng(0)
    values, hidden = np.linspace(0, 100, n_steps) + noise * rng.normal(size=n_steps), within(n_steps, length)
    holes = frame(values, hidden, freq)
    filled = TimeSeriesMAE(**SMALL).fit(holes).impute(holes)["y"].to_numpy()
    ours, linear = (np.abs(part - values)[hidden].mean() for part in (filled, holes["y"].interpolate().to_numpy()))
    assert ours < 1.15 * linear + 0.1


def test_gaps_of_walks_are_filled_nearly_as_by_the_line_within_honest_bounds() -> None:
    ours, linear, inside = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        values, hidden = np.cumsum(0.5 + rng.normal(size=120)), within(120, 30)
        holes = frame(values, hidden)
        model = TimeSeriesMAE(**SMALL).fit(holes)
        ours.append(np.abs(model.impute(holes)["y"].to_numpy() - values)[hidden].mean())
        linear.append(np.abs(holes["y"].interpolate().to_numpy() - values)[hidden].mean())
        lower, upper = (part["y"].to_numpy() for part in model.predict_interval(holes, 0.8))
        inside.append(((lower <= values) & (values <= upper))[hidden].mean())
    assert np.mean(ours) < 1.1 * np.mean(linear)
    assert 0.65 < np.mean(inside) < 0.95


def test_single_steps_of_a_line_are_filled_nearly_as_by_the_line() -> None:
    rng = np.random.default_rng(1)
    values, hidden = np.arange(80) * 0.5 + 0.05 * rng.normal(size=80), rng.random(80) < 0.15
    hidden[[0, -1]] = False
    holes = frame(values, hidden)
    model = TimeSeriesMAE(**SMALL).fit(holes)
    ours = np.abs(model.impute(holes)["y"].to_numpy() - values)[hidden].mean()
    assert ours < 1.15 * np.abs(holes["y"].interpolate().to_numpy() - values)[hidden].mean()
    assert model.quality_.set_index("task")["skill"]["impute"] > -0.3


def test_seasons_and_noise_are_not_bridged() -> None:
    rng = np.random.default_rng(0)
    for values in (10 + np.sin(2 * np.pi * np.arange(400) / 7) + 0.1 * rng.normal(size=400), rng.normal(size=400)):
        bridges = TimeSeriesMAE(**SMALL).fit(frame(values, within(400, 20))).bridges_
        assert bridges is not None and bridges.shares[1].max() < 0.2


def test_the_pure_masked_autoencoder_bridges_nothing() -> None:
    holes = frame(np.arange(60.0), within(60, 12))
    assert TimeSeriesMAE(experts=(), **{**SMALL, "max_epochs": 1}).fit(holes).bridges_ is None


def test_draws_of_a_gap_lie_about_its_bridge() -> None:
    values, hidden = np.linspace(0, 100, 200), within(200, 40)
    values = values + 0.5 * np.random.default_rng(0).normal(size=200)
    holes = frame(values, hidden)
    drawn = TimeSeriesMAE(**SMALL).fit(holes).sample(holes, 20, random_state=0)
    errors = np.stack([each["y"].to_numpy() - values for each in drawn])[:, hidden]
    assert np.abs(errors.mean(0)).mean() < 1.0
    assert 0.3 < errors.std(0).mean() < 2.0


def test_a_saved_model_bridges_the_same(tmp_path: Path) -> None:
    holes = frame(np.cumsum(np.random.default_rng(0).normal(size=120)), within(120, 30))
    model = TimeSeriesMAE(**SMALL).fit(holes)
    assert model.bridges_ is not None and model.bridges_.shares.max() > 0.5
    model.save(tmp_path / "model")
    pd.testing.assert_frame_equal(load(tmp_path / "model").impute(holes), model.impute(holes))
