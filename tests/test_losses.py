import pytest
import torch
from torch import Tensor

from tabmae.losses import (
    LOSSES,
    absolute,
    huber,
    masked_mean,
    squared,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def best_constant(loss: str, values: Tensor) -> float:
    """Give the constant among the values' range whose mean loss is least."""
    candidates = torch.linspace(values.min().item(), values.max().item(), 2001)
    errors = LOSSES[loss](candidates[:, None], values).mean(1)
    return candidates[errors.argmin()].item()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_numbers_is_elementwise_and_zero_at_the_target(name: str) -> None:
    predicted, target = normal(4, 3), normal(4, 3, seed=1)
    errors = LOSSES[name](predicted, target)
    assert errors.shape == (4, 3)
    assert (errors > 0).all()
    assert (LOSSES[name](target, target) == 0).all()
    alone = LOSSES[name](predicted[1:2, 2:], target[1:2, 2:])
    assert torch.equal(alone, errors[1:2, 2:])


def test_the_mean_is_best_by_squares_and_the_median_by_absolute_errors() -> None:
    values = normal(501).exp()
    assert best_constant("mse", values) == pytest.approx(values.mean().item(), abs=0.01)
    assert best_constant("mae", values) == pytest.approx(values.median().item(), abs=0.01)


def test_huber_is_half_the_square_near_and_linear_beyond_delta() -> None:
    errors = huber(torch.tensor([0.5, 2.0, 12.0]), torch.zeros(3), delta=2.0)
    assert torch.equal(errors, torch.tensor([0.125, 2.0, 2.0 * (12.0 - 1.0)]))


def test_differences_count_alike_in_both_directions() -> None:
    low, high = torch.tensor([-3.0, 0.2]), torch.tensor([1.0, 0.7])
    for loss in (squared, absolute, huber):
        assert torch.equal(loss(low, high), loss(high, low))


def test_the_masked_mean_looks_at_masked_cells_only() -> None:
    errors = torch.tensor([[1.0, torch.nan], [4.0, torch.inf]], requires_grad=True)
    mean = masked_mean(errors, torch.tensor([[True, False], [True, False]]))
    mean.backward()
    assert mean.item() == 2.5
    assert errors.grad is not None
    assert torch.equal(errors.grad, torch.tensor([[0.5, 0.0], [0.5, 0.0]]))


def test_the_masked_mean_of_nothing_is_zero_and_has_zero_gradient() -> None:
    errors = torch.ones(2, 2, requires_grad=True)
    mean = masked_mean(errors, torch.zeros(2, 2, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert errors.grad is not None
    assert not errors.grad.any()


def test_a_weight_of_two_equals_the_row_twice() -> None:
    errors, mask = normal(3, 4).abs(), normal(3, 4, seed=1) > 0
    weighted = masked_mean(errors, mask, torch.tensor([[1.0], [2.0], [0.0]]))
    repeated = masked_mean(errors[[0, 1, 1]], mask[[0, 1, 1]])
    torch.testing.assert_close(weighted, repeated)
    assert masked_mean(errors, mask, torch.zeros(3, 1)).item() == 0
