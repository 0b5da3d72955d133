"""Which remembered rows may be copied: the nearest of many, and those of the same rare value."""

import pytest
import torch

from tabmae.experts.candidates import FEW_VALUES, HEAPS, N_CANDIDATES, Ties, nearest, repeats


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_rows", [50, 300, 1_000, 1_024, 5_003])
def test_the_nearest_of_many_are_the_least_of_their_heaps(n_rows: int) -> None:
    distance = torch.randn(40, n_rows, generator=seeded())
    found, n_near = nearest(distance, 8), 8
    assert all(len(set(row)) == n_near for row in found.tolist()) and int(found.max()) < n_rows
    assert (found == distance.argmin(1, keepdim=True)).any(1).all()
    held, n_heaps = distance.gather(1, found), HEAPS * n_near
    if n_rows < 2 * n_heaps:
        assert torch.equal(held.sort(1).values, distance.topk(n_near, 1, largest=False).values.sort(1).values)
        return
    padded = torch.nn.functional.pad(distance, (0, -n_rows % n_heaps), value=torch.inf)
    least = padded.view(40, -1, n_heaps).amin(1)
    assert torch.equal(held, least.gather(1, found % n_heaps))
    assert torch.equal(held.sort(1).values, least.topk(n_near, 1, largest=False).values.sort(1).values)


def test_ties_count_the_observed_rows_of_a_value() -> None:
    values = torch.tensor([2.0, 1.0, 2.0, 0.5, 2.0])
    ties = Ties.of(values, torch.tensor([True, True, True, True, False]))
    start, count = ties.counts(torch.tensor([2.0, 1.0, 3.0]))
    assert count.tolist() == [2, 1, 0] and sorted(ties.rows[start[0] : start[0] + 2].tolist()) == [0, 2]
    assert ties.frequency(torch.tensor([2.0, 1.0])).tolist() == [0.5, 0.25]


def test_rows_of_the_same_rare_value_are_drawn_near_and_those_of_a_frequent_one_are_not() -> None:
    values = torch.cat([torch.zeros(N_CANDIDATES + 1), torch.tensor([1.0, 1.0, 2.0])])
    ties = Ties.of(values, torch.ones(len(values), dtype=torch.bool))
    distance, asked = torch.zeros(4, len(values)), torch.tensor([1.0, 0.0, 2.0, 7.0])
    told = torch.tensor([True, True, False, True])
    ties.draw_near(distance, asked, told, same=torch.tensor(0.9), anew=torch.tensor(0.1))
    assert torch.equal(distance < 0, (values == 1) & (asked == 1)[:, None])
    nats = torch.tensor(0.9 * len(values) / 2 + 0.1).log()
    torch.testing.assert_close(distance[0, -3:-1], -nats.expand(2))


def test_a_column_repeats_where_it_has_many_values_and_these_come_again() -> None:
    many = torch.arange(2 * FEW_VALUES)
    assert repeats(many.repeat(2)) and not repeats(many) and not repeats(many.remainder(FEW_VALUES).repeat(4))
    assert not repeats(torch.zeros(0))
