"""The linear forecasters: moments of all windows, least squares on centred contexts, and how members are blended."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from tabmae.experts.linear import (
    Linear,
    Problem,
    blend,
    gram,
    in_later_half,
    naive_matrix,
    solved_symmetric,
    squared_errors,
)

Matrix = NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).normal(size=shape)


def autoregressive(n_steps: int, seed: int = 0, level: float = 0.0) -> Matrix:
    """Draw x(t) = 1.3 x(t - 1) - 0.6 x(t - 2) + noise about a level."""
    noise, x = normal(n_steps, seed=seed), np.zeros(n_steps)
    for t in range(2, n_steps):
        x[t] = 1.3 * x[t - 1] - 0.6 * x[t - 2] + noise[t]
    return x + level


def windows(values: Matrix, size: int, start: int = 0, stop: int | None = None) -> Matrix:
    """Give all windows (n, size) of a series that begin in [start, stop)."""
    every: Matrix = np.lib.stride_tricks.sliding_window_view(values, size)
    return every[start:stop]


@pytest.mark.parametrize("size", [2, 5, 12])
def test_the_moments_are_the_products_of_all_windows_in_all_ranges(size: int) -> None:
    short, long = 3 + normal(20, 2), 100 + normal(90, 2, seed=1)
    parts = [(short, 2, 9), (long, 0, 90 - size + 1), (short, 4, 4), (long, 7, 3), (long, 30, 31)]
    for channel in range(2):
        rows = np.concatenate(
            [windows(values[:, channel], size, start, stop) for values, start, stop in parts if stop > start]
        )
        expected = rows.T @ rows
        found = gram(parts, channel, size)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_array_equal(found, found.T)


def test_no_window_gives_no_moments() -> None:
    for parts in ([], [(normal(20, 1), 5, 5)]):
        np.testing.assert_array_equal(gram(parts, 0, 4), np.zeros((4, 4)))


@pytest.mark.parametrize("centre", ["mean", "last"])
@pytest.mark.parametrize("length", [3, 8])
def test_coefficients_are_those_of_ridge_regression_on_centred_contexts(centre: str, length: int) -> None:
    context, horizon, ridge = 8, 4, 0.05
    values = autoregressive(200, level=5.0)
    rows = windows(values, context + horizon)
    past, future = rows[:, context - length : context], rows[:, context:]
    level = past.mean(1, keepdims=True) if centre == "mean" else past[:, -1:]
    x, y = past - level, future - level
    problem = Problem(gram([(values[:, None], 0, len(rows))], 0, context + horizon), context, length, centre)
    alpha = ridge * np.trace(x.T @ x) / length
    expected = Ridge(alpha, fit_intercept=False).fit(x, y).predict(x) + level
    matrix = problem.solved(ridge)
    assert matrix.shape == (context, horizon) and not matrix[: context - length].any()
    np.testing.assert_allclose(rows[:, :context] @ matrix, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_a_forecast_moves_with_the_level_and_the_scale_of_its_context(centre: str) -> None:
    values = autoregressive(300)
    matrix = Problem(gram([(values[:, None], 0, 289)], 0, 12), 8, 8, centre).solved(0.01)
    history = windows(values, 8)[::20]
    np.testing.assert_allclose((40 * history - 700) @ matrix, 40 * (history @ matrix) - 700, rtol=0, atol=1e-9)
    np.testing.assert_allclose(matrix.sum(0), 1, rtol=0, atol=1e-12)


def test_an_autoregressive_process_is_forecast_nearly_as_well_as_by_who_knows_it() -> None:
    context, horizon = 48, 4
    values = autoregressive(20_000)
    moments = gram([(values[:, None], 0, 20_000 - 51)], 0, context + horizon)
    matrix = Problem(moments, context, context, "mean").solved(1e-4)
    rows = windows(autoregressive(4_000, seed=1), context + horizon)
    history, future = rows[:, :context], rows[:, context:]
    steps = [history[:, -2], history[:, -1]]
    for _ in range(horizon):
        steps.append(1.3 * steps[-1] - 0.6 * steps[-2])
    missed, least = ((found - future) ** 2 for found in (history @ matrix, np.stack(steps[2:], 1)))
    assert (missed.mean(0) < 1.1 * least.mean(0)).all()
    assert least.mean() < 0.7 * future.var(), "there is something to forecast"


def test_a_strong_pull_gives_the_base_and_a_weak_one_the_own_coefficients() -> None:
    base_of, own = autoregressive(300), normal(300, seed=3)
    moments = [gram([(values[:, None], 0, 290)], 0, 11) for values in (base_of, own)]
    base = Problem(moments[0], 8, 8, "mean").solved(1e-3)
    problem = Problem(moments[1], 8, 8, "mean")
    np.testing.assert_allclose(problem.solved(1e9, base), base, rtol=0, atol=1e-6)
    np.testing.assert_allclose(problem.solved(1e-9, base), problem.solved(1e-9), rtol=0, atol=1e-6)


def test_squared_errors_are_those_over_all_windows() -> None:
    values, matrix = 7 + normal(120), normal(6, 4, seed=2)
    rows = windows(values, 10)
    expected = ((rows[:, :6] @ matrix - rows[:, 6:]) ** 2).sum(0)
    found = squared_errors(matrix, gram([(values[:, None], 0, len(rows))], 0, 10), 6)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_naive_matrices_repeat_the_last_step_or_the_last_season() -> None:
    history = np.arange(10.0)
    assert (history @ naive_matrix("last", 10, 4)).tolist() == [9.0] * 4
    assert (history @ naive_matrix(3, 10, 8)).tolist() == [7.0, 8.0, 9.0, 7.0, 8.0, 9.0, 7.0, 8.0]
    assert (history @ naive_matrix(10, 10, 12)).tolist() == [*range(10), 0.0, 1.0]


@pytest.mark.parametrize("season", [0, 8])
@pytest.mark.parametrize("horizon", [1, 5, 48])
def test_members_are_believed_by_their_errors_in_blocks_of_the_horizon(horizon: int, season: int) -> None:
    errors = 1 + np.random.default_rng(0).random((3, horizon))
    weights = blend(errors, season)
    assert weights.shape == (3, horizon) and (weights > 0).all()
    np.testing.assert_allclose(weights.sum(0), 1)
    np.testing.assert_allclose(blend(np.ones((3, horizon)), season), 1 / 3)
    order = np.argsort(errors.sum(1))
    if horizon == 1:
        assert np.argsort(-weights[:, 0]).tolist() == order.tolist()


def test_a_member_is_believed_where_it_is_better_and_not_elsewhere() -> None:
    errors = np.ones((2, 48))
    errors[0, :2], errors[1, 14:] = 0.5, 0.5
    weights = blend(errors, season=8)
    assert (weights[0, :2] > 0.99).all() and (weights[1, 14:] > 0.99).all()


def test_a_perfect_member_is_believed_alone() -> None:
    weights = blend(np.array([[1e-9, 1e-9], [1.0, 1.0]]), season=0)
    np.testing.assert_allclose(weights, [[1.0, 1.0], [0.0, 0.0]], rtol=0, atol=1e-12)


def test_symmetric_equations_are_solved_whether_they_are_definite_or_not() -> None:
    right = np.random.default_rng(0).normal(size=(3, 2))
    for left in (np.diag([1.0, 2, 3]) + 0.1, np.diag([1.0, -2, 3]) + 0.1):
        np.testing.assert_allclose(left @ solved_symmetric(left, right), right, atol=1e-12)


def test_origins_are_halved_in_the_middle_of_those_that_judge() -> None:
    later = in_later_half(np.arange(40, 91), 100, 40, 20, 10)
    assert later.sum() == 25 and bool(later[-25:].all())
    np.testing.assert_array_equal(in_later_half(np.arange(60, 91), 100, 40, 60, 10), np.arange(60, 91) > 75)


def test_series_are_judged_by_weights_that_their_own_origins_did_not_choose() -> None:
    """One series of six stops repeating its season half-way through its origins: each half chooses for the other."""
    rng = np.random.default_rng(0)
    season, horizon, split, middle, n_steps = 6, 24, 120, 168, 240
    wave = np.tile(rng.normal(size=season), n_steps // season)
    series = [(wave + 0.05 * rng.normal(size=n_steps))[:, None] for _ in range(6)]
    series[0][middle:] = series[0][middle] + 0.3 * np.cumsum(rng.normal(size=(n_steps - middle, 1)), 0)
    final, early = Linear.fit(series, [split] * 6, horizon, [horizon], season)
    assert final.weights.shape[0] == 7 and early.weights.shape[0] == 13
    last = 0
    assert float(early.weights[0, last].mean()) > 3 * float(early.weights[6, last].mean())
    assert torch.equal(final.weights[-1], early.weights[-1])
