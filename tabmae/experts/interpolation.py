"""Linear interpolation over time within windows of series, with its own leave-one-out guesses.

Contract: a cell that is not visible has no influence on any output.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Interpolated(NamedTuple):
    """Interpolation of windows (B, W, C).

    mean : the value where visible, else on the line between the nearest visible steps of its channel; beyond the first
        or last of them, its value; 0 in a channel without any.
    left_out : of visible cells, the same without the cell itself; `mean` elsewhere.
    distance : steps to the nearest visible one, 1 where visible, W in a channel without any.
    """

    mean: Tensor
    left_out: Tensor
    distance: Tensor


def interpolate(values: Tensor, visible: Tensor) -> Interpolated:
    """Interpolate the invisible cells of windows: values (B, W, C), anything where not visible; visible bool."""
    n_steps = values.shape[1]
    values = torch.where(visible, values, 0)
    step = torch.arange(n_steps, device=values.device)[None, :, None].expand(values.shape)
    last = torch.where(visible, step, -1).cummax(1).values
    following = torch.where(visible, step, n_steps).flip(1).cummin(1).values.flip(1)
    before = torch.cat([torch.full_like(last[:, :1], -1), last[:, :-1]], 1)
    after = torch.cat([following[:, 1:], torch.full_like(following[:, :1], n_steps)], 1)
    mean = torch.where(visible, values, _between(values, step, last, following))
    left_out = torch.where(visible, _between(values, step, before, after), mean)
    near = torch.minimum(
        torch.where(last < 0, n_steps, step - last), torch.where(following == n_steps, n_steps, following - step)
    )
    return Interpolated(mean, left_out, torch.where(visible, 1, near).to(values.dtype))


def _between(values: Tensor, step: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The line through steps `before` and `after` at `step`; the one that there is, where there is only one."""
    n_steps = values.shape[1]
    has_before, has_after = before >= 0, after < n_steps
    left, right = values.gather(1, before.clamp_min(0)), values.gather(1, after.clamp_max(n_steps - 1))
    share = (step - before) / (after - before).clamp_min(1)
    share = torch.where(has_before & has_after, share.to(values.dtype), has_after.to(values.dtype))
    return torch.where(has_before | has_after, left * (1 - share) + right * share, 0)
