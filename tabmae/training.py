"""The training loop of every estimator: fresh masks, schedule, early stop on held-out cells, checkpoints.

Contract: the only drawer of masks. The same generator gives the same weights; a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tabmae.errors import TrainingError
from tabmae.losses import masked_mean
from tabmae.masks import draw_ratio
from tabmae.model import MaskedAutoencoder
from tabmae.tokenizers import Guess

BLOCK_CELLS = 400_000
"""Cells for which masks are drawn and the expert is asked at once; a call a batch would cost more than it answers."""
MAX_CHECK_ROWS = 4096
N_CHECKS = 15
WARM_UP = 0.05

Callback = Callable[[dict[str, float]], object]


@dataclass(frozen=True)
class Plan:
    """How to train: everything that `train` needs beside the model and the data.

    Attributes
    ----------
    mask : strategy of `tabmae.masks`: (observed, mask_ratio (B,), generator) -> hidden.
    mask_ratio : share of the visible cells to hide, or the bounds it is drawn from for each row.
    visible_weight : weight of the mean error over visible cells beside the mean over hidden ones.
    max_epochs, patience : epochs; training stops after `patience` of them without a better held-out error.
    batch_size : rows. lr : peak of the cosine schedule. weight_decay : of AdamW.
    bf16 : autocast on a GPU.
    """

    mask: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    mask_ratio: float | tuple[float, float] = (0.1, 0.9)
    visible_weight: float = 0.0
    max_epochs: int = 100
    patience: int = 100
    batch_size: int = 128
    lr: float = 4e-3
    weight_decay: float = 0.01
    bf16: bool = False


@dataclass
class _Progress:
    """Where a run stands; with the weights, the optimizer and the generator all that a resumed run needs."""

    epoch: int = 0
    best_epoch: int = 0
    best_error: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


def draw_held_out(observed: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Known cells to keep out of training: `fraction` of each column's, never a row's or column's last; bool (n, F)."""
    chance = torch.rand(observed.shape, generator=generator, device=generator.device).to(observed.device)
    held_out = observed & (chance < fraction)
    crowded = (observed.sum(0) >= 4) & (observed & ~held_out).any(0)
    alone = (observed & ~held_out).any(1, keepdim=True)
    return held_out & crowded & alone


def train(
    model: MaskedAutoencoder,
    values: Tensor,
    observed: Tensor,
    plan: Plan,
    generator: torch.Generator,
    *,
    held_out: Tensor | None = None,
    sample_weight: Tensor | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    verbose: int = 0,
) -> list[dict[str, float]]:
    """Train the model in place on hidden cells and leave it with its best averaged weights.

    Parameters
    ----------
    values : (n, F) on the model's device; anything where not observed.
    observed : bool (n, F), cells to learn from.
    held_out : bool (n, F), known cells outside `observed` by which the best weights are chosen; None keeps the last ones.
    sample_weight : (n,), weights of the rows.
    callbacks : called with the record of every check; one that returns True ends the training.
    checkpoint : file that keeps the state after every check; a run that finds it there goes on from it.
    verbose : 1 shows a progress bar.

    Returns
    -------
    history : a record a check: epoch, error on hidden cells, held-out error.

    Raises
    ------
    TrainingError : the loss is not finite; the checkpoint is of another run.
    """
    n_rows = len(values)
    n_batches = max(1, round(n_rows / plan.batch_size))
    passes = max(1, min(BLOCK_CELLS // max(1, values.numel()), -(-plan.max_epochs // N_CHECKS)))
    n_steps = n_batches * plan.max_epochs
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=plan.lr, weight_decay=plan.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share_of_lr(step, n_steps))
    averaged = deepcopy(model)
    average = [p for p in averaged.parameters() if p.requires_grad]
    decay = _decay(n_steps)
    best: dict[str, Tensor] = {}
    progress = _Progress()
    check = _HeldOut(model, values, observed, held_out)
    checks_every = max(passes, plan.max_epochs // N_CHECKS)
    weight = torch.ones(n_rows, device=values.device) if sample_weight is None else sample_weight.to(values.device)
    bar = tqdm(total=plan.max_epochs, disable=verbose < 1, unit="epoch", leave=True)
    with torch.random.fork_rng(devices=[values.device] if values.is_cuda else []), bar:
        try:
            while progress.epoch < plan.max_epochs:
                passes = min(passes, plan.max_epochs - progress.epoch)
                torch.manual_seed(_seed(generator))
                model.train()
                losses = []
                for rows, visible, hidden, guess in _batches(model, values, observed, plan, generator, n_batches, passes):
                    optimizer.zero_grad(set_to_none=True)
                    with torch.autocast(values.device.type, torch.bfloat16, enabled=plan.bf16):
                        distribution = model(values[rows], visible, guess)
                    errors = model.tokenizer.errors(distribution, values[rows])
                    loss = masked_mean(errors, hidden, weight[rows, None])
                    if plan.visible_weight:
                        loss = loss + plan.visible_weight * masked_mean(errors, visible, weight[rows, None])
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                    optimizer.step()
                    schedule.step()
                    with torch.no_grad():
                        for mean, parameter in zip(average, parameters, strict=True):
                            mean.lerp_(parameter, 1 - decay)
                    losses.append(loss.detach())
                progress.epoch += passes
                bar.update(passes)
                if progress.epoch % checks_every >= passes and progress.epoch < plan.max_epochs:
                    continue
                record = {"epoch": float(progress.epoch), "error": torch.stack(losses).mean().item()}
                _refuse_non_finite(record, progress)
                record["held_out_error"] = check.error(averaged)
                progress.history.append(record)
                if not best or not check.exists or record["held_out_error"] < progress.best_error:
                    progress.best_error, progress.best_epoch = record["held_out_error"], progress.epoch
                    best = {name: tensor.clone() for name, tensor in averaged.state_dict().items()}
                bar.set_postfix(held_out=f"{progress.best_error:.4f}")
                if any([callback(record) is True for callback in callbacks]):
                    break
                if progress.epoch - progress.best_epoch >= plan.patience:
                    break
        except KeyboardInterrupt:
            if not best:
                raise
            warnings.warn(
                f"Training was interrupted after epoch {progress.epoch} of {plan.max_epochs}; the best model so far is kept, "
                f"of epoch {progress.best_epoch}.",
                stacklevel=2,
            )
    model.load_state_dict(best)
    model.eval()
    return progress.history


def _batches(
    model: MaskedAutoencoder,
    values: Tensor,
    observed: Tensor,
    plan: Plan,
    generator: torch.Generator,
    n_batches: int,
    passes: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Guess | None]]:
    """Batches of `passes` epochs: rows, visible and hidden cells, the expert's guess.

    Masks are drawn and the expert is asked for a block of batches at once.
    """
    batches: list[Tensor] = []
    for _ in range(passes):
        order = torch.randperm(len(values), generator=generator, device=generator.device).to(values.device)
        batches.extend(torch.tensor_split(order, n_batches))
    per_block = max(1, BLOCK_CELLS // (len(batches[0]) * values.shape[1]))
    for start in range(0, len(batches), per_block):
        block = batches[start : start + per_block]
        rows = torch.cat(block)
        known = observed[rows]
        ratio = draw_ratio(plan.mask_ratio, len(rows), generator).to(values.device)
        hidden = plan.mask(known, ratio, generator)
        visible = known & ~hidden
        guess = model.guess(values[rows], visible)
        sizes = [len(batch) for batch in block]
        guesses: Sequence[Guess | None] = [None] * len(block)
        if guess is not None:
            guesses = [Guess(*parts) for parts in zip(*(part.split(sizes) for part in guess), strict=True)]
        yield from zip(block, visible.split(sizes), hidden.split(sizes), guesses, strict=True)


class _HeldOut:
    """Error on held-out cells, predicted from the cells that training may see."""

    def __init__(self, model: MaskedAutoencoder, values: Tensor, observed: Tensor, held_out: Tensor | None) -> None:
        rows = torch.zeros(0, dtype=torch.long) if held_out is None else torch.nonzero(held_out.any(1))[:, 0]
        self.exists = len(rows) > 0
        if held_out is None or not self.exists:
            return
        rows = rows[:: -(-len(rows) // MAX_CHECK_ROWS)]
        self.values, self.visible, self.cells = values[rows], observed[rows], held_out[rows]
        self.guess = model.guess(self.values, self.visible)

    @torch.no_grad()
    def error(self, model: MaskedAutoencoder) -> float:
        if not self.exists:
            return math.nan
        model.eval()
        distribution = model(self.values, self.visible, self.guess)
        return masked_mean(model.tokenizer.errors(distribution, self.values), self.cells).item()


def _share_of_lr(step: int, n_steps: int) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    warm_up = max(1, round(WARM_UP * n_steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, n_steps - warm_up))))


def _decay(n_steps: int) -> float:
    """Decay of the averaged weights: they span about a sixth of the run."""
    return 1 - 6 / max(12, n_steps)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(0, 2**31 - 1, (1,), generator=generator, device=generator.device).item())


def _refuse_non_finite(record: dict[str, float], progress: _Progress) -> None:
    if math.isfinite(record["error"]):
        return
    last: Any = progress.history[-1]["error"] if progress.history else "none"
    raise TrainingError(
        f"The training loss must stay finite; it was {record['error']} at epoch {int(record['epoch'])} (last finite loss: {last}). "
        "Lower `lr`, or look for extreme values in X."
    )
