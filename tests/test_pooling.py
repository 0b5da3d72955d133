"""`pool` gives the intervals of Rubin's rules, whatever held the estimates, and refuses what it cannot pool."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tabmae.errors import DataError, ParameterError
from tabmae.pooling import pool

ESTIMATES = np.array([[10.0, 1.0], [12.0, 1.5], [11.0, 0.5], [15.0, 1.0]])
VARIANCES = np.array([[4.0, 0.1], [5.0, 0.3], [3.0, 0.2], [4.0, 0.2]])
NAMES = ["age", "dose"]


def test_a_small_example_agrees_with_the_sums_done_by_hand() -> None:
    # Between (4 + 0 + 1 + 9) / 3 = 14/3, times 5/4 35/6; within 4; total 59/6; the share of the former 35/59.
    found = pool(ESTIMATES[:, 0], VARIANCES[:, 0]).loc[0]
    degrees = 3 / (35 / 59) ** 2
    assert found["estimate"] == 12
    assert found["standard_error"] == pytest.approx((59 / 6) ** 0.5)
    assert found["degrees_of_freedom"] == pytest.approx(degrees)
    assert found["high"] - 12 == pytest.approx(stats.t.ppf(0.975, degrees) * (59 / 6) ** 0.5)
    assert found["fraction_missing"] == pytest.approx(35 / 59 + 24 / 59 * 2 / (degrees + 3))


def test_known_degrees_of_the_complete_data_bound_those_of_the_interval() -> None:
    # Barnard and Rubin: observed (21 / 23) * 20 * (24 / 59), and its harmonic sum with those of Rubin.
    large, observed = 3 / (35 / 59) ** 2, 21 / 23 * 20 * 24 / 59
    small = pool(ESTIMATES[:, 0], VARIANCES[:, 0], n_complete=20).loc[0]
    assert small["degrees_of_freedom"] == pytest.approx(large * observed / (large + observed))
    many = pool(ESTIMATES, VARIANCES)
    pd.testing.assert_frame_equal(pool(ESTIMATES, VARIANCES, n_complete=1e12), many)
    few = pool(ESTIMATES, VARIANCES, n_complete=5)
    assert (few["degrees_of_freedom"] < 5).all() and (few["high"] > many["high"]).all()
    assert few["fraction_missing"].equals(many["fraction_missing"])


def test_equal_estimates_lose_no_information() -> None:
    found = pool([2.0, 2.0], [0.25, 0.25], level=0.9).loc[0]
    assert found["fraction_missing"] == 0 and found["degrees_of_freedom"] == np.inf
    np.testing.assert_allclose(found[["low", "high"]].tolist(), [2 - 1.6448536 / 2, 2 + 1.6448536 / 2])
    assert pool([2.0, 2.0], [0.25, 0.25], n_complete=50).loc[0, "degrees_of_freedom"] == pytest.approx(51 / 53 * 50)


def test_variances_of_zero_give_a_point_or_nothing() -> None:
    assert pool([2.0, 2.0], [0.0, 0.0]).loc[0, ["low", "high"]].tolist() == [2, 2]
    unknown = pool([1.0, 2.0], [0.0, 0.0], n_complete=50).loc[0]
    assert unknown["low"] == -np.inf and unknown["high"] == np.inf and unknown["fraction_missing"] == 1


@pytest.mark.parametrize("n_complete", [None, 37])
def test_intervals_over_draws_of_missing_cells_hold_the_truth_at_their_level(n_complete: int | None) -> None:
    # Means of 38 normal values, 40 % missing, each mean from 5 proper draws of the posterior: Rubin 1987, chapter 4.
    rng = np.random.default_rng(0)
    n_rows, n_seen, n_draws, n_tables = 38, 23, 5, 4000
    seen = rng.normal(size=(n_seen, n_tables))
    variance = seen.var(axis=0, ddof=1) * (n_seen - 1) / rng.chisquare(n_seen - 1, (n_draws, n_tables))
    mean = seen.mean(axis=0) + np.sqrt(variance / n_seen) * rng.normal(size=(n_draws, n_tables))
    drawn = mean + np.sqrt(variance) * rng.normal(size=(n_rows - n_seen, n_draws, n_tables))
    tables = np.concatenate([np.broadcast_to(seen[:, None], (n_seen, n_draws, n_tables)), drawn])
    found = pool(tables.mean(axis=0), tables.var(axis=0, ddof=1) / n_rows, n_complete=n_complete, level=0.9)
    assert abs(((found["low"] < 0) & (found["high"] > 0)).mean() - 0.9) < 0.02
    assert abs(found["estimate"].std() / np.sqrt((found["standard_error"] ** 2).mean()) - 1) < 0.05
    assert found["fraction_missing"].mean() == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize(
    ("estimates", "variances"),
    [
        (pd.DataFrame(ESTIMATES, columns=NAMES), pd.DataFrame(VARIANCES[:, ::-1], columns=NAMES[::-1])),
        ([pd.Series(row, NAMES) for row in ESTIMATES], [pd.Series(row[::-1], NAMES[::-1]) for row in VARIANCES]),
        ([dict(zip(NAMES, row, strict=True)) for row in ESTIMATES], VARIANCES.tolist()),
    ],
)
def test_names_are_kept_and_variances_found_by_them(estimates: Any, variances: Any) -> None:
    pd.testing.assert_frame_equal(pool(estimates, variances), pool(ESTIMATES, VARIANCES).set_axis(NAMES))


def test_one_coefficient_may_come_as_any_sequence() -> None:
    expected = pool(ESTIMATES[:, :1], VARIANCES[:, :1])
    slopes, squares = pd.Series(ESTIMATES[:, 0], name="slope"), pd.Series(VARIANCES[:, 0], name="square")
    pd.testing.assert_frame_equal(pool(slopes, squares), expected)
    pd.testing.assert_frame_equal(pool(list(slopes), tuple(squares)), expected)


@pytest.mark.parametrize(
    ("estimates", "variances", "message"),
    [
        ([1.0], [1.0], r"`estimates` must hold a coefficient and two analyses at least; got shape \(1, 1\)"),
        ([], [], "`estimates` must hold a coefficient and two analyses at least"),
        (3.0, 1.0, "`estimates` must hold numbers, a row an analysis"),
        (ESTIMATES, np.zeros((4, 2, 2)), "`variances` must hold numbers, a row an analysis"),
        ([["a"], ["b"]], [1.0, 1.0], "`estimates` must hold numbers, a row an analysis"),
        (
            [pd.Series([1, 2], ["a", "a"]), pd.Series([1, 2], ["a", "b"])],
            VARIANCES[:2],
            "`estimates` must hold numbers",
        ),
        (ESTIMATES, VARIANCES[:3], r"`estimates` and `variances` must have one shape; got \(4, 2\) and \(3, 2\)"),
        (ESTIMATES, VARIANCES[:, 0], r"`estimates` and `variances` must have one shape; got \(4, 2\) and \(4, 1\)"),
        ([1.0, np.nan], [1.0, 1.0], "`estimates` must be finite; those of 0 are not"),
        ([1.0, 2.0], [1.0, np.inf], "`variances` must be finite; those of 0 are not"),
        ([{"a": 1.0}, {"a": 2.0, "b": 3.0}], VARIANCES[:2], "`estimates` must be finite; those of 'b' are not"),
        (
            pd.DataFrame(ESTIMATES, columns=["age", "sex"]),
            pd.DataFrame(VARIANCES, columns=NAMES),
            "`estimates` and `variances` must have the same names, each once; not so: 'sex', 'dose'",
        ),
        (
            pd.DataFrame(ESTIMATES, columns=["age", "age"]),
            pd.DataFrame(VARIANCES, columns=["age", "age"]),
            "`estimates` and `variances` must have the same names, each once; not so: 'age'",
        ),
        (
            pd.DataFrame(ESTIMATES, columns=NAMES),
            VARIANCES - [0.0, 0.2],
            "`variances` must not be negative; those of 'dose' are",
        ),
    ],
)
def test_what_cannot_be_pooled_is_refused(estimates: Any, variances: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        pool(estimates, variances)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_complete": 0}, "`n_complete` must be a finite number above 0; got 0"),
        ({"n_complete": "40"}, "`n_complete` must be a finite number above 0; got '40'"),
        ({"level": 95}, r"`level` must lie in \(0, 1\); got 95"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{message}"):
        pool(ESTIMATES, VARIANCES, **arguments)
