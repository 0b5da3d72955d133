"""Claims about `TabMAEDetector`: what it finds, what it blames, what its p-values promise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score

import tabmae
from tabmae import TabMAE, TabMAEDetector
from tabmae.calibration import p_value
from tabmae.errors import DataError, ParameterError
from tabmae.estimators import validation
from tabmae.estimators.detector.evidence import Evidence
from tabmae.estimators.detector.explanation import N_WITNESSES, blame
from tabmae.estimators.detector.linear import CellGaussian, surprise_at_levels
from tabmae.estimators.detector.network import CellNetwork
from tabmae.estimators.detector.normal_rows import draw_held_out_rows, least_odd_rows
from tabmae.estimators.detector.presence import PRESENCE
from tabmae.estimators.detector.relations import RELATIONS

DISTANCES = ("distance", "log_distance", "rank_distance")
QUICK: dict[str, Any] = {"max_epochs": 40, "random_state": 0}


def normal_rows(n_rows: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw rows whose four columns all follow one factor."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(n_rows, 1))
    return np.hstack([factor, -factor, factor**3, 2 * factor]) + 0.2 * rng.normal(size=(n_rows, 4))


@pytest.fixture(scope="module")
def detector() -> TabMAEDetector:
    """A detector of rows whose columns follow one factor; nothing may change it."""
    return TabMAEDetector(**QUICK).fit(normal_rows(400))


@pytest.fixture(scope="module")
def of_mixed(mixed: pd.DataFrame) -> TabMAEDetector:
    """A detector of a table of every kind of column, with holes."""
    return TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(mixed)


def broken(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give every other row the second column of one far from it, a value that is normal by itself."""
    order = rows[:, 0].argsort()
    swapped = rows.copy()
    swapped[order, 1] = rows[order[::-1], 1]
    return swapped[np.abs(rows[:, 0]) > 0.8]


def test_rows_whose_columns_do_not_go_together_are_found(detector: TabMAEDetector) -> None:
    new = normal_rows(300, seed=1)
    odd = broken(new)
    truth = np.r_[np.zeros(len(new)), np.ones(len(odd))]
    assert (odd.min(0) >= new.min(0)).all() and (odd.max(0) <= new.max(0)).all()
    assert roc_auc_score(truth, detector.anomaly_score(np.vstack([new, odd]))) > 0.97
    by_member = detector.anomaly_score(np.vstack([new, odd]), by_member=True)
    assert roc_auc_score(truth, by_member["network"]) > 0.97
    assert (detector.predict(odd) == -1).mean() > 0.8 and (detector.predict(new) == 1).mean() > 0.85


def test_the_planted_cell_is_blamed_most(detector: TabMAEDetector) -> None:
    odd = broken(normal_rows(300, seed=1))
    cells = detector.explain(odd)
    blamed = cells.loc[cells.groupby("row")["contribution"].idxmax(), "column"]
    assert (blamed == 1).mean() > 0.9
    planted = cells[cells["column"] == 1]
    outside = (planted["value"] < planted["lower"]) | (planted["value"] > planted["upper"])
    assert outside.mean() > 0.9
    assert np.corrcoef(planted["expected"], -odd[:, 0])[0, 1] > 0.97


def test_a_cell_is_blamed_for_what_it_does_to_the_others() -> None:
    """A wrong cell makes its neighbours odd, too: leaving it out clears them, leaving one of them out does not."""
    own = torch.tensor([[5.0, 6.0, 4.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])

    def surprise(values: torch.Tensor, observed: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        caused_by_first = values * observed[:, :1] + torch.eye(4)[0] * values
        return torch.where(wanted & observed, torch.minimum(values, caused_by_first), 0)

    found = blame(surprise, own, torch.ones_like(own, dtype=torch.bool))
    assert found.tolist() == [[15, 6, 4, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_network_gaussian_and_forests_count_alike_in_what_a_cell_is_blamed_for(detector: TabMAEDetector) -> None:
    values, observed = detector._read(broken(normal_rows(100, seed=1)))
    members = detector.members_
    assert members.network is not None and members.linear is not None and members.forests is not None
    judges = (members.network, members.linear, members.forests)
    mean = torch.stack([judge.surprise(values, observed) for judge in judges]).mean(0)
    assert members.relations is not None
    mean += members.relations.surprise(values, observed)
    assert torch.equal(members._surprise(values, observed, observed), mean)
    found = members.blame(values, observed)
    least = mean.argmin(1, keepdim=True)
    torch.testing.assert_close(found.gather(1, least), mean.gather(1, least))
    assert (found[:, 1] > mean[:, 1]).double().mean() > 0.9


def test_only_the_most_surprising_cells_of_a_wide_row_are_judged_again() -> None:
    asked = []

    def surprise(values: torch.Tensor, observed: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        asked.append((observed, wanted))
        return torch.where(wanted, values, 0)

    values = torch.arange(40.0).repeat(2, 1)
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[0, 39] = False
    found = blame(surprise, values, observed)
    assert torch.equal(found, torch.where(observed, values, 0))
    assert [int(wanted.sum(1).max()) for _, wanted in asked] == [40, *[N_WITNESSES - 1] * 3]
    assert not asked[1][0][0, 38] and not asked[1][0][1, 39]


def test_the_gaussian_judges_each_cell_given_the_observed_others() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, 3, generator=generator)
    values[:, 1] = values[:, 0] + 0.3 * values[:, 1]
    observed = torch.rand(400, 3, generator=generator) > 0.2
    gaussian = CellGaussian.fit((values, observed), [0, 0, 0])
    assert gaussian is not None
    errors, spreads = gaussian._judged(torch.where(observed, values, torch.nan).double(), observed)
    exact = values.double()
    cells = exact.sign() * exact.abs().log1p() / gaussian.scale
    for j in range(3):
        others = observed & (torch.arange(3) != j)
        mean, variance = gaussian.gaussian.condition(cells, others)
        shown = observed[:, j]
        torch.testing.assert_close(errors[shown, j], (cells - mean)[shown, j])
        torch.testing.assert_close(spreads[shown, j].square(), variance[shown, j])
    assert errors[~observed].isnan().all()
    surprise = gaussian.surprise(values, observed)
    assert (surprise >= 0).all() and surprise[~observed].eq(0).all()
    wanted = observed & (torch.arange(3) == 1)
    assert torch.equal(gaussian.surprise(values, observed, wanted), torch.where(wanted, surprise, 0))


def test_the_gaussian_is_surprised_by_a_level_that_does_not_go_with_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    number = torch.randn(400, generator=generator)
    values = torch.stack([number, (number > 0).float(), (number < 0).float() * 2], 1)
    observed = torch.ones_like(values, dtype=torch.bool)
    gaussian = CellGaussian.fit((values, observed), [0, 2, 3])
    assert gaussian is not None
    swapped = values.clone()
    swapped[:, 1] = 1 - swapped[:, 1]
    usual, odd = (gaussian.surprise(rows, observed)[:, 1] for rows in (values, swapped))
    assert odd.mean() > usual.mean() + 2
    expected = torch.tensor([[0.7, 0.1], [0.7, 0.1], [-0.5, 1.5]])
    probability = torch.tensor([0.7, 0.2, 0.0])
    found = surprise_at_levels(expected, torch.tensor([0, 2, 0]))
    torch.testing.assert_close(found, -(0.99 * probability + 0.002).log())


def test_an_explanation_reads_no_missing_cell_and_no_other_row(mixed: pd.DataFrame, of_mixed: TabMAEDetector) -> None:
    whole = of_mixed.explain(mixed)
    for row in (0, len(mixed) // 2):
        alone = of_mixed.explain(mixed.iloc[[row]])["contribution"]
        found = whole["contribution"].iloc[row * mixed.shape[1] : (row + 1) * mixed.shape[1]]
        np.testing.assert_allclose(alone, found, rtol=1e-6)
    values, observed = of_mixed._read(mixed)
    garbage = torch.where(observed, values, 1e6)
    assert torch.equal(of_mixed.members_.blame(garbage, observed), of_mixed.members_.blame(values, observed))


def test_an_explanation_has_a_row_for_each_cell_in_the_units_of_the_table(
    mixed: pd.DataFrame, of_mixed: TabMAEDetector
) -> None:
    cells = of_mixed.explain(mixed[::-1])
    assert list(cells) == ["row", "column", "value", "contribution", "expected", "lower", "upper"]
    assert cells["row"].tolist() == np.repeat(mixed.index[::-1], mixed.shape[1]).tolist()
    assert cells["column"].tolist() == list(mixed) * len(mixed)
    assert (cells["contribution"] >= 0).all() and (cells["contribution"] > 0).any()
    held = cells.pivot(index="row", columns="column", values="value").loc[mixed.index, mixed.columns]
    for name in mixed:
        known = mixed[name].notna().to_numpy()
        assert held[name][known].tolist() == mixed[name][known].tolist() and held[name][~known].isna().all()
    of_day, of_city = (cells[cells["column"] == name] for name in ("day", "city"))
    assert of_day["expected"].map(lambda value: abs(value - mixed["day"].mean()) < pd.Timedelta(days=90)).all()
    assert (of_day["lower"] < of_day["upper"]).all()
    assert of_city["expected"].isin(["Oslo", "Rome", "Bonn"]).all() and of_city["lower"].isna().all()
    assert cells.loc[cells["value"].isna(), "contribution"].eq(0).all()


def test_intervals_hold_their_share_of_new_normal_cells(detector: TabMAEDetector) -> None:
    for level in (0.5, 0.9):
        cells = detector.explain(normal_rows(500, seed=2), level=level)
        held = (cells["value"] >= cells["lower"]) & (cells["value"] <= cells["upper"])
        assert held.mean() == pytest.approx(level, abs=0.06)


def test_what_is_expected_of_a_column_of_one_sign_keeps_it() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=200)
    skewed = np.exp(2 * shared + 0.5 * rng.normal(size=200))
    rows = pd.DataFrame({"income": skewed, "debt": -skewed, "wait": pd.to_timedelta(skewed, unit="s"), "x": shared})
    cells = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(rows).explain(rows)
    for name, zero, sign in (("income", 0, 1), ("debt", 0, -1), ("wait", pd.Timedelta(0), 1)):
        bounds = cells.loc[cells["column"] == name, ["expected", "lower", "upper"]]
        assert ((bounds >= zero) if sign > 0 else (bounds <= zero)).all(axis=None)
    assert (cells.loc[cells["column"] == "x", "lower"] < 0).any()


def test_a_bound_that_is_a_value_of_its_column_holds_that_value() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.poisson([0.3, 1, 5], (3000, 3)), columns=list("abc")).assign(d=rng.integers(0, 2, 3000))
    rows["e"] = rng.choice([0.1, 1 / 3, 0.7], 3000)
    cells = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(rows[:2000]).explain(rows[2000:], level=0.9)
    value = cells["value"].astype(float)
    held = (value >= cells["lower"]) & (value <= cells["upper"])
    assert (held.groupby(cells["column"]).mean() > 0.87).all()
    assert (cells["lower"] >= cells["column"].map(rows[:2000].min())).all()
    assert (cells["upper"] <= cells["column"].map(rows[:2000].max())).all()


def rows_with_levels(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw rows of two numbers and two categories that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    numbers = {name: rng.normal(size=n_rows) for name in "xz"}
    return pd.DataFrame({**numbers, "c": rng.choice(list("pqrs"), n_rows), "k": rng.choice(list("ab"), n_rows)})


@pytest.mark.filterwarnings("ignore:Column 'c' has values unseen:UserWarning")
def test_a_level_never_seen_in_fit_makes_its_row_and_its_cell_odd(tmp_path: Path) -> None:
    detector = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(rows_with_levels(300))
    new = rows_with_levels(200, seed=1)
    odd = new.head(100).assign(c="another")
    truth = np.r_[np.zeros(len(new)), np.ones(len(odd))]
    scores = detector.anomaly_score(pd.concat([new, odd]), by_member=True)
    assert roc_auc_score(truth, scores.sum(axis=1)) > 0.98
    assert all(roc_auc_score(truth, scores[member]) > 0.9 for member in scores.drop(columns=[*RELATIONS, PRESENCE]))
    assert (detector.predict(odd) == -1).mean() > 0.9
    cells = detector.explain(odd)
    of_level, others = cells[cells["column"] == "c"], cells[cells["column"] != "c"]
    assert (of_level["contribution"] > 3).all() and of_level["expected"].isin(list("pqrs")).all()
    assert cells.loc[cells.groupby("row")["contribution"].idxmax(), "column"].eq("c").all()
    as_missing = detector.explain(odd.assign(c=None))
    pd.testing.assert_series_equal(as_missing.loc[others.index, "expected"], others["expected"])
    values, observed = detector._read(odd)
    members = detector.members_
    assert members.linear is not None and members.network is not None
    strange = members.network.strange_cells(values, observed)
    assert strange[:, 2].all() and strange.sum() == len(odd)
    assert (members.linear.surprise(values, observed, None, strange)[:, 2] > 3).all()
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(tabmae.load(tmp_path / "model").score_samples(odd), detector.score_samples(odd))


@pytest.mark.filterwarnings("ignore:Column 'c' has values unseen:UserWarning")
@pytest.mark.parametrize("members", ["auto", DISTANCES])
def test_levels_that_occur_once_leave_p_values_as_they_are_promised(members: Any) -> None:
    def many_levels(n_rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        codes = (rng.pareto(0.7, n_rows) * 3).astype(int).clip(0, 5_000)
        return pd.DataFrame({"x": rng.normal(size=n_rows), "c": [f"level {code}" for code in codes]})

    rates = []
    for seed in range(20 if members == DISTANCES else 10):
        detector = TabMAEDetector(max_epochs=1, d_token=4, members=members, random_state=seed)
        p = detector.fit(many_levels(200, seed)).p_value(many_levels(300, 1_000 + seed))
        rates.append([(p <= alpha).mean() for alpha in (0.05, 0.1, 0.2)])
    assert np.mean(rates, axis=0) == pytest.approx([0.05, 0.1, 0.2], abs=0.03)


def test_missing_cells_are_no_evidence(detector: TabMAEDetector) -> None:
    new = normal_rows(400, seed=3)
    holes = np.where(np.random.default_rng(0).random(new.shape) < 0.4, np.nan, new)
    whole, with_holes = detector.anomaly_score(new), detector.anomaly_score(holes)
    assert np.isfinite(with_holes).all()
    assert with_holes.mean() < 1.1 * whole.mean()
    assert (detector.p_value(holes) <= 0.05).mean() < 0.08
    without = np.where(np.arange(4) == 1, np.nan, broken(new))
    assert (detector.predict(without) == -1).mean() < 0.15


def test_a_row_without_a_cell_is_as_odd_as_the_median_row(detector: TabMAEDetector) -> None:
    blank = np.full((1, 4), np.nan)
    assert detector.anomaly_score(blank) == pytest.approx(2 * np.log(2))
    assert detector.p_value(blank) == 1 and detector.predict(blank) == 1
    assert detector.explain(blank)["contribution"].eq(0).all()


def test_neither_the_batch_nor_its_size_leaves_a_trace(
    mixed: pd.DataFrame, of_mixed: TabMAEDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of_mixed.score_samples(mixed)
    alone = [of_mixed.score_samples(mixed.iloc[[row]])[0] for row in range(0, len(mixed), 3)]
    np.testing.assert_array_equal(alone, whole[::3])
    network = of_mixed.members_.network
    assert network is not None
    monkeypatch.setattr(validation, "MAX_BATCH_OUTPUTS", 7 * network.model_.tokenizer.n_outputs)
    np.testing.assert_array_equal(of_mixed.score_samples(mixed[::-1])[::-1], whole)


@pytest.mark.parametrize("members", ["auto", DISTANCES])
def test_false_alarms_are_as_rare_as_promised(members: Any) -> None:
    settings: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "members": members}
    n_fits = 60 if members == DISTANCES else 25
    rates = []
    for seed in range(n_fits):
        detector = TabMAEDetector(random_state=seed, **settings).fit(normal_rows(395, seed))
        rates.append((detector.p_value(normal_rows(250, seed=10_000 + seed)) <= 0.05).mean())
    assert np.mean(rates) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("contamination", ["auto", 0.05])
def test_one_absurd_cell_of_fit_blinds_no_member(contamination: float | str) -> None:
    rows, new = normal_rows(200), normal_rows(200, seed=1)
    rows[0, 0] = 1e9
    odd = new[:100].copy()
    odd[:, 0] = 6
    truth = np.r_[np.zeros(len(new)), np.ones(len(odd))]
    detector = TabMAEDetector(contamination=contamination, max_epochs=10, d_token=4, random_state=0).fit(rows)
    scores = detector.anomaly_score(np.vstack([new, odd]), by_member=True)
    assert all(
        roc_auc_score(truth, scores[member]) > 0.93 for member in scores if member not in ("proportions", PRESENCE)
    )
    expected = detector.explain(new[:20]).query("column == 1")["expected"]
    assert np.corrcoef(expected, -new[:20, 0])[0, 1] > 0.9


def test_the_farther_out_a_cell_the_odder_its_row_while_unrelated_cells_are_expected_as_before() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    rows[:, 1] = 0.3 * rows[:, 1] - rows[:, 0]
    detector = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(rows)
    far = np.array([[1.0, -1.0, cell] for cell in (0, 5, 50, 1e3, 1e6, 1e12)])
    scores = detector.anomaly_score(far, by_member=True).to_numpy()
    assert (np.diff(scores, axis=0) >= 0).all() and (np.diff(scores.sum(1))[:4] > 0).all()
    cells = detector.explain(far)
    assert cells[cells["row"] > 0].groupby("row")["contribution"].idxmax().mod(3).eq(2).all()
    expected = cells.pivot(index="row", columns="column", values="expected").to_numpy()
    np.testing.assert_allclose(expected[2:], expected[[2]].repeat(4, axis=0))
    assert np.abs(expected - expected[0]).max() < 0.2


def test_rows_of_few_distinct_values_have_p_values_as_promised() -> None:
    """New rows then equal rows of fit as often as held-out rows equal others."""
    rates = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        fit, new = (np.clip(np.round(3 + rng.normal(size=(n, 4))), 1, 5) for n in (300, 500))
        p = TabMAEDetector(members=DISTANCES, random_state=seed).fit(fit).p_value(new)
        rates.append([(p <= alpha).mean() for alpha in (0.05, 0.1, 0.2)])
    assert (np.mean(rates, axis=0) < [0.06, 0.115, 0.22]).all()


def test_p_values_count_held_out_rows_and_the_row_itself(detector: TabMAEDetector) -> None:
    new = normal_rows(50, seed=4)
    held_out, scores = detector.held_out_scores_.numpy(), detector.anomaly_score(new)
    expected = [(1 + (held_out >= score).sum()) / (1 + len(held_out)) for score in scores]
    np.testing.assert_allclose(detector.p_value(new), expected)
    assert len(held_out) == 99
    far = detector.p_value(np.full((1, 4), 9.0))
    assert far.dtype == np.float64 and far[0] == 0.01 and detector.p_value(new).tolist() == expected
    assert p_value(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 2.5, 0.0])).tolist() == [0.75, 0.25, 1.0]


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(1, 0), (6, 3), (39, 19), (60, 19), (78, 39), (200, 39), (370, 79), (375, 99), (1_400, 299), (10_000, 1_999)],
)
def test_p_values_can_equal_the_usual_alarm_levels(n_rows: int, expected: int) -> None:
    assert int(draw_held_out_rows(n_rows, torch.Generator().manual_seed(0)).sum()) == expected
    assert expected < 19 or (expected + 1) % (100 if expected >= 99 else 20) == 0


def test_nothing_learns_from_the_held_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = normal_rows(200), []
    learn = CellNetwork.learn

    def watched(network: CellNetwork, values: torch.Tensor, *others: Any) -> CellNetwork:
        seen.append(values)
        return learn(network, values, *others)

    monkeypatch.setattr(CellNetwork, "learn", watched)
    detector = TabMAEDetector(max_epochs=3, d_token=4, random_state=0).fit(rows)
    found = detector.members_.neighbours, detector.members_.network
    values, observed = detector._read(rows)
    network = found[1]
    assert network is not None and found[0] is not None
    generator = torch.Generator().manual_seed(int(np.random.RandomState(0).randint(2**31 - 1)))
    torch.randint(0, 2**31 - 1, (1,), generator=generator)
    held_out = draw_held_out_rows(len(rows), generator)
    assert torch.equal(seen[0], values[~held_out])
    torch.testing.assert_close(found[0].location, values[~held_out].double().mean(0), rtol=1e-4, atol=1e-5)
    surprise = network.surprise(values[held_out], observed[held_out]).mean(1)
    np.testing.assert_allclose(detector.members_.evidence["network"].ranks, surprise.sort().values, rtol=1e-5)


def test_evidence_is_a_rank_with_an_exponential_tail() -> None:
    learnt = torch.arange(1.0, 101)
    evidence = Evidence.fit(learnt)
    nats = evidence.nats(torch.tensor([0.0, 50.5, 1000.0, torch.nan]))
    assert nats[0] == 0 and nats[1] == pytest.approx(-np.log(51 / 101)) and nats[3] == pytest.approx(np.log(2))
    start, scale = 90.1, float((learnt[learnt > 90.1] - 90.1).mean())
    assert nats[2] == pytest.approx(np.log(101) + (1000 - start) / scale, rel=1e-6)
    assert (evidence.nats(torch.linspace(-5, 200, 1000)).diff() >= 0).all()
    constant = Evidence.fit(torch.zeros(30))
    assert constant.nats(torch.tensor([0.0, 5.0])).isfinite().all()


def test_outliers_among_the_rows_of_fit_are_found_and_counted() -> None:
    rng = np.random.default_rng(0)
    rows = np.vstack([normal_rows(270), rng.normal(size=(30, 4)) * 0.2 + [4, 4, -4, 4]])
    detector = TabMAEDetector(contamination=0.1, **QUICK).fit(rows)
    assert (detector.predict(rows) == -1).sum() == 30
    assert (detector.predict(rows[270:]) == -1).mean() > 0.9
    naive = TabMAEDetector(**QUICK).fit(rows)
    truth = np.r_[np.zeros(270), np.ones(30)]
    assert roc_auc_score(truth, detector.anomaly_score(rows)) > roc_auc_score(truth, naive.anomaly_score(rows)) + 0.05


def test_rows_between_dense_groups_are_found_beside_a_thin_one() -> None:
    """By distance alone they are as normal as the thin group's rows."""
    rng = np.random.default_rng(0)

    def draw(n_rows: int) -> NDArray[np.float64]:
        dense = 0.2 * rng.normal(size=(n_rows, 4)) + rng.choice([-4, 4], size=(n_rows, 1))
        return np.where(rng.random((n_rows, 1)) < 0.2, [0, 12, 0, 12] + 2 * rng.normal(size=(n_rows, 4)), dense)

    fit, new, odd = draw(600), draw(300), 0.2 * rng.normal(size=(40, 4)) + rng.choice([-3, 3], size=(40, 1))
    truth, rows = np.r_[np.zeros(300), np.ones(40)], np.vstack([new, odd])
    detector = TabMAEDetector(members=("distance",), random_state=0).fit(fit)
    neighbours = detector.members_.neighbours
    assert neighbours is not None
    plain = neighbours.distances(*detector._read(rows), ["standard"])[:, 0]
    assert roc_auc_score(truth, detector.anomaly_score(rows)) > roc_auc_score(truth, plain) + 0.05


def test_outliers_among_the_rows_of_fit_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(0)
    rows = np.vstack([0.2 * rng.normal(size=(270, 4)), 3 * rng.normal(size=(30, 4)) + [4, 4, -4, 4]])
    detector = TabMAEDetector(contamination=0.1, members=("distance",), random_state=0).fit(rows)
    neighbours = detector.members_.neighbours
    assert neighbours is not None
    plain = neighbours.distances(*detector._read(rows), ["standard"])[:, 0].numpy()
    order = plain.argsort()
    assert (np.diff(detector.anomaly_score(rows)[order]) >= 0).all()


def test_the_trimmed_rows_are_the_worst_ones() -> None:
    values = torch.from_numpy(np.r_[normal_rows(90), np.full((10, 4), 30.0)]).float()
    observed = torch.ones_like(values, dtype=torch.bool)
    observed[5] = False
    kept = least_odd_rows(values, observed, 0.05, 0)
    assert len(kept) == round(0.8 * 99) and kept.max() < 90 and 5 not in kept
    assert len(least_odd_rows(values, observed, 0.4, 0)) == round(0.6 * 99)
    assert least_odd_rows(values, observed, 0, 0).tolist() == [row for row in range(100) if row != 5]


def test_scores_offsets_and_predictions_agree(detector: TabMAEDetector) -> None:
    new = np.vstack([normal_rows(50, seed=5), broken(normal_rows(50, seed=6))])
    score = detector.score_samples(new)
    np.testing.assert_array_equal(score, -detector.anomaly_score(new))
    np.testing.assert_allclose(detector.decision_function(new), score - detector.offset_)
    np.testing.assert_array_equal(detector.predict(new) == -1, detector.anomaly_score(new) > detector.threshold_)
    np.testing.assert_array_equal(detector.predict(new) == -1, detector.p_value(new) <= 0.05)
    of_members = detector.anomaly_score(new, by_member=True)
    assert list(of_members) == [*DISTANCES, "network", "forests", *RELATIONS, PRESENCE]
    relations, proportions, presence = (of_members.pop(name) for name in (*RELATIONS, PRESENCE))
    of_members["network"] = (of_members["network"] + 2 * of_members.pop("forests")) / 3
    of_two = np.sort(of_members, axis=1)[:, -2:].sum(axis=1)
    np.testing.assert_allclose(np.maximum(of_two + proportions + presence, relations), -score)


def test_a_loaded_detector_is_the_saved_one(mixed: pd.DataFrame, of_mixed: TabMAEDetector, tmp_path: Path) -> None:
    of_mixed.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.score_samples(mixed), of_mixed.score_samples(mixed))
    np.testing.assert_array_equal(loaded.p_value(mixed), of_mixed.p_value(mixed))
    pd.testing.assert_frame_equal(loaded.explain(mixed), of_mixed.explain(mixed))
    pd.testing.assert_frame_equal(loaded.quality_, of_mixed.quality_)
    assert loaded.get_params() == of_mixed.get_params() and loaded.offset_ == of_mixed.offset_


def test_a_detector_without_a_network_is_saved_too(tmp_path: Path) -> None:
    detector = TabMAEDetector(members=("distance", "rank_distance"), random_state=0).fit(normal_rows(100))
    detector.save(tmp_path / "model")
    loaded, new = tabmae.load(tmp_path / "model"), normal_rows(20, seed=1)
    np.testing.assert_array_equal(loaded.score_samples(new), detector.score_samples(new))
    assert list(detector.anomaly_score(new, by_member=True)) == ["distance", "rank_distance"]


def test_the_same_seed_gives_the_same_detector() -> None:
    rows = normal_rows(100)
    settings: dict[str, Any] = {"max_epochs": 2, "d_token": 4}
    one, other, third = (TabMAEDetector(random_state=seed, **settings).fit(rows) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.score_samples(rows), other.score_samples(rows))
    assert (one.score_samples(rows) != third.score_samples(rows)).any()
    assert one.offset_ == clone(one).fit(rows).offset_


def test_a_pretrained_network_is_used_and_left_as_it_is(mixed: pd.DataFrame, model: TabMAE, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.model_.state_dict().items()}
    imputed, attributes = model.transform(mixed), set(vars(model))
    detector = TabMAEDetector(pretrained=model, random_state=0).fit(mixed)
    after = model.model_.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert set(vars(model)) == attributes
    pd.testing.assert_frame_equal(model.transform(mixed), imputed)
    assert detector.members_.network is not None
    assert detector.members_.network.model_.backbone is model.model_.backbone
    frozen = clone(TabMAEDetector(pretrained=FrozenEstimator(model), random_state=0)).fit(mixed)
    np.testing.assert_array_equal(frozen.score_samples(mixed), detector.score_samples(mixed))
    detector.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    assert loaded.pretrained is None
    np.testing.assert_array_equal(loaded.score_samples(mixed), detector.score_samples(mixed))


@pytest.mark.parametrize("container", [pl.from_pandas, lambda frame: pa.Table.from_pandas(frame, preserve_index=False)])
def test_other_containers_give_the_same_scores_and_explanations(
    mixed: pd.DataFrame, of_mixed: TabMAEDetector, container: Callable[[pd.DataFrame], Any]
) -> None:
    table = container(mixed)
    np.testing.assert_array_equal(of_mixed.score_samples(table), of_mixed.score_samples(mixed))
    contributions = of_mixed.explain(table)["contribution"], of_mixed.explain(mixed)["contribution"]
    np.testing.assert_array_equal(*contributions)


def test_other_columns_are_refused(mixed: pd.DataFrame, of_mixed: TabMAEDetector) -> None:
    with pytest.raises(DataError, match="city"):
        of_mixed.score_samples(mixed.drop(columns="city"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contamination": 0.6}, "`contamination` must lie in (0, 0.5]; got 0.6. Pass the share of outliers"),
        ({"contamination": "some"}, "`contamination` must be a finite number in (0, 0.5]; got 'some'."),
        ({"members": "distance"}, "`members` must be 'auto' or a tuple of names out of ['distance', "),
        ({"members": ()}, "`members` must be 'auto' or a tuple of names"),
        ({"members": ("netwrok",)}, "got 'netwrok'. Did you mean 'network'?"),
        ({"pretrained": "model"}, "`pretrained` must be a fitted TabMAE; got str. Pass TabMAE().fit(X)."),
        ({"mask_ratio": 1.5}, "`mask_ratio` must lie in (0, 1)"),
        ({"random_state": "a"}, "`random_state` must be None, an integer"),
        ({"backbone": "mpl"}, "Did you mean 'mlp'?"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_done(settings: dict[str, Any], message: str) -> None:
    detector = TabMAEDetector(**settings)
    with pytest.raises(ParameterError) as caught:
        detector.fit(normal_rows(20))
    assert message in str(caught.value)
    assert not hasattr(detector, "offset_") and not hasattr(detector, "n_features_in_")


def test_a_pretrained_network_without_its_member_is_refused(model: TabMAE, mixed: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="`pretrained` must serve a member; `members` is .* Add 'network'"):
        TabMAEDetector(pretrained=model, members=DISTANCES).fit(mixed)


@pytest.mark.parametrize("value", [3.0, pd.Timestamp("2024-03-01")])
def test_a_column_that_is_always_the_same_is_expected_to_be_so(value: Any) -> None:
    rows = pd.DataFrame(normal_rows(60)).rename(columns=str).assign(same=value)
    cells = (
        TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(rows).explain(rows[:10]).query("column == 'same'")
    )
    assert (cells[["expected", "lower", "upper"]] == value).all(axis=None)


def test_distances_alone_do_not_explain() -> None:
    detector = TabMAEDetector(members=DISTANCES).fit(normal_rows(50))
    for ask in (lambda: detector.explain(normal_rows(2)), lambda: detector.quality_):
        with pytest.raises(ParameterError, match="needs the network; `members` was .* Fit with members='auto'"):
            ask()


@pytest.mark.parametrize("level", [0, 1, "a"])
def test_a_wrong_level_is_refused(detector: TabMAEDetector, level: Any) -> None:
    with pytest.raises(ParameterError, match="`level` must .*Pass the share of cells to hold"):
        detector.explain(normal_rows(1), level=level)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="X must have at least 4 rows; got n_samples = 3"):
        TabMAEDetector().fit(normal_rows(3))
    rows = np.full((10, 4), np.nan)
    rows[:3] = 1.0
    with pytest.raises(DataError, match="X must have at least 4 rows with an observed cell; got 3 of 10"):
        TabMAEDetector().fit(rows)


def test_a_network_from_a_function_is_not_saved(tmp_path: Path) -> None:
    def backbone(n_tokens: int, d_token: int) -> torch.nn.Module:
        return torch.nn.Linear(d_token, d_token)

    detector = TabMAEDetector(backbone=backbone, max_epochs=1).fit(normal_rows(40))
    with pytest.raises(ParameterError, match="A network must be one of this package's to be saved; `backbone`"):
        detector.save(tmp_path / "model")


def test_a_failed_fit_leaves_the_detector_as_it_was(detector: TabMAEDetector) -> None:
    new, before = normal_rows(10, seed=7), dict(vars(detector))
    score = detector.score_samples(new)
    with pytest.raises(DataError):
        detector.fit(np.full((3, 2), 1.0))
    assert vars(detector) == before
    np.testing.assert_array_equal(detector.score_samples(new), score)


@pytest.mark.parametrize("n_rows", [4, 5, 12, 37])
def test_tiny_tables_are_served_without_alarms_that_they_cannot_give(n_rows: int, tmp_path: Path) -> None:
    rows = normal_rows(n_rows)
    message = f"X must have at least 38 rows with an observed cell for a p-value to reach 5%; got {n_rows}, with which"
    with pytest.warns(UserWarning, match=message) as warned:
        detector = TabMAEDetector(max_epochs=1, d_token=4, random_state=0).fit(rows)
    assert {warning.filename for warning in warned} == {__file__}
    detector.save(tmp_path / "model")
    for served in (detector, tabmae.load(tmp_path / "model")):
        assert np.isfinite(served.score_samples(rows)).all() and served.p_value(rows).min() > 0.05
        assert (served.predict(np.vstack([rows, 100 * rows])) == 1).all()


def test_as_many_rows_as_alarms_need_give_them(recwarn: pytest.WarningsRecorder) -> None:
    detector = TabMAEDetector(members=DISTANCES, random_state=0).fit(normal_rows(38))
    odd = 100 * normal_rows(5, seed=1)
    assert not recwarn.list and (detector.predict(odd) == -1).all() and (detector.p_value(odd) <= 0.05).all()


@pytest.mark.parametrize("row", [[0.1, 0.7, 1 / 3], ["a", "b", "c"], [0.1, "a", "b"]])
def test_rows_that_are_all_equal_are_judged_alike_in_every_batch(row: list[Any]) -> None:
    rows = pd.DataFrame([row] * 100)
    detector = TabMAEDetector(max_epochs=1, d_token=4, random_state=0).fit(rows)
    for n_rows in (1, 2, 3, 7, 100):
        assert (detector.p_value(rows.head(n_rows)) == 1).all() and (detector.predict(rows.head(n_rows)) == 1).all()
    blank = rows.head(1).mask([[True] * 3])
    assert detector.p_value(blank) == 1 and detector.predict(blank) == 1


def test_the_network_counts_by_what_it_leaves_unexplained() -> None:
    """Of columns that follow from each other the smallest parts are surprising; what is noise, no one explains."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    level = np.where(x > 0, "up", "down")
    tied = pd.DataFrame({"a": x, "b": -x, "level": level, "constant": 1.0})
    loose = pd.DataFrame({"a": x, "b": rng.normal(size=400), "level": rng.permutation(level), "constant": 1.0})
    skills = []
    for frame in (tied, loose):
        detector = TabMAEDetector(**QUICK).fit(frame)
        network = detector.members_.network
        assert network is not None
        skills.append(float(network.skill_))
        found = detector.anomaly_score(frame, by_member=True)["network"]
        network.skill_ = torch.zeros(())
        whole = detector.anomaly_score(frame, by_member=True)["network"]
        np.testing.assert_allclose(found, whole * (1 - skills[-1]))
    assert skills[0] > 0.8 and skills[1] < 0.2


def test_the_two_members_that_find_a_row_oddest_judge_it() -> None:
    rows = normal_rows(100)
    normal = TabMAEDetector(members=("distance", "log_distance", "rank_distance")).fit(rows)
    of_members = np.sort(normal.anomaly_score(rows, by_member=True), axis=1)
    np.testing.assert_allclose(of_members[:, -2:].sum(axis=1), normal.anomaly_score(rows))
