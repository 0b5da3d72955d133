"""Bad input to `TimeSeriesMAE`: each case with the first words of its message, before any work, and nothing changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from generated_series import frame_with_runs, seasonal, waves, wide
from sklearn.exceptions import NotFittedError

from tabmae import TimeSeriesMAE
from tabmae.errors import DataError, ParameterError, TrainingError

pytestmark = pytest.mark.usefixtures("few_structures")

SMALL: dict[str, Any] = {"horizon": 6, "max_epochs": 0, "d_token": 8, "random_state": 0}
HOLES = frame_with_runs(seasonal(120))
STAMPS = pd.date_range("2024-01-01", periods=120, freq="h")

BAD_PARAMETERS: dict[str, list[tuple[Any, str]]] = {
    "horizon": [(0, "`horizon` must be an integer of at least 1; got 0. Pass the steps"), (2.5, "`horizon` must be")],
    "context": [(0, "`context` must be an integer"), ("long", "`context` must be"), (None, "`context` must be")],
    "window": [(-3, "`window` must be an integer"), (9.0, "`window` must be"), (None, "`window` must be")],
    "freq": [
        ("fortnight", "`freq` must be the name of a pandas offset"),
        (-1, "`freq` must be a positive step; got -1"),
    ],
    "id_col": [("city", "X must hold the column `id_col`; it lacks 'city'")],
    "time_col": [("y", "X must hold a numeric column that is no id, stamp")],
    "target_cols": [("y", "`target_cols` must be a list of column names"), (["z"], "X must hold the columns of `targ")],
    "future_cols": [("warm", "`future_cols` must be a list"), (["y"], "X must hold a numeric column that is no id")],
    "static_cols": [("size", "`static_cols` must be a list"), (["ds"], "A column must have one role; 'ds' is in")],
    "mask_ratio": [
        (1.5, "`mask_ratio` must lie in"),
        ((0.5, 0.2), "`mask_ratio` must be a pair"),
        ("a", "`mask_ratio`"),
    ],
    "mask": [("blackuot", "`mask` must be one of .* Did you mean 'blackout'"), (3, "`mask` must be one of")],
    "patch": [(0, "`patch` must be an integer"), (None, "`patch` must be an integer")],
    "backbone": [
        ("tranformer", "`backbone` must be one of .* Did you mean 'transformer'"),
        (None, "`backbone` must be"),
    ],
    "d_token": [(0, "`d_token` must be an integer of at least 1; got 0"), (8.0, "`d_token` must be an integer")],
    "depth": [(0, "`depth` must be an integer"), ("deep", "`depth` must be an integer")],
    "dropout": [(1.0, r"`dropout` must lie in \[0, 1\)"), (None, "`dropout` must be a finite number")],
    "loss": [("MSE", "`loss` must be one of .* Did you mean 'mse'"), ("nll", "`loss` must be one of")],
    "experts": [
        ("gaussian", "`experts` must be 'auto' or a tuple of names out of"),
        (("gausian",), "`experts` must be one of .* Did you mean 'gaussian'"),
        (3, "`experts` must be 'auto' or a tuple"),
    ],
    "max_epochs": [(-1, "`max_epochs` must be an integer of at least 0; got -1"), (True, "`max_epochs` must be")],
    "batch_size": [(0, "`batch_size` must be an integer"), (np.nan, "`batch_size` must be an integer")],
    "lr": [(0, "`lr` must be a finite number above 0"), ("low", "`lr` must be a finite number")],
    "patience": [(0, "`patience` must be an integer"), (1.5, "`patience` must be an integer")],
    "device": [("nonsense", "`device` must name a device"), ("cuda:77", "`device` must name"), (3.5, "`device` must")],
    "callbacks": [(print, "`callbacks` must be a list of functions"), (["a"], "`callbacks` must be a list")],
    "verbose": [(-1, "`verbose` must be an integer"), ("loud", "`verbose` must be an integer")],
    "random_state": [("seed", "`random_state` must be None, an integer"), (-1, "`random_state` must be")],
}
BAD_SERIES: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (lambda: "series.csv", "X must be a pandas or polars DataFrame"),
    "no rows": (lambda: HOLES[:0], "X must hold rows"),
    "no times": (lambda: HOLES.drop(columns="ds"), "X must hold a column 'ds' of time stamps"),
    "no numbers": (lambda: HOLES.assign(y="a"), "X must hold a numeric column"),
    "irregular": (
        lambda: pd.DataFrame({"ds": STAMPS + pd.to_timedelta(np.arange(120) ** 2 % 7, unit="min"), "y": 1.0}),
        "Time stamps must be regular",
    ),
    "infinite": (lambda: HOLES.assign(y=np.inf), "Numbers must be finite; columns 'y' hold"),
    "one step": (lambda: HOLES.groupby("unique_id").head(1), "A series must have at least two time stamps"),
    "two values for a stamp": (
        lambda: pd.concat([HOLES, HOLES.assign(y=7.0)]),
        "A series must have one row per time stamp; found different values for",
    ),
    "two axes": (lambda: waves()[0], r"X must be an array \(n, T, C\): series, time steps, channels; got shape"),
    "an empty channel": (
        lambda: wide().assign(gone=np.nan, away=np.nan),
        "Every channel must have an observed value; 'gone', 'away'",
    ),
    "an empty array": (lambda: np.full((2, 30, 1), np.nan), "Every channel must have an observed value; "),
}


@pytest.fixture(scope="module")
def model() -> TimeSeriesMAE:
    """A model of `HOLES`; nothing may change it."""
    return TimeSeriesMAE(**SMALL).fit(HOLES)


@pytest.fixture(scope="module")
def knowing() -> TimeSeriesMAE:
    """A model that knows a column ahead; nothing may change it."""
    return TimeSeriesMAE(**SMALL, target_cols=["y"], future_cols=["warm"]).fit(HOLES.assign(warm=HOLES.index % 5))


@pytest.mark.parametrize(("name", "value", "message"), [
    (name, value, message) for name, cases in BAD_PARAMETERS.items() for value, message in cases
])  # fmt: skip
def test_a_bad_parameter_is_refused_and_named(name: str, value: Any, message: str) -> None:
    X = HOLES.copy()
    estimator = TimeSeriesMAE(**{**SMALL, name: value})
    kind = DataError if message.startswith("X must") else ParameterError
    with pytest.raises(kind, match=f"^{message}"):
        estimator.fit(X)
    pd.testing.assert_frame_equal(X, HOLES)
    assert vars(estimator) == estimator.get_params()


def test_every_parameter_has_bad_values_here() -> None:
    assert BAD_PARAMETERS.keys() == TimeSeriesMAE().get_params().keys()


@pytest.mark.parametrize("name", BAD_SERIES)
def test_bad_series_are_refused_and_stay_as_they_were(name: str) -> None:
    make, message = BAD_SERIES[name]
    X, before = make(), make()
    estimator = TimeSeriesMAE(**SMALL)
    with pytest.raises(DataError, match=f"^{message}"):
        estimator.fit(X)
    if isinstance(X, pd.DataFrame):
        pd.testing.assert_frame_equal(X, before)
    assert vars(estimator) == estimator.get_params()


@pytest.mark.parametrize("name", BAD_SERIES)
def test_a_failed_fit_leaves_the_fitted_model_as_it_was(name: str) -> None:
    fitted = TimeSeriesMAE(**SMALL).fit(HOLES)
    before = dict(vars(fitted))
    with pytest.raises(DataError, match=f"^{BAD_SERIES[name][1]}"):
        fitted.fit(BAD_SERIES[name][0]())
    assert vars(fitted) == before


@pytest.mark.parametrize("method", ["impute", "transform", "forecast", "backtest", "encode", "finetune"])
@pytest.mark.parametrize("name", ["text", "no rows", "no times", "infinite", "two values for a stamp"])
def test_bad_series_are_refused_by_a_fitted_model_too(model: TimeSeriesMAE, name: str, method: str) -> None:
    make, message = BAD_SERIES[name]
    message = {"no times": "X must hold the columns of fit; it lacks 'ds'"}.get(name, message)
    with pytest.raises(DataError, match=f"^{message}"):
        getattr(model, method)(make())


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (waves(), "X must have the layout of fit, long; got an array"),
        (HOLES.rename(columns={"y": "z"}), "X must hold the columns of fit; it lacks 'y'"),
        (HOLES.assign(ds=HOLES.groupby("unique_id").cumcount()), "Time stamps must go with their frequency"),
        (HOLES.assign(ds=HOLES["ds"] + pd.Timedelta(7, "min") * (HOLES.index % 2)), "Time stamps must lie on the grid"),
    ],
    ids=["an array", "another column", "other stamps", "off the grid"],
)
def test_series_unlike_those_of_fit_are_refused(model: TimeSeriesMAE, X: Any, message: str) -> None:
    for method in (model.impute, model.forecast, model.encode, model.sample, model.predict_interval, model.finetune):
        with pytest.raises(DataError, match=f"^{message}"):
            method(X)


def test_a_channel_without_a_value_is_refused_by_finetune_as_by_fit(model: TimeSeriesMAE) -> None:
    with pytest.raises(DataError, match=r"^Every channel must have an observed value; 'y' without any\. Pass series"):
        model.finetune(HOLES.assign(y=np.nan))


def test_arrays_must_have_the_channels_of_fit() -> None:
    fitted = TimeSeriesMAE(**SMALL).fit(waves())
    with pytest.raises(DataError, match="^X must have the 2 channels of fit; got 1"):
        fitted.impute(waves(n_channels=1))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("predict_interval", {"level": 90}, r"`level` must lie in \(0, 1\); got 90. Pass the share"),
        ("predict_interval", {"level": "high"}, "`level` must be a finite number"),
        ("sample", {"n_samples": 0}, "`n_samples` must be an integer of at least 1; got 0"),
        ("sample", {"random_state": "seed"}, "`random_state` must be None, an integer"),
        ("sample", {"horizon": 0}, "`horizon` must be an integer of at least 1; got 0"),
        ("forecast", {"horizon": 1.5}, "`horizon` must be an integer"),
        ("forecast", {"level": 0}, r"`level` must lie in \(0, 100\); got 0. Pass per cent"),
        ("forecast", {"level": (80, 100)}, r"`level` must lie in \(0, 100\); got 100"),
        ("forecast", {"level": "80"}, "`level` must be a finite number"),
        ("forecast", {"X_future": HOLES}, "`X_future` must come with `future_cols` in fit; none were named"),
        ("backtest", {"n_windows": 0}, "`n_windows` must be an integer of at least 1; got 0"),
        ("backtest", {"step": 0}, "`step` must be an integer of at least 1; got 0"),
        ("backtest", {"horizon": -1}, "`horizon` must be an integer"),
        ("backtest", {"level": [101]}, r"`level` must lie in \(0, 100\)"),
        ("encode", {"per": "cell"}, "`per` must be one of 'series', 'step'; got 'cell'"),
    ],
)
def test_a_bad_argument_is_refused_and_named(
    model: TimeSeriesMAE, method: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=f"^{message}"):
        getattr(model, method)(HOLES, **arguments)


def test_series_too_short_for_a_backtest_are_named(model: TimeSeriesMAE) -> None:
    short = pd.concat([HOLES, HOLES[:20].assign(unique_id="short")])
    with pytest.raises(
        DataError, match="^Series 'short' must have 32 steps for 5 windows; it has 20. Lower `n_windows`"
    ):
        model.backtest(short)
    assert len(model.backtest(short, n_windows=3)) == 2


@pytest.mark.parametrize(
    ("X_future", "message"),
    [
        (None, r"`X_future` must hold \['warm'\] for the next 6 steps; got None"),
        (HOLES, "`X_future` must hold the columns of fit; it lacks 'warm'"),
        (HOLES.assign(warm=1.0), "`X_future` must hold the 6 stamps after the end of each series"),
    ],
    ids=["None", "no column", "no stamps"],
)
def test_what_is_known_ahead_must_be_given(knowing: TimeSeriesMAE, X_future: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        knowing.forecast(X_future=X_future)
    with pytest.raises(DataError, match=f"^{message}"):
        knowing.sample(n_samples=1, horizon=6, X_future=X_future)


@pytest.mark.parametrize(
    "method", ["impute", "transform", "sample", "predict_interval", "forecast", "backtest", "encode", "finetune"]
)
def test_an_estimator_that_is_not_fitted_says_so(method: str) -> None:
    with pytest.raises(NotFittedError, match="^This TimeSeriesMAE instance is not fitted yet"):
        getattr(TimeSeriesMAE(), method)(HOLES)


def test_saving_before_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="^This TimeSeriesMAE instance is not fitted yet"):
        TimeSeriesMAE().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_loss_that_is_not_finite_names_the_epoch_and_the_remedy() -> None:
    estimator = TimeSeriesMAE(**{**SMALL, "max_epochs": 20}, lr=1e30, loss="mse", backbone="mlp")
    with pytest.raises(TrainingError, match=r"^The training loss must stay finite; it was \S+ at epoch .*Lower `lr`"):
        estimator.fit(HOLES)
    assert vars(estimator) == estimator.get_params()


@pytest.mark.parametrize("kind", ["no bool", "another shape"])
def test_a_function_that_returns_anything_but_a_mask_is_refused(kind: str) -> None:
    def mask(observed: Any, mask_ratio: Any, generator: Any) -> Any:
        return observed.float() if kind == "no bool" else observed[:, :2]

    with pytest.raises(ParameterError, match="^`mask` must return a bool tensor of the shape of `observed`"):
        TimeSeriesMAE(**SMALL, mask=mask).fit(HOLES)


@pytest.mark.parametrize(("answer", "name"), [("detect", "value"), ("detect", "peak"), ("backtest", "cutoff")])
def test_ids_named_as_a_column_of_an_answer_are_refused(answer: str, name: str) -> None:
    frame = seasonal(120).rename(columns={"unique_id": name})
    model = TimeSeriesMAE(horizon=2, max_epochs=0, id_col=name, random_state=0).fit(frame)
    assert model.forecast().columns[0] == name
    with pytest.raises(DataError, match=f"^Columns of ids and stamps must have other names than .*; got '{name}'"):
        getattr(model, answer)(frame)
