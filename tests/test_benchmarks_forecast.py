"""Claims about the benchmark of forecasts: the field's splits and errors, nothing from the future, nothing twice."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import series_data
from benchmarks.forecast import (
    HORIZONS,
    LEVELS,
    PUBLISHED,
    interval_scores,
    m4_reference,
    main,
    naive2,
    score_forecasts,
)
from benchmarks.series_data import M4, Outlook, hide_history, interpolate, load_outlook
from benchmarks.series_peers import (
    CONTEXT,
    LeastSquares,
    Ours,
    PatchTransformer,
    SeasonalNaive,
    Statistical,
    Task,
    forecast_all,
)

TASK = Task(horizon=30, season=24, freq="h", n_train=[900], levels=[])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated files under the names of the published ones."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for path, n_steps, freq, season in (("ETT/ETTh1", 14_500, "h", 24), ("weather/weather", 4_000, "10min", 144)):
        dates = pd.date_range("2016-07-01", periods=n_steps, freq=freq)
        values = {"date": dates, "a": wave(n_steps, season, rng), "b": 5 + 3 * wave(n_steps, season, rng)}
        (folder / path).parent.mkdir()
        pd.DataFrame(values).to_csv(folder / f"{path}.csv.gz", index=False)
    (folder / "M4").mkdir()
    series = [50 + 20 * wave(length, 24, rng) for length in (548, 548, 508, 508)]
    for part, chosen in (("train", slice(-48)), ("test", slice(-48, None))):
        frame = pd.DataFrame({f"H{number}": pd.Series(values[chosen]) for number, values in enumerate(series)}).T
        frame.to_csv(folder / "M4" / f"Hourly-{part}.csv.gz")
    return folder


def run(data: Path, out: Path) -> None:
    """Write rows of both naive peers with complete histories, with holes, and with intervals."""
    few = ["--methods", "seasonal-naive", "ols", "--horizons", "96", "--stride", "50", "--threads", "1"]
    common = ["--data", str(data), "--out", str(out), *few]
    main([*common, "--datasets", "weather", "--missing", "0", "0.3", "--pattern", "runs"])
    main([*common, "--datasets", M4, "--intervals"])


def wave(n_steps: int, season: int, rng: np.random.Generator, noise: float = 0.2) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(n_steps) / season) + noise * rng.standard_normal(n_steps)


def outlook_of(values: np.ndarray, horizon: int, n_fitted: int, season: int = 24) -> Outlook:
    """One series (T, C) whose every window from `n_fitted` on is forecast, half of the history for training."""
    steps = np.arange(n_fitted, len(values) - horizon + 1)
    origins = np.column_stack([np.zeros_like(steps), steps])
    return Outlook([values], [values], origins, [n_fitted // 2], [n_fitted], horizon, season, "h")


def forecasts(method: Any, outlook: Outlook, levels: tuple[float, ...] = ()) -> np.ndarray:
    """Forecast as a worker does."""
    task = {"horizon": outlook.horizon, "season": outlook.season, "freq": outlook.freq, "n_train": outlook.n_train}
    job = {"n_fitted": outlook.n_fitted, "task": {**task, "levels": list(levels)}}
    found: list[np.ndarray] = []
    arrays = {f"series{number}": values for number, values in enumerate(outlook.visible)}
    forecast_all(method, job, {**arrays, "origins": outlook.origins}, found.append)
    return np.concatenate(found)


def test_the_splits_of_ett_are_twelve_four_and_four_months_and_no_window_is_dropped(data: Path) -> None:
    outlook = load_outlook("ETTh1", data, 96, 1)
    assert (outlook.n_train, outlook.n_fitted) == ([8_640], [11_520])
    assert len(outlook.origins) == 2_785 and outlook.origins[[0, -1], 1].tolist() == [11_520, 14_400 - 96]
    train = outlook.series[0][:8_640]
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(train.std(axis=0), 1)
    assert len(load_outlook("ETTh1", data, 96, 20).origins) == 140
    other = load_outlook("weather", data, 96, 1)
    assert (other.n_train, other.n_fitted, len(other.origins)) == ([2_800], [3_200], 705)
    with pytest.raises(ValueError, match="ETTm1 must have 57600 steps; got 14500"):
        series_data.split_steps("ETTm1", 14_500)


def test_m4_is_forecast_once_from_the_end_of_each_history(data: Path) -> None:
    outlook = load_outlook(M4, data, 96, 5)
    assert outlook.horizon == 48 and outlook.origins.tolist() == [[0, 500], [1, 500], [2, 460], [3, 460]]
    assert [len(values) for values in outlook.series] == [548, 548, 508, 508]
    assert outlook.truth(slice(None)).shape == (4, 48, 1)


@pytest.mark.parametrize("pattern", ["points", "runs"])
def test_the_hidden_share_of_a_history_is_fixed_by_the_seed(data: Path, pattern: str) -> None:
    outlook = load_outlook("weather", data, 96, 50)
    one, same, other = (hide_history(outlook, pattern, 0.3, seed) for seed in (0, 0, 1))
    hidden = np.isnan(one.visible[0])
    assert hidden.mean() == pytest.approx(0.3, abs=0.02) and one.digest == same.digest != other.digest
    np.testing.assert_array_equal(one.visible[0][~hidden], outlook.series[0][~hidden])
    changes = np.diff(hidden.astype(int), axis=0) == 1
    assert changes.sum() < 80 if pattern == "runs" else changes.sum() > 1_000


def test_lines_fill_gaps_as_numpy_does_and_ends_by_the_nearest_value() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 40, 3))
    values[rng.random(values.shape) < 0.5] = np.nan
    values[2, :, 1] = np.nan
    filled = interpolate(values, np.array([7.0, 8.0, 9.0]))
    steps = np.arange(40)
    for window, complete in zip(values, filled, strict=True):
        for channel in range(3):
            known = ~np.isnan(window[:, channel])
            expected = np.interp(steps, steps[known], window[known, channel]) if known.any() else np.full(40, 8.0)
            np.testing.assert_allclose(complete[:, channel], expected)


@pytest.mark.parametrize("make", [SeasonalNaive, LeastSquares])
def test_no_forecast_or_bound_depends_on_what_comes_after(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(0)
    values = np.column_stack([wave(1_200, 24, rng), wave(1_200, 12, rng)])
    hidden = np.random.default_rng(1).random(values.shape) < 0.3
    values[hidden] = np.nan
    outlook = outlook_of(values, 30, 1_100)
    changed = values.copy()
    changed[1_120:] = 100
    one, other = (forecasts(make(), outlook_of(seen, 30, 1_100), LEVELS) for seen in (values, changed))
    assert one.shape == (len(outlook.origins), 5, 30, 2) and not np.isnan(one).any()
    before = outlook.origins[:, 1] <= 1_120
    np.testing.assert_array_equal(one[before], other[before])
    assert (one[~before] != other[~before]).any()


def test_the_seasonal_naive_repeats_a_season_and_least_squares_continue_a_wave() -> None:
    steps = np.arange(1_000)
    values = np.column_stack([np.sin(2 * np.pi * steps / 24), 3 + np.cos(2 * np.pi * steps / 24 + 1)])
    outlook = outlook_of(values, 40, 900)
    for method in (SeasonalNaive(), LeastSquares()):
        np.testing.assert_allclose(forecasts(method, outlook)[:, 0], outlook.truth(slice(None)), atol=0.02)


def test_least_squares_are_below_the_naive_where_there_is_noise() -> None:
    outlook = outlook_of(wave(6_300, 24, np.random.default_rng(0), 1.0)[:, None], 24, 6_000)
    naive, fitted = (
        score_forecasts(outlook, forecasts(method, outlook), False) for method in (SeasonalNaive(), LeastSquares())
    )
    assert naive["mse"] == pytest.approx(2, rel=0.1) and fitted["mse"] < 1.4


def test_conformal_intervals_hold_their_share_of_noise() -> None:
    outlook = outlook_of(wave(6_000, 24, np.random.default_rng(0), 1.0)[:, None], 24, 4_000)
    scores = score_forecasts(outlook, forecasts(LeastSquares(), outlook, LEVELS), False)
    assert scores["coverage 80%"] == pytest.approx(0.8, abs=0.02)
    assert scores["coverage 95%"] == pytest.approx(0.95, abs=0.01)


def test_interval_scores_are_those_of_the_definition() -> None:
    truth = np.array([0.0, 3.0]).reshape(1, 2, 1)
    found = np.array([[1, 1], [-1, -1], [2, 2], [-4, -4], [4, 4]], dtype=float).reshape(1, 5, 2, 1)
    scores = {name: float(values[0]) for name, values in interval_scores(found, truth, np.array([2.0])).items()}
    assert scores["coverage 80%"] == 0.5 and scores["coverage 95%"] == 1
    assert scores["width 80%"] == 1.5 and scores["width 95%"] == 4
    assert scores["score 80%"] == pytest.approx((3 + 10 / 2) / 2) and scores["score 95%"] == pytest.approx(4)
    assert scores["WIS"] == pytest.approx((1.5 / 2 + 0.1 * 8 + 0.025 * 8) / 2.5 / 2)


def test_bounds_of_the_true_distribution_have_the_least_weighted_score() -> None:
    truth = np.random.default_rng(0).standard_normal((400, 50, 1))
    reach = np.repeat(stats.norm.ppf([0.5, 0.9, 0.975]), [1, 2, 2]) * [1, -1, 1, -1, 1]
    scores = []
    for factor in (0.8, 1, 1.25):
        found = np.broadcast_to((factor * reach)[None, :, None, None], (400, 5, 50, 1))
        scores.append(interval_scores(found, truth, np.ones(1))["WIS"].mean())
    assert scores[1] == min(scores)


def test_naive2_continues_a_multiplicative_season_and_repeats_the_last_value_without_one() -> None:
    shape = 1 + 0.5 * np.sin(2 * np.pi * np.arange(24) / 24)
    np.testing.assert_allclose(naive2(np.tile(shape, 20)[:-5], 24, 48), np.tile(shape, 3)[19:67], rtol=1e-9)
    noise = 10 + np.random.default_rng(0).standard_normal(500)
    np.testing.assert_array_equal(naive2(noise, 24, 48), np.repeat(noise[-1], 48))


def test_owa_of_the_reference_is_one_and_of_the_truth_zero(data: Path) -> None:
    outlook = load_outlook(M4, data, 48, 1)
    histories = [outlook.series[number][:step, 0] for number, step in outlook.origins]
    reference = np.stack([naive2(history, 24, 48)[:, None] for history in histories])[:, None]
    scores = score_forecasts(outlook, reference, True)
    assert scores["owa"] == pytest.approx(1) and (scores["smape"], scores["mase"]) == pytest.approx(
        m4_reference(outlook)
    )
    assert score_forecasts(outlook, outlook.truth(slice(None))[:, None], True)["owa"] == 0
    reference[0, 0, 3] = np.nan
    assert score_forecasts(outlook, reference, True) == {"status": "failed", "reason": "1 forecasts missing"}


def test_a_row_for_every_setting_with_the_same_cells_for_both_methods(rows: Path) -> None:
    written = pd.DataFrame([json.loads(line) for line in rows.read_text().splitlines()])
    assert len(written) == 6 and (written["status"] == "ok").all()
    setting = ["dataset", "horizon", "missing", "pattern", "stride", "intervals", "seed"]
    assert (written.groupby(setting)["cells"].nunique() == 1).all()
    assert (written.groupby(setting)["method"].nunique() == 2).all()
    assert set(written.loc[written["dataset"] == M4, "horizon"]) == {48} and set(written["pattern"]) == {"none", "runs"}
    table = written[~written["intervals"]].set_index(["dataset", "missing", "method"])
    assert table.loc[("weather", 0.0, "ols"), "mse"] < table.loc[("weather", 0.0, "seasonal-naive"), "mse"]
    assert table.loc[("weather", 0.3, "ols"), "mse"] > table.loc[("weather", 0.0, "ols"), "mse"]
    assert written["WIS"].notna().tolist() == written["intervals"].tolist()


def test_a_second_run_repeats_nothing(rows: Path, data: Path) -> None:
    before = rows.read_text()
    run(data, rows)
    assert rows.read_text() == before


def test_the_report_prints_published_figures_beside_those_of_the_rows(
    rows: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["--report", str(rows)])
    printed = capsys.readouterr().out
    first = next(json.loads(line) for line in rows.read_text().splitlines() if '"ols"' in line)
    assert "**weather**, every 50th window of the test part, a quick look (15), seeds 0:" in printed
    assert "| PatchTST/64 (published) | 0.149 | 0.198 |" in printed.replace("**", "")
    assert f"| least squares, context 336 | {first['mse']:.3f} |" in printed.replace("**", "")
    assert "| Naive2 |" in printed and "cells of the history hidden, MSE:" in printed and "| runs 30% |" in printed
    assert "| coverage 80% | width 80% | score 80% |" in printed
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- forecast:start -->\n<!-- forecast:end -->\nbelow\n")
    main(["--report", str(rows), "--write", str(page)])
    assert page.read_text() == f"above\n<!-- forecast:start -->\n{printed}<!-- forecast:end -->\nbelow\n"


def test_the_short_report_takes_whole_sets_of_all_windows_alone(tmp_path: Path) -> None:
    about = {"missing": 0.0, "pattern": "none", "intervals": False, "seed": 0, "status": "ok", "method": "tabmae"}
    whole = [
        {**about, "dataset": "ETTh1", "horizon": h, "stride": 1, "mse": mse}
        for h, mse in zip(HORIZONS, (0.1, 0.2, 0.3, 0.5), strict=True)
    ]
    others = [
        {**about, "dataset": "weather", "horizon": 96, "stride": 1, "mse": 0.123},
        *({**row, "dataset": "ETTm1", "stride": 20, "mse": 0.321} for row in whole),
        {**about, "dataset": M4, "horizon": 48, "stride": 1, "owa": 0.456},
    ]
    rows, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    rows.write_text("".join(json.dumps(row) + "\n" for row in whole + others))
    page.write_text("<!-- forecast:start -->\n<!-- forecast:end -->\n")
    main(["--report", str(rows), "--short", str(page)])
    (line,) = [line for line in page.read_text().splitlines() if "TimeSeriesMAE" in line]
    header = page.read_text().splitlines()[3].split(" | ")
    assert line.count("0.275") == 1 and "0.456" in line and "0.123" not in line and "0.321" not in line
    assert header.index("ETTh1 MSE") == [cell.strip("* |") for cell in line.split(" | ")].index("0.275")


def test_the_means_of_the_published_figures_are_the_published_means() -> None:
    means = {
        method: [float(np.mean([mse for mse, _ in figures.values()])) for figures in sets.values()]
        for method, sets in PUBLISHED.items()
    }
    assert means["PatchTST/64"] == pytest.approx([0.413, 0.353, 0.226], abs=6e-4)
    assert means["DLinear"] == pytest.approx([0.423, 0.357, 0.246], abs=6e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "autoets", "--data", "."], "autoets needs --statsforecast-python"),
        (["--methods", "patchtst", "--data", "."], "patchtst needs --neuralforecast-python"),
        (["--methods", "ols"], "a run needs --data DIR"),
    ],
)
def test_what_a_run_lacks_is_said(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*options, "--out", str(tmp_path / "rows.jsonl")])
    assert message in capsys.readouterr().err


class LastValue:
    """Stands for `TimeSeriesMAE`: repeats the last known value, and `level` beside it for a bound."""

    def __init__(self, horizon: int, random_state: int) -> None:
        self.horizon = horizon

    def fit(self, shown: Any) -> "LastValue":
        self.fitted = shown
        return self

    def forecast(self, shown: Any, horizon: int | None = None, level: list[int] | None = None) -> Any:
        if isinstance(shown, np.ndarray):
            assert shown.shape[1:] == (1_000, 2) and level is None
            return np.repeat(shown[:, -1:], self.horizon, axis=1)
        parts = []
        for name, series in shown.groupby("unique_id"):
            stamps = pd.date_range(series["ds"].iloc[-1], periods=self.horizon + 1, freq="h")[1:]
            for channel in [column for column in series if column not in ("unique_id", "ds")]:
                last = series[channel].iloc[-1]
                part = pd.DataFrame({"unique_id": name, "ds": stamps, "channel": channel, "TimeSeriesMAE": last})
                for share in level or []:
                    part[f"TimeSeriesMAE-lo-{share}"], part[f"TimeSeriesMAE-hi-{share}"] = last - share, last + share
                parts.append(part)
        return pd.concat(parts).sample(frac=1, random_state=0)


def test_arrays_and_frames_of_this_project_give_the_same_forecasts_in_the_same_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tabmae.TimeSeriesMAE", LastValue, raising=False)
    monkeypatch.setattr(Ours, "context", 1_000)
    values = np.random.default_rng(0).normal(size=(1_100, 2))
    outlook = outlook_of(values, 30, 1_050)
    plain, framed = forecasts(Ours(0, 1), outlook), forecasts(Ours(0, 1), outlook, LEVELS)
    expected = np.repeat(np.stack([values[step - 1 : step] for _, step in outlook.origins]), 30, axis=1)
    np.testing.assert_array_equal(plain[:, 0], expected)
    offsets = [0, -80, 80, -95, 95]
    np.testing.assert_allclose(framed, expected[:, None] + np.array(offsets)[None, :, None, None])


def test_holes_reach_this_project_unless_they_are_to_be_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabmae.TimeSeriesMAE", LastValue, raising=False)
    history = np.arange(10.0)[:, None]
    history[[3, 9]] = np.nan
    task = TASK._replace(n_train=[10])
    open_, filled = Ours(0, 1), Ours(0, 1, interpolated=True)
    for method in (open_, filled):
        method.fit([history], task)
    np.testing.assert_array_equal(open_.model.fitted, history[None])
    np.testing.assert_array_equal(filled.model.fitted[0, :, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 8])


class Runner:
    """Stands for the classes of statsforecast and neuralforecast: forecasts the last value of each series."""

    def __init__(self, models: list[Any], freq: str, n_jobs: int = 1) -> None:
        self.name, self.horizon = models[0].name, models[0].horizon

    def fit(self, df: pd.DataFrame, val_size: int) -> None:
        self.fitted = df

    def forecast(self, df: pd.DataFrame, h: int, level: list[int] | None) -> pd.DataFrame:
        last = df.groupby("unique_id")[["ds", "y"]].last().reset_index()
        parts = [last.assign(ds=last["ds"] + pd.Timedelta(hours=step + 1)) for step in range(h)]
        found = pd.concat(parts).rename(columns={"y": self.name})
        for share in level or []:
            found[f"{self.name}-lo-{share}"], found[f"{self.name}-hi-{share}"] = (
                found[self.name] - 1,
                found[self.name] + 1,
            )
        return found

    def predict(self, df: pd.DataFrame) -> pd.DataFrame:
        return self.forecast(df, self.horizon, None)


def test_packages_get_a_series_for_each_channel_and_their_forecasts_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package, classes in (("statsforecast", "StatsForecast"), ("neuralforecast", "NeuralForecast")):
        module, models = ModuleType(package), ModuleType(f"{package}.models")
        setattr(module, classes, Runner)
        models.__dict__["AutoTheta"] = lambda season_length: SimpleNamespace(name="AutoTheta", horizon=None)
        models.__dict__["PatchTST"] = lambda h, **_: SimpleNamespace(name="PatchTST", horizon=h)
        monkeypatch.setitem(sys.modules, package, module)
        monkeypatch.setitem(sys.modules, f"{package}.models", models)
    values = np.random.default_rng(0).normal(size=(1_000, 2))
    outlook = outlook_of(values, 30, 900)
    expected = np.repeat(np.stack([values[step - 1 : step] for _, step in outlook.origins]), 30, axis=1)
    np.testing.assert_array_equal(forecasts(PatchTransformer(0, 1), outlook)[:, 0], expected)
    theta = Statistical(0, 1, model="AutoTheta")
    theta.fit([values[:, :1]], TASK._replace(levels=list(LEVELS)))
    found = theta.forecast([values[:900, :1], values[:950, :1]], [900, 950])
    assert found.shape == (2, 5, 30, 1)
    np.testing.assert_allclose(found[:, :, 0, 0], values[[899, 949], :1] + [0, -1, 1, -1, 1])


def test_forecasts_of_another_shape_are_refused() -> None:
    class Short(SeasonalNaive):
        def point(self, contexts: np.ndarray) -> np.ndarray:
            return super().point(contexts)[:, 1:]

    with pytest.raises(ValueError, match="Forecasts must have shape"):
        forecasts(Short(), outlook_of(np.random.default_rng(0).normal(size=(CONTEXT + 400, 1)), 30, CONTEXT + 300))
