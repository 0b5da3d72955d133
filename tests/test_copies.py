"""Rows as imperfect copies of others: whom they copy, how closely, and what is left to others."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import tabmae
from tabmae import TabMAE, TabMAEDetector
from tabmae.estimators import growing
from tabmae.experts import copies as room
from tabmae.experts.copies import Copies


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grouped(n_groups: int = 60, n_each: int = 4, n_columns: int = 8, noise: float = 0.1) -> Tensor:
    """Rows of groups that lie about their group, in standard deviations."""
    centres = torch.randn(n_groups, n_columns, generator=seeded())
    rows = centres.repeat(n_each, 1)
    return rows + noise * torch.randn(rows.shape, generator=seeded(1))


def holes(rows: Tensor, share: float = 0.3, seed: int = 2) -> Tensor:
    """Which cells are observed."""
    return torch.rand(rows.shape, generator=seeded(seed)) >= share


def test_a_missing_cell_is_that_of_the_rows_that_the_others_copy() -> None:
    rows = grouped()
    known = holes(rows)
    found = Copies([0] * 8).fit(rows, known).predict(rows, known)
    error = (found.numbers - rows)[~known]
    assert error.abs().median() < 0.2 and error.square().mean().sqrt() < 0.5
    assert found.shares[~known].mean() > 0.7


def test_rows_that_copy_none_are_left_to_others() -> None:
    rows = torch.randn(300, 8, generator=seeded(9))
    copies = Copies([0] * 8).fit(grouped(), torch.ones(240, 8, dtype=torch.bool))
    assert (
        copies.predict(rows, holes(rows)).shares.mean()
        < 0.1
        < copies.predict(grouped(), holes(rows[:240])).shares.mean()
    )


def test_the_width_of_a_column_is_the_error_of_its_copies_and_a_column_drawn_anew_is_not_copied() -> None:
    rows = grouped(200, 2, 6, 0.0)
    rows[:, 1] += 0.2 * torch.randn(400, generator=seeded(3))
    rows[:, 2] = torch.randn(400, generator=seeded(4))
    copies = Copies([0] * 6).fit(rows, torch.ones_like(rows, dtype=torch.bool))
    # Two rows of a pair differ by the root of two times their noise.
    assert copies.width[1].item() == pytest.approx(0.2 * 2**0.5, rel=0.15)
    assert ((copies.width < 0.03) | (copies.equal > 0.95))[[0, 3, 4, 5]].all() and (
        copies.copied[[0, 1, 3, 4, 5]] > 0.95
    ).all()
    assert copies.copied[2] < 0.4 and copies.width[2] > 0.6


def test_levels_are_copied_by_how_rare_what_is_shared_is() -> None:
    group = torch.arange(200) % 50
    rows = torch.stack([group, group % 3, (group * 7) % 5], 1).float()
    known = torch.ones_like(rows, dtype=torch.bool)
    copies = Copies([50, 3, 5]).fit(rows, known)
    asked = known.clone()
    asked[:, 2] = False
    found = copies.predict(rows, asked)
    assert (found.levels[:, 2].argmax(1) == rows[:, 2]).all()
    assert found.shares[:, 2].min() > 0.7
    torch.testing.assert_close(found.levels[:, 2].sum(1), found.shares[:, 2])
    asked[:, 0] = False  # which of three, that many share, tells next to nothing
    assert copies.predict(rows, asked).shares[:, 2].mean() < 0.5


def test_a_value_that_many_rows_have_tells_little() -> None:
    rows = grouped(noise=0.0)
    rows[:, :4] = torch.where(torch.rand(240, 4, generator=seeded(5)) < 0.9, 0.0, rows[:, :4])
    copies = Copies([0] * 8).fit(rows, torch.ones_like(rows, dtype=torch.bool))
    only_common = torch.zeros(240, 8, dtype=torch.bool)
    only_common[:, :4] = rows[:, :4] == 0
    assert copies.predict(rows, only_common).shares[only_common.sum(1) == 4].mean() < 0.3


def test_a_value_far_out_makes_no_copy_of_the_outermost_row() -> None:
    rows = torch.randn(500, 6, generator=seeded())
    copies = Copies([0] * 6).fit(rows, torch.ones_like(rows, dtype=torch.bool))
    far, asked = torch.randn(200, 6, generator=seeded(5)), torch.ones(200, 6, dtype=torch.bool)
    asked[:, 5] = False
    usual = copies.predict(far, asked).shares[:, 5].mean()
    far[:, 0] = 8.0
    assert copies.predict(far, asked).shares[:, 5].mean() < usual


def test_no_invisible_cell_is_read() -> None:
    rows = torch.cat([grouped(), (torch.arange(240) % 60 % 4)[:, None].float()], 1)
    known, asked = holes(rows), holes(rows, seed=6)
    plain = Copies([0] * 8 + [4]).fit(rows, known)
    spoilt = Copies([0] * 8 + [4]).fit(torch.where(known, rows, torch.nan), known)
    for one, other in zip(
        plain.predict(rows, asked), spoilt.predict(torch.where(asked, rows, 1e6), asked), strict=True
    ):
        assert torch.equal(one, other)


def test_a_row_is_answered_alike_alone_and_among_others() -> None:
    rows = grouped()
    known = holes(rows)
    copies = Copies([0] * 8).fit(rows, known)
    whole = copies.predict(rows, known)
    for row in (0, 17, 239):
        for one, all_rows in zip(copies.predict(rows[row : row + 1], known[row : row + 1]), whole, strict=True):
            assert torch.equal(one[0], all_rows[row])


def test_other_rows_are_copied_as_it_was_learnt() -> None:
    rows, others = grouped(), grouped(30)[:90] + 5
    known = torch.ones_like(rows, dtype=torch.bool)
    copies = Copies([0] * 8).fit(rows, known)
    width = copies.width.clone()
    copies.remember(others, known[:90])
    asked = known[:30].clone()
    asked[:, 3] = False
    assert torch.equal(copies.width, width)
    assert (copies.predict(others[:30], asked).numbers - others[:30])[:, 3].abs().max() < 0.5


def test_a_state_is_taken_up() -> None:
    rows = torch.cat([grouped(), (torch.arange(240) % 60 % 4)[:, None].float()], 1)
    known = holes(rows)
    copies = Copies([0] * 8 + [4]).fit(rows, known)
    other = Copies.restored([0] * 8 + [4], len(copies.values))
    other.load_state_dict(copies.state_dict())
    for one, same in zip(copies.predict(rows, known), other.predict(rows, known), strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_rows_of_levels_that_there_are_not_are_refused(wrong: float) -> None:
    copies = Copies([0, 3]).fit(torch.tensor([[0.5, 2.0], [0.1, 1.0]]), torch.ones(2, 2, dtype=torch.bool))
    copies.check()
    copies.values[0, 1] = wrong
    with pytest.raises(ValueError, match="must hold levels of their columns"):
        copies.check()


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_few_rows_and_columns_that_nobody_knows_leave_the_cell_to_others(n_rows: int) -> None:
    rows, known = torch.randn(n_rows, 4, generator=seeded()), torch.ones(n_rows, 4, dtype=torch.bool)
    known[:, 2] = False
    found = Copies([0, 0, 0, 3]).fit(rows.abs(), known).predict(rows, torch.zeros_like(known))
    assert torch.isfinite(found.numbers).all() and torch.isfinite(found.levels).all()
    assert not found.shares[:, 2].any() and (found.shares <= 1).all()


def frame(rows: Tensor, seed: int = 7) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table of groups with a category, and the same with holes."""
    complete = pd.DataFrame(rows.numpy().astype(float)).add_prefix("x")
    complete["town"] = pd.Categorical.from_codes((np.arange(len(rows)) * 7 % 60) % 5, list("abcde"))
    return complete, complete.mask(np.random.default_rng(seed).random(complete.shape) < 0.3)


def error(complete: pd.DataFrame, table: pd.DataFrame, filled: pd.DataFrame) -> float:
    numbers = complete.columns[:-1]
    hidden = table[numbers].isna()
    return float(((filled[numbers] - complete[numbers]) ** 2)[hidden].stack().mean() ** 0.5)


QUICK: dict[str, Any] = {"max_epochs": 10, "random_state": 0}


def test_rows_of_one_thing_tell_each_other() -> None:
    complete, table = frame(grouped())
    model = TabMAE(**QUICK).fit(table)
    without = TabMAE(experts=("gaussian", "trees"), **QUICK).fit(table)
    assert error(complete, table, model.transform(table)) < 0.7 * error(complete, table, without.transform(table))
    assert (model.quality_.loc["x0":"x7", "weight_copies"] > 0.4).all()
    weights = model.quality_.filter(like="weight_")
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert not without.quality_["weight_copies"].any()
    town = model.predict_proba(table, "town")
    hidden = table["town"].isna().to_numpy()
    assert (town.idxmax(axis=1) == complete["town"].astype(str))[hidden].mean() > 0.8


def test_rows_that_have_nothing_to_do_with_each_other_are_not_kept() -> None:
    _, table = frame(torch.randn(1500, 8, generator=seeded()))
    model = TabMAE(experts=("gaussian", "copies"), **QUICK).fit(table)
    assert model.model_.copies is None and not model.quality_["weight_copies"].any()


def test_held_out_cells_are_judged_before_they_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = []
    remember = Copies.remember

    def spied(self: Copies, values: Tensor, observed: Tensor) -> Copies:
        remembered.append(int(observed.sum()))
        return remember(self, values, observed)

    monkeypatch.setattr(Copies, "remember", spied)
    _, table = frame(grouped())
    TabMAE(**QUICK).fit(table)
    first, last = remembered
    assert last == int(table.notna().to_numpy().sum()) and first == pytest.approx(0.9 * last, rel=0.03)


def test_a_folder_keeps_the_copied_rows(tmp_path: Path) -> None:
    _, table = frame(grouped())
    model = TabMAE(**QUICK).fit(table)
    model.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.transform(table), model.transform(table))
    pd.testing.assert_frame_equal(loaded.quality_, model.quality_)


def test_many_rows_are_remembered_by_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_REMEMBERED", 100)
    _, table = frame(grouped())
    model = TabMAE(**QUICK).fit(table)
    assert model.model_.copies is not None and len(model.model_.copies.values) == 100


def test_a_row_is_no_copy_of_itself() -> None:
    rows = torch.cat([torch.randn(300, 6, generator=seeded()), (torch.arange(300) % 7)[:, None].float()], 1)
    known = holes(rows, 0.1)
    copies = Copies([0] * 6 + [5]).fit(rows, known)  # two of seven levels are not told apart
    asked = known.clone()
    asked[:, 0] = False
    hidden = known[:, 0]
    alone, itself = (copies.predict(rows, asked, learnt).shares[hidden, 0].mean() for learnt in (asked, None))
    assert alone < 0.7 * itself
    others = torch.randn(300, 7, generator=seeded(1)).abs()
    for one, same in zip(copies.predict(others, asked, asked), copies.predict(others, asked), strict=True):
        assert torch.equal(one, same)
    twice = Copies([0] * 6 + [5]).fit(rows.repeat(2, 1), known.repeat(2, 1))  # what equals it may be another
    assert twice.predict(rows, asked, asked).shares[hidden, 0].mean() > 0.9


def test_levels_that_share_a_probability_are_told_apart_as_names() -> None:
    rows = torch.stack([torch.arange(200) % 40, torch.arange(200) % 40 % 9], 1).float()
    known = torch.ones_like(rows, dtype=torch.bool)
    copies = Copies([31, 9]).fit(rows, known)
    asked = known.clone()
    asked[:, 1] = False
    found = copies.predict(rows, asked)
    assert (found.levels[:, 1].argmax(1) == rows[:, 1]).all() and found.shares[:, 1].min() > 0.9
    asked[:, 0], asked[:, 1] = False, True
    torch.testing.assert_close(
        copies.predict(rows, asked).levels[:, 0].sum(1), copies.predict(rows, asked).shares[:, 0]
    )


def test_one_row_does_not_learn_by_itself_how_it_is_copied() -> None:
    copies = Copies([0, 0]).fit(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    assert torch.equal(copies.width, Copies([0, 0]).width) and torch.equal(copies.copied, Copies([0, 0]).copied)


def test_many_levels_take_no_more_room() -> None:
    assert Copies([0] * 5).most_rows() == room.MAX_REMEMBERED
    copies = Copies([257] * 20)
    assert 1000 < copies.most_rows() < 2000
    assert Copies([0] * 3000).most_rows() == room.MAX_REMEMBERED_CELLS // 3000


def test_an_observed_cell_is_told_by_other_rows_not_by_its_own() -> None:
    complete, table = frame(torch.randn(240, 8, generator=seeded()) + 0.1 * grouped())
    model = TabMAE(**QUICK).fit(pd.concat([table, table.iloc[:0]]))
    values, observed = map(torch.from_numpy, model.schema_.encode(table))
    copies = Copies([0] * 8 + [5]).fit(values, observed)
    model.model_.set_copies(None)
    model.model_.set_copies(copies)
    model.model_.number_weights[:, :, :5], model.model_.number_weights[:, :, 5] = 0, 1
    model.model_.level_weights[:, :, :4], model.model_.level_weights[:, :, 4] = 0, 1
    known = table.notna().to_numpy()
    told = model.reconstruct(table).iloc[:, :-1].to_numpy()
    assert np.abs(told - complete.iloc[:, :-1].to_numpy())[known[:, :-1]].mean() > 0.5
    proba = model.predict_proba(table, "town").idxmax(axis=1)
    assert (proba == complete["town"].astype(str))[known[:, -1]].mean() < 0.6
    assert model.score(table) < -0.5


def test_rows_of_fit_are_completed_for_trees_without_their_own_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    predict = Copies.predict

    def spied(self: Copies, values: Tensor, visible: Tensor, learnt: Tensor | None = None) -> Any:
        asked.append(learnt is not None)
        return predict(self, values, visible, learnt)

    monkeypatch.setattr(Copies, "predict", spied)
    _, table = frame(grouped())
    TabMAE(**QUICK).fit(table)
    assert sum(asked) >= growing.N_GROUPS


def test_a_detector_takes_over_a_model_with_copied_rows_and_leaves_them() -> None:
    _, table = frame(grouped())
    model = TabMAE(**QUICK).fit(table)
    assert model.model_.copies is not None
    detector = TabMAEDetector(pretrained=model, members=("network",), random_state=0).fit(table)
    assert np.isfinite(detector.anomaly_score(table)).all()
    assert model.model_.copies is not None and model.model_.number_weights.shape[2] == 6


def test_a_detector_that_has_copied_rows_finds_cells_that_are_not_their_own_rows() -> None:
    _, table = frame(grouped(noise=0.3))
    detector = TabMAEDetector(experts=("gaussian", "copies"), members=("network",), **QUICK).fit(table)
    network = detector.members_.network
    assert network is not None and network.model_.copies is not None
    assert network.spread_[:8].min() > 0.1


def test_candidates_are_enough_to_find_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = grouped(200, 2, 8, 0.05)
    known = holes(rows)
    few = Copies([0] * 8).fit(rows, known).predict(rows, known)
    monkeypatch.setattr(room, "N_CANDIDATES", 10**6)
    every = Copies([0] * 8).fit(rows, known).predict(rows, known)
    hidden = ~known
    errors = [(found.numbers - rows)[hidden].square().mean().sqrt() for found in (few, every)]
    assert errors[0] < 1.05 * errors[1]


def visits(n_persons: int = 300, n_each: int = 5, seed: int = 0) -> Tensor:
    """Rows of persons: a whole number that names them, a year of birth, one of two levels, and a reading of the day."""
    person = torch.arange(n_persons).repeat_interleave(n_each)
    born = torch.randint(1930, 2000, (n_persons,), generator=seeded(seed))[person]
    day = torch.randn(len(person), generator=seeded(seed + 1))
    rows = torch.stack([person, born, torch.randint(2, (n_persons,), generator=seeded(seed + 2))[person], day], 1)
    return torch.where(torch.tensor([True, True, False, False]), (rows - rows.mean(0)) / rows.std(0), rows)


def of_the_name_alone(rows: Tensor) -> Tensor:
    """The visible cells of rows that show the name of a person, and nothing else."""
    return torch.zeros_like(rows, dtype=torch.bool).index_fill(1, torch.tensor([0]), True)


@pytest.mark.parametrize("named_by", ["number", "levels"])
def test_rows_of_one_name_tell_each_other_and_those_of_the_next_number_do_not(named_by: str) -> None:
    rows = visits()
    if named_by == "levels":
        rows[:, 0] = torch.arange(len(rows)) // 5
    known = torch.ones_like(rows, dtype=torch.bool)
    known[::5, 1:3] = False
    copies = Copies([0 if named_by == "number" else 257, 0, 2, 0]).fit(rows, known)
    found = copies.predict(rows[::5], of_the_name_alone(rows[::5]))
    assert (found.numbers / found.shares[:, copies.numbers] - rows[::5, copies.numbers])[:, -2].abs().max() < 0.02
    assert (found.levels[:, -1].argmax(1) == rows[::5, 2]).all()
    assert found.shares[:, 1].min() > 0.95 and found.variance[:, -2].max() < 0.05
    assert found.variance[:, -1].median() > 0.5  # no two days are alike


def test_a_stranger_copies_none_of_the_rows_of_persons() -> None:
    rows = visits()
    known = torch.ones_like(rows, dtype=torch.bool)
    copies = Copies([0, 0, 2, 0]).fit(rows[:1000], known[:1000])
    assert copies.none < 0.05
    asked = known[1000:].clone()
    asked[:, 2] = False
    assert copies.predict(rows[1000:], asked).shares[:, 2].median() < 0.2
    assert copies.predict(rows[:1000], asked.repeat(2, 1)).shares[:, 2].min() > 0.95


def test_a_person_whose_rows_do_not_say_it_is_left_to_others() -> None:
    rows = visits()
    known = torch.ones_like(rows, dtype=torch.bool)
    known[:100, 2] = False
    copies = Copies([0, 0, 2, 0]).fit(rows, known)
    found = copies.predict(rows[:100], known[:100]).shares[:, 2]
    assert found.median() < 0.2


def test_a_number_that_rows_do_not_share_is_left_to_others() -> None:
    rows = visits()
    copies = Copies([0, 0, 2, 0]).fit(rows, torch.ones_like(rows, dtype=torch.bool))
    found = copies.predict(rows, of_the_name_alone(rows))
    assert found.shares[:, 3].max() <= copies.copied[3] < 0.5


def test_equal_numbers_count_only_where_they_repeat() -> None:
    rows = visits()
    copies = Copies([0, 0, 2, 0]).fit(rows, torch.ones_like(rows, dtype=torch.bool))
    assert (copies.equal[:2] > 0.95).all() and not copies.equal[2:].any()


def test_a_number_is_the_very_same_where_the_rows_of_a_name_agree() -> None:
    rows = visits()
    known = torch.ones_like(rows, dtype=torch.bool)
    known[::5, 1] = False
    known[1:6, 1] = False
    copies = Copies([0, 0, 2, 0]).fit(rows, known)
    found = copies.predict(rows[::5], of_the_name_alone(rows[::5]))
    place = copies.numbers.index(1)
    assert torch.equal(found.same[1:, place], rows[5::5, 1]) and found.likely[2:, place].min() > 0.9
    assert found.likely[0, place] < 0.2, "no row of the first person tells it"
    assert not found.likely[:, copies.numbers.index(3)].any()
    rows[torch.arange(1500) % 5 > 2, 1] += 0.5  # two of four rows say something else
    parted = Copies([0, 0, 2, 0]).fit(rows, known).predict(rows[10::5], of_the_name_alone(rows[10::5]))
    assert parted.likely[:, place].max() < 0.9
