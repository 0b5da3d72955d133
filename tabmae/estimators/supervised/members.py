"""What answers for the target: a linear model, forests, boosted trees and the fine-tuned network, on completed rows.

Contract: each member is a bag of models, one a fold; a labelled row judges only those that did not learn it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from tabmae import stacking
from tabmae.estimators.supervised.linear import LinearModel
from tabmae.estimators.supervised.network import FineTuned, Rows
from tabmae.estimators.supervised.spread import Spread
from tabmae.experts.boosting import BoostedTrees
from tabmae.experts.trees import Forest
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import Guess
from tabmae.training import draw_seed

MEMBERS = ("linear", "trees", "boosting", "network")
N_FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse ridges of logistic regression; the one that judges held-out rows best is kept."""
MAX_FOREST_ROWS = 20_000
"""Rows that grow a forest; it grows with them in time and in size on disk."""
SHARPNESS = 4
"""Power of a member's held-out error by which it is believed before all are weighed together."""
LEAST_PROBABILITY = 1e-6
LEAST_ERROR = 1e-6
"""Error as which a smaller one counts: nothing can be divided by that of a member that is never wrong."""

Learner = Callable[[Tensor, int], nn.Module]
"""From the positions of the rows to learn, and the fold that they leave out, to a fitted model."""


class Ensemble(nn.Module):
    """The members, and how far each is believed.

    Parameters
    ----------
    n_levels : L of the target, 0 for a number.

    Attributes
    ----------
    members : for each name a list of one model a fold. weights : (2, M), in the order of the names, of rows as complete
        as those of fit and of rows with as many cells hidden as their masked copies; others are weighed between them.
    visible : (2,), mean share of the cells that these two see.
    held_out_errors : (M + 1,), of each member and of their weighted mean, on rows as they came that they did not learn:
        root mean squared error in standard deviations, or log loss in nats. spread : how wide these errors are; of a
        number alone.

    Source: bagged members, weighed by rows that they did not learn, Breiman 1996.
    """

    weights: Tensor
    visible: Tensor
    held_out_errors: Tensor

    def __init__(self, n_levels: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        self.members = nn.ModuleDict()
        self.spread = None if n_levels else Spread()
        self.register_buffer("weights", torch.zeros(2, 0, dtype=torch.float64))
        self.register_buffer("visible", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("held_out_errors", torch.zeros(0, dtype=torch.float64))

    def fit(
        self,
        names: Sequence[str],
        copies: Sequence[Rows],
        target: Tensor,
        pretrained: MaskedAutoencoder,
        generator: torch.Generator,
        sample_weight: Tensor | None = None,
    ) -> Self:
        """Fit the members on labelled rows and weigh them by rows that they did not learn.

        Parameters
        ----------
        names : out of `MEMBERS`.
        copies : the n rows as they came, and masked copies of them, each completed without its hidden cells.
        target : (n,), codes, or numbers in standard deviations from the mean.
        pretrained : what the network starts from.
        sample_weight : (n,), how far each row counts, 1 on the mean; None for alike.
        """
        fold = folds(target, min(N_FOLDS, len(target)), generator, self.n_levels)
        judging, together = copies[:2], joined(copies)
        features, device = copies[0].features, target.device
        n_rows, n_copies, n_outputs = len(target), len(copies), max(1, self.n_levels)

        def all_copies(learnt: Tensor) -> Tensor:
            return torch.cat([learnt + number * n_rows for number in range(n_copies)])

        def counts(learnt: Tensor) -> Tensor | None:
            return None if sample_weight is None else sample_weight[learnt]

        def linear(strength: float) -> Learner:
            def learner(learnt: Tensor, _: int) -> nn.Module:
                given = features[learnt], target[learnt], self.n_levels, strength
                return LinearModel().fit(*given, sample_weight=counts(learnt))

            return learner

        def trees(learnt: Tensor, _: int) -> nn.Module:
            learnt = learnt[torch.randperm(len(learnt), generator=generator)[:MAX_FOREST_ROWS].to(device)]
            given = features[learnt], target[learnt], self.n_levels, draw_seed(generator)
            return Forest().fit(*given, sample_weight=counts(learnt))

        def boosting(learnt: Tensor, _: int) -> nn.Module:
            rows, number = all_copies(learnt), all_copies(learnt) % n_rows
            given = together.features[rows], target[number], self.n_levels, draw_seed(generator)
            return BoostedTrees().fit(*given, sample_weight=counts(number))

        def network(learnt: Tensor, number: int) -> nn.Module:
            model = FineTuned(pretrained, cast(LinearModel, found["linear"][0][number]), n_outputs)
            return model.fit(together, target, learnt, self.n_levels, generator, sample_weight)

        truth, weight = target[fold >= 0], counts(fold >= 0)
        judges, heard = truth.repeat(len(judging)), None if weight is None else weight.repeat(len(judging))
        found: dict[str, tuple[nn.ModuleList, Tensor]] = {}
        if {"linear", "network"} & set(names):
            strengths = STRENGTHS if self.n_levels else STRENGTHS[-1:]
            tried = [self._bag(linear(strength), fold, judging) for strength in strengths]
            found["linear"] = min(tried, key=lambda bag: float(self._error(bag[1], judges, heard)))
        for name, learner in (("trees", trees), ("boosting", boosting), ("network", network)):
            if name in names:
                found[name] = self._bag(learner, fold, judging)
        self.members = nn.ModuleDict({name: found[name][0] for name in names})
        predicted = torch.stack([found[name][1] for name in names])
        self.visible = torch.stack([rows.visible.double().mean() for rows in (judging[0], judging[-1])])
        self.weights = self._weighed(predicted, judges, heard, len(truth))
        seen = torch.cat([rows.visible[fold >= 0] for rows in judging])
        answers = [*predicted, self._combined(predicted, seen)]
        self.held_out_errors = torch.stack([self._error(answer[: len(truth)], truth, weight) for answer in answers])
        if self.spread is not None:
            read = torch.cat(
                [_read_by_spread(rows, said) for rows, said in zip(judging, answers[-1].split(n_rows), strict=True)]
            )
            self.spread.fit(read, (answers[-1][:, 0] - judges).abs(), n_rows, generator, sample_weight)
        return self

    def predict(self, rows: Rows) -> Tensor:
        """Numbers (B, 1) in standard deviations, or probabilities of the levels (B, L), float64."""
        answers = torch.stack(
            [
                torch.stack([answer(model, rows) for model in cast(nn.ModuleList, bag)]).mean(0)
                for bag in self.members.values()
            ]
        )
        return self._combined(answers, rows.visible)

    def _combined(self, answers: Tensor, visible: Tensor) -> Tensor:
        """The weighted mean (B, K) of answers (M, B, K) for rows that see some cells, bool (B, F)."""
        lost, most = self.visible[0] - visible.double().mean(1), self.visible[0] - self.visible[1]
        hidden = (lost / most).clamp(0, 1) if most > 0 else torch.zeros_like(lost)
        weights = torch.lerp(self.weights[:1], self.weights[1:], hidden[:, None])
        return torch.einsum("bm,mbk->bk", weights, answers)

    def width(self, rows: Rows, predicted: Tensor, level: float) -> Tensor:
        """How far numbers lie from what is predicted (B, 1) of rows, at most, in `level` of the cases; (B,)."""
        return cast(Spread, self.spread).width(_read_by_spread(rows, predicted), level)

    def _bag(self, learner: Learner, fold: Tensor, judging: Sequence[Rows]) -> tuple[nn.ModuleList, Tensor]:
        """A model for every fold, learnt without it, and what each predicts for the rows of its fold, copy by copy."""
        models = nn.ModuleList()
        predicted = torch.zeros(len(judging), len(fold), max(1, self.n_levels), dtype=torch.float64, device=fold.device)
        for number in range(max(1, int(fold.max()) + 1)):
            learnt, held_out = torch.nonzero(fold != number)[:, 0], torch.nonzero(fold == number)[:, 0]
            model = learner(learnt, number)
            for place, rows in enumerate(judging):
                predicted[place, held_out] = answer(model, rows.take(held_out))
            models.append(model)
        return models, predicted[:, fold >= 0].flatten(0, 1)

    def _weighed(self, predicted: Tensor, target: Tensor, sample_weight: Tensor | None, n_rows: int) -> Tensor:
        """Weights of members (2, M) by what they predict (M, n, K) of rows that they did not learn.

        The first `n_rows` are as they came, and the last ones their copies; both lean on the weights by all.
        """
        errors = torch.stack([self._error(answer, target, sample_weight) for answer in predicted]).cpu()
        believed = errors.clamp_min(LEAST_ERROR) ** -SHARPNESS
        start = believed / believed.sum() if believed.sum().isfinite() else torch.ones_like(believed) / len(believed)
        by_all = self._stacked(predicted, target, start, sample_weight)
        weights = []
        for part in (slice(n_rows), slice(-n_rows, None)):
            heard = None if sample_weight is None else sample_weight[part]
            weights.append(self._stacked(predicted[:, part], target[part], by_all, heard))
        return torch.stack(weights).to(predicted)

    def _stacked(self, predicted: Tensor, target: Tensor, start: Tensor, sample_weight: Tensor | None) -> Tensor:
        if self.n_levels:
            return stacking.fit_levels(predicted, target, start, sample_weight)
        everywhere = torch.ones(len(target), 1, dtype=torch.bool)
        return stacking.fit(predicted, target[:, None], everywhere, start, sample_weight)[0]

    def _error(self, predicted: Tensor, target: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Root mean squared error, or log loss, of predictions (n, K)."""
        if self.n_levels:
            errors = predicted.gather(1, target[:, None])[:, 0].clamp(LEAST_PROBABILITY, 1).log().abs()
        else:
            errors = (predicted[:, 0] - target).square()
        mean = errors.mean() if sample_weight is None else (errors * sample_weight).sum() / sample_weight.sum()
        return mean if self.n_levels else mean.sqrt()


def _read_by_spread(rows: Rows, predicted: Tensor) -> Tensor:
    """What tells how far off a prediction (B, 1) is: it, the row, and which cells are visible; (B, E + F + 2)."""
    visible = rows.visible.to(rows.features)
    return torch.cat([rows.features, visible, visible.mean(1, keepdim=True), predicted.to(rows.features)], 1)


def answer(model: nn.Module, rows: Rows) -> Tensor:
    """Numbers (B, 1), or probabilities (B, L), of one model, float64."""
    if isinstance(model, FineTuned):
        return model.predict(rows)
    return cast(LinearModel | Forest | BoostedTrees, model).predict(rows.features).double()


def folds(target: Tensor, n_folds: int, generator: torch.Generator, n_levels: int) -> Tensor:
    """Fold of each label (n,); every fold has its share of each level, or of high and low numbers.

    The only label of a level is in no fold, -1: all models learn it.
    """
    shuffled = torch.randperm(len(target), generator=generator, device=generator.device).to(target.device)
    order = shuffled[target[shuffled].sort(stable=True).indices]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(target), device=target.device) % n_folds
    if n_levels:
        fold[torch.bincount(target, minlength=n_levels)[target] < 2] = -1
    return fold


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one part after another."""
    values, visible, guesses, features = zip(*parts, strict=True)
    guess = None if guesses[0] is None else Guess(*map(torch.cat, zip(*guesses, strict=True)))
    return Rows(torch.cat(values), torch.cat(visible), guess, torch.cat(features))


def restored(n_levels: int, tensors: dict[str, Tensor], pretrained: MaskedAutoencoder) -> Ensemble:
    """An ensemble from its weights.

    Parameters
    ----------
    n_levels : of the target. tensors : of `Ensemble.state_dict`. pretrained : what the network started from.

    Raises
    ------
    ValueError, KeyError, RuntimeError : the tensors are not those of an ensemble on this model's features.
    """
    ensemble = Ensemble(n_levels)
    n_outputs, n_features = max(1, n_levels), pretrained.tokenizer.n_expert_columns
    bags = {tuple(name.split(".")[1:3]) for name in tensors if name.startswith("members.")}
    names = [name for name in MEMBERS if any(name == bag for bag, _ in bags)]
    for name in names:
        models = [_blank(name, n_outputs, n_features, pretrained) for _ in range(sum(bag == name for bag, _ in bags))]
        ensemble.members[name] = nn.ModuleList(models)
    ensemble.weights = torch.zeros(2, len(names), dtype=torch.float64)
    ensemble.held_out_errors = torch.zeros(len(names) + 1, dtype=torch.float64)
    if ensemble.spread is not None:
        n_errors = len(tensors["spread.ratios"])
        ensemble.spread.ratios, ensemble.spread.shares = torch.zeros(2, n_errors, dtype=torch.float64)
    ensemble.load_state_dict(tensors)
    if ensemble.spread is not None:
        ensemble.spread.forest.check(n_features + len(pretrained.tokenizer.n_levels) + 2, 1)
    for module in ensemble.members.modules():
        if isinstance(module, Forest):
            module.check(n_features, n_outputs)
    return ensemble.to(next(pretrained.parameters()).device).eval()


def _blank(name: str, n_outputs: int, n_features: int, pretrained: MaskedAutoencoder) -> nn.Module:
    """A model of a member, for its weights to be loaded."""
    if name == "linear":
        return LinearModel(n_features, n_outputs)
    if name == "network":
        return FineTuned(pretrained, LinearModel(n_features, n_outputs), n_outputs)
    return Forest() if name == "trees" else BoostedTrees(n_outputs)
