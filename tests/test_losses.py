import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Normal

from tabmae.losses import (
    LOSSES,
    absolute,
    cross_entropy,
    gaussian_nll,
    huber,
    masked_mean,
    pinball,
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


def test_gaussian_likelihood_equals_the_density_of_torch() -> None:
    mean, log_scale, target = normal(5, 2), normal(5, 2, seed=1), normal(5, 2, seed=2)
    expected = -Normal(mean, log_scale.exp()).log_prob(target)
    torch.testing.assert_close(gaussian_nll(mean, log_scale, target), expected)


def test_cross_entropy_equals_the_log_probability_of_torch_for_codes_as_floats() -> None:
    logits, codes = normal(4, 3, 5), torch.arange(12).reshape(4, 3) % 5
    expected = -Categorical(logits=logits).log_prob(codes)
    torch.testing.assert_close(cross_entropy(logits, codes.float()), expected)


def test_levels_that_a_column_does_not_have_take_no_probability_and_no_gradient() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    error = cross_entropy(logits, torch.tensor([1.0]))
    error.sum().backward()
    assert error.item() == pytest.approx(math.log(2))
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.tensor([[0.5, -0.5, 0.0]]))


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_quantile_is_best_by_pinball(level: float) -> None:
    values, levels = normal(1001), torch.tensor([level])
    candidates = torch.linspace(-3, 3, 3001)
    errors = pinball(candidates[:, None, None], values.expand(3001, -1), levels).mean(1)
    assert candidates[errors.argmin()].item() == pytest.approx(values.quantile(level).item(), abs=0.01)


def test_pinball_is_the_mean_over_its_levels() -> None:
    predicted, target, levels = normal(4, 3, 2), normal(4, 3, seed=1), torch.tensor([0.2, 0.7])
    each = [pinball(predicted[..., [q]], target, levels[[q]]) for q in range(2)]
    torch.testing.assert_close(pinball(predicted, target, levels), (each[0] + each[1]) / 2)


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
