"""Claims about distances to the nearest rows: they are the textbook's, holes are no evidence, copies count once."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from tabmae.experts import neighbours
from tabmae.experts.neighbours import N_NEIGHBOURS, SCALINGS, USUAL_SPACING, Neighbours


def numbers(n_rows: int, seed: int = 0, n_columns: int = 4) -> Tensor:
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed))


def shown(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def standardised(values: Tensor, by: Tensor) -> np.ndarray:
    return ((values - by.mean(0)) / by.std(0, correction=0)).double().numpy()


def test_distances_of_complete_rows_are_those_of_scikit_learn() -> None:
    rows, new = 3 * numbers(300) + 5, 3 * numbers(40, seed=1) + 5
    expert = Neighbours([0] * 4).fit(rows, shown(rows))
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(standardised(rows, rows))
    expected = nearest.kneighbors(standardised(new, rows))[0].mean(1)
    np.testing.assert_allclose(expert.distances(new, shown(new), ["standard"])[:, 0], expected, rtol=1e-5)


def test_a_row_of_fit_gets_its_leave_one_out_distance() -> None:
    rows = numbers(200)
    expert = Neighbours([0] * 4).fit(rows, shown(rows))
    points = standardised(rows, rows)
    expected = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(points).kneighbors()[0].mean(1)
    np.testing.assert_allclose(expert.distances(rows, shown(rows), ["standard"])[:, 0], expected, rtol=1e-5)


def test_relative_distances_are_those_of_scikit_learn_over_the_root_of_the_spacing() -> None:
    rows, new = numbers(300), 2 * numbers(40, seed=1)
    expert = Neighbours([0] * 4).fit(rows, shown(rows))
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBOURS).fit(standardised(rows, rows))
    own = nearest.kneighbors()[0].mean(1)
    distances, places = nearest.kneighbors(standardised(new, rows))
    spacing = own[places].mean(1) + USUAL_SPACING * np.median(own)
    found = expert.relative_distances(new, shown(new), ["standard"])[:, 0]
    np.testing.assert_allclose(found, distances.mean(1) / np.sqrt(spacing), rtol=1e-3)


def test_a_distance_counts_more_beside_a_denser_group() -> None:
    dense, thin = 0.3 * numbers(200, n_columns=2) - 10, numbers(200, seed=1, n_columns=2) + 10
    rows = torch.cat([dense, thin])
    expert = Neighbours([0, 0]).fit(rows, shown(rows))
    new = torch.stack([dense.amax(0) + 2, thin.amax(0) + 2])
    distance, relative = (measure(new, shown(new)) for measure in (expert.distances, expert.relative_distances))
    assert ((relative / distance)[0] > 1.2 * (relative / distance)[1]).all()


def test_few_cells_are_little_evidence() -> None:
    rows = numbers(300)
    expert = Neighbours([0] * 4).fit(rows, shown(rows))
    far, seen = torch.full((1, 4), 6.0), torch.arange(4)[None] < torch.tensor([[4], [1]])
    distance = expert.distances(far.expand(2, 4), seen, ["standard"])[:, 0]
    whole, quarter = expert.relative_distances(far.expand(2, 4), seen, ["standard"])[:, 0]
    assert distance[1] > 0.7 * distance[0] and whole > 1.5 * quarter
    central = expert.relative_distances(torch.zeros(1, 4), seen[1:], ["standard"])
    assert quarter > 2 * central


def test_only_the_spacing_of_learnt_rows_counts() -> None:
    rows, new = numbers(300), numbers(50, seed=1)
    learnt = torch.arange(300) % 5 > 0
    expert = Neighbours([0] * 4).fit(rows[learnt], shown(rows[learnt]))
    spacing = (expert.distances(new, shown(new)) / expert.relative_distances(new, shown(new))).square()
    expert.remember(rows, shown(rows)).learn_spacing(learnt)
    of_all = (expert.distances(new, shown(new)) / expert.relative_distances(new, shown(new))).square()
    torch.testing.assert_close(of_all, spacing)
    assert expert.spacing[:, ~learnt].isnan().all() and expert.spacing[:, learnt].isfinite().all()


def test_copies_of_one_row_are_no_denser_than_half_of_what_is_usual() -> None:
    rows = torch.cat([torch.zeros(300, 1), torch.arange(1.0, 101)[:, None]])
    expert = Neighbours([0]).fit(rows, shown(rows))
    median = expert.spacing[0][expert.spacing[0] > 0].median()
    beside = torch.tensor([[-0.5]])
    distance, relative = (
        found(beside, shown(beside), ["standard"]) for found in (expert.distances, expert.relative_distances)
    )
    torch.testing.assert_close(relative, distance / (USUAL_SPACING * median).sqrt())
    alike = torch.zeros(30, 1)
    copies = Neighbours([0]).fit(alike, shown(alike)).relative_distances(torch.ones(1, 1), torch.ones(1, 1).bool())
    assert copies.isfinite().all()


def test_of_several_copies_one_is_the_row_itself() -> None:
    rows = torch.cat([torch.zeros(3, 1), torch.arange(1.0, 31)[:, None]])
    expert = Neighbours([0]).fit(rows, shown(rows))
    step = 1 / float(rows.std(correction=0))
    found = expert.distances(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), ["standard"])
    assert float(found) == pytest.approx((0 + 0 + 1 + 2 + 3) / 5 * step, rel=1e-5)


def test_each_scaling_is_its_formula() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).lognormal(size=(400, 1))).float()
    expert = Neighbours([0]).fit(rows, shown(rows))
    standard = torch.from_numpy(standardised(rows, rows))
    scaled = {scaling: expert.scaled(rows, scaling)[:, 0] for scaling in SCALINGS}
    torch.testing.assert_close(scaled["log"], (standard.sign() * standard.abs().log1p())[:, 0], atol=1e-5, rtol=1e-5)
    rank = torch.from_numpy(stats.norm.ppf((stats.rankdata(rows[:, 0]) - 0.5) / 400))
    assert (scaled["rank"] - rank).abs().max() < 0.1
    beyond = expert.scaled(torch.stack([rows.max(), rows.max() + 10 * rows.std(correction=0)])[:, None], "rank")
    assert float(beyond.diff(dim=0)) == pytest.approx(10, rel=1e-4)


def test_another_level_is_as_far_as_two_typical_numbers_on_every_scale() -> None:
    rows = torch.cat([numbers(500, n_columns=1), (torch.arange(500)[:, None] % 2).float()], 1)
    expert = Neighbours([0, 2]).fit(rows, shown(rows))
    for scaling in SCALINGS:
        cells = expert._expanded(rows, shown(rows), scaling)
        between = (cells[0, 1:] - cells[1, 1:]).square().sum()
        typical = 2 * expert.scaled(rows, scaling).var(correction=0)
        assert float(between) == pytest.approx(float(typical), rel=0.05)


def test_a_distance_over_fewer_columns_is_scaled_up_to_all_of_them() -> None:
    rows = numbers(50)
    expert = Neighbours([0] * 4).fit(rows, shown(rows))
    seen = torch.tensor([[True, True, False, False]])
    found = expert.distances(rows[:1] + 100, seen, ["standard"])
    points = standardised(rows, rows)[:, :2]
    new = standardised(rows[:1] + 100, rows)[:, :2]
    expected = np.sort(np.sqrt(2 * ((new - points) ** 2).sum(1)))[:N_NEIGHBOURS].mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_completed_cells_are_compared_with_but_a_new_row_keeps_its_holes() -> None:
    rows, seen = numbers(50), torch.rand(50, 4, generator=torch.Generator().manual_seed(2)) < 0.7
    completed = torch.where(seen, rows, 7.0)
    expert = Neighbours([0] * 4).fit(rows, seen, completed)
    whole = Neighbours([0] * 4).fit(rows, seen)
    whole.remember(completed, torch.ones_like(seen))
    new, holes = numbers(20, seed=1), torch.rand(20, 4, generator=torch.Generator().manual_seed(3)) < 0.7
    assert torch.equal(expert.distances(new, holes).nan_to_num(-1), whole.distances(new, holes).nan_to_num(-1))
    again = expert.distances(rows, seen)
    alone = torch.tensor([float(expert.distances(rows[[5]], seen[[5]])[0, k]) for k in range(3)])
    others = [row for row in range(50) if row != 5]
    expert.remember(rows[others], seen[others], completed[others])
    assert torch.equal(expert.distances(rows[[5]], seen[[5]])[0], again[5]) and torch.equal(alone, again[5])


def test_what_lies_beneath_a_hole_changes_nothing() -> None:
    rows, seen = numbers(60), torch.rand(60, 4, generator=torch.Generator().manual_seed(2)) < 0.7
    other = torch.where(seen, rows, 1e6)
    found = [Neighbours([0] * 4).fit(cells, seen).distances(cells, seen) for cells in (rows, other)]
    assert torch.equal(found[0].nan_to_num(-1), found[1].nan_to_num(-1))


def test_a_row_that_shares_no_column_has_no_distance() -> None:
    rows, seen = numbers(30), torch.ones(30, 4, dtype=torch.bool)
    seen[:, 3] = False
    expert = Neighbours([0] * 4).fit(rows, seen)
    asked = torch.tensor([[False, False, False, True], [False] * 4, [True] * 4])
    assert expert.distances(rows[:3], asked).isnan().all(1).tolist() == [True, True, False]
    assert expert.relative_distances(rows[:3], asked).isnan().all(1).tolist() == [True, True, False]


@pytest.mark.parametrize("of_few_values", [False, True])
def test_neither_the_batch_nor_its_size_leaves_a_trace(monkeypatch: pytest.MonkeyPatch, of_few_values: bool) -> None:
    rows, new = numbers(300, n_columns=7), numbers(101, seed=1, n_columns=7)
    if of_few_values:
        rows, new = (rows > 0).float(), (new > 0).float()
    expert = Neighbours([0] * 7).fit(rows, shown(rows))
    for measure in (expert.distances, expert.relative_distances):
        whole = measure(new, shown(new))
        alone = torch.cat([measure(row[None], shown(row[None])) for row in new])
        with monkeypatch.context() as patch:
            patch.setattr(neighbours, "MAX_CHUNK_CELLS", 300 * 9)
            assert torch.equal(whole, alone) and torch.equal(whole, measure(new, shown(new)))


def test_a_large_table_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_REMEMBERED", 100)
    rows = numbers(1001)
    assert len(Neighbours([0] * 4).fit(rows, shown(rows)).values) <= 100


def test_extreme_and_constant_columns_stay_finite() -> None:
    rows = torch.cat([numbers(40, n_columns=2), torch.zeros(40, 1)], 1)
    rows[0, 0], rows[1, 1] = 1e6, -1e6
    expert = Neighbours([0, 0, 0]).fit(rows, shown(rows))
    both = torch.cat([rows, -rows])
    assert expert.distances(both, shown(both)).isfinite().all()
    assert expert.relative_distances(both, shown(both)).isfinite().all()


def test_categories_alone_have_distances() -> None:
    codes = (torch.arange(90)[:, None] % torch.tensor([2, 3])).float()
    codes[0] = torch.tensor([1.0, 2.0])
    expert = Neighbours([2, 3]).fit(codes, shown(codes))
    assert expert.distances(codes, shown(codes)).isfinite().all()


def test_restored_buffers_give_the_same_distances() -> None:
    rows = torch.cat([numbers(80), (torch.arange(80)[:, None] % 3).float()], 1)
    expert = Neighbours([0, 0, 0, 0, 3]).fit(rows, shown(rows))
    other = Neighbours.restored([0, 0, 0, 0, 3], expert.state_dict())
    assert torch.equal(other.distances(rows, shown(rows)), expert.distances(rows, shown(rows)))
    assert torch.equal(other.relative_distances(rows, shown(rows)), expert.relative_distances(rows, shown(rows)))


def test_rare_and_unseen_levels_are_as_far_from_all_as_any_two() -> None:
    codes = torch.arange(200.0).repeat_interleave(2)[:, None]
    expert = Neighbours([200]).fit(codes, shown(codes))
    alone, of_pair = torch.tensor([[200.0], [5_000.0], [150.0]]), torch.tensor([[3.0]])
    apart = 2**0.5 * expert.spread[0]
    torch.testing.assert_close(expert.distances(alone, shown(alone), ["standard"]).double(), apart.expand(3, 1))
    near = expert.distances(of_pair, shown(of_pair), ["standard"]).double()
    assert near < apart - 1e-3
