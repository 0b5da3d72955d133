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

    Buffers `number_weights` (Fn, 4) and `level_weights` (Fc, 3): how far each of `Members` is believed, per column; the
    network alone until they are set. Training uses the network alone. `forests` holds the features' forests by
    position.

    Source: He et al. 2022; masks a cell, x * (1 - m) + MASK * m, as in Vincent et al. 2008 with a learned MASK.
    """

    number_weights: Tensor
    level_weights: Tensor

    def __init__(self, tokenizer: CellTokenizer, backbone: Backbone, expert: Gaussian | None = None) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.expert = expert
        self.forests = nn.ModuleDict()
        numbers, levels = torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
        self.register_buffer("number_weights", numbers.double().repeat(len(tokenizer.numbers), 1))
        self.register_buffer("level_weights", levels.double().repeat(len(tokenizer.categories), 1))

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

    def forward(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> CellDistribution:
        """Distribution of every cell of values (B, F) given the visible ones; `guess` spares its computation."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible) if guess is None else guess
        network = self.network(values, visible, guess)
        if self.training:
            return network
        members = self._members(values, visible, guess, network)
        mean = torch.einsum("mbf,fm->bf", members.numbers, self.number_weights.to(values.dtype))
        levels = torch.einsum("mbfl,fm->bfl", members.levels, self.level_weights.to(values.dtype))
        return replace(network.moved_to(mean), log_levels=levels.log())

    def members(self, values: Tensor, visible: Tensor) -> Members:
        """What each member believes of values (B, F) given the visible cells."""
        values = torch.where(visible, values, 0)
        guess = self.guess(values, visible)
        return self._members(values, visible, guess, self.network(values, visible, guess))

    def network(self, values: Tensor, visible: Tensor, guess: Guess | None) -> CellDistribution:
        """What the network alone believes of values (B, F), 0 where not visible, from its expert's guess."""
        latent = self.encode(values, visible, guess)
        return self.tokenizer.predict(self.backbone.decode(latent, visible), guess)

    def _members(self, values: Tensor, visible: Tensor, guess: Guess | None, network: CellDistribution) -> Members:
        mean, levels = network.mean, network.log_levels.exp()
        expert_levels = self.tokenizer.level_start(guess, len(values)).to(levels.dtype).exp()
        expert = mean if guess is None else guess.mean[:, self.tokenizer.expert_of_number].to(mean.dtype)
        swept, swept_levels = mean.clone(), levels.clone()
        completed = torch.where(visible, values, network.point()) if self.forests else values
        for name, module in self.forests.items():
            forest, feature = cast(Forest, module), int(name)
            rows = torch.nonzero(~visible[:, feature])[:, 0]
            if not len(rows):
                continue
            asked = None if guess is None else Guess(guess.mean[rows], guess.variance[rows])
            found = forest.predict(self.tokenizer.sweep_features(completed[rows], asked, feature)).to(mean.dtype)
            place = int(self.tokenizer.place[feature])
            if place < mean.shape[1]:
                swept[rows, place] = found[:, 0] + (0 if guess is None else expert[rows, place])
            else:
                column = torch.zeros_like(swept_levels[rows, 0])
                column[:, : found.shape[1]] = found
                swept_levels[rows, place - mean.shape[1]] = column
        return Members(
            torch.stack([torch.zeros_like(mean), expert, mean, swept]),
            torch.stack([expert_levels, levels, swept_levels]),
        )

    @torch.no_grad()
    def grow_forest(self, values: Tensor, visible: Tensor, feature: int, seed: int) -> None:
        """Fit a feature's forest to rows (n, F) in which it is visible.

        It learns what is left of the expert's guess of a number, or the level of a category, from the row as expert
        and network complete it without that cell.
        """
        truth, visible = values[:, feature], visible.clone()
        visible[:, feature] = False
        guess = self.guess(torch.where(visible, values, 0), visible)
        network = self.network(torch.where(visible, values, 0), visible, guess)
        completed = torch.where(visible, values, network.point())
        inputs = self.tokenizer.sweep_features(completed, guess, feature)
        place = int(self.tokenizer.place[feature])
        n_numbers = len(self.tokenizer.numbers)
        if place >= n_numbers:
            n_levels = int(self.tokenizer.n_modelled[place - n_numbers])
            target = truth.clamp_max(n_levels - 1)
        else:
            n_levels = 0
            target = truth if guess is None else truth - guess.mean[:, self.tokenizer.expert_of_number[place]]
        self.forests[str(feature)] = Forest().fit(inputs, target, n_levels, seed)
