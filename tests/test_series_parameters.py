"""The parameters of `TimeSeriesMAE`: seeds, scikit-learn's rules, and every choice on short, long and odd series."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from generated_series import LEVELS, SCALES, SEASON, frame_with_runs, rooted, seasonal, waves, wide, with_runs
from sklearn.base import clone
from sklearn.utils import check_random_state
from torch import Tensor

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.sizes import auto_size, season_in
from tabmae.masks import MASKS, SERIES_MASKS

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 12, "max_epochs": 1, "d_token": 8, "random_state": 0}
EXPERTS_ONLY = {**SMALL, "max_epochs": 0}
HOLES = frame_with_runs(seasonal())


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of `HOLES`; nothing may change it."""
    return TimeSeriesMAE(**SMALL).fit(HOLES)


def test_the_same_seed_gives_the_same_model_and_the_global_one_is_left_alone(model: TimeSeriesMAE) -> None:
    with torch.random.fork_rng(devices=[]):
        state, drawn = torch.random.get_rng_state(), check_random_state(None).get_state(legacy=False)
        again, other = TimeSeriesMAE(**SMALL).fit(HOLES), TimeSeriesMAE(**{**SMALL, "random_state": 1}).fit(HOLES)
        again.sample(HOLES, 1)
        assert torch.equal(torch.random.get_rng_state(), state)
        np.testing.assert_equal(check_random_state(None).get_state(legacy=False), drawn)
    pd.testing.assert_frame_equal(again.impute(HOLES), model.impute(HOLES), check_exact=True)
    pd.testing.assert_frame_equal(again.forecast(), model.forecast(), check_exact=True)
    assert again.history_ == model.history_
    weights = [fitted.model_.state_dict()["tokenizer.embedding.weight"] for fitted in (again, other)]
    assert not torch.equal(*weights)


def test_scikit_learns_rules_of_parameters() -> None:
    plain = TimeSeriesMAE()
    given = {name: object() for name in plain.get_params()}
    assert plain.set_params(**given).get_params() == given
    copy = clone(TimeSeriesMAE(**SMALL, experts=("linear",)))
    assert copy.get_params() == TimeSeriesMAE(**SMALL, experts=("linear",)).get_params()
    assert vars(copy) == copy.get_params(), "nothing but parameters before fit"
    assert not hasattr(clone(copy.fit(HOLES)), "model_")
    filled = TimeSeriesMAE(**EXPERTS_ONLY).fit_transform(HOLES)
    pd.testing.assert_frame_equal(filled, TimeSeriesMAE(**EXPERTS_ONLY).fit(HOLES).impute(HOLES))


def test_without_epochs_the_experts_impute_alone() -> None:
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(HOLES)
    assert fitted.n_iter_ == 0 and fitted.history_ == [] and not fitted.model_.share.any()
    assert (fitted.quality_["network"].dropna() == 0).all()


def test_the_pure_masked_autoencoder_learns_a_season() -> None:
    complete = waves(3, 100, 1)
    holes = np.stack([with_runs(series) for series in complete])
    missing, errors = np.isnan(holes), []
    pure = TimeSeriesMAE(horizon=6, experts=(), window=12, d_token=16, random_state=0)
    for max_epochs in (0, 30):
        fitted = clone(pure).set_params(max_epochs=max_epochs).fit(holes)
        assert not len(fitted.model_.experts)
        errors.append(rooted((fitted.impute(holes) - complete)[missing]))
    assert errors[1] < 0.5 * errors[0]
    assert fitted.n_iter_ == 30 and fitted.history_[-1]["held_out_error"] < fitted.history_[0]["held_out_error"]


@pytest.mark.parametrize("mask", ["mixed", *SERIES_MASKS, *MASKS])
def test_every_mask_trains(mask: str) -> None:
    fitted = TimeSeriesMAE(**SMALL, experts=(), mask=mask).fit(HOLES)
    assert fitted.n_iter_ == 1 and np.isfinite(fitted.history_[0]["error"])


def test_a_mask_from_outside_hides_observed_cells() -> None:
    seen: list[tuple[int, ...]] = []

    def half(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(tuple(observed.shape))
        return torch.rand(observed.shape, generator=generator) < 0.5

    fitted = TimeSeriesMAE(**SMALL, mask=half).fit(HOLES)
    assert seen and {shape[1] for shape in seen} == {fitted.size_.window}


@pytest.mark.parametrize(
    "parameters",
    [
        {"window": 1},
        {"window": 2},
        {"window": 500},
        {"patch": 7},
        {"patch": 500},
        {"backbone": "transformer", "d_token": 16},
        {"mask_ratio": 0.3, "loss": "mse", "dropout": 0.1, "batch_size": 7, "depth": 1, "lr": 0.01, "patience": 1},
        {"experts": ("gaussian",)},
        {"experts": ("linear", "persistence")},
        {"context": 20},
        {"context": 5000},
        {"horizon": 100},
        {"horizon": 500},
        {"horizon": None},
    ],
    ids=str,
)
def test_any_parameters_give_finite_values(parameters: dict[str, Any]) -> None:
    fitted = TimeSeriesMAE(**{**SMALL, **parameters}).fit(HOLES)
    assert np.isfinite(fitted.impute(HOLES)["y"]).all()
    forecast = fitted.forecast(level=None)
    assert np.isfinite(forecast["TimeSeriesMAE"]).all() and len(forecast) == 2 * fitted.horizon_


@pytest.mark.parametrize("parameters", [{"window": 5000}, {"patch": 5000}], ids=str)
def test_windows_are_no_longer_than_the_longest_series(parameters: dict[str, Any]) -> None:
    assert TimeSeriesMAE(**{**SMALL, **parameters}).fit(HOLES).size_.window == HOLES.groupby("unique_id").size().max()


@pytest.mark.parametrize("shape", [(1, 2, 1), (1, 5, 1), (3, 4, 2), (30, 6, 1), (1, 40, 50), (2, 20, 3)], ids=str)
def test_short_series_and_many_channels_give_finite_values(shape: tuple[int, int, int]) -> None:
    X = np.random.default_rng(0).normal(size=shape)
    X[0, 1, 0] = X[0, 1, 0] if shape[1] == 2 else np.nan
    fitted = TimeSeriesMAE(max_epochs=1, d_token=4, random_state=0).fit(X)
    assert np.isfinite(fitted.impute(X)).all() and np.isfinite(fitted.encode(X)).all()
    assert fitted.forecast().shape == (shape[0], fitted.horizon_, shape[2]) and np.isfinite(fitted.forecast()).all()


@pytest.mark.parametrize("n_observed", [1, 2])
def test_a_nearly_empty_series_is_filled(n_observed: int) -> None:
    X = np.full((1, 30, 1), np.nan)
    X[0, 10 : 10 + n_observed, 0] = 3.0
    fitted = TimeSeriesMAE(**{**SMALL, "horizon": 3}).fit(X)
    np.testing.assert_allclose(fitted.impute(X), 3.0, rtol=0, atol=1.5)


def test_a_constant_channel_stays_constant() -> None:
    holes = wide().assign(same=7.0)
    holes.iloc[50:60, -1] = np.nan
    fitted = TimeSeriesMAE(**SMALL).fit(holes)
    np.testing.assert_allclose(fitted.impute(holes)["same"], 7.0, rtol=0, atol=0.01)
    forecast = fitted.forecast()
    np.testing.assert_allclose(forecast.loc[forecast["channel"] == "same", "TimeSeriesMAE"], 7.0, rtol=0, atol=0.01)


@pytest.mark.parametrize(("scale", "level"), [(1e-9, 0.0), (1e30, 0.0), (500.0, 1e9), (1.0, 1e12)])
def test_the_unit_and_the_level_do_not_matter(scale: float, level: float) -> None:
    complete = seasonal(n_series=1)["y"].to_numpy()
    holes = (scale * with_runs(complete) + level)[None, :, None]
    missing = np.isnan(holes[0, :, 0])
    found = (TimeSeriesMAE(**EXPERTS_ONLY).fit(holes).impute(holes)[0, :, 0] - level) / scale
    assert rooted((found - complete)[missing]) < 2 * 0.2, "at most twice the noise"


def test_a_series_without_a_value_is_filled_from_what_the_others_taught(model: TimeSeriesMAE) -> None:
    blank = HOLES.assign(y=HOLES["y"].mask(HOLES["unique_id"] == "s1"))
    found = model.impute(blank)
    assert np.isfinite(found["y"]).all()
    assert abs(found["y"][240:].mean() - LEVELS[1]) < 2 * SCALES[1]
    assert np.isfinite(TimeSeriesMAE(**SMALL).fit(blank).impute(blank)["y"]).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_season_of_steps_without_a_calendar_is_one_period(seed: int) -> None:
    X = waves(1, 400, 1, seed=seed)
    assert TimeSeriesMAE(**EXPERTS_ONLY).fit(X).season_ == SEASON
    assert TimeSeriesMAE(**EXPERTS_ONLY).fit(np.random.default_rng(seed).normal(size=(1, 400, 1))).season_ == 0


@pytest.mark.parametrize("drift", [400, 500, 600])
def test_a_season_on_a_slow_drift_is_not_taken_for_its_multiple(drift: int) -> None:
    steps = np.arange(4000)
    parts = {24: 0.18, 48: 0.05, drift: 0.77}
    X = sum(np.sqrt(2 * share) * np.sin(2 * np.pi * steps / period) for period, share in parts.items())
    assert season_in(np.asarray(X)[:, None], (4000,), ()) == 24


def test_many_channels_are_trained_for_fewer_steps_and_few_windows_for_no_fewer_than_before() -> None:
    steps = [auto_size(96, n, 10_000, holed=False).n_steps for n in (1, 40, 80, 400, 4000)]
    assert steps == [384, 384, 192, 38, 10]
    assert auto_size(96, 1, 10, holed=True).n_steps == 100


def test_callbacks_see_every_check_and_can_end_the_training() -> None:
    records: list[dict[str, float]] = []

    def stop(record: dict[str, float]) -> bool:
        records.append(record)
        return len(records) == 2

    fitted = TimeSeriesMAE(**{**SMALL, "max_epochs": 9}, callbacks=[stop]).fit(HOLES)
    assert fitted.history_ == records and len(records) == 2 and fitted.n_iter_ == 2


def test_a_failed_fit_leaves_the_fitted_model_as_it_was() -> None:
    def interrupt(record: dict[str, float]) -> None:
        raise RuntimeError("of the callback")

    fitted = TimeSeriesMAE(**SMALL).fit(HOLES)
    before = dict(vars(fitted))
    for method in (fitted.fit, fitted.finetune):
        fitted.set_params(callbacks=[interrupt])
        with pytest.raises(RuntimeError, match="of the callback"):
            method(HOLES)
        fitted.set_params(callbacks=None)
        assert vars(fitted).keys() == before.keys()
        assert all(vars(fitted)[name] is value for name, value in before.items())
