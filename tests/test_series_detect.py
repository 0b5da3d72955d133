"""Claims about odd stretches of series: found where and in which channel they are, gaps are none, nothing in units."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from machines import N_FIT, fitted, later, machine, only_event
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from tabmae import TimeSeriesMAE, load
from tabmae.errors import DataError, ParameterError
from tabmae.estimators.series.detecting import Reference, SeriesDetector
from tabmae.estimators.series.detecting.members import measured_channels
from tabmae.estimators.series.detecting.tails import Tail
from tabmae.plotting import plot_detection
from tabmae.series_model import SeriesAutoencoder

pytestmark = pytest.mark.usefixtures("no_bridges")


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of the first half of `machine`, without network and forecasters; nothing may change it."""
    return fitted(machine().iloc[:N_FIT])


def test_a_spike_is_found_at_its_stamp_in_its_channel(model: TimeSeriesMAE) -> None:
    table = later()
    at = table.index[700]
    table.loc[at, "heat"] += 4000
    detection = model.detect(table)
    event = only_event(detection, at)
    assert event["start"] == event["peak"] == event["end"] == at and event["channels"][0] == "heat"
    assert "flow" not in event["channels"]
    point = detection.points.query("when == @at and channel == 'heat'").iloc[0]
    assert point["flag"] and point["p_value"] < 1e-4
    assert not point["lower"] <= point["value"] <= point["upper"]
    assert abs(point["expected"] - (point["value"] - 4000)) < 1500


def test_a_broken_correlation_is_found_though_each_channel_is_as_usual(model: TimeSeriesMAE) -> None:
    table = later()
    begin, end = table.index[[600, 660]]
    table.loc[begin:end, "heat"] = machine(seed=5).iloc[N_FIT + 600 : N_FIT + 661]["heat"].to_numpy()
    assert table["heat"].between(*machine()["heat"].iloc[:N_FIT].agg(["min", "max"])).all()
    event = only_event(model.detect(table), table.index[630])
    assert set(event["channels"]) <= {"load", "heat"} and "heat" in event["channels"]


def test_a_rhythm_that_slips_and_a_level_that_shifts_are_found(model: TimeSeriesMAE) -> None:
    slipped = later()
    slipped.iloc[600:680, 2] = machine().iloc[N_FIT + 606 : N_FIT + 686, 2].to_numpy()
    assert "flow" in only_event(model.detect(slipped), slipped.index[600])["channels"]
    shifted = later()
    shifted.iloc[600:680, 2] += 1.5
    event = only_event(model.detect(shifted), shifted.index[640])
    assert event["channels"][0] == "flow"
    assert abs(event["start"] - shifted.index[600]) <= pd.Timedelta(hours=12)
    assert abs(event["end"] - shifted.index[679]) <= pd.Timedelta(hours=12)


def test_what_is_odd_in_the_series_of_fit_is_found_there() -> None:
    table = machine()
    table.iloc[500, 1] += 6000
    table.iloc[1500:1540, 2] += 3
    events = fitted(table).detect(table).events
    for place in (500, 1520):
        assert ((events["start"] <= table.index[place]) & (events["end"] >= table.index[place])).any()


@pytest.mark.parametrize("n_odd", [30, 50, 100])
def test_a_long_anomaly_in_the_series_of_fit_does_not_hide_itself(n_odd: int) -> None:
    step, noise = np.arange(1500), np.random.default_rng(0).normal(size=1500)
    table = pd.DataFrame({"flow": 3 * np.sin(2 * np.pi * step / 24) + 0.4 * noise}, index=machine().index[:1500])
    odd = table.copy()
    odd.iloc[700 : 700 + n_odd] += 3
    flag = fitted(odd, window=96).detect(odd).points["flag"].to_numpy()
    assert flag[700 : 700 + n_odd].all() and flag[:650].mean() <= 0.01 and flag[750 + n_odd :].mean() <= 0.01
    assert fitted(table, window=96).detect(table).points["flag"].mean() <= 0.01


def test_false_alarms_are_about_as_many_as_asked_for() -> None:
    # A window's neighbours are flagged with it: the share of one series is far from its mean over many.
    shares = []
    for seed in range(3):
        table = machine(seed, n_steps=N_FIT + 2000)
        detection = fitted(table.iloc[:N_FIT]).detect(table.iloc[N_FIT:], alpha=0.05)
        of_stamp = detection.points.query("channel == 'load'")
        shares.append([(of_stamp["p_value"] <= 0.05).mean(), of_stamp["flag"].mean()])
    p_values, flags = np.mean(shares, axis=0)
    assert 0.005 <= p_values <= 0.15 and flags <= p_values


def test_bounds_hold_their_share_of_later_cells(model: TimeSeriesMAE) -> None:
    points = model.detect(later(), alpha=0.1).points
    held = points["value"].between(points["lower"], points["upper"]).groupby(points["channel"]).mean()
    assert held.between(0.82, 0.97).all()


def test_gaps_are_no_evidence(model: TimeSeriesMAE) -> None:
    whole, gappy = later(), later()
    rng = np.random.default_rng(0)
    gappy = gappy.mask(rng.random(gappy.shape) < 0.2)
    gappy.iloc[300:420] = np.nan
    gappy = gappy.drop(index=gappy.index[800:850])
    detection = model.detect(gappy)
    scores = model.anomaly_score(gappy)["score"].to_numpy()
    missing = gappy.reindex(whole.index).isna().all(axis=1).to_numpy()
    np.testing.assert_array_equal(np.isnan(scores), missing)
    assert np.nanmean(scores) < 1.3 * model.anomaly_score(whole)["score"].mean()
    assert (detection.points["p_value"] <= 0.01).mean() <= 0.03
    lost = detection.points[detection.points["value"].isna()]
    assert len(lost) and not lost.loc[lost["score"].isna(), "flag"].any() and lost["expected"].notna().all()


@pytest.mark.parametrize("by_channel", [False, True])
def test_scores_have_no_unit(model: TimeSeriesMAE, by_channel: bool) -> None:
    table = machine() * [100, 0.001, 7] + [5, -3, 1000]
    other = fitted(table.iloc[:N_FIT]).anomaly_score(table.iloc[N_FIT:], by_channel=by_channel)
    mine = model.anomaly_score(later(), by_channel=by_channel)
    np.testing.assert_allclose(other["score"], mine["score"], rtol=0.02, atol=0.02)
    assert list(mine.columns) == ["when", *(["channel"] if by_channel else []), "score"]


def test_a_channel_has_scores_of_its_own(model: TimeSeriesMAE) -> None:
    table = later()
    table.iloc[700, 0] += 6
    scores = model.anomaly_score(table, by_channel=True).pivot(index="when", columns="channel", values="score")
    assert scores["load"].max() > 4 * scores["flow"].max()
    assert abs(scores.index.get_loc(scores["load"].idxmax()) - 700) <= 6


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo"])
def test_a_table_of_no_events_has_the_types_of_one_with_some(zone: str | None) -> None:
    stamps = pd.date_range("2024-01-01", periods=80, freq="h", tz=zone)
    calm = pd.DataFrame({"unique_id": 7, "ds": stamps, "y": np.random.default_rng(0).normal(size=80)})
    odd = calm.assign(y=calm["y"].where(calm.index != 50, 40.0))
    model = fitted(calm, window=8)
    some, none = (model.detect(table, alpha=1e-6).events for table in (odd, calm))
    assert len(some) == 1 and not len(none)
    assert some.dtypes.to_dict() == none.dtypes.to_dict()
    assert some["peak"].tolist() == [stamps[50]] and some["unique_id"].tolist() == [7]
    assert (none["end"] - none["start"]).sum() == pd.Timedelta(0)


def test_a_series_is_scored_alone() -> None:
    frames = [machine(seed, 600).reset_index().assign(unique_id=f"s{seed}") for seed in range(3)]
    table = pd.concat(frames).rename(columns={"when": "ds"})
    model = fitted(table)
    scores = model.anomaly_score(table)
    assert list(scores.columns) == ["unique_id", "ds", "score"] and len(scores) == len(table)
    alone = model.anomaly_score(frames[1].rename(columns={"when": "ds"}))
    np.testing.assert_allclose(alone["score"], scores.loc[scores["unique_id"] == "s1", "score"], rtol=1e-4, atol=1e-4)
    table.loc[(table["unique_id"] == "s2") & (table.groupby("unique_id").cumcount() == 300), "flow"] += 8
    events = model.detect(table).events
    assert events.sort_values("peak_score").iloc[-1][["unique_id", "channels"]].tolist() == ["s2", ["flow"]]


def test_a_far_cell_leaves_the_scores_of_other_steps_as_they_are() -> None:
    frames = [machine(seed, 400).reset_index().assign(unique_id=f"s{seed}") for seed in range(2)]
    table = pd.concat(frames, ignore_index=True).rename(columns={"when": "ds"})
    model = fitted(table)
    scores = model.anomaly_score(table)["score"].to_numpy()
    table.loc[100, "flow"] = 1e20
    with_far = model.anomaly_score(table)["score"].to_numpy()
    np.testing.assert_allclose(with_far[200:], scores[200:], rtol=1e-4, atol=1e-4)
    assert np.isfinite(with_far).all() and with_far.argmax() in range(90, 111)


def test_arrays_have_arrays_of_scores() -> None:
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(150) / 4)[None, :, None] + 0.1 * rng.normal(size=(12, 150, 2))
    model = fitted(waves)
    waves[3, 70, 1], waves[5, 20:30] = 4.0, np.nan
    scores, each = model.anomaly_score(waves), model.anomaly_score(waves, by_channel=True)
    assert scores.shape == (12, 150) and each.shape == (12, 150, 2)
    assert np.argmax(np.nanmax(scores, axis=1)) == 3 and np.isnan(scores[5, 20:30]).all()
    event = model.detect(waves).events.sort_values("peak_score").iloc[-1]
    assert event[["unique_id", "start", "end", "channels"]].tolist() == [3, 70, 70, [1]]


def test_short_series_and_the_pure_masked_model_have_scores() -> None:
    short = np.random.default_rng(0).normal(size=(1, 12, 1))
    assert np.isfinite(TimeSeriesMAE(max_epochs=0, random_state=0).fit(short).anomaly_score(short)).all()
    pure = TimeSeriesMAE(max_epochs=1, experts=(), window=16, random_state=0).fit(machine().iloc[:200])
    assert pure.detector_.member_names[:2] == ["residual", "clusters"]
    assert pure.anomaly_score(later().iloc[:100])["score"].notna().all()


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 3], [1, 2, 1, 2], [1, 2, 3, 4], [3, 1, 4, 1, 5, 9]])
def test_next_to_nothing_learnt_makes_nothing_odd(values: list[float], tmp_path: Path) -> None:
    short = np.array(values, dtype=float)[None, :, None]
    fitted(short, window="auto", horizon=1).save(tmp_path / "model")
    model = load(tmp_path / "model")
    for new in (short, short[:, ::-1]):
        with pytest.warns(UserWarning, match=r"^Fit saw too few steps to tell what is usual: all p-values are 1"):
            detection = model.detect(new, alpha=0.5)
        assert (detection.points["p_value"] == 1).all() and not detection.points["flag"].any()
        assert not len(detection.events) and np.isfinite(model.anomaly_score(new)).all()


def test_of_a_series_that_is_mostly_missing_the_rest_is_learnt() -> None:
    table = machine().iloc[:N_FIT]
    table.iloc[1:800] = np.nan
    new = later()
    new.iloc[700, 1] += 6000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        only_event(fitted(table).detect(new), new.index[700])


def test_what_is_usual_is_learnt_once_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, learn = [], SeriesDetector.fit

    def counted(*arguments: Any) -> SeriesDetector:
        calls.append(arguments)
        return learn(*arguments)

    monkeypatch.setattr(SeriesDetector, "fit", counted)
    table = machine().iloc[:300]
    model = fitted(table)
    model.impute(table)
    model.forecast()
    clone(model)
    assert not calls and "detector_" not in vars(model)
    first = model.anomaly_score(table)
    pd.testing.assert_frame_equal(model.anomaly_score(table), first, check_exact=True)
    model.detect(table)
    assert len(calls) == 1


def test_asked_early_or_late_the_scores_are_the_same_bits() -> None:
    table, new = machine().iloc[:400], later().iloc[:300]
    early, late = fitted(table), fitted(table)
    before = early.anomaly_score(new)
    late.sample(new, 1)
    late.encode(new)
    late.set_params(random_state=5, max_epochs=3)
    table.iloc[:] = 0.0
    for other in (late, pickle.loads(pickle.dumps(late))):
        pd.testing.assert_frame_equal(other.anomaly_score(new), before, check_exact=True)


def test_fit_again_forgets_what_was_usual() -> None:
    table, other = machine().iloc[:400], machine(seed=9).iloc[:400] * [1, 2, 3]
    model = fitted(table)
    model.detect(table)
    again = model.fit(other).anomaly_score(other)
    pd.testing.assert_frame_equal(again, fitted(other).anomaly_score(other), check_exact=True)
    with pytest.raises(DataError):
        model.fit(other.assign(flow=np.nan))
    pd.testing.assert_frame_equal(model.anomaly_score(other), again, check_exact=True)


def test_of_long_series_little_is_kept() -> None:
    kept = Reference.of(np.random.default_rng(0).normal(size=(1_000_000, 2)), (600_000, 400_000), seed=0)
    assert kept.values.nbytes <= 500_000 and kept.values.base is None
    assert sum(kept.lengths) == len(kept.values)


def test_who_has_not_learnt_cannot_judge() -> None:
    with pytest.raises(NotFittedError):
        TimeSeriesMAE().anomaly_score(machine())
    assert not hasattr(TimeSeriesMAE(), "detector_")


def with_switches(table: pd.DataFrame) -> pd.DataFrame:
    """With a pump that shifts the flow by 5, a valve that is seldom open, and a lamp that is always on."""
    rng = np.random.default_rng(len(table))
    pump = np.repeat(rng.integers(0, 2, size=len(table) // 20 + 1), 20)[: len(table)]
    valve = (rng.random(len(table)) < 0.005).astype(float)
    return table.assign(pump=pump, valve=valve, lamp=1.0, flow=table["flow"] + 5 * pump)


def test_switches_explain_and_are_not_judged() -> None:
    model = fitted(with_switches(machine().iloc[:N_FIT]))
    usual = with_switches(later())
    scores = model.anomaly_score(usual)["score"].to_numpy()
    busy = usual.copy()
    busy.iloc[600:620, 4], busy.iloc[600:620, 5] = 1.0, 0.0
    assert model.anomaly_score(busy)["score"].iloc[560:660].max() < scores.max() + 3
    each = model.anomaly_score(busy, by_channel=True).pivot(index="when", columns="channel", values="score")
    assert each.iloc[605][["valve", "lamp"]].min() > 20
    assert not {"pump", "valve", "lamp"} & {name for names in model.detect(busy).events["channels"] for name in names}
    stuck = usual.copy()
    place = next(n for n in range(600, 1100, 20) if usual.iloc[n : n + 10]["pump"].eq(0).all())
    stuck.iloc[place : place + 10, 3] = 1
    event = only_event(model.detect(stuck), stuck.index[place + 5])
    assert event["channels"][0] == "flow"


def test_where_all_are_switches_all_are_judged() -> None:
    assert measured_channels(np.array([[0.0, 1.0], [1.0, 1.0], [np.nan, 2.0], [0.0, 2.0]]), (4,)) == [0, 1]
    values = np.array([[0.0, 1.0, 5.0], [1.0, 1.0, 6.0], [7.0, 2.0, np.nan], [8.0, 2.0, 8.0]])
    assert measured_channels(values, (4,)) == [0, 2] and measured_channels(values, (2, 2)) == [0, 1, 2]
    states = pd.DataFrame({"a": np.arange(600) // 10 % 2, "b": np.arange(600) // 20 % 2}, index=machine().index[:600])
    model = fitted(states)
    new = states.copy()
    new.iloc[300:330, 0] = 1
    scores = model.anomaly_score(new)["score"].to_numpy()
    assert 290 <= np.argmax(scores) <= 340 and scores.max() > 2 * model.anomaly_score(states)["score"].max()


def test_a_network_that_nobody_believes_is_not_asked(model: TimeSeriesMAE, monkeypatch: pytest.MonkeyPatch) -> None:
    table = later().iloc[:200]
    mine = model.anomaly_score(table)
    monkeypatch.setattr(SeriesAutoencoder, "network", None)
    pd.testing.assert_frame_equal(model.anomaly_score(table), mine, check_exact=True)


def test_loaded_judges_bit_for_bit_the_same(model: TimeSeriesMAE, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    other = load(tmp_path / "model")
    other.save(tmp_path / "again")
    mine, loaded = (each.detect(later()) for each in (model, load(tmp_path / "again")))
    pd.testing.assert_frame_equal(loaded.points, mine.points, check_exact=True)
    pd.testing.assert_frame_equal(loaded.events, mine.events, check_exact=True)


def test_finetuned_knows_what_is_usual_of_the_other_series(model: TimeSeriesMAE) -> None:
    other = later()
    other["flow"] = np.sin(2 * np.pi * np.arange(len(other)) / 8)
    before = model.anomaly_score(other)["score"].mean()
    tuned = fitted(machine().iloc[:N_FIT]).finetune(other)
    assert tuned.anomaly_score(other)["score"].mean() < 0.5 * before


def test_what_is_asked_is_checked(model: TimeSeriesMAE) -> None:
    with pytest.raises(ParameterError, match=r"`alpha` must lie in \(0, 1\); got 1"):
        model.detect(later(), alpha=1)


def test_a_tail_gives_the_share_of_usual_values_and_does_not_end() -> None:
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=20_000))
    for tail in (Tail.fit(values), Tail.fit(values, wary=True)):
        shares = tail.share(torch.tensor([0.0, 0.7, 2.3, 4.6, 11.5, torch.nan])).numpy()
        np.testing.assert_allclose(shares[:5], np.exp([0, -0.7, -2.3, -4.6, -11.5]), rtol=0.4)
        assert np.isnan(shares[5]) and tail.value(0.01) == pytest.approx(4.6, rel=0.1)
        nats = tail.nats(torch.linspace(0, 1000, 500))
        assert bool((nats.diff() >= 0).all()) and nats[-1] == pytest.approx(1000, rel=0.1)
    spoilt = torch.cat([values, torch.full((400,), 500.0)])
    assert Tail.fit(spoilt).value(0.001) < 12
    spoilt = torch.cat([values, torch.full((2500,), 500.0)])
    assert Tail.fit(spoilt, wary=True).value(0.001) < 14
    often_quiet = values.clamp_min(values.median())
    assert Tail.fit(often_quiet, wary=True).value(0.01) > 4


def test_a_picture_shades_what_is_flagged(model: TimeSeriesMAE, tmp_path: Path) -> None:
    table = later()
    table.iloc[700, 1] += 6000
    figure = plot_detection(model.detect(table))
    assert isinstance(figure, Figure) and len(figure.axes) == 4 and figure.axes[0].get_ylabel() == "heat"
    figure.savefig(tmp_path / "odd.png")
    assert (tmp_path / "odd.png").stat().st_size > 10_000
    waves = np.random.default_rng(0).normal(size=(4, 80, 1))
    detection = fitted(waves, window=8).detect(waves)
    assert len(plot_detection(detection, id=2).axes) == 2
    with pytest.raises(DataError, match=r"^`id` must be one of 0, 1, 2, 3; got 9\. Pass one of them"):
        plot_detection(detection, id=9)
    with pytest.raises(DataError, match=r"^`id` must be one of 0, 1, 2, 3; got a DataFrame\."):
        plot_detection(detection, table)


def test_a_level_that_has_left_the_range_of_fit_is_told() -> None:
    hours = pd.date_range("2024-01-01", periods=900, freq="h")
    noise = np.random.default_rng(0).normal(size=(900, 2))
    table = pd.DataFrame({"grows": 0.02 * np.arange(900) + noise[:, 0], "stays": noise[:, 1]}, index=hours)
    model = fitted(table.iloc[:600])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.detect(table.iloc[:600])
        model.anomaly_score(table[["grows", "stays"]].iloc[500:600])
    with pytest.warns(UserWarning, match=r"steps of 'grows' lie outside the range that fit saw"):
        model.detect(table.iloc[700:])


def test_a_series_of_few_values_lies_within_the_range_of_itself() -> None:
    values = np.random.default_rng(0).choice([0.0, 1.0, 2.0], 200, p=[0.45, 0.1, 0.45])
    table = pd.DataFrame({"state": values}, index=pd.date_range("2024-01-01", periods=200, freq="h"))
    model = fitted(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.detect(table)
