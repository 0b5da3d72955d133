"""`TimeSeriesMAE` looks ahead: where forecasts begin, how good they are, and how far their intervals can be trusted."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from generated_series import LEVELS, SCALES, SEASON, frame_with_runs, rooted, seasonal, waves, wide

from tabmae import TimeSeriesMAE
from tabmae.estimators.series.forecasting import masked_forecast
from tabmae.estimators.series.origins import Origins
from tabmae.estimators.series.widths import own_widths

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 12, "max_epochs": 1, "d_token": 8, "random_state": 0}
EXPERTS_ONLY = {**SMALL, "max_epochs": 0}
N_STEPS, N_AHEAD = 276, 36
WHOLE = seasonal(N_STEPS + N_AHEAD, noise=0.3)
STEP = WHOLE.groupby("unique_id").cumcount()
PAST = frame_with_runs(WHOLE[STEP < N_STEPS])
FUTURE = WHOLE[STEP >= N_STEPS]
BOUNDS = ["TimeSeriesMAE-lo-80", "TimeSeriesMAE-hi-80", "TimeSeriesMAE-lo-95", "TimeSeriesMAE-hi-95"]


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of `PAST`; nothing may change it."""
    return TimeSeriesMAE(**SMALL).fit(PAST)


def autoregressive(n_steps: int, n_series: int, seed: int = 0) -> pd.DataFrame:
    """Draw daily series x(t) = 0.8 x(t - 1) + noise about 5."""
    noise = np.random.default_rng(seed).normal(size=(n_series, n_steps))
    x = np.zeros_like(noise)
    for t in range(1, n_steps):
        x[:, t] = 0.8 * x[:, t - 1] + noise[:, t]
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="D")
    frames = [pd.DataFrame({"unique_id": i, "ds": stamps, "y": 5 + row}) for i, row in enumerate(x)]
    return pd.concat(frames, ignore_index=True)


def driven(n_steps: int = 324, seed: int = 0) -> pd.DataFrame:
    """Draw a series of which a promotion, known ahead, makes three standard deviations."""
    rng = np.random.default_rng(seed)
    promotion = (rng.random(n_steps) < 0.2).astype(float)
    wave = np.sin(2 * np.pi * np.arange(n_steps) / SEASON)
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h")
    values = 110 + wave + 3 * promotion + 0.2 * rng.normal(size=n_steps)
    return pd.DataFrame({"ds": stamps, "y": values, "promotion": promotion})


@pytest.fixture(scope="module")
def promoted() -> TimeSeriesMAE:
    """A model of all of `driven` but its last twelve steps, to which promotions are known; nothing may change it."""
    return TimeSeriesMAE(**EXPERTS_ONLY, target_cols=["y"], future_cols=["promotion"]).fit(driven()[:312])


@pytest.fixture(scope="module")
def unpromoted() -> TimeSeriesMAE:
    """The same that does not know of them."""
    return TimeSeriesMAE(**EXPERTS_ONLY, target_cols=["y"]).fit(driven()[:312].drop(columns="promotion"))


def test_a_forecast_has_a_row_for_each_series_and_step_and_the_stamps_that_follow(model: TimeSeriesMAE) -> None:
    for horizon, n_steps in ((None, 12), (5, 5), (30, 30)):
        found = model.forecast(horizon=horizon)
        assert found.columns.tolist() == ["unique_id", "ds", "TimeSeriesMAE", *BOUNDS]
        expected = FUTURE[FUTURE.groupby("unique_id").cumcount() < n_steps][["unique_id", "ds"]]
        pd.testing.assert_frame_equal(found[["unique_id", "ds"]], expected.reset_index(drop=True), check_dtype=False)
        assert np.isfinite(found.drop(columns=["unique_id", "ds"]).to_numpy()).all()


def test_forecasts_are_in_the_units_of_each_series_and_beat_the_last_value(model: TimeSeriesMAE) -> None:
    found = model.forecast(horizon=N_AHEAD).merge(FUTURE, on=["unique_id", "ds"])
    for name, scale, level in zip(("s0", "s1"), SCALES, LEVELS, strict=True):
        own = found[found["unique_id"] == name]
        last = PAST.loc[PAST["unique_id"] == name, "y"].iloc[-1]
        assert rooted(own["TimeSeriesMAE"] - own["y"]) < 0.6 * rooted(own["y"] - last)
        assert rooted(own["TimeSeriesMAE"] - own["y"]) < 1.5 * 0.3 * scale, "half as much again as the noise"
        assert abs(own["TimeSeriesMAE"].mean() - level) < scale


def test_the_forecast_without_data_is_that_of_the_series_of_fit(model: TimeSeriesMAE) -> None:
    for asked in ({}, {"horizon": 40}, {"level": [50]}):
        pd.testing.assert_frame_equal(model.forecast(**asked), model.forecast(PAST, **asked), check_exact=True)


def test_a_shorter_horizon_is_the_first_steps_and_a_longer_one_goes_on_from_them(model: TimeSeriesMAE) -> None:
    fitted, shorter, longer = (model.forecast(horizon=horizon) for horizon in (12, 4, 24))
    for name in ("s0", "s1"):
        own, short, long = (frame[frame["unique_id"] == name] for frame in (fitted, shorter, longer))
        for part in (own[:4], short):
            np.testing.assert_allclose(part["TimeSeriesMAE"], long["TimeSeriesMAE"][:4], rtol=1e-6, atol=1e-6)
    first = longer[longer.groupby("unique_id").cumcount() < 12].rename(columns={"TimeSeriesMAE": "y"})
    extended = pd.concat([PAST, first[["unique_id", "ds", "y"]]])
    again = model.forecast(extended, level=None).merge(longer, on=["unique_id", "ds"])
    assert len(again) == 24
    scale = np.repeat(SCALES, 12)
    np.testing.assert_allclose(again["TimeSeriesMAE_x"] / scale, again["TimeSeriesMAE_y"] / scale, rtol=0, atol=0.02)


def test_intervals_widen_beyond_the_fitted_horizon(model: TimeSeriesMAE) -> None:
    found = model.forecast(horizon=60)
    width = (found["TimeSeriesMAE-hi-80"] - found["TimeSeriesMAE-lo-80"]).to_numpy().reshape(2, 60)
    assert (width[:, 48:].mean(1) > 1.3 * width[:, :12].mean(1)).all()


def test_a_history_may_have_holes_and_end_in_a_gap(model: TimeSeriesMAE) -> None:
    whole = model.forecast(WHOLE[STEP < N_STEPS])
    scale = np.repeat(SCALES, 12)
    trailing = PAST.assign(y=PAST["y"].mask(STEP >= N_STEPS - 5))
    for history in (PAST, trailing):
        found = model.forecast(history)
        assert (found["ds"] == whole["ds"]).all()
        assert rooted((found["TimeSeriesMAE"] - whole["TimeSeriesMAE"]) / scale) < 0.3
    absent = model.forecast(trailing[trailing["y"].notna()], horizon=17)
    last = absent[absent.groupby("unique_id").cumcount() >= 5].reset_index(drop=True)
    assert (last["ds"] == whole["ds"]).all(), "five steps earlier, where the rows end"
    assert rooted((last["TimeSeriesMAE"] - whole["TimeSeriesMAE"]) / scale) < 0.4


def test_a_forecast_does_not_feel_what_is_out_of_its_reach(model: TimeSeriesMAE) -> None:
    history = frame_with_runs(seasonal(3 * N_STEPS, noise=0.3))
    expected = model.forecast(history)
    back = 3 * N_STEPS - history.groupby("unique_id").cumcount()
    changed = history.assign(y=history["y"].where(back <= model._reach, -5 * history["y"] + 3))
    assert not changed.equals(history)
    pd.testing.assert_frame_equal(model.forecast(changed), expected, check_exact=True)


def test_a_series_is_forecast_alone_as_among_others(model: TimeSeriesMAE) -> None:
    together = model.forecast(PAST)
    for name in ("s0", "s1"):
        alone = model.forecast(PAST[PAST["unique_id"] == name])
        among = together[together["unique_id"] == name].reset_index(drop=True)
        for column in ["TimeSeriesMAE", *BOUNDS]:
            np.testing.assert_allclose(alone[column], among[column], rtol=1e-5, atol=1e-5)


def test_forecasts_of_new_series_move_with_their_level_and_scale() -> None:
    past = PAST[PAST.groupby("unique_id").cumcount() < 120]
    fitted = TimeSeriesMAE(**EXPERTS_ONLY, experts=("gaussian", "linear")).fit(past)
    one, other = (
        fitted.forecast(past.assign(unique_id="n" + past["unique_id"], y=a * past["y"] + b))
        for a, b in ((1.0, 0.0), (70.0, -3e5))
    )
    scale = 70 * np.repeat(SCALES, 12)
    for column in ["TimeSeriesMAE", *BOUNDS]:
        np.testing.assert_allclose(other[column] / scale, (70 * one[column] - 3e5) / scale, rtol=0, atol=1e-3)


def test_series_may_differ_in_length_and_end_and_be_short(model: TimeSeriesMAE) -> None:
    parts = [
        WHOLE[(WHOLE["unique_id"] == "s0") & (STEP < 100)],
        WHOLE[(WHOLE["unique_id"] == "s1") & (STEP >= 40)],
        WHOLE[(WHOLE["unique_id"] == "s0") & (STEP < 6)].assign(unique_id="new"),
    ]
    found = model.forecast(pd.concat(parts), horizon=3)
    first = found.groupby("unique_id", sort=False)["ds"].first()
    assert first.tolist() == [part["ds"].iloc[-1] + pd.Timedelta(1, "h") for part in parts]
    assert np.isfinite(found["TimeSeriesMAE"]).all()


def test_levels_are_asked_for_in_per_cent(model: TimeSeriesMAE) -> None:
    assert model.forecast(level=None).columns.tolist() == ["unique_id", "ds", "TimeSeriesMAE"]
    assert model.forecast(level=90).columns[3:].tolist() == ["TimeSeriesMAE-lo-90", "TimeSeriesMAE-hi-90"]
    found = model.forecast(level=[99.5, 50])
    names = [f"TimeSeriesMAE-{side}-{level}" for level in ("50", "99.5") for side in ("lo", "hi")]
    assert found.columns[3:].tolist() == names


def test_arrays_give_arrays_and_wide_frames_a_row_for_each_channel() -> None:
    array = TimeSeriesMAE(**EXPERTS_ONLY).fit(waves())
    assert array.forecast().shape == (3, 12, 2) and array.forecast(waves()[:1], horizon=5).shape == (1, 5, 2)
    framed = array.forecast(level=80)
    assert framed.columns.tolist() == ["unique_id", "ds", "channel", "TimeSeriesMAE", *BOUNDS[:2]]
    np.testing.assert_allclose(
        framed["TimeSeriesMAE"].to_numpy().reshape(3, 2, 12).transpose(0, 2, 1), array.forecast(), rtol=1e-12
    )
    assert framed["ds"].tolist() == [*range(120, 132)] * 6
    table = TimeSeriesMAE(**EXPERTS_ONLY).fit(wide(60)).forecast(horizon=2)
    assert table.columns.tolist() == ["when", "channel", "TimeSeriesMAE", *BOUNDS]
    assert table["channel"].tolist() == ["c0", "c0", "c1", "c1", "c2", "c2"]
    assert table["when"].tolist() == [*pd.date_range(wide(60).index[-1], periods=3, freq="h")[1:]] * 3


def test_intervals_of_stationary_series_nest_and_hold_about_their_share() -> None:
    whole = autoregressive(460, 5)
    step = whole.groupby("unique_id").cumcount()
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(whole[step < 320])
    later = whole[step >= 200].reset_index(drop=True)
    result = fitted.backtest(later, n_windows=16, step=8)
    assert result.forecasts["cutoff"].min() >= whole["ds"].unique()[319 - 12]
    for level, tolerance in ((80, 0.12), (95, 0.05)):
        assert result.metrics[f"coverage-{level}"].mean() == pytest.approx(level / 100, abs=tolerance)
    low80, high80, low95, high95 = (result.forecasts[name] for name in BOUNDS)
    mean = result.forecasts["TimeSeriesMAE"]
    assert ((low95 <= low80) & (low80 <= mean) & (mean <= high80) & (high80 <= high95)).all()


def uneven(n_series: int = 40, n_steps: int = 300, seed: int = 0) -> pd.DataFrame:
    """Series of the same season, every second one with ten times the noise of the others."""
    rng = np.random.default_rng(seed)
    step = 2 * np.pi * np.arange(n_steps) / SEASON
    noise = np.where(np.arange(n_series) % 2, 0.3, 0.03)[:, None] * rng.normal(size=(n_series, n_steps))
    stamps = pd.date_range("2024-01-01", periods=n_steps, freq="h")
    names = np.repeat([f"s{i}" for i in range(n_series)], n_steps)
    return pd.DataFrame({"unique_id": names, "ds": np.tile(stamps, n_series), "y": (np.sin(step) + noise).ravel()})


def held(model: TimeSeriesMAE, history: pd.DataFrame, came: pd.DataFrame, level: int) -> tuple[pd.Series, pd.Series]:
    """Share of what came that intervals hold, and their mean width, of quiet and of noisy series."""
    found = model.forecast(history, level=level).merge(came, on=["unique_id", "ds"])
    inside = found["y"].between(found[f"TimeSeriesMAE-lo-{level}"], found[f"TimeSeriesMAE-hi-{level}"])
    noisy = found["unique_id"].str[1:].astype(int) % 2
    width = found[f"TimeSeriesMAE-hi-{level}"] - found[f"TimeSeriesMAE-lo-{level}"]
    return inside.groupby(noisy).mean(), width.groupby(noisy).mean()


def test_intervals_are_as_wide_as_their_own_series_is_noisy() -> None:
    frame = uneven()
    later = frame.groupby("unique_id").cumcount() >= 188
    model = TimeSeriesMAE(horizon=12, max_epochs=0, random_state=0).fit(frame[~later])
    share, width = held(model, frame[~later], frame[later], 80)
    assert share.between(0.7, 0.9).all()
    assert width[1] > 6 * width[0]
    new = uneven(seed=1).replace({"unique_id": r"^s"}, {"unique_id": "n"}, regex=True)
    share, width = held(model, new[~later], new[later], 95)
    assert share.between(0.9, 1).all()  # series that fit has not seen tell their noise themselves
    assert width[1] > 6 * width[0]


@pytest.mark.parametrize("shape", [(1, 5, 1), (1, 12, 2)], ids=str)
def test_series_too_short_to_judge_by_are_not_thought_to_be_sure(shape: tuple[int, int, int]) -> None:
    X = np.random.default_rng(0).normal(size=shape)
    fitted = TimeSeriesMAE(horizon=shape[1], max_epochs=0, random_state=0).fit(X)
    found = fitted.forecast(level=[80, 95])
    assert not (found["TimeSeriesMAE-hi-95"] - found["TimeSeriesMAE-lo-95"] < 0.5).any()


def test_intervals_of_one_short_series_hold_the_forecast_and_most_of_what_comes() -> None:
    """A series of a hundred steps has few origins to judge by: a handful of residuals is no distribution."""
    noise = np.random.default_rng(0).normal(size=(2, 8, 124))
    held = []
    for walk in (noise[0] + 0.3 * noise[1].cumsum(1))[:, :, None]:
        fitted = TimeSeriesMAE(**{**EXPERTS_ONLY, "horizon": 24}).fit(walk[None, :100])
        found = fitted.forecast(level=[80])
        low, mean, high = (found[name].to_numpy() for name in (*BOUNDS[:1], "TimeSeriesMAE", BOUNDS[1]))
        assert ((low <= mean) & (mean <= high)).all()
        held.append((low <= walk[100:, 0]) & (walk[100:, 0] <= high))
        paths = fitted.sample(n_samples=2, horizon=24)
        assert not np.allclose(*paths)
    assert np.mean(held) > 0.6


def judged_origins(series: list[int], step: list[int]) -> Origins:
    no = torch.zeros(len(series))
    return Origins(no, no, no, no, torch.tensor(series), torch.tensor(step), weighed=no, scales=no)


def test_a_series_is_as_wide_as_its_known_residuals_and_an_origin_as_the_others_apart() -> None:
    sizes = torch.tensor([1.0, 1, 1, 5, 5, 5, torch.nan])
    origins = judged_origins([0, 0, 0, 1, 1, 1, 1], [10, 20, 23, 10, 20, 23, 40])
    widths, of_origins = own_widths(sizes[:, None, None].expand(-1, 10, 1), origins, 3)
    small, large = 1 / 3, 5 / 3
    assert widths.tolist() == pytest.approx([(3 * small + 1) / 4, (3 * large + 1) / 4, 1])
    apart = [(2 * small + 1) / 3, (small + 1) / 2, (small + 1) / 2]
    assert of_origins[:3].tolist() == pytest.approx(apart)
    assert of_origins[6] == pytest.approx((3 * large + 1) / 4)


def test_series_of_which_all_origins_overlap_are_not_thought_to_differ() -> None:
    sizes = torch.tensor([1.0, 1, 5, 5])[:, None, None].expand(-1, 10, 1)
    widths, of_origins = own_widths(sizes, judged_origins([0, 0, 1, 1], [10, 19, 10, 19]), 2)
    assert widths.tolist() == [1, 1] and of_origins.tolist() == [1, 1, 1, 1]


def test_widths_are_drawn_to_all_where_series_miss_alike() -> None:
    sizes = torch.from_numpy(np.random.default_rng(0).exponential(size=200)).float()[:, None, None].expand(-1, 2, 1)
    origins = judged_origins(np.repeat(np.arange(50), 4).tolist(), np.tile([0, 5, 10, 15], 50).tolist())
    widths, _ = own_widths(sizes, origins, 50)
    assert widths.std() < 0.05


def test_completing_the_future_keeps_no_graph(model: TimeSeriesMAE) -> None:
    history = torch.zeros(2, model.size_.window, 1)
    assert not masked_forecast(model.model_, history, history == 0, 4).requires_grad


def test_columns_known_ahead_are_used(promoted: TimeSeriesMAE, unpromoted: TimeSeriesMAE) -> None:
    whole = driven()
    past, ahead = whole[:312], whole[312:]
    with_it, without = (
        rooted(found["TimeSeriesMAE"].to_numpy() - ahead["y"].to_numpy())
        for found in (promoted.forecast(X_future=ahead[["ds", "promotion"]]), unpromoted.forecast())
    )
    assert with_it < 0.4 * without and with_it < 2 * 0.2
    more = promoted.forecast(X_future=ahead[["ds"]].assign(promotion=ahead["promotion"] + 1), level=None)
    moved = more["TimeSeriesMAE"] - promoted.forecast(X_future=ahead, level=None)["TimeSeriesMAE"]
    np.testing.assert_allclose(moved, 3, atol=0.15)
    from_history = promoted.forecast(past, X_future=whole[["ds", "promotion"]])
    pd.testing.assert_frame_equal(from_history, promoted.forecast(X_future=ahead), check_exact=True)


def yearly(n_steps: int) -> pd.DataFrame:
    """Draw daily values that follow the time of the year, too seldom seen to be learnt from a context."""
    rng = np.random.default_rng(0)
    stamps = pd.date_range("2018-01-01", periods=n_steps, freq="D", name="ds")
    wave = 5 * np.cos(2 * np.pi * np.asarray(stamps.day_of_year) / 365.25)
    return pd.DataFrame({"y": 10 + wave + rng.normal(size=n_steps)}, index=stamps)


def test_the_time_of_the_year_is_known_ahead() -> None:
    whole = yearly(1290)
    past, ahead = whole[:1200], whole[1200:]
    fitted = TimeSeriesMAE(**{**EXPERTS_ONLY, "horizon": 90}).fit(past)
    found = fitted.forecast()["TimeSeriesMAE"].to_numpy()
    assert rooted(found - ahead["y"].to_numpy()) < 1.2
    np.testing.assert_array_equal(fitted.forecast(past)["TimeSeriesMAE"], found)
    tested = fitted.backtest(whole, n_windows=1, horizon=90)
    np.testing.assert_allclose(tested.forecasts["TimeSeriesMAE"], found)
    assert fitted.forecast()["TimeSeriesMAE-lo-95"].min() >= 0 or past["y"].min() < 0


def test_the_calendar_is_left_out_where_it_tells_nothing() -> None:
    noise = yearly(1200).assign(y=np.random.default_rng(1).normal(size=1200))
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(noise)
    assert fitted.cycles_ == ("year",) and not len(fitted.regressors_.mean)


def test_a_walk_that_drifts_with_the_seasons_by_chance_is_not_believed_to() -> None:
    """The calendar is judged by steps that its effect has not seen; seeing them, it would win most of these."""
    stamps = pd.date_range("2015-01-01", periods=1500, freq="D", name="ds")
    believed = []
    for seed in range(8):
        walk = np.random.default_rng(seed).standard_normal(1500).cumsum()
        fitted = TimeSeriesMAE(**{**EXPERTS_ONLY, "horizon": 60, "context": 120, "window": 48}).fit(
            pd.DataFrame({"y": walk}, index=stamps)
        )
        believed.append(len(fitted.regressors_.mean) > 0)
    assert sum(believed) <= 1


def test_the_effect_of_known_columns_is_not_carried_on(promoted: TimeSeriesMAE) -> None:
    whole = driven()
    past, ahead = whole[:312], whole[312:].assign(promotion=0.0)
    late = past.index >= 288
    busy = past.assign(y=past["y"] + 3 * (1 - past["promotion"]) * late, promotion=past["promotion"].mask(late, 1))
    found, expected = (promoted.forecast(X, X_future=ahead)["TimeSeriesMAE"] for X in (busy, past))
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.3)


def test_what_is_known_ahead_may_leave_the_range_of_the_history(promoted: TimeSeriesMAE) -> None:
    found = promoted.forecast(X_future=driven()[312:].assign(promotion=-10.0))
    assert (found["TimeSeriesMAE"] < 90).all()
    assert (
        (found["TimeSeriesMAE-lo-95"] <= found["TimeSeriesMAE"]) & (found["TimeSeriesMAE"] <= found[BOUNDS[3]])
    ).all()


def test_what_has_never_been_negative_is_not_forecast_to_be() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.7, size=(2, 300, 1)).astype(float)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(counts)
    found = fitted.forecast(level=[80, 95])
    assert (found.drop(columns=["unique_id", "ds"]) >= 0).to_numpy().all()
    assert all((draw >= 0).all() for draw in fitted.sample(counts, n_samples=5, horizon=12))


def test_what_falls_is_forecast_to_fall_within_its_intervals() -> None:
    step = np.arange(500)
    falling = 1500 - 2 * step + np.sin(2 * np.pi * step / SEASON)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(falling[None, :300, None])
    found = fitted.forecast(horizon=200, level=[80, 95])
    low, mean, high = (found[name].to_numpy() for name in (BOUNDS[2], "TimeSeriesMAE", BOUNDS[3]))
    assert ((low <= mean) & (mean <= high)).all()
    np.testing.assert_allclose(mean, falling[300:], rtol=0, atol=20)


def test_a_backtest_forecasts_from_its_cutoffs_and_tells_what_came(model: TimeSeriesMAE) -> None:
    result = model.backtest(WHOLE, n_windows=3, step=5)
    table = result.forecasts
    assert table.columns.tolist() == ["unique_id", "ds", "cutoff", "y", "TimeSeriesMAE", *BOUNDS]
    stamps = WHOLE["ds"].unique()
    last = N_STEPS + N_AHEAD - 1
    assert table["cutoff"].unique().tolist() == [stamps[last - 12 - back] for back in (10, 5, 0)]
    assert len(table) == 3 * 2 * 12
    for cutoff, part in table.groupby("cutoff"):
        assert part.groupby("unique_id")["ds"].min().unique().tolist() == [cutoff + pd.Timedelta(1, "h")]
        expected = model.forecast(WHOLE[WHOLE["ds"] <= cutoff])
        for column in ("TimeSeriesMAE", *BOUNDS):
            np.testing.assert_allclose(part[column], expected[column], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(table["y"], table.merge(WHOLE, on=["unique_id", "ds"])["y_y"])


def test_a_backtest_measures_what_it_shows(model: TimeSeriesMAE) -> None:
    table, metrics = model.backtest(frame_with_runs(WHOLE), n_windows=4, horizon=6)
    assert metrics.columns.tolist() == ["cutoff", "mae", "rmse", "coverage-80", "coverage-95"]
    known = table[table["y"].notna()]
    for _, row in metrics.iterrows():
        part = known[known["cutoff"] == row["cutoff"]]
        error = part["TimeSeriesMAE"] - part["y"]
        assert row["mae"] == pytest.approx(error.abs().mean()) and row["rmse"] == pytest.approx(rooted(error))
        held = (part["y"] >= part[BOUNDS[0]]) & (part["y"] <= part[BOUNDS[1]])
        assert row["coverage-80"] == pytest.approx(held.mean())
    plain = model.backtest(WHOLE, n_windows=1, level=None)
    assert plain.metrics.columns.tolist() == ["cutoff", "mae", "rmse"] and len(plain.forecasts) == 24


@pytest.mark.parametrize("name", ["promoted", "unpromoted"])
def test_a_backtest_never_sees_the_future(name: str, request: pytest.FixtureRequest) -> None:
    fitted, whole = request.getfixturevalue(name), driven()
    table = fitted.backtest(whole, n_windows=3).forecasts
    for cutoff in table["cutoff"].unique():
        changed = whole.assign(y=whole["y"].where(whole["ds"] <= cutoff, -50 * whole["y"] - 9))
        for other in (changed, whole.assign(y=whole["y"].where(whole["ds"] <= cutoff))):
            again = fitted.backtest(other, n_windows=3).forecasts
            rows = (table["cutoff"] <= cutoff).to_numpy()
            columns = ["ds", "cutoff", "TimeSeriesMAE", *BOUNDS]
            pd.testing.assert_frame_equal(again[rows][columns], table[rows][columns], check_exact=True)


def test_paths_differ_follow_their_seed_and_spread_as_the_intervals_do() -> None:
    series = autoregressive(320, 4)
    fitted = TimeSeriesMAE(**EXPERTS_ONLY).fit(series)
    paths = fitted.sample(n_samples=200, horizon=20, random_state=1)
    forecast = fitted.forecast(horizon=20)
    assert len(paths) == 200 and paths[0].columns.tolist() == ["unique_id", "ds", "TimeSeriesMAE"]
    pd.testing.assert_frame_equal(paths[0][["unique_id", "ds"]], forecast[["unique_id", "ds"]])
    for seed, same in ((1, True), (2, False)):
        assert paths[0].equals(fitted.sample(series, 1, random_state=seed, horizon=20)[0]) == same
    drawn = np.stack([path["TimeSeriesMAE"] for path in paths])
    held = (drawn >= forecast[BOUNDS[0]].to_numpy()) & (drawn <= forecast[BOUNDS[1]].to_numpy())
    assert held.mean() == pytest.approx(0.8, abs=0.1)
    about = (drawn - forecast["TimeSeriesMAE"].to_numpy()).reshape(200, 4, 20)[:, :, 3:12]
    neighbours = np.corrcoef(about[:, :, :-1].ravel(), about[:, :, 1:].ravel())[0, 1]
    assert neighbours > 0.5, "the steps of a path hang together"


def test_paths_of_arrays_are_arrays() -> None:
    paths = TimeSeriesMAE(**EXPERTS_ONLY).fit(waves()).sample(waves()[:2], n_samples=3, horizon=7)
    assert [path.shape for path in paths] == [(2, 7, 2)] * 3
    assert not np.allclose(paths[0], paths[1])
