"""Intervals of `TabMAERegressor`: they hold what they promise, and are wide where errors are large."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError

import tabmae
from tabmae import ParameterError, TabMAERegressor
from tabmae.estimators.supervised.spread import Spread

QUICK: dict[str, Any] = {"max_epochs": 2, "d_token": 4, "members": ("linear", "trees"), "random_state": 0}
RNG = np.random.default_rng(0)
ROWS = RNG.uniform(size=(1200, 3))
NOISE = np.where(ROWS[:, 2] > 0.5, 1.0, 0.1) * RNG.normal(size=1200)
TARGET = 3 * ROWS[:, 0] + ROWS[:, 1] + NOISE
LEARNT, ASKED = slice(0, 300), slice(300, 1200)


@pytest.fixture(scope="module")
def regressor() -> TabMAERegressor:
    return TabMAERegressor(**QUICK).fit(ROWS[LEARNT], TARGET[LEARNT])


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_intervals_hold_their_share_of_new_rows(regressor: TabMAERegressor, level: float) -> None:
    lower, upper = regressor.predict_interval(ROWS[ASKED], level)
    held = ((lower <= TARGET[ASKED]) & (TARGET[ASKED] <= upper)).mean()
    assert held == pytest.approx(level, abs=0.05)


def test_intervals_lie_about_the_prediction_and_are_wide_where_errors_are_large(regressor: TabMAERegressor) -> None:
    lower, upper = regressor.predict_interval(ROWS[ASKED], level=0.9)
    np.testing.assert_allclose((lower + upper) / 2, regressor.predict(ROWS[ASKED]))
    loud = ROWS[ASKED, 2] > 0.5
    assert np.median((upper - lower)[loud]) > 3 * np.median((upper - lower)[~loud])


def test_rows_with_holes_have_wider_intervals_that_hold(regressor: TabMAERegressor) -> None:
    holed = ROWS[ASKED].copy()
    holed[:, 0] = np.nan
    lower, upper = regressor.predict_interval(holed)
    whole = regressor.predict_interval(ROWS[ASKED])
    assert np.median(upper - lower) > 1.5 * np.median(whole[1] - whole[0])
    assert ((lower <= TARGET[ASKED]) & (TARGET[ASKED] <= upper)).mean() > 0.8


def test_a_folder_keeps_the_intervals(regressor: TabMAERegressor, tmp_path: Path) -> None:
    regressor.save(tmp_path / "model")
    loaded = tabmae.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_interval(ROWS[ASKED]), regressor.predict_interval(ROWS[ASKED]))


def test_no_bound_is_below_zero_where_no_label_is() -> None:
    counts = np.floor(4 * ROWS[LEARNT, 0] ** 4)
    model = TabMAERegressor(**QUICK).fit(ROWS[LEARNT], counts)
    predicted, (lower, upper) = model.predict(ROWS[LEARNT]), model.predict_interval(ROWS[LEARNT], 0.99)
    assert (lower >= np.minimum(predicted, 0)).all()
    assert (lower == 0).any()
    signed = TabMAERegressor(**QUICK).fit(ROWS[LEARNT], counts - 1)
    np.testing.assert_allclose(signed.predict_interval(ROWS[LEARNT], 0.99)[1] + 1, upper, atol=0.2)
    assert (signed.predict_interval(ROWS[LEARNT], 0.99)[0] < -1).any()


def test_a_target_that_never_changes_has_no_width() -> None:
    model = TabMAERegressor(**QUICK).fit(ROWS[LEARNT], np.full(300, 2.5))
    np.testing.assert_allclose(model.predict_interval(ROWS[ASKED]), 2.5)


def test_few_errors_give_the_widest_of_them_to_levels_that_they_cannot_tell() -> None:
    features, errors = torch.zeros(20, 1), torch.arange(20.0)
    spread = Spread().fit(features, errors, 20, torch.Generator().manual_seed(0))
    assert spread.width(features[:1], 0.9).item() < spread.width(features[:1], 0.97).item()
    assert spread.width(features[:1], 0.97).item() == spread.width(features[:1], 0.9999).item()


def test_errors_count_by_the_weight_of_their_rows() -> None:
    features, errors = torch.zeros(400, 1), torch.arange(400.0) % 2
    weight = torch.where(errors > 0, 0.1, 1.9)
    heard = Spread().fit(features, errors, 400, torch.Generator().manual_seed(0), weight)
    alike = Spread().fit(features, errors, 400, torch.Generator().manual_seed(0))
    assert heard.width(features[:1], 0.9).item() == 0
    assert alike.width(features[:1], 0.9).item() == pytest.approx(1, abs=0.1)


def test_no_row_tells_the_width_that_it_calibrates() -> None:
    # Errors unlike those of any other row: trees that learnt them would find each as usual, and intervals too narrow.
    held = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        errors, new = torch.rand(400, generator=generator).pow(8), torch.rand(2000, generator=generator).pow(8)
        spread = Spread().fit(torch.rand(400, 5, generator=generator), errors, 400, generator)
        held.append((new <= spread.width(torch.rand(2000, 5, generator=generator), 0.95)).double().mean())
    assert torch.stack(held).mean() > 0.945


@pytest.mark.parametrize("level", [0, 1, 90, "high"])
def test_a_level_that_is_no_share_is_refused(regressor: TabMAERegressor, level: Any) -> None:
    with pytest.raises(ParameterError, match=r"`level` must .* Pass the share of rows to hold, for example 0\.9"):
        regressor.predict_interval(ROWS[ASKED], level)


def test_intervals_ask_for_a_fit() -> None:
    with pytest.raises(NotFittedError):
        TabMAERegressor().predict_interval(ROWS)
