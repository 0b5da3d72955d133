"""The optimizer: the steps of torch's own AdamW to the bit, without what torch loads to make one."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from tabmae.optimizer import BETAS, EPSILON, AdamW


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    shapes, generator = ((7, 5), (11,), (3,), ()), seeded()
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def gradients(step: int, of: list[nn.Parameter]) -> list[Tensor | None]:
    """Give fresh gradients; the third parameter never has one, the second none in every other step."""
    generator = seeded(100 + step)
    drawn = [torch.randn(part.shape, generator=generator, dtype=part.dtype) for part in of]
    return [None if k == 2 or (k == 1 and step % 2) else gradient for k, gradient in enumerate(drawn)]


def walk(optimizer: AdamW, of: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        for part, gradient in zip(of, gradients(step, of), strict=True):
            part.grad = gradient
        optimizer.step(lr=0.1 / (step + 1))


def same(one: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
    return all(torch.equal(part, twin) for part, twin in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
def test_steps_are_those_of_torch_bit_for_bit(weight_decay: float, dtype: torch.dtype) -> None:
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = AdamW(ours, weight_decay)
    reference = torch.optim.AdamW(theirs, weight_decay=weight_decay, betas=BETAS, eps=EPSILON, fused=True)
    for step in range(12):
        walk(optimizer, ours, range(step, step + 1))
        for part, gradient in zip(theirs, gradients(step, theirs), strict=True):
            part.grad = gradient
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        assert same(ours, theirs), step
    moved = [not torch.equal(part, start) for part, start in zip(ours, parameters(dtype), strict=True)]
    assert moved == [True, True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("longest", [0.5, 1e3])
def test_too_long_gradients_are_cut_as_torch_cuts_them(longest: float, dtype: torch.dtype) -> None:
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = AdamW(ours, 0.01, longest)
    reference = torch.optim.AdamW(theirs, weight_decay=0.01, betas=BETAS, eps=EPSILON, fused=True)
    for step in range(6):
        walk(optimizer, ours, range(step, step + 1))
        for part, gradient in zip(theirs, gradients(step, theirs), strict=True):
            part.grad = gradient
        torch.nn.utils.clip_grad_norm_(theirs, longest)
        reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        reference.step()
        for part, twin in zip(ours, theirs, strict=True):
            torch.testing.assert_close(part, twin, rtol=1e-4, atol=1e-5)
        exp_avg, theirs_avg = optimizer.state_dict()["0.exp_avg"], reference.state[theirs[0]]["exp_avg"]
        torch.testing.assert_close(exp_avg, theirs_avg, rtol=1e-4, atol=1e-7)


def test_gradients_are_forgotten_after_their_step() -> None:
    of = parameters()
    optimizer = AdamW(of, weight_decay=0.01)
    walk(optimizer, of, range(1))
    assert all(part.grad is None for part in of)
    before = [nn.Parameter(part.detach().clone()) for part in of]
    optimizer.step(lr=0.1)
    assert same(of, before), "without a gradient nothing moves, not even by the decay"


def test_weights_stay_leaves_that_take_gradients() -> None:
    of = parameters()
    walk(AdamW(of, weight_decay=0.01), of, range(2))
    assert all(part.is_leaf and part.requires_grad for part in of)


def test_a_run_goes_on_from_its_state_bit_for_bit() -> None:
    whole, halved = parameters(), parameters()
    walk(AdamW(whole, 0.01), whole, range(10))
    first = AdamW(halved, 0.01)
    walk(first, halved, range(5))
    state = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    walk(first, halved, range(5, 10))
    assert same(halved, whole)

    again = parameters()
    walk(AdamW(again, 0.01), again, range(5))
    forgetful = [nn.Parameter(part.detach().clone()) for part in again]
    second = AdamW(again, 0.01)
    second.load_state_dict(state)
    walk(second, again, range(5, 10))
    assert same(again, whole)
    assert all(torch.equal(second.state_dict()[name], tensor) for name, tensor in first.state_dict().items())
    walk(AdamW(forgetful, 0.01), forgetful, range(5, 10))
    assert not same(forgetful, whole), "the state matters"


def test_what_is_loaded_is_a_copy_and_must_be_whole() -> None:
    of = parameters()
    optimizer, other = AdamW(of, 0.01), AdamW(of, 0.01)
    other.load_state_dict(optimizer.state_dict())
    walk(optimizer, of, range(1))
    assert not any(tensor.any() for tensor in other.state_dict().values())
    with pytest.raises(KeyError):
        other.load_state_dict({})


FIT = """
import sys
import numpy as np
from tabmae import TabMAE, TabMAERegressor

table = np.random.default_rng(0).normal(size=(30, 3))
TabMAE(max_epochs=1, random_state=0).fit(table).transform(table)
TabMAERegressor(max_epochs=1, random_state=0).fit(table[:, :2], table[:, 2]).predict(table[:, :2])
heavy = "torch._dynamo", "sympy"
sys.exit(", ".join(name for name in sys.modules if name.startswith(heavy))[:200] or None)
"""


def test_a_fit_loads_no_compiler_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", FIT], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
