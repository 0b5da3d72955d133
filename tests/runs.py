"""Small training runs that the tests of the loop and of its checkpoints share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from tabmae.backbones import build_backbone
from tabmae.experts.gaussian import Gaussian
from tabmae.masks import bernoulli
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import CellTokenizer
from tabmae.training import N_CHECKS, Callback, Plan, draw_held_out, train

N_LEVELS = (0, 0, 3, 0)
QUICK = Plan(mask=bernoulli, max_epochs=N_CHECKS, batch_size=25)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(n_rows: int = 75, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw columns that share a factor, the third of levels."""
    generator = seeded(seed)
    values = torch.randn(n_rows, 1, generator=generator) + 0.3 * torch.randn(n_rows, 4, generator=generator)
    values = (values - values.mean(0)) / values.std(0)
    values[:, 2] = (values[:, 2] > -0.5).float() + (values[:, 2] > 0.5).float()
    return values, torch.rand(n_rows, 4, generator=generator) < 0.8


def held_out_of(observed: Tensor) -> Tensor:
    return draw_held_out(observed, 0.2, seeded(1))


@dataclass
class Setting:
    """All that makes a run, with defaults; `run` builds the model anew each time."""

    plan: Plan = QUICK
    seed: int = 0
    first_weights: int = 0
    with_expert: bool = True
    with_held_out: bool = True
    dropout: float = 0.1
    loss: str = "mse"
    d_token: int = 4
    values: Tensor = field(default_factory=lambda: table()[0])
    observed: Tensor = field(default_factory=lambda: table()[1])
    sample_weight: Tensor | None = None

    def model(self) -> MaskedAutoencoder:
        values, observed = table()
        with torch.random.fork_rng():
            torch.manual_seed(self.first_weights)
            tokenizer = CellTokenizer.fit(values, observed, N_LEVELS, self.d_token, self.loss, self.with_expert)
            network = build_backbone("mlp", n_tokens=4, d_token=self.d_token, depth=2, dropout=self.dropout)
        expert = None
        if self.with_expert:
            expert = Gaussian(tokenizer.n_expert_columns).fit(*tokenizer.expand(values, observed), shrinkage=0.1)
        return MaskedAutoencoder(tokenizer, network, expert)

    def run(self, *callbacks: Callback, checkpoint: str | Path | None = None, verbose: int = 0) -> "Outcome":
        held_out = held_out_of(self.observed) if self.with_held_out else None
        visible = self.observed if held_out is None else self.observed & ~held_out
        model = self.model()
        history = train(
            model,
            self.values,
            visible,
            self.plan,
            seeded(self.seed),
            held_out=held_out,
            sample_weight=self.sample_weight,
            callbacks=callbacks,
            checkpoint=checkpoint,
            verbose=verbose,
        )
        return Outcome(model, history)


@dataclass
class Outcome:
    model: MaskedAutoencoder
    history: list[dict[str, float]]

    def same_weights(self, other: "Outcome") -> bool:
        mine, others = self.model.state_dict(), other.model.state_dict()
        return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


class StopError(Exception):
    """What a callback raises."""


def stopping_at(check: int, answer: Callable[[], object]) -> Callback:
    """Give a callback that gives its answer at that check."""
    seen: list[dict[str, float]] = []

    def stop(record: dict[str, float]) -> object:
        seen.append(record)
        return answer() if len(seen) == check else None

    return stop


def raise_it(error: type[BaseException]) -> Callable[[], object]:
    def answer() -> object:
        raise error

    return answer
