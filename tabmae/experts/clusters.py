"""How far a window of series lies from those that are common: k-means on raw windows, or on their shapes.

Contract: a missing cell is never compared; a window's distance depends on that window and the centres alone.
"""

from __future__ import annotations

import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

N_CLUSTERS = 20
MAX_WINDOWS = 5000
"""Windows that the centres are learnt from; more are thinned at equal steps."""
CLIP = 4.0
"""Cells are learnt as at most so many standard deviations from the mean: a spike shall not have centres of its own."""
LEAST_SPREAD = 0.1
"""Standard deviation, in those of the channel, below which a window is flat: its noise is no shape."""
N_ITERATIONS = 50


class Clusters(nn.Module):
    """Centres of windows (W, C), steps first, and the squared distance to the nearest one.

    Parameters
    ----------
    n_channels : C. shapes : whether every channel of a window is brought to mean 0 and standard deviation 1 first.

    Buffer `centres` is float32 (K, W * C).

    Source: k-means of windows, as in Schmidl et al. 2022, "Anomaly detection in time series".
    Differs: cells are clipped before the centres are learnt, and missing cells are left out of a distance.

    >>> wave = torch.sin(torch.arange(400) / 5.0).unfold(0, 40, 1)
    >>> clusters = Clusters(1).fit(wave, torch.ones_like(wave, dtype=torch.bool), seed=0)
    >>> odd = torch.stack([wave[7], wave[7].flip(0) + 2])
    >>> near, far = clusters.distances(odd, torch.ones_like(odd, dtype=torch.bool))
    >>> bool(far > 20 * near)
    True
    """

    centres: Tensor

    def __init__(self, n_channels: int, *, shapes: bool = False) -> None:
        super().__init__()
        self.n_channels, self.shapes = n_channels, shapes
        self.register_buffer("centres", torch.zeros(0, 0))

    def fit(self, windows: Tensor, observed: Tensor, seed: int) -> Clusters:
        """Learn the centres.

        Parameters
        ----------
        windows : (n, W * C), in standard deviations, gaps filled. observed : bool (n, W * C); windows of which less
            than half is observed are left out, where there are others.
        """
        full = observed.double().mean(1) >= 0.5
        chosen = windows[full] if bool(full.any()) else windows
        chosen = chosen[:: max(1, -(-len(chosen) // MAX_WINDOWS))].clamp(-CLIP, CLIP)
        cells = self._scaled(chosen, torch.ones_like(chosen, dtype=torch.bool))
        n_clusters = min(N_CLUSTERS, len(torch.unique(cells, dim=0)))
        found = KMeans(n_clusters, n_init=1, max_iter=N_ITERATIONS, random_state=seed).fit(cells.numpy())
        self.centres = torch.from_numpy(found.cluster_centers_).float()
        return self

    def distances(self, windows: Tensor, observed: Tensor) -> Tensor:
        """Squared distance (n,) of windows (n, W * C) to the nearest centre, over their observed cells."""
        cells, seen = self._scaled(windows, observed), observed.to(windows.dtype)
        squares = seen @ self.centres.square().T - 2 * (cells * seen) @ self.centres.T
        return (squares.min(1).values + (cells * seen).square().sum(1)).clamp_min(0)

    def _scaled(self, windows: Tensor, observed: Tensor) -> Tensor:
        if not self.shapes:
            return windows
        cells = windows.unflatten(1, (-1, self.n_channels))
        seen = observed.unflatten(1, (-1, self.n_channels)).to(cells.dtype)
        count = seen.sum(1, keepdim=True).clamp_min(1)
        mean = (cells * seen).sum(1, keepdim=True) / count
        spread = (((cells - mean) * seen).square().sum(1, keepdim=True) / count).sqrt()
        return ((cells - mean) / spread.clamp_min(LEAST_SPREAD)).flatten(1)
