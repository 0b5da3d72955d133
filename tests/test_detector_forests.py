"""Claims about the conditional forests of a detector: what surprises them, what they read, and how far they count."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import tabmae
from tabmae import TabMAEDetector
from tabmae.deadline import Deadline
from tabmae.estimators.detector import forests as room
from tabmae.estimators.detector.completion import MAX_COLUMNS
from tabmae.estimators.detector.donors import N_DONORS, Donors
from tabmae.estimators.detector.forests import CellForests
from tabmae.estimators.detector.network import STRANGE
from tabmae.estimators.detector.presence import PRESENCE
from tabmae.estimators.detector.relations import RELATIONS

QUICK: dict[str, Any] = {"max_epochs": 1, "d_token": 4, "random_state": 0}
N_LEVELS = (0, 3, 0)


def cells_of(n_rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a number, a level that follows from it, and a number of its own; all observed."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(n_rows, 2, generator=generator)
    levels = (numbers[:, 0] > -0.5).float() + (numbers[:, 0] > 0.5)
    values = torch.stack([numbers[:, 0], levels, numbers[:, 1]], 1)
    return values, torch.ones_like(values, dtype=torch.bool)


@pytest.fixture(scope="module")
def forests() -> CellForests:
    """Forests of 400 such rows; nothing may change them."""
    return CellForests.fit(cells_of(400), N_LEVELS, seed=0)


def waves(n_rows: int, seed: int) -> NDArray[np.float64]:
    """Draw rows whose second column is a wave of the first."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n_rows)
    return np.stack([x, np.sin(2 * x) + 0.1 * rng.normal(size=n_rows), rng.normal(size=n_rows)], 1)


def test_rows_that_break_a_law_are_found() -> None:
    detector = TabMAEDetector(members=("forests",), random_state=0).fit(waves(500, 0))
    new = waves(300, 1)
    odd = new[np.abs(new[:, 1]) > 0.5] * [1, -1, 1]
    truth = np.r_[np.zeros(len(new)), np.ones(len(odd))]
    assert roc_auc_score(truth, detector.anomaly_score(np.vstack([new, odd]))) > 0.97
    assert (detector.predict(new) == 1).mean() > 0.9


def test_rows_of_fit_are_judged_by_trees_that_did_not_see_them() -> None:
    values, observed = torch.randn(2, 300, 4, generator=torch.Generator().manual_seed(0)), torch.ones(300, 4) > 0
    noise = CellForests.fit((values[0], observed), [0] * 4, seed=0)
    new = noise.surprise(values[1], observed).mean()
    assert float(noise.of_fit.mean()) == pytest.approx(float(new), rel=0.25)
    assert noise.surprise(values[0], observed).mean() < 0.6 * new
    assert noise.skill < 0.05


def test_a_level_that_does_not_go_with_the_others_surprises_and_a_new_one_most(forests: CellForests) -> None:
    values, observed = cells_of(200, seed=1)
    wrong, new = values.clone(), values.clone()
    wrong[:, 1], new[:, 1] = 2 - values[:, 1], 3
    usual, odd, newest = (forests.surprise(rows, observed) for rows in (values, wrong, new))
    changed = values[:, 1] != 1
    assert odd[changed, 1].mean() > usual[:, 1].mean() + 2
    torch.testing.assert_close(newest[:, 1], (STRANGE - forests.usual[1]).expand(200), atol=1e-4, rtol=0)


def test_a_missing_cell_surprises_nobody_and_is_not_read(forests: CellForests) -> None:
    values, observed = cells_of(100, seed=1)
    observed = torch.rand(observed.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    found = forests.surprise(values, observed)
    assert (found[~observed] == 0).all() and (found[observed] > 0).any() and found.isfinite().all()
    for garbage in (7.0, torch.nan):
        assert torch.equal(forests.surprise(torch.where(observed, values, garbage), observed), found)


def test_a_hole_is_filled_without_the_cell_that_is_judged(forests: CellForests) -> None:
    values, observed = cells_of(100, seed=1)
    observed[:, 1] = False
    other = values.clone()
    other[:, 0] = -values[:, 0]
    read = [[part for *_, part in forests._completed(rows, observed, False)] for rows in (values, other)]
    assert torch.equal(read[0][0][:, :, 1:], read[1][0][:, :, 1:])
    assert not torch.equal(read[0][2][:, :, 1:4], read[1][2][:, :, 1:4])


def stays(n_rows: int, seed: int) -> pd.DataFrame:
    """Draw a start, days and the end that follows from both."""
    rng = np.random.default_rng(seed)
    start, days = rng.integers(0, 730, n_rows), 1 + rng.poisson(5, n_rows)
    return pd.DataFrame(
        {"start": start, "days": days, "end": start + days, "cost": days * rng.lognormal(5, 0.3, n_rows)}
    )


def fees(n_rows: int, seed: int) -> pd.DataFrame:
    """Draw an age, its group and the fee of that."""
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 90, n_rows)
    group = (age > 30).astype(int) + (age > 45) + (age > 60) + (age > 75)
    fee = np.array([10.0, 25, 40, 20, 5])[group]
    return pd.DataFrame({"age": age, "group": np.array(list("abcde"))[group], "fee": fee, "z": rng.normal(size=n_rows)})


@pytest.mark.parametrize(("table", "missing"), [(stays, "start"), (stays, "end"), (fees, "group"), (fees, "fee")])
def test_a_hole_is_no_evidence_where_rows_of_fit_had_none(table: Any, missing: str) -> None:
    detector = TabMAEDetector(members=("forests",), random_state=0).fit(table(400, 0))
    new = table(300, 1)
    assert (detector.predict(new.assign(**{missing: None})) == -1).mean() < 0.12


def test_a_broken_law_is_found_beside_a_hole() -> None:
    detector = TabMAEDetector(members=("forests",), random_state=0).fit(fees(400, 0))
    new = fees(200, 1)
    odd = new.assign(fee=new["fee"].map({10.0: 40, 25: 5, 40: 10, 20: 10, 5: 25}))
    truth = np.r_[np.zeros(200), np.ones(200)]
    assert roc_auc_score(truth, detector.anomaly_score(pd.concat([new, odd]).assign(group=None))) > 0.9


def test_rows_without_holes_are_judged_the_same_beside_rows_with_holes(forests: CellForests) -> None:
    values, observed = cells_of(60, seed=1)
    whole = forests.surprise(values, observed)
    some = observed.clone()
    some[::3, 0] = False
    assert torch.equal(forests.surprise(values, some)[some.all(1)], whole[some.all(1)])
    assert not torch.equal(forests.surprise(values, some)[::3, 1:], whole[::3, 1:])


def test_donors_are_near_in_the_observed_cells_and_never_the_row_itself() -> None:
    values, observed = cells_of(300)
    donors = Donors(N_LEVELS, values)
    observed[:, 1:] = False
    completed = donors.complete(torch.where(observed, values, torch.nan), observed)
    assert completed.shape == (N_DONORS, 300, 3) and (completed[:, :, 0] == values[:, 0]).all()
    assert (completed[:, :, 1] == values[:, 1]).float().mean() > 0.95
    is_own = (completed[:, :, 2] == values[:, 2]).any(0)
    assert is_own.all()
    of_others = donors.complete(values, observed, torch.arange(300))
    assert not (of_others[:, :, 2] == values[:, 2]).any()


def test_donors_that_are_equally_near_are_not_those_that_stand_first() -> None:
    values = torch.stack([torch.zeros(400), (torch.arange(400) >= 200).float()], 1)
    observed = torch.tensor([[True, False]])
    completed = Donors([0, 2], values).complete(torch.zeros(1, 2), observed)
    assert set(completed[:, 0, 1].tolist()) == {0, 1}


def test_rows_of_a_batch_do_not_depend_on_each_other(forests: CellForests, monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed = cells_of(60, seed=1)
    observed[::3, 0] = False
    whole = forests.surprise(values, observed)
    alone = [forests.surprise(values[row, None], observed[row, None]) for row in range(60)]
    torch.testing.assert_close(torch.cat(alone), whole, rtol=1e-6, atol=0)
    monkeypatch.setattr(room, "MAX_ROWS_AT_ONCE", 7)
    torch.testing.assert_close(forests.surprise(values, observed), whole, rtol=1e-6, atol=0)


def test_rare_levels_are_judged_as_one() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = (torch.rand(600, generator=generator).square() * 60).floor()
    values = torch.stack([codes, torch.randn(600, generator=generator)], 1)
    grown = CellForests.fit((values, torch.ones_like(values, dtype=torch.bool)), [60, 0], seed=0)
    assert grown.forests[0].value.shape[1] == 21
    probability = grown.forests[0].predict(torch.randn(300, 21, generator=generator))
    assert float(probability[:, -1].mean()) == pytest.approx(float((codes >= 20).float().mean()), abs=0.1)


def test_columns_of_few_cells_have_no_forest_and_tell_nothing() -> None:
    values, observed = cells_of(100)
    observed[15:, 0] = False
    grown = CellForests.fit((values, observed), N_LEVELS, seed=0)
    assert set(grown.forests) == {1, 2} and grown.share == pytest.approx(2 / 3)
    assert (grown.surprise(values, torch.ones_like(observed))[:, 0] == 0).all()


def test_many_rows_and_columns_are_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    values, observed = cells_of(400)
    for name, most, kept in (("MAX_ROWS", 100, 100), ("MAX_CELLS", 5 * 80, 80)):
        monkeypatch.setattr(room, name, most)
        assert len(CellForests.fit((values, observed), N_LEVELS, seed=0).of_fit) == kept


def test_the_limits_of_the_forests_are_the_documented_ones() -> None:
    told = " ".join(str(TabMAEDetector.__doc__).split())
    limits = f"up to {room.MAX_ROWS:,} rows and {room.MAX_CELLS:,} cells of them; a table of more than {MAX_COLUMNS} "
    assert limits in told and f"fewer than {room.LEAST_CELLS} known cells" in told


@pytest.mark.parametrize("too_wide", [True, False])
def test_without_forests_the_network_judges_alone(too_wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is too wide, or there is no time for any."""
    rows = waves(60, 0)
    if too_wide:
        monkeypatch.setattr(room, "MAX_COLUMNS", 2)
    detector = TabMAEDetector(**QUICK, time_budget=None if too_wide else 1e-6).fit(rows)
    grown = detector.members_.forests
    assert grown is not None and not grown.forests and grown.share == 0
    of_members = detector.anomaly_score(rows, by_member=True)
    assert (of_members.pop("forests") == 0).all()
    np.testing.assert_allclose(np.sort(of_members, axis=1)[:, -2:].sum(axis=1), detector.anomaly_score(rows))


def test_as_many_forests_grow_as_there_is_time_for() -> None:
    values, observed = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.ones(60, 6) > 0
    ticks = iter(range(10_000))
    grown = CellForests.fit((values, observed), [0] * 6, 0, Deadline(11.5, clock=lambda: float(next(ticks))))
    assert len(grown.forests) == 3 and grown.surprise(values, observed).isfinite().all()


def test_forests_count_by_what_they_leave_unexplained_and_twice_as_far_as_the_network() -> None:
    detector = TabMAEDetector(**QUICK).fit(waves(200, 0))
    new, members = waves(50, 1), detector.members_
    assert members.forests is not None and members.network is not None
    found, skill = detector.anomaly_score(new, by_member=True), float(members.forests.skill)
    assert 0.1 < skill < 0.6
    mean = (found["network"] + 2 * found["forests"]) / 3
    of_all = np.c_[found.drop(columns=["network", "forests", *RELATIONS, PRESENCE]), mean]
    of_two = np.sort(of_all, axis=1)[:, -2:].sum(axis=1)
    np.testing.assert_allclose(np.maximum(of_two, found["relations"]), detector.anomaly_score(new))
    members.forests.skill = torch.zeros(())
    np.testing.assert_allclose(detector.anomaly_score(new, by_member=True)["forests"] * (1 - skill), found["forests"])


def test_wanted_cells_are_judged_as_among_all(forests: CellForests) -> None:
    values, observed = cells_of(50, seed=1)
    wanted = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = torch.where(wanted, forests.surprise(values, observed), 0)
    torch.testing.assert_close(forests.surprise(values, observed, wanted), expected, rtol=0, atol=0)
    assert (expected > 0).any()


def test_forests_blame_the_cells_that_break_a_curve() -> None:
    odd = waves(300, 1)
    odd = odd[np.abs(odd[:, 1]) > 0.5] * [1, -1, 1]
    odd[:, 2] = np.where(np.arange(len(odd)) % 2, -1.5, 1.5)  # as odd as a column of its own can be, hardly
    shares = []
    for members in (("network",), ("network", "forests")):
        cells = TabMAEDetector(**QUICK, members=members).fit(waves(500, 0)).explain(odd)
        shares.append((cells["contribution"].to_numpy().reshape(odd.shape).argmax(1) < 2).mean())
    assert shares[1] > 0.9 and shares[1] > shares[0] + 0.1


def test_a_column_without_a_forest_is_judged_by_the_others_alone() -> None:
    rows = waves(300, 0)
    rows[12:, 2] = np.nan
    detector = TabMAEDetector(**QUICK, members=("network", "forests")).fit(rows)
    members = detector.members_
    assert members.network is not None and members.linear is not None and members.forests is not None
    assert 2 not in members.forests.forests
    cells = detector._read(waves(20, 1) + np.array([0, 0, 9]))
    others = (members.network.surprise(*cells) + members.linear.surprise(*cells)) / 2
    torch.testing.assert_close(members._surprise(*cells, cells[1])[:, 2], others[:, 2])


def test_held_out_rows_leave_no_trace_in_the_forests(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = waves(200, 0), []
    fit = CellForests.fit

    def watched(learnt: Any, *others: Any) -> CellForests:
        seen.append(learnt[0])
        return fit(learnt, *others)

    monkeypatch.setattr(CellForests, "fit", watched)
    detector = TabMAEDetector(members=("forests",), random_state=0).fit(rows)
    values, observed = detector._read(rows)
    grown = detector.members_.forests
    assert grown is not None and len(seen[0]) == 200 - len(detector.held_out_scores_)
    held_out = ~(values[:, None] == seen[0][None]).all(2).any(1)
    surprise = grown.surprise(values[held_out], observed[held_out]).mean(1)
    np.testing.assert_allclose(detector.members_.evidence["forests"].ranks, surprise.sort().values, rtol=1e-5)


def test_saved_forests_are_the_same_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame(waves(100, 0), columns=list("abc")).assign(k=list("pq") * 50).mask(lambda t: t == 0)
    frame.iloc[::7, 0] = np.nan
    detector = TabMAEDetector(members=("distance", "forests"), random_state=0).fit(frame)
    detector.save(tmp_path / "model")
    np.testing.assert_array_equal(tabmae.load(tmp_path / "model").score_samples(frame), detector.score_samples(frame))
    grown = detector.members_.forests
    assert grown is not None
    state = grown.state()
    for name, tensor in (("0.value", state["0.value"][:, :3]), ("0.left", state["0.left"] * 0)):
        with pytest.raises(ValueError, match="A forest"):
            CellForests.restored(grown.n_levels, {**state, name: tensor})
    with pytest.raises(ValueError, match="Rows that complete others"):
        CellForests.restored(grown.n_levels, {**state, "donors": state["donors"][:, :2]})
