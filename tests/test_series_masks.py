"""Masking strategies of series: what each of them hides of windows of steps and channels."""

import pytest
import torch
from torch import Tensor

from tabmae.errors import ParameterError
from tabmae.masks import GAP_CHANCES, SERIES_MASKS, SHARED_ROWS, blackout, draw_ratio, gaps, run, suffix

N_STEPS, N_CHANNELS = 20, 3
SHAPE = (N_STEPS, N_CHANNELS)
SIZE = N_STEPS * N_CHANNELS

EVERY = pytest.mark.parametrize("name", SERIES_MASKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ratios(n_rows: int, ratio: float) -> Tensor:
    return torch.full((n_rows,), ratio)


def complete(n_rows: int = 400) -> Tensor:
    return torch.ones(n_rows, SIZE, dtype=torch.bool)


def incomplete(n_rows: int = 400) -> Tensor:
    return torch.rand(n_rows, SIZE, generator=seeded(7)) < torch.linspace(0.1, 1.0, SIZE)


def in_steps(hidden: Tensor) -> Tensor:
    """Hidden cells as (B, W, C)."""
    return hidden.reshape(len(hidden), *SHAPE)


def n_runs(steps: Tensor) -> Tensor:
    """How many runs of True there are along the steps of (B, W, ...)."""
    before = torch.cat([torch.zeros_like(steps[:, :1]), steps[:, :-1]], 1)
    return (steps & ~before).sum(1)


@EVERY
@pytest.mark.parametrize("ratio", [0.02, 0.5, 0.98])
def test_hidden_is_a_bool_subset_of_observed_which_is_left_alone(name: str, ratio: float) -> None:
    observed = incomplete()
    before = observed.clone()
    hidden = SERIES_MASKS[name](observed, ratios(400, ratio), seeded(), SHAPE)
    assert hidden.dtype == torch.bool and hidden.shape == observed.shape
    assert not (hidden & ~observed).any() and torch.equal(observed, before)


@EVERY
def test_the_same_seed_gives_the_same_mask_and_another_seed_another(name: str) -> None:
    observed, mask_ratio = incomplete(), draw_ratio((0.1, 0.8), 400, seeded(9))
    first, again, other = (SERIES_MASKS[name](observed, mask_ratio, seeded(seed), SHAPE) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    if name != "suffix":
        assert not torch.equal(first, other)


@EVERY
def test_the_global_generator_is_neither_read_nor_moved(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        first = SERIES_MASKS[name](complete(), ratios(400, 0.4), seeded(), SHAPE)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(SERIES_MASKS[name](complete(), ratios(400, 0.4), seeded(), SHAPE), first)


@EVERY
@pytest.mark.parametrize("ratio", [0.1, 0.4, 0.8])
def test_the_rate_of_hidden_cells_is_the_ratio_of_every_row(name: str, ratio: float) -> None:
    hidden = SERIES_MASKS[name](complete(4000), ratios(4000, ratio), seeded(), SHAPE)
    share = hidden.double().mean().item()
    expected = {"run": ratio * share_of_channels(), "gaps": ratio * (1 - GAP_CHANCES[1] * (1 - share_of_channels()))}
    assert share == pytest.approx(expected.get(name, ratio), abs=0.02)


def share_of_channels() -> float:
    """How many of the channels `run` takes: each at a half, and all of them where that takes none."""
    none = 0.5**N_CHANNELS
    return 0.5 + none


@pytest.mark.parametrize("name", ["run", "blackout", "suffix"])
def test_each_row_has_its_own_ratio(name: str) -> None:
    mask_ratio = torch.tensor([0.1, 0.8]).repeat_interleave(500)
    hidden = in_steps(SERIES_MASKS[name](complete(1000), mask_ratio, seeded(), SHAPE))
    longest = hidden.sum(1).amax(1)
    assert (longest[:500] == 2).all() and (longest[500:] == 16).all()


def test_suffix_hides_the_last_steps_of_all_channels() -> None:
    mask_ratio = draw_ratio((0.02, 0.98), 400, seeded(2))
    hidden = in_steps(suffix(complete(), mask_ratio, seeded(), SHAPE))
    steps = hidden.all(2)
    assert torch.equal(steps, hidden.any(2)), "whole steps"
    assert steps[:, -1].all() and (n_runs(steps) == 1).all()
    torch.testing.assert_close(steps.sum(1), (N_STEPS * mask_ratio).round().clamp_min(1).long())


def test_blackout_hides_one_run_of_whole_steps_anywhere() -> None:
    hidden = in_steps(blackout(complete(), ratios(400, 0.3), seeded(), SHAPE))
    steps = hidden.all(2)
    assert torch.equal(steps, hidden.any(2)), "whole steps"
    assert (n_runs(steps) == 1).all() and (steps.sum(1) == 6).all()
    starts = steps.byte().argmax(1)
    assert set(starts.tolist()) == set(range(N_STEPS - 6 + 1))


def test_run_hides_one_run_in_each_of_some_channels() -> None:
    hidden = in_steps(run(complete(), ratios(400, 0.3), seeded(), SHAPE))
    chosen = hidden.any(1)
    assert chosen.any(1).all(), "no window is left as it is"
    assert ((n_runs(hidden) == 1) == chosen).all() and (hidden.sum(1)[chosen] == 6).all()
    assert (chosen.sum(1) < N_CHANNELS).any() and (chosen.sum(1) == N_CHANNELS).any()
    starts = hidden.byte().argmax(1)
    both = chosen[:, 0] & chosen[:, 1]
    assert (starts[both, 0] != starts[both, 1]).double().mean() > 0.8, "each channel has its own run"


def test_without_a_feature_shape_the_features_are_the_steps_of_one_channel() -> None:
    for mask in (run, blackout):
        hidden = mask(torch.ones(300, 30, dtype=torch.bool), ratios(300, 0.2), seeded())
        assert (n_runs(hidden[:, :, None]) == 1).all() and (hidden.sum(1) == 6).all()


def test_a_run_is_never_empty_nor_longer_than_the_window() -> None:
    for name in ("run", "blackout", "suffix"):
        few = in_steps(SERIES_MASKS[name](complete(), ratios(400, 0.001), seeded(), SHAPE))
        many = in_steps(SERIES_MASKS[name](complete(), ratios(400, 0.999), seeded(), SHAPE))
        assert (few.sum(1).amax(1) == 1).all() and (many.sum(1).amax(1) == N_STEPS).all()


@pytest.mark.parametrize("n_rows", [1, SHARED_ROWS, 5 * SHARED_ROWS + 3])
def test_gaps_share_a_pattern_among_neighbouring_rows(n_rows: int) -> None:
    hidden = gaps(complete(n_rows), draw_ratio((0.2, 0.6), n_rows, seeded(1)), seeded(), SHAPE)
    groups = hidden.split(SHARED_ROWS)
    assert all(torch.equal(group, group[:1].expand_as(group)) for group in groups)
    assert len({tuple(group[0].tolist()) for group in groups}) == len(groups)


def test_gaps_hide_points_runs_blackouts_and_suffixes_as_often_as_they_should() -> None:
    n_patterns = 2000
    rows = n_patterns * SHARED_ROWS
    hidden = in_steps(gaps(complete(rows), ratios(rows, 0.4), seeded(), SHAPE)[::SHARED_ROWS])
    steps = hidden.all(2)
    whole = (steps == hidden.any(2)).all(1) & steps.any(1)
    at_end = whole & steps[:, -1] & (n_runs(steps) == 1)
    single = (n_runs(hidden).amax(1) == 1) & ~whole
    found = torch.stack([~single & ~whole, single, whole & ~at_end, at_end]).double().mean(1)
    often = torch.tensor(GAP_CHANCES, dtype=torch.float64)
    ending = often[2] / (N_STEPS * 0.6 + 1)  # blackouts that happen to lie at the end
    expected = often + torch.tensor([0.0, 0.0, -1.0, 1.0], dtype=torch.float64) * ending
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("mask", [run, blackout, suffix, gaps])
def test_a_feature_shape_that_does_not_fit_is_refused(mask: object) -> None:
    assert callable(mask)
    with pytest.raises(ParameterError, match=r"`feature_shape` must multiply to the number of features, 60; got \(7,"):
        mask(complete(), ratios(400, 0.5), seeded(), (7, 3))
