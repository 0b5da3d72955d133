"""Claims about values that stand where there must be none, as by the skip pattern of a questionnaire."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tabmae
from tabmae import TabMAEDetector
from tabmae.deadline import Deadline
from tabmae.estimators.detector.members import DISTANCES
from tabmae.estimators.detector.presence import PRESENCE, Presence, filled_at_random, rarer

WITHOUT_NETWORK = (*DISTANCES, "forests", PRESENCE)
ALARMS = 0.09
"""Share of 300 normal rows that are called outliers, at most: 5 %, and what few held-out rows may add."""


def answers(n_rows: int, seed: int = 0, lost: float = 0.0) -> pd.DataFrame:
    """Draw answers of people of whom those who smoke say how much, and a share of whose cells is lost."""
    rng = np.random.default_rng(seed)
    smoke = rng.choice(["no", "yes"], n_rows, p=[0.6, 0.4])
    rows = pd.DataFrame({"smoke": smoke, "age": rng.integers(18, 80, n_rows).astype(float)})
    rows["cigarettes"] = np.where(smoke == "yes", rng.poisson(12, n_rows) + 1.0, np.nan)
    rows["lung"] = rng.normal(80, 8, n_rows) - 8 * (smoke == "yes")
    return rows.mask(rng.random(rows.shape) < lost)


def answered_by_others(rows: pd.DataFrame) -> pd.DataFrame:
    """Those who do not smoke, with a number of cigarettes."""
    return rows[rows["smoke"].eq("no") & rows["cigarettes"].isna()].assign(cigarettes=12.0)


def unrelated(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Draw numbers that go together, and levels, of which a fifth is missing at random."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(n_rows, 4)) @ rng.normal(size=(4, 4)), columns=list("abcd"))
    return rows.assign(group=rng.choice(list("uvw"), n_rows)).mask(rng.random((n_rows, 5)) < 0.2)


@pytest.mark.parametrize("lost", [0.0, 0.1])
def test_a_value_where_there_must_be_none_makes_its_row_odd(lost: float) -> None:
    for seed in range(3):
        detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=seed).fit(answers(600, seed, lost))
        new = answers(1000, 100 + seed, lost)
        assert (detector.predict(answered_by_others(new)) == -1).mean() > 0.95
        assert (detector.predict(new) == -1).mean() < 2 * ALARMS
        of_normal = detector.anomaly_score(new, by_member=True)[PRESENCE]
        assert of_normal.eq(0).mean() > 0.998


def test_the_value_is_to_blame_and_not_the_cell_that_rules_it_out() -> None:
    detector = TabMAEDetector(max_epochs=5, d_token=4, random_state=0).fit(answers(600))
    odd = answered_by_others(answers(200, seed=1))
    assert (detector.predict(odd) == -1).mean() > 0.95
    blamed = detector.explain(odd)
    assert set(blamed.loc[blamed.groupby("row")["contribution"].idxmax(), "column"]) == {"cigarettes"}


@pytest.mark.parametrize("seed", range(3))
def test_holes_at_random_change_no_score(seed: int) -> None:
    rows, new = unrelated(400, seed), unrelated(400, 100 + seed)
    without = tuple(name for name in WITHOUT_NETWORK if name != PRESENCE)
    before, after = (TabMAEDetector(members=m, random_state=0).fit(rows) for m in (without, WITHOUT_NETWORK))
    np.testing.assert_array_equal(before.score_samples(new), after.score_samples(new))


def test_a_hole_is_no_evidence_that_a_value_beside_it_must_not_be_there() -> None:
    """Of two columns that were always missing together, either may be lost alone."""
    rows, new = (
        answers(600, seed).assign(years=lambda rows: (rows["age"] - 15).where(rows["cigarettes"].notna()))
        for seed in range(2)
    )
    smokers = new[new["smoke"] == "yes"]
    for columns in (["age", "cigarettes", "years", "lung"], list(rows)):
        detector = TabMAEDetector(members=(PRESENCE,), random_state=0).fit(rows[columns])
        for lost in set(columns) - {"cigarettes"}:
            assert detector.anomaly_score(smokers[columns].assign(**{lost: None})).max() == 0


def test_what_is_missing_is_not_read_and_only_observed_cells_tell() -> None:
    detector = TabMAEDetector(members=(PRESENCE,), random_state=0).fit(answers(600, lost=0.1))
    values, observed = detector._read(pd.concat([answers(300, 1, 0.1), answered_by_others(answers(300, 2, 0.1))]))
    presence = detector.members_.presence
    assert presence is not None
    found = presence.surprise(values, observed)
    assert torch.equal(found, presence.surprise(torch.where(observed, values, 1e6), observed))
    assert found[~observed].eq(0).all() and (found > 0).any()
    alone = torch.cat([presence.surprise(values[[row]], observed[[row]]) for row in range(0, len(values), 10)])
    assert torch.equal(alone, found[::10])


def test_a_level_that_fit_has_not_seen_rules_out_nothing() -> None:
    detector = TabMAEDetector(members=(PRESENCE,), random_state=0).fit(answers(600))
    odd = answered_by_others(answers(100, seed=1))
    assert detector.anomaly_score(odd).min() > 0
    with pytest.warns(UserWarning, match="unseen in fit"):
        assert detector.anomaly_score(odd.assign(smoke="often")).max() == 0


def test_few_such_values_in_fit_do_not_hide_the_others() -> None:
    rows = answers(600)
    rows.loc[rows.index[rows["smoke"] == "no"][:3], "cigarettes"] = 5.0
    detector = TabMAEDetector(members=(PRESENCE,), random_state=0).fit(rows)
    assert detector.anomaly_score(answered_by_others(answers(300, seed=1))).min() > 0


def test_wide_tables_are_learnt_by_the_cells_that_tell_most() -> None:
    rng = np.random.default_rng(0)
    rows, new = (
        pd.concat([answers(600, seed), pd.DataFrame(rng.normal(size=(600, 60))).add_prefix("x")], axis=1)
        for seed in range(2)
    )
    detector = TabMAEDetector(members=(PRESENCE,), random_state=0).fit(rows)
    assert detector.anomaly_score(answered_by_others(new)).min() > 0


def test_false_alarms_are_as_rare_as_promised_where_values_are_ruled_out() -> None:
    rates = []
    for seed in range(40):
        detector = TabMAEDetector(members=(*DISTANCES, PRESENCE), random_state=seed).fit(answers(495, seed, 0.1))
        p = detector.p_value(answers(500, 1_000 + seed, 0.1))
        rates.append([(p <= alpha).mean() for alpha in (0.01, 0.05, 0.2)])
    assert np.mean(rates, axis=0) == pytest.approx([0.01, 0.05, 0.2], abs=0.012)


def test_a_loaded_detector_rules_out_the_same_values(tmp_path: Path) -> None:
    detector = TabMAEDetector(members=WITHOUT_NETWORK, random_state=0).fit(answers(300, lost=0.1))
    detector.save(tmp_path / "model")
    new = pd.concat([answers(100, 1, 0.1), answered_by_others(answers(100, 2, 0.1))])
    loaded = tabmae.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.anomaly_score(new), detector.anomaly_score(new))
    assert loaded.anomaly_score(new, by_member=True)[PRESENCE].max() > 0


def test_rows_that_lack_a_cell_for_sure_are_counted_with_those_that_have_it() -> None:
    likely = torch.tensor([0.0] * 100 + [0.04] * 100 + [0.9] * 200)
    present = likely > 0.5
    assert rarer(likely, present).exp().tolist() == pytest.approx([0.5 * 201] * 5)
    present[100:150] = True
    assert rarer(likely, present).exp().tolist() == pytest.approx([0.625 * 101] * 3 + [1] * 2)
    present[:10] = True
    assert rarer(likely, present).eq(0).all()


def test_holes_are_filled_with_cells_of_their_column_and_half() -> None:
    generator = torch.Generator().manual_seed(0)
    half = 1 + torch.arange(100) % 2
    values = torch.arange(100.0)[:, None] + torch.tensor([0, 1000.0])
    observed = torch.rand(100, 2, generator=generator) < 0.5
    whole = filled_at_random(torch.where(observed, values, torch.nan), observed, half, generator)
    assert torch.equal(whole[observed], values[observed])
    for column in range(2):
        rows = (whole[:, column] - 1000 * column).long()
        assert observed[rows, column].all() and torch.equal(half[rows], half)


def test_nothing_is_learnt_after_the_deadline() -> None:
    values = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    observed = torch.stack([torch.ones(400, dtype=torch.bool), values[:, 0] > 0], 1)
    assert list(Presence.fit((values, observed), [0, 0], 0).forests) == [1]
    assert not Presence.fit((values, observed), [0, 0], 0, Deadline(0.0)).forests
