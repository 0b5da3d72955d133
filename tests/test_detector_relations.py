"""Claims about relations between columns that rows break: totals, copies, days from a start to an end, products."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import tabmae
from tabmae import TabMAEDetector
from tabmae.estimators.detector import relations as room
from tabmae.estimators.detector.relations import PROPORTIONS, RELATIONS, SUMS, Relations, Residuals

WITHOUT_NETWORK = ("distance", "log_distance", "rank_distance", *RELATIONS)
ALARMS = 0.09
"""Share of 300 normal rows that are called outliers, at most: 5 %, and what few held-out rows may add."""


def bills(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw amounts in cents, and their total."""
    amounts = np.random.default_rng(seed).lognormal(3, 0.7, (n_rows, 4)).round(2)
    return pd.DataFrame(amounts, columns=list("abcd")).assign(total=amounts.sum(1).round(2))


def copies(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw two columns that are alike but for a hundredth of their spread, and two of their own."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(n_rows, 4)), columns=["one", "other", "x", "y"])
    return rows.assign(other=rows["one"] + 0.01 * rows["other"])


def stays(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw days of arrival within four years, nights, and days of departure."""
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1500, n_rows), unit="D")
    nights = 1 + rng.poisson(3, n_rows)
    return pd.DataFrame({"start": start, "end": start + pd.to_timedelta(nights, unit="D"), "nights": nights})


def sales(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw prices and numbers of goods, and what was paid for them."""
    rng = np.random.default_rng(seed)
    price, number = rng.lognormal(2, 0.6, n_rows).round(2), 1 + rng.poisson(4, n_rows)
    return pd.DataFrame({"price": price, "number": number, "paid": (price * number).round(2)})


@pytest.mark.parametrize(
    ("draw", "spoil"),
    [
        (bills, lambda rows: rows.assign(total=1.03 * rows["total"])),
        (copies, lambda rows: rows.assign(other=rows["other"] + 0.08)),
        (stays, lambda rows: rows.assign(end=rows["start"] - pd.Timedelta(days=3))),
        (sales, lambda rows: rows.assign(paid=1.2 * rows["paid"])),
    ],
)
def test_rows_that_break_a_relation_are_found(
    draw: Callable[..., pd.DataFrame], spoil: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(draw(500))
    new = draw(300, seed=1)
    odd = spoil(new)
    truth = np.repeat([0, 1], 300)
    assert roc_auc_score(truth, detector.anomaly_score(pd.concat([new, odd]))) > 0.98
    assert (detector.predict(odd) == -1).mean() > 0.99 and (detector.predict(new) == -1).mean() < ALARMS


def test_all_members_together_see_a_broken_relation_and_say_which_cells_are_in_it() -> None:
    detector = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(bills(400).assign(x=copies(400)["x"]))
    odd = bills(100, seed=1).assign(x=copies(100, seed=1)["x"])
    odd["total"] *= 1.2
    assert (detector.predict(odd) == -1).mean() > 0.99
    blamed = detector.explain(odd).groupby("column")["contribution"].mean()
    assert blamed.drop("x").min() > 10 * blamed["x"]


def test_a_relation_is_seen_where_its_cells_are_known_and_missing_parts_are_no_alarm() -> None:
    def with_holes(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
        return rows.mask(np.random.default_rng(seed).random(rows.shape) < 0.1)

    detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(with_holes(bills(500), 2))
    new = with_holes(bills(300, seed=1), 3)
    odd = new.assign(total=1.1 * new["total"])
    whole = new.notna().all(axis=1)
    assert (detector.predict(odd[whole]) == -1).mean() > 0.99
    assert (detector.predict(new) == -1).mean() < ALARMS and (detector.predict(new[~whole]) == -1).mean() < 2 * ALARMS
    values, observed = detector._read(new)
    found = detector.members_.relations
    assert found is not None
    garbage = torch.where(observed, values, 1e6)
    for name, evidence in found.evidence(values, observed).items():
        assert torch.equal(evidence, found.evidence(garbage, observed)[name])
    surprise = found.surprise(values, observed)
    assert surprise[~observed].eq(0).all()
    wanted = observed & (torch.arange(5) == 4)
    assert torch.equal(found.surprise(values, observed, wanted), torch.where(wanted, surprise, 0))


@pytest.mark.parametrize("draw", [bills, copies, stays, sales])
def test_a_part_that_new_rows_lack_is_no_alarm_where_those_of_fit_had_all(draw: Callable[..., pd.DataFrame]) -> None:
    detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(draw(500))
    new = draw(300, seed=1)
    for column in new:
        assert (detector.predict(new.assign(**{column: None}).astype(new.dtypes.drop(column))) == -1).mean() < ALARMS


def test_a_number_is_off_where_a_part_is_missing_if_it_is_farther_off_than_the_part_may_be() -> None:
    detector = TabMAEDetector(members=(SUMS,), random_state=0).fit(bills(500))
    new = bills(300, seed=1).assign(a=np.nan)
    assert (detector.predict(new.assign(total=20 * new["total"])) == -1).mean() > 0.99


def test_a_number_is_off_by_what_the_known_cells_of_its_row_leave_unexplained() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(300, 5, generator=generator)
    values[:, 4] = values[:, :4].sum(1) + 0.1 * values[:, 4]
    as_they_are = torch.full((5,), torch.nan, dtype=torch.float64)
    scale = Residuals([0] * 5, as_they_are, as_they_are).fit(values, torch.ones_like(values, dtype=torch.bool))
    observed = torch.rand(300, 5, generator=generator) > 0.4
    errors = scale._errors(values, observed)
    cells = scale._scaled(values)
    for j in range(5):
        mean, variance = scale.gaussian.condition(cells, observed & (torch.arange(5) != j))
        exact = ((cells - mean).abs() / variance.sqrt())[:, j]
        torch.testing.assert_close(
            errors[:, j], exact.where(observed[:, j], torch.nan), atol=1e-3, rtol=1e-3, equal_nan=True
        )


def test_few_rows_that_break_a_relation_in_fit_do_not_hide_the_others() -> None:
    rows, odd = bills(500), bills(200, seed=1)
    rows.loc[:1, "total"] *= [0.6, 1.4]
    odd["total"] *= 1.2
    detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(rows)
    assert (detector.predict(odd) == -1).mean() > 0.9


def test_false_alarms_are_as_rare_as_promised_where_columns_are_related() -> None:
    rates = []
    for seed in range(40):
        detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=seed).fit(bills(395, seed))
        p = detector.p_value(bills(250, seed=1_000 + seed))
        rates.append([(p <= alpha).mean() for alpha in (0.01, 0.05, 0.2)])
    assert np.mean(rates, axis=0) == pytest.approx([0.01, 0.05, 0.2], abs=0.012)


def test_relations_are_learnt_from_rows_that_are_not_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fit = Relations.fit

    def watched(learnt: Any, *others: Any) -> Relations:
        seen.append(learnt[0])
        return fit(learnt, *others)

    monkeypatch.setattr(Relations, "fit", watched)
    detector = TabMAEDetector(members=RELATIONS, random_state=0).fit(bills(200))
    assert len(seen[0]) == 200 - len(detector.held_out_scores_)


def test_other_rows_of_a_batch_leave_no_trace_where_a_relation_is_exact() -> None:
    detector = TabMAEDetector(members=RELATIONS, random_state=0).fit(bills(300))
    new = bills(40, seed=1)
    new.loc[::3, "total"] += np.random.default_rng(0).lognormal(-3, 3, 14)
    new.iloc[::5, 1] = np.nan
    whole = detector.anomaly_score(new)
    assert (whole > 0).sum() > 5
    np.testing.assert_array_equal([detector.anomaly_score(new.iloc[[row]])[0] for row in range(40)], whole)
    np.testing.assert_array_equal(detector.anomaly_score(new[::-1])[::-1], whole)


def test_only_positive_numbers_have_proportions() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"x": rng.normal(size=300), "zero": rng.poisson(3, 300), "c": rng.choice(list("pq"), 300)})
    tables = rows, rows.assign(price=rng.lognormal(size=300))
    without, found = (TabMAEDetector(members=RELATIONS, random_state=0).fit(rows).members_.relations for rows in tables)
    assert without is not None and list(without.scales) == [SUMS]
    assert found is not None and list(found.scales) == [SUMS, PROPORTIONS]
    assert found.scales[PROPORTIONS].zero.isnan().tolist() == [True, True, True, False]


def test_a_number_that_is_not_positive_counts_as_missing_among_proportions() -> None:
    detector = TabMAEDetector(members=(PROPORTIONS,), random_state=0).fit(sales(300))
    refund = sales(5, seed=1).assign(paid=[0.0, -1.0, -50.0, 0.0, -3.0])
    np.testing.assert_array_equal(detector.anomaly_score(refund), detector.anomaly_score(refund.assign(paid=np.nan)))


@pytest.mark.filterwarnings("ignore:X must have at least 38 rows|Column .* has values unseen:UserWarning")
@pytest.mark.parametrize("why", ["few rows", "categories alone", "too wide"])
def test_without_relations_a_row_is_judged_by_the_other_members(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = bills(30 if why == "few rows" else 60)
    if why == "categories alone":
        rows = rows.astype(int).astype(str)
    if why == "too wide":
        monkeypatch.setattr(room, "MAX_COLUMNS", 4)
    told, untold = (
        TabMAEDetector(members=members, random_state=0).fit(rows) for members in (WITHOUT_NETWORK, WITHOUT_NETWORK[:3])
    )
    np.testing.assert_array_equal(told.anomaly_score(10 * rows), untold.anomaly_score(10 * rows))


def test_loaded_relations_are_the_saved_ones(tmp_path: Path) -> None:
    for name, rows in (("with logarithms", bills(200)), ("without", copies(200))):
        detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(rows)
        detector.save(tmp_path / name)
        loaded, odd = tabmae.load(tmp_path / name), rows + np.random.default_rng(0).normal(size=rows.shape)
        found = loaded.anomaly_score(odd, by_member=True)
        pd.testing.assert_frame_equal(found, detector.anomaly_score(odd, by_member=True))
        assert (found[SUMS] > 0).any() and list(found) == list(WITHOUT_NETWORK)


def test_the_wrong_one_of_redundant_cells_is_blamed_not_the_number_that_it_contradicts() -> None:
    rng = np.random.default_rng(1)
    age = rng.uniform(0, 100, 600)
    rows = pd.DataFrame(
        {"age": age, "group": np.array(["child", "young", "adult", "old"])[np.digitize(age, [18, 30, 65])]}
    )
    rows = rows.assign(fee=np.select([age < 18, age < 65], [5.0, 10.0], 7.0), z=rng.normal(size=600))
    detector = TabMAEDetector(max_epochs=20, random_state=1).fit(rows[:500])
    odd = rows[500:].query("group != 'young'")
    odd = odd.assign(group=odd["group"].map({"child": "adult", "adult": "old", "old": "child"}))
    found = detector.explain(odd)
    blamed = found.loc[found.groupby("row")["contribution"].idxmax(), "column"]
    assert (blamed == "group").mean() > 0.75
