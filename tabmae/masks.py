"""Masking strategies: which of the observed cells a training step withholds.

Contract: `f(observed, mask_ratio, generator) -> hidden`, all masks bool (B, F), `hidden` a subset of `observed`; all
randomness comes from `generator`, on its own device. Save for `copy`, each observed cell is hidden with the probability
`mask_ratio` of its row, so that no feature is trained more than another.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tabmae.errors import ParameterError, check_choice, check_number

RATIO_HINT = (
    "Pass the share of observed cells to hide, for example 0.5, or a pair such as (0.1, 0.9) to draw it for each row."
)

Mask = Callable[..., Tensor]


def check_mask_ratio(mask_ratio: object) -> None:
    """Refuse a mask ratio that is neither a number in (0, 1) nor a pair (low, high) of such numbers.

    Raises
    ------
    ParameterError : wrong type, length, range or order.
    """
    bounds: tuple[Any, ...] = tuple(mask_ratio) if isinstance(mask_ratio, tuple | list) else (mask_ratio, mask_ratio)
    if len(bounds) != 2:
        raise ParameterError(f"`mask_ratio` must be one number or two; got {mask_ratio!r}. {RATIO_HINT}")
    for bound in bounds:
        check_number("mask_ratio", bound, low=0, high=1, low_open=True, high_open=True, hint=RATIO_HINT)
    if bounds[0] > bounds[1]:
        raise ParameterError(f"`mask_ratio` must be a pair (low, high) in this order; got {mask_ratio!r}. Swap them.")


def draw_ratio(mask_ratio: float | tuple[float, float], n: int, generator: torch.Generator) -> Tensor:
    """Give the mask ratio of `n` rows, float32 (n,): the number itself, or uniform draws between the two of a pair."""
    if isinstance(mask_ratio, tuple | list):
        low, high = mask_ratio
        return low + (high - low) * _uniform((n,), generator)
    return torch.full((n,), mask_ratio, dtype=torch.float32, device=generator.device)


def bernoulli(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide every cell on its own."""
    hidden = _uniform(observed.shape, generator) < mask_ratio.to(generator.device)[:, None]
    return observed & hidden.to(observed.device)


def block(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide a run of neighbouring features; with `feature_shape` a box, a rectangle where it is a pair.

    The first feature is the last one's neighbour along every axis: a run that had to end at the border would hide the
    middle features more often than the outer ones. The sides of a box are drawn, its area is `mask_ratio` of the whole.
    """
    shape = _checked_shape(feature_shape, observed.shape[1])
    n_rows, ratio = len(observed), mask_ratio.to(generator.device)
    portion = 0.5 + _uniform((len(shape), n_rows), generator)
    inside = torch.ones(n_rows, 1, dtype=torch.bool, device=generator.device)
    for size, exponent in zip(shape, portion / portion.sum(0), strict=True):
        length = (size * ratio**exponent + _uniform((n_rows,), generator)).floor()
        start = (size * _uniform((n_rows,), generator)).floor()
        offset = torch.arange(size, device=generator.device) - start[:, None]
        run = torch.where(offset < 0, offset + size, offset) < length[:, None]
        inside = (inside[:, :, None] & run[:, None, :]).flatten(1)
    return observed & inside.to(observed.device)


def grid(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide every k-th feature from a drawn start, k = 1 / mask_ratio; with `feature_shape` every k-th along each axis.

    Where k is not whole, the hidden features are spread as evenly as can be.
    """
    shape = _checked_shape(feature_shape, observed.shape[1])
    steps = torch.zeros(1, device=generator.device)
    for size in shape:
        steps = (steps[:, None] + torch.arange(size, device=generator.device)).flatten()
    ratio = mask_ratio.to(generator.device)[:, None]
    phase = steps * ratio + _uniform((len(observed), 1), generator)
    return observed & (phase - phase.floor() < ratio).to(observed.device)


def column(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide whole features, the same ones in every row of the batch.

    The ratio of the first row serves the batch: where ratios are drawn, it is a draw like any other.
    """
    n_features, device = observed.shape[1], generator.device
    n_hidden = (n_features * mask_ratio[:1].to(device) + _uniform((1,), generator)).floor()
    hidden = torch.randperm(n_features, generator=generator, device=device) < n_hidden
    return observed & hidden.to(observed.device)


def copy(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide what another row of the batch lacks: holes as they occur in the data, at the data's own rate.

    Where that hides nothing, as in a complete table, the row's cells are hidden one by one at `mask_ratio`.

    Source: copy masking, CACTI (Gorla et al. 2025).
    Differs: every row keeps all that stays visible; the paper cuts it to the batch's median count, for its encoder.
    """
    n_rows, device = len(observed), generator.device
    step = 1 + torch.randint(max(n_rows - 1, 1), (n_rows,), generator=generator, device=device)
    other = ((torch.arange(n_rows, device=device) + step) % max(n_rows, 1)).to(observed.device)
    hidden = observed & ~observed[other]
    return torch.where(hidden.any(1, keepdim=True), hidden, bernoulli(observed, mask_ratio, generator))


def mixed(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Draw one of the other strategies for every row."""
    choice = torch.randint(len(PURE), (len(observed),), generator=generator, device=generator.device).to(
        observed.device
    )
    hidden = torch.zeros_like(observed)
    for number, mask in enumerate(PURE):
        rows = torch.nonzero(choice == number)[:, 0]
        if len(rows):
            hidden[rows] = mask(observed[rows], mask_ratio.to(rows.device)[rows], generator, feature_shape)
    return hidden


def run(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide a run of steps in about half of the channels, each channel's own: gaps of sensors.

    With `feature_shape` (W, C) the features are W steps of C channels; without it, of one.
    """
    n_steps, n_channels = _steps_and_channels(feature_shape, observed.shape[1])
    chosen = _uniform((len(observed), n_channels), generator) < 0.5
    chosen = chosen | (~chosen.any(1, keepdim=True))
    return observed & _stretch(mask_ratio, n_steps, n_channels, chosen, generator, ends=False).to(observed.device)


def blackout(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide a run of steps in all channels at once, with `feature_shape` (W, C) as for `run`."""
    n_steps, n_channels = _steps_and_channels(feature_shape, observed.shape[1])
    chosen = torch.ones(len(observed), 1, dtype=torch.bool, device=generator.device)
    hidden = _stretch(mask_ratio, n_steps, 1, chosen, generator, ends=False).repeat_interleave(n_channels, 1)
    return observed & hidden.to(observed.device)


def suffix(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """Hide the last steps in all channels: a forecast, with `feature_shape` (W, C) as for `run`."""
    n_steps, n_channels = _steps_and_channels(feature_shape, observed.shape[1])
    chosen = torch.ones(len(observed), 1, dtype=torch.bool, device=generator.device)
    hidden = _stretch(mask_ratio, n_steps, 1, chosen, generator, ends=True).repeat_interleave(n_channels, 1)
    return observed & hidden.to(observed.device)


def gaps(
    observed: Tensor, mask_ratio: Tensor, generator: torch.Generator, feature_shape: tuple[int, ...] | None = None
) -> Tensor:
    """What series lack: single points, runs, blackouts or suffixes, drawn for every `SHARED_ROWS` rows.

    Neighbouring rows share a pattern, since a pattern is what a conditional Gaussian is costly for.
    """
    n_rows = len(observed)
    n_patterns = -(-n_rows // SHARED_ROWS)
    every = torch.ones(n_patterns, observed.shape[1], dtype=torch.bool, device=observed.device)
    choice = torch.multinomial(
        torch.tensor(GAP_CHANCES, device=generator.device), n_patterns, replacement=True, generator=generator
    ).to(observed.device)
    hidden = torch.zeros_like(every)
    for number, mask in enumerate(GAPS):
        rows = torch.nonzero(choice == number)[:, 0]
        if len(rows):
            ratio = mask_ratio.to(rows.device)[rows * SHARED_ROWS]
            hidden[rows] = mask(every[rows], ratio, generator, feature_shape)
    return observed & hidden.repeat_interleave(SHARED_ROWS, 0)[:n_rows]


def _steps_and_channels(feature_shape: tuple[int, ...] | None, n_features: int) -> tuple[int, int]:
    shape = _checked_shape(feature_shape, n_features)
    return (shape[0], n_features // shape[0])


def _stretch(
    mask_ratio: Tensor, n_steps: int, n_channels: int, chosen: Tensor, generator: torch.Generator, *, ends: bool
) -> Tensor:
    """A run of `mask_ratio` of the steps in the chosen channels, somewhere or at the end; bool (B, W * C)."""
    ratio = mask_ratio.to(generator.device)[:, None]
    length = (n_steps * ratio).round().clamp(1, n_steps)
    place = 1.0 if ends else _uniform((len(ratio), n_channels), generator)
    start = ((n_steps - length) * place).round()
    step = torch.arange(n_steps, device=generator.device)[None, :, None]
    inside = (step >= start[:, None]) & (step < (start + length)[:, None])
    return (inside & chosen[:, None]).flatten(1)


PURE: tuple[Mask, ...] = (bernoulli, block, grid, column, copy)
MASKS: dict[str, Mask] = {mask.__name__: mask for mask in (*PURE, mixed)}
GAPS: tuple[Mask, ...] = (bernoulli, run, blackout, suffix)
GAP_CHANCES = (0.4, 0.3, 0.15, 0.15)
SHARED_ROWS = 8
SERIES_MASKS: dict[str, Mask] = {mask.__name__: mask for mask in (*GAPS, gaps)}
"""Masking strategies by the name a user picks them by."""


def get_mask(mask: str | Callable[[Tensor, Tensor, torch.Generator], Tensor]) -> Mask:
    """Give the strategy of that name; a function from outside is wrapped in `checked_mask`.

    Raises
    ------
    ParameterError : unknown name, or neither a name nor a function.
    """
    if callable(mask):
        return mask if mask in MASKS.values() else partial(checked_mask, mask)
    check_choice("mask", mask, MASKS)
    return MASKS[mask]


def checked_mask(
    mask: Callable[[Tensor, Tensor, torch.Generator], Tensor],
    observed: Tensor,
    mask_ratio: Tensor,
    generator: torch.Generator,
    feature_shape: tuple[int, ...] | None = None,
) -> Tensor:
    """Ask a strategy from outside, and keep what it hides to observed cells.

    Raises
    ------
    ParameterError : it gives anything but a bool tensor of the shape of `observed`.
    """
    hidden = mask(observed.clone(), mask_ratio, generator)
    if not isinstance(hidden, Tensor) or hidden.dtype != torch.bool or hidden.shape != observed.shape:
        got = f"{hidden.dtype} {tuple(hidden.shape)}" if isinstance(hidden, Tensor) else type(hidden).__name__
        raise ParameterError(
            f"`mask` must return a bool tensor of the shape of `observed`, {tuple(observed.shape)}; got {got}. "
            "Return for example observed & (torch.rand(observed.shape, generator=generator) < mask_ratio[:, None])."
        )
    return observed & hidden.to(observed.device)


def _checked_shape(feature_shape: tuple[int, ...] | None, n_features: int) -> tuple[int, ...]:
    shape = (n_features,) if feature_shape is None else tuple(feature_shape)
    if math.prod(shape) != n_features:
        raise ParameterError(
            f"`feature_shape` must multiply to the number of features, {n_features}; got {shape}. "
            "Pass the shape whose flattened cells are the columns, for example (8, 8) for 64 of them."
        )
    return shape


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
