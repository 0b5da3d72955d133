"""Error per cell: what the model predicts against what is there.

Contract: elementwise, in PyTorch, differentiable in the prediction; only `masked_mean` reduces. Numbers are in standard
deviations of their column. Likelihoods are those of the predictive distribution, in `tokenizers`.
"""

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
