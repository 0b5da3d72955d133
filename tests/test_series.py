"""`TimeSeriesMAE` fills the gaps of series: what it leaves alone, how good it is, and what else it tells of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from generated_series import SCALES, frame_with_runs, rooted, seasonal, waves, wide, with_runs
from numpy.typing import NDArray
from torch import Tensor

from tabmae import TimeSeriesMAE, load
from tabmae.backbones import Backbone
from tabmae.estimators.series import estimator as estimators

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 12, "max_epochs": 1, "d_token": 8, "random_state": 0}
EXPERTS_ONLY = {**SMALL, "max_epochs": 0}
COMPLETE = seasonal()
HOLES = frame_with_runs(COMPLETE)
MISSING = HOLES["y"].isna().to_numpy()
SCALE = np.where(HOLES["unique_id"] == "s0", *SCALES)


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of `HOLES`; nothing may change it."""
    return TimeSeriesMAE(**SMALL).fit(HOLES)


def smooth(n_steps: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw a walk without corners."""
    noise = np.random.default_rng(seed).normal(size=n_steps + 60)
    walk: NDArray[np.float64] = np.convolve(np.convolve(noise, np.ones(30)), np.ones(10))[60 : n_steps + 60]
    return walk / walk.std()


def by_line(frame: pd.DataFrame) -> pd.Series:
    return frame.groupby("unique_id")["y"].transform(lambda y: y.interpolate(limit_direction="both"))


@pytest.mark.parametrize("max_epochs", [0, 1])
@pytest.mark.parametrize(
    "X",
    [
        HOLES.assign(y=HOLES["y"].astype("float32"), note="n").sample(frac=1, random_state=0),
        wide().where(~np.isnan(with_runs(wide().to_numpy()))),
        pd.Series(with_runs(wide()["c0"].to_numpy()), index=wide().index, name="c0"),
        np.stack([with_runs(series) for series in waves()]),
        np.stack([with_runs(series) for series in waves()]).astype("float32"),
    ],
    ids=["long", "wide", "Series", "array", "float32 array"],
)
def test_observed_values_come_back_as_they_were_and_none_is_missing(X: Any, max_epochs: int) -> None:
    before = X.copy()
    found = TimeSeriesMAE(**{**SMALL, "max_epochs": max_epochs}).fit(X).impute(X)
    if isinstance(X, np.ndarray):
        assert found.dtype == X.dtype and not np.isnan(found).any()
        np.testing.assert_array_equal(np.where(np.isnan(X), X, found), X)
        np.testing.assert_array_equal(X, before)
        return
    same = pd.testing.assert_frame_equal if isinstance(X, pd.DataFrame) else pd.testing.assert_series_equal
    assert not found.isna().to_numpy().any()
    same(found.mask(X.isna()), X, check_exact=True)
    same(X, before, check_exact=True)


def test_polars_and_tensors_come_back_as_they_went_in() -> None:
    table = pl.from_pandas(HOLES, nan_to_null=True)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(table)
    found = fitted.impute(table)
    assert isinstance(found, pl.DataFrame) and found.schema == table.schema and found["y"].null_count() == 0
    for frame in (fitted.anomaly_score(table), *fitted.sample(table, 2, horizon=3), fitted.forecast(table)):
        assert isinstance(frame, pl.DataFrame)
        assert all(frame.schema[name] == table.schema[name] for name in ("unique_id", "ds"))
    tensor = torch.from_numpy(np.stack([with_runs(series) for series in waves()])).float()
    filled = TimeSeriesMAE(**EXPERTS_ONLY).fit(tensor).impute(tensor)
    assert isinstance(filled, Tensor) and filled.dtype == torch.float32 and not filled.isnan().any()
    assert torch.equal(filled[~tensor.isnan()], tensor[~tensor.isnan()])


def test_absent_stamps_are_imputed_like_missing_values(model: TimeSeriesMAE) -> None:
    found = model.impute(HOLES[~MISSING])
    assert len(found) == len(HOLES)
    expected = model.impute(HOLES)
    assert (found[["unique_id", "ds"]] == expected[["unique_id", "ds"]]).to_numpy().all()
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-9)


def test_runs_of_a_season_are_filled_with_half_the_error_of_a_line_in_every_series(model: TimeSeriesMAE) -> None:
    found, line = ((filled - COMPLETE["y"]) / SCALE for filled in (model.impute(HOLES)["y"], by_line(HOLES)))
    for name in ("s0", "s1"):
        cells = MISSING & (HOLES["unique_id"] == name)
        assert rooted(found[cells]) < 0.5 * rooted(line[cells])
        assert rooted(found[cells]) < 2 * 0.2, "at most twice the noise"


@pytest.mark.parametrize("hidden", ["one channel", "all channels"])
def test_other_channels_help_where_they_are_there(hidden: str) -> None:
    complete = wide(400)
    holes = complete.copy()
    for start in range(40, 360, 40):
        holes.iloc[start : start + 12, slice(1, 2) if hidden == "one channel" else slice(None)] = np.nan
    found = TimeSeriesMAE(**EXPERTS_ONLY).fit(holes).impute(holes)["c1"]
    cells = holes["c1"].isna()
    missed, line = (rooted((part - complete["c1"])[cells]) for part in (found, holes["c1"].interpolate()))
    assert missed < (0.4 if hidden == "one channel" else 0.8) * line


def test_a_series_is_imputed_alone_as_among_others(model: TimeSeriesMAE) -> None:
    together = model.impute(HOLES)
    backwards = pd.concat([HOLES[HOLES["unique_id"] == name] for name in ("s1", "s0")])
    turned = model.impute(backwards).loc[HOLES.index]
    for name, scale in zip(("s0", "s1"), SCALES, strict=True):
        rows = HOLES["unique_id"] == name
        for found in (model.impute(HOLES[rows])["y"], turned.loc[rows, "y"]):
            np.testing.assert_allclose(found, together.loc[rows, "y"], rtol=0, atol=1e-4 * scale)


def test_other_rows_of_a_batch_change_nothing_whatever_its_size(
    model: TimeSeriesMAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = model.impute(HOLES)["y"]
    monkeypatch.setattr("tabmae.estimators.series.completing.AT_ONCE", 1)
    np.testing.assert_allclose(model.impute(HOLES)["y"] / SCALE, expected / SCALE, rtol=0, atol=1e-4)
    forecast = model.forecast(HOLES)["TimeSeriesMAE"]
    monkeypatch.setattr(estimators, "AT_ONCE", 1)
    np.testing.assert_allclose(model.forecast(HOLES)["TimeSeriesMAE"], forecast, rtol=1e-4)


def test_series_that_fit_has_not_seen_are_imputed_in_their_own_units(model: TimeSeriesMAE) -> None:
    complete = seasonal(seed=3).assign(unique_id=lambda frame: "new " + frame["unique_id"])
    complete["y"] = 50 * complete["y"] - 3
    holes = frame_with_runs(complete)
    found, line = model.impute(holes)["y"], by_line(holes)
    for name in ("new s0", "new s1"):
        cells = holes["y"].isna() & (holes["unique_id"] == name)
        assert rooted((found - complete["y"])[cells]) < 0.6 * rooted((line - complete["y"])[cells])


@pytest.mark.parametrize("layout", ["long", "array"])
def test_units_go_through(layout: str) -> None:
    holes = np.stack([with_runs(series) for series in waves(2, 240, 1)])
    if layout == "array":
        one, other = (TimeSeriesMAE(**SMALL).fit(X).impute(X) for X in (holes, 1000 * holes - 7))
    else:
        frames = [HOLES.assign(y=a * HOLES["y"] + b) for a, b in ((1.0, 0.0), (1000.0, -7.0))]
        one, other = (TimeSeriesMAE(**SMALL).fit(X).impute(X)["y"].to_numpy() for X in frames)
    np.testing.assert_allclose(other, 1000 * one - 7, rtol=1e-4, atol=0.1)


def test_gaps_of_what_is_never_negative_are_not_filled_below_zero(tmp_path: Path) -> None:
    hours = np.arange(600)
    clear = np.repeat(np.random.default_rng(0).uniform(0.2, 1, size=25), 24)
    truth = 100 * clear * np.maximum(0, np.sin(2 * np.pi * (hours - 6) / 24))
    table = pd.DataFrame({"sun": truth}, index=pd.date_range("2024-01-01", periods=600, freq="h"))
    holes = table.where((hours % 90 < 60)[:, None])
    found = {}
    for shift in (0, 1000):  # which lifts the nights off zero, and the model is of any level
        model = TimeSeriesMAE(horizon=6, max_epochs=0, random_state=0).fit(holes + shift)
        parts = (model.impute(holes + shift), *model.predict_interval(holes + shift))
        found[shift] = [(part["sun"] - shift).to_numpy() for part in parts]
        model.save(tmp_path / str(shift))
        pd.testing.assert_frame_equal(load(tmp_path / str(shift)).impute(holes + shift), parts[0])
    assert min(part.min() for part in found[0]) == 0 and found[1000][0].min() < -1
    for part, free in zip(found[0], found[1000], strict=True):
        np.testing.assert_allclose(part, np.maximum(free, 0), atol=1e-3)
    assert rooted(found[0][0] - truth) < rooted(found[1000][0] - truth)
    model = load(tmp_path / "0")
    assert min(draw.to_numpy().min() for draw in model.sample(holes, 3)) == 0
    assert model.detect(holes).points[["expected", "lower", "upper"]].to_numpy().min() >= 0
    cold = TimeSeriesMAE(horizon=6, max_epochs=0, random_state=0).fit(holes - 20)
    assert cold.impute(holes.where(holes > 20)).to_numpy().min() < 0


def test_draws_differ_keep_what_is_observed_and_follow_their_seed(model: TimeSeriesMAE) -> None:
    draws = model.sample(HOLES, n_samples=3, random_state=1)
    assert len(draws) == 3
    for draw in draws:
        pd.testing.assert_frame_equal(draw[~MISSING], HOLES[~MISSING], check_exact=True)
        assert not draw["y"].isna().any()
    values = np.stack([draw["y"] for draw in draws])[:, MISSING]
    assert (values[0] != values[1]).mean() > 0.9 and (values[1] != values[2]).mean() > 0.9
    for same, seed in ((True, 1), (False, 2)):
        again = model.sample(HOLES, n_samples=3, random_state=seed)
        assert same == all(one.equals(other) for one, other in zip(draws, again, strict=True))


def test_draws_lie_about_the_imputed_value_as_wide_as_its_error(model: TimeSeriesMAE) -> None:
    draws = np.stack([draw["y"] for draw in model.sample(HOLES, n_samples=60)])
    about = (draws - model.impute(HOLES)["y"].to_numpy()) / SCALE
    missed = rooted(((model.impute(HOLES)["y"] - COMPLETE["y"]) / SCALE)[MISSING])
    assert np.abs(about.mean(0)[MISSING]).mean() < 0.3 * missed
    assert about.std(0)[MISSING].mean() == pytest.approx(missed, rel=0.35)


@pytest.mark.parametrize("n_steps", [300, 310])
def test_cells_of_one_gap_are_drawn_together(n_steps: int) -> None:
    """Neighbours of a smooth series move together in every gap, wherever windows begin and end."""
    x = smooth(n_steps)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY, window=40).fit(x[None, :, None])
    gap = np.arange(n_steps - 45, n_steps - 17)
    x[gap] = np.nan
    draws = np.stack([draw[0, gap, 0] for draw in fitted.sample(x[None, :, None], n_samples=80)])
    steps = np.diff(draws, axis=1)
    neighbours = [float(np.corrcoef(draws[:, i], draws[:, i + 1])[0, 1]) for i in range(3, len(gap) - 4)]
    assert min(neighbours) > 0.6
    assert steps.std(0).max() < 3 * np.median(steps.std(0)), "no seam"


def test_intervals_of_gaps_nest_and_hold_about_their_share() -> None:
    complete = seasonal(1200, seed=2)
    holes = frame_with_runs(complete)
    fitted = TimeSeriesMAE(**SMALL).fit(holes)
    missing, filled = holes["y"].isna().to_numpy(), fitted.impute(holes)["y"]
    bounds = {level: fitted.predict_interval(holes, level) for level in (0.5, 0.8, 0.95)}
    for level, (lower, upper) in bounds.items():
        assert (lower["y"] <= filled).all() and (filled <= upper["y"]).all()
        for bound in (lower, upper):
            pd.testing.assert_frame_equal(bound[~missing], holes[~missing], check_exact=True)
        held = (complete["y"] >= lower["y"]) & (complete["y"] <= upper["y"])
        assert held[missing].mean() == pytest.approx(level, abs=0.12)
    for inner, outer in ((0.5, 0.8), (0.8, 0.95)):
        assert (bounds[outer][0]["y"] <= bounds[inner][0]["y"]).all()
        assert (bounds[outer][1]["y"] >= bounds[inner][1]["y"]).all()


@pytest.mark.parametrize(
    ("parameters", "width"),
    [
        ({}, 8),
        ({"backbone": "transformer", "patch": 4, "d_token": 16}, 16),
        ({"backbone": "mlp"}, 128),
        ({"experts": ()}, 8),
    ],
    ids=["default", "patches", "mlp", "pure"],
)
def test_series_and_their_steps_are_embedded(parameters: dict[str, Any], width: int) -> None:
    fitted = TimeSeriesMAE(**{**SMALL, **parameters}).fit(HOLES)
    whole, steps = fitted.encode(HOLES), fitted.encode(HOLES, per="step")
    assert whole.shape == (2, width) and steps.shape == (len(HOLES), width)
    assert whole.dtype == steps.dtype == np.float32 and np.isfinite(steps).all()
    np.testing.assert_allclose(whole[1], steps[240:].mean(0), rtol=1e-4, atol=1e-5)
    assert not np.allclose(whole[0], whole[1])
    alone = fitted.encode(HOLES[240:])
    np.testing.assert_allclose(alone[0], whole[1], rtol=1e-3, atol=1e-4)


class Wide(Backbone):
    """A backbone from outside whose latent is wider than its tokens."""

    def __init__(self, d_token: int) -> None:
        super().__init__()
        self.widen, self.narrow = torch.nn.Linear(d_token, 11), torch.nn.Linear(11, d_token)

    def encode(self, tokens: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        return torch.tanh(self.widen(tokens))

    def decode(self, latent: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        return self.narrow(latent)


def test_a_backbone_from_outside_embeds_in_its_own_width() -> None:
    fitted = TimeSeriesMAE(**{**SMALL, "backbone": lambda n_tokens, d_token: Wide(d_token)}).fit(HOLES)
    assert fitted.encode(HOLES).shape == (2, 11)


def test_like_series_have_like_embeddings(model: TimeSeriesMAE) -> None:
    complete = seasonal(n_series=4, seed=5).assign(unique_id=lambda frame: "n" + frame["unique_id"])
    shifted = complete.assign(unique_id=lambda frame: "m" + frame["unique_id"], y=3 * complete["y"] + 1)
    found = model.encode(pd.concat([complete, shifted]))
    np.testing.assert_allclose(found[:4], found[4:], rtol=1e-3, atol=1e-4)


def test_quality_has_a_row_for_each_task_and_channel() -> None:
    holes = wide().where(np.random.default_rng(0).random((240, 3)) > 0.1)
    quality = TimeSeriesMAE(**SMALL).fit(holes).quality_
    columns = ["task", "channel", "n", "error", "baseline_error", "skill", "network"]
    assert quality.columns.tolist() == columns
    assert quality["task"].tolist() == ["impute"] * 3 + ["forecast"] * 3
    assert quality["channel"].tolist() == ["c0", "c1", "c2"] * 2
    assert (quality["n"] > 0).all() and (quality["error"] > 0).all()
    np.testing.assert_allclose(quality["skill"], 1 - quality["error"] / quality["baseline_error"])
    assert (quality["skill"] > 0).all(), "of a season"
    assert quality["network"][:3].between(0, 1).all() and quality["network"][3:].isna().all()


@pytest.mark.parametrize("experts", ["auto", ()], ids=["auto", "pure"])
def test_the_baseline_of_imputation_is_linear_interpolation(experts: Any) -> None:
    """A straight line is what interpolation misses by nothing."""
    X = np.stack([np.arange(200.0), 3 - np.arange(200.0)])[:, :, None]
    quality = TimeSeriesMAE(**SMALL, experts=experts, mask="bernoulli").fit(X).quality_
    assert quality["baseline_error"][0] < 0.05


def test_finetuning_learns_new_series_and_leaves_the_scales() -> None:
    fitted = TimeSeriesMAE(**SMALL).fit(HOLES)
    scales, weights = fitted.scales_, fitted.model_.tokenizer.embedding.weight.clone()
    new = frame_with_runs(seasonal(seed=4)).assign(unique_id=lambda frame: "n" + frame["unique_id"])
    assert fitted.finetune(new) is fitted
    assert fitted.scales_ is scales
    assert not torch.equal(fitted.model_.tokenizer.embedding.weight, weights)
    assert fitted.quality_["task"].tolist() == ["impute", "forecast"]
    for series in (new, HOLES):
        assert np.isfinite(fitted.impute(series)["y"]).all()
    np.testing.assert_allclose(fitted.forecast(new[:240])["TimeSeriesMAE"], 0, atol=3)
    assert set(fitted.forecast()["unique_id"]) == {"ns0", "ns1"}


def test_after_finetuning_forecasts_go_on_from_the_new_series() -> None:
    fitted = TimeSeriesMAE(**EXPERTS_ONLY, window=24, context=100).fit(seasonal(400))
    new = seasonal(400, seed=4).assign(unique_id=lambda frame: "n" + frame["unique_id"])
    expected = fitted.forecast(new)
    pd.testing.assert_frame_equal(fitted.finetune(new).forecast(), expected, rtol=1e-6)
