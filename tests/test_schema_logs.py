"""Amounts over several decades are told by their logarithms: which columns are, and what it changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from tabmae import TabMAE, TabMAEDetector, load
from tabmae.estimators.table.amounts import _share
from tabmae.schema import TableSchema
from tabmae.schema.logs import logarithmic

Cells = NDArray[np.float64]


def amounts(n_rows: int = 400, seed: int = 0) -> dict[str, Cells]:
    """Columns of many kinds, two of which lie over several decades."""
    rng = np.random.default_rng(seed)
    size = rng.normal(0, 2.5, n_rows)
    return {
        "assets": np.exp(size + 10),
        "turnover": np.exp(size + 9 + rng.normal(0, 0.4, n_rows)),
        "spread of one": np.exp(rng.normal(size=n_rows)),
        "squares": rng.normal(size=n_rows) ** 2,
        "with zeros": np.exp(size) * (rng.random(n_rows) < 0.7),
        "both signs": rng.standard_cauchy(n_rows),
        "few values": np.where(rng.random(n_rows) < 0.05, 1e6, 1.0) * rng.integers(1, 4, n_rows),
        "normal": rng.normal(size=n_rows),
    }


def chosen(columns: dict[str, Cells]) -> set[str]:
    names = list(columns)
    return {names[place] for place in logarithmic(dict(enumerate(columns.values())))}


def test_positive_numbers_over_several_decades_have_logarithms_and_no_others() -> None:
    columns = amounts()
    assert chosen(columns) == {"assets", "turnover"}
    holed = {
        name: np.where(np.random.default_rng(1).random(400) < 0.3, np.nan, cells) for name, cells in columns.items()
    }
    assert chosen(holed) == {"assets", "turnover"}
    assert not chosen({name: cells[:29] for name, cells in columns.items()}), "too few cells"


def test_columns_that_add_up_stay_as_they_are_and_those_that_are_multiples_need_not() -> None:
    columns = amounts()
    rng = np.random.default_rng(2)
    assets, turnover = columns["assets"], columns["turnover"]
    alone, light = np.exp(rng.normal(0, 2.5, 400)), rng.normal(1e4, 1e3, 400)
    assert chosen({"a": assets, "b": turnover, "sum": assets + turnover, "alone": alone}) == {"alone"}
    assert chosen({"net": assets, "tax": 0.2 * assets, "gross": 1.2 * assets}) == {"net", "tax", "gross"}
    assert chosen({"a": assets, "b": turnover, "ratio": assets / turnover}) == {"a", "b"}
    parts = {"sales": columns["with zeros"] * 1e4, "cost": assets, "light": light}
    whole = {**parts, "z": columns["normal"], "total": np.sum(list(parts.values()), 0)}
    assert not chosen(whole), "a sum of columns that have no logarithms, too"
    assert not chosen({name: np.where(rng.random(400) < 0.25, np.nan, cells) for name, cells in whole.items()})


def test_a_few_zeros_keep_the_logarithms_and_come_back_as_zeros() -> None:
    assets = amounts()["assets"]
    for n_zeros, is_told in ((1, True), (20, True), (40, False)):
        holed = assets.copy()
        holed[:n_zeros] = 0
        assert (chosen({"a": holed}) == {"a"}) == is_told
    frame = pd.DataFrame({"a": np.where(np.arange(400) < 20, 0.0, assets)})
    schema = TableSchema.fit(frame, logs=True)
    values, _ = schema.encode(frame)
    back = schema.full(values.astype(float), frame)["a"]
    assert (back[:20] == 0).all() and (back[20:] > 0).all()
    np.testing.assert_allclose(back, frame["a"], rtol=1e-5)
    (column,) = schema.columns
    assert column.low == 0 and column.log == frame["a"][20:].min()
    assert not column.numbers(np.array([-50.0])).any()


def test_a_column_told_by_its_logarithms_keeps_its_range_units_and_rounding() -> None:
    columns = amounts()
    frame = pd.DataFrame({"assets": columns["assets"], "staff": np.ceil(columns["turnover"]).astype("int64")})
    schema = TableSchema.fit(frame, logs=True)
    assert [column.log for column in schema.columns] == [frame["assets"].min(), frame["staff"].min()]
    assert not any(column.log for column in TableSchema.fit(frame).columns)
    values, _ = schema.encode(frame)
    np.testing.assert_allclose(values.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(0), 1, atol=1e-5)
    back = schema.full(values.astype(float), frame)
    np.testing.assert_allclose(back["assets"], frame["assets"], rtol=1e-5)
    assets, staff = schema.columns
    assert assets.numbers(np.array([float(assets.standard(assets.high))]))[0] == assets.high
    outside = staff.rounded(staff.numbers(np.array([-9.0, 9.0])), integer=True)
    assert outside.tolist() == [frame["staff"].min(), frame["staff"].max()]
    assert assets.numbers(np.array([1e6]))[0] == np.finfo(np.float64).max
    lowest = float(assets.standard(assets.low))
    assert float(assets.standard(0.0)) == float(assets.standard(-3.0)) == pytest.approx(lowest - 1)
    assert TableSchema.from_dict(schema.to_dict()) == schema
    old = schema.to_dict()
    for column in old["columns"]:
        del column["log"]
    assert not any(column.log for column in TableSchema.from_dict(old).columns), "a schema of before there were any"


@pytest.fixture(scope="module")
def companies() -> dict[str, Any]:
    columns = amounts(600)
    complete = pd.DataFrame({name: columns[name] for name in ("assets", "turnover", "normal")})
    hidden = pd.DataFrame(np.random.default_rng(1).random(complete.shape) < 0.2, columns=complete.columns)
    hidden["normal"] = False
    holed = complete.mask(hidden)
    fitted = TabMAE(max_epochs=20, experts=("gaussian",), random_state=0).fit(holed)
    return {"complete": complete, "hidden": hidden, "holed": holed, "fitted": fitted}


def factors(found: pd.DataFrame, companies: dict[str, Any]) -> Cells:
    """How many times too large or too small the hidden amounts are, by their median."""
    hidden, complete = companies["hidden"], companies["complete"]
    names = ("assets", "turnover")
    return np.array([np.exp(np.median(np.abs(np.log((found / complete)[name][hidden[name]])))) for name in names])


def test_amounts_are_imputed_and_drawn_a_usual_factor_off(companies: dict[str, Any]) -> None:
    fitted, holed, complete, hidden = (companies[name] for name in ("fitted", "holed", "complete", "hidden"))
    # An amount is told by the other, or, where both are hidden, by nothing: the noise between them is a factor of 1.3.
    assert (factors(fitted.transform(holed), companies) < 1.7).all()
    (drawn,) = fitted.sample(holed, 1, random_state=0)
    assert (factors(drawn, companies) < 2.2).all() and (drawn[["assets", "turnover"]] > 0).all().all()
    low, high = fitted.predict_interval(holed)
    held = ((low <= complete) & (complete <= high))[["assets", "turnover"]].to_numpy()[hidden[["assets", "turnover"]]]
    assert held.mean() > 0.8


def test_imputed_amounts_are_means_so_that_their_sum_is_right() -> None:
    # Groups of a mean of exp(k + 1.5^2 / 2), which is three times their median.
    shares = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        group = rng.integers(0, 4, 1_000)
        frame = pd.DataFrame(
            {"group": np.array(list("abcd"))[group], "claim": np.exp(5 + group + rng.normal(0, 1.5, 1_000))}
        )
        hidden = rng.random(1_000) < 0.25
        holed = frame.assign(claim=frame["claim"].mask(hidden))
        imputed = TabMAE(max_epochs=10, experts=("gaussian",), random_state=0).fit_transform(holed)["claim"][hidden]
        expected = np.exp(5 + group[hidden] + 1.5**2 / 2)
        shares.append(imputed.sum() / expected.sum())
    assert 0.7 < np.mean(shares) < 1.3


def test_held_out_cells_say_which_share_of_the_excess_is_borne_out() -> None:
    # The mean of a lognormal is exp(variance / 2) times its median.
    normal = torch.randn(2_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale, added, share in ((1.0, 0.5, 1.0), (1.0, 1.0, 0.5), (0.0, 0.5, 0.0), (1.0, 0.1, 1.0)):
        assert _share(scale * normal, torch.full_like(normal, added)) == share
    # A few cells are not sure, though they would rather have none.
    assert _share(0 * normal[:5], 0.01 * normal[:5].abs()) == 1.0
    assert _share(normal[:1], torch.ones(1, dtype=torch.float64)) == 1.0


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_an_amount_that_a_category_tells_is_what_it_tells(share: float) -> None:
    rng = np.random.default_rng(0)
    is_firm, usage = rng.random(1_000) < share, rng.normal(size=1_000)
    bill = np.where(is_firm, 5_000, 50) + 5 * usage + rng.normal(size=1_000)
    frame = pd.DataFrame({"bill": bill, "usage": usage, "kind": np.where(is_firm, "firm", "person")})
    frame["noise"] = rng.normal(size=1_000)
    hidden = rng.random(frame.shape) < 0.2
    hidden[:, 2] = False
    fitted = TabMAE(max_epochs=10, experts=("gaussian",), random_state=0).fit(frame.mask(hidden))
    assert fitted.schema_.columns[0].log
    ratio = (fitted.transform(frame.mask(hidden))["bill"] / bill)[hidden[:, 0]]
    for kind in (is_firm[hidden[:, 0]], ~is_firm[hidden[:, 0]]):
        assert ratio[kind].quantile(0.1) > 0.9 and ratio[kind].quantile(0.9) < 1.12


def test_what_lies_outside_of_its_range_does_not_throw_an_amount_out_of_its() -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(8, 2, 600)
    table = pd.DataFrame({"revenue": np.exp(size + rng.normal(0, 0.2, 600)), "balance": np.exp(size) - 2_000})
    table["noise"] = rng.normal(size=600)
    fitted = TabMAE(max_epochs=20, experts=("gaussian",), random_state=0).fit(table)
    most, balance = table["revenue"].max(), table["balance"].max()
    asked = pd.DataFrame({"revenue": np.nan, "balance": [balance, 5 * balance, 1e3], "noise": [0.0, 0.0, 30.0]})
    low, high = fitted.predict_interval(asked)
    drawn = pd.concat(fitted.sample(asked, 20, random_state=0))["revenue"]
    imputed = fitted.transform(asked)["revenue"]
    assert (imputed <= 2 * most * (1 + 1e-6)).all() and (drawn <= 2 * most * (1 + 1e-6)).all()
    assert (high["revenue"] <= 2 * most * (1 + 1e-6)).all() and (low["revenue"] >= table["revenue"].min() / 2.1).all()


def test_a_model_of_logarithms_is_saved_and_shifts_by_a_factor(companies: dict[str, Any], tmp_path: Path) -> None:
    fitted, holed, hidden = companies["fitted"], companies["holed"], companies["hidden"]
    fitted.save(tmp_path / "model")
    pd.testing.assert_frame_equal(load(tmp_path / "model").transform(holed), fitted.transform(holed))
    (plain,) = fitted.sample(holed, 1, random_state=0)
    (shifted,) = fitted.sample(holed, 1, random_state=0, delta={"assets": 1.0})
    ratio = (shifted["assets"] / plain["assets"])[hidden["assets"]]
    np.testing.assert_allclose(ratio, np.exp(fitted.schema_.columns[0].scale), rtol=1e-5)
    assert (shifted["assets"] == plain["assets"])[~hidden["assets"]].all()


def test_a_detector_takes_an_imputer_that_learnt_logarithms(companies: dict[str, Any]) -> None:
    detector = TabMAEDetector(pretrained=companies["fitted"], random_state=0).fit(companies["complete"])
    odd = companies["complete"].head(3).assign(normal=40.0)
    assert (detector.predict(odd) == -1).all()
