"""The held-out cells that judge a fit, and what the model answers for them.

Contract: a held-out cell is judged by trees that never saw it, and by a network and an expert that never saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from tabmae.experts.copies import Copies
from tabmae.model import Batch, MaskedAutoencoder, Members
from tabmae.threads import n_threads, shared_out
from tabmae.tokenizers import CellDistribution

Answer = TypeVar("Answer")

MAX_JUDGED_ROWS = 5_000
MAX_WEIGHED_OUTPUTS = 10_000_000
"""Rows that judge the members and calibrate, and their outputs when the members are weighed."""
MAX_BATCH_OUTPUTS = 2_000_000
"""Outputs (bins of numbers, levels of categories) predicted at once: some hundred megabytes with all between."""
BATCHES_AT_ONCE = 8
"""Batches at hand, in all threads together: of those of a thread a forest is asked at once, while its nodes are at
hand; what is kept of them is some hundred megabytes more."""
ROWS_OF_THREAD = 500
"""Rows that a thread of its own is worth."""


class Judged(NamedTuple):
    """Rows with held-out cells of one fold, as they are judged: values, visible cells, held-out cells, the fold."""

    values: Tensor
    visible: Tensor
    held_out: Tensor
    fold: int


def split_held_out(held_out: Tensor, generator: torch.Generator) -> Tensor:
    """Folds of the held-out cells, int8 (n, F): 1 or 2 by halves, 0 where not held out."""
    second = torch.rand(held_out.shape, generator=generator, device=held_out.device) < 0.5
    return held_out.to(torch.int8) * (1 + second.to(torch.int8))


def judged(values: Tensor, observed: Tensor, folds: Tensor, most: int = MAX_JUDGED_ROWS) -> Iterator[Judged]:
    """Both folds in turn, each thinned to `most` rows; a fold's cells alone are hidden when it is judged."""
    for fold in (1, 2):
        cells = folds == fold
        rows = torch.nonzero(cells.any(1))[:, 0]
        rows = rows[:: max(1, -(-len(rows) // most))]
        yield Judged(values[rows], (observed & ~cells)[rows], cells[rows], fold)


def rows_at_once(model: MaskedAutoencoder) -> int:
    """Rows of a batch of predictions."""
    return max(1, MAX_BATCH_OUTPUTS // model.tokenizer.n_outputs)


def rows_that_weigh(model: MaskedAutoencoder) -> int:
    """Rows of each fold by which members are weighed, at most."""
    return max(1, min(MAX_JUDGED_ROWS, MAX_WEIGHED_OUTPUTS // model.tokenizer.n_outputs // 2))


def answered(
    model: MaskedAutoencoder,
    values: Tensor,
    visible: Tensor,
    answer: Callable[[Batch, CellDistribution, slice], Answer],
    fold: int = 0,
    learnt: Tensor | None = None,
    in_turn: bool = False,
) -> list[Answer]:
    """What `answer` says of each batch of rows, of the distribution of its cells, and of which rows of all it has.

    On the CPU, threads share the batches out. Each forest is asked for many batches at once.

    Parameters
    ----------
    values : (n, F); visible : bool (n, F), on any device; batches travel to the model's.
    fold : 1 or 2 leaves out what learnt from that fold of the held-out cells.
    learnt : bool (n, F), where some observed cells are hidden, the visible ones that may have been learnt: a row does
        not copy the remembered row that has all of these, which may be itself.
    in_turn : batches are answered one after another, and their size depends on no thread, as draws need it.
    """
    weight, size, n_rows = next(model.parameters()), rows_at_once(model), len(values)
    n_workers = n_threads() if weight.device.type == "cpu" else 1
    if not in_turn:
        size = min(size, max(ROWS_OF_THREAD, -(-n_rows // n_workers)))

    @torch.no_grad()
    def begun_of(rows: slice) -> Batch:
        same = None if learnt is None else learnt[rows].to(weight.device)
        return model.begin(values[rows].to(weight), visible[rows].to(weight.device), learnt=same)

    @torch.no_grad()
    def told(block: Sequence[slice]) -> list[Any]:
        batches = [begun_of(rows) for rows in block]
        found = zip(batches, model.believed(batches, fold), block, strict=True)
        return list(found) if in_turn else [answer(*each) for each in found]

    starts = range(0, n_rows, size)
    blocks = _chunks(
        [slice(start, min(start + size, n_rows)) for start in starts], max(1, BATCHES_AT_ONCE // n_workers)
    )
    answers: list[Answer] = []
    for wave in _chunks(blocks, n_workers):
        for block in shared_out(told, wave):
            answers.extend([answer(*each) for each in block] if in_turn else block)
    return answers


def may_be_learnt(observed: Tensor, visible: Tensor) -> Tensor:
    """Cells (n, F) by which a row is known that fit may have learnt: the visible ones, where observed ones are hidden.

    A row of which none is hidden has nothing to hide: what it lacks, the rows of fit lacked, too.
    """
    return visible & (observed & ~visible).any(1, keepdim=True)


def _chunks(parts: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [parts[start : start + size] for start in range(0, len(parts), size)]


class Validation:
    """The rows with held-out cells, and what the members answer for these; network and copies are asked once.

    Contract: network, expert and copied rows stay as they are while it is in use.

    Parameters
    ----------
    values, observed : (n, F) on the model's device; held-out cells are among the observed ones.
    folds : int8 (n, F), from `split_held_out`.

    Attributes
    ----------
    parts : the rows of each fold by which members are weighed, where there are any. n_rows : of the table.
    n_asked_again : rows that are asked again when the ensemble is judged, as wide ones are too many to be kept.
    """

    def __init__(self, model: MaskedAutoencoder, values: Tensor, observed: Tensor, folds: Tensor) -> None:
        self._model, self._table, self.n_rows = model, (values, observed, folds), len(values)
        self.parts = [part for part in judged(*self._table, rows_that_weigh(model)) if len(part.values)]
        n_judged = sum(len(part.values) for part in judged(*self._table))
        self.n_asked_again = n_judged if n_judged > self.n_weighing else 0
        self._members: list[Members] = []
        self._copies: Copies | None = None
        self._n_trees = -1, -1

    @property
    def n_weighing(self) -> int:
        """Rows of both folds by which members are weighed."""
        return sum(len(part.values) for part in self.parts)

    @cached_property
    @torch.no_grad()
    def batches(self) -> list[list[Batch]]:
        """The rows of each part, begun."""
        dtype, size = next(self._model.parameters()).dtype, rows_at_once(self._model)
        return [
            [
                self._model.begin(rows.to(dtype), shown)
                for rows, shown in zip(part.values.split(size), part.visible.split(size), strict=True)
            ]
            for part in self.parts
        ]

    @torch.no_grad()
    def members(self) -> list[Members]:
        """What each member that the model has by now believes of the rows of each part."""
        model, n_trees = self._model, (len(self._model.sweeps), len(self._model.direct))
        if not self._members or self._copies is not model.copies:
            self._members = [model.without_trees(batches) for batches in self.batches]
            self._copies, self._n_trees = model.copies, (-1, -1)
        if self._n_trees != n_trees:
            for part, batches, members in zip(self.parts, self.batches, self._members, strict=True):
                model.ask_trees(batches, members, part.fold)
            self._n_trees = n_trees
        return self._members

    def answered(
        self, answer: Callable[[Judged, Batch, CellDistribution, slice], Answer], most: int
    ) -> Iterator[tuple[Judged, list[Answer]]]:
        """The rows of each fold that judge the ensemble, and what `answer` says of each batch of them.

        What is kept of those that weigh is not asked for again; where there are more, at most `most` of a fold are.
        """
        if self.n_asked_again:
            for part in judged(*self._table, most):
                told = partial(answer, part)
                yield part, answered(self._model, part.values, part.visible, told, part.fold)
            return
        for part, batches, members in zip(self.parts, self.batches, self.members(), strict=True):
            told, ends = partial(answer, part), accumulate(len(batch.values) for batch in batches)
            rows = [slice(end - len(batch.values), end) for batch, end in zip(batches, ends, strict=True)]
            yield part, list(map(told, batches, self._model.combined(batches, members), rows))
