"""The masked autoencoder of windows: leak-free, each window on its own, its experts' guess where nobody believes it."""

import pytest
import torch
from torch import Tensor

from tabmae.backbones import build_backbone
from tabmae.experts.interpolation import interpolate
from tabmae.experts.stationary import Stationary
from tabmae.losses import masked_mean
from tabmae.series_model import LEAST_VISIBLE, SeriesAutoencoder
from tabmae.tokenizers import PatchTokenizer

WINDOW, N_CHANNELS = 12, 3
SIZE = WINDOW * N_CHANNELS
GROUPS = [[0, 2], [1]]
BACKBONES = pytest.mark.parametrize("backbone", ["conv", "transformer", "mlp", "asymmetric"])
WITH_EXPERTS = pytest.mark.parametrize("with_experts", [True, False], ids=["experts", "pure"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def series(n_steps: int = 600) -> Tensor:
    """Channels that follow one smooth walk about zero, each with a lag and noise of its own."""
    noise = torch.randn(n_steps + 40, generator=seeded())
    smooth = torch.stack([noise[lag : lag + n_steps + 20].unfold(0, 20, 1).mean(1) for lag in (0, 3, 5)], 1)[:n_steps]
    values = smooth + 0.05 * torch.randn(smooth.shape, generator=seeded(1))
    return (values - values.mean(0)) / values.std(0)


def windows(n_windows: int = 30) -> tuple[Tensor, Tensor]:
    """Windows side by side, from fully visible ones to those that show nothing."""
    values = series()[: n_windows * WINDOW].reshape(n_windows, SIZE)
    share = torch.linspace(0, 1, n_windows)[:, None]
    return values, torch.rand(values.shape, generator=seeded(2)) >= share


def model_of(
    with_experts: bool = True, backbone: str = "conv", patch: int = 1, loss: str = "huber", strength: float = 1.0
) -> SeriesAutoencoder:
    """Give a model of which nobody has learnt but the experts; `strength` of 1 corrects the guess by a good deal."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = PatchTokenizer(WINDOW, N_CHANNELS, patch, 8, loss)
        network = build_backbone(backbone, n_tokens=tokenizer.n_tokens, d_token=8, depth=2, dropout=0.0)
        with torch.no_grad():
            tokenizer.correction.weight.normal_(0, strength)
    experts = None
    if with_experts:
        values = series()
        seen = torch.ones_like(values, dtype=torch.bool)
        experts = [Stationary(WINDOW, len(group)).fit(values[:, group], seen[:, group]) for group in GROUPS]
    return SeriesAutoencoder(tokenizer, network, experts, GROUPS if with_experts else None).eval()


@WITH_EXPERTS
@BACKBONES
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1e30])
def test_an_invisible_value_changes_no_bit(backbone: str, with_experts: bool, junk: float) -> None:
    values, visible = windows()
    model, changed = model_of(with_experts, backbone), torch.where(visible, values, junk)
    for part, same in zip(model(values, visible), model(changed, visible), strict=True):
        assert torch.equal(part, same) and part.isfinite().all()
    for part, same in zip(model.guess(values, visible), model.guess(changed, visible), strict=True):
        assert torch.equal(part, same)
    assert torch.equal(model.encode(values, visible), model.encode(changed, visible))


@WITH_EXPERTS
@BACKBONES
def test_a_window_alone_gets_what_it_gets_among_others(backbone: str, with_experts: bool) -> None:
    values, visible = windows()
    model = model_of(with_experts, backbone)
    together = model(values, visible)
    for i in (0, 7, 15, 29):
        alone = model(values[i : i + 1], visible[i : i + 1])
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[i], rtol=1e-5, atol=1e-5)


def test_a_visible_value_is_felt() -> None:
    values, visible = windows()
    model, row = model_of(), 15
    cell = int(torch.nonzero(visible[row])[3])
    changed = values.clone()
    changed[row, cell] += 1
    moved = (model(changed, visible).mean - model(values, visible).mean).abs() > 1e-4
    assert moved[row][~visible[row]].all()
    assert not moved[torch.arange(len(values)) != row].any()


def test_a_correction_that_nobody_believes_leaves_the_guess_of_the_experts() -> None:
    values, visible = windows()
    model = model_of()
    guess = model.guess(values, visible)
    network = model.network(values, visible, guess)
    assert (network.mean - guess.mean).abs().mean() > 0.05, "there is something to disbelieve"
    model.share.zero_()
    assert torch.equal(model(values, visible).mean, guess.mean)
    model.share = torch.tensor([0.0, 1.0, 0.5])
    found, start, end = (part.mean.reshape(-1, WINDOW, N_CHANNELS) for part in (model(values, visible), guess, network))
    blank = visible.float().mean(1) < LEAST_VISIBLE
    torch.testing.assert_close(found[~blank], (start + model.share * (end - start))[~blank])
    assert 1 < int(blank.sum()) < 10 and torch.equal(found[blank], start[blank]), "next to nothing is visible there"


def test_training_sees_the_network_alone() -> None:
    values, visible = windows()
    model = model_of().train()
    model.share.zero_()
    assert not torch.equal(model(values, visible).mean, model.guess(values, visible).mean)


def test_the_guess_keeps_visible_values_and_lies_between_the_two_experts() -> None:
    values, visible = windows()
    guess = model_of().guess(values, visible)
    torch.testing.assert_close(guess.mean[visible], values[visible], rtol=0, atol=1e-6)
    low, high = torch.minimum(guess.expert, guess.interpolation), torch.maximum(guess.expert, guess.interpolation)
    assert ((guess.mean >= low - 1e-6) & (guess.mean <= high + 1e-6)).all()
    assert (guess.variance > 0).all() and (guess.noise > 0).all() and (guess.spread > 0).all()
    assert not guess.missed[~visible].any()


def test_the_guess_misses_less_than_interpolation_and_hardly_more_than_a_gaussian_that_is_right() -> None:
    values, visible = windows(50)
    few = visible.float().mean(1) > 0.2
    guess = model_of().guess(values, visible)
    hidden = ~visible & few[:, None]
    mean, expert, line = (
        float((part - values)[hidden].square().mean()) for part in (guess.mean, guess.expert, guess.interpolation)
    )
    assert mean < 0.8 * line and mean < 1.1 * expert


def test_a_window_that_its_expert_misses_is_less_sure_of_itself() -> None:
    values, visible = windows()
    odd = torch.where(torch.arange(SIZE) // N_CHANNELS % 2 == 0, 3.0, -3.0).expand(1, -1)
    seen = visible[10:11]
    calm, wild = (model_of().guess(rows, seen).variance for rows in (values[10:11], odd))
    assert (wild[~seen] > 4 * calm[~seen]).all()


def test_channels_of_other_groups_are_not_asked_by_the_experts() -> None:
    values, visible = windows()
    model, changed = model_of(), values.clone().reshape(-1, WINDOW, N_CHANNELS)
    changed[:, :, 1] += 1
    one, other = (model.guess(rows.reshape(-1, SIZE), visible).expert for rows in (values, changed))
    same = (one == other).reshape(changed.shape)
    assert same[:, :, [0, 2]].all() and not same[:, :, 1].all()


def test_a_model_without_experts_starts_from_the_level_of_the_visible_values() -> None:
    values, visible = windows()
    model = model_of(with_experts=False, strength=0.0)
    level = model.guess(values, visible).level
    shown = torch.where(visible, values, 0).reshape(-1, WINDOW, N_CHANNELS).sum(1)
    count = visible.reshape(-1, WINDOW, N_CHANNELS).sum(1)
    expected = (shown / (count + 2)).repeat(1, WINDOW)
    torch.testing.assert_close(level, expected)
    torch.testing.assert_close(model(values, visible).mean[~visible], level[~visible])


def test_linear_interpolation_is_among_the_guesses() -> None:
    values, visible = windows()
    shape = -1, WINDOW, N_CHANNELS
    line = interpolate(values.reshape(shape), visible.reshape(shape)).mean.reshape(values.shape)
    torch.testing.assert_close(model_of().guess(values, visible).interpolation, line)


@WITH_EXPERTS
@BACKBONES
@pytest.mark.parametrize("patch", [1, 4])
def test_the_gradient_reaches_every_parameter(backbone: str, with_experts: bool, patch: int) -> None:
    values, visible = windows()
    model = model_of(with_experts, backbone, patch).train()
    masked_mean(model.tokenizer.errors(model(values, visible), values), ~visible).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(("patch", "n_tokens"), [(1, 12), (3, 4), (12, 1)])
def test_a_token_holds_the_steps_of_a_patch(patch: int, n_tokens: int) -> None:
    values, visible = windows()
    model = model_of(backbone="transformer", patch=patch)
    assert model.encode(values, visible).shape == (30, n_tokens, 8)
    tokens, seen = model.tokenizer.embed(values, visible, model.guess(values, visible))
    assert tokens.shape == (30, n_tokens, 8)
    assert torch.equal(seen, visible.reshape(30, n_tokens, -1).any(2))


@pytest.mark.parametrize("loss", ["huber", "mse", "mae"])
def test_the_errors_of_right_predictions_are_zero_and_grow_with_the_miss(loss: str) -> None:
    values, visible = windows()
    model = model_of(loss=loss)
    found = model(values, visible)
    right = found._replace(mean=values)
    assert not model.tokenizer.errors(right, values).any()
    near, far = (model.tokenizer.errors(found._replace(mean=values + by), values) for by in (0.1, 0.2))
    assert near.shape == values.shape and (near > 0).all() and (far > near).all()


def test_drawn_noise_is_joint_with_experts_and_independent_without() -> None:
    visible = torch.zeros(2000, SIZE, dtype=torch.bool)
    for with_experts, least, most in ((True, 0.7, 1.0), (False, -0.1, 0.1)):
        drawn = model_of(with_experts).joint_noise(visible, seeded()).reshape(-1, WINDOW, N_CHANNELS)
        neighbours = float(torch.corrcoef(torch.stack([drawn[:, 4, 0], drawn[:, 5, 0]]))[0, 1])
        assert least < neighbours < most
        assert drawn.std(0).sub(1).abs().max() < 0.1
