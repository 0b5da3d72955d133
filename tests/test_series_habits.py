"""What a user of `TimeSeriesMAE` may stumble over: levels, containers, frequencies, scores."""

import warnings
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from generated_series import SEASON, seasonal, wide
from sklearn.utils import get_tags

from tabmae import DataError, ParameterError, TimeSeriesMAE, plot_detection

pytestmark = pytest.mark.usefixtures("few_structures", "no_bridges")

FRAME = seasonal(n_steps=120)


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    return TimeSeriesMAE(horizon=SEASON, max_epochs=0, random_state=0).fit(FRAME)


@pytest.mark.parametrize("level", [0.9, (0.8, 0.95)])
def test_shares_are_no_levels_in_per_cent(model: TimeSeriesMAE, level: Any) -> None:
    with pytest.raises(ParameterError, match=r"^`level` must .*; got 0\.[89]\. .* for example 90 for 90 %"):
        model.forecast(level=level)


def test_a_forecast_comes_back_in_the_library_of_its_history(model: TimeSeriesMAE) -> None:
    expected = model.forecast(FRAME)
    for table in (pl.from_pandas(FRAME), pa.Table.from_pandas(FRAME, preserve_index=False)):
        found = model.forecast(table)
        assert type(found) is type(table)
        assert found.select(["ds"]).schema == table.select(["ds"]).schema
        back = found.to_pandas()
        assert list(back.columns) == list(expected.columns)
        np.testing.assert_allclose(back["TimeSeriesMAE"], expected["TimeSeriesMAE"])
        assert back["ds"].tolist() == expected["ds"].tolist()
        assert back["unique_id"].tolist() == expected["unique_id"].tolist()
    assert isinstance(model.forecast(), pd.DataFrame)


def test_times_are_forecast_as_times_where_the_history_has_them_as_text() -> None:
    days = FRAME.assign(ds=pd.date_range("2024-01-01", periods=len(FRAME)).strftime("%Y-%m-%d"), unique_id="a")
    fitted = TimeSeriesMAE(horizon=2, max_epochs=0, random_state=0).fit(days)
    expected = fitted.forecast(days)["ds"].tolist()
    for table in (pl.from_pandas(days), pa.Table.from_pandas(days, preserve_index=False)):
        assert fitted.forecast(table).to_pandas()["ds"].tolist() == expected


def test_ids_of_a_forecast_can_be_joined_with_those_of_its_history(model: TimeSeriesMAE) -> None:
    table = pl.from_pandas(FRAME)
    for kind in (pl.Categorical, pl.Enum(["s0", "s1"]), pl.String):
        levels = table.with_columns(pl.col("unique_id").cast(kind))
        found = model.forecast(levels)
        assert found.schema["unique_id"] == levels.schema["unique_id"]
        assert len(levels.join(found, on=["unique_id", "ds"], how="full")) == len(levels) + len(found)
    arrow = pa.Table.from_pandas(FRAME, preserve_index=False)
    ids = arrow.column("unique_id")
    for kind in (pa.string(), pa.large_string(), *(pa.dictionary(i, pa.string()) for i in (pa.int8(), pa.int32()))):
        history = arrow.set_column(arrow.column_names.index("unique_id"), "unique_id", ids.cast(kind))
        found = model.forecast(history)
        assert found.schema.field("unique_id").type == kind
        keys = ["unique_id", "ds"]
        assert len(pa.concat_tables([history.select(keys), found.select(keys)])) == len(history) + len(found)
        if not pa.types.is_dictionary(kind):  # Arrow joins no columns of levels
            assert len(history.join(found, keys, join_type="full outer")) == len(history) + len(found)


def test_series_of_coarser_steps_than_in_fit_are_warned_of(model: TimeSeriesMAE) -> None:
    daily = FRAME[FRAME["unique_id"] == "s0"].head(30)
    daily = daily.assign(ds=pd.date_range("2024-01-01", periods=30, freq="D"))
    with pytest.warns(UserWarning, match="^X should have the frequency of fit, 'h'; its rows lie 24 steps"):
        model.impute(daily)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.impute(FRAME[np.arange(len(FRAME)) % 3 > 0])
        TimeSeriesMAE(freq="h", max_epochs=0, horizon=2, random_state=0).fit(daily.head(12))


def test_a_model_is_not_a_detection(model: TimeSeriesMAE) -> None:
    with pytest.raises(DataError, match=r"^`detection` must be what `detect` gives; got TimeSeriesMAE\. Pass"):
        plot_detection(cast(Any, model), FRAME)


def test_the_score_is_the_same_twice_and_higher_for_what_can_be_told() -> None:
    calm, wild = (wide(200, 2, seed=seed) for seed in range(2))
    wild[:] = np.random.default_rng(0).normal(size=wild.shape)
    scores = []
    for table in (calm, wild):
        found = TimeSeriesMAE(max_epochs=0, random_state=0).fit(table)
        scores.append(found.score(table))
        assert found.score(table) == scores[-1] < 0
    assert scores[0] > scores[1]


def test_nothing_to_hide_cannot_be_scored() -> None:
    table = wide(100, 1)
    found = TimeSeriesMAE(max_epochs=0, random_state=0).fit(table)
    with pytest.raises(DataError, match="^X must have observed cells to be scored on"):
        found.score(table * np.nan)


def test_scikit_learn_is_told_of_gaps_and_of_arrays_of_three_axes() -> None:
    tags = get_tags(TimeSeriesMAE())
    assert tags.input_tags.allow_nan and tags.input_tags.three_d_array and not tags.target_tags.required
