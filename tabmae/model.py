"""The masked autoencoder: cells to tokens, tokens to latent, latent to the predictive distribution of every cell.

Contract: changing an invisible value changes no output bit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from tabmae.backbones import Backbone
from tabmae.experts.gaussian import Gaussian
from tabmae.experts.trees import Forest
from tabmae.tokenizers import CellDistribution, CellTokenizer, Guess

WIDE = 120
"""Expert columns beyond which the conditional variance is left at its bound: it would take most of the time."""


class Members(NamedTuple):
    """What each member of the ensemble believes of every cell.

    numbers : (4, B, Fn), by the mean of training, the expert, the network and the trees, in standard deviations.
    levels : (3, B, Fc, L), probabilities by the expert (without one, frequencies), the network and the trees.
    Where a member has no answer of its own, the network's stands for it.
    """

    numbers: Tensor
    levels: Tensor


class MaskedAutoencoder(nn.Module):
    """Tokenizer, backbone, the expert whose guess the network starts from, and forests that start from the network.

    Parameters
    ----------
    tokenizer : embeds cells and predicts cells.
    backbone : `encode(tokens, seen) -> latent (B, M, E)` and `decode(latent, seen) -> (B, F, D)`.
    expert : fitted; None for the pure masked autoencoder.

    Buffers `number_weights` (1 + S, Fn, 4) and `level_weights` (1 + S, Fc, 3): how far each of `Members` is believed,
    per column, before and after each of S sweeps of forests; the network alone until they are set. Training uses the
    network alone. `sweeps` holds the features' forests by position; each sweep reads rows as the ensemble before it
    completes them.

    Source: He et al. 2022; masks a cell, x * (1 - m) + MASK * m, as in Vincent et al. 2008 with a learned MASK.
    """

    number_weights: Tensor
    level_weights: Tensor

    def __init__(self, tokenizer: CellTokenizer, backbone: Backbone, expert: Gaussian | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.expert = expert
        self.sweeps = nn.ModuleList()
        numbers, levels = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
        self.register_buffer("number_weights", numbers.double().repeat(1, len(tokenizer.numbers), 1))
        self.register_buffer("level_weights", levels.double().repeat(1, len(tokenizer.categories), 1))

    @torch.no_grad()
    def guess(self, values: Tensor, visible: Tensor) -> Guess | None:
        """The expert's mean and variance of every cell from the visible ones; None without an expert."""
        if self.expert is None:
            return None
        cells, shown = self.tokenizer.expand(values, visible)
        mean, variance = self.expert.condition(cells, shown, with_variance=cells.shape[1] <= WIDE)
        return Guess(torch.where(shown, mean, self.tokenizer.bounded(mean)), variance)

    def encode(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> Tensor:
        """Latent (B, M, E) of rows: values (B, F), visible bool (B, F)."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        tokens, seen = self.tokenizer.embed(values, visible, guess)
        return self.backbone.encode(tokens, seen)

    def forward(self, values: Tensor, visible: Tensor, guess: Guess | None = None, fold: int = 0) -> CellDistribution:
        """Distribution of every cell of values (B, F) given the visible ones; `guess` spares its computation.

        `fold` 1 or 2 asks only the trees that were grown without that fold of the held-out cells.
        """
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        network = self.network(values, visible, guess)
        if self.training:
            return network
        return self._combined(self._members(values, visible, guess, network, ~visible, fold), network, -1)

    def members(self, values: Tensor, visible: Tensor, fold: int = 0) -> Members:
        """What each member believes of values (B, F) given the visible cells; the trees of the last sweep."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible)
        return self._members(values, visible, guess, self.network(values, visible, guess), ~visible, fold)

    def point(self, values: Tensor, visible: Tensor, wanted: Tensor) -> Tensor:
        """The value to impute for every cell of values (B, F); where not `wanted`, forests are not asked."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible)
        network = self.network(values, visible, guess)
        return self._combined(self._members(values, visible, guess, network, wanted, 0), network, -1).point()

    def network(self, values: Tensor, visible: Tensor, guess: Guess | None) -> CellDistribution:
        """What the network alone believes of values (B, F), 0 where not visible, from its expert's guess."""
        latent = self.encode(values, visible, guess)
        return self.tokenizer.predict(self.backbone.decode(latent, visible), guess)

    def add_sweep(self, forests: nn.ModuleDict) -> None:
        """Append the features' forests, which read what the ensemble so far completes; their weights are to be set."""
        self.number_weights = torch.cat([self.number_weights, self.number_weights[-1:]])
        self.level_weights = torch.cat([self.level_weights, self.level_weights[-1:]])
        self.sweeps.append(forests)

    def thin_last_sweep(self, n_trees: int) -> None:
        """Leave `n_trees` of each forest of the last sweep; their weights stay."""
        last = cast(nn.ModuleDict, self.sweeps[-1])
        self.sweeps[-1] = nn.ModuleDict({name: cast(Forest, forest).thinned(n_trees) for name, forest in last.items()})

    def _combined(self, members: Members, network: CellDistribution, sweep: int) -> CellDistribution:
        """The network's distribution about the members' weighted mean, and their weighted probabilities."""
        weights = self.number_weights[sweep].to(members.numbers), self.level_weights[sweep].to(members.levels)
        mean = torch.einsum("mbf,fm->bf", members.numbers, weights[0])
        levels = torch.einsum("mbfl,fm->bfl", members.levels, weights[1])
        return replace(network.moved_to(mean), log_levels=levels.log())

    def _members(
        self,
        values: Tensor,
        visible: Tensor,
        guess: Guess | None,
        network: CellDistribution,
        wanted: Tensor,
        fold: int,
    ) -> Members:
        mean, levels = network.mean, network.log_levels.exp()
        expert_levels = self.tokenizer.level_start(guess, len(values)).to(levels.dtype).exp()
        expert = mean if guess is None else guess.mean[:, self.tokenizer.expert_of_number].to(mean.dtype)
        swept, swept_levels = mean, levels
        for number, forests in enumerate(self.sweeps):
            so_far = _stacked(expert, mean, swept, expert_levels, levels, swept_levels)
            completed = torch.where(visible, values, self._combined(so_far, network, number).point())
            swept, swept_levels = mean.clone(), levels.clone()
            for name, module in cast(nn.ModuleDict, forests).items():
                forest, feature = cast(Forest, module), int(name)
                rows = torch.nonzero(wanted[:, feature])[:, 0]
                if not len(rows):
                    continue
                own = None if guess is None else guess.mean[rows]
                features = self.tokenizer.sweep_features(completed[rows], own, feature)
                found = forest.predict(features, fold).to(mean.dtype)
                place = int(self.tokenizer.place[feature])
                if place < mean.shape[1]:
                    swept[rows, place] = found[:, 0] + (0 if guess is None else expert[rows, place])
                else:
                    column = torch.zeros_like(swept_levels[rows, 0])
                    column[:, : found.shape[1]] = found
                    swept_levels[rows, place - mean.shape[1]] = column
        return _stacked(expert, mean, swept, expert_levels, levels, swept_levels)


def _stacked(
    expert: Tensor, network: Tensor, trees: Tensor, expert_levels: Tensor, levels: Tensor, tree_levels: Tensor
) -> Members:
    numbers = torch.stack([torch.zeros_like(network), expert, network, trees])
    return Members(numbers, torch.stack([expert_levels, levels, tree_levels]))
