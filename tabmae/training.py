"""The training loop of every estimator: fresh masks, schedule, early stop on held-out cells, checkpoints.

Contract: the only drawer of masks. The same generator gives the same weights; a resumed run equals an uninterrupted
one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from tabmae.deadline import NEVER, Deadline
from tabmae.errors import TrainingError, TrainingInterruptedWarning, warn
from tabmae.generators import generators_kept, seed_generators
from tabmae.held_out import Autoencoder, HeldOut
from tabmae.losses import masked_mean
from tabmae.masks import draw_ratio
from tabmae.optimizer import LONGEST_GRADIENT, AdamW
from tabmae.schedule import rises, share_averaged, share_of_lr

BLOCK_CELLS = 400_000
"""Cells for which the expert is asked at once; a call a batch would cost more than it answers."""
BLOCK_CELLS_IN_HASTE = 50_000
"""The same under a deadline, which a block may overrun."""
N_CHECKS = 15
"""Rounds of a run, each closed by a check on the held-out cells."""

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
    most_rise : share of the best held-out error by which two checks in a row may be worse, the second more so, before
        training stops: of averaged weights hardly any error falls again.
    batch_size : rows. lr : peak of the cosine schedule. weight_decay : of AdamW.
    bf16 : autocast on a GPU.
    """

    mask: Callable[[Tensor, Tensor, torch.Generator], Tensor]
    mask_ratio: float | tuple[float, float] = (0.1, 0.9)
    visible_weight: float = 0.0
    max_epochs: int = 100
    patience: int = 100
    most_rise: float = math.inf
    batch_size: int = 128
    lr: float = 4e-3
    weight_decay: float = 0.01
    bf16: bool = False


class History(list[dict[str, float]]):
    """A record a check. `cut_short` : a callback or the keyboard ended the training."""

    cut_short = False


def draw_held_out(observed: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Known cells to keep out of training, about `fraction` of them; bool (n, F).

    Columns of fewer than four known cells lose none, and no row loses its last one.
    """
    chance = torch.rand(observed.shape, generator=generator, device=generator.device)
    held_out = observed & (chance < fraction) & (observed.sum(0) >= 4)
    left = observed & ~held_out
    return held_out & left.any(0) & left.any(1, keepdim=True)


def train(
    model: Autoencoder,
    values: Tensor,
    observed: Tensor,
    plan: Plan,
    generator: torch.Generator,
    *,
    held_out: Tensor | None = None,
    sample_weight: Tensor | None = None,
    deadline: Deadline = NEVER,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    verbose: int = 0,
) -> History:
    """Train the model in place on hidden cells and leave it with its best averaged weights.

    Parameters
    ----------
    values : (n, F) on the model's device; anything where not observed.
    observed : bool (n, F), cells to learn from.
    held_out : bool (n, F), known cells outside `observed` by which the best weights are chosen; None keeps the last.
    sample_weight : (n,), weights of the rows.
    deadline : when to be done; the schedule runs over the epochs or the seconds, whichever end first.
    callbacks : called with the record of every check; one that returns True ends the training.
    checkpoint : file that keeps the state after every check; a run that finds it there goes on from it.
    verbose : 1 shows a progress bar.

    Returns
    -------
    history : a record a check: epoch, error on hidden cells, held-out error.

    Raises
    ------
    TrainingError : the loss is not finite; the checkpoint is damaged, of another run, or in no folder.
    """
    run = _Run(model, values, observed, plan, generator, held_out, sample_weight, deadline)
    if checkpoint is not None:
        run.take_up(Path(checkpoint))
    progress, cut_short = run.progress, False
    bar = tqdm(total=plan.max_epochs, initial=round(progress.epoch), disable=verbose < 1, unit="epoch")
    with bar:
        try:
            while not (run.finished or cut_short):
                record = run.advance()
                if checkpoint is not None:
                    run.save(Path(checkpoint))
                bar.update(round(progress.epoch) - bar.n)
                bar.set_postfix(held_out=f"{progress.best_error:.4f}")
                answers = [callback(record) for callback in callbacks]
                cut_short = any(answer is True for answer in answers)
        except KeyboardInterrupt:
            if not run.best:
                raise
            cut_short = True
            warn(
                f"Training was interrupted after epoch {progress.epoch:g} of {plan.max_epochs}; the best model so far "
                f"is kept, of epoch {progress.best_epoch:g}.",
                TrainingInterruptedWarning,
            )
    model.load_state_dict(run.best)
    model.eval()
    history = History(progress.history)
    history.cut_short = cut_short
    return history


@dataclass
class _Progress:
    """Where a run stands; with the weights, the optimizer and the generator all that a resumed run needs."""

    epoch: float = 0.0
    step: int = 0
    ahead: float = 0.0  # steps of the schedule left out for want of time
    best_epoch: float = 0.0
    best_error: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)


class _Run:
    """One training run: it advances by rounds of epochs, each closed by a check on the held-out cells."""

    def __init__(
        self,
        model: Autoencoder,
        values: Tensor,
        observed: Tensor,
        plan: Plan,
        generator: torch.Generator,
        held_out: Tensor | None,
        sample_weight: Tensor | None,
        deadline: Deadline,
    ) -> None:
        self.model, self.values, self.observed = model, torch.where(observed, values, 0), observed
        self.plan, self.generator, self.deadline = plan, generator, deadline
        weight = torch.ones(len(values)) if sample_weight is None else sample_weight
        self.weight = weight.to(values.device)[:, None]
        self.n_batches = max(1, round(len(values) / plan.batch_size))
        self.n_steps = self.n_batches * plan.max_epochs
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = AdamW(self.parameters, plan.weight_decay, LONGEST_GRADIENT)
        self.averaged = deepcopy(model)
        self.means = [parameter for parameter in self.averaged.parameters() if parameter.requires_grad]
        self.check = HeldOut(model, values, observed, held_out, self.weight)
        self.best: dict[str, Tensor] = {}
        self.progress = _Progress()
        self.taken_up_at = 0.0

    @property
    def scheduled(self) -> float:
        return self.progress.step + self.progress.ahead

    @property
    def finished(self) -> bool:
        waited = self.progress.epoch - self.progress.best_epoch
        return (
            self.scheduled >= self.n_steps
            or waited >= self.plan.patience
            or rises(self.progress.history, self.plan.most_rise)
        )

    def advance(self) -> dict[str, float]:
        """Train for a round of epochs, judge the averaged weights and keep the best; returns the round's record."""
        progress, plan = self.progress, self.plan
        left = math.ceil(plan.max_epochs - self.scheduled / self.n_batches)
        n_epochs = min(-(-plan.max_epochs // N_CHECKS), left)
        end = min(self.scheduled + n_epochs * self.n_batches, self.n_steps)
        self.model.train()
        errors = []
        with generators_kept(self.values.device):
            seed_generators(self.values.device, draw_seed(self.generator))
            for batch in self._batches(n_epochs):
                errors.append(self._step(*batch))
                if self.scheduled >= end:
                    break
        progress.epoch = progress.step / self.n_batches
        record = {"epoch": float(progress.epoch), "error": torch.stack(errors).mean().item()}
        _refuse_non_finite(record, progress.history)
        record["held_out_error"] = self.check.error(self.averaged)
        progress.history.append(record)
        if not self.check.exists or record["held_out_error"] < progress.best_error or not self.best:
            progress.best_error, progress.best_epoch = record["held_out_error"], progress.epoch
            self.best = {name: tensor.clone() for name, tensor in self.averaged.state_dict().items()}
        return record

    def _step(self, rows: Tensor, visible: Tensor, hidden: Tensor, guess: Any) -> Tensor:
        """One step on a batch of rows; returns its loss."""
        values, weight = self.values[rows], self.weight[rows]
        with torch.autocast(values.device.type, torch.bfloat16, enabled=self.plan.bf16):
            distribution = self.model(values, visible, guess)
        errors = self.model.tokenizer.errors(distribution, values)
        loss = masked_mean(errors, hidden, weight)
        if self.plan.visible_weight:
            loss = loss + self.plan.visible_weight * masked_mean(errors, visible, weight)
        loss.backward()
        before = self.scheduled
        self.optimizer.step(self.plan.lr * share_of_lr(before, self.n_steps))
        self.progress.step += 1
        due = self.taken_up_at + self.deadline.spent() * self.n_steps
        self.progress.ahead = max(self.progress.ahead, due - self.progress.step)
        share = share_averaged(self.scheduled - before, self.n_steps)
        with torch.no_grad():
            for mean, parameter in zip(self.means, self.parameters, strict=True):
                mean.lerp_(parameter, share)
        return loss.detach()

    def _batches(self, n_epochs: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Any]]:
        """Batches of `n_epochs` passes: rows, visible and hidden cells, the expert's guess.

        The expert is asked for a block of batches at once.
        """
        n_rows, n_features = self.values.shape
        batches: list[Tensor] = []
        for _ in range(n_epochs):
            order = torch.randperm(n_rows, generator=self.generator, device=self.generator.device)
            batches.extend(torch.tensor_split(order, self.n_batches))
        most = BLOCK_CELLS_IN_HASTE if self.deadline.exists else BLOCK_CELLS
        per_block = max(1, most // (len(batches[0]) * n_features))
        for start in range(0, len(batches), per_block):
            block = batches[start : start + per_block]
            rows = torch.cat(block)
            known = self.observed[rows]
            sizes = [len(batch) for batch in block]
            hidden = torch.cat([self._hidden(cells) for cells in known.split(sizes)])
            visible = known & ~hidden
            guess = self.model.guess(self.values[rows], visible)
            guesses: Sequence[Any] = [None] * len(block)
            if guess is not None:
                kind = type(guess)
                guesses = [kind(*parts) for parts in zip(*(part.split(sizes) for part in guess), strict=True)]
            yield from zip(block, visible.split(sizes), hidden.split(sizes), guesses, strict=True)

    def _hidden(self, observed: Tensor) -> Tensor:
        """Fresh masks of a batch's observed cells."""
        ratio = draw_ratio(self.plan.mask_ratio, len(observed), self.generator)
        return self.plan.mask(observed, ratio, self.generator)

    def save(self, path: Path) -> None:
        """Write the whole state to a file, whole or not at all."""
        tensors = {"generator": self.generator.get_state()}
        for prefix, state in (("model", self.model), ("averaged", self.averaged)):
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in state.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state_dict().items()}
        progress = json.dumps(asdict(self.progress))
        record = {"run": self.fingerprint, "progress": progress, "digest": _digest(tensors, progress)}
        written = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, written, record)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)

    def take_up(self, path: Path) -> None:
        """Go on from the state in a file, if it is there.

        Raises
        ------
        TrainingError : the file is damaged, or of other data, parameters or seed; its folder is not there.
        """
        fingerprint = self.fingerprint
        if not path.parent.is_dir():
            raise TrainingError(
                f"`checkpoint` must lie in a folder that exists; {str(path.parent)!r} is none. Make it first."
            )
        if not path.exists():
            return
        record, tensors = _read(path)
        if record["run"] != fingerprint:
            raise TrainingError(
                f"`checkpoint` must be of the same data, parameters and seed; {str(path)!r} is of another run. "
                "Delete it, or pass another path."
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "best": {}, "optimizer": {}}
        self.generator.set_state(tensors.pop("generator").cpu())
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.model.load_state_dict(parts["model"])
        self.averaged.load_state_dict(parts["averaged"])
        self.best = {name: tensor.to(self.values.device) for name, tensor in parts["best"].items()}
        self.optimizer.load_state_dict(parts["optimizer"])
        self.progress = _Progress(**json.loads(record["progress"]))
        self.taken_up_at = self.scheduled

    @cached_property
    def fingerprint(self) -> str:
        """Digest of what makes a run: data, plan, model, the generator's and the weights' start."""
        plan = vars(self.plan) | {"mask": _described(self.plan.mask)}
        tensors = {"values": self.values, "observed": self.observed, "weight": self.weight}
        tensors |= {"checked": self.check.values, "held_out": self.check.cells, "generator": self.generator.get_state()}
        tensors |= {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        return _digest(tensors, repr((sorted(plan.items()), self.model.tokenizer.loss, str(self.model))))


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Record and tensors of a checkpoint, if they are whole."""
    try:
        with safe_open(path, framework="pt") as file:
            record, names = file.metadata() or {}, file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
        if record.get("digest") != _digest(tensors, record.get("progress", "")):
            raise SafetensorError("its digest differs")
    except (SafetensorError, OSError) as error:
        raise TrainingError(
            f"`checkpoint` must be a file written in training; {str(path)!r} is not: {error}. "
            "Delete it, or pass another path."
        ) from error
    return record, tensors


def _described(mask: object) -> str:
    """A mask strategy's name and settings, the same in every process."""
    if isinstance(mask, partial):
        parts = [_described(part) for part in (mask.func, *mask.args)]
        return f"{parts} {sorted(mask.keywords.items())}"
    return getattr(mask, "__qualname__", type(mask).__qualname__)


def draw_seed(generator: torch.Generator) -> int:
    """A seed for a generator that knows only integers."""
    return int(torch.randint(0, 2**31 - 1, (1,), generator=generator, device=generator.device).item())


def _refuse_non_finite(record: dict[str, float], history: list[dict[str, float]]) -> None:
    if math.isfinite(record["error"]):
        return
    last = history[-1]["error"] if history else "none"
    raise TrainingError(
        f"The training loss must stay finite; it was {record['error']} at epoch {int(record['epoch'])} (last finite "
        f"loss: {last}). Lower `lr`, or look for extreme values in X."
    )
