"""Claims about clusters of windows: what is common is near, gaps are not compared, and units of shapes do not count."""

import pytest
import torch
from torch import Tensor

from tabmae.experts.clusters import CLIP, MAX_WINDOWS, N_CLUSTERS, Clusters

PERIOD, WINDOW = 25, 50


def waves(n_steps: int = 600, seed: int = 0) -> Tensor:
    """All windows (n, W) of a noisy wave."""
    noise = torch.randn(n_steps, generator=torch.Generator().manual_seed(seed))
    return (torch.sin(2 * torch.pi * torch.arange(n_steps) / PERIOD) + 0.1 * noise).unfold(0, WINDOW, 1)


def all_of(windows: Tensor) -> Tensor:
    return torch.ones_like(windows, dtype=torch.bool)


@pytest.fixture(scope="module")
def raw() -> Clusters:
    return Clusters(1).fit(waves(), all_of(waves()), seed=0)


def test_a_distance_is_that_to_the_nearest_centre(raw: Clusters) -> None:
    windows = waves(seed=1)[:40] + 0.5
    wanted = torch.cdist(windows.double(), raw.centres.double()).square().min(1).values
    assert len(raw.centres) == N_CLUSTERS
    torch.testing.assert_close(raw.distances(windows, all_of(windows)).double(), wanted, rtol=1e-4, atol=1e-3)


def test_a_missing_cell_is_never_compared(raw: Clusters) -> None:
    windows = waves(seed=1)[:40].clone()
    observed = all_of(windows)
    observed[:, 10:20] = False
    near = raw.distances(windows, observed)
    windows[:, 10:20] = 1e3
    assert torch.equal(raw.distances(windows, observed), near)
    assert bool((near <= raw.distances(waves(seed=1)[:40], all_of(windows))).all())


def test_shapes_have_no_level_and_no_size_but_raw_windows_do(raw: Clusters) -> None:
    shapes = Clusters(1, shapes=True).fit(waves(), all_of(waves()), seed=0)
    windows = waves(seed=1)[:40]
    other = 3 * windows + 7
    near, far = (shapes.distances(part, all_of(part)) for part in (windows, other))
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-2)
    assert float(raw.distances(other, all_of(other)).min()) > 100 * float(raw.distances(windows, all_of(windows)).max())
    halted = windows.clone()
    halted[:, 20:40] = windows[:, 20:21]
    assert float(shapes.distances(halted, all_of(halted)).min()) > 2 * float(near.max())


def test_channels_have_shapes_of_their_own() -> None:
    both = torch.stack([waves(seed=0), 100 * waves(seed=1) + 5], 2).flatten(1)
    clusters = Clusters(2, shapes=True).fit(both, all_of(both), seed=0)
    assert float(clusters.distances(both, all_of(both)).mean()) < 0.1 * both.shape[1]


def test_noise_of_a_flat_window_is_no_shape() -> None:
    windows = torch.cat([waves(), 1e-3 * torch.randn(50, WINDOW, generator=torch.Generator().manual_seed(0))])
    clusters = Clusters(1, shapes=True).fit(windows, all_of(windows), seed=0)
    flat = 1e-3 * torch.randn(20, WINDOW, generator=torch.Generator().manual_seed(1))
    assert float(clusters.distances(flat, all_of(flat)).max()) < 0.1 * WINDOW


def test_a_spike_has_no_centre_of_its_own() -> None:
    series = torch.sin(2 * torch.pi * torch.arange(600) / PERIOD)
    series[300] = 1000.0
    windows = series.unfold(0, WINDOW, 1)
    clusters = Clusters(1).fit(windows, all_of(windows), seed=0)
    assert float(clusters.centres.abs().max()) <= CLIP
    distances = clusters.distances(windows, all_of(windows))
    assert float(distances[300 - WINDOW + 1 : 301].min()) > 1e5 > float(distances[:200].max())


def test_few_windows_many_windows_and_equal_ones_are_learnt_from() -> None:
    equal = torch.ones(30, 4)
    assert Clusters(1).fit(equal, all_of(equal), seed=0).centres.shape == (1, 4)
    many = torch.randn(MAX_WINDOWS + 500, 2, generator=torch.Generator().manual_seed(0))
    one, same = (Clusters(1).fit(many, all_of(many), seed=3).centres for _ in range(2))
    assert torch.equal(one, same)


def test_windows_that_are_mostly_missing_are_not_learnt_from() -> None:
    windows = torch.cat([waves(), torch.full((300, WINDOW), 3.0)])
    observed = all_of(windows)
    observed[-300:, : WINDOW // 2 + 1] = False
    centres = Clusters(1).fit(windows, observed, seed=0).centres
    assert float(centres.max()) < 2
