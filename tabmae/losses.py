"""Error per cell: what the model predicts against what is there.

Contract: elementwise, in PyTorch, differentiable in the prediction; only `masked_mean` reduces. Numbers are in standard
deviations of their column, likelihoods in nats.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def squared(predicted: Tensor, target: Tensor) -> Tensor:
    """Squared error; the mean is its best prediction."""
    return (predicted - target).square()


def absolute(predicted: Tensor, target: Tensor) -> Tensor:
    """Absolute error; the median is its best prediction."""
    return (predicted - target).abs()


def huber(predicted: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Half the squared error up to `delta` standard deviations, linear beyond.

    Source: Huber 1964, "Robust estimation of a location parameter", section 3.
    """
    return F.huber_loss(predicted, target, reduction="none", delta=delta)


def gaussian_nll(mean: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """Minus the log density of a normal distribution whose standard deviation is exp(log_scale)."""
    standard = (target - mean) * torch.exp(-log_scale)
    return 0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Minus the log probability of the level that is there.

    Parameters
    ----------
    logits : (..., K), -inf for a level that the column does not have.
    codes : (...), level codes 0 to K - 1 of any dtype; category codes travel as exact floats.
    """
    errors = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), codes.reshape(-1).long(), reduction="none")
    return errors.reshape(codes.shape)


def pinball(predicted: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """Quantile error, mean over the levels; the quantiles are its best prediction.

    Parameters
    ----------
    predicted : (..., Q), one prediction a level.
    target : (...).
    levels : (Q,), in (0, 1).

    Source: Koenker and Bassett 1978, "Regression quantiles".
    """
    excess = target[..., None] - predicted
    return torch.maximum(levels * excess, (levels - 1) * excess).mean(-1)


def masked_mean(errors: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of `errors` where `mask` is True, weighted; 0 where it is nowhere True.

    Parameters
    ----------
    errors : any shape; whatever stands outside the mask, NaN too, is not looked at.
    mask : bool, of the same shape.
    weight : not negative, broadcast against `errors`; (B, 1) weighs rows.

    >>> masked_mean(torch.tensor([1.0, 5.0, torch.nan]), torch.tensor([True, True, False]))
    tensor(3.)
    """
    share = mask.to(errors.dtype)
    if weight is not None:
        share = share * weight
    total = share.sum()
    return (errors.masked_fill(~mask, 0) * share).sum() / torch.where(total > 0, total, 1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": squared, "mae": absolute, "huber": huber}
"""Losses of numbers by name: (predicted, target) -> error per cell."""
