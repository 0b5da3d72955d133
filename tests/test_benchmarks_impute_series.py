"""Claims about the benchmark of gaps in series: cells are hidden as the protocol says, unseen, and nothing repeats."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import impute_series, series_peers
from benchmarks.impute_series import PUBLISHED, main, score_windows, setting
from benchmarks.series_data import SETTINGS, TSI_RUN, Gaps, carry_forward, load_gaps, load_outlook
from benchmarks.series_peers import IMPUTERS, OursGaps, Pots, Seasonal, impute_all

CHEAP = ("mean", "locf", "linear", "seasonal")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated files under the names of the published ones."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("ETT", "BeijingPM25", "physionet2012", "ImputeGAP"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    dates = pd.date_range("2016-07-01", periods=17_420, freq="h")
    ett = pd.DataFrame(waves(len(dates), 7, rng), columns=list("abcdefg")).assign(date=dates)
    ett.to_csv(folder / "ETT" / "ETTh1.csv.gz", index=False)
    hours = pd.date_range("2010-01-01", periods=2_000, freq="h")
    parts = {"No": range(2_000), "year": hours.year, "month": hours.month, "day": hours.day, "hour": hours.hour}
    air = pd.DataFrame(waves(2_000, 3, rng), columns=["pm2.5", "TEMP", "Ir"]).assign(**parts, cbwd="NW")
    air.loc[::7, "pm2.5"] = np.nan
    air.to_csv(folder / "BeijingPM25" / "PRSA_data_2010-2014.csv.gz", index=False)
    np.savetxt(folder / "ImputeGAP" / "airq.txt.gz", 100 + 7 * waves(500, 4, rng))
    stays(rng).to_csv(folder / "physionet2012" / "set-a_long.csv.gz", index=False)
    return folder


def waves(n_steps: int, n_channels: int, rng: np.random.Generator) -> np.ndarray:
    steps = np.arange(n_steps)[:, None]
    return np.sin(2 * np.pi * steps / 24 + np.arange(n_channels)) + 0.1 * rng.standard_normal((n_steps, n_channels))


def stays(rng: np.random.Generator) -> pd.DataFrame:
    """Forty patients: an age, a pulse at the start and the half of every hour, and a weight that is told once."""
    rows = []
    for patient in range(40):
        rows += [(patient, "00:00", "Age", 70.0), (patient, "00:00", "Weight", -1.0 if patient % 2 else 80.0 + patient)]
        for hour in range(49):
            rows += [(patient, f"{hour:02d}:{minute:02d}", "HR", 60 + patient + minute) for minute in (0, 30)]
    return pd.DataFrame(rows, columns=["RecordID", "Time", "Parameter", "Value"])


def run(data: Path, out: Path) -> None:
    """Write rows of two peers on windows and on a whole series."""
    few = ["--methods", "linear", "seasonal", "--patterns", "points", "--fractions", "0.1", "0.5", "--stride", "100"]
    main(["--data", str(data), "--datasets", "ETTh1", "airq", *few, "--out", str(out), "--threads", "1"])


def imputed(method: str, gaps: Gaps) -> np.ndarray:
    """Complete as a worker does."""
    shown = {"train": gaps.train, "validation": gaps.validation, "train_phase": gaps.train_phase}
    arrays = {**shown, "windows": gaps.visible, "phases": gaps.test_phase}
    found: list[np.ndarray] = []
    impute_all(IMPUTERS[method](seed=0, n_jobs=1), {"period": gaps.period}, arrays, found.append)
    return np.concatenate(found)


def run_lengths(hidden: np.ndarray) -> np.ndarray:
    """Lengths of the hidden stretches along the steps of windows (n, W, C)."""
    padded = np.pad(hidden, ((0, 0), (1, 1), (0, 0))).astype(int)
    edges = np.diff(np.moveaxis(padded, 1, 2), axis=2)
    return np.nonzero(edges == -1)[2] - np.nonzero(edges == 1)[2]


def test_points_are_hidden_in_windows_of_the_test_part_alone(data: Path) -> None:
    gaps = load_gaps("ETTh1", data, "points", 0.25, 0, 10)
    assert gaps.truth.shape == (279, 96, 7) and gaps.train.shape == (1, 8_640, 7) and not np.isnan(gaps.train).any()
    assert gaps.hidden.mean() == pytest.approx(0.25, abs=0.01)
    values = load_outlook("ETTh1", data, 96, 1).series[0]
    np.testing.assert_allclose(gaps.truth[1], values[11_530 : 11_530 + 96], atol=1e-5)
    assert gaps.test_phase[:3].tolist() == [11_520 % 24, 11_530 % 24, 11_540 % 24]
    assert len(load_gaps("ETTh1", data, "points", 0.25, 0, 1).truth) == 2_785


def test_windows_of_tsi_bench_follow_calendar_months_and_have_holes_in_training(data: Path) -> None:
    gaps = load_gaps("ETTh1-tsi", data, "points", 0.5, 0, 1)
    days = [
        pd.Timestamp("2017-09-01") - pd.Timestamp("2016-07-01"),
        pd.Timestamp("2018-02-01") - pd.Timestamp("2017-09-01"),
    ]
    assert gaps.train.shape == (days[0].days // 2, 48, 7) and gaps.validation.shape == (days[1].days // 2, 48, 7)
    for part in (gaps.train, gaps.validation, gaps.visible):
        assert np.isnan(part).mean() == pytest.approx(0.5, abs=0.02)


def test_runs_are_as_long_as_the_protocol_says_and_one_a_channel(data: Path) -> None:
    hidden = load_gaps("ETTh1-tsi", data, "runs", 0.5, 0, 1).hidden
    assert set(run_lengths(hidden)) == {TSI_RUN} and hidden.mean() == pytest.approx(0.5, abs=0.01)
    whole = load_gaps("airq", data, "runs", 0.05, 0, 1).hidden
    assert run_lengths(whole).tolist() == [50, 50] and whole.any(axis=1).sum() == 2


def test_blocks_hide_neighbours_and_blackouts_all_channels_at_once(data: Path) -> None:
    blocks = load_gaps("ETTh1-tsi", data, "blocks", 0.5, 0, 1).hidden
    assert blocks.mean(axis=(1, 2)).min() >= 0.5 and run_lengths(blocks).min() >= 6
    dark = load_gaps("airq", data, "blackouts", 0.1, 0, 1).hidden
    assert (dark.any(axis=2) == dark.all(axis=2)).all() and run_lengths(dark[:, :, :1]).tolist() == [10] * 5


def test_cells_are_fixed_by_the_seed_and_visible_ones_are_the_truth(data: Path) -> None:
    for name, settings in SETTINGS.items():
        if name not in ("ETTh1-tsi", "beijing", "physionet2012", "airq"):
            continue
        for pattern, fraction in settings:
            one, same, other = (load_gaps(name, data, pattern, fraction, seed, 1) for seed in (0, 0, 1))
            assert one.digest == same.digest != other.digest
            assert np.isnan(one.visible[one.hidden]).all() and not np.isnan(one.truth[one.hidden]).any()
            np.testing.assert_array_equal(one.visible[~one.hidden], one.truth[~one.hidden])


def test_natural_gaps_stay_and_are_not_scored(data: Path) -> None:
    gaps = load_gaps("beijing", data, "points", 0.1, 0, 1)
    natural = np.isnan(gaps.truth)
    assert gaps.truth.shape[1:] == (96, 3) and natural.any() and not (natural & gaps.hidden).any()
    assert gaps.hidden.sum() / (~natural).sum() == pytest.approx(0.1, abs=0.02)
    assert np.isnan(gaps.train[..., 1:]).mean() == pytest.approx(0.1, abs=0.02)


def test_stays_are_hourly_means_without_statics_and_split_by_patients(data: Path) -> None:
    gaps = load_gaps("physionet2012", data, "points", 0.1, 0, 1)
    assert [len(part) for part in (gaps.train, gaps.validation, gaps.truth)] == [26, 6, 8]
    assert gaps.train.shape[1:] == (48, 2)
    pulse, weight = gaps.train[..., 0], gaps.train[..., 1]
    assert not np.isnan(pulse).any() and (np.ptp(pulse, axis=1) == 0).all()
    assert np.isnan(weight[:, 1:]).all() and 0 < np.isnan(weight[:, 0]).mean() < 1
    everyone = np.concatenate([pulse[:, 0], gaps.validation[:, 0, 0], gaps.truth[:, 0, 0]])
    assert len(np.unique(everyone)) == 40


@pytest.mark.parametrize("method", CHEAP)
def test_hidden_values_change_nothing_and_known_ones_are_kept(data: Path, method: str) -> None:
    gaps = load_gaps("airq", data, "points", 0.1, 0, 1)
    path = data / "ImputeGAP" / "airq.txt.gz"
    values = np.loadtxt(path)
    found = imputed(method, gaps)
    try:
        np.savetxt(path, np.where(gaps.hidden[0], 1e6, values))
        other = imputed(method, load_gaps("airq", data, "points", 0.1, 0, 1))
    finally:
        np.savetxt(path, values)
    np.testing.assert_array_equal(found, other)
    np.testing.assert_array_equal(found[~gaps.hidden], gaps.truth[~gaps.hidden])
    assert not np.isnan(found).any()


def test_the_last_value_is_carried_forward_and_the_first_back() -> None:
    nan = np.nan
    window = np.array([[nan, 1, nan, nan, 4, nan], [nan] * 6], dtype=float).T[None]
    filled = carry_forward(window, np.array([7.0, 8.0]))
    assert filled[0].T.tolist() == [[1, 1, 1, 1, 4, 4], [8] * 6]


def test_the_mean_of_the_phase_is_that_of_the_training_part() -> None:
    train = np.tile([1.0, 2.0, 3.0], 5)[None, :, None].copy()
    train[0, 4] = np.nan
    method = Seasonal(0, 1)
    method.fit(train, train[:, :0], np.array([1]), 3)
    windows = np.full((2, 4, 1), np.nan)
    windows[1, 1] = 9
    assert method.impute(windows, np.array([1, 2]))[..., 0].tolist() == [[1, 2, 3, 1], [2, 9, 1, 2]]


def test_a_row_for_every_setting_with_the_same_cells_for_both_methods(rows: Path) -> None:
    written = pd.DataFrame([json.loads(line) for line in rows.read_text().splitlines()])
    assert len(written) == 4 and (written["status"] == "ok").all()
    assert (written.groupby(["dataset", "pattern", "fraction", "seed"])["cells"].nunique() == 1).all()
    table = written.set_index(["dataset", "method"])
    assert table.loc[("ETTh1", "linear"), "mae"] < 0.3 and table.loc[("airq", "seasonal"), "mae"] < 0.3
    assert table.loc[("ETTh1", "linear"), ["windows", "steps", "channels", "stride"]].tolist() == [28, 96, 7, 100]


def test_a_second_run_repeats_nothing(rows: Path, data: Path) -> None:
    before = rows.read_text()
    run(data, rows)
    assert rows.read_text() == before


def test_the_report_prints_published_figures_beside_those_of_the_rows(
    rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--report", str(rows)])
    printed = capsys.readouterr().out.replace("**", "")
    windows, whole = (json.loads(line) for line in rows.read_text().splitlines()[:2])
    assert "ETTh1, 28 windows of 96 of the test part" in printed and "every 100th window, a quick look:" in printed
    assert "| TimesNet (published) |  |  | 0.187 | 0.078 |  |" in printed
    assert f"| linear interpolation | {windows['mae']:.3f} | {windows['mse']:.3f} |  |  | 0 |" in printed
    assert "ImputeGAP's sets, one series each, points 10% of the cells hidden, MSE:" in printed
    assert f"| linear interpolation | {whole['mse']:.4f} | {whole['mse']:.4f} | 0 |" in printed


def test_every_published_setting_is_one_that_is_run() -> None:
    for name, figures in PUBLISHED.items():
        run_here = {setting(*pair) for pair in SETTINGS[name]} | {impute_series.MEAN}
        assert {place for method in figures.values() for place in method} <= run_here


def test_a_method_that_leaves_cells_missing_has_no_score(data: Path) -> None:
    gaps = load_gaps("airq", data, "points", 0.1, 0, 1)
    assert score_windows(gaps, gaps.truth) == {"status": "ok", "mae": 0, "mse": 0}
    count = int(gaps.hidden.sum())
    assert score_windows(gaps, gaps.visible)["reason"] == f"{count} of {count} hidden cells left missing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "saits", "--data", "."], "networks of PyPOTS need --pypots-python"),
        (["--methods", "linear"], "a run needs --data DIR"),
    ],
)
def test_what_a_run_lacks_is_said(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*options, "--out", str(tmp_path / "rows.jsonl")])
    assert message in capsys.readouterr().err


class Zeros:
    """Stands for `TimeSeriesMAE` and for a network of PyPOTS: fills gaps by zeros."""

    fitted: Any = None

    def __init__(self, **given: Any) -> None:
        self.given = given

    def fit(self, *shown: Any) -> None:
        Zeros.fitted = shown

    def impute(self, windows: Any) -> np.ndarray:
        return np.nan_to_num(windows["X"] if isinstance(windows, dict) else windows)


def test_this_project_gets_the_training_part_and_the_windows_with_their_holes(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabmae.TimeSeriesMAE", Zeros, raising=False)
    gaps = load_gaps("ETTh1-tsi", data, "points", 0.1, 0, 1)
    found = imputed("tabmae", gaps)
    np.testing.assert_array_equal(found, np.nan_to_num(gaps.visible))
    np.testing.assert_array_equal(Zeros.fitted[0], gaps.train)
    assert OursGaps(3, 1, network=False).model.given == {"random_state": 3, "network": False}


def test_a_long_series_is_cut_for_pypots_and_put_together_again(monkeypatch: pytest.MonkeyPatch) -> None:
    random, networks = ModuleType("pypots.utils.random"), ModuleType("pypots.imputation")
    random.__dict__["set_random_seed"], networks.__dict__["SAITS"] = lambda seed: None, Zeros
    monkeypatch.setitem(sys.modules, "pypots.utils.random", random)
    monkeypatch.setitem(sys.modules, "pypots.imputation", networks)
    monkeypatch.setattr(series_peers, "POTS_WINDOWS", 50)
    values = np.arange(2 * 250, dtype=np.float32).reshape(1, 250, 2)
    values[0, ::3, 0] = np.nan
    method = Pots(0, 1, model="SAITS", epochs=2)
    method.fit(values, values[:, :0], np.zeros(1), 24)
    assert method.model.given["n_steps"] == 96 and method.model.given["patience"] == 2
    train, held = Zeros.fitted
    assert 50 <= len(train["X"]) <= 80 and train["X"].shape[1:] == (96, 2)
    assert (np.isnan(held["X"]) >= np.isnan(held["X_ori"])).all() and np.isnan(held["X"]).sum() > np.isnan(
        held["X_ori"]
    ).sum()
    np.testing.assert_array_equal(method.impute(values, np.zeros(1)), np.nan_to_num(values))
