"""Hide runs of observed cells, complete them, and learn where the straight line across a gap does better.

Contract: what is judged is what `impute` answers: windows and prior together, runs longer than a window among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tabmae.estimators.series.completing import Beyond, LinePrior, complete
from tabmae.estimators.series.fitting import Judgement
from tabmae.estimators.series.intervals import JudgedCells, steps_to_visible
from tabmae.estimators.series.standard import Matrix, laid_out
from tabmae.experts.bridges import Bridge, Bridges, HeldOut, bridged
from tabmae.experts.seasonal import Seasonal
from tabmae.series_model import SeriesAutoencoder

N_ROUNDS = 4
"""Rounds that hide every run of a series once, one in four at a time."""
N_BLOCKS = 16
"""Blocks of runs, each a window at least, that are hidden of a length."""
LEAST_RUNS = 4
"""Runs of a length that the longest series must hold."""
FAR = 4
"""Windows up to which the lengths of runs go."""
MAX_CELLS = 400_000
"""Cells of the series in which runs are hidden, the last ones of the longest series."""


def learnt_bridges(
    model: SeriesAutoencoder, seasonal: Seasonal, series: Sequence[Matrix], seed: int
) -> tuple[Bridges, JudgedCells]:
    """Bridges learnt from the observed cells of series (T, C), in standard deviations, NaN where missing.

    Also the cells that taught, with what is believed of them then.
    """
    n_channels, window = model.n_channels, model.window
    chosen = some_of(series)
    lengths = run_lengths(max(map(len, chosen)), window)
    generator = np.random.default_rng(seed)
    parts = [
        hidden_cells(model, seasonal, chosen, hidden)
        for length in lengths
        for helped in ((False, True) if n_channels > 1 else (False,))
        for hidden in hidden_runs(chosen, length, window, generator, helped=helped)
    ]
    cells = HeldOut(*(np.concatenate(part) for part in zip(no_cells(), *parts, strict=True)))
    bridges = Bridges.fit(cells, len(lengths), n_channels, window)
    return bridges, judged_cells(cells, bridges)


def some_of(series: Sequence[Matrix]) -> list[Matrix]:
    """The longest series, cut to their last steps, that make up `MAX_CELLS`."""
    most = max(1, MAX_CELLS // series[0].shape[1])
    found: list[Matrix] = []
    for values in sorted(series, key=len, reverse=True):
        left = most - sum(map(len, found))
        if left < len(values) and found:
            break
        found.append(values[-left:])
    return found


def run_lengths(longest: int, window: int) -> list[int]:
    """Lengths of the runs to hide: doubling, up to a fourth of the longest series and to `FAR` windows."""
    found = [1]
    while 2 * found[-1] * LEAST_RUNS <= longest and found[-1] < FAR * window:
        found.append(2 * found[-1])
    return found if longest > LEAST_RUNS else []


def hidden_runs(
    series: Sequence[Matrix], length: int, window: int, generator: np.random.Generator, *, helped: bool
) -> Iterator[list[NDArray[np.bool_]]]:
    """Cells to hide (T, C) of each series, some at a time: runs of all channels, or of half of them where `helped`."""
    n_channels = series[0].shape[1]
    span = N_ROUNDS * length * max(1, -(-window // (N_ROUNDS * length)))
    blocks = [(i, begin) for i, values in enumerate(series) for begin in range(0, len(values), span)]
    units = [(*block, turn) for block in blocks for turn in range(N_ROUNDS)]
    if len(units) > N_BLOCKS:
        units = [units[i] for i in np.linspace(0, len(units) - 1, N_BLOCKS).round().astype(int)]
    for turn in range(N_ROUNDS):
        hidden = [np.zeros(values.shape, dtype=bool) for values in series]
        for i, begin, own in units:
            if own == turn:
                taken = generator.permutation(n_channels)[: n_channels // 2] if helped else slice(None)
                step = np.arange(begin, min(begin + span, len(series[i])))
                number = step // length
                hidden[i][step[(number + number // N_ROUNDS) % N_ROUNDS == turn][:, None], taken] = True
        if any(part.any() for part in hidden):
            yield hidden


def hidden_cells(
    model: SeriesAutoencoder, seasonal: Seasonal, series: Sequence[Matrix], hidden: Sequence[NDArray[np.bool_]]
) -> HeldOut:
    """What is believed of the observed cells among the hidden ones, and what their bridges say."""
    pairs = [(values, cells) for values, cells in zip(series, hidden, strict=True) if cells.any()]
    left = [np.where(cells, np.nan, values) for values, cells in pairs]
    values, cells = (np.concatenate(part) for part in zip(*pairs, strict=True))
    line = laid_out(np.concatenate(left), tuple(map(len, left)), model.window)
    wanted = torch.zeros_like(line.observed)
    wanted[line.place] = torch.from_numpy(cells & np.isfinite(values))
    found = complete(model, line, Beyond(LinePrior.of(line, seasonal.prior(left))), wanted.any(1))
    bridge = bridged(line.values, line.observed, line.owner)
    truth = torch.zeros_like(line.values)
    truth[line.place] = torch.from_numpy(values).nan_to_num().to(truth)
    step, channel = torch.nonzero(wanted & (bridge.gap > 0), as_tuple=True)
    nearest, alone = steps_to_visible(line.observed), ~line.observed.any(1, keepdim=True).expand_as(wanted)
    fold = (line.observed != line.observed.roll(1, 0)).cumsum(0).div(2, rounding_mode="floor") % 2
    number = torch.arange(model.n_channels).expand(wanted.shape)
    parts = truth, found.mean, found.deviation, bridge.mean, bridge.gap, bridge.apart, nearest, fold, alone, number
    return HeldOut(*(part[step, channel].numpy() for part in parts))


def judged_cells(cells: HeldOut, bridges: Bridges) -> JudgedCells:
    """What is believed of held-out cells in the end, for intervals to be calibrated."""
    value, answer, deviation, mean, gap, apart, nearest, _, alone, channel = map(torch.from_numpy, cells)
    found, wide = bridges.blended(answer, deviation, Bridge(mean, gap, apart), alone, channel)
    return JudgedCells(value - found, wide, nearest, channel)


def bridged_judgement(judgement: Judgement, bridges: Bridges) -> Judgement:
    """Held-out cells of windows, with what is believed of them once their gaps are bridged."""
    visible = judgement.visible
    alone = ~visible.any(2, keepdim=True).expand_as(visible)
    bridge = bridged(judgement.values, visible)
    mean, deviation = bridges.inform(judgement.mean, judgement.deviation, bridge, alone)
    return judgement._replace(mean=mean, deviation=deviation)


def no_cells() -> HeldOut:
    """None, of the right kinds."""
    none, whole = np.zeros(0), np.zeros(0, dtype=np.int64)
    return HeldOut(none, none, none, none, whole, none, whole, whole, np.zeros(0, dtype=bool), whole)
