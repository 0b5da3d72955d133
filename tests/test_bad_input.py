"""Bad input to `TabMAE`: each case with the first words of its message, before any work, and nothing changed."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from generated import correlated, with_holes
from sklearn.exceptions import NotFittedError

from tabmae import TabMAEDetector, TabMAERegressor
from tabmae.errors import DataError, ParameterError, SavedModelError, TabMAEError, TrainingError
from tabmae.estimators.table import TabMAE, TabMAEEncoder
from tabmae.model import MaskedAutoencoder
from tabmae.saving import load

SMALL: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "random_state": 0}
INF = float("inf")
HOLES = with_holes(correlated(30, n_columns=3))

BAD_TABLES: dict[str, tuple[Callable[[], Any], str]] = {
    "infinite": (lambda: pd.DataFrame({"a": [1.0, INF], "b": [1.0, 2.0]}), "Numbers must be finite; columns 'a' hold"),
    "infinite, array": (lambda: np.array([[1.0, -INF], [2.0, 3.0]]), "Numbers must be finite; columns 1 hold"),
    "infinite, polars": (lambda: pl.DataFrame({"a": [1.0, INF]}), "Numbers must be finite; columns 'a' hold"),
    "complex": (lambda: np.array([[1j, 2.0], [2.0, 3.0]]), "Complex data not supported; columns 0, 1 hold"),
    "mixed types": (
        lambda: pd.DataFrame({"a": [1, "x", 2.5], "b": [1.0, 2.0, None]}),
        r"Each column must hold values of one type; columns 'a' mix types \(float and int and str\)",
    ),
    "names of two types": (
        lambda: pd.DataFrame({"a": [1.0, 2.0], 1: [1.0, None]}),
        "Columns must all be named by strings, or none; got 'a', 1. Pass X.set_axis",
    ),
    "nested": (lambda: pd.DataFrame({"a": [[1], [2, 3]]}), "Cells must be single values.* columns 'a' hold nested"),
    "nested, Arrow": (lambda: pa.table({"a": [[1], [2]]}), "Cells must be single values"),
    "no rows": (lambda: pd.DataFrame({"a": [], "b": []}), r"X must hold rows; found 0 sample\(s\)"),
    "no columns": (lambda: np.empty((5, 0)), r"X must hold columns; found 0 feature\(s\)"),
    "one row": (lambda: np.array([[1.0, np.nan]]), "X must have at least 2 rows; got n_samples = 1"),
    "every cell missing": (
        lambda: np.full((5, 2), np.nan),
        "X must have at least 2 rows with an observed cell; got 0 of 5",
    ),
    "one row with a value": (
        lambda: pd.DataFrame({"a": [1.0, None, None], "b": [1.0, None, None]}),
        "X must have at least 2 rows with an observed cell; got 1 of 3",
    ),
    "names twice": (lambda: pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), "Column names must be unique; 'a'"),
    "a column": (lambda: pd.Series([1.0, 2.0]), "X must be a table; got a Series"),
    "no table": (lambda: "table.csv", "X must be a table in memory"),
}

BAD_PARAMETERS: dict[str, list[tuple[Any, str]]] = {
    "mask_ratio": [
        (1.5, "`mask_ratio` must lie in"),
        (0, "`mask_ratio` must lie in"),
        ((0.5, 0.2), "`mask_ratio` must"),
        ("half", "`mask_ratio` must"),
    ],
    "mask": [("bernouli", "`mask` must be one of .* Did you mean 'bernoulli'"), (3, "`mask` must be one of")],
    "backbone": [
        ("tranformer", "`backbone` must be one of .* Did you mean 'transformer'"),
        (None, "`backbone` must be"),
    ],
    "d_token": [(0, "`d_token` must be an integer of at least 1; got 0"), (8.0, "`d_token` must be an integer")],
    "depth": [(0, "`depth` must be an integer"), ("deep", "`depth` must be an integer")],
    "dropout": [(1.0, r"`dropout` must lie in \[0, 1\)"), (None, "`dropout` must be a finite number")],
    "loss": [("MSE", "`loss` must be one of .* Did you mean 'mse'"), (1, "`loss` must be one of")],
    "visible_weight": [(-1, "`visible_weight` must be a finite number of at least 0"), ("a", "`visible_weight` must")],
    "experts": [("gaussian", "`experts` must be 'auto' or a tuple"), (("gausian",), "`experts` must be one of")],
    "categorical_features": [("a", "`categorical_features` must"), ([7], "`categorical_features` must name columns")],
    "feature_shape": [(3, "`feature_shape` must be a tuple"), ((0, 3), "`feature_shape` must")],
    "max_epochs": [(0, "`max_epochs` must be an integer"), (True, "`max_epochs` must be an integer")],
    "batch_size": [(0, "`batch_size` must be an integer"), (np.nan, "`batch_size` must be an integer")],
    "lr": [(0, "`lr` must be a finite number above 0"), (INF, "`lr` must be a finite number"), ("low", "`lr` must")],
    "validation_fraction": [
        (0.9, r"`validation_fraction` must lie in \[0, 0.5\]"),
        ("a", "`validation_fraction` must"),
    ],
    "patience": [(0, "`patience` must be an integer"), (1.5, "`patience` must be an integer")],
    "time_budget": [(0, "`time_budget` must be a finite number above 0"), ("a", "`time_budget` must be")],
    "warm_start": [("yes", "`warm_start` must be")],
    "checkpoint": [(3, "`checkpoint` must be")],
    "device": [("nonsense", "`device` must name a device"), ("cuda:77", "`device` must name"), (3.5, "`device` must")],
    "precision": [("fp16", "`precision` must be one of"), (16, "`precision` must be one of")],
    "callbacks": [(print, "`callbacks` must be a list of functions"), (["a"], "`callbacks` must be a list")],
    "verbose": [(-1, "`verbose` must be an integer"), ("loud", "`verbose` must be an integer")],
    "random_state": [("seed", "`random_state` must be None, an integer"), (-1, "`random_state` must be")],
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, pd.DataFrame | pd.Series | pl.DataFrame | pa.Table):
        return bool(one.equals(other))
    return np.array_equal(one, other, equal_nan=True) if isinstance(one, np.ndarray) else bool(one == other)


@pytest.mark.filterwarnings("ignore:Columns")
@pytest.mark.parametrize("name", BAD_TABLES)
@pytest.mark.parametrize("estimator", [TabMAE, TabMAEEncoder])
def test_a_bad_table_is_refused_and_stays_as_it_was(estimator: type[TabMAE], name: str) -> None:
    make, message = BAD_TABLES[name]
    table, before = make(), make()
    model = estimator(**SMALL)
    with pytest.raises(DataError, match=f"^{message}"):
        model.fit(table)
    assert same(table, before) and vars(model).keys() == model.get_params().keys()


@pytest.mark.parametrize("name", ["infinite", "complex", "nested", "no rows", "a column"])
def test_a_bad_table_is_refused_by_a_fitted_model_too(name: str) -> None:
    table, message = BAD_TABLES[name][0](), BAD_TABLES[name][1]
    names = [str(column) for column in getattr(table, "columns", [])] or ["a"]
    width = table.shape[1] if getattr(table, "ndim", 1) == 2 else 1
    rows = np.arange(10.0 * width).reshape(10, width)
    model = TabMAE(**SMALL).fit(pd.DataFrame(rows, columns=names) if isinstance(table, pd.DataFrame) else rows)
    for method in (model.transform, model.encode, model.sample, model.score, model.partial_fit):
        with pytest.raises(DataError, match=f"^{message.split(';')[0]}"):
            method(table)


@pytest.mark.parametrize(("name", "value", "message"), [
    (name, value, message) for name, cases in BAD_PARAMETERS.items() for value, message in cases
])  # fmt: skip
def test_a_bad_parameter_is_refused_and_named(name: str, value: Any, message: str) -> None:
    table = HOLES.copy()
    model = TabMAE(**{**SMALL, name: value})
    with pytest.raises(ParameterError, match=f"^{message}"):
        model.fit(table)
    np.testing.assert_array_equal(table, HOLES)
    assert vars(model) == model.get_params()


@pytest.mark.parametrize("parameters", [{"mask": "block"}, {"mask": "mixed"}, {"backbone": "conv"}])
def test_a_shape_of_more_features_than_there_are_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="^`feature_shape` must .* 3"):
        TabMAE(**SMALL, **parameters, feature_shape=(2, 2)).fit(HOLES)


def test_every_parameter_has_bad_values_here() -> None:
    assert BAD_PARAMETERS.keys() == TabMAE().get_params().keys()


@pytest.mark.parametrize("method", ["transform", "sample", "predict_interval", "reconstruct", "encode", "score"])
def test_an_estimator_that_is_not_fitted_says_so(method: str) -> None:
    with pytest.raises(NotFittedError, match="^This TabMAE instance is not fitted yet"):
        getattr(TabMAE(), method)(HOLES)


def test_saving_or_asking_probabilities_before_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match="^This TabMAE instance is not fitted yet"):
        TabMAE().save(tmp_path / "model")
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
        TabMAE().predict_proba(HOLES)
    assert not (tmp_path / "model").exists()


def test_a_table_without_a_missing_cell_trains_and_comes_back_as_it_is() -> None:
    table = correlated(30)
    np.testing.assert_array_equal(TabMAE(**SMALL).fit_transform(table), table)


@pytest.mark.parametrize(("column", "expected"), [([1.0, 2.0, np.nan, 6.0], 3.0), (["a", "b", "b", None], "b")])
def test_one_column_is_imputed_by_its_mean_or_mode(column: list[Any], expected: Any) -> None:
    table = pd.DataFrame({"a": column * 5})
    imputed = TabMAE(**SMALL, validation_fraction=0.0).fit_transform(table)["a"]
    filled = imputed[table["a"].isna()].unique().tolist()
    assert filled == [expected] if isinstance(expected, str) else np.allclose(filled, expected, atol=1.0)


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_is_refused_before_anything_is_told_of_its_columns(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match=BAD_TABLES[name][1]):
            TabMAE(**SMALL).fit(BAD_TABLES[name][0]())


def test_a_tensor_with_a_gradient_is_read_as_its_numbers() -> None:
    numbers = torch.tensor(HOLES, dtype=torch.float32)
    model = TabMAE(**SMALL).fit(numbers)
    imputed = model.transform(numbers.clone().requires_grad_())
    np.testing.assert_array_equal(imputed, model.transform(numbers))
    assert TabMAE(**SMALL).fit(numbers.clone().requires_grad_()).n_features_in_ == 3


def test_a_column_without_an_observed_cell_is_named_once_and_comes_back_as_it_was() -> None:
    table = pd.DataFrame(HOLES, columns=["a", "b", "c"]).assign(blank=np.nan, none=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = TabMAE(**SMALL).fit(table)
        imputed = model.transform(table)
    assert [str(warning.message)[:57] for warning in caught] == [
        "Columns 'blank', 'none' have no observed cell in fit. Noth"[:57]
    ]
    pd.testing.assert_frame_equal(imputed[["blank", "none"]], table[["blank", "none"]])
    assert not imputed[["a", "b", "c"]].isna().any(axis=None)
    for answer in (*model.predict_interval(table), model.sample(table, 1)[0], model.reconstruct(table)):
        assert not answer[["a", "b", "c"]].isna().any(axis=None)
    assert np.isfinite(model.score(table)) and np.isfinite(model.encode(table)).all()


@pytest.mark.parametrize(
    "column",
    [
        np.r_[np.nan, np.ones(29)],
        np.r_[1.0, np.full(29, np.nan)],
        np.r_[1e300, -1e300, np.full(28, np.nan)],
        np.r_[np.nan, 1e-300 * np.arange(29)],
        np.r_[np.nan, 1e15 + np.arange(29)],
    ],
)  # fmt: skip
def test_constant_rare_and_extreme_columns_are_imputed(column: np.ndarray) -> None:
    table = np.column_stack([column, HOLES])
    imputed = TabMAE(**SMALL).fit_transform(table)
    assert np.isfinite(imputed).all()
    known = column[~np.isnan(column)]
    assert (imputed[:, 0] >= known.min()).all() and (imputed[:, 0] <= known.max()).all()


@pytest.mark.parametrize(
    "weight",
    [np.ones(3), -np.ones(30), np.full(30, np.nan), np.ones((30, 2))],
)
def test_bad_weights_are_refused(weight: np.ndarray) -> None:
    with pytest.raises(DataError, match="^`sample_weight` must hold 30 finite weights that are not negative"):
        TabMAE(**SMALL).fit(HOLES, sample_weight=weight)


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="^`sample_weight` must not be zero for all rows"):
        TabMAE(**SMALL).fit(HOLES, sample_weight=np.zeros(30))


def test_a_loss_that_is_not_finite_names_the_epoch_and_the_remedy() -> None:
    model = TabMAE(**SMALL, lr=1e30, experts=())
    with pytest.raises(TrainingError, match=r"^The training loss must stay finite; it was \S+ at epoch 2 .*Lower `lr`"):
        model.fit(HOLES)


@pytest.mark.parametrize("asked", ["fit", "transform", "encode", "sample"])
def test_memory_that_does_not_suffice_is_explained(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = TabMAE(**SMALL, batch_size=8)
    if asked != "fit":
        model.fit(HOLES)
    monkeypatch.setattr(MaskedAutoencoder, "forward", exhausted)
    monkeypatch.setattr(MaskedAutoencoder, "encode", exhausted)
    with pytest.raises(TrainingError, match="^A batch must fit in the device's memory; 8 rows did not. Lower `batch"):
        getattr(model, asked)(HOLES)


@pytest.mark.filterwarnings("ignore:Columns")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_failed_fit_leaves_the_fitted_model_as_it_was(method: str) -> None:
    def interrupt(record: dict[str, float]) -> None:
        raise RuntimeError("of the callback")

    model = TabMAE(**SMALL).fit(HOLES)
    before, fitted = model.transform(HOLES), dict(vars(model))
    for wrong in (np.full((5, 3), np.nan), np.full((5, 3), INF), HOLES[:1]):
        with pytest.raises(DataError, match="^(X must have at least 2 rows|Numbers must be finite)"):
            getattr(model, method)(wrong)
    for parameters, error in ({"lr": 1e30}, TrainingError), ({"callbacks": [interrupt]}, RuntimeError):
        model.set_params(**parameters)
        with pytest.raises(error, match="must stay finite|of the callback"):
            getattr(model, method)(3 * HOLES + 1)
        model.set_params(lr="auto", callbacks=None)
    assert vars(model).keys() == fitted.keys()
    np.testing.assert_array_equal(model.transform(HOLES), before)


def test_an_error_of_a_callback_is_not_swallowed() -> None:
    def fail(record: dict[str, float]) -> None:
        raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError, match="of the callback"):
        TabMAE(**SMALL, callbacks=[fail]).fit(HOLES)


def test_a_mask_from_outside_that_is_wrong_is_explained() -> None:
    with pytest.raises(TabMAEError, match="^`mask` must"):
        TabMAE(**SMALL, mask=lambda observed, mask_ratio, generator: observed.float()).fit(HOLES)


@pytest.mark.parametrize("kind", [TabMAE, TabMAEDetector, TabMAERegressor])
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, kind: Any) -> None:
    fitted = kind(max_epochs=1, random_state=0, experts=("gaussian",)).fit(HOLES, np.arange(len(HOLES)))
    with pytest.raises(ParameterError, match="^`max_epochs` must be an integer of at least 1; got 0"):
        fitted.set_params(max_epochs=0).save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_is_loaded_as_it_was_fitted_whatever_was_set_since(tmp_path: Path) -> None:
    model = TabMAE(**SMALL, backbone="conv", experts=()).fit(HOLES)
    model.set_params(feature_shape=(3, 1), d_token=5, loss="mae").save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").transform(HOLES), model.transform(HOLES))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(key: str, value: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "tabmae.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))

    return damage


@pytest.mark.parametrize(("damage", "message"), [
    (lambda folder: cut(folder / "weights.safetensors"), "'weights.safetensors' must match its checksum"),
    (lambda folder: cut(folder / "tabmae.json"), "'tabmae.json' must be valid JSON"),
    (lambda folder: (folder / "weights.safetensors").unlink(), "A saved model must hold 'tabmae.json' and 'weights"),
    (edit("format_version", 99), "A saved model must have format version .; .* has 99. Upgrade"),
    (edit("format_version", 1), "A saved model must have format version .; .* has 1. Fit the model again"),
    (edit("class", "os.system"), "'tabmae.json' must match its checksum"),
    (edit("params", {"mask": "os.system"}), "'tabmae.json' must match its checksum"),
])  # fmt: skip
def test_a_folder_that_is_no_whole_model_is_refused(
    tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    TabMAE(**SMALL).fit(HOLES).save(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(SavedModelError, match=f"^{message}"):
        load(tmp_path / "model")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match="^`folder` must be written by save; .* does not exist"):
        load(tmp_path / "model")
