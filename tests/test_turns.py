"""Turns in which missing cells are drawn: by chance, questions that depend on an answer last."""

import pytest
import torch

from tabmae.estimators.table.turns import MAX_TURNS, asked_of_some, turns
from tabmae.tokenizers import CellTokenizer


def table(n_rows: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Give a number, a level, a number only rows of that level have, and one that is missing at random."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n_rows, 4, generator=generator)
    values[:, 1] = (torch.rand(n_rows, generator=generator) < 0.3).float()
    observed = torch.rand(n_rows, 4, generator=generator) < 0.8
    observed[:, 2] &= values[:, 1] == 1
    return values, observed


def test_a_column_is_asked_of_some_where_another_tells_whether_it_is_observed() -> None:
    values, observed = table()
    tokenizer = CellTokenizer.fit(values, observed, [0, 2, 0, 0], d_token=4)
    assert asked_of_some(tokenizer, values, observed).tolist() == [False, False, True, False]
    hidden = torch.where(observed, values, torch.nan)
    assert asked_of_some(tokenizer, hidden, observed).tolist() == [False, False, True, False]


def test_without_holes_no_column_is_asked_of_some() -> None:
    values, _ = table()
    whole = torch.ones_like(values, dtype=torch.bool)
    assert not asked_of_some(CellTokenizer.fit(values, whole, [0, 2, 0, 0], d_token=4), values, whole).any()


@pytest.mark.parametrize("n_missing", [1, 3, 4, 7])
def test_columns_that_are_asked_of_some_come_after_the_others(n_missing: int) -> None:
    missing = torch.zeros(500, 7, dtype=torch.bool)
    missing[:, :n_missing] = True
    last = torch.tensor([True, *[False] * 6])
    turn = turns(missing, last, torch.Generator().manual_seed(0))
    assert (turn[:, 0] == turn[:, :n_missing].amax(1)).all()
    assert turn[missing].min() == 0 and turn[missing].max() == min(n_missing, MAX_TURNS) - 1
    if n_missing > 2:
        assert 0.3 < (turn[:, 1] < turn[:, 2]).double().mean() + 0.5 * (turn[:, 1] == turn[:, 2]).double().mean() < 0.7
