"""Claims about the scores: each equals its textbook form, and refuses arrays that do not fit."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import log_loss as reference_log_loss

from tabmae import metrics
from tabmae.errors import DataError, ParameterError

RNG = np.random.default_rng(0)
TARGET, PREDICTED = RNG.normal(size=50), RNG.normal(size=50)


def test_errors_of_numbers_equal_their_textbook_forms() -> None:
    assert metrics.rmse([0, 0, 0, 0], [1, -1, 3, -3]) == pytest.approx(5**0.5)
    assert metrics.mae([0, 0, 0, 0], [1, -1, 3, -3]) == pytest.approx(2)
    assert metrics.nrmse(TARGET, PREDICTED, 4.0) == pytest.approx(metrics.rmse(TARGET, PREDICTED) / 4)


def test_the_mean_of_a_column_has_a_normalised_error_of_one() -> None:
    assert metrics.nrmse(TARGET, np.full(50, TARGET.mean()), TARGET.std()) == pytest.approx(1)


def test_accuracy_takes_levels_of_any_type() -> None:
    assert metrics.accuracy(np.array(["a", "b", None], dtype=object), np.array(["a", "a", None], dtype=object)) == 2 / 3
    assert metrics.accuracy([1.0, 2.0], [1, 2]) == 1


def test_log_loss_equals_scikit_learns() -> None:
    probabilities = RNG.dirichlet([1, 2, 3], size=50)
    codes = RNG.integers(3, size=50)
    wanted = reference_log_loss(codes, probabilities, labels=[0, 1, 2])
    assert metrics.log_loss(codes, probabilities) == pytest.approx(wanted)


def test_a_level_held_impossible_costs_a_finite_loss() -> None:
    assert metrics.log_loss([1], [[1.0, 0.0]]) == pytest.approx(-np.log(1e-15))


def test_crps_equals_its_definition_over_all_pairs_of_draws() -> None:
    draws = RNG.normal(size=(7, 50))
    pairs = np.abs(draws[:, None] - draws[None]).sum(axis=(0, 1)) / (2 * 7 * 6)
    wanted = (np.abs(draws - TARGET).mean(axis=0) - pairs).mean()
    assert metrics.crps(TARGET, draws) == pytest.approx(wanted)


def test_crps_does_not_depend_on_the_number_of_draws_on_average() -> None:
    # The plain form would be larger by half the mean difference over S: .28 with two draws of a normal.
    target = np.zeros(40_000)
    few = metrics.crps(target, RNG.normal(size=(2, 40_000)))
    many = metrics.crps(target, RNG.normal(size=(40, 40_000)))
    assert few == pytest.approx(many, abs=0.02)


def test_coverage_counts_both_ends_as_inside() -> None:
    assert metrics.coverage([0, 1, 2, 3], [0, 0, 0, 0], [2, 2, 2, 2]) == 0.75


def test_interval_score_is_the_width_plus_the_penalty_outside() -> None:
    lower, upper = np.zeros(3), np.full(3, 2.0)
    assert metrics.interval_width(lower, upper) == 2
    assert metrics.interval_score([1, 1, 1], lower, upper, 0.9) == pytest.approx(2)
    assert metrics.interval_score([-0.5, 1, 3], lower, upper, 0.9) == pytest.approx(2 + (0.5 + 1) * 20 / 3)


def test_the_true_quantiles_have_the_best_interval_score() -> None:
    target = RNG.normal(size=40_000)
    scores = [metrics.interval_score(target, -half + 0 * target, half + 0 * target, 0.8) for half in (1.0, 1.2816, 1.6)]
    assert scores[1] == min(scores)


@pytest.mark.parametrize("score", [metrics.rmse, metrics.mae, metrics.accuracy, metrics.interval_width])
def test_no_chosen_cell_gives_nan(score: Callable[..., float]) -> None:
    assert np.isnan(score([], []))


@pytest.mark.parametrize("score", [metrics.rmse, metrics.mae, metrics.accuracy, metrics.interval_width])
def test_arrays_of_other_lengths_or_dimensions_are_refused(score: Callable[..., float]) -> None:
    with pytest.raises(DataError, match="Chosen cells must be arrays of one length"):
        score([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="Chosen cells must be arrays of one length"):
        score([[1.0, 2.0]], [[1.0, 2.0]])


def test_a_scale_or_level_out_of_range_or_a_single_draw_is_refused() -> None:
    with pytest.raises(ParameterError, match="`scale` must be a finite number above 0; got 0.*constant"):
        metrics.nrmse([1.0], [1.0], 0)
    with pytest.raises(ParameterError, match=r"`level` must lie in \(0, 1\); got 90"):
        metrics.interval_score([1.0], [1.0], [1.0], 90)
    with pytest.raises(DataError, match="`draws` must hold two draws at least; got 1"):
        metrics.crps([1.0], [[1.0]])
