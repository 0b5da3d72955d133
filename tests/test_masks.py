import pickle
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from tabmae.errors import ParameterError
from tabmae.masks import (
    MASKS,
    bernoulli,
    block,
    check_mask_ratio,
    checked_mask,
    column,
    copy,
    draw_ratio,
    get_mask,
    grid,
)

EVERY = pytest.mark.parametrize("name", MASKS)
BY_RATIO = pytest.mark.parametrize("name", [name for name in MASKS if name not in ("copy", "mixed")])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def incomplete(n_rows: int = 600, n_features: int = 12, seed: int = 7) -> Tensor:
    """Give an `observed` of unequal columns: the first misses most of its cells, the last none."""
    return torch.rand(n_rows, n_features, generator=seeded(seed)) < torch.linspace(0.2, 1.0, n_features)


def complete(n_rows: int = 600, n_features: int = 12) -> Tensor:
    return torch.ones(n_rows, n_features, dtype=torch.bool)


def ratios(n_rows: int, ratio: float) -> Tensor:
    return torch.full((n_rows,), ratio)


def rate(hidden: Tensor, observed: Tensor) -> float:
    return (hidden.sum() / observed.sum()).item()


def near_half(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(observed.shape, generator=generator) < mask_ratio[:, None]


@EVERY
@pytest.mark.parametrize("shape", [(600, 12), (1, 12), (600, 1), (2, 2)])
@pytest.mark.parametrize("ratio", [0.02, 0.5, 0.98])
def test_hidden_is_a_bool_subset_of_observed_which_is_left_alone(
    name: str, shape: tuple[int, int], ratio: float
) -> None:
    observed = incomplete(*shape)
    before = observed.clone()
    hidden = MASKS[name](observed, ratios(shape[0], ratio), seeded())
    assert hidden.dtype == torch.bool
    assert hidden.shape == shape
    assert not (hidden & ~observed).any()
    assert torch.equal(observed, before)


@BY_RATIO
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.5, 0.9])
def test_the_rate_of_hidden_cells_is_the_ratio_in_every_column(name: str, ratio: float) -> None:
    generator, observed = seeded(), incomplete(60)
    hidden = torch.stack([MASKS[name](observed, ratios(60, ratio), generator) for _ in range(800)])
    assert rate(hidden, observed.expand(800, -1, -1)) == pytest.approx(ratio, abs=0.01)
    by_column = hidden.sum((0, 1)) / (800 * observed.sum(0))
    spread = 0.06 if name == "column" else 0.02
    assert (by_column - ratio).abs().max() < spread


@BY_RATIO
@pytest.mark.parametrize("feature_shape", [(3, 4), (2, 2, 3)])
def test_the_rate_is_the_ratio_with_a_feature_shape_too(name: str, feature_shape: tuple[int, ...]) -> None:
    generator, observed = seeded(), incomplete(60)
    hidden = torch.stack([MASKS[name](observed, ratios(60, 0.3), generator, feature_shape) for _ in range(800)])
    assert rate(hidden, observed.expand(800, -1, -1)) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("name", ["bernoulli", "block", "grid"])
def test_each_row_has_its_own_ratio(name: str) -> None:
    observed, mask_ratio = complete(1000), torch.tensor([0.1, 0.8]).repeat_interleave(500)
    hidden = MASKS[name](observed, mask_ratio, seeded()).float().mean(1)
    assert hidden[:500].mean().item() == pytest.approx(0.1, abs=0.02)
    assert hidden[500:].mean().item() == pytest.approx(0.8, abs=0.02)


@EVERY
def test_the_same_seed_gives_the_same_mask_and_another_seed_another(name: str) -> None:
    observed, mask_ratio = incomplete(), ratios(600, 0.4)
    first, again, other = (MASKS[name](observed, mask_ratio, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@EVERY
def test_a_second_draw_differs_from_the_first(name: str) -> None:
    observed, mask_ratio, generator = incomplete(), ratios(600, 0.4), seeded()
    draws = [MASKS[name](observed, mask_ratio, generator) for _ in range(2)]
    assert not torch.equal(*draws)


@EVERY
def test_the_global_generator_is_neither_read_nor_moved(name: str) -> None:
    observed, mask_ratio = incomplete(), ratios(600, 0.4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        first = MASKS[name](observed, mask_ratio, seeded())
        draw_ratio((0.1, 0.9), 5, seeded())
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(MASKS[name](observed, mask_ratio, seeded()), first)


def test_bernoulli_hides_cells_independently() -> None:
    hidden = bernoulli(complete(20_000, 3), ratios(20_000, 0.3), seeded()).double()
    assert (torch.corrcoef(hidden.T) - torch.eye(3)).abs().max() < 0.03


@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.75])
def test_block_hides_one_run_on_the_ring_of_features(ratio: float) -> None:
    hidden = block(complete(), ratios(600, ratio), seeded())
    starts = (hidden & ~hidden.roll(1, 1)).sum(1)
    assert (starts == 1).all()
    assert ((hidden.sum(1) - 12 * ratio).abs() < 1).all()


def test_block_with_a_feature_shape_hides_one_rectangle_on_the_torus() -> None:
    hidden = block(complete(400, 48), ratios(400, 0.3), seeded(), feature_shape=(6, 8)).reshape(400, 6, 8)
    rows, columns = hidden.any(2), hidden.any(1)
    assert torch.equal(hidden, rows[:, :, None] & columns[:, None, :])
    for sides in (rows, columns):
        assert ((sides & ~sides.roll(1, 1)).sum(1) <= 1).all()
    assert len({(int(n), int(m)) for n, m in zip(rows.sum(1), columns.sum(1), strict=True)}) > 5


def test_grid_hides_every_fourth_feature_at_a_quarter() -> None:
    hidden = grid(complete(n_features=16), ratios(600, 0.25), seeded())
    assert torch.equal(hidden[:, 4:], hidden[:, :-4])
    assert (hidden[:, :4].sum(1) == 1).all()
    assert hidden[:, :4].any(0).all()


def test_grid_spreads_any_ratio_evenly() -> None:
    hidden = grid(complete(n_features=50), ratios(600, 0.37), seeded()).double()
    in_tens = hidden.unfold(1, 10, 1).sum(2)
    assert in_tens.min() >= 3
    assert in_tens.max() <= 4


def test_grid_with_a_feature_shape_steps_along_each_axis() -> None:
    hidden = grid(complete(n_features=64), ratios(600, 0.5), seeded(), feature_shape=(8, 8)).reshape(600, 8, 8)
    assert torch.equal(hidden[:, 1:], ~hidden[:, :-1])
    assert torch.equal(hidden[:, :, 1:], ~hidden[:, :, :-1])


def test_column_hides_the_same_features_in_every_row() -> None:
    observed = incomplete()
    hidden = column(observed, draw_ratio((0.2, 0.6), 600, seeded(1)), seeded())
    chosen = hidden.any(0)
    assert 0 < chosen.sum() < 12
    assert torch.equal(hidden, observed & chosen)


def test_copy_hides_what_another_row_lacks() -> None:
    patterns = torch.tensor([[True, True, False, False], [False, False, True, True]])
    hidden = copy(patterns, ratios(2, 0.5), seeded())
    assert torch.equal(hidden, patterns)
    rows = complete(50, 4)
    rows[:, 3] = torch.arange(50) % 2 == 0
    hidden = copy(rows, ratios(50, 1e-6), seeded())
    assert not hidden[:, :3].any()
    assert hidden[::2, 3].any()


def test_copy_takes_every_other_row_and_never_the_row_itself() -> None:
    observed = ~torch.eye(6, dtype=torch.bool)
    generator = seeded()
    hidden = torch.stack([copy(observed, ratios(6, 1e-6), generator) for _ in range(300)])
    assert (hidden.sum(2) == 1).all()
    often = hidden.double().mean(0)
    assert (often - (~torch.eye(6, dtype=torch.bool)).double() / 5).abs().max() < 0.1


@pytest.mark.parametrize("n_rows", [1, 600])
def test_copy_falls_back_on_bernoulli_where_nothing_would_be_hidden(n_rows: int) -> None:
    hidden = torch.cat([copy(complete(n_rows), ratios(n_rows, 0.3), seeded(seed)) for seed in range(100)])
    assert hidden.double().mean().item() == pytest.approx(0.3, abs=0.04)


def test_copy_falls_back_where_the_other_row_lacks_the_same_cells() -> None:
    observed = complete(2000)
    observed[:, :3] = False
    hidden = copy(observed, ratios(2000, 0.3), seeded())
    assert rate(hidden, observed) == pytest.approx(0.3, abs=0.02)


def test_mixed_draws_each_strategy_for_a_fifth_of_the_rows() -> None:
    hidden = MASKS["mixed"](complete(5000, 16), ratios(5000, 0.25), seeded())
    four = hidden.sum(1) == 4
    by_grid = four & (hidden[:, 4:] == hidden[:, :-4]).all(1)
    by_block = four & ((hidden & ~hidden.roll(1, 1)).sum(1) == 1)
    by_column = hidden.unique(dim=0, return_counts=True)[1].max() / 5000
    unequal_counts = (~four).double().mean().item()
    assert by_grid.double().mean().item() == pytest.approx(1 / 5, abs=0.03)
    assert by_block.double().mean().item() == pytest.approx(1 / 5, abs=0.03)
    assert by_column.item() == pytest.approx(1 / 5, abs=0.03)
    assert unequal_counts == pytest.approx(2 / 5 * (1 - 0.225), abs=0.03)


def test_mixed_copies_other_rows_where_they_lack_cells() -> None:
    observed = torch.zeros(5000, 16, dtype=torch.bool)
    observed[0::2, :8] = observed[1::2, 8:] = True
    hidden = MASKS["mixed"](observed, ratios(5000, 0.25), seeded())
    whole_rows = (hidden == observed).all(1)
    assert whole_rows.double().mean().item() == pytest.approx(1 / 5 / 2, abs=0.03)


def test_mixed_passes_the_feature_shape_on() -> None:
    with pytest.raises(ParameterError, match="`feature_shape` must multiply to the number of features, 12; got"):
        MASKS["mixed"](complete(), ratios(600, 0.5), seeded(), (5, 5))


@pytest.mark.parametrize("name", ["block", "grid"])
def test_a_feature_shape_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(
        ParameterError, match=r"`feature_shape` must multiply to the number of features, 12; got \(8, 8\)"
    ):
        MASKS[name](complete(), ratios(600, 0.5), seeded(), (8, 8))


def test_a_ratio_is_repeated_and_a_pair_is_drawn_from_uniformly() -> None:
    assert torch.equal(draw_ratio(0.3, 4, seeded()), torch.full((4,), 0.3))
    drawn = draw_ratio((0.2, 0.6), 20_000, seeded())
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0.2
    assert drawn.max() <= 0.6
    levels = torch.tensor([0.25, 0.5, 0.75])
    assert (drawn.quantile(levels) - (0.2 + 0.4 * levels)).abs().max() < 0.01
    assert torch.equal(drawn, draw_ratio((0.2, 0.6), 20_000, seeded()))


@pytest.mark.parametrize("mask_ratio", [0.5, np.float64(0.5), (0.1, 0.9), [0.4, 0.4]])
def test_a_good_mask_ratio_passes(mask_ratio: Any) -> None:
    check_mask_ratio(mask_ratio)


@pytest.mark.parametrize(
    ("mask_ratio", "message"),
    [
        (1.5, r"`mask_ratio` must lie in \(0, 1\); got 1\.5\. Pass the share of observed cells"),
        ((0.0, 0.5), r"`mask_ratio` must lie in \(0, 1\); got 0\.0"),
        ((0.1, "x"), r"`mask_ratio` must be a finite number in \(0, 1\); got 'x'"),
        (None, r"`mask_ratio` must be a finite number in \(0, 1\); got None"),
        (True, r"`mask_ratio` must be a finite number in \(0, 1\); got True"),
        ((0.1, 0.2, 0.3), r"`mask_ratio` must be one number or two; got \(0\.1, 0\.2, 0\.3\)"),
        ((0.9, 0.1), r"`mask_ratio` must be a pair \(low, high\) in this order; got \(0\.9, 0\.1\)"),
    ],
)
def test_a_wrong_mask_ratio_is_refused(mask_ratio: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        check_mask_ratio(mask_ratio)


@EVERY
def test_a_strategy_is_found_by_its_name(name: str) -> None:
    assert get_mask(name) is MASKS[name]
    assert get_mask(MASKS[name]) is MASKS[name]


def test_a_wrong_name_lists_the_strategies_and_the_nearest() -> None:
    with pytest.raises(
        ParameterError, match="`mask` must be one of 'bernoulli', .*'mixed'; got 'colum'. Did you mean 'column'"
    ):
        get_mask("colum")
    with pytest.raises(ParameterError, match="`mask` must be one of"):
        get_mask(cast(Any, 3))


def test_a_function_from_outside_hides_observed_cells_only() -> None:
    observed, mask_ratio = incomplete(), ratios(600, 0.5)
    mask = get_mask(near_half)
    hidden = mask(observed, mask_ratio, seeded(), (3, 4))
    assert torch.equal(hidden, observed & near_half(observed, mask_ratio, seeded()))
    assert torch.equal(pickle.loads(pickle.dumps(mask))(observed, mask_ratio, seeded()), hidden)


def test_a_function_from_outside_cannot_change_what_is_observed() -> None:
    def hide_all(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Tensor:
        return observed.fill_(True)

    observed = incomplete()
    before = observed.clone()
    assert torch.equal(checked_mask(hide_all, observed, ratios(600, 0.5), seeded()), before)
    assert torch.equal(observed, before)


@pytest.mark.parametrize(
    ("wrong", "got"),
    [
        (lambda observed: observed.float(), r"got torch\.float32 \(4, 3\)"),
        (lambda observed: observed[:, :2], r"got torch\.bool \(4, 2\)"),
        (lambda observed: observed.numpy(), "got ndarray"),
        (lambda observed: None, "got NoneType"),
    ],
)
def test_a_function_that_returns_anything_but_a_mask_is_refused(wrong: Any, got: str) -> None:
    def mask(observed: Tensor, mask_ratio: Tensor, generator: torch.Generator) -> Any:
        return wrong(observed)

    with pytest.raises(
        ParameterError, match=rf"`mask` must return a bool tensor of the shape .*\(4, 3\); {got}\. Return"
    ):
        get_mask(mask)(complete(4, 3), ratios(4, 0.5), seeded())
