"""The stationary Gaussian: the textbook's conditional for any hidden cells, and the covariances of real processes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tabmae.experts import stationary
from tabmae.experts.stationary import CLIP, Conditional, Stationary, block_toeplitz, clipped, lag_covariances

WINDOW, N_CHANNELS = 6, 2
SIZE = WINDOW * N_CHANNELS
TRANSITION = torch.tensor([[0.7, 0.2], [-0.3, 0.5]], dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def true_lags(n_lags: int) -> Tensor:
    """Give the lag covariances of the process x(t) = TRANSITION x(t - 1) + standard normal."""
    identity = torch.eye(N_CHANNELS**2, dtype=torch.float64)
    kron = torch.kron(TRANSITION, TRANSITION)
    start = torch.linalg.solve(identity - kron, torch.eye(N_CHANNELS, dtype=torch.float64).flatten())
    lags = [start.reshape(N_CHANNELS, N_CHANNELS)]
    for _ in range(1, n_lags):
        lags.append(lags[-1] @ TRANSITION.T)
    return torch.stack(lags)


def process(n_steps: int, seed: int = 0) -> Tensor:
    """Simulate the process from its stationary distribution."""
    x = torch.linalg.cholesky(true_lags(1)[0]) @ normal(N_CHANNELS, seed=seed + 1000)
    steps = []
    for noise in normal(n_steps, N_CHANNELS, seed=seed):
        x = TRANSITION @ x + noise
        steps.append(x)
    return torch.stack(steps)


def knowing(window: int = WINDOW) -> Stationary:
    """Give the expert that knows the truth."""
    return Stationary(window, N_CHANNELS)._set(true_lags(window), 1e-3)


def observed_of(values: Tensor, missing: float, seed: int = 5) -> Tensor:
    return torch.rand(values.shape, generator=seeded(seed)) >= missing


def textbook(covariance: Tensor, row: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Give the conditional mean and covariance of the invisible cells of one row."""
    hidden = ~visible
    weights = torch.linalg.solve(covariance[visible][:, visible], covariance[visible][:, hidden])
    return row[visible] @ weights, covariance[hidden][:, hidden] - covariance[hidden][:, visible] @ weights


def patterns() -> Tensor:
    """Visible cells of windows: all, none, one hidden, one visible, and few and many at random, some of them twice."""
    drawn = torch.rand(40, SIZE, generator=seeded(3)) < torch.linspace(0.05, 0.95, 40)[:, None]
    one = torch.arange(SIZE) == 4
    special = torch.stack([torch.ones(SIZE, dtype=torch.bool), torch.zeros(SIZE, dtype=torch.bool), one, ~one])
    return torch.cat([special, drawn, special, drawn[::3]])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("most", [None, 1, 300], ids=["at once", "one by one", "in chunks"])
def test_any_hidden_cells_get_the_textbook_conditional(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, atol: float, most: int | None
) -> None:
    if most is not None:
        monkeypatch.setattr(stationary, "MAX_GATHERED", most)
    expert, visible = knowing(), patterns()
    rows = normal(len(visible), SIZE, seed=2) @ torch.linalg.cholesky(expert.covariance).T
    found = expert.condition(rows.to(dtype), visible)
    assert found.mean.dtype == found.variance.dtype == found.left_out.dtype == dtype
    for i, seen in enumerate(visible):
        mean, spread = textbook(expert.covariance, rows[i], seen)
        torch.testing.assert_close(found.mean[i, ~seen].double(), mean, rtol=0, atol=atol)
        torch.testing.assert_close(found.variance[i, ~seen].double(), spread.diagonal(), rtol=0, atol=atol)
    assert torch.equal(found.mean[visible], rows.to(dtype)[visible])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-9), (torch.float32, 5e-4)])
def test_a_cell_left_out_gets_the_conditional_with_that_cell_hidden(dtype: torch.dtype, atol: float) -> None:
    expert, visible = knowing(), patterns()
    rows = (normal(len(visible), SIZE, seed=2) @ torch.linalg.cholesky(expert.covariance).T).to(dtype)
    found = expert.condition(rows, visible)
    for cell in range(SIZE):
        without = expert.condition(rows, visible & (torch.arange(SIZE) != cell))
        torch.testing.assert_close(found.left_out[:, cell], without.mean[:, cell], rtol=0, atol=atol)
        torch.testing.assert_close(found.variance[:, cell], without.variance[:, cell], rtol=0, atol=atol)


def test_windows_of_one_pattern_are_solved_once_and_each_gets_its_own_answer() -> None:
    expert = knowing()
    visible = torch.cat([patterns()[5:6].expand(30, -1), patterns()[20:21]])
    rows = normal(31, SIZE, seed=4)
    together = expert.condition(rows, visible)
    for i in range(31):
        alone = expert.condition(rows[i : i + 1], visible[i : i + 1])
        for one, all_rows in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], all_rows[i], rtol=1e-10, atol=1e-10)


def test_what_is_found_for_the_copies_that_pad_a_batch_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    expert, visible = knowing(), patterns()
    visible = torch.cat([visible[visible.any(1)], visible[:1].expand(5, -1), visible[4:5].expand(9, -1)])
    rows = normal(len(visible), SIZE, seed=4)
    expected = expert.condition(rows, visible)
    n_copies = 0

    def spoilt(solve: Callable[..., Conditional]) -> Callable[..., Conditional]:
        def answer(expert: Stationary, matrix: Tensor, values: Tensor, visible: Tensor) -> Conditional:
            nonlocal n_copies
            copies = (values == values[:, :1]).all(2) & (torch.arange(values.shape[1]) > 0)
            n_copies += int(copies.sum())
            found = solve(expert, matrix, values, visible)
            return Conditional(*(part.masked_fill(copies[:, :, None], torch.nan) for part in found))

        return answer

    for name in ("_by_precision", "_by_covariance"):
        monkeypatch.setattr(Stationary, name, spoilt(getattr(Stationary, name)))
    for part, same in zip(expert.condition(rows, visible), expected, strict=True):
        assert torch.equal(part, same)
    assert n_copies > 50


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -1e30])
def test_an_invisible_cell_is_never_read(junk: float) -> None:
    values = process(120)
    observed = observed_of(values, 0.3)
    changed = torch.where(observed, values, junk)
    one, other = (Stationary(WINDOW, N_CHANNELS).fit(cells, observed) for cells in (values, changed))
    for again in (False, True):
        if again:
            one.estimate_again(values, observed, 100)
            other.estimate_again(changed, observed, 100)
        assert torch.equal(one.covariance, other.covariance)
        visible = patterns()
        rows = normal(len(visible), SIZE, seed=6)
        spoilt = torch.where(visible, rows, junk)
        for part, same in zip(one.condition(rows, visible), other.condition(spoilt, visible), strict=True):
            assert torch.equal(part, same) and part.isfinite().all()


def test_a_windows_covariance_is_that_of_its_process() -> None:
    values = process(40_000)
    found = block_toeplitz(lag_covariances(values, torch.ones_like(values, dtype=torch.bool), WINDOW))
    windows = torch.stack([values[start : len(values) - WINDOW + start + 1] for start in range(WINDOW)], 1).flatten(1)
    torch.testing.assert_close(found, windows.T @ windows / len(windows), rtol=0, atol=0.01)
    torch.testing.assert_close(found, block_toeplitz(true_lags(WINDOW)), rtol=0, atol=0.08)
    steps = found.reshape(WINDOW, N_CHANNELS, WINDOW, N_CHANNELS)
    assert torch.equal(steps[1, :, 3], steps[2, :, 4]) and torch.equal(found, found.T)


def test_lag_covariances_of_an_incomplete_series_average_the_pairs_that_are_there() -> None:
    values = normal(50, 3)
    observed = observed_of(values, 0.4)
    found = lag_covariances(torch.where(observed, values, torch.nan), observed, 60)
    for lag in range(60):
        for i in range(3):
            for j in range(3):
                pairs = [
                    float(values[t, i] * values[t + lag, j])
                    for t in range(50 - lag)
                    if observed[t, i] and observed[t + lag, j]
                ]
                expected = sum(pairs) / len(pairs) if pairs else 0.0
                assert float(found[lag, i, j]) == pytest.approx(expected, abs=1e-12)


def test_filling_an_incomplete_series_gives_a_better_covariance_than_its_pairs() -> None:
    """The pairs of a series of which half is missing are few: rounds of filling draw on the others."""
    truth = Stationary(WINDOW, N_CHANNELS)._set(true_lags(WINDOW), 0.0)
    by_pairs, filled, best = [], [], []
    for seed in range(4):
        values = process(400, seed=seed)
        observed = observed_of(values, 0.5, seed=seed + 50)
        rows = process(WINDOW * 300, seed=seed + 100).reshape(300, SIZE)
        visible = torch.rand(300, SIZE, generator=seeded(seed)) < 0.5
        expert = Stationary(WINDOW, N_CHANNELS).fit(values, observed, ridge=1e-2)
        by_pairs.append(missed(expert, rows, visible))
        for _ in range(3):
            expert.estimate_again(values, observed, most=100)
        filled.append(missed(expert, rows, visible))
        best.append(missed(truth, rows, visible))
    assert sum(filled) < 0.95 * sum(by_pairs)
    assert sum(filled) < 1.12 * sum(best)


def missed(expert: Stationary, rows: Tensor, visible: Tensor) -> float:
    return float((expert.condition(rows, visible).mean - rows)[~visible].square().mean())


def test_series_apart_by_a_window_are_never_taken_for_neighbours() -> None:
    one, other = process(57, seed=1), 5 + process(57, seed=2)
    gap = torch.zeros(WINDOW, N_CHANNELS, dtype=torch.float64)
    values, observed = torch.cat([one, gap, other]), torch.cat([one, gap, other]) != 0
    found = lag_covariances(values, observed, WINDOW)
    for lag in range(WINDOW):
        pairs = [part[: 57 - lag, :, None] * part[lag:, None, :] for part in (one, other)]
        torch.testing.assert_close(found[lag], torch.cat(pairs).mean(0), rtol=1e-10, atol=1e-10)
    expert = Stationary(WINDOW, N_CHANNELS).fit(values, observed)
    before = expert.covariance
    torch.testing.assert_close(expert.estimate_again(values, observed, 100).covariance, before, rtol=0, atol=1e-9)


def test_refit_learns_from_all_steps_and_keeps_the_ridge() -> None:
    values = process(300)
    observed = torch.ones_like(values, dtype=torch.bool)
    early = torch.arange(300)[:, None].expand_as(values) < 200
    refitted = Stationary(WINDOW, N_CHANNELS).fit(values, early).set_ridge(0.1).refit(values, observed, 100)
    whole = Stationary(WINDOW, N_CHANNELS).fit(values, observed, ridge=0.1)
    assert refitted.ridge == 0.1 and torch.equal(refitted.covariance, whole.covariance)
    assert not torch.equal(refitted.covariance, Stationary(WINDOW, N_CHANNELS).fit(values, early, 0.1).covariance)


def test_the_ridge_is_the_noise_of_every_cell() -> None:
    lags = true_lags(WINDOW)
    expert = Stationary(WINDOW, N_CHANNELS)._set(lags, 0.25)
    expected = block_toeplitz(lags) + 0.25 * torch.eye(SIZE, dtype=torch.float64)
    torch.testing.assert_close(expert.covariance, expected)
    torch.testing.assert_close(expert.precision, torch.linalg.inv(expected))
    torch.testing.assert_close(expert.set_ridge(0.5).covariance, expected + 0.25 * torch.eye(SIZE, dtype=torch.float64))


def test_constant_and_equal_channels_are_conditioned_on_without_a_breakdown() -> None:
    x = process(200)[:, :1]
    values = torch.cat([x, x], 1)
    values[:, 1] = torch.where(torch.arange(200) % 2 == 0, x[:, 0], 0)
    for cells in (values, torch.cat([x, x], 1), torch.zeros(200, 2, dtype=torch.float64)):
        expert = Stationary(WINDOW, N_CHANNELS).fit(cells, torch.ones(200, 2, dtype=torch.bool))
        found = expert.condition(cells[:SIZE].T.reshape(2, SIZE).float(), patterns()[10:12])
        assert all(part.isfinite().all() for part in found) and (found.variance > 0).all()


def test_joint_noise_has_the_correlation_of_the_hidden_cells_given_the_visible_ones() -> None:
    expert = knowing()
    seen = torch.rand(SIZE, generator=seeded(8)) < 0.4
    _, spread = textbook(expert.covariance, torch.zeros(SIZE, dtype=torch.float64), seen)
    expected = spread / spread.diagonal().sqrt() / spread.diagonal().sqrt()[:, None]
    drawn = expert.joint_noise(seen.expand(4000, -1), seeded())
    assert not drawn[:, seen].any()
    torch.testing.assert_close(drawn[:, ~seen].T @ drawn[:, ~seen] / 4000, expected, rtol=0, atol=0.07)
    assert float((expected - torch.eye(len(expected), dtype=torch.float64)).abs().max()) > 0.4, (
        "there is something to see"
    )


def test_joint_noise_follows_its_generator_and_is_zero_where_nothing_is_hidden() -> None:
    visible = patterns()
    one, again, other = (knowing().joint_noise(visible, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert not one[visible.all(1)].any()


def test_eigenvalues_are_found_where_the_fastest_way_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.randn(30, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    singular = half @ half.T
    expected = clipped(singular)
    assert torch.linalg.eigvalsh(expected).min() == pytest.approx(CLIP)

    def given_up(matrix: Tensor) -> None:
        raise RuntimeError("linalg.eigh: The algorithm failed to converge")

    monkeypatch.setattr("torch.linalg.eigh", given_up)
    torch.testing.assert_close(clipped(singular), expected)
