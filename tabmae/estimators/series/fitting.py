"""Fit the masked autoencoder of windows: experts, the pool of windows, training, how far its correction is believed.

Contract: validation windows lie in steps that neither the experts nor the training windows have seen before they judge.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tabmae.backbones import build_backbone
from tabmae.estimators import base
from tabmae.estimators.series.checks import series_experts
from tabmae.estimators.series.sizes import Size, groups_of
from tabmae.estimators.series.standard import Line
from tabmae.experts.interpolation import interpolate
from tabmae.experts.stationary import Stationary
from tabmae.generators import CPU, generators_kept, seed_generators
from tabmae.masks import SERIES_MASKS, draw_ratio, get_mask
from tabmae.series_model import SeriesAutoencoder
from tabmae.tokenizers import PatchTokenizer
from tabmae.training import Callback, Plan, draw_seed, train

RATIO = (0.05, 0.8)
RIDGES = (1e-3, 1e-2, 1e-1)
TAPERS = (0.0, 0.5, 1.0)
MAX_CHOOSING = 64
"""Windows by which taper and ridge are chosen."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
JUDGED_SHARE = 0.2
"""Share of the steps, or of the series, that judge."""
LEAST_SEEN = 2
"""Steps with an observed cell that a window must hold to teach or judge, where any does."""
MANY_SERIES = 20
MAX_JUDGED = 192
N_ROUNDS = 3
"""Rounds of estimating lag covariances from series filled by the last ones, where cells are missing."""
FULL_ENOUGH = 0.98
MANY_CELLS = 600
"""Cells of a window beyond which only the taper that is best without rounds is tried with them."""
MAX_FILLED = 2000
"""Windows that are filled to estimate the lag covariances again."""
HOPE = 1 / 3
"""Share of the epochs after which training goes on only if the network adds something by then."""
LEAST_GAIN = 0.001
"""Share of the experts' error that it must take off: gains come late, of a few percent at the end a tenth is there."""


class Judgement(NamedTuple):
    """Held-out cells of validation windows and what is believed of them; each (n_windows, W, C)."""

    values: Tensor
    visible: Tensor
    hidden: Tensor
    guess: Tensor
    mean: Tensor
    deviation: Tensor
    line: Tensor


class Drawn(NamedTuple):
    """Windows (n, W * C): those that teach first, then those that judge by their held-out cells.

    taught : bool (N, C), cells of the line that experts may learn from. mask : the strategy that hides cells.
    """

    cells: Tensor
    observed: Tensor
    held_out: Tensor
    taught: Tensor
    n_teaching: int
    mask: Any


class Fitted(NamedTuple):
    """What fitting leaves."""

    model: SeriesAutoencoder
    size: Size
    history: list[dict[str, float]]
    judgement: Judgement | None


def split_steps(lengths: tuple[int, ...], window: int, generator: torch.Generator) -> NDArray[np.int64]:
    """For every series the step from which on it judges; its length where it only teaches, 0 where it only judges."""
    length = np.asarray(lengths, dtype=np.int64)
    if len(length) >= MANY_SERIES:
        chosen = torch.rand(len(length), generator=generator, device=generator.device) < JUDGED_SHARE
        return np.where(chosen.cpu().numpy(), 0, length)
    kept = np.minimum(length - (length * JUDGED_SHARE).astype(np.int64), length - window)
    return np.where(kept >= 2 * window, kept, length)


def fit_windows(
    estimator: Any, line: Line, values: NDArray[np.float64], lengths: tuple[int, ...], size: Size
) -> Fitted:
    """Fit experts and network to a panel in one line.

    Parameters
    ----------
    values : (sum of lengths, C), in standard deviations, NaN where missing.
    """
    device = base.pick_device(estimator.device)
    generator = base.new_generator(estimator.random_state)
    n_channels = values.shape[1]
    drawn = drawn_windows(estimator, line, lengths, size, generator)
    experts, groups = [], groups_of(values)
    if "gaussian" in series_experts(estimator.experts):
        experts = [fit_expert(line, drawn, channels, size.window) for channels in groups]
    loss = "huber" if estimator.loss == "auto" else estimator.loss
    model = build(size, n_channels, experts, groups, generator, loss).to(device)
    history = trained(estimator, model, size, drawn, generator)
    judgement = judged_by(model, drawn, believed=bool(history))
    return Fitted(model.eval(), size, history, judgement)


def refit_experts(model: SeriesAutoencoder, line: Line) -> None:
    """Let the experts learn from all steps, once those that judged have judged."""
    for channels, expert in zip(model.groups if len(model.experts) else (), model.experts, strict=True):
        cast(Stationary, expert).refit(line.values[:, channels], line.observed[:, channels], MAX_FILLED)


def drawn_windows(
    estimator: Any, line: Line, lengths: tuple[int, ...], size: Size, generator: torch.Generator
) -> Drawn:
    """Draw the windows that teach, lay out those that judge, and hide some of the latter's cells."""
    n_channels, window = line.values.shape[1], size.window
    splits = split_steps(lengths, window, generator)
    judging = torch.zeros(len(line.values), dtype=torch.bool)
    offset = np.concatenate([[0], np.cumsum(lengths)])
    for i, split in enumerate(splits):
        judging[line.place[offset[i] + split : offset[i + 1]]] = True
    starts = line.covering(window, 1)
    inside = counted(judging, starts, window)
    seen = counted(line.observed.any(1), starts, window)
    full = seen >= min(LEAST_SEEN, int(seen.max()))
    teaching = starts[(inside == 0) & full]
    judged = thinned(starts[(inside > 0) & judging[starts] & full], window)
    if not len(teaching):
        teaching, judged = starts[full], starts[:0]
        judging = torch.zeros_like(judging)
    mask = partial(mask_of(estimator.mask), feature_shape=(window, n_channels))
    pool = teaching[torch.randint(len(teaching), (size.n_windows,), generator=generator)]
    cells, observed = line.windows(torch.cat([pool, judged]), window)
    held_out = torch.zeros_like(observed)
    if len(judged):
        ratio = draw_ratio(RATIO, len(judged), generator)
        held_out[len(pool) :] = mask(observed[len(pool) :], ratio, generator)
    return Drawn(cells, observed, held_out, line.observed & ~judging[:, None], len(pool), mask)


def counted(chosen: Tensor, starts: Tensor, window: int) -> Tensor:
    """How many of the steps of each window are chosen."""
    total = torch.cat([torch.zeros(1, dtype=torch.float64), chosen.double()]).cumsum(0)
    return total[starts + window] - total[starts]


def judged_by(model: SeriesAutoencoder, drawn: Drawn, *, believed: bool) -> Judgement | None:
    """Judge a model by the windows kept for that; None where there are none. A network untrained is not believed."""
    model.eval()
    judgement = None
    if len(model.experts) and not believed:
        model.share.zero_()
    if len(drawn.cells) > drawn.n_teaching:
        device = model.share.device
        parts = (part[drawn.n_teaching :].to(device) for part in (drawn.cells, drawn.observed, drawn.held_out))
        judgement = judge(model, *parts, believed=believed)
    return judgement


def trained(
    estimator: Any, model: SeriesAutoencoder, size: Size, drawn: Drawn, generator: torch.Generator
) -> list[dict[str, float]]:
    """Train the network in place on windows as the estimator's parameters say; nothing for 0 epochs.

    With the patience left to us, training ends a third through where the network then adds nothing to the experts.
    """
    device = model.share.device
    n_epochs = estimator.max_epochs
    if n_epochs == "auto":
        n_epochs = max(1, round(size.n_steps / max(1, round(len(drawn.cells) / size.batch_size))))
    if n_epochs == 0:
        return []
    callbacks = list(estimator.callbacks or ())
    if estimator.patience == "auto" and len(model.experts):
        callbacks.append(giving_up(model, drawn, HOPE * n_epochs))
    with base.out_of_memory_explained(size.batch_size):
        return train(
            model,
            drawn.cells.to(device),
            (drawn.observed & ~drawn.held_out).to(device),
            Plan(
                mask=drawn.mask,
                mask_ratio=RATIO if estimator.mask_ratio == "auto" else estimator.mask_ratio,
                max_epochs=n_epochs,
                patience=n_epochs if estimator.patience == "auto" else estimator.patience,
                batch_size=size.batch_size,
                lr=size.lr,
                weight_decay=0.05,
            ),
            generator if device.type == "cpu" else base.new_generator(estimator.random_state, device),
            held_out=drawn.held_out.to(device),
            callbacks=callbacks,
            verbose=estimator.verbose,
        )


def giving_up(model: SeriesAutoencoder, drawn: Drawn, epoch: float) -> Callback:
    """A callback that ends training at the first check from an epoch on, unless the network adds something by then."""
    asked = False

    def callback(record: dict[str, float]) -> bool:
        nonlocal asked
        if asked or record["epoch"] < epoch:
            return False
        asked, share = True, model.share.clone()
        judgement = judged_by(model, drawn, believed=True)
        model.share = share  # what is validated from here on is the network alone, as before
        return judgement is not None and adds_nothing(judgement)

    return callback


def adds_nothing(judgement: Judgement) -> bool:
    """Whether the believed correction takes next to nothing off the experts' error on held-out cells."""
    alone, corrected = (
        (part - judgement.values)[judgement.hidden].abs().mean() for part in (judgement.guess, judgement.mean)
    )
    return bool(corrected >= (1 - LEAST_GAIN) * alone)


def tune_windows(estimator: Any, model: SeriesAutoencoder, line: Line, lengths: tuple[int, ...], size: Size) -> Fitted:
    """Train a copy of a fitted model on with windows of other series; its experts stay."""
    generator = base.new_generator(estimator.random_state)
    drawn = drawn_windows(estimator, line, lengths, size, generator)
    model = deepcopy(model)
    fewer = size._replace(n_steps=max(1, size.n_steps // base.SHORTER_WHEN_GOING_ON), lr=size.lr / 2)
    history = trained(estimator, model, fewer, drawn, generator)
    return Fitted(model.eval(), size, history, judged_by(model, drawn, believed=bool(history)))


def thinned(starts: Tensor, window: int) -> Tensor:
    """Starts about half a window apart, at most `MAX_JUDGED` of them."""
    if not len(starts):
        return starts
    step = max(1, min(window // 2, len(starts) // 16), -(-len(starts) // MAX_JUDGED))
    return starts[::step][:MAX_JUDGED]


def mask_of(mask: Any) -> Any:
    """The masking strategy of a name; "mixed" is what series lack."""
    if callable(mask):
        return get_mask(mask)
    return SERIES_MASKS["gaps"] if mask == "mixed" else SERIES_MASKS.get(mask) or get_mask(mask)


def fit_expert(line: Line, drawn: Drawn, channels: list[int], window: int) -> Stationary:
    """Fit the Gaussian of a group of channels; taper, rounds and ridge are those that miss judging cells least."""
    values, seen = line.values[:, channels], drawn.taught[:, channels]
    shape = len(drawn.cells) - drawn.n_teaching, window, line.values.shape[1]
    step = max(1, shape[0] // MAX_CHOOSING)
    cells, observed, hidden = (
        part[drawn.n_teaching :].reshape(shape)[::step, :, channels].flatten(1)
        for part in (drawn.cells, drawn.observed, drawn.held_out)
    )
    share = float(seen.sum()) / max(1, int(seen.any(1).sum()) * len(channels))
    if not bool(hidden.any()):
        return Stationary(window, len(channels)).fit(values, seen, RIDGES[1], TAPERS[-1])
    found: list[Stationary] = []
    errors: list[tuple[float, float]] = []

    def attempt(expert: Stationary) -> None:
        errors.extend(missed(expert.set_ridge(ridge), cells, observed, hidden) for ridge in RIDGES)
        found.append(deepcopy(expert))

    for taper in TAPERS:
        attempt(Stationary(window, len(channels)).fit(values, seen, RIDGES[0], taper))
    if share < FULL_ENOUGH:
        every = found[:] if cells.shape[1] <= MANY_CELLS else [found[least(errors) // len(RIDGES)]]
        for expert in every:
            filled = deepcopy(expert).set_ridge(RIDGES[0])
            for _ in range(N_ROUNDS):
                filled.estimate_again(values, seen, MAX_FILLED)
            attempt(filled)
    best = least(errors)
    return found[best // len(RIDGES)].set_ridge(RIDGES[best % len(RIDGES)])


def least(errors: list[tuple[float, float]]) -> int:
    """The candidate whose errors are least in sum, each in times of its least one."""
    return int(np.argmin((np.array(errors) / np.min(errors, axis=0).clip(1e-9)).sum(1)))


def missed(expert: Stationary, cells: Tensor, observed: Tensor, hidden: Tensor) -> tuple[float, float]:
    """Mean absolute error of hidden cells, most of them far from visible ones, and of single ones left out."""
    visible = observed & ~hidden
    found = expert.condition(cells, visible)
    residuals = (found.mean - cells)[hidden], (found.left_out - cells)[visible]
    return float(residuals[0].abs().mean()), float(residuals[1].abs().mean())


def build(
    size: Size,
    n_channels: int,
    experts: list[Stationary],
    groups: list[list[int]],
    generator: torch.Generator,
    loss: str,
) -> SeriesAutoencoder:
    """The model with the network's first weights drawn under the generator."""
    with generators_kept():
        seed_generators(CPU, draw_seed(generator))
        tokenizer = PatchTokenizer(size.window, n_channels, size.patch, size.d_token, loss)
        backbone = build_backbone(
            size.backbone,
            n_tokens=tokenizer.n_tokens,
            d_token=size.d_token,
            depth=size.depth,
            dropout=size.dropout,
        )
    return SeriesAutoencoder(tokenizer, backbone, experts, groups)


@torch.no_grad()
def judge(model: SeriesAutoencoder, values: Tensor, observed: Tensor, hidden: Tensor, *, believed: bool) -> Judgement:
    """Set how far the correction is believed in each channel, by the held-out cells of validation windows."""
    model.eval()
    visible = observed & ~hidden
    guess = model.guess(values, visible)
    network = model.network(values, visible, guess)
    shape = len(values), model.window, model.n_channels
    target, start, end, cells = (part.reshape(shape) for part in (values, guess.mean, network.mean, hidden))
    if len(model.experts) and believed:
        count = cells.sum((0, 1)).clamp_min(1)
        errors = torch.stack(
            [((start + share * (end - start) - target).abs() * cells).sum((0, 1)) / count for share in SHARES]
        )
        pooled = errors.mean(1, keepdim=True)
        own = errors * (count / (count + 200.0)) + pooled * (200.0 / (count + 200.0))
        model.share = torch.tensor(SHARES, device=values.device)[own.argmin(0)]
    mean = model.believed(guess, network, visible).reshape(shape)
    deviation = network.deviation.reshape(shape)
    line = interpolate(target, visible.reshape(shape)).mean
    parts = target, visible.reshape(shape), cells, start, mean, deviation, line
    return Judgement(*(part.cpu() for part in parts))
