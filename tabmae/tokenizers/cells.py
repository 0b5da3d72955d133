"""Cells of a table to tokens, one a column, and tokens back to the predictive distribution of every cell.

Contract: the value of an invisible cell is never read; a missing and a hidden cell become the same token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabmae.losses import LOSSES
from tabmae.tokenizers.bins import Bins
from tabmae.tokenizers.distribution import LEAST_PROBABILITY, LEAST_SCALE, CellDistribution

MAX_LEVELS = 256
"""Levels with a probability of their own; rarer ones share a class that is never imputed."""
MIN_EXPERT_SHARE, MIN_SHARE_OF_FEW = 0.01, 0.004
"""Share of a column's cells that a level needs for an indicator of its own among an expert's columns; the second where
these are then `FEW_EXPERT_COLUMNS` at most."""
FEW_EXPERT_COLUMNS, MAX_EXPERT_COLUMNS = 150, 400
LEVEL_WEIGHT = 0.3
"""Weight of a nat of cross-entropy beside a squared standard deviation."""
LIKELIHOOD_WEIGHT = 0.03
"""Weight of the likelihood that trains the spread, beside the error of the mean."""
FREQUENT_WEIGHT = 1.0
"""Weight of a nat of cross-entropy of whether a number is one of its column's frequent values, and which."""
BACKGROUND = 0.01
"""Share of a histogram spread evenly over its bins."""
GATE, LEAST_SPREAD = 1.0, 0.03
"""Logit of the gate at first where the expert knows nothing of a cell, and the spread below which it rises no more."""
CLIP = 10.0


class Guess(NamedTuple):
    """An expert's answer, in its own columns: (B, E) each; the value itself and 0 where visible.

    `mean` lies within the range of the training cells, `line` wherever the expert goes.
    """

    mean: Tensor
    variance: Tensor
    line: Tensor


class CellTokenizer(nn.Module):
    """Embeds cells and predicts cells.

    Parameters
    ----------
    n_levels : for each of F features 0 for a number, else the number of its levels (codes by falling frequency).
    edges, centres, single : of the numeric features' `Bins`.
    log_prior : log frequency of the modelled levels, all categorical features in a row.
    clocks : (K, 4), the cycles of times that an expert is told, by an indicator of each phase; each has the feature,
        where a first phase begins, how long a phase is (both in standard deviations), and the number of phases.
    d_token : width D.
    loss : "mse", "mae" or "huber" for the mean of numbers, or "nll": likelihood alone.
    with_guess : whether an expert's guess is an input and the start of the output.

    Shapes: values float (B, F), visible bool (B, F) -> tokens (B, F, D), seen bool (B, F).

    Source: piecewise-linear encoding of numbers, Gorishniy et al. 2022, section 3.2; mask token, He et al. 2022.
    """

    LEARNT = ("edges", "centres", "single", "log_prior", "clocks")
    """Buffers that `fit` computes, in the order of the constructor."""

    edges: Tensor
    centres: Tensor
    single: Tensor
    log_prior: Tensor
    clocks: Tensor

    def __init__(
        self,
        n_levels: Sequence[int],
        edges: Tensor,
        centres: Tensor,
        single: Tensor,
        log_prior: Tensor,
        clocks: Tensor,
        d_token: int,
        loss: str = "mse",
        with_guess: bool = True,
    ) -> None:
        super().__init__()
        self.n_levels, self.loss, self.with_guess = tuple(n_levels), loss, with_guess
        levels = torch.tensor([n for n in n_levels if n > 0], dtype=torch.long)
        layout = {
            "numbers": torch.tensor([j for j, n in enumerate(n_levels) if n == 0], dtype=torch.long),
            "categories": torch.tensor([j for j, n in enumerate(n_levels) if n > 0], dtype=torch.long),
            "has_rare": levels > MAX_LEVELS,
            "n_modelled": levels.clamp_max(MAX_LEVELS + 1),
        }
        layout["place"] = torch.cat([layout["numbers"], layout["categories"]]).argsort()
        self.most_levels = int(layout["n_modelled"].max()) if len(levels) else 1
        layout |= _level_layout(layout["n_modelled"], self.most_levels)
        layout |= _expert_layout(n_levels, log_prior, clocks)
        for name, tensor in layout.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("edges", edges)
        self.register_buffer("centres", centres)
        self.register_buffer("single", single)
        self.register_buffer("log_prior", log_prior)
        self.register_buffer("clocks", clocks)
        n_numbers, n_bins, n_all_levels = len(self.numbers), edges.shape[1] - 1, len(log_prior)
        self.mask_token = nn.Parameter(torch.randn(d_token) * 0.02)
        self.position = nn.Parameter(torch.randn(len(n_levels), d_token) * 0.3)
        self.number_embedding = nn.Parameter(torch.randn(n_numbers, n_bins + 1, d_token) * 0.3)
        self.level_embedding = nn.Parameter(torch.randn(n_all_levels, d_token) * 0.5)
        self.guess_embedding = nn.Parameter(
            torch.randn(len(self.expert_feature) if with_guess else 0, 2, d_token) * 0.3
        )
        self.number_head = nn.Parameter(torch.randn(n_numbers, d_token, n_bins + 3) * 0.1 / d_token**0.5)
        self.number_bias = nn.Parameter(torch.zeros(n_numbers, n_bins + 3))
        self.level_head = nn.Parameter(torch.randn(n_all_levels, d_token) * 0.1 / d_token**0.5)
        self.level_bias = nn.Parameter(torch.zeros(n_all_levels))
        self._bins: Bins | None = None
        self.register_load_state_dict_post_hook(_forget_bins)

    numbers: Tensor
    categories: Tensor
    has_rare: Tensor
    n_modelled: Tensor
    place: Tensor
    level_offset: Tensor
    level_owner: Tensor
    level_slot: Tensor
    expert_feature: Tensor
    expert_level: Tensor
    expert_clock: Tensor
    expert_of_number: Tensor
    expert_of_level: Tensor

    @classmethod
    def fit(
        cls,
        values: Tensor,
        observed: Tensor,
        n_levels: Sequence[int],
        d_token: int,
        loss: str = "mse",
        with_guess: bool = True,
        clocks: Tensor | None = None,
    ) -> CellTokenizer:
        """Tokenizer with bins and level frequencies from the observed cells of values (n, F)."""
        numbers = [j for j, n in enumerate(n_levels) if n == 0]
        bins = Bins.fit(values[:, numbers], observed[:, numbers])
        prior = [
            _log_frequencies(values[observed[:, j], j], min(n, MAX_LEVELS + 1)) for j, n in enumerate(n_levels) if n > 0
        ]
        log_prior = torch.cat(prior) if prior else torch.zeros(0)
        clocks = torch.zeros(0, 4, dtype=torch.float64) if clocks is None else clocks
        tokenizer = cls(n_levels, bins.edges, bins.centres, bins.single, log_prior, clocks, d_token, loss, with_guess)
        tokenizer._start_at_frequent(values[:, numbers], observed[:, numbers])
        return tokenizer

    @torch.no_grad()
    def _start_at_frequent(self, numbers: Tensor, observed: Tensor) -> None:
        """Let the histograms of columns with bins of one value start from the shares of the bins."""
        for j in torch.nonzero(self.bins.has_single)[:, 0].tolist():
            bins, known = self.bins.of(torch.tensor([j])), numbers[observed[:, j], j]
            counts = torch.bincount(bins.bin(known[:, None])[:, 0], minlength=bins.single.shape[1]) + 1.0
            self.number_bias[j, 3:] = (counts / counts.sum()).log()

    @property
    def bins(self) -> Bins:
        """The bins, kept with all that follows from them until the buffers are others."""
        if self._bins is None or self._bins.edges is not self.edges:
            self._bins = Bins(self.edges, self.centres, self.single)
        return self._bins

    @property
    def n_expert_columns(self) -> int:
        """E, the real-valued columns that an expert works on: numbers, indicators of frequent levels and of phases."""
        return len(self.expert_feature)

    @property
    def n_outputs(self) -> int:
        """Numbers that describe the distribution of a row: bins of the numbers, padded levels of the categories."""
        return max(1, self.number_bias.numel() + len(self.categories) * self.most_levels)

    def expand(self, values: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Cells as an expert sees them: values (B, E) and visible (B, E)."""
        spread = values[:, self.expert_feature]
        n_phases = len(self.expert_clock)
        if n_phases:
            _, origin, length, n = self.clocks[self.expert_clock].double().unbind(1)
            phase = ((spread[:, -n_phases:].double() - origin) / length).floor().remainder(n)
            spread = torch.cat([spread[:, :-n_phases], phase.to(values.dtype)], 1)
        indicator = (spread == self.expert_level).to(values.dtype)
        return torch.where(self.expert_level < 0, spread, indicator), visible[:, self.expert_feature]

    def bounded(self, guess: Tensor) -> Tensor:
        """An expert's means (B, E) within the range of the training cells, beyond which a line is no guide."""
        low, high = guess.new_zeros(guess.shape[1]), guess.new_ones(guess.shape[1])
        low[self.expert_of_number], high[self.expert_of_number] = self.edges[:, 0].to(low), self.edges[:, -1].to(high)
        return guess.clamp(low, high)

    def embed(self, values: Tensor, visible: Tensor, guess: Guess | None = None) -> tuple[Tensor, Tensor]:
        """Turn cells into tokens.

        Parameters
        ----------
        values : (B, F), numbers in standard deviations, categories as codes; anything where not visible.
        visible : bool (B, F).
        guess : the expert's answer for the same cells.

        Returns
        -------
        tokens : (B, F, D). seen : bool (B, F), equal to `visible`.
        """
        number = values[:, self.numbers].clamp(-CLIP, CLIP)
        filled = ((number[:, :, None] - self.edges[:, :-1]) / self.bins.lengths).clamp(0, 1)
        parts = torch.cat([number[:, :, None], filled], 2)
        tokens = torch.einsum("bfk,fkd->bfd", parts, self.number_embedding)
        if len(self.categories):
            code = values[:, self.categories].long().clamp_min(0).minimum(self.n_modelled - 1)
            # The gradient of plain indexing is summed by threads that race, which rounds it otherwise every time.
            levels = F.embedding(self.level_offset + code, self.level_embedding).to(tokens.dtype)
            tokens = torch.cat([tokens, levels], 1).index_select(1, self.place)
        tokens = torch.where(visible[:, :, None], tokens, self.mask_token) + self.position
        if guess is not None:
            hidden = ~visible[:, self.expert_feature]
            parts = torch.stack([guess.mean.clamp(-CLIP, CLIP), guess.variance.sqrt()], 2) * hidden[:, :, None]
            spread = torch.einsum("bek,ekd->bed", parts.to(values.dtype), self.guess_embedding)
            tokens = tokens.index_add(1, self.expert_feature, spread.to(tokens.dtype))
        return tokens, visible

    def predict(self, tokens: Tensor, guess: Guess | None = None) -> CellDistribution:
        """Turn decoded tokens (B, F, D) into the distribution of every cell, starting from the expert's guess."""
        numbers = tokens.index_select(1, self.numbers) if len(self.categories) else tokens
        found = (torch.einsum("bfd,fdk->bfk", numbers, self.number_head) + self.number_bias).to(self.edges.dtype)
        start, spread = torch.zeros_like(found[:, :, 0]), torch.ones_like(found[:, :, 0])
        if guess is not None:
            start = guess.mean[:, self.expert_of_number].to(found.dtype)
            spread = guess.variance[:, self.expert_of_number].to(found.dtype).sqrt()
        direct = start + found[:, :, 0]
        scale = (spread.clamp(LEAST_SCALE, CLIP) * found[:, :, 1].clamp(-5, 5).exp()).clamp(LEAST_SCALE, CLIP)
        logits = found[:, :, 3:]
        if self.bins.discrete.any():
            logits = logits + self._speaking_for(direct.detach(), scale)
        return CellDistribution(
            direct=direct,
            scale=scale,
            # A histogram as wide as its column has at first no more than the normal's share of the variance.
            gate=torch.sigmoid(found[:, :, 2] + GATE - 2 * spread.clamp(LEAST_SPREAD, 1).log()),
            mass=_with_background(logits, self.bins),
            bins=self.bins,
            log_levels=self._log_levels(tokens, guess),
            numbers=self.numbers,
            categories=self.categories,
            has_rare=self.has_rare,
            n_modelled=self.n_modelled,
        )

    def _speaking_for(self, location: Tensor, scale: Tensor) -> Tensor:
        """Nats by which a normal (B, Fn) speaks for each bin of columns of few values, (B, Fn, K).

        Beside what the column is without it, a standard normal; 0 for the bins of other columns.
        """
        bins = self.bins
        centres = torch.where(bins.discrete[:, None], bins.centres, 0)
        precision = scale.clamp_min(LEAST_SPREAD).square().reciprocal()[:, :, None]
        return precision * location[:, :, None] * centres - 0.5 * (precision - 1).clamp_min(0) * centres.square()

    def level_start(self, guess: Guess | None, n_rows: int) -> Tensor:
        """Log probabilities of the levels by the expert, and by frequency where it has none; (B, Fc, L)."""
        if not len(self.categories):
            return self.log_prior.new_zeros(n_rows, 0, 1)
        logits = self.log_prior.expand(n_rows, -1)
        if guess is not None:
            probable = guess.mean[:, self.expert_of_level.clamp_min(0)].clamp(1e-3, 1).log()
            logits = torch.where(self.expert_of_level < 0, logits, probable.to(logits.dtype))
        return F.log_softmax(self._padded(logits), 2)

    def _log_levels(self, tokens: Tensor, guess: Guess | None) -> Tensor:
        """Log probabilities of the levels, corrections of where the expert starts."""
        start = self.level_start(guess, len(tokens))
        if not len(self.categories):
            return start
        owners = tokens.index_select(1, self.categories[self.level_owner])
        correction = (owners * self.level_head).sum(2) + self.level_bias
        return F.log_softmax(start + self._padded(correction.to(start.dtype), 0.0), 2)

    def _padded(self, levels: Tensor, filler: float = -torch.inf) -> Tensor:
        """All levels in a row (B, sum of L) to one row of L a categorical feature; (B, Fc, L)."""
        padded = levels.new_full((len(levels), len(self.categories) * self.most_levels), filler)
        padded[:, self.level_slot] = levels
        return padded.view(len(levels), len(self.categories), self.most_levels)

    def sweep_cells(self, completed: Tensor) -> Tensor:
        """Completed rows (B, F) as forests see them but for the cell that each learns; float32 (B, E)."""
        return self.expand(completed, torch.ones_like(completed, dtype=torch.bool))[0].float()

    def sweep_features(self, cells: Tensor, rows: Tensor, guess: Tensor | None, feature: int) -> Tensor:
        """Some rows of `sweep_cells` as a forest of `feature` sees them: its own cell comes from `guess` (B, E)."""
        features, own = cells[rows], torch.nonzero(self.expert_feature == feature)[:, 0]
        features[:, own] = 0.0 if guess is None else guess[rows[:, None], own].to(features.dtype)
        return features

    def errors(self, distribution: CellDistribution, values: Tensor) -> Tensor:
        """Training error of every cell, (B, F); meaningful where `values` are known."""
        target = values[:, self.numbers]
        if self.loss == "nll":
            numbers = -distribution.number_log_density(target)
        else:
            surprise = -distribution.number_log_density(
                target, detach_direct=True, of_frequent=FREQUENT_WEIGHT / LIKELIHOOD_WEIGHT
            )
            numbers = LOSSES[self.loss](distribution.mean, target) + LIKELIHOOD_WEIGHT * surprise
        if not len(self.categories):
            return numbers
        levels = -LEVEL_WEIGHT * distribution.level_log_probability(values[:, self.categories])
        return torch.cat([numbers, levels], 1)[:, self.place]


def _with_background(logits: Tensor, bins: Bins) -> Tensor:
    """Probabilities of the bins (B, Fn, K), mixed with equal ones, so that no cell is infinitely surprising.

    Absent bins have none but `LEAST_PROBABILITY`, whose logarithm is finite and has no gradient.
    """
    own = F.softmax(logits.masked_fill(~bins.present, -torch.inf), 2)
    return ((1 - BACKGROUND) * own + BACKGROUND * bins.equal_shares).clamp_min(LEAST_PROBABILITY)


def _forget_bins(tokenizer: CellTokenizer, _: object) -> None:
    """Drop what followed from the bins of before."""
    tokenizer._bins = None


def _log_frequencies(codes: Tensor, n_modelled: int) -> Tensor:
    """Log share of each modelled level, one count added to each."""
    count = torch.bincount(codes.long().clamp_max(n_modelled - 1), minlength=n_modelled) + 1.0
    return (count / count.sum()).log()


def _level_layout(n_modelled: Tensor, width: int) -> dict[str, Tensor]:
    """Where the levels of each categorical feature lie in one row of all levels, and in the padded square."""
    owner = torch.repeat_interleave(torch.arange(len(n_modelled)), n_modelled)
    offset = n_modelled.cumsum(0) - n_modelled
    within = torch.arange(len(owner)) - offset[owner]
    return {"level_offset": offset, "level_owner": owner, "level_slot": owner * width + within}


def _n_frequent(n_levels: Sequence[int], log_prior: Tensor, least: float) -> list[int]:
    """How many levels of each feature have at least a share of its cells, 0 of a number."""
    shares = iter(log_prior.float().exp().split([min(n, MAX_LEVELS + 1) for n in n_levels if n > 0]))
    return [int((next(shares)[: min(n, MAX_LEVELS)] >= least).sum()) if n else 0 for n in n_levels]


def _expert_layout(n_levels: Sequence[int], log_prior: Tensor, clocks: Tensor) -> dict[str, Tensor]:
    """Feature and level (-1 for a number) of each expert column, where numbers and levels are found there, and the
    clocks of the phases, which come last."""
    frequent = _n_frequent(n_levels, log_prior, MIN_SHARE_OF_FEW)
    if n_levels.count(0) + sum(frequent) > FEW_EXPERT_COLUMNS:
        frequent = _n_frequent(n_levels, log_prior, MIN_EXPERT_SHARE)
    cap = max(frequent, default=0)
    while cap > 1 and sum(min(n, cap) for n in frequent) > MAX_EXPERT_COLUMNS:
        cap -= 1
    feature: list[int] = []
    level: list[int] = []
    of_number: list[int] = []
    of_level: list[int] = []
    for j, n in enumerate(n_levels):
        n_expanded = min(frequent[j], cap)
        if n == 0:
            of_number.append(len(feature))
        else:
            of_level.extend(range(len(feature), len(feature) + n_expanded))
            of_level.extend([-1] * (min(n, MAX_LEVELS + 1) - n_expanded))
        codes = range(n_expanded) if n else (-1,)
        feature.extend([j] * len(codes))
        level.extend(codes)
    of_clock: list[int] = []
    for place, (of_feature, _, _, n_phases) in enumerate(clocks.tolist()):
        of_clock.extend([place] * int(n_phases))
        feature.extend([int(of_feature)] * int(n_phases))
        level.extend(range(int(n_phases)))
    return {
        "expert_feature": torch.tensor(feature, dtype=torch.long),
        "expert_level": torch.tensor(level, dtype=torch.float32),
        "expert_clock": torch.tensor(of_clock, dtype=torch.long),
        "expert_of_number": torch.tensor(of_number, dtype=torch.long),
        "expert_of_level": torch.tensor(of_level, dtype=torch.long),
    }
