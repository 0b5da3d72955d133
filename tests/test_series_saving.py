"""A saved `TimeSeriesMAE` answers with the same bits, whatever its stamps, ids and layout were."""

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generated_series import frame_with_runs, seasonal, waves, wide, with_runs

from tabmae import TimeSeriesMAE, load
from tabmae.errors import ParameterError, SavedModelError
from tabmae.estimators.series.detecting.detector import SeriesDetector
from tabmae.folders import RECORD, WEIGHTS
from tabmae.saving import checksum

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 6, "max_epochs": 0, "d_token": 8, "random_state": 0}
HOLES = frame_with_runs(seasonal(160))
NUMBER = HOLES["unique_id"].str[1:].astype(int)


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of `HOLES`; nothing may change it."""
    return TimeSeriesMAE(**SMALL).fit(HOLES)


def in_zone(frame: pd.DataFrame, zone: str) -> pd.DataFrame:
    return frame.assign(ds=frame["ds"].dt.tz_localize("UTC").dt.tz_convert(zone))


def known_ahead(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(warm=np.random.default_rng(0).random(len(frame)), size=NUMBER)


def round_trip(model: TimeSeriesMAE, folder: Path) -> TimeSeriesMAE:
    model.save(folder)
    loaded = load(folder)
    assert type(loaded) is TimeSeriesMAE
    return loaded


def same(one: Any, other: Any) -> None:
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("X", "parameters"),
    [
        (HOLES, {"max_epochs": 1}),
        (HOLES, {"max_epochs": 1, "experts": ()}),
        (HOLES, {"max_epochs": 1, "backbone": "transformer", "patch": 4, "d_token": 16, "loss": "mae"}),
        (HOLES, {"mask_ratio": (0.2, 0.4), "context": 30, "experts": ("gaussian",)}),
        (frame_with_runs(seasonal(160, n_series=7)), {}),
        (HOLES.assign(unique_id=NUMBER), {}),
        (HOLES.assign(unique_id=HOLES["unique_id"].astype("category")), {}),
        (HOLES.assign(ds=HOLES.groupby("unique_id").cumcount()), {}),
        (HOLES.assign(ds=HOLES["ds"].astype("datetime64[ns]")), {}),
        (HOLES.assign(ds=HOLES["ds"].astype("datetime64[s]")), {}),
        (in_zone(HOLES, "Europe/Berlin"), {}),
        (in_zone(HOLES, "UTC"), {}),
        (HOLES.assign(ds=HOLES["ds"].dt.strftime("%Y-%m-%d %H:%M")), {}),
        (HOLES.assign(ds=HOLES["ds"].dt.to_period("h")), {}),
        (HOLES[HOLES["unique_id"] == "s0"].drop(columns="unique_id"), {}),
        (wide(160).where(~np.isnan(with_runs(wide(160).to_numpy()))), {"max_epochs": 1}),
        (wide(160).set_axis([3, 1, 2], axis=1), {}),
        (np.stack([with_runs(series) for series in waves()]), {}),
    ],
    ids=[
        *("trained", "pure", "patches", "parameters", "many series", "whole ids", "categories"),
        *("whole stamps", "nanoseconds", "seconds", "a zone", "UTC", "text", "periods", "no id", "wide"),
        *("whole channels", "array"),
    ],
)
def test_a_loaded_model_answers_with_the_same_bits(X: Any, parameters: dict[str, Any], tmp_path: Path) -> None:
    model = TimeSeriesMAE(**{**SMALL, **parameters}).fit(X)
    loaded = round_trip(model, tmp_path / "model")
    assert loaded.get_params() == model.get_params()
    pairs = [
        (model.impute(X), loaded.impute(X)),
        (model.forecast(), loaded.forecast()),
        (model.forecast(X, horizon=9, level=70), loaded.forecast(X, horizon=9, level=70)),
        *zip(model.predict_interval(X), loaded.predict_interval(X), strict=True),
        *zip(model.sample(X, 2), loaded.sample(X, 2), strict=True),
        *zip(model.sample(n_samples=2, horizon=8), loaded.sample(n_samples=2, horizon=8), strict=True),
        (model.encode(X), loaded.encode(X)),
    ]
    for one, other in pairs:
        same(one, other)
    names = "season_", "horizon_", "size_", "n_iter_", "n_features_in_", "schema_", "known_"
    assert all(getattr(model, name) == getattr(loaded, name) for name in names)
    assert repr(model.history_) == repr(loaded.history_)


@pytest.mark.parametrize("X", [HOLES, wide(160), waves()], ids=["long", "wide", "array"])
def test_the_quality_is_loaded_as_it_was(X: Any, tmp_path: Path) -> None:
    model = TimeSeriesMAE(**SMALL).fit(X)
    same(model.quality_, round_trip(model, tmp_path / "model").quality_)


@pytest.mark.parametrize(
    "name",
    [lambda n: pd.Timestamp(2024, 5, n + 1), lambda n: datetime.date(2024, 5, n + 1), Decimal, lambda n: b"s%d" % n],
    ids=["time", "date", "decimal", "bytes"],
)
def test_ids_come_back_as_they_were(name: Callable[[int], Any], tmp_path: Path) -> None:
    X = HOLES.assign(unique_id=NUMBER.map(name).astype(object))
    model = TimeSeriesMAE(**SMALL).fit(X)
    loaded = round_trip(model, tmp_path / "model")
    same(model.forecast(), loaded.forecast())
    assert loaded.known_ == model.known_ and [*map(type, loaded.known_)] == [*map(type, model.known_)]


def test_columns_known_ahead_are_loaded_too(tmp_path: Path) -> None:
    X = known_ahead(HOLES)
    model = TimeSeriesMAE(**SMALL, target_cols=["y"], future_cols=["warm"], static_cols=["size"]).fit(X)
    loaded = round_trip(model, tmp_path / "model")
    ahead = known_ahead(seasonal(166))
    same(model.forecast(X_future=ahead), loaded.forecast(X_future=ahead))
    same(model.backtest(X, n_windows=2).forecasts, loaded.backtest(X, n_windows=2).forecasts)


def test_a_loaded_model_goes_on_learning_as_the_saved_one(tmp_path: Path) -> None:
    model = TimeSeriesMAE(**{**SMALL, "max_epochs": 1}).fit(HOLES)
    loaded = round_trip(model, tmp_path / "model")
    new = HOLES.assign(unique_id="n" + HOLES["unique_id"])
    one, other = model.finetune(new), loaded.finetune(new)
    same(one.impute(new), other.impute(new))
    same(one.forecast(), other.forecast())
    same(one.quality_, other.quality_)


def test_a_loaded_model_is_saved_again(model: TimeSeriesMAE, tmp_path: Path) -> None:
    again = round_trip(round_trip(model, tmp_path / "one"), tmp_path / "two")
    same(model.forecast(), again.forecast())


def test_what_detection_learns_is_saved_though_it_was_never_asked_for(tmp_path: Path) -> None:
    model, again = (TimeSeriesMAE(**SMALL).fit(HOLES) for _ in range(2))
    loaded = round_trip(model, tmp_path / "model")
    same(loaded.anomaly_score(HOLES), again.anomaly_score(HOLES))
    switched = HOLES.assign(on=HOLES.groupby("unique_id").cumcount() // 9 % 2)
    model = TimeSeriesMAE(**SMALL).fit(switched)
    same(round_trip(model, tmp_path / "switched").detect(switched).points, model.detect(switched).points)


def test_a_model_of_a_device_that_is_not_here_is_loaded_on_the_cpu(tmp_path: Path) -> None:
    model = TimeSeriesMAE(**SMALL).fit(HOLES)
    model.set_params(device="cuda:77").save(tmp_path / "model")
    with pytest.warns(UserWarning, match="The model was saved with device='cuda:77', which is not here"):
        loaded = load(tmp_path / "model")
    same(loaded.forecast(), model.forecast())


def test_functions_cannot_be_saved_and_callbacks_are_left_out(tmp_path: Path) -> None:
    model = TimeSeriesMAE(**SMALL).fit(HOLES)
    with pytest.raises(ParameterError, match="^Parameters must be numbers"):
        model.set_params(mask=lambda observed, ratio, generator: observed).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    model.set_params(mask="mixed", callbacks=[print])
    with pytest.warns(UserWarning, match="^Not saved with the model: `callbacks`"):
        model.save(tmp_path / "model")
    assert load(tmp_path / "model").callbacks is None


def lose_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def edit_without_a_checksum(folder: Path) -> None:
    text = (folder / RECORD).read_text()
    (folder / RECORD).write_text(text.replace('"horizon": 6', '"horizon": 7', 1))


def rewrite(folder: Path, state: dict[str, Any]) -> None:
    """Change the state as a hostile author would: with checksums that fit."""
    record = json.loads((folder / RECORD).read_text())
    record["state"] |= state
    record["record_sha256"] = checksum(record)
    (folder / RECORD).write_text(json.dumps(record))


def lose_the_tail(folder: Path) -> None:
    rewrite(folder, {"tail": {}})


def shrink_the_window(folder: Path) -> None:
    rewrite(folder, {"size": [2, "conv", 1, 8, 4, 0.0, 64, 100, 64, 0.003]})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_the_weights, "A saved model must hold"),
        (flip_a_bit, "'weights.safetensors' must match its checksum"),
        (edit_without_a_checksum, "'tabmae.json' must match its checksum"),
        (lose_the_tail, "State and weights must be those of a TimeSeriesMAE"),
        (shrink_the_window, "State and weights must be those of a TimeSeriesMAE"),
    ],
    ids=lambda case: case.__name__ if callable(case) else "",
)
def test_a_damaged_folder_gives_one_clear_error(model: TimeSeriesMAE, tmp_path: Path, spoil: Any, message: str) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    spoil(folder)
    with pytest.raises(SavedModelError, match=f"^{message}"):
        load(folder)


def test_a_detector_keeps_whether_fit_saw_enough() -> None:
    detector = TimeSeriesMAE(**SMALL).fit(wide(160)).detector_
    state, tensors = detector.state()
    assert SeriesDetector.restored(state, tensors).is_learnt
    assert not SeriesDetector.restored({**state, "is_learnt": False}, tensors).is_learnt
