"""`tabmae.estimators.series.regressors`: what columns known ahead explain."""

import numpy as np

from tabmae.estimators.series.regressors import (
    LEAST_EXPLAINED,
    Regressors,
    Units,
    columns_worth_trying,
    early_steps,
    logs_about_level,
    share_explained,
)

EARLY = early_steps((500,), cycle=0, horizon=24)


def test_a_share_is_that_of_later_steps_learnt_from_earlier_ones() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(500, 2))
    values = columns @ np.array([[3.0], [0.0]]) + rng.normal(size=(500, 1))
    values[rng.random(500) < 0.1] = np.nan
    assert abs(share_explained(columns, values, EARLY) - 0.9) < 0.05
    assert share_explained(columns, rng.normal(size=(500, 1)), EARLY) < LEAST_EXPLAINED
    turned = np.where(np.arange(500)[:, None] < 400, values, -values)
    assert share_explained(columns, turned, EARLY) < 0
    assert share_explained(columns, np.concatenate([turned[:400], np.full((100, 1), np.nan)]), EARLY) == 0


def test_the_calendar_is_tried_where_it_explains_more_than_the_columns_before_it() -> None:
    rng = np.random.default_rng(2)
    columns, noise = rng.normal(size=(500, 3)), rng.normal(size=(500, 1))
    for n_given, driver, expected in ((1, 0, [1]), (1, 2, [1, 3]), (0, 2, [3]), (0, None, []), (3, 0, [3])):
        values = noise if driver is None else noise + 3 * columns[:, [driver]]
        assert columns_worth_trying(columns, n_given, values, EARLY) == expected


def test_an_effect_is_that_of_the_columns_learnt_and_of_no_later_one() -> None:
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(200, 3))
    values = columns[:, :1] * 2 + 0.1 * rng.normal(size=(200, 1))
    fitted = Regressors.fit(columns[:, :1], values)
    np.testing.assert_allclose(fitted.effect(columns), fitted.effect(columns[:, :1]))
    np.testing.assert_allclose(fitted.effect(columns)[:, 0], 2 * columns[:, 0], atol=0.3)
    assert np.array_equal(Regressors.none(2).effect(columns), np.zeros((200, 2)))


def test_an_effect_that_multiplies_is_that_of_the_logs_and_is_undone() -> None:
    rng = np.random.default_rng(3)
    columns, levels = rng.normal(size=(300, 1)), np.repeat([[10.0], [1000.0], [3.0]], 100, axis=0)
    amounts = levels * np.exp(0.4 * columns)
    logs = logs_about_level(amounts, (100, 100, 100))
    np.testing.assert_allclose(logs.reshape(3, 100).mean(1), 0, atol=1e-12)
    fitted = Regressors.fit(columns, logs, multiplies=True)
    units = Units(levels, 2 * levels)
    values = (amounts - levels) / (2 * levels)
    without = fitted.taken_off(values, columns, units)
    per_series = (without * 2 * levels + levels).reshape(3, 100)
    np.testing.assert_allclose(per_series, per_series.mean(1, keepdims=True).repeat(100, 1), rtol=0.05)
    np.testing.assert_allclose(fitted.put_on(without, columns, units), amounts)
    added = Regressors.fit(columns, values)
    np.testing.assert_allclose(added.put_on(added.taken_off(values, columns, units), columns, units), amounts)
    assert fitted.widened(columns)[0] > 1.05 and added.widened(columns) == 1


def test_an_effect_multiplies_no_farther_than_a_number_can_reach() -> None:
    fitted = Regressors.fit(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]), multiplies=True)
    units = Units(np.zeros((1, 1)), np.ones((1, 1)))
    assert np.isfinite(fitted.put_on(np.ones((1, 1)), np.array([[1e9]]), units)).all()
