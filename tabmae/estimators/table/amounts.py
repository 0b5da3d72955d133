"""The mean of amounts that are told by their logarithms, which lies above that of these.

Contract: a cell of which all is told has no excess, one of which nothing is has that of its column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tabmae.estimators.validation import Validation
from tabmae.schema import Column


def excess(columns: Sequence[Column], values: Tensor, observed: Tensor, errors: Tensor, variances: Tensor) -> Tensor:
    """By how much the mean of amounts that are told by logarithms lies above that of these, in standard deviations of
    theirs, for each unit of a cell's predicted variance; float64 (F,), 0 for other columns.

    That of the column belongs to the variance of 1 that a cell has of which nothing is told, and less to less.

    Parameters
    ----------
    columns : F, as fitted. values : (n, F), in standard deviations; observed : bool (n, F).
    errors : float64 (F,), mean squared ones of held-out cells. variances : (F,), the mean of what was predicted of
        these.
    """
    found = torch.zeros(len(columns), dtype=torch.float64)
    for j, column in enumerate(columns):
        if column.log and variances[j] > 0:
            logs = values[observed[:, j], j].double().cpu() * column.scale
            above = (logs.logsumexp(0) - math.log(len(logs)) - logs.mean()) / column.scale
            found[j] = above * errors[j].clamp_max(1) / variances[j]
    return found


def told_variance(columns: Sequence[Column], numbers: Tensor, validation: Validation, most: int) -> Tensor:
    """Mean predicted variance of the held-out cells of each column, (F,); 0 without any, or where none has logarithms.

    Parameters
    ----------
    numbers : positions (Fn,) of the numeric columns. most : rows of a fold that are asked at most.
    """
    total, count = torch.zeros(len(columns)), torch.zeros(len(columns))
    if any(column.log for column in columns):
        for part, answers in validation.answered(lambda _, __, found, ___: found.variance.cpu(), most):
            held_out = part.held_out.cpu()[:, numbers]
            if len(held_out):
                total[numbers] += torch.where(held_out, torch.cat(answers).clamp_max(1), 0).sum(0).float()
                count[numbers] += held_out.sum(0)
    return total / count.clamp_min(1)
