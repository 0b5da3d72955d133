"""What `TabMAE` imputes, from which cells, and what it keeps as it came."""

import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from generated import correlated, with_holes
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state

from tabmae.backbones import BACKBONES
from tabmae.estimators import base, growing, validation
from tabmae.estimators.table import TabMAE, TabMAEEncoder
from tabmae.masks import MASKS
from tabmae.saving import load
from tabmae.schema import missing_cells

NUMBERS = ["x", "weight", "n", "steps"]


def nrmse(truth: NDArray[np.float64], holes: NDArray[np.float64], imputed: NDArray[np.float64]) -> float:
    """Root mean squared error of the blanked cells in standard deviations; the column means score about 1."""
    return float(np.sqrt((((imputed - truth) / truth.std(axis=0))[np.isnan(holes)] ** 2).mean()))


def assert_close(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("container", [lambda frame: frame, pl.from_pandas, pa.Table.from_pandas])
def test_missing_cells_are_filled_and_observed_ones_keep_every_bit(
    mixed: pd.DataFrame, container: Callable[[pd.DataFrame], Any]
) -> None:
    table = container(mixed)
    imputed = TabMAE(max_epochs=2, d_token=4, random_state=0).fit(table).transform(table)
    assert type(imputed) is type(table) and not missing_cells(imputed).any()
    if isinstance(table, pd.DataFrame):
        assert imputed.dtypes.equals(table.dtypes)
        pd.testing.assert_frame_equal(imputed.where(mixed.notna()), mixed, check_exact=True)
    else:
        assert imputed.schema == table.schema
        known = ~missing_cells(table)
        for place, name in enumerate(mixed):
            before, after = table[name].to_numpy()[known[:, place]], imputed[name].to_numpy()[known[:, place]]
            assert (before == after).all()


def test_imputed_cells_are_values_that_the_column_may_hold(mixed: pd.DataFrame, model: TabMAE) -> None:
    imputed = model.transform(mixed)
    for name in NUMBERS:
        assert imputed[name].between(mixed[name].min(), mixed[name].max()).all()
    assert imputed["city"].isin(["Oslo", "Rome", "Bonn"]).all()
    assert (imputed["day"] == imputed["day"].dt.normalize()).all()


def test_float32_arrays_stay_float32() -> None:
    holes = with_holes(correlated(40)).astype(np.float32)
    assert TabMAE(max_epochs=1, d_token=4, random_state=0).fit_transform(holes).dtype == np.float32


def test_a_list_of_rows_gives_an_array() -> None:
    holes = with_holes(correlated(40))
    model = TabMAE(max_epochs=1, d_token=4, random_state=0).fit(holes)
    rows = [[None if np.isnan(cell) else cell for cell in row] for row in holes.tolist()]
    np.testing.assert_array_equal(model.transform(rows), model.transform(holes))
    named = TabMAE(max_epochs=1, d_token=4).fit_transform([["a", 1.0], ["b", None], [None, 2.0]])
    assert named.dtype == object and named[:2, 0].tolist() == ["a", "b"]


def test_one_row_equals_its_row_in_the_batch(mixed: pd.DataFrame, model: TabMAE) -> None:
    whole = model.transform(mixed)
    for row in range(0, len(mixed), 9):
        assert_close(model.transform(mixed.iloc[[row]]), whole.iloc[[row]])


def test_neither_order_nor_batch_size_nor_other_rows_matter(
    mixed: pd.DataFrame, model: TabMAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.transform(mixed)
    order = np.random.default_rng(1).permutation(len(mixed))
    assert_close(model.transform(mixed.iloc[order]), whole.iloc[order])
    others = mixed.copy()
    others.iloc[:40] = mixed.iloc[40:].to_numpy()
    assert_close(model.transform(others).iloc[40:], whole.iloc[40:])
    embedded = model.encode(mixed)
    monkeypatch.setattr(validation, "MAX_BATCH_OUTPUTS", 7 * model.model_.tokenizer.n_outputs)
    assert_close(model.transform(mixed), whole)
    np.testing.assert_allclose(model.encode(mixed), embedded, atol=1e-6)


def test_transform_of_the_training_rows_equals_fit_transform(mixed: pd.DataFrame, model: TabMAE) -> None:
    pd.testing.assert_frame_equal(clone(model).fit_transform(mixed), model.transform(mixed), check_exact=True)


@pytest.mark.parametrize("column", ["n", "city", "x"])
def test_what_lies_beneath_a_missing_cell_changes_nothing(mixed: pd.DataFrame, model: TabMAE, column: str) -> None:
    missing = mixed[column].isna().to_numpy()
    results = []
    for beneath in (1, 10**6):
        if column == "city":
            held = np.where(missing, ["Oslo", "Bonn"][beneath > 1], mixed[column].fillna("Oslo"))
        else:
            held = np.where(missing, beneath, mixed[column].fillna(0).to_numpy(dtype=float))
        table = pa.Table.from_pandas(mixed, preserve_index=False)
        valid = pa.array(~missing).buffers()[1]
        cells = pa.array(held, type=table[column].type if column != "n" else pa.int64())
        masked = pa.Array.from_buffers(cells.type, len(cells), [valid, *cells.buffers()[1:]])
        assert masked.null_count == missing.sum()
        results.append(model.transform(table.set_column(table.column_names.index(column), column, masked)))
    assert results[0].equals(results[1])


def test_a_row_with_nothing_observed_is_imputed(mixed: pd.DataFrame, model: TabMAE) -> None:
    blank = mixed.iloc[:2].mask(np.ones((2, mixed.shape[1]), dtype=bool))
    imputed = model.transform(blank)
    assert not imputed.isna().any(axis=None) and imputed.iloc[0].equals(imputed.iloc[1])


PROGRAM = """
import sys
import numpy as np
from tabmae.estimators.table import TabMAE
holes, imputed = sys.argv[1:]
np.save(imputed, TabMAE(max_epochs=3, d_token=4, random_state=7).fit_transform(np.load(holes)))
"""


def test_same_seed_gives_the_same_result_in_another_process(tmp_path: Path) -> None:
    holes = with_holes(correlated(60))
    here = TabMAE(max_epochs=3, d_token=4, random_state=7).fit_transform(holes)
    np.save(tmp_path / "holes.npy", holes)
    files = [str(tmp_path / name) for name in ("holes.npy", "imputed.npy")]
    subprocess.run([sys.executable, "-c", PROGRAM, *files], check=True, cwd=Path(__file__).parent.parent)
    np.testing.assert_array_equal(np.load(files[1]), here)
    other = TabMAE(max_epochs=3, d_token=4, random_state=8).fit_transform(holes)
    assert not np.array_equal(here, other)


def test_fit_leaves_the_global_generators_alone() -> None:
    torch_state, numpy_state = torch.get_rng_state(), check_random_state(None).get_state()[1]
    TabMAE(max_epochs=1, d_token=4, random_state=0).fit(with_holes(correlated(40)))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(check_random_state(None).get_state()[1], numpy_state)


@pytest.mark.parametrize(("experts", "limit"), [("auto", 0.6), ((), 0.7)])
def test_correlated_columns_are_imputed_better_than_by_their_means(experts: Any, limit: float) -> None:
    truth = correlated(300)
    holes = with_holes(truth)
    model = TabMAE(max_epochs=40, d_token=8, experts=experts, random_state=0).fit(holes[:220])
    assert nrmse(truth[:220], holes[:220], model.transform(holes[:220])) < limit
    assert nrmse(truth[220:], holes[220:], model.transform(holes[220:])) < limit
    assert model.quality_["skill"].mean() > 0.3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_learns_without_an_expert(backbone: str) -> None:
    truth = correlated(150)
    holes = with_holes(truth, 0.2)
    network: dict[str, Any] = {
        "backbone": backbone,
        "d_token": 8,
        "depth": 2,
        "dropout": 0.0,
        "batch_size": 32,
        "lr": 5e-3,
    }
    model = TabMAE(max_epochs=25, experts=(), random_state=0, **network)
    assert nrmse(truth, holes, model.fit_transform(holes)) < 0.85


@pytest.mark.parametrize("mask", [*MASKS, lambda observed, mask_ratio, generator: observed.roll(1, 0)])
def test_every_mask_trains_and_imputes(mask: Any) -> None:
    holes = with_holes(correlated(40, n_columns=6))
    model = TabMAE(max_epochs=2, d_token=4, mask=mask, feature_shape=(2, 3), random_state=0)
    assert np.isfinite(model.fit_transform(holes)).all()


@pytest.mark.parametrize(
    "parameters",
    [
        *({"loss": loss} for loss in ("mse", "mae", "huber", "nll")),
        *({"mask_ratio": ratio} for ratio in (0.5, (0.2, 0.6))),
        {"visible_weight": 0.5},
        {"validation_fraction": 0.0},
        {"backbone": "conv", "feature_shape": (2, 3)},
        {"backbone": lambda n_tokens, d_token: torch.nn.Linear(d_token, d_token)},
        {"precision": "bf16"},
        {"dropout": 0.0, "depth": 1, "batch_size": 7, "patience": 1},
    ],
)
def test_every_option_changes_what_is_learnt(parameters: dict[str, Any]) -> None:
    holes = with_holes(correlated(40, n_columns=6))
    plain: dict[str, Any] = {"max_epochs": 3, "d_token": 4, "experts": (), "random_state": 0}
    imputed = TabMAE(**{**plain, **parameters}).fit_transform(holes)
    assert np.isfinite(imputed).all()
    changed = not np.array_equal(imputed, TabMAE(**plain).fit_transform(holes))
    assert changed == (parameters not in ({"precision": "bf16"}, {"loss": "mse"}))


def test_the_docstring_tells_the_steps_that_auto_makes() -> None:
    small, large = base.auto_size(base.LARGE - 1).n_steps, f"{base.LARGE:,}"
    assert (
        f'"auto" makes {small} steps, and from {large} rows on {base.STEPS_OF_LARGE:,} times the power of '
        f"{base.GROWTH_OF_STEPS:g} of rows / {large}, at most {base.MAX_STEPS:,}. "
        f"Beyond {base.MANY_FEATURES} columns it is as many times the root of {base.MANY_FEATURES} / columns."
    ) in " ".join(str(TabMAE.__doc__).split())
    for n_rows in (base.LARGE - 1, base.LARGE):
        few, many, more = (base.auto_size(n_rows, times * base.MANY_FEATURES).n_steps for times in (1, 4, 16))
        assert few == base.auto_size(n_rows).n_steps == 2 * many == 4 * more


def test_weights_of_rows_matter() -> None:
    rng = np.random.default_rng(0)
    x, rising = rng.normal(size=300), rng.random(300) < 0.5
    table = np.column_stack([x, np.where(rising, x, -x), rng.normal(size=300)])
    asked = np.array([[1.0, np.nan, 0.0], [-1.0, np.nan, 0.0]])
    slopes = []
    for weight in (rising, ~rising):
        model = TabMAE(max_epochs=30, d_token=8, experts=(), validation_fraction=0.0, random_state=0)
        model.fit(table, sample_weight=weight + 0.01)
        high, low = model.transform(asked)[:, 1]
        slopes.append(high - low)
    assert slopes[0] > 0.5 and slopes[1] < -0.5


def test_the_first_partial_fit_is_fit_and_the_next_goes_on(mixed: pd.DataFrame, model: TabMAE) -> None:
    going = clone(model).partial_fit(mixed)
    first = going.transform(mixed)
    pd.testing.assert_frame_equal(first, model.transform(mixed), check_exact=True)
    schema = going.schema_
    assert going.partial_fit(mixed.iloc[:50]) is going and going.schema_ is schema
    assert not going.transform(mixed).equals(first)


def test_going_on_from_the_weights_reached_lowers_the_error() -> None:
    holes = with_holes(correlated(200))
    cold = TabMAE(max_epochs=8, d_token=8, experts=(), random_state=0).fit(holes)
    warm = TabMAE(max_epochs=8, d_token=8, experts=(), random_state=0, warm_start=True).fit(holes)
    before = warm.score(holes)
    assert before == cold.score(holes)
    for _ in range(4):
        warm.fit(holes)
        cold.fit(holes)
    assert warm.score(holes) > before + 0.05
    assert cold.score(holes) == before


def test_callbacks_are_called_with_every_record_and_may_stop() -> None:
    holes, records = with_holes(correlated(40)), list[dict[str, float]]()
    model = TabMAE(max_epochs=3, patience=3, d_token=4, callbacks=[records.append], random_state=0).fit(holes)
    assert records == model.history_ and records[-1]["epoch"] == model.n_iter_ == 3
    assert {"epoch", "error", "held_out_error"} <= set(records[0])
    assert model.set_params(callbacks=[lambda record: True]).fit(holes).n_iter_ == records[0]["epoch"]


def test_an_interrupt_keeps_the_best_model_so_far() -> None:
    def interrupt(record: dict[str, float]) -> None:
        if record["epoch"] >= 2:
            raise KeyboardInterrupt

    holes = with_holes(correlated(40))
    model = TabMAE(max_epochs=15, d_token=4, callbacks=[interrupt], random_state=0)
    with pytest.warns(
        UserWarning, match="^Training was interrupted after epoch 2 of 15; the best model so far is kept"
    ):
        model.fit(holes)
    assert model.n_iter_ == 2 and np.isfinite(model.transform(holes)).all()


def test_quality_tells_the_held_out_error_of_each_column(mixed: pd.DataFrame, model: TabMAE) -> None:
    quality = model.quality_
    assert quality.index.tolist() == mixed.columns.tolist()
    weights = ["weight_mean", "weight_gaussian", "weight_network", "weight_trees", "weight_direct", "weight_copies"]
    assert quality.columns.tolist() == ["kind", "skill", "n", "error", "baseline_error", *weights]
    assert (quality["n"] > 0).all() and (quality["n"] < 0.3 * len(mixed)).all()
    assert quality["kind"].tolist() == ["number"] * 4 + ["category"] * 3 + ["number"]
    np.testing.assert_allclose(quality["skill"], 1 - quality["error"] / quality["baseline_error"])
    np.testing.assert_allclose(quality[weights].sum(axis=1), 1)
    assert (quality.loc[quality["kind"] == "category", "weight_mean"] == 0).all()
    believed = model.model_.number_weights[-1].numpy()
    assert not believed[:, 4].any(), "so short a table has no direct trees"
    np.testing.assert_allclose(quality.loc[quality["kind"] == "number", weights], believed)


@pytest.mark.parametrize(("experts", "absent"), [((), [1, 3, 4]), (("gaussian",), [3, 4]), (("trees",), [1])])
def test_a_member_that_is_not_there_has_no_weight(
    mixed: pd.DataFrame, experts: tuple[str, ...], absent: list[int], direct_trees: None
) -> None:
    model = TabMAE(max_epochs=2, d_token=4, experts=experts, random_state=0).fit(mixed)
    weights = model.quality_.filter(like="weight_").to_numpy()
    present = [member for member in range(1, 5) if member not in absent]
    assert (weights[:, absent] == 0).all() and (weights[:, present].sum(0) > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    if "gaussian" not in experts:
        frequencies = model.model_.level_weights[-1, :, 0].numpy()
        is_category = model.quality_["kind"].to_numpy() == "category"
        np.testing.assert_allclose(weights[is_category, 0], frequencies)


def test_a_column_without_direct_trees_gives_their_weight_to_the_network(
    mixed: pd.DataFrame, direct_trees: None
) -> None:
    table = mixed.copy()
    table.loc[table.index[30:], ["x", "city"]] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "MIN_DIRECT_CELLS", 40)
        model = TabMAE(max_epochs=2, d_token=4, random_state=0).fit(table)
    treeless = table.columns.isin(["x", "city"])
    assert {int(feature) for feature in model.model_.direct} == set(np.flatnonzero(~treeless))
    weights = model.quality_.filter(like="weight_").to_numpy()
    assert not weights[treeless, 4].any() and (weights[~treeless, 4] > 0).any()
    tokenizer, believed = model.model_.tokenizer, np.zeros_like(weights)
    believed[tokenizer.numbers] = model.model_.number_weights[-1]
    believed[tokenizer.categories, 1:] = model.model_.level_weights[-1]
    assert not believed[treeless, 4].any() and believed[treeless, 3].any(), "the forest stands for them"
    np.testing.assert_allclose(weights, believed)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_going_on_keeps_the_direct_trees_and_asks_them(mixed: pd.DataFrame, direct_trees: None) -> None:
    model = TabMAE(max_epochs=2, d_token=4, random_state=0).fit(mixed)
    trees = {name: part.clone() for name, part in model.model_.direct.state_dict().items()}
    model.partial_fit(mixed[:50])
    after = model.model_.direct.state_dict()
    assert after.keys() == trees.keys() and all(torch.equal(part, trees[name]) for name, part in after.items())
    values, observed = model._read(mixed)
    numbers = model.model_.members(values.double(), observed).numbers
    assert len(model.model_.direct) == 8 and not (numbers[4] == numbers[2])[~observed[:, [0, 1, 2, 3, 7]]].any()


@pytest.mark.parametrize("experts", ["auto", ()])
def test_a_loaded_model_answers_with_the_same_bits(mixed: pd.DataFrame, tmp_path: Path, experts: Any) -> None:
    model = TabMAE(max_epochs=2, d_token=4, experts=experts, mask_ratio=(0.2, 0.8), random_state=0).fit(mixed)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert type(loaded) is TabMAE and loaded.get_params() == model.get_params()
    pairs = [
        (model.transform(mixed), loaded.transform(mixed)),
        *zip(model.predict_interval(mixed), loaded.predict_interval(mixed), strict=True),
        *zip(model.sample(mixed, 2), loaded.sample(mixed, 2), strict=True),
        (model.predict_proba(mixed, "city"), loaded.predict_proba(mixed, "city")),
        (model.quality_, loaded.quality_),
    ]
    for one, other in pairs:
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    np.testing.assert_array_equal(model.encode(mixed), loaded.encode(mixed))
    assert model.score(mixed) == loaded.score(mixed) and model.history_ == loaded.history_
    assert loaded.feature_names_in_.tolist() == mixed.columns.tolist() and loaded.n_features_in_ == mixed.shape[1]
    going = [deepcopy(one).partial_fit(mixed).transform(mixed) for one in (model, loaded)]
    pd.testing.assert_frame_equal(*going, check_exact=True)


def test_the_encoder_saves_and_loads_too(mixed: pd.DataFrame, tmp_path: Path) -> None:
    encoder = TabMAEEncoder(max_epochs=1, d_token=4, random_state=0).fit(mixed)
    assert not encoder.model_.sweeps and not encoder.model_.direct and encoder.model_.copies is None
    assert encoder.model_.expert is not None, "the network reads its guess"
    encoder.save(tmp_path / "encoder")
    np.testing.assert_array_equal(load(tmp_path / "encoder").transform(mixed), encoder.transform(mixed))
