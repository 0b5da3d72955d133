"""The rows that validate a fit: asked once, and what is kept of them is what the model would answer now."""

from itertools import chain
from typing import Any

import pytest
import torch
from ensembles import build, seeded, table
from torch import Tensor

from tabmae.estimators import validation
from tabmae.estimators.growing import grow_trees
from tabmae.estimators.members import modelled_levels, weigh_members
from tabmae.estimators.validation import Validation, answered, judged
from tabmae.experts.copies import Copies
from tabmae.model import Batch, MaskedAutoencoder
from tabmae.tokenizers import CellDistribution

WIDE = pytest.mark.parametrize("wide", [False, True], ids=["kept", "too wide to be kept"])


def trained(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[MaskedAutoencoder, Validation, tuple[Tensor, Tensor, Tensor]]:
    """Give a model with copies and trees whose members are weighed."""
    if wide:
        monkeypatch.setattr(validation, "rows_that_weigh", lambda _: 20)
    monkeypatch.setattr(validation, "rows_at_once", lambda _: 17)
    values, observed, folds = table()
    model = build(values, observed & (folds == 0))
    rows = Validation(model, values, observed, folds)
    weigh_members(model, rows)
    copies = Copies(modelled_levels(model))
    copies.fit(values, observed & (folds == 0))
    model.set_copies(copies)
    weigh_members(model, rows)
    grow_trees(model, values, observed, folds, rows, seeded(3))
    assert len(model.sweeps) == 1 and model.copies is not None
    return model, rows, (values, observed, folds)


@WIDE
def test_what_is_kept_is_what_the_model_answers(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows, cells = trained(wide, monkeypatch)
    assert bool(rows.n_asked_again) == wide

    def answer(batch: Batch, found: CellDistribution, at: slice) -> tuple[Tensor, ...]:
        return torch.arange(90)[at], batch.values, found.mean, found.log_levels, found.quantile(0.3)

    for (part, told), whole in zip(
        rows.answered(lambda _, *given: answer(*given), 50), judged(*cells, 50), strict=True
    ):
        assert part.fold == whole.fold and torch.equal(part.values, whole.values)
        asked = answered(model, whole.values, whole.visible, answer, whole.fold)
        assert len(told) == len(asked) > 1
        for one, other in zip(chain(*told), chain(*asked), strict=True):
            torch.testing.assert_close(one, other)


@WIDE
def test_network_copies_and_trees_are_asked_once_of_rows_that_are_kept(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"network": 0, "copies": 0, "trees": 0}

    def spy(kind: type, name: str, of: str) -> None:
        ask = getattr(kind, name)

        def spied(self: Any, *given: Any, **named: Any) -> Any:
            asked[of] += of != "trees" or len(self.sweeps)
            return ask(self, *given, **named)

        monkeypatch.setattr(kind, name, spied)

    spy(MaskedAutoencoder, "begin", "network")
    spy(Copies, "predict", "copies")
    spy(MaskedAutoencoder, "ask_trees", "trees")
    _, rows, _ = trained(wide, monkeypatch)
    n_batches = sum(-(-len(part.values) // 17) for part in rows.parts)
    before = dict(asked)
    list(rows.answered(lambda *_: None, 50))
    again = {of: n - before[of] for of, n in asked.items()}
    if wide:
        assert again["network"] == again["copies"] > n_batches and again["trees"] > 0
    else:
        assert set(again.values()) == {0} and before["trees"] == 2
    by_growth = before["network"] - n_batches
    assert before["copies"] - by_growth == n_batches, "copies are asked of the rows that weigh once"


def test_rows_that_come_after_are_not_kept() -> None:
    values, observed, folds = table()
    model = build(values, observed & (folds == 0))
    rows = Validation(model, values, observed, torch.zeros_like(folds))
    assert (
        not rows.parts and not rows.n_weighing and not rows.n_asked_again and not list(rows.answered(lambda *_: 0, 10))
    )
