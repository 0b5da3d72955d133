"""What others say exactly: columns, as a total of parts or another unit, and other rows of the same person."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ensembles import build, seeded
from torch import Tensor

import tabmae
from tabmae import TabMAE
from tabmae.estimators.members import SURE, fit_sure, fit_sure_of_levels, weigh_members
from tabmae.estimators.validation import Validation
from tabmae.model import followed


def ledger(n_rows: int = 300) -> pd.DataFrame:
    """Parts and their total, a price in two currencies, and stays of some days within years."""
    rng = np.random.default_rng(0)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, n_rows), "D")
    days, goods, work = rng.integers(1, 60, n_rows), rng.gamma(2, 10, n_rows), rng.gamma(3, 5, n_rows)
    return pd.DataFrame(
        {
            "goods": goods,
            "work": work,
            "total": goods + work,
            "yen": 160 * goods,
            "start": start,
            "end": start + pd.to_timedelta(days, "D"),
            "days": days.astype(float),
        }
    )


def test_cells_that_follow_exactly_are_imputed_exactly(tmp_path: Path) -> None:
    table = ledger()
    holes = table.mask(np.random.default_rng(1).random(table.shape) < 0.1)
    imputer = TabMAE(max_epochs=5, random_state=0).fit(holes)
    for name, others in {"total": ["goods", "work"], "yen": ["goods"], "days": ["start", "end"]}.items():
        rows = holes[name].isna() & holes[others].notna().all(axis=1)
        error = (imputer.transform(holes)[name] - table[name])[rows]
        assert rows.sum() > 10
        assert error.abs().max() < 0.05 * table[name].std()
    imputer.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tabmae.load(tmp_path / "model").transform(holes), imputer.transform(holes))


def test_an_end_follows_from_a_start_and_its_hours_within_a_year() -> None:
    rng = np.random.default_rng(1)
    start = pd.Timestamp("2023-01-01") + pd.to_timedelta(rng.integers(0, 365 * 24 * 60, 500), "min")
    hours = rng.gamma(2, 3, 500).round(2)
    table = pd.DataFrame({"start": start, "hours": hours, "cost": 20 + 15 * hours + rng.normal(0, 2, 500)})
    table["end"] = start + pd.to_timedelta((60 * hours).round(), "min")
    missing = pd.DataFrame(rng.random(table.shape) < 0.15, columns=table.columns)
    imputed = TabMAE(max_epochs=3, random_state=0).fit_transform(table.mask(missing))
    one_of_both = missing["end"] != missing["start"]
    assert (imputed["end"] >= imputed["start"])[one_of_both].mean() > 0.98
    alone = missing.sum(axis=1) == 1
    off = (imputed["end"] - table["end"])[alone & missing["end"]].abs().dt.total_seconds() / 3600
    assert off.median() < 0.05
    assert (imputed["hours"] - table["hours"])[alone & missing["hours"]].abs().mean() < 0.2


@pytest.mark.parametrize("seed", [2, 4])
def test_a_tax_follows_from_its_amount_whatever_else_the_table_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    price, pieces = rng.lognormal(3, 1, 600).round(2), rng.integers(1, 20, 600)
    total = (price * pieces * (1 - rng.choice([0, 0.1, 0.25], 600, p=[0.7, 0.2, 0.1]))).round(2)
    table = pd.DataFrame({"price": price, "pieces": pieces, "total": total, "tax": (0.2 * total).round(2)})
    missing = pd.DataFrame(rng.random(table.shape) < 0.2, columns=table.columns)
    missing.loc[[table["tax"].nlargest(2).index[1]]] = [[False, False, False, True]]
    imputed = TabMAE(max_epochs=3, random_state=0).fit_transform(table.mask(missing))
    for name, other in (("tax", "total"), ("total", "tax")):
        cells = missing[name] & ~missing[other]
        off = (imputed[name] - table[name])[cells].abs()
        assert off.max() < 1e-3 * table[name].std() and cells.sum() > 50


def judged_numbers(error: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Give means, the expert's, its variances, truth and hidden cells: the expert is right to `error` where it is sure.

    In the second column no cell is hidden.
    """
    target = torch.randn(400, 2, generator=seeded(), dtype=torch.float64)
    noise = torch.randn(400, 2, generator=seeded(1), dtype=torch.float64)
    variance = torch.where(torch.arange(400)[:, None] % 2 == 0, 1e-6, 0.5).expand(400, 2)
    expert = target + torch.where(variance < 0.1, error, 1.0) * noise
    hidden = torch.ones(400, 2, dtype=torch.bool)
    hidden[:, 1] = False
    return target + 0.1 * noise.flip(0), expert, variance, target, hidden


def test_the_expert_is_followed_where_it_is_sure_and_right() -> None:
    mean, expert, variance, target, hidden = judged_numbers(error=0.001)
    sure = fit_sure(mean, expert, variance, target, hidden)
    assert float(sure[0]) in SURE
    moved = followed(mean, expert, variance, sure)
    near = variance[:, 0] < 0.1
    assert (moved - target)[near, 0].square().mean() < 0.1 * (mean - target)[near, 0].square().mean()
    torch.testing.assert_close(moved[~near, 0], mean[~near, 0], rtol=0, atol=0.1)


def test_the_expert_is_not_followed_where_it_is_sure_and_wrong_nor_unjudged() -> None:
    mean, expert, variance, target, hidden = judged_numbers(error=0.5)
    sure = fit_sure(mean, expert, variance, target, hidden)
    assert sure.tolist() == [0.0, 0.0]
    assert torch.equal(followed(mean, expert, variance, sure), mean)
    assert torch.equal(followed(mean, expert, torch.zeros_like(variance), sure), mean)


@pytest.mark.parametrize("with_expert", [True, False])
def test_a_model_finds_where_to_follow_its_expert(with_expert: bool) -> None:
    values = torch.randn(200, 6, generator=seeded(), dtype=torch.float64)
    values[:, 2] = values[:, 0]
    observed = torch.ones_like(values, dtype=torch.bool)
    folds = (torch.rand(values.shape, generator=seeded(1)) < 0.2).to(torch.int8)
    model = build(values, folds == 0, n_levels=(0,) * 6, with_expert=with_expert)
    weigh_members(model, Validation(model, values, observed, folds))
    assert ((model.sure[-1, [0, 2]] > 0) == with_expert).all()


def visits(named_by: str, n_persons: int = 80) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of persons and their readings, and the same without the birth, height or sex of some of the rows."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(n_persons), 5)
    born, sex = rng.integers(1930, 2000, n_persons), rng.choice(["f", "m"], n_persons)
    table = pd.DataFrame(
        {
            "name": person + 1000 if named_by == "number" else [f"P{each}" for each in person],
            "born": born[person].astype(float),
            "height": rng.normal(170, 10, n_persons)[person].round(1),
            "sex": sex[person],
            "pulse": rng.normal(70, 10, len(person)),
            "day": (pd.Timestamp("1930-01-01") + pd.to_timedelta(rng.integers(0, 25_000, n_persons), unit="D"))[person],
        }
    )
    holes = pd.DataFrame(rng.random(table.shape) < 0.15, columns=table.columns)
    holes[["name", "pulse"]] = False
    return table, table.mask(holes)


@pytest.mark.parametrize("named_by", ["number", "level"])
def test_what_other_rows_of_a_person_say_is_taken_exactly(named_by: str, tmp_path: Path) -> None:
    table, holes = visits(named_by)
    imputer = TabMAE(max_epochs=5, random_state=0).fit(holes)
    imputed, low, high = imputer.transform(holes), *imputer.predict_interval(holes)
    drawn = imputer.sample(holes, 2)
    for name in ("born", "height", "day"):
        cells = holes[name].isna() & holes.groupby("name")[name].transform("count").gt(0)
        others = holes[name].isna() & ~cells
        assert (imputed[name] == table[name])[cells].mean() > 0.95
        assert all((each[name] == table[name])[cells].mean() > 0.9 for each in drawn)
        wide = (high[name] - low[name]) / table[name].std()
        assert wide[cells].median() < 1e-5 and (wide[others] > 0.5).all()
    cells = holes["sex"].isna() & holes.groupby("name")["sex"].transform("count").gt(0)
    assert (imputed["sex"] == table["sex"])[cells].mean() > 0.97
    assert imputer.quality_["skill"]["born"] > 0.6
    imputer.save(tmp_path / "model")
    pd.testing.assert_frame_equal(tabmae.load(tmp_path / "model").transform(holes), imputed)


def test_what_other_rows_of_a_person_say_holds_beside_cells_outside_the_range() -> None:
    table, holes = visits("level")
    weight = 0.9 * table["height"] + np.random.default_rng(1).normal(size=len(table))
    tallest = table["name"] == table["name"][table["height"].idxmax()]
    holes.loc[tallest, "height"] = [table["height"].max(), *[np.nan] * 4]
    imputer = TabMAE(max_epochs=5, random_state=0).fit(holes.assign(weight=weight))
    cells = holes["height"].isna() & holes.groupby("name")["height"].transform("count").gt(2)
    asked = holes.assign(weight=weight + 30)[cells]
    imputed, low, high = imputer.transform(asked), *imputer.predict_interval(asked)
    exact = (high["height"] - low["height"]) < 1e-3
    assert exact.sum() > 10
    np.testing.assert_allclose(imputed["height"][exact], table["height"][cells][exact], atol=0.01)


def test_levels_are_those_of_copies_where_these_are_sure_and_right() -> None:
    codes = torch.arange(300)[:, None] % 3
    right = torch.nn.functional.one_hot(codes, 3).double()
    levels, sure = torch.full_like(right, 1 / 3), torch.where(codes < 2, 1e-6, 0.4)
    hidden = torch.ones(300, 1, dtype=torch.bool)
    assert float(fit_sure_of_levels(levels, right, sure, codes, hidden)[0]) in SURE
    assert not fit_sure_of_levels(levels, right.roll(1, 2), sure, codes, hidden).any()
    assert not fit_sure_of_levels(levels, right, sure, codes, ~hidden).any()
