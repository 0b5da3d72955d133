"""The masked autoencoder with a target head, fine-tuned on labelled rows of which cells are hidden.

Contract: it starts from pretrained weights, which stay as they are, and from a linear model's answer.
"""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabmae.estimators import base
from tabmae.estimators.supervised.linear import LinearModel
from tabmae.generators import generators_kept, seed_generators
from tabmae.model import MaskedAutoencoder
from tabmae.optimizer import LONGEST_GRADIENT, AdamW
from tabmae.schedule import share_of_lr
from tabmae.tokenizers import Guess
from tabmae.training import draw_seed

BATCH = 128
STEPS_OF_ROOT = 10
"""Steps for a root of the labelled rows: few labels are soon learnt by heart."""
MAX_STEPS = 1500
LR = 1e-3
WEIGHT_DECAY = 0.05
HEAD_DROPOUT = 0.3


class Rows(NamedTuple):
    """Rows as the members read them.

    values : float64 (B, F), 0 where not visible. visible : bool (B, F). guess : the expert's, None without one.
    features : float32 (B, E), numbers and indicators of levels of the completed rows.
    """

    values: Tensor
    visible: Tensor
    guess: Guess | None
    features: Tensor

    def take(self, rows: Tensor | slice) -> Rows:
        """Some of the rows."""
        guess = None if self.guess is None else Guess(*(part[rows] for part in self.guess))
        return Rows(self.values[rows], self.visible[rows], guess, self.features[rows])


class FineTuned(nn.Module):
    """Pretrained tokenizer and backbone, and a head on the mean latent that corrects a linear model's answer.

    Parameters
    ----------
    pretrained : copied, without its expert, whose guess comes with the rows.
    linear : answers from completed rows; stays as it is.
    n_outputs : K.

    Source: fine-tuning, He et al. 2022.
    Differs: rows stay masked in fine-tuning, since rows to predict have holes; the decoder is not asked.
    """

    def __init__(self, pretrained: MaskedAutoencoder, linear: LinearModel, n_outputs: int) -> None:
        super().__init__()
        self.model = MaskedAutoencoder(deepcopy(pretrained.tokenizer), deepcopy(pretrained.backbone))
        self.linear = linear
        # torch's skip_init, which draws nothing, would load sympy: a second.
        with generators_kept():
            self.head = nn.Linear(base.latent_width(pretrained), n_outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(next(pretrained.parameters()))
        self.eval()

    def forward(self, rows: Rows) -> Tensor:
        """Numbers or log-odds of the levels (B, K) of rows."""
        weight = self.head.weight
        guess = None if rows.guess is None else Guess(*(part.to(weight) for part in rows.guess))
        latent = self.model.encode(rows.values.to(weight), rows.visible, guess).mean(1)
        return self.linear(rows.features).to(weight) + self.head(F.dropout(latent, HEAD_DROPOUT, self.training))

    def fit(
        self,
        copies: Rows,
        target: Tensor,
        learnt: Tensor,
        n_levels: int,
        generator: torch.Generator,
        sample_weight: Tensor | None = None,
    ) -> FineTuned:
        """Train on copies of labelled rows.

        Parameters
        ----------
        copies : R * n rows, every copy in the order of the target. target : (n,), numbers, or codes below `n_levels`.
        learnt : (m,), positions of the rows to learn. n_levels : 0 for numbers.
        sample_weight : (n,), how far each row's error counts, 1 on the mean; None for alike.
        """
        n_rows, n_learnt = len(target), len(learnt)
        n_copies = len(copies.values) // n_rows
        n_steps = min(MAX_STEPS, round(STEPS_OF_ROOT * n_learnt**0.5))
        self._set_precision(torch.float32)
        self.train()
        parameters = [*self.model.parameters(), *self.head.parameters()]
        optimizer = AdamW(parameters, WEIGHT_DECAY, LONGEST_GRADIENT)
        device = target.device
        with generators_kept(device):
            seed_generators(device, draw_seed(generator))
            for step in range(n_steps):
                row = learnt[torch.randint(n_learnt, (min(BATCH, n_learnt),), device=learnt.device)]
                copy = torch.randint(n_copies, row.shape, device=row.device)
                found = self(copies.take(copy * n_rows + row))
                truth = target[row]
                if n_levels:
                    errors = F.cross_entropy(found, truth, reduction="none")
                else:
                    errors = (found[:, 0] - truth.to(found)).square()
                if sample_weight is not None:
                    errors = errors * sample_weight[row].to(errors)
                errors.mean().backward()
                optimizer.step(LR * share_of_lr(step, n_steps))
        self._set_precision(base.INFERENCE)
        return self.eval()

    @torch.no_grad()
    def predict(self, rows: Rows) -> Tensor:
        """Numbers (B, 1), or probabilities of the levels (B, K)."""
        found = self(rows)
        return found if found.shape[1] == 1 else found.softmax(1)

    def _set_precision(self, dtype: torch.dtype) -> None:
        """Cast what is trained."""
        base.set_precision(self.model, dtype)
        self.head.to(dtype)
