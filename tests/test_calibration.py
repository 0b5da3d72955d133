"""Calibrated levels: they hold their share of fresh cells, whatever the model believes of itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import tabmae.calibration
from tabmae import TabMAE
from tabmae.calibration import HIGHEST, POOLED_WEIGHT, Calibration

LEVELS = [0.2, 0.5, 0.8, 0.9, 0.95]


def centrality(n: int, spread: float, seed: int = 0) -> Tensor:
    """Draw cells of standard deviation `spread` and give their centrality to a model that believes in 1."""
    cells = spread * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * torch.special.ndtr(cells.abs()) - 1).clamp(0, 1)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("nominal", LEVELS)
def test_fresh_cells_are_held_at_the_nominal_share(spread: float, nominal: float) -> None:
    calibration = Calibration([centrality(2_000, spread)])
    held = (centrality(20_000, spread, seed=1) <= calibration.level(0, nominal)).double().mean()
    assert float(held) == pytest.approx(nominal, abs=0.03)


@pytest.mark.parametrize("n_cells", [20, 100])
@pytest.mark.parametrize("nominal", [0.5, 0.8, 0.9])
def test_few_cells_hold_at_least_the_nominal_share_on_average(n_cells: int, nominal: float) -> None:
    fresh = centrality(5_000, 2.0, seed=999)
    levels = [Calibration([centrality(n_cells, 2.0, seed)]).level(0, nominal) for seed in range(200)]
    held = sum(float((fresh <= level).double().mean()) for level in levels) / len(levels)
    assert nominal - 0.01 < held < nominal + 0.06


def test_a_model_too_sure_of_itself_is_asked_for_more_and_a_timid_one_for_less() -> None:
    sure, timid = (Calibration([centrality(500, spread)]) for spread in (2.0, 0.5))
    for nominal in LEVELS:
        assert timid.level(0, nominal) < nominal < sure.level(0, nominal)


@pytest.mark.parametrize("sizes", [(0, 40), (3, 1_000), (50, 50)])
def test_the_level_grows_with_the_nominal_one(sizes: tuple[int, int]) -> None:
    calibration = Calibration([centrality(n, 1.5, seed=n) for n in sizes])
    for column in range(2):
        levels = [calibration.level(column, nominal / 100) for nominal in range(1, 100)]
        assert levels == sorted(levels)
        assert levels[0] >= 0 and levels[-1] <= HIGHEST < 1


def test_each_column_with_many_cells_has_its_own_level() -> None:
    calibration = Calibration([centrality(3_000, 0.5), centrality(3_000, 2.0, seed=1)])
    for column, spread in ((0, 0.5), (1, 2.0)):
        held = (centrality(20_000, spread, seed=5) <= calibration.level(column, 0.8)).double().mean()
        assert float(held) == pytest.approx(0.8, abs=0.03)


def test_few_cells_of_a_column_lean_on_those_of_all() -> None:
    own, others = torch.full((3,), 0.999, dtype=torch.float64), centrality(2_000, 1.0)
    pooled, leaning = Calibration([others]), Calibration([own, others])
    assert leaning.level(0, 0.5) == pytest.approx(pooled.level(0, 0.5), abs=0.1)
    assert Calibration([own.repeat(200), others]).level(0, 0.5) == pytest.approx(0.999)


def test_a_column_without_cells_takes_the_pooled_level() -> None:
    others = centrality(2_000, 2.0)
    calibration = Calibration([torch.zeros(0), others])
    assert calibration.level(0, 0.8) == pytest.approx(Calibration([others]).level(0, 0.8), abs=0.03)


@pytest.mark.parametrize("columns", [[], [torch.zeros(0)], [torch.zeros(0), torch.zeros(0)]])
def test_without_any_cell_the_nominal_level_stays(columns: list[Tensor]) -> None:
    calibration = Calibration(columns)
    assert [calibration.level(0, nominal) for nominal in LEVELS] == LEVELS


def test_a_level_that_no_number_of_cells_could_prove_is_the_highest() -> None:
    assert Calibration([torch.zeros(0), centrality(50, 1.0)]).level(0, 0.999) == HIGHEST
    most = 9 * POOLED_WEIGHT / (9 * POOLED_WEIGHT + 1)
    assert Calibration([torch.full((8 * int(POOLED_WEIGHT),), 0.5)]).level(0, most - 0.001) == 0.5


def test_the_order_of_the_cells_does_not_matter_and_they_are_left_alone() -> None:
    cells = centrality(100, 2.0)
    before = cells.clone()
    one, other = Calibration([cells, cells[:5]]), Calibration([cells.flip(0), cells[:5].flip(0)])
    assert [one.level(1, nominal) for nominal in LEVELS] == [other.level(1, nominal) for nominal in LEVELS]
    assert torch.equal(cells, before)


def test_the_spread_of_draws_is_that_of_held_out_cells() -> None:
    calibration = Calibration([centrality(3_000, 2.0), centrality(3_000, 0.5, seed=1)])
    nominal = torch.rand(20_000, generator=torch.Generator().manual_seed(2))
    for column, spread in ((0, 2.0), (1, 0.5)):
        levels = calibration.spread(column, nominal).sort().values
        assert levels.shape == (20_000,) and levels.dtype == torch.float64
        fresh = centrality(20_000, spread, seed=5).sort().values
        torch.testing.assert_close(levels[:19_600], fresh[:19_600], rtol=0, atol=0.04)
        ordered = calibration.spread(column, nominal.sort().values)
        assert (ordered.diff() >= 0).all() and ordered.max() <= HIGHEST


def test_without_any_cell_draws_keep_their_spread() -> None:
    nominal = torch.tensor([0.1, 0.9], dtype=torch.float64)
    assert torch.equal(Calibration([torch.zeros(0)]).spread(0, nominal), nominal)


def test_columns_of_few_values_lean_on_their_like_and_not_on_others() -> None:
    few, many = centrality(300, 0.2).where(centrality(300, 1.0, seed=3) > 0.7, 0.0), centrality(10, 2.0, seed=1)
    both = Calibration([few, many, few[:10]], [True, False, True])
    for nominal in LEVELS:
        assert both.level(1, nominal) == Calibration([many]).level(0, nominal)
        assert both.level(0, nominal) == Calibration([few, few[:10]]).level(0, nominal)
        assert both.level(2, nominal) < both.level(1, nominal)


def test_a_column_without_cells_leans_on_its_kind_and_else_on_the_other() -> None:
    few, none = torch.tensor([0.0, 0.0, 0.1, 0.2, 0.9]).repeat(60), torch.zeros(0)
    assert Calibration([none, few], [False, True]).level(0, 0.7) == pytest.approx(0.2)
    halves = torch.full((900,), 0.5)
    assert Calibration([none, few, halves], [False, True, False]).level(0, 0.7) == pytest.approx(0.5)
    assert Calibration([none, few, halves], [True, True, False]).level(0, 0.7) == pytest.approx(0.2)


def test_a_thinned_pool_has_the_same_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [torch.zeros(0), *(centrality(2_000, 1.5, seed=seed) for seed in range(5))]
    whole = Calibration(columns)
    monkeypatch.setattr(tabmae.calibration, "MAX_POOLED", 500)
    thinned = Calibration(columns)
    assert thinned._pools[False].n <= 500 < whole._pools[False].n
    for nominal in LEVELS:
        assert thinned.level(0, nominal) == pytest.approx(whole.level(0, nominal), abs=0.005)


def test_draws_of_a_column_of_few_values_are_spread_as_the_model_says() -> None:
    few, many = torch.tensor([0.0, 0.0, 0.0, 0.3, 0.6]), centrality(300, 2.0)
    nominal = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    calibration = Calibration([few, many], [True, False])
    assert torch.equal(calibration.spread(0, nominal), nominal)
    assert torch.equal(calibration.spread(1, nominal), Calibration([many]).spread(0, nominal))


def test_bounds_at_a_value_of_the_column_hold_it() -> None:
    rng = np.random.default_rng(0)
    tenths = rng.integers(1, 8, 300) / 10
    table = pd.DataFrame({"x": tenths, "y": 7.7 * tenths + 1e4})
    holes = table.mask(np.random.default_rng(1).random(table.shape) < 0.2)
    lower, upper = TabMAE(max_epochs=10, random_state=0).fit(holes).predict_interval(holes, 0.99)
    missing = holes.isna() & holes.notna().any(axis=1).to_numpy()[:, None]
    held = (lower <= table) & (table <= upper)
    assert held.to_numpy()[missing.to_numpy()].mean() > 0.97


def test_a_few_cells_are_not_counted_again_as_those_of_all_columns() -> None:
    alone = Calibration([torch.tensor([0.1, 0.3])])
    assert alone.level(0, 0.9) == pytest.approx(1, abs=1e-5)
    beside = Calibration([torch.tensor([0.1, 0.3]), torch.full((8,), 0.5)])
    assert beside.level(0, 0.8) == pytest.approx(0.5)
    assert beside.level(0, 0.95) == pytest.approx(1, abs=1e-5)
    assert float(alone.spread(0, torch.tensor([0.9]))) == pytest.approx(0.3)


def test_levels_are_of_cells_that_the_model_is_as_sure_of() -> None:
    sure, unsure = centrality(400, 0.2), centrality(100, 2.0, seed=1)
    deviations = [torch.cat([torch.full((400,), 0.01), torch.full((100,), 1.0)])]
    calibration = Calibration([torch.cat([sure, unsure])], deviations=deviations)
    asked = torch.tensor([0.009, 1.1], dtype=torch.float64)
    for nominal in LEVELS:
        levels = calibration.levels(0, nominal, asked)
        for spread, level in zip((0.2, 2.0), levels, strict=True):
            held = float((centrality(20_000, spread, seed=5) <= level).double().mean())
            assert held == pytest.approx(nominal, abs=0.09)
        drawn = calibration.spread(0, torch.full((2,), nominal), asked)
        torch.testing.assert_close(drawn, levels, rtol=0, atol=0.02)


def test_a_column_without_cells_as_sure_leans_on_those_of_other_columns() -> None:
    deviations = [torch.full((300,), 0.01), torch.full((300,), 1.0)]
    calibration = Calibration([centrality(300, 0.2), centrality(300, 2.0, seed=1)], deviations=deviations)
    narrow, wide = calibration.levels(0, 0.8, torch.tensor([0.01, 1.0], dtype=torch.float64))
    assert float(wide) > calibration.level(1, 0.8) - 0.15 and narrow < 0.3


def test_deviations_that_no_cell_had_have_the_levels_of_the_likest_cells() -> None:
    deviations = [torch.cat([torch.full((60,), 0.1), torch.full((60,), 1.0)])]
    calibration = Calibration([torch.cat([centrality(60, 0.2), centrality(60, 2.0, seed=1)])], deviations=deviations)
    levels = calibration.levels(0, 0.8, torch.tensor([0.0, 1e-9, 0.1, 1.0, 1e9, torch.inf], dtype=torch.float64))
    assert levels.isfinite().all()
    torch.testing.assert_close(levels[:2], levels[2].expand(2), rtol=0, atol=0.1)
    torch.testing.assert_close(levels[4:], levels[3].expand(2), rtol=0, atol=0.1)


def test_a_cell_whose_twin_is_missing_too_is_as_unsure_as_it_is() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=1_200)
    cm = 170 + 10 * z
    whole = pd.DataFrame({"cm": cm, "inch": cm / 2.54, "z": z + 0.5 * rng.normal(size=1_200)})
    holes = whole.mask((rng.random(whole.shape) < 0.2) & (whole.columns != "z"))
    model = TabMAE(max_epochs=60, random_state=0).fit(holes)
    lower, upper = model.predict_interval(holes, 0.9)
    alone, told = (holes["cm"].isna() & (holes["inch"].isna() == twin) for twin in (True, False))
    held = (lower["cm"] <= whole["cm"]) & (whole["cm"] <= upper["cm"])
    assert held[alone].mean() > 0.8 and held[told].mean() > 0.8
    assert (upper["cm"] - lower["cm"])[told].median() < 0.1 * (upper["cm"] - lower["cm"])[alone].median()
    errors = model.sample(holes, 3, random_state=0)
    spread = np.mean([(draw["cm"] - whole["cm"])[alone].abs().mean() for draw in errors])
    assert spread > 1.1 * 4.5 * (2 / np.pi) ** 0.5, (
        "of draws that lie about the mean as truly as the cells do 1.4 times"
    )
