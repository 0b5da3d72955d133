"""How wide forecasts are: residuals at the origins that judged, over the deviation of what was known before them.

Contract: the less is known of a history, the wider; what few origins cannot tell is assumed, not read from extremes.
"""

from __future__ import annotations

import torch
from scipy.stats import chi2, norm
from scipy.stats import t as student_t
from torch import Tensor

from tabmae.estimators.series.origins import Origins

LEAST_SCALE = 0.05
STRIDE_OF_REPEATS = 7919
"""A prime, so that residuals which are repeated in turn come from everywhere."""
PRIOR_ORIGINS = (1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)
"""Origins of all series that count for those of one in its own width."""
NEIGHBOURS = 2
"""Steps of the horizon to either side that lend a step their residuals."""
ENOUGH = 60
"""Independent residuals from which on their quantiles are believed alone."""
LEAST_DEGREES = 3.0
"""Degrees of freedom of Student's t at least: paths of many steps tell more than their number says."""
PRIOR_PAIRS = 8.0
"""Pairs of residuals of a random walk that stand beside those by which a correlation is judged."""
PRIOR_STEPS = 5.0
"""Steps of a typical deviation that stand beside those of an empty history."""
JUDGED_LEVELS = (0.8, 0.95)
"""Shares of residuals that are to be held alike after short histories and after long ones."""


def local_scale(history: Tensor, observed: Tensor, typical: Tensor, share: Tensor) -> Tensor:
    """Standard deviation (n, 1, C) of the observed cells of histories (n, T, C).

    As far as fewer are known than usual, it is drawn to the typical one (C,): few cells lie close together by chance.
    `share` : (C,), of the cells that are usually observed.
    """
    shown = observed.to(history)
    count = shown.sum(1)
    mean = (history * shown).sum(1) / count.clamp_min(1)
    spread = ((history - mean[:, None]).square() * shown).sum(1)
    own = (spread / (count - 1).clamp_min(1)).sqrt().maximum(LEAST_SCALE * typical)
    drawn = drawn_to_usual(observed, share)
    return (own ** (1 - drawn) * typical**drawn).clamp_min(LEAST_SCALE)[:, None]


def drawn_to_usual(observed: Tensor, share: Tensor) -> Tensor:
    """How far the scale of a history (n, C) is drawn to the usual one, as of `local_scale`; 1 without two cells."""
    count = observed.sum(1).float()
    lacking = PRIOR_STEPS * (1 - count / (share * observed.shape[1])).clamp_min(0)
    drawn = lacking / ((count - 1).clamp_min(0) + lacking).clamp_min(1e-9)
    return torch.where(count < 2, 1.0, drawn)


def known_lengths(context: int) -> list[int]:
    """Lengths of histories after which forecasts are judged: none, one, and twice as many up to the context."""
    return [0, *(2**power for power in range(context.bit_length()) if 2**power < context)]


def at_lengths(table: Tensor, context: int, n_known: Tensor) -> Tensor:
    """Values (n, 1, C) of a table (lengths + 1, C) over `known_lengths` and the context for (n, C) known steps."""
    grid = torch.tensor([*known_lengths(context), context], dtype=torch.float32)
    known = n_known.clamp(0, context)
    high = torch.searchsorted(grid, known).clamp(1, len(grid) - 1)
    start, end = grid[high - 1].log1p(), grid[high].log1p()
    part = (known.log1p() - start) / (end - start)
    return (table.gather(0, high - 1) * (1 - part) + table.gather(0, high) * part)[:, None]


def doubt_after(short: list[Tensor], whole: list[Tensor]) -> Tensor:
    """How much wider forecasts are after each short history, and the whole one, (lengths + 1, C); 1 at least.

    short, whole : residuals over their scale (n, H, C) of the same origins after histories of a length and whole ones.
    More steps are never thought to tell less.
    """
    ratios = []
    for one, other in zip(short, whole, strict=True):
        sizes = torch.stack([torch.stack([size_at(part, level) for level in JUDGED_LEVELS]) for part in (one, other)])
        ratios.append((sizes[0] / sizes[1].clamp_min(1e-6)).nan_to_num(1.0, posinf=1.0).amax(0))
    table = torch.stack([*ratios, torch.ones_like(ratios[0])]).clamp_min(1)
    return table.flip(0).cummax(0).values.flip(0)


def size_at(residual: Tensor, level: float) -> Tensor:
    """Quantile (C,) of the sizes of residuals (n, H, C), NaN where none is known."""
    if not len(residual):
        return torch.full((residual.shape[2],), torch.nan)
    return residual.abs().flatten(0, 1).nanquantile(level, dim=0)


def independent_residuals(scaled: Tensor, origins: Origins) -> Tensor:
    """How many independent residuals (H,) lie behind the width of each step; at least 1.

    Origins less than a step's distance apart miss together, and neighbouring steps do. n residuals whose correlations
    are r tell as much of their size as n / (1 + 2 sum of r squared) independent ones, and never more than there are
    steps that were foretold. What few pairs cannot tell of r is assumed to be as of a random walk.
    """
    cells = scaled.nan_to_num(0.0)
    n, horizon, _ = cells.shape
    ahead = torch.arange(1.0, horizon + 1)
    shared = torch.zeros(horizon)
    for apart in range(1, n):
        lag = origins.step[apart:] - origins.step[:-apart]
        near = (origins.series[apart:] == origins.series[:-apart]) & (lag < horizon)
        if not bool(near.any()):
            break
        n_pairs = int(near.sum())
        walk = (1 - float(lag[near].float().mean()) / ahead).clamp_min(0) ** 2
        found = correlation(cells[apart:][near], cells[:-apart][near], n_pairs).where(walk > 0, 0.0)
        shared += n_pairs / n * (n_pairs * found + PRIOR_PAIRS * walk) / (n_pairs + PRIOR_PAIRS)
    across = 0.0
    width = min(horizon, 2 * NEIGHBOURS + 1)
    for apart in range(1, width):
        found = correlation(cells[:, apart:].flatten(1)[..., None], cells[:, :-apart].flatten(1)[..., None], n).mean()
        across += (1 - apart / width) * (n * float(found) + PRIOR_PAIRS) / (n + PRIOR_PAIRS)
    same = torch.cat([torch.zeros(1, dtype=torch.bool), origins.series[1:] == origins.series[:-1]])
    gap = torch.cat([torch.zeros(1, dtype=torch.long), origins.step[1:] - origins.step[:-1]])
    foretold = gap.where(same, width).clamp_max(width).sum()
    told = (~scaled.isnan()).any(2).sum(0) / (1 + 2 * shared) * width / (1 + 2 * across)
    return told.clamp(min=1, max=max(1.0, float(foretold)))


def correlation(one: Tensor, other: Tensor, n: int) -> Tensor:
    """Squared correlation (H,) about zero of residuals (n, H, C), less what it is by chance."""
    both = (one * other).sum((0, 2)).square()
    size = one.square().sum((0, 2)) * other.square().sum((0, 2))
    return (both / size.clamp_min(1e-12) - 1 / n).clamp_min(0)


def quantiles(paths: Tensor, levels: list[float], horizon: int, told: Tensor, expected: float = 0.0) -> Tensor:
    """Quantiles (len(levels), horizon, C) of residual paths (n, H, C); wider beyond the fitted horizon.

    `told` : (H,), independent residuals of each step; `expected` : for how many more the expected paths count. Where
    they are few, they know neither the side that they err to nor how far they may: quantiles are those of Student's t
    about zero, which also say how much wider all of them are than those of a law that is known. The forecast itself
    lies between those of either side.
    """
    fitted = min(horizon, paths.shape[1])
    found = torch.empty(len(levels), horizon, paths.shape[2])
    for step in range(fitted):
        near = paths[:, max(0, step - NEIGHBOURS) : step + NEIGHBOURS + 1].flatten(0, 1)
        size = near.square().mean(0).sqrt()
        n = float(told[step]) + expected
        believed = min(1.0, float(told[step]) / ENOUGH)
        # the share of n residuals that one more is held at
        outward = [level * (1 + 1 / n) if level > 0.5 else 1 - (1 - level) * (1 + 1 / n) for level in levels]
        asked = torch.tensor(outward).clamp(0, 1)
        empirical = torch.quantile(near, asked, dim=0)
        for k, level in enumerate(levels):
            of_few = float(student_t.ppf(level, max(LEAST_DEGREES, n - 1))) * (1 + 2 / n) ** 0.5
            wider = of_few / float(norm.ppf(level)) if level != 0.5 else 1.0
            found[k, step] = believed * wider * empirical[k] + (1 - believed) * of_few * size
    for k, level in enumerate(levels):
        found[k] = found[k].clamp(max=0) if level < 0.5 else found[k].clamp(min=0)
    for step in range(fitted, horizon):
        found[:, step] = found[:, fitted - 1] * ((step + 1) / fitted) ** 0.5
    return found


def drawn_of(paths: Tensor, told: Tensor, generator: torch.Generator, expected: float = 0.0) -> Tensor:
    """Residual paths (n, H, C) as far to either side as `quantiles` says, steps and channels of a path together."""
    known = float(told.mean())
    n = known + expected
    degrees = max(LEAST_DEGREES, n - 1)
    flipped = torch.rand(len(paths), generator=generator) < (1 - min(1.0, known / ENOUGH)) / 2
    certain = torch.rand(len(paths), generator=generator).clamp(1e-6, 1 - 1e-6).numpy()
    wider = torch.from_numpy(((1 + 2 / n) * degrees / chi2.ppf(certain, degrees)) ** 0.5).to(paths)
    return paths * torch.where(flipped, -wider, wider)[:, None, None]


def usual_residuals(n: int = 99) -> Tensor:
    """Quantiles of a normal residual, for channels that no origin has judged: as wide as their histories."""
    level = (torch.arange(n) + 0.5) / n
    return (2 * level - 1).erfinv() * 2**0.5


def gaps_drawn(residuals: Tensor) -> Tensor:
    """Residuals (n, H, C) whose unknown ones, NaN, repeat known ones of the channel in turn."""
    filled = residuals.clone()
    for c in range(residuals.shape[2]):
        cells = filled[:, :, c]
        unknown = cells.isnan()
        known = cells[~unknown] if not bool(unknown.all()) else usual_residuals()
        count = int(unknown.sum())
        cells[unknown] = known[(torch.arange(count) * STRIDE_OF_REPEATS) % len(known)].to(cells)
    return filled


def own_widths(scaled: Tensor, origins: Origins, n_series: int) -> tuple[Tensor, Tensor]:
    """Mean absolute residual of each series (n_series,), over that of all, and of the series of each origin (n,).

    The latter is by the origins that share no step with it: one that it had a part in would make its own residual look
    small. Both are drawn to 1 as far as such left-out ones foretell residuals best; where no series has two origins
    apart, nothing says that series differ.
    """
    size = scaled.abs().nanmean((1, 2))
    told, size = (~size.isnan()).float(), (size / size.nanmean().clamp_min(1e-9)).nan_to_num(0.0)
    count = torch.zeros(n_series).index_add_(0, origins.series, told)
    total = torch.zeros(n_series).index_add_(0, origins.series, size)
    others, left = count[origins.series] - told, total[origins.series] - size
    for apart in range(1, len(size)):
        near = (origins.series[apart:] == origins.series[:-apart]) & (
            origins.step[apart:] - origins.step[:-apart] < scaled.shape[1]
        )
        if not bool(near.any()):
            break
        for one, other in ((slice(apart, None), slice(None, -apart)), (slice(None, -apart), slice(apart, None))):
            others[one] -= near * told[other]
            left[one] -= near * size[other]
    judged, left = (told > 0) & (others > 0), left.clamp_min(0)
    if n_series == 1 or not bool(judged.any()):
        return torch.ones(n_series), torch.ones(len(size))

    def missed(prior: float) -> float:
        """Mean negative log density of the left-out origins under Laplace's law."""
        width = ((left + prior) / (others + prior))[judged]
        return float((width.log() + size[judged] / width).mean())

    prior = min(PRIOR_ORIGINS, key=missed)
    return (total + prior) / (count + prior), (left + prior) / (others + prior)
