"""Linear interpolation within windows: NumPy's, channel by channel, and its own guess of every visible cell."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tabmae.experts.interpolation import interpolate

SHAPE = (40, 15, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows() -> tuple[Tensor, Tensor]:
    """Draw windows with few and many visible cells, some channels with one or none."""
    values = torch.randn(SHAPE, generator=seeded(), dtype=torch.float64)
    visible = torch.rand(SHAPE, generator=seeded(1)) < torch.linspace(0.05, 0.95, len(values))[:, None, None]
    visible[3, :, 1] = False
    visible[4, :, 2] = torch.arange(SHAPE[1]) == 7
    return values, visible


def by_numpy(channel: Tensor, seen: Tensor) -> Tensor:
    if not seen.any():
        return torch.zeros_like(channel)
    step = np.arange(len(channel))
    return torch.from_numpy(np.interp(step, step[seen.numpy()], channel[seen].numpy()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_channel_is_interpolated_as_numpy_does(dtype: torch.dtype) -> None:
    values, visible = windows()
    found = interpolate(values.to(dtype), visible)
    assert found.mean.dtype == found.left_out.dtype == found.distance.dtype == dtype
    for window, shown, mean in zip(values, visible, found.mean, strict=True):
        for c in range(SHAPE[2]):
            expected = by_numpy(window[:, c], shown[:, c]).to(dtype)
            torch.testing.assert_close(mean[:, c], expected, rtol=0, atol=1e-6)
    assert torch.equal(found.mean[visible], values.to(dtype)[visible])


def test_a_cell_left_out_is_interpolated_from_the_others() -> None:
    values, visible = windows()
    found = interpolate(values, visible)
    for step in range(SHAPE[1]):
        without = visible & (torch.arange(SHAPE[1]) != step)[:, None]
        expected = interpolate(values, without).mean[:, step]
        torch.testing.assert_close(found.left_out[:, step], expected, rtol=0, atol=1e-12)


def test_beyond_the_first_and_last_visible_step_their_values_go_on() -> None:
    values = torch.tensor([5.0, 1.0, 2.0, 4.0, 9.0])[None, :, None]
    visible = torch.tensor([False, True, False, True, False])[None, :, None]
    found = interpolate(values, visible)
    assert found.mean.flatten().tolist() == [1.0, 1.0, 2.5, 4.0, 4.0]
    assert found.left_out.flatten().tolist() == [1.0, 4.0, 2.5, 1.0, 4.0]
    assert found.distance.flatten().tolist() == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_a_channel_without_a_visible_step_is_zero_and_far_away() -> None:
    values, visible = windows()
    found = interpolate(values, visible)
    assert not found.mean[3, :, 1].any() and not found.left_out[3, :, 1].any()
    assert (found.distance[3, :, 1] == SHAPE[1]).all()
    assert float(found.left_out[4, 7, 2]) == 0.0, "the only visible step has no other"


def test_the_distance_is_that_to_the_nearest_visible_step() -> None:
    values, visible = windows()
    distance = interpolate(values, visible).distance
    for b, step, c in torch.nonzero(~visible).tolist():
        seen = torch.nonzero(visible[b, :, c])[:, 0]
        assert distance[b, step, c] == ((seen - step).abs().min() if len(seen) else SHAPE[1])
    assert (distance[visible] == 1).all()


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1e30])
def test_an_invisible_cell_is_never_read(junk: float) -> None:
    values, visible = windows()
    one, other = interpolate(values, visible), interpolate(torch.where(visible, values, junk), visible)
    for part, same in zip(one, other, strict=True):
        assert torch.equal(part, same)


def test_windows_and_channels_do_not_feel_each_other() -> None:
    values, visible = windows()
    together = interpolate(values, visible)
    for b, c in ((0, 0), (3, 1), (20, 2)):
        alone = interpolate(values[b : b + 1, :, c : c + 1], visible[b : b + 1, :, c : c + 1])
        for one, all_rows in zip(alone, together, strict=True):
            assert torch.equal(one[0, :, 0], all_rows[b, :, c])
