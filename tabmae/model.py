"""The masked autoencoder: cells to tokens, tokens to latent, latent to the predictive distribution of every cell.

Contract: changing an invisible value changes no output bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tabmae.backbones import Backbone
from tabmae.experts.copies import Copies
from tabmae.experts.direct import DirectTrees
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.tokenizers import CellDistribution, CellTokenizer, Guess

WIDE = 150
"""Expert columns beyond which the conditional variance is left at its bound: it would take most of the time."""

SAME = 0.9
"""How likely a number is that of a copied row to the last digit for it to be this: of a date of birth that a person's
other rows tell, the few in a hundred that say otherwise would make another by weeks."""

OF_SURE = ("sure", "sure_copies", "sure_copies_of_levels")
"""Buffers of how sure a member is where it is followed beyond its weight."""


class Members(NamedTuple):
    """What each member of the ensemble believes of every cell.

    numbers : (5, B, Fn), by the mean of training, the expert, the network, the forests that start from the expert's
        guess and the trees that do not, in standard deviations; with copies (6, B, Fn), by these last.
    levels : (4, B, Fc, L), probabilities by the expert (without one, frequencies), the network and the same trees;
        with copies (5, B, Fc, L).
    copied : (4, B, Fn) with copies, the variance of a number that is copied, how likely none is, the number of the row
        that is likeliest to be copied, and how likely it is the very same; else (0, B, Fn).
    Where the forests have no answer of their own, the network's stands for it, and theirs for the other trees'; where a
    row is a copy of none, the network's stands for that of the copies.
    """

    numbers: Tensor
    levels: Tensor
    copied: Tensor

    @property
    def doubt(self) -> Tensor:
        """Square of the copies' variance of the numbers, (B, Fn), in which a column's is 1 where none is copied."""
        variance, none, *_ = self.copied
        return ((1 - none) * variance + none).square()

    @property
    def doubt_of_levels(self) -> Tensor:
        """Square of what the copies leave to all levels but their likeliest, (B, Fc)."""
        return (1 - self.levels[-1].amax(2)).square()


class Batch(NamedTuple):
    """Rows before any forest is asked.

    values : (B, F), 0 where not visible. visible : bool (B, F); forests are asked for the other cells.
    guess : the expert's. network : what the network alone believes.
    learnt : bool (B, F), visible cells by which remembered rows are known that rows are, and so do not copy; None where
        no hidden cell is remembered.
    """

    values: Tensor
    visible: Tensor
    guess: Guess | None
    network: CellDistribution
    learnt: Tensor | None = None


class MaskedAutoencoder(nn.Module):
    """Tokenizer, backbone, the expert whose guess the network starts from, and forests that start from the network.

    Parameters
    ----------
    tokenizer : embeds cells and predicts cells.
    backbone : `encode(tokens, seen) -> latent (B, M, E)` and `decode(latent, seen) -> (B, F, D)`.
    expert : fitted; None for the pure masked autoencoder.

    Buffers `number_weights` (1 + S, Fn, 5) and `level_weights` (1 + S, Fc, 4), one more with copies: how far each of
    `Members` is believed, per column, before and after each of S sweeps of forests; the network alone until they are
    set. Training uses the network alone. `copies` holds rows that others may copy, None without. `sweeps` holds the
    features' forests by position, a sweep of them where any grew; each sweep reads rows as the ensemble before it
    completes them. `direct` holds the features' trees that know no expert's guess; they
    read what the last sweep reads. `grown_with` is the expert as forests read it, None where that is `expert` itself:
    where it hardly knows a column, a later fit moves its guess by more than all of its range, and trees split within.
    `sure` (1 + S, Fn): the expert's variance of a number at which it is followed half of the way from the weighted mean
    to its own, and farther where it is smaller: what columns say exactly is not mixed with what is roughly right. 0
    follows it nowhere. `sure_copies` (1 + S, Fn) and `sure_copies_of_levels` (1 + S, Fc) are the same of copies, in
    squares of their variances, and of what they leave to other levels; what is followed has their spread, too.

    Source: He et al. 2022; masks a cell, x * (1 - m) + MASK * m, as in Vincent et al. 2008 with a learned MASK.
    """

    number_weights: Tensor
    level_weights: Tensor
    sure: Tensor
    sure_copies: Tensor
    sure_copies_of_levels: Tensor

    def __init__(self, tokenizer: CellTokenizer, backbone: Backbone, expert: Gaussian | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.expert = expert
        self.grown_with: Gaussian | None = None
        self.copies: Copies | None = None
        self.sweeps = nn.ModuleList()
        self.direct = nn.ModuleDict()
        numbers, levels = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 0.0])
        self.register_buffer("number_weights", numbers.double().repeat(1, len(tokenizer.numbers), 1))
        self.register_buffer("level_weights", levels.double().repeat(1, len(tokenizer.categories), 1))
        for name, features in zip(OF_SURE, (tokenizer.numbers, tokenizer.numbers, tokenizer.categories), strict=True):
            self.register_buffer(name, torch.zeros(1, len(features), dtype=torch.float64))

    @torch.no_grad()
    def guess(self, values: Tensor, visible: Tensor) -> Guess | None:
        """The expert's mean and variance of every cell from the visible ones; None without an expert."""
        if self.expert is None:
            return None
        return self._guess_of(self.expert, values, visible, with_variance=self.tokenizer.n_expert_columns <= WIDE)

    def _guess_of(self, expert: Gaussian, values: Tensor, visible: Tensor, with_variance: bool) -> Guess:
        cells, shown = self.tokenizer.expand(values, visible)
        mean, variance = expert.condition(cells, shown, with_variance=with_variance)
        return Guess(torch.where(shown, mean, self.tokenizer.bounded(mean)), variance, mean)

    def encode(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> Tensor:
        """Latent (B, M, E) of rows: values (B, F), visible bool (B, F)."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        tokens, seen = self.tokenizer.embed(values, visible, guess)
        return self.backbone.encode(tokens, seen)

    def forward(
        self, values: Tensor, visible: Tensor, guess: Guess | None = None, fold: int = 0, learnt: Tensor | None = None
    ) -> CellDistribution:
        """Distribution of every cell of values (B, F) given the visible ones; `guess` spares its computation.

        `fold` 1 or 2 asks only the trees that were grown without that fold of the held-out cells; `learnt` as in
        `Batch`.
        """
        batch = self.begin(values, visible, guess, learnt=learnt)
        if self.training:
            return batch.network
        (found,) = self.believed([batch], fold)
        return found

    def begin(
        self,
        values: Tensor,
        visible: Tensor,
        guess: Guess | None = None,
        learnt: Tensor | None = None,
    ) -> Batch:
        """Expert and network on values (B, F); `believed` asks the forests, too."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        network = self.network(values, visible, guess)
        return Batch(values, visible, guess, network, learnt)

    def believed(self, batches: Sequence[Batch], fold: int = 0) -> Iterator[CellDistribution]:
        """Distribution of every cell of each batch; a forest is asked once for the rows of all, which is faster."""
        yield from self.combined(batches, self._members(batches, fold))

    def members(self, values: Tensor, visible: Tensor, fold: int = 0, guess: Guess | None = None) -> Members:
        """What each member believes of values (B, F) given the visible cells; the trees of the last sweep."""
        return self._members([self.begin(values, visible, guess)], fold)

    def network(self, values: Tensor, visible: Tensor, guess: Guess | None) -> CellDistribution:
        """What the network alone believes of values (B, F), 0 where not visible, from its expert's guess."""
        latent = self.encode(values, visible, guess)
        return self.tokenizer.predict(self.backbone.decode(latent, visible), guess)

    def set_copies(self, copies: Copies | None) -> None:
        """Ask these rows from now on, not believed until their weights are set; None asks none.

        Those that were asked pass their weight to the network.
        """
        n_more = int(copies is not None) - int(self.copies is not None)
        if n_more < 0:
            self.number_weights[:, :, 2] += self.number_weights[:, :, 5]
            self.level_weights[:, :, 1] += self.level_weights[:, :, 4]
            self.sure_copies = torch.zeros_like(self.sure_copies)
            self.sure_copies_of_levels = torch.zeros_like(self.sure_copies_of_levels)
        self.number_weights = nn.functional.pad(self.number_weights, (0, n_more))
        self.level_weights = nn.functional.pad(self.level_weights, (0, n_more))
        self.copies = copies

    def add_sweep(self, forests: nn.ModuleDict) -> None:
        """Append the features' forests, which read what the ensemble so far completes; their weights are to be set."""
        self.number_weights = torch.cat([self.number_weights, self.number_weights[-1:]])
        self.level_weights = torch.cat([self.level_weights, self.level_weights[-1:]])
        for name in OF_SURE:
            setattr(self, name, torch.cat([getattr(self, name), getattr(self, name)[-1:]]))
        self.sweeps.append(forests)

    def combined(self, batches: Sequence[Batch], members: Members, sweep: int = -1) -> Iterator[CellDistribution]:
        """The distribution of every cell of each batch, by what the members believe of all their rows."""
        ends = accumulate((len(batch.values) for batch in batches), initial=0)
        for batch, (start, stop) in zip(batches, pairwise(ends), strict=True):
            yield self._combined(Members(*(part[:, start:stop] for part in members)), batch, sweep)

    def _combined(self, members: Members, batch: Batch, sweep: int) -> CellDistribution:
        """The network's distribution about the members' weighted mean, and their weighted probabilities."""
        weights = self.number_weights[sweep].to(members.numbers), self.level_weights[sweep].to(members.levels)
        mean = torch.einsum("mbf,fm->bf", members.numbers, weights[0])
        levels = torch.einsum("mbfl,fm->bfl", members.levels, weights[1])
        found = batch.network
        if self.sure_copies[sweep].any():
            copies, share = members.numbers[-1], share_of(members.doubt, self.sure_copies[sweep]).to(mean)
            mean = torch.lerp(mean, copies, share)
            found = found.gathered(copies, members.copied[0].sqrt(), share)
        # The expert comes last: what it is sure of is exact, and copies may be roughly right.
        mean = followed(mean, members.numbers[1], self.doubt(batch), self.sure[sweep])
        if self.sure_copies_of_levels[sweep].any():
            share = share_of(members.doubt_of_levels, self.sure_copies_of_levels[sweep])
            levels = torch.lerp(levels, members.levels[-1], share[:, :, None].to(levels))
        found = replace(found.moved_to(mean), log_levels=levels.log())
        if not self.sure_copies[sweep].any():
            return found
        _, _, same, likely = members.copied
        fixed = (likely > SAME) & (self.sure_copies[sweep] > 0)
        return found.fixed_at(same, fixed) if fixed.any() else found

    def line(self, batch: Batch) -> Tensor:
        """The expert's mean of the numbers of rows, (B, Fn), in the range of the training cells or not; the network's
        without one."""
        if batch.guess is None:
            return batch.network.direct
        return batch.guess.line[:, self.tokenizer.expert_of_number]

    def doubt(self, batch: Batch) -> Tensor:
        """The expert's variance of the numbers of rows, (B, Fn); infinite where it tells none."""
        if batch.guess is None or self.tokenizer.n_expert_columns > WIDE:
            return torch.full_like(batch.network.direct, torch.inf)
        return batch.guess.variance[:, self.tokenizer.expert_of_number]

    def _members(self, batches: Sequence[Batch], fold: int) -> Members:
        """What each member believes of the rows of all batches; the trees of the last sweep."""
        members = self.without_trees(batches)
        self.ask_trees(batches, members, fold)
        return members

    def without_trees(self, batches: Sequence[Batch]) -> Members:
        """What each member believes of the rows of all batches before trees are asked."""
        return Members(*(torch.cat(parts, 1) for parts in zip(*map(self._without_trees, batches), strict=True)))

    def ask_trees(self, batches: Sequence[Batch], members: Members, fold: int) -> None:
        """Write what trees believe of the rows of all batches, if there are any, over what their members said."""
        if not len(self.sweeps):
            return
        numbers, levels, _ = members
        hidden = ~torch.cat([batch.visible for batch in batches])
        own = None if self.expert is None else torch.cat([self._read_by_forests(batch) for batch in batches])
        for number, forests in enumerate(self.sweeps):
            completed = [
                torch.where(batch.visible, batch.values, found.point())
                for batch, found in zip(batches, self.combined(batches, members, number), strict=True)
            ]
            cells = self.tokenizer.sweep_cells(torch.cat(completed))
            numbers[3], levels[2] = numbers[2], levels[1]
            for feature, forest, rows in _asked(cast(nn.ModuleDict, forests), hidden):
                features = self.tokenizer.sweep_features(cells, rows, own, feature)
                answer = cast(Forest, forest).predict(features, fold).to(numbers.dtype)
                self._enter(answer, rows, feature, numbers[3], levels[2], None if own is None else numbers[1])
            numbers[4], levels[3] = numbers[3], levels[2]
        for feature, trees, rows in _asked(self.direct, hidden):
            features = self.tokenizer.sweep_features(cells, rows, None, feature)
            answer = cast(DirectTrees, trees).predict(features, fold).to(numbers.dtype)
            self._enter(answer, rows, feature, numbers[4], levels[3], None)

    def _read_by_forests(self, batch: Batch) -> Tensor:
        """The expert's means (B, E) as the forests learnt to read them."""
        if self.grown_with is None:
            return cast(Guess, batch.guess).mean
        return self._guess_of(self.grown_with, batch.values, batch.visible, with_variance=False).mean

    def _enter(
        self, answer: Tensor, rows: Tensor, feature: int, numbers: Tensor, levels: Tensor, start: Tensor | None
    ) -> None:
        """Write what trees answer for some rows of a feature to their member's numbers (B, Fn) or levels (B, Fc, L)."""
        place = int(self.tokenizer.place[feature])
        if place < numbers.shape[1]:
            numbers[rows, place] = answer[:, 0] + (0 if start is None else start[rows, place])
        else:
            of_levels = nn.functional.pad(answer, (0, levels.shape[2] - answer.shape[1]))
            levels[rows, place - numbers.shape[1]] = of_levels

    def _without_trees(self, batch: Batch) -> Members:
        """What each member believes of a batch before forests are asked."""
        mean, levels = batch.network.mean, batch.network.log_levels.exp()
        expert_levels = self.tokenizer.level_start(batch.guess, len(mean)).to(levels.dtype).exp()
        place = self.tokenizer.expert_of_number
        expert = mean if batch.guess is None else batch.guess.mean[:, place].to(mean.dtype)
        of_numbers, of_levels = [torch.zeros_like(mean), expert, mean, mean, mean], [expert_levels, *[levels] * 3]
        copied = mean.new_zeros(0, *mean.shape)
        if self.copies is not None:
            found = self.copies.predict(batch.values, batch.visible, batch.learnt)
            rest = (1 - found.shares).to(mean)
            none = rest[:, self.tokenizer.numbers]
            of_numbers.append(found.numbers.to(mean) + none * mean)
            copied = torch.stack([found.variance.to(mean), none, found.same.to(mean), found.likely.to(mean)])
            of_levels.append(found.levels.to(levels) + rest[:, self.tokenizer.categories, None] * levels)
        return Members(torch.stack(of_numbers), torch.stack(of_levels), copied)


def followed(mean: Tensor, expert: Tensor, variance: Tensor, sure: Tensor) -> Tensor:
    """Means (B, Fn) moved to the expert's as far as it is sure: half of the way where its variance is `sure` (Fn,)."""
    return torch.lerp(mean, expert, share_of(variance, sure).to(mean))


def share_of(doubt: Tensor, sure: Tensor) -> Tensor:
    """How far a member is followed beyond its weight: half of the way where its doubt (B, K) is `sure` (K,)."""
    return sure / (sure + doubt).clamp_min(torch.finfo(sure.dtype).tiny)


def _asked(grown: nn.ModuleDict, hidden: Tensor) -> Iterator[tuple[int, nn.Module, Tensor]]:
    """The features that have trees, these, and the rows whose cells of it are hidden (B, F), where there are any."""
    for name, trees in grown.items():
        rows = torch.nonzero(hidden[:, int(name)])[:, 0]
        if len(rows):
            yield int(name), trees, rows
