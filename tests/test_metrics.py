"""Claims about the scores: each equals its textbook form, and refuses arrays that do not fit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tabmae import metrics
from tabmae.errors import DataError, ParameterError

RNG = np.random.default_rng(0)
TARGET, PREDICTED = RNG.normal(size=50), RNG.normal(size=50)


def test_errors_of_numbers_equal_their_textbook_forms() -> None:
    assert metrics.rmse([0, 0, 0, 0], [1, -1, 3, -3]) == pytest.approx(5**0.5)
    assert metrics.nrmse(TARGET, PREDICTED, 4.0) == pytest.approx(metrics.rmse(TARGET, PREDICTED) / 4)


def test_the_mean_of_a_column_has_a_normalised_error_of_one() -> None:
    assert metrics.nrmse(TARGET, np.full(50, TARGET.mean()), TARGET.std()) == pytest.approx(1)


def test_accuracy_takes_levels_of_any_type() -> None:
    assert metrics.accuracy(np.array(["a", "b", None], dtype=object), np.array(["a", "a", None], dtype=object)) == 2 / 3
    assert metrics.accuracy([1.0, 2.0], [1, 2]) == 1


def volume_by_definition(labels: list[int], scores: list[float], window: int) -> float:
    """VUS-PR threshold by threshold and step by step, as the paper defines it."""
    steps, plain = range(len(labels)), np.array(labels, dtype=float)
    areas = []
    for buffer in range(window + 1):
        soft = plain.copy()
        for step in steps:
            for side in (-1, 1):
                near = [d for d in range(1, buffer // 2 + 1) if step + side * d in steps and labels[step + side * d]]
                soft[step] += np.sqrt(1 - min(near) / buffer) if near and not labels[step] else 0
        soft = np.minimum(soft, 1)
        places = np.split(np.flatnonzero(soft), np.flatnonzero(np.diff(np.flatnonzero(soft)) > 1) + 1)
        area, last = 0.0, 0.0
        for threshold in sorted(set(scores), reverse=True):
            chosen = np.array(scores) >= threshold
            predicted = np.where(plain > 0, 1, soft * chosen)
            recall = min((soft * chosen).sum() / ((plain.sum() + predicted.sum()) / 2), 1)
            recall *= np.mean([chosen[place].any() for place in places])
            area += (recall - last) * (soft * chosen).sum() / chosen.sum()
            last = recall
        areas.append(area)
    return float(np.mean(areas))


def test_vus_pr_of_small_cases_is_what_the_definition_gives_by_hand() -> None:
    # Without a buffer: recall 1 at the second step of four by score, at a precision of 1/2.
    assert metrics.vus_pr([0, 1, 0, 0], [4, 3, 2, 1], window=0) == pytest.approx(0.5)
    # Half of the anomalies touched halves the recall: 1/2 * 1/2 at the first step, then 1 at a precision of 1.
    assert metrics.vus_pr([1, 0, 0, 1], [4, 1, 2, 3], window=0) == pytest.approx(0.25 + 0.75)
    # A buffer of 2 lets the step beside count sqrt(1/2): recall sqrt(1/2) / (1 + sqrt(1/2) / 2) at that precision.
    beside, whole = 0.5**0.5, 0.0
    recall = beside / (1 + beside / 2)
    whole = recall * beside + (1 - recall) * (1 + beside) / 2
    assert 3 * metrics.vus_pr([0, 1, 0, 0, 0, 0], [4, 3, 0, 0, 0, 0], window=2) == pytest.approx(0.5 + 0.5 + whole)


def test_vus_pr_equals_its_definition_with_ties_and_buffers_that_meet() -> None:
    labels = [0] * 8 + [1] * 4 + [0] * 5 + [1] + [0] * 12 + [1] * 3
    scores = np.round(RNG.normal(size=len(labels)) + labels, 1).tolist()
    for window in (0, 1, 3, 8):
        assert metrics.vus_pr(labels, scores, window) == pytest.approx(volume_by_definition(labels, scores, window))


def test_without_a_buffer_vus_pr_of_one_anomaly_is_the_average_precision() -> None:
    labels = np.arange(400) // 100 == 2
    scores = RNG.normal(size=400) + labels
    assert metrics.vus_pr(labels, scores, 0) == pytest.approx(average_precision_score(labels, scores))


def test_perfect_scores_have_a_vus_pr_of_one_and_late_ones_lose_less_with_a_buffer() -> None:
    labels = (np.arange(500) % 100 < 10).astype(int)
    assert metrics.vus_pr(labels, labels, 50) == pytest.approx(1)
    late = np.roll(labels, 6)
    assert metrics.vus_pr(labels, late, 0) < metrics.vus_pr(labels, late, 20) < 1
    assert metrics.vus_pr(labels, -labels, 20) < 0.2


@pytest.mark.parametrize("labels", [[0, 1, np.nan], [-1, 1, 1], [0, 1, 2], ["0", "1", "0"], [0, 1, None]])
def test_vus_pr_refuses_labels_that_do_not_say_what_is_anomalous(labels: list[Any]) -> None:
    with pytest.raises(DataError, match="`labels` must be bools, or 0 and 1; got .* Pass for example"):
        metrics.vus_pr(labels, [1, 2, 3], 1)
    assert metrics.vus_pr([0.0, 1.0, 0.0], [1, 3, 2], 1) == metrics.vus_pr([False, True, False], [1, 3, 2], 1)


def test_vus_pr_needs_finite_scores_and_steps_of_both_kinds() -> None:
    assert np.isnan(metrics.vus_pr([0, 0], [1, 2], 1)) and np.isnan(metrics.vus_pr([1, 1], [1, 2], 1))
    with pytest.raises(DataError, match="`scores` must be finite"):
        metrics.vus_pr([0, 1], [1, np.nan], 1)
    half: Any = 0.5
    with pytest.raises(ParameterError, match="`window` must be an integer"):
        metrics.vus_pr([0, 1], [1, 2], half)
    with pytest.raises(DataError, match="Chosen cells must be arrays of one length"):
        metrics.vus_pr([0, 1, 0], [1, 2], 1)


@pytest.mark.parametrize("score", [metrics.rmse, metrics.accuracy])
def test_no_chosen_cell_gives_nan(score: Callable[..., float]) -> None:
    assert np.isnan(score([], []))


@pytest.mark.parametrize("score", [metrics.rmse, metrics.accuracy])
def test_arrays_of_other_lengths_or_dimensions_are_refused(score: Callable[..., float]) -> None:
    with pytest.raises(DataError, match="Chosen cells must be arrays of one length"):
        score([1.0, 2.0], [1.0])
    with pytest.raises(DataError, match="Chosen cells must be arrays of one length"):
        score([[1.0, 2.0]], [[1.0, 2.0]])


def test_a_scale_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ParameterError, match="`scale` must be a finite number above 0; got 0.*constant"):
        metrics.nrmse([1.0], [1.0], 0)
